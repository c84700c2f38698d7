"""``triage lineage``: the story of one task, from its first failure on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from triage.cli.output import print_json, print_lines, print_table, settings_option, show, show_time
from triage.cli.storage import ask

if TYPE_CHECKING:
    from triage.settings import Settings


@click.command()
@click.argument("request_id")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, complete.")
@settings_option
def lineage(*, settings: Settings, request_id: str, as_json: bool) -> None:
    """Tell the story of a failure and all its re-runs: what came, what was decided and by which rule, what was
    submitted and what came of it, who was told, who did what and why.

    Any request id or task id of it will do, also its first characters if no other lineage has one that begins so.
    """
    from triage.cli import telling  # noqa: PLC0415

    story = ask(settings, lambda store: store.story(request_id))
    if story is None:
        click.echo(
            f"triage: no single lineage has the request id {request_id!r}. `triage failures list` shows them.", err=True
        )
        sys.exit(1)
    if as_json:
        print_json(telling.as_json(story))
        return
    own = story.lineage or {"state": "never run again", "attempt": 0}
    click.echo(f"{show(story.root)}  {own['state']}\n")
    print_table(
        ("ATTEMPT", "ORIGIN", "REQUEST ID", "SUBMITTED", "RESULT", "AT"),
        [
            (each.number or "first", each.origin, each.request_id, each.submitted_at, each.result, each.result_at)
            for each in telling.attempts(story)
        ],
    )
    click.echo()
    coming = False
    for each in telling.happenings(story):
        if each.to_come and not coming:
            click.echo("\nto come")
            coming = True
        print_lines([f"{show_time(each.at)}  {'' if each.to_come else each.what:<11}{show(each.detail)}"])
