"""``triage alerts resend``: send messages again."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from triage.cli.output import print_json, settings_option, show
from triage.cli.people import person_options
from triage.cli.storage import ask

if TYPE_CHECKING:
    from triage.settings import Settings


@click.command()
@click.argument("code", required=False, default="")
@click.option("--dead", is_flag=True, help="All that were given up; with CODE those of them that have it.")
@person_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def resend(*, settings: Settings, code: str, dead: bool, by: str, reason: str, as_json: bool) -> None:
    """Send messages again: those with the short code CODE, or all that were given up.

    A message that was given up goes to the addresses of its receiver that did not take it, one that arrived to all of
    them. The text is the same, and so is its code. What is still being tried is left alone.
    """
    from triage.clock import SystemClock  # noqa: PLC0415

    if not (code or dead):
        raise click.UsageError("Say which: a CODE, as messages have it at the end of their title, or --dead.")
    now = SystemClock().now()
    sent = ask(settings, lambda store: store.resend(code=code, dead=dead, by=by, reason=reason, now=now))
    if as_json:
        print_json([asdict(message) for message in sent])
    for message in [] if as_json else sent:
        click.echo(f"#{show(message.code)} to {show(message.receiver)} is sent again: {show(message.title)}")
    if not sent:
        what = f"no message #{show(code.removeprefix('#'))} is over" if code else "no message was given up"
        click.echo(f"triage: {what}; `triage receivers list` tells what is under way.", err=True)
        sys.exit(1)
