"""``triage alerts``: the commands about alerts."""

from __future__ import annotations

import click

from triage.cli.alerts_preview import preview
from triage.cli.resend import resend


@click.group()
def alerts() -> None:
    """See what messages say; have those sent again that receivers did not take."""


alerts.add_command(preview)
alerts.add_command(resend)
