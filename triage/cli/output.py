"""What the commands share: the settings they run with, and how they print."""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from triage.settings import Settings

DEFAULT_CONFIG: Final = Path("/etc/triage/triage.toml")


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--config`` and call it with ``config: Path | None``, the file to read.

    The nearest one counts: the command's own option, the one before the command, ``$TRIAGE_CONFIG``, the file in /etc
    if it is there.
    """

    @click.option("--config", "own", type=click.Path(dir_okay=False), help="Settings file.")
    @click.pass_context
    @functools.wraps(command)
    def with_config(ctx: click.Context, /, *args: Any, own: str | None, **kwargs: Any) -> Any:
        return command(*args, config=config_of(ctx, own), **kwargs)

    return with_config


def config_of(ctx: click.Context, own: str | None = None) -> Path | None:
    """The settings file to read: ``own``, else the one before the command, ``$TRIAGE_CONFIG``, the file in /etc."""
    chosen = own or ctx.find_root().obj
    return Path(chosen) if chosen else DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None


def settings_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--config`` and call it with ``settings: Settings``."""

    @config_option
    @functools.wraps(command)
    def with_settings(*args: Any, config: Path | None, **kwargs: Any) -> Any:
        return command(*args, settings=read_settings(config), **kwargs)

    return with_settings


def read_settings(config: Path | None) -> Settings:
    """Read the settings from a file and this process's environment.

    Raises:
        ConfigInvalid: with everything that is wrong.
    """
    from triage.settings import load_settings  # noqa: PLC0415 - pydantic is slow to import

    return load_settings(config, environ=os.environ)


def print_json(value: Any) -> None:
    """Print as JSON: indented, keys in the order given, instants as ISO-8601, bytes as text where they are text."""
    from triage.log import printable_json  # noqa: PLC0415

    click.echo(printable_json(json.dumps(value, indent=2, ensure_ascii=not _utf8(), default=_plain)))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if hasattr(value, "items"):
        return dict(value.items())
    return str(value)


def _utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, err: bool = False) -> None:
    """Print columns; control characters are escaped. ``err``: to standard error."""
    texts = [[show(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *texts, strict=True)]
    print_lines(
        (
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in [list(headings), *texts]
        ),
        err=err,
    )


def print_fields(fields: Mapping[str, object]) -> None:
    """Print names and values below each other, indented; long values are cut on a terminal."""
    width = max(map(len, fields), default=0)
    print_lines(f"  {name:{width}}  {show(value)}" for name, value in fields.items())


def print_lines(lines: Iterable[str], *, err: bool = False) -> None:
    """Print lines; on a terminal each is cut to its width. ``err``: to standard error."""
    limit = shutil.get_terminal_size().columns if (sys.stderr if err else sys.stdout).isatty() else None
    for line in lines:
        click.echo(line[:limit], err=err)


def show(value: object) -> str:
    """One value for a person: instants to the second in UTC, nothing as a dash, hostile characters escaped."""
    from triage.log import printable  # noqa: PLC0415

    if value is None or value == "":
        return "-"
    return show_time(value) if isinstance(value, datetime) else printable(str(value))


def show_time(at: datetime) -> str:
    """``2026-01-02 03:04:05Z``."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


class Length(click.ParamType[timedelta]):
    """``90s``, ``10m``, ``1h30m``, or a number of seconds. Gives a timedelta."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        from triage.settings import parse_duration  # noqa: PLC0415

        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


class Instant(click.ParamType[datetime]):
    """``2h`` (that long ago) or an ISO-8601 date and time; without a zone it is UTC. Gives an aware datetime."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        from triage.clock import SystemClock  # noqa: PLC0415
        from triage.settings import parse_duration  # noqa: PLC0415

        try:
            return SystemClock().now() - parse_duration(value)
        except (ValueError, OverflowError):
            pass
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f'{value!r} is neither a duration such as "2h" nor an ISO-8601 time', param, ctx)
        return at if at.tzinfo else at.replace(tzinfo=UTC)
