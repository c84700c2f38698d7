"""The command line. Importing this module imports click and nothing heavier: a command's module is loaded when it runs.

Exit codes: 0 all is well; 1 a problem was found or the command failed; 2 the command line is wrong; 130 interrupted by
Ctrl-C; 141 the reader of the output went away.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Final, NamedTuple

import click
from click.shell_completion import CompletionItem

from triage import __version__
from triage.errors import ConfigInvalid, Misconfigured, RulesInvalid, StoreUnavailable, TriageError


class _Entry(NamedTuple):
    task: str
    summary: str


COMMANDS: Final = {
    "run": _Entry("Run", "Take in results, decide, re-run or alert, until stopped."),
    "demo": _Entry("Run", "Show the whole thing at work on emulated services."),
    "emulate": _Entry("Run", "Serve Function Compute and SMQ on loopback, for trials."),
    "drill": _Entry("Run", "Send a marked failure all the way to a receiver."),
    "init": _Entry("Run", "Write a commented configuration and a folder of rules."),
    "status": _Entry("Look", "Show the totals: what came in, and where it stands."),
    "top": _Entry("Look", "Watch it live: lag, rates, groups, outbox, receivers."),
    "health": _Entry("Look", "Ask a running daemon whether it gets on."),
    "failures": _Entry("Look", "List failures; show the whole story of one."),
    "lineage": _Entry("Look", "Tell the story of a task: every attempt, and why."),
    "quarantine": _Entry("Look", "List messages that could not be read; show one."),
    "report": _Entry("Look", "Tell what a shift has to know."),
    "receivers": _Entry("Look", "List who is told, and how it went; try them."),
    "selfcheck": _Entry("Look", "Check that nothing was lost, done twice or left undone."),
    "rerun": _Entry("Act", "Run one task again, whatever became of it."),
    "approve": _Entry("Act", "Run again what a rule holds until a person decides."),
    "reject": _Entry("Act", "Leave at that what a rule holds."),
    "reruns": _Entry("Act", "See what is to be run again and why it waits; cancel it."),
    "switch": _Entry("Act", "Stop re-runs; let them go on."),
    "alerts": _Entry("Act", "List groups of alerts; acknowledge one; preview."),
    "silence": _Entry("Act", "Keep alerts quiet for a while; tell of them at its end."),
    "plan": _Entry("Act", "Plan to run many failures again; steer such plans."),
    "apply": _Entry("Act", "Run again what a plan holds, in careful steps."),
    "rules": _Entry("Rules", "Check rule files."),
    "queue": _Entry("Queue", "Send to, look into and serve the local queue."),
    "db": _Entry("Other", "Back up, restore, check and look at the store."),
    "config": _Entry("Other", "Show or check the settings in force."),
    "schema": _Entry("Other", "Print the JSON Schema of what triage reads."),
    "completion": _Entry("Other", "Print the completion script for a shell."),
    "version": _Entry("Other", "Print the versions in use."),
}
"""Every command: the task it stands under in the help, and one line. Its module is ``triage.cli.<name>``."""


class _Commands(click.Group):
    """Loads a command when it is called for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"triage.cli.{cmd_name}"), cmd_name)
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in COMMANDS:
            close = get_close_matches(name, COMMANDS, n=1)
            ctx.fail(f"No such command {name!r}." + (f" Did you mean {close[0]!r}?" if close else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        told = ""
        rows = []
        for name, entry in COMMANDS.items():
            rows.append((f"{'' if entry.task == told else entry.task:7}{name}", entry.summary))
            told = entry.task
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # The inherited method imports every command to ask for its help.
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [
            CompletionItem(name, help=entry.summary) for name, entry in COMMANDS.items() if name.startswith(incomplete)
        ] + options


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 well, 1 a problem was found or it failed, 2 wrong usage.",
)
@click.version_option(__version__, prog_name="triage", message="%(prog)s %(version)s")
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    envvar="TRIAGE_CONFIG",
    help="Settings; else $TRIAGE_CONFIG, /etc/triage/triage.toml.",
)
@click.pass_context
def cli(ctx: click.Context, config: str | None) -> None:
    """What happens after a serverless task fails. To see it work: triage demo"""
    ctx.obj = config


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. A user's mistake is told in words, never as a traceback."""
    try:
        code = cli.main(list(args) if args is not None else None, prog_name="triage", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain once more while it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (click.ClickException, click.Abort, KeyboardInterrupt, TriageError, OSError, BaseExceptionGroup) as error:
        return tell(error)
    return code if isinstance(code, int) else 0


def tell(error: BaseException) -> int:
    """Print what went wrong; returns the exit code. Raises the error when it is nobody's mistake but ours."""
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    leaves = list(_leaves(error))
    if all(isinstance(leaf, KeyboardInterrupt | click.Abort) for leaf in leaves):
        return 130
    told = [_told(leaf) for leaf in leaves]
    if not all(told):
        raise error
    for text in dict.fromkeys(told):
        click.echo(f"triage: {text}", err=True)
    return 1


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors of a group of tasks, one by one."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


_REMEDIES: Final = {
    errno.EADDRINUSE: "another process listens there; stop it or choose another port",
    errno.EADDRNOTAVAIL: "this machine does not have that address",
    errno.EACCES: "check owner and mode, or run as the user they belong to",
    errno.EPERM: "check owner and mode, or run as the user they belong to",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOSPC: "the disk is full",
    errno.ENOENT: "check the path; nothing can be made there",
    errno.ENOTDIR: "a part of the path is no folder",
    errno.EISDIR: "a folder is there",
    errno.EEXIST: "it exists already",
}


def _told(error: BaseException) -> str:
    """What to tell the user; empty when this is no mistake of theirs, so that the traceback is worth having."""
    if isinstance(error, ConfigInvalid):
        return f"the configuration cannot be used:\n{error}"
    if isinstance(error, RulesInvalid):
        return f"the rules cannot be used:\n{error}"
    if isinstance(error, StoreUnavailable):
        return f"the store cannot be used: {error}"
    if isinstance(error, Misconfigured):
        return f"{error} (until the configuration is changed this will not work)"
    if isinstance(error, TriageError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror} ({_REMEDIES[error.errno]})"
    return ""
