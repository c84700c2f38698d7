"""Asks the operations endpoint of a running daemon. Without the daemon's HTTP library, which takes its time to load."""

from __future__ import annotations

from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import click

if TYPE_CHECKING:  # pydantic is slow to import, and --url needs no settings
    from triage.settings import WebSettings

_PATIENCE: Final = 5
"""Seconds without an answer that are as bad as a bad answer; container runtimes wait longer for `triage health`."""

_MOST: Final = 4 << 20
"""Bytes of an answer that are read."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a daemon listens, as seen from this machine."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What it said; status 0: nothing, and ``text`` tells why."""

    status: int
    text: str


def address_given(url: str) -> Address:
    """What ``--url`` says.

    Raises:
        click.UsageError: no such address.
    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme != "http" or not host or port is None:
        raise click.UsageError("--url is http://HOST:PORT")
    return Address(host, port)


def address_configured(web: WebSettings) -> Address:
    """Where a daemon with these settings listens.

    Raises:
        click.ClickException: nowhere, or at a port that nobody knows beforehand.
    """
    if not web.listen:
        raise click.ClickException('it does not listen: set listen = "127.0.0.1:8020" in [web], or give --url')
    host, port = web.address
    if port == 0:
        raise click.ClickException("[web] listen takes any free port; its log tells which, so give --url")
    return Address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)  # noqa: S104 - where it is reached instead


def get(address: Address, *paths: str, token: str = "", patience: float = _PATIENCE) -> list[Answer]:
    """Ask for each path, over one connection; what comes after one without an answer is not asked for."""
    connection = HTTPConnection(address.host, address.port, timeout=patience)  # goes around proxies of the environment
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answers: list[Answer] = []
    try:
        for path in paths:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answers.append(Answer(answer.status, answer.read(_MOST).decode("utf-8", "replace").strip()))
    except (OSError, HTTPException) as error:
        answers.append(Answer(0, f"no answer from {address}: {error}"))
    finally:
        connection.close()
    return answers
