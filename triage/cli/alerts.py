"""``triage alerts``: the commands about alerts."""

from __future__ import annotations

import click

from triage.cli.alert_groups import ack, list_, resolve, show
from triage.cli.alerts_preview import preview
from triage.cli.resend import resend


@click.group()
def alerts() -> None:
    """List groups of alerts, show one, acknowledge or resolve it; see what messages say, and send them again."""


for command in (list_, show, ack, resolve, preview, resend):
    alerts.add_command(command)
