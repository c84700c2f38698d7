"""One thread that owns one SQLite connection, and commits in groups.

The price of a durable commit is the disk's, whether it holds one job or two hundred. So the thread takes whatever is
waiting, runs it in one transaction, each job in a savepoint of its own, and wakes all callers at once.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from triage.errors import SealBroken, StoreUnavailable

T = TypeVar("T")

Job = Callable[[sqlite3.Connection], T]

GROUP_LIMIT: Final = 256
"""Jobs in one transaction, at most."""


@dataclass(slots=True, eq=False)
class _Waiting:
    job: Job[Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class Worker:
    """Runs jobs on its thread, in the order they were given. Made by `start`, ended by `close`."""

    def __init__(self, name: str, *, begin: str) -> None:
        """``begin`` opens a transaction: ``BEGIN IMMEDIATE`` for a writer, ``BEGIN`` for a reader."""
        self._begin = begin
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._closing = False
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._connect: Callable[[], sqlite3.Connection]
        self.transactions = 0
        """Transactions committed so far."""

    @classmethod
    async def start(cls, name: str, connect: Callable[[], sqlite3.Connection], *, begin: str) -> Worker:
        """Start the thread and let it connect; raises what ``connect`` raises."""
        worker = cls(name, begin=begin)
        worker._connect = connect
        worker._thread.start()
        try:
            await worker._started
        except BaseException:
            await worker.close()
            raise
        return worker

    async def run(self, job: Job[T]) -> T:
        """Run ``job`` in a transaction and return its result once that is committed.

        Raises:
            StoreUnavailable: the database failed; nothing of the job was written.
        """
        if self._closing:
            raise StoreUnavailable("the store is closed")
        waiting = _Waiting(job, self._loop.create_future())
        self._queue.put(waiting)
        result: T = await waiting.future
        return result

    async def close(self) -> None:
        """Finish what was given, close the connection, end the thread. May be called twice."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        await asyncio.shield(self._stopped)
        self._thread.join()

    def _main(self) -> None:
        try:
            connection = self._connect()
        except Exception as error:  # noqa: BLE001 - a thread's boundary: whoever called `start` gets it
            self._tell(_finish, self._started, error)
        else:
            self._tell(_finish, self._started, None)
            while group := self._take():
                self._run_group(connection, group)
                self._tell(_wake, group)
            connection.close()
        finally:
            self._tell(_finish, self._stopped, None)

    def _take(self) -> list[_Waiting]:
        """What is waiting, at least one job; empty when the end was asked for."""
        first = self._queue.get()
        group = [] if first is None else [first]
        while group and len(group) < GROUP_LIMIT:
            try:
                following = self._queue.get_nowait()
            except Empty:
                break
            if following is None:
                self._queue.put(None)  # for the next turn; nothing is given after the end was asked for
                break
            group.append(following)
        return group

    def _run_group(self, connection: sqlite3.Connection, group: list[_Waiting]) -> None:
        try:
            connection.execute(self._begin)
            for waiting in group:
                _run_one(connection, waiting, alone=len(group) == 1)
            connection.execute("COMMIT")
            self.transactions += 1
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            for waiting in group:
                waiting.error = waiting.error or unavailable(error)

    def _tell(self, call: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop was closed without closing the store: nobody is left to be told
            self._loop.call_soon_threadsafe(call, *arguments)


def _run_one(connection: sqlite3.Connection, waiting: _Waiting, *, alone: bool) -> None:
    """Run one job; when it fails only its own writes are undone.

    Raises:
        sqlite3.Error: the whole transaction is lost.
    """
    if not alone:  # a savepoint makes SQLite keep a copy of every page it changes
        connection.execute("SAVEPOINT job")
    try:
        waiting.result = waiting.job(connection)
    except Exception as error:
        waiting.error = unavailable(error) if isinstance(error, sqlite3.Error) else error
        if alone or not connection.in_transaction:
            raise sqlite3.OperationalError(f"the transaction was rolled back: {error}") from error
        connection.execute("ROLLBACK TO job")
    if not alone:
        connection.execute("RELEASE job")


def _wake(group: list[_Waiting]) -> None:
    for waiting in group:
        _finish(waiting.future, waiting.error, waiting.result)


def _finish(future: asyncio.Future[Any], error: Exception | None, result: Any = None) -> None:
    if future.done():  # the caller was cancelled meanwhile
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


_OURS: Final = "user-defined function raised exception"  # those are `triage.sealing.Seal.opened` and `sealed` only
_EXPLAINED: Final = {
    sqlite3.SQLITE_BUSY: "another process has held the database locked for too long",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "the database file is read-only",
    sqlite3.SQLITE_NOTADB: "this file is not an SQLite database: name another file, or move this one away",
    sqlite3.SQLITE_CORRUPT: "the database file is damaged: restore it from a backup (see also PRAGMA integrity_check)",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened: does its directory exist, and may it be written?",
}


def unavailable(error: sqlite3.Error) -> StoreUnavailable:
    """An error of the database in words that say what to do."""
    if str(error) == _OURS:
        return SealBroken()
    code = getattr(error, "sqlite_errorcode", None)
    explained = None if code is None else _EXPLAINED.get(code & 0xFF)
    return StoreUnavailable(f"{explained} ({error})" if explained else str(error))
