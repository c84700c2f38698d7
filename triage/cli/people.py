"""Who does something about a failure, and why: asked by every command that acts for a person, and kept for ever."""

from __future__ import annotations

import functools
import getpass
import os
import sys
from collections.abc import Callable
from typing import Any

import click


def person_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--by`` and ``--reason`` and call it with both as texts that say something.

    A reason that is not given is asked for on a terminal; a script has to give one. Nothing is done without it.
    """

    @click.option("--by", metavar="WHO", envvar="TRIAGE_BY", help="Who says so; else $TRIAGE_BY, else the login name.")
    @click.option("--reason", metavar="TEXT", help="Why; asked for on a terminal, a must in scripts.")
    @functools.wraps(command)
    def with_person(*args: Any, by: str | None, reason: str | None, **kwargs: Any) -> Any:
        by, reason = person(by, reason)
        return command(*args, by=by, reason=reason, **kwargs)

    return with_person


def person(by: str | None, reason: str | None) -> tuple[str, str]:
    """Who it is and why, by what the options say.

    Raises:
        UsageError: one of them says nothing, or there is no reason and nobody who could be asked.
    """
    if reason is None:
        if not sys.stdin.isatty():
            raise click.UsageError("Missing option '--reason': say why, as in --reason \"the bucket is back\".")
        reason = click.prompt("Why", err=True)
    by = login_name() if by is None else by
    if not (by.strip() and reason.strip()):
        raise click.UsageError("--by and --reason must say something.")
    return by, reason


def login_name() -> str:
    """The person at the keyboard; through sudo the one who called it.

    Raises:
        UsageError: this user has no name.
    """
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        raise click.UsageError("This user has no name: say with --by who gives the order.") from None
