"""``triage db``: care for the store's file. A daemon may be at work on it, but for ``restore``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from triage.cli.output import print_json, settings_option, show

if TYPE_CHECKING:
    from triage.settings import Settings

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def db() -> None:
    """Look after the store: what is in it, copies of it, whether it is whole."""


@db.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def info(*, settings: Settings, as_json: bool) -> None:
    """Show what the store holds: version of its schema, sizes, rows, the time it spans."""
    from triage.stores import maintenance  # noqa: PLC0415

    found = maintenance.info(settings.store.path)
    if as_json:
        print_json(asdict(found))
        return
    click.echo(f"store         {show(found.path)}")
    click.echo(f"schema        {found.schema}" + (f", not yet {', '.join(found.pending)}" if found.pending else ""))
    click.echo(
        f"size          {_size(found.size)}, of which {_size(found.free)} are free; log beside it {_size(found.log)}"
    )
    click.echo(f"messages      received from {show(found.oldest or '-')} to {show(found.newest or '-')}")
    for name, rows in found.rows.items():
        click.echo(f"  {name:20} {rows:12,}")


@db.command()
@click.argument("file", type=_FILE)
@settings_option
def backup(*, settings: Settings, file: Path) -> None:
    """Write a copy of the store, as it is at this instant, to FILE. The daemon goes on meanwhile.

    The copy is compact and needs no file beside it. It is checked before it gets its name; if something is wrong with
    it, which means with the store, it is not kept and the exit code is 1.
    """
    from triage.stores import maintenance  # noqa: PLC0415

    _exit_if(maintenance.backup(settings.store.path, file), "the copy is not kept")
    click.echo(f"{file}: {_size(file.stat().st_size)}, checked.")


@db.command()
@click.argument("file", type=_FILE)
@settings_option
def restore(*, settings: Settings, file: Path) -> None:
    """Put the copy FILE in the place of the store. Stop the daemon first.

    The copy is checked and brought up to date; FILE itself stays as it is. The store that was there is kept beside it.
    Function Compute is asked about every re-run that the copy holds as still to come before it is submitted, because
    that may have happened since.
    """
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.stores import maintenance  # noqa: PLC0415

    path = settings.store.path
    wrong, kept = maintenance.restore(file, path, now=SystemClock().now())
    _exit_if(wrong, "nothing was changed")
    click.echo(f"{path} is restored from {file}." + (f" The store that was there is {kept}." if kept else ""))


@db.command()
@click.argument("file", type=_FILE, required=False)
@settings_option
def check(*, settings: Settings, file: Path | None) -> None:
    """Check that the store, or its copy FILE, is whole: its pages, its references, its sums.

    For all that has to hold of a store's contents: triage selfcheck.
    """
    from triage.stores import maintenance  # noqa: PLC0415

    path = file or settings.store.path
    _exit_if(maintenance.problems(path), f"{path} is not whole")
    click.echo(f"{path} is whole.")


@db.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@settings_option
def migrate(*, settings: Settings, dry_run: bool) -> None:
    """Bring the store's schema up to date. The daemon does so by itself when it starts; a large store may take a while.

    There is no way back but a backup: an older version refuses the store.
    """
    from triage.stores import maintenance  # noqa: PLC0415

    path = settings.store.path
    steps = maintenance.pending(path) if dry_run else maintenance.upgrade(path)
    for step in steps:
        click.echo(step)
    if not steps:
        click.echo("The schema is up to date.")


@db.command()
@settings_option
def rekey(*, settings: Settings) -> None:
    """Seal all stored messages with the first key of `encryption.keys`. The daemon goes on meanwhile.

    Also those that were stored without a key, or with another one, which must still be among the keys; it can be taken
    out afterwards. A daemon at work must know the new key already: restart it first.
    """
    from triage.stores import maintenance  # noqa: PLC0415

    if not settings.store.path.exists():
        raise click.ClickException(f"there is none at {settings.store.path}")
    seal = settings.encryption.seal
    number = sum(maintenance.rekey(settings.store.path, seal))
    click.echo(f"messages sealed with the key {seal.names[0]}: {number:,}; no other key is needed any more.")


def _exit_if(problems: Sequence[str], verdict: str) -> None:
    for text in problems:
        click.echo(f"triage: {show(text)}", err=True)
    if problems:
        click.echo(f"triage: {verdict}", err=True)
        sys.exit(1)


def _size(number: int) -> str:
    return f"{number / 1048576:,.1f} MiB"
