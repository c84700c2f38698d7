"""``triage alerts``: the commands about alerts."""

from __future__ import annotations

import click

from triage.cli.resend import resend


@click.group()
def alerts() -> None:
    """Have messages sent again that receivers did not take."""


alerts.add_command(resend)
