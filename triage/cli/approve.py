"""``triage approve``: run again what a rule holds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from triage.cli.output import settings_option
from triage.cli.people import person_options

if TYPE_CHECKING:
    from triage.settings import Settings


@click.command()
@click.argument("names", metavar="CODE|REQUEST_ID...", nargs=-1, required=True)
@person_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def approve(*, settings: Settings, names: Sequence[str], by: str, reason: str, as_json: bool) -> None:
    """Run failures again that a rule holds until a person decides.

    Each is named by the code that its alert and `triage failures list` show, or by its request id, of which the first
    characters will do if no other begins so. A running daemon takes it up within seconds.
    """
    from triage.cli.holds import decide  # noqa: PLC0415

    sys.exit(0 if decide(settings, names, approve=True, by=by, reason=reason, as_json=as_json) else 1)
