"""``triage quarantine``: list the messages that could not be read, show one."""

from __future__ import annotations

import base64
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from triage.cli.output import print_fields, print_json, print_table, settings_option
from triage.cli.storage import ask
from triage.log import printable

if TYPE_CHECKING:
    from triage.settings import Settings
    from triage.stores import QuarantineRow

_SHOWN: Final = 4096
"""Bytes of a body shown to a person; ``--raw`` gives all."""


@click.group()
def quarantine() -> None:
    """List messages that could not be read; show one."""


@quarantine.command("list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Most rows to show.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; the bodies are left out.")
@settings_option
def list_(*, settings: Settings, limit: int, as_json: bool) -> None:
    """List quarantined messages, newest first."""
    rows = ask(settings, lambda store: store.quarantined(limit=limit))
    if as_json:
        print_json([{**_without_body(row), "bytes": len(row.body)} for row in rows])
    elif rows:
        print_table(
            ("ID", "RECEIVED", "SOURCE", "REASON", "BYTES", "DETAIL"),
            [
                (row.id, row.received_at, row.source, row.reason, len(row.body), f"{row.where} {row.detail}".strip())
                for row in rows
            ],
        )
    else:
        click.echo("Nothing is in quarantine.", err=True)


@quarantine.command()
@click.argument("entry", metavar="ID", type=int)
@click.option("--raw", is_flag=True, help="Write the body as it was received, byte for byte.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, the body as text and as base64.")
@settings_option
def show(*, settings: Settings, entry: int, raw: bool, as_json: bool) -> None:
    """Show one quarantined message: what was wrong, where, and its body with control characters escaped."""
    if raw and as_json:
        raise click.UsageError("--raw and --json exclude each other.")
    row = ask(settings, lambda store: store.quarantine_entry(entry))
    if row is None:
        click.echo(f"triage: nothing in quarantine has the id {entry}. `triage quarantine list` shows them.", err=True)
        sys.exit(1)
    if raw:
        sys.stdout.buffer.write(row.body)
    elif as_json:
        print_json({**_without_body(row), "body": _text(row.body), "body_base64": base64.b64encode(row.body).decode()})
    else:
        print_fields({**_without_body(row), "bytes": len(row.body)})
        click.echo()
        for line in _text(row.body[:_SHOWN]).split("\n"):
            click.echo("  " + printable(line))
        if len(row.body) > _SHOWN:
            click.echo(f"\n  ... {len(row.body) - _SHOWN} more bytes; --raw gives all", err=True)


def _without_body(row: QuarantineRow) -> dict[str, Any]:
    return {name: value for name, value in asdict(row).items() if name != "body"}


def _text(body: bytes) -> str:
    return body.decode("utf-8", "backslashreplace")
