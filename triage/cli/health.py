"""``triage health``: ask a running daemon whether it gets on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

from triage.cli.output import config_option, read_settings, show

_PATIENCE: Final = 5
"""Seconds without an answer that are as bad as a bad answer; container runtimes wait longer for this command."""


@click.command()
@click.option("--url", help="Where it listens, http://HOST:PORT; else [web] listen of the settings.")
@config_option
def health(*, config: Path | None, url: str | None) -> None:
    """Ask a running daemon whether it gets on.

    For health checks of containers: the exit code is 0 if it does, else 1. It asks /healthz of the operations endpoint,
    [web] listen in the settings, which needs no token.
    """
    ok, answer = _ask(*(_given(url) if url else _configured(config)))
    click.echo(show(answer), err=not ok)
    sys.exit(0 if ok else 1)


def _given(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme != "http" or not host or port is None:
        raise click.UsageError("--url is http://HOST:PORT")
    return host, port


def _configured(config: Path | None) -> tuple[str, int]:
    """Where a daemon with these settings listens, as seen from this machine."""
    web = read_settings(config).web
    if not web.listen:
        raise click.ClickException('it does not listen: set listen = "127.0.0.1:8020" in [web], or give --url')
    host, port = web.address
    if port == 0:
        raise click.ClickException("[web] listen takes any free port; its log tells which, so give --url")
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104 - where it is reached instead


def _ask(host: str, port: int) -> tuple[bool, str]:
    """Whether all is well, and what was said."""
    from http.client import HTTPConnection, HTTPException  # noqa: PLC0415

    connection = HTTPConnection(host, port, timeout=_PATIENCE)  # goes around proxies of the environment
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        text = answer.read(1000).decode("utf-8", "replace").strip()
    except (OSError, HTTPException) as error:
        return False, f"no answer from {host}:{port}: {error}"
    else:
        return answer.status == 200, text or f"status {answer.status}"
    finally:
        connection.close()
