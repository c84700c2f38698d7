"""``triage version``: what to write into a bug report."""

from __future__ import annotations

import platform
import sqlite3
from importlib.metadata import version as version_of
from typing import Final

import click

from triage import __version__
from triage.cli.output import print_fields, print_json

_TOLD: Final = ("aiohttp", "apprise", "cel-expr-python", "pydantic", "sqlite-utils")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def version(*, as_json: bool) -> None:
    """Print the versions in use: triage, Python, SQLite, the libraries that matter."""
    versions = {
        "triage": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "sqlite": sqlite3.sqlite_version,
        **{name: version_of(name) for name in _TOLD},
    }
    (print_json if as_json else print_fields)(versions)
