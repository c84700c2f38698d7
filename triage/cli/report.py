"""``triage report``: what a shift has to know."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from triage.cli.output import Instant, print_json, settings_option
from triage.cli.storage import ask

if TYPE_CHECKING:
    from triage.settings import Settings


@click.command()
@click.option("--since", type=Instant(), default="8h", show_default=True, help="From when on: 8h, or a time.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "html", "json"]),
    default="text",
    show_default=True,
    help="What it is written as.",
)
@settings_option
def report(*, settings: Settings, since: datetime, form: str) -> None:
    """Tell what a shift has to know: what failed and is open, what waits for a decision, what healed without anybody
    being told, what re-runs were spent, what is stopped or silenced, which rules are busy or idle, which messages could
    not be delivered.
    """
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.report import Form, plain, rendered  # noqa: PLC0415
    from triage.reporting import report as gather  # noqa: PLC0415

    now = SystemClock().now()
    allowance = settings.reruns.guards.budget
    found = ask(settings, lambda store: gather(store, since=since, now=now, allowance=allowance))
    if form == Form.JSON:
        print_json(plain(found))
    else:
        click.echo(rendered(found, Form(form)))
