"""The queue's SQLite file: one thread per open file, the writes of all callers of a moment in one transaction."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from sqlite_utils import Database, Migrations

from triage.errors import StoreUnavailable, TriageError

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

APPLICATION_ID: Final = 0x54_52_49_51
"""``TRIQ`` in the file's header, so that another database is not taken for a queue."""

_GROUP: Final = 64  # callers in one transaction
_BUSY_SECONDS: Final = 10.0

migrations = Migrations("triage.queue")


@migrations()
def create_queues_and_messages(db: Database) -> None:
    """First version. Instants are epoch milliseconds, durations seconds."""
    db.table("queues").create(
        {
            "name": str,
            "visibility_timeout": int,
            "maximum_message_size": int,
            "message_retention_period": int,
            "delay_seconds": int,
            "polling_wait_seconds": int,
            "created_at": int,
            "modified_at": int,
        },
        pk="name",
        strict=True,
    )
    db.table("messages").create(
        {
            "id": int,
            "queue": str,
            "message_id": str,
            "body": bytes,
            "body_md5": str,
            "properties": str,
            "priority": int,
            "enqueued_at": int,
            "visible_at": int,
            "first_dequeued_at": int,
            "dequeue_count": int,
            "receipt": str,
        },
        pk="id",
        foreign_keys=[("queue", "queues", "name")],
        not_null={"queue", "message_id", "body", "body_md5", "properties", "priority", "enqueued_at", "visible_at"},
        defaults={"dequeue_count": 0, "receipt": ""},
        strict=True,
    )
    # In this order a receive reads exactly the rows it takes; the other one serves retention and the oldest message.
    db.table("messages").create_index(["queue", "priority", "visible_at"])
    db.table("messages").create_index(["queue", "enqueued_at"])


class QueueFile:
    """An open queue file. ``run`` is for one event loop, the one that called ``open``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._jobs: SimpleQueue[tuple[Work[Any], asyncio.Future[Any]] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name=f"queue:{path.name}", daemon=True)
        self._connection: sqlite3.Connection
        self._lock: int

    @classmethod
    async def open(cls, path: Path) -> QueueFile:
        """Open or create the file, and its directory.

        Raises:
            StoreUnavailable: the directory cannot be made or written, or the file is no queue file.
        """
        file = cls(path)
        await asyncio.to_thread(file._connect)
        file._thread.start()
        return file

    async def run(self, work: Work[T]) -> T:
        """Run ``work`` on the file's thread in a transaction that it shares with others; durable when this returns.

        Work that has not begun when its caller is cancelled is dropped. A `TriageError` of ``work`` undoes what it has
        written, and nothing of the others.

        Raises:
            StoreUnavailable: the file is closed, or cannot be read or written.
        """
        if self._closed:
            raise StoreUnavailable(f"{self.path}: the queue file is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put((work, future))
        return await future

    async def close(self) -> None:
        """Finish what was asked for, then close. May be called twice."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _connect(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for file in (self.path, _lock_path(self.path)):
                # Bodies may hold what customers sent: the owner only. SQLite gives its own files the same mode.
                descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
                if file != self.path:
                    self._lock = descriptor
                else:
                    os.close(descriptor)
        except OSError as error:
            raise StoreUnavailable(
                f"{self.path}: cannot open the queue file: {error.strerror} ({error.filename}); "
                "give a path in a directory that you may write to"
            ) from error
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS, cached_statements=64
        )
        try:
            with self._turn():
                _prepare(connection, self.path)
        except BaseException as error:
            connection.close()
            os.close(self._lock)
            if isinstance(error, sqlite3.Error):
                raise _unavailable(self.path, error) from error
            raise
        self._connection = connection

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the lock file: one process at a time writes or checkpoints.

        SQLite up to 3.51.2 can damage a WAL file when one connection checkpoints just as another starts the log anew
        (https://sqlite.org/wal.html#walresetbug). Waiting here also spares the sleeping retries of SQLite's busy
        handler. The system releases the lock of a process that dies.
        """
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _serve(self) -> None:
        open_ = True
        while open_:
            jobs = [self._jobs.get()]
            with suppress(Empty):
                while len(jobs) < _GROUP:
                    jobs.append(self._jobs.get_nowait())
            open_ = None not in jobs
            group = [job for job in jobs if job is not None]
            outcomes = self._transaction(group) if group else []
            with suppress(RuntimeError):  # the loop is closed: nobody waits for an answer any more
                self._loop.call_soon_threadsafe(_answer, outcomes)
        with self._turn():  # closing the last connection checkpoints
            self._connection.close()
        os.close(self._lock)

    def _transaction(self, group: list[tuple[Work[Any], asyncio.Future[Any]]]) -> list[tuple[asyncio.Future[Any], Any]]:
        connection, outcomes = self._connection, []
        try:
            with self._turn():
                connection.execute("BEGIN IMMEDIATE")
                try:
                    for work, future in group:
                        if future.cancelled():
                            continue  # nobody would hear of the messages it leases
                        connection.execute("SAVEPOINT work")
                        try:
                            outcomes.append((future, work(connection)))
                        except TriageError as error:
                            connection.execute("ROLLBACK TO work")
                            outcomes.append((future, error))
                        connection.execute("RELEASE work")
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            return [(future, _unavailable(self.path, error)) for _, future in group]
        except Exception as error:  # noqa: BLE001 - a defect in some work: it surfaces at every caller of the group
            return [(future, error) for _, future in group]
        return outcomes


def _answer(outcomes: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, outcome in outcomes:
        if future.cancelled():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (application or tables):
        raise StoreUnavailable(f"{path}: this is another program's SQLite database, not a triage queue")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    # The outer transaction keeps processes that start together from running the same migration.
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    migrations.apply(Database(connection))
    connection.execute("COMMIT")


def _unavailable(path: Path, error: sqlite3.Error) -> StoreUnavailable:
    if "not a database" in str(error):
        return StoreUnavailable(f"{path}: this file is not an SQLite database; move it away or give another path")
    return StoreUnavailable(f"{path}: the queue file cannot be used: {error}")
