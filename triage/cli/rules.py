"""``triage rules``: the commands about rule files. Each is in a module of its own, loaded when it is called for."""

from __future__ import annotations

from importlib import import_module
from typing import Final, NamedTuple

import click


class _Entry(NamedTuple):
    module: str
    summary: str


COMMANDS: Final = {
    "check": _Entry("rules_check", "Find mistakes in rule files, and what is hardly meant."),
    "test": _Entry("rules_cases", "Run the test cases beside the rules."),
    "explain": _Entry("rules_explain", "Say why a result was decided the way it was."),
    "backtest": _Entry("rules_backtest", "Show what other rules would have made of stored failures."),
    "suggest": _Entry("rules_suggest", "Draft a rule and its test case from real failures."),
    "promote": _Entry("rules_promote", "Show what a rule in shadow mode would have done."),
    "stats": _Entry("rules_stats", "Count how often each rule has applied."),
    "show": _Entry("rules_show", "Print the rules in force, or a rule set that is kept."),
    "schema": _Entry("rules_schema", "Print the JSON Schema of rule and case files."),
}
"""Every command: its module in ``triage.cli``, in which it has its own name, and one line."""


class _Rules(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"triage.cli.{COMMANDS[cmd_name].module}"), cmd_name)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.group(cls=_Rules)
def rules() -> None:
    """Check, test and explain rules."""
