"""Care for the SQLite file itself: what is in it, copies of it, whether it is whole. Plain functions, for the command
line; a daemon may be at work on the file.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlite_utils import Database

from triage.errors import StoreUnavailable
from triage.sealing import Seal
from triage.stores.laws import FILE, REFERENCES, SUMS
from triage.stores.migrations import applied, known, migrate, refuse_newer
from triage.stores.records import instant
from triage.stores.worker import unavailable

_BUSY: Final = 10.0
_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Info:
    """What a store's file holds.

    Attributes:
        schema: the newest migration it has, ``pending`` those of this version that it has not.
        size, log: bytes of the file and of the log beside it; ``free`` are bytes inside that will be used again.
        rows: by table.
        oldest, newest: when the first and the last message that are still stored were received.
    """

    path: str
    schema: str
    pending: tuple[str, ...]
    size: int
    log: int
    free: int
    rows: Mapping[str, int]
    oldest: str | None
    newest: str | None


def info(path: Path) -> Info:
    """Look at a store, of this or an older version.

    Raises:
        StoreUnavailable: it cannot be read, is no store, or is of a newer version.
    """
    with _opened(path) as connection:
        db = Database(connection, execute_plugins=False)
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        tables = sorted(name for name in names if not name.startswith(("sqlite_", "_")))
        page, free = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "freelist_count"))
        oldest, newest = connection.execute("SELECT min(received_at), max(received_at) FROM envelopes").fetchone()
        done = applied(db)
        log = path.with_name(path.name + "-wal")
        return Info(
            path=str(path),
            schema=done[-1],
            pending=tuple(name for name in known() if name not in done),
            size=path.stat().st_size,
            log=log.stat().st_size if log.exists() else 0,
            free=page * free,
            rows={name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables},
            oldest=oldest,
            newest=newest,
        )


def problems(path: Path) -> list[str]:
    """What is wrong with a store's file: its pages, its references, its sums; the first few of each.

    Raises:
        StoreUnavailable: it cannot be read at all, is no store, or is of a newer version.
    """
    found: list[str] = []
    with _opened(path) as connection:
        laws = (FILE, REFERENCES) if pending(path) else (FILE, REFERENCES, *SUMS)
        for law in laws:  # the sums are those of this version's schema
            try:
                rows = connection.execute(law.broken).fetchmany(_SHOWN)
            except sqlite3.DatabaseError as error:
                found.append(f"{law.id}: {unavailable(error)}")
                break
            found += [f"{law.id}: {what}: {wrong}" for what, wrong in rows]
            if rows and law is FILE:
                break
    return found


def pending(path: Path) -> Sequence[str]:
    """The migrations that a store has still to go through.

    Raises:
        StoreUnavailable: it cannot be read, is no store, or is of a newer version.
    """
    with _opened(path) as connection:
        done = applied(Database(connection, execute_plugins=False))
        return [name for name in known() if name not in done]


def backup(path: Path, target: Path) -> list[str]:
    """Write a copy of the store as it is at this instant, compact and in one file; beside a daemon at work.

    The copy is checked before it gets its name, so ``target`` is whole or does not exist. What was wrong with it is
    returned; it is then not kept.

    Raises:
        StoreUnavailable: the store cannot be read, or the copy not be written.
        FileExistsError: there is such a file.
    """
    if target.exists():
        raise FileExistsError(17, "File exists", str(target))
    part = target.with_name(f".{target.name}.part")
    try:
        with _opened(path) as connection, _private():
            part.unlink(missing_ok=True)
            connection.execute("VACUUM INTO ?", (str(part),))
        wrong = problems(part)
        if not wrong:
            _sync(part)
            part.rename(target)
            _sync(target.parent)
    except sqlite3.Error as error:
        raise StoreUnavailable(f"{target}: {unavailable(error)}") from error
    finally:
        part.unlink(missing_ok=True)
    return wrong


def restore(copy: Path, path: Path, *, now: datetime) -> tuple[list[str], Path | None]:
    """Put a copy in the place of the store. What was there is kept beside it, under the name that is returned.

    A re-run that the copy holds as still to come may have been submitted since the copy was made. So each is marked as
    interrupted: before it is submitted, the provider is asked whether it knows it.

    Returns:
        What is wrong with the copy; then nothing was changed. And where the store that was there is now.

    Raises:
        StoreUnavailable: the copy cannot be read or is of a newer version, the place cannot be written, or a daemon is
            at work on the store.
    """
    if wrong := problems(copy):
        return wrong, None
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with _opened(copy) as connection, _private():
            part.unlink(missing_ok=True)
            connection.execute("VACUUM INTO ?", (str(part),))
        with closing(sqlite3.connect(part, isolation_level=None)) as connection:
            migrate(connection)
            connection.execute(_INTERRUPTED, {"now": instant(now)})
        _give_away(part, path if path.exists() else path.parent)
        _sync(part)
        kept = _put_aside(path, now) if path.exists() else None
        part.rename(path)
        _sync(path.parent)
    except sqlite3.Error as error:
        raise StoreUnavailable(f"{path}: {unavailable(error)}") from error
    finally:
        part.unlink(missing_ok=True)
    return [], kept


def _give_away(path: Path, like: Path) -> None:
    """Let a file belong to whom another one belongs: root restores it, and the service has a user of its own."""
    owner = like.stat()
    if os.geteuid() == 0:
        os.chown(path, owner.st_uid, owner.st_gid)


_INTERRUPTED: Final = """
    UPDATE outbox SET token = 'restored', lease_until = :now, attempts = max(attempts, 1)
    WHERE kind = 'rerun' AND state = 'pending'"""


def _put_aside(path: Path, now: datetime) -> Path:
    """Make sure that nobody works on the store, and rename it, with nothing left in its log."""
    try:
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
            # In this mode the first read takes the whole file, which fails while anybody has it open.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreUnavailable(f"{path} is in use: stop the daemon first") from error
    except sqlite3.DatabaseError:
        pass  # it is damaged, which may be why it is to be replaced
    kept = path.with_name(f"{path.name}.before-{now:%Y%m%dT%H%M%SZ}")
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(kept.with_name(kept.name + suffix))
    return path.rename(kept)


def upgrade(path: Path) -> list[str]:
    """Bring a store up to date, as opening it for work does; the migrations that were applied.

    Raises:
        StoreUnavailable: it cannot be read or written, is no store, or is of a newer version.
    """
    steps = list(pending(path))
    try:
        with closing(sqlite3.connect(path, timeout=_BUSY, isolation_level=None)) as connection:
            migrate(connection)
    except sqlite3.Error as error:
        raise StoreUnavailable(f"{path}: {unavailable(error)}") from error
    return steps


def rekey(path: Path, seal: Seal) -> Iterator[int]:
    """Seal every stored message with the newest key, beside a daemon at work; gives how many, step by step.

    Raises:
        StoreUnavailable: it cannot be read or written.
        Misconfigured: there is no key, or one that is needed is missing.
    """
    try:
        with closing(sqlite3.connect(path, timeout=_BUSY, isolation_level=None)) as connection:
            migrate(connection)
            seal.attach(connection)
            connection.execute("PRAGMA secure_delete = ON")
            yield from seal.anew(connection)
    except sqlite3.Error as error:
        raise StoreUnavailable(f"{path}: {unavailable(error)}") from error


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A store that was made by this or an older version, for reading."""
    if not path.exists():
        raise StoreUnavailable(f"there is none at {path}")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY)) as connection:
            connection.isolation_level = None
            db = Database(connection, execute_plugins=False)
            if not applied(db):
                raise StoreUnavailable(f"{path}: this is an SQLite database, but no store of triage")
            refuse_newer(db)
            yield connection
    except sqlite3.Error as error:
        raise StoreUnavailable(f"{path}: {unavailable(error)}") from error


@contextmanager
def _private() -> Iterator[None]:
    """Files made inside the block are for their owner only: messages may be confidential."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
