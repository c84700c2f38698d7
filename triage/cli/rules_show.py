"""``triage rules show``: a rule set that is kept, as it was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from triage.cli.output import print_json, print_table, settings_option, show_time
from triage.cli.storage import ask

if TYPE_CHECKING:
    from triage.rules.model import SourceText
    from triage.settings import Settings
    from triage.stores import KeptRules, RulesState, Store

    _RuleSet = tuple[str, tuple[SourceText, ...]]


@click.command()
@click.argument("digest", required=False)
@click.option("--list", "list_all", is_flag=True, help="List all that are kept, instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def show(*, settings: Settings, digest: str | None, list_all: bool, as_json: bool) -> None:
    """Print the rules in force, or those with this DIGEST; its first characters will do.

    Every rule set that was ever in force is kept, and every decision names the digest of its own.
    """
    if list_all and digest is not None:
        raise click.UsageError("--list takes no DIGEST.")

    async def find(
        store: Store,
    ) -> tuple[list[KeptRules], RulesState | None, _RuleSet | None]:
        return await store.kept_rules(), await store.rules_state(), await store.rule_set(digest)

    kept, state, found = ask(settings, find)
    in_force = state.digest if state else ""
    if list_all:
        _list(kept, in_force, as_json=as_json)
    elif found is None:
        named = f"no single rule set begins with {digest!r}" if digest else "no rules have been in force yet"
        raise click.ClickException(f"{named}; `triage rules show --list` shows what is kept.")
    elif as_json:
        files = [{"name": source.name, "text": source.text} for source in found[1]]
        print_json({"digest": found[0], "in_force": found[0] == in_force, "files": files})
    else:
        _print(*found, is_in_force=found[0] == in_force)


def _list(kept: list[KeptRules], in_force: str, *, as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {"digest": rules.digest, "loaded_at": rules.loaded_at, "files": rules.files}
                | {"in_force": rules.digest == in_force}
                for rules in kept
            ]
        )
        return
    rows = [
        (
            rules.digest[:12],
            show_time(rules.loaded_at),
            "yes" if rules.digest == in_force else "",
            ", ".join(rules.files),
        )
        for rules in kept
    ]
    print_table(("DIGEST", "FIRST LOADED", "IN FORCE", "FILES"), rows)


def _print(digest: str, sources: tuple[SourceText, ...], *, is_in_force: bool) -> None:
    """The files one after the other. What is no text of theirs goes to standard error."""
    click.echo(f"rules {digest}{', in force' if is_in_force else ''}", err=True)
    for source in sources:
        if len(sources) > 1:
            click.echo(f"# ---- {source.name}")
        # Written by people of the house, and to be used again: no character is escaped.
        click.echo(source.text, nl=not source.text.endswith("\n"))
