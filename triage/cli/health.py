"""``triage health``: ask a running daemon whether it gets on."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from triage.cli.output import config_option, read_settings, show


@click.command()
@click.option("--url", help="Where it listens, http://HOST:PORT; else [web] listen of the settings.")
@config_option
def health(*, config: Path | None, url: str | None) -> None:
    """Ask a running daemon whether it gets on.

    For health checks of containers: the exit code is 0 if it does, else 1. It asks /healthz of the operations endpoint,
    [web] listen in the settings, which needs no token.
    """
    from triage.cli.endpoint import address_configured, address_given, get  # noqa: PLC0415

    address = address_given(url) if url else address_configured(read_settings(config).web)
    (answer,) = get(address, "/healthz")
    ok = answer.status == 200
    click.echo(show(answer.text or f"status {answer.status}"), err=not ok)
    sys.exit(0 if ok else 1)
