"""Who does something about a failure, and why: asked by every command that acts for a person, and kept for ever."""

from __future__ import annotations

import functools
import getpass
import os
import sys
from collections.abc import Callable
from typing import Any

import click


def person_options(command: Callable[..., Any], *, insist: bool = False) -> Callable[..., Any]:
    """Give a command ``--by`` and ``--reason`` and call it with both as texts that say something.

    A reason that is not given is asked for on a terminal; a script that gives none is told so in the record, or, where
    the command must ``insist``, refused.
    """

    @click.option("--by", metavar="WHO", envvar="TRIAGE_BY", help="Who says so; else $TRIAGE_BY, else the login name.")
    @click.option("--reason", metavar="TEXT", help="Why; asked for on a terminal. Kept with the failure, as WHO is.")
    @functools.wraps(command)
    def with_person(*args: Any, by: str | None, reason: str | None, **kwargs: Any) -> Any:
        if reason is None:
            if insist and not sys.stdin.isatty():
                raise click.UsageError("Missing option '--reason': it concerns many, who will ask why.")
            reason = click.prompt("Why", err=True) if sys.stdin.isatty() else "(no reason given)"
        by = login_name() if by is None else by
        if not (by.strip() and reason.strip()):
            raise click.UsageError("--by and --reason must say something.")
        return command(*args, by=by, reason=reason, **kwargs)

    return with_person


def login_name() -> str:
    """The person at the keyboard; through sudo the one who called it.

    Raises:
        UsageError: this user has no name.
    """
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        raise click.UsageError("This user has no name: say with --by who gives the order.") from None
