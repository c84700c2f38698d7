"""The local queue: many named queues in one SQLite file, with the lease semantics of SMQ, and a source on top of it.

Several processes may use the file at once. A receiver that waits costs nothing: it is woken by a send of its own
process, by a change of the file by another one, or when the next lease or delay ends.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from sqlite3 import Connection
from typing import Final

from watchfiles import Change, awatch

from triage.clock import Clock, token
from triage.envelope import Destination
from triage.errors import Misconfigured, Permanent, StoreUnavailable, Temporary
from triage.sources import Delivery, queue_tables
from triage.sources.queue_file import QueueFile
from triage.sources.queue_tables import Failed, Message, Outgoing, QueueAttributes, QueueInfo, QueueStats, Sent

log = logging.getLogger(__name__)

_DEFAULTS: Final = QueueAttributes()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_WATCH_STEP: Final = 50  # milliseconds without a further change of the file before we look
_WATCH_LIMIT: Final = 100  # ... and this long at most, when our own writes keep changing it


class LocalQueue:
    """Named queues in one file. Made by `LocalQueue.open`; to be used from the event loop that opened it.

    Every method may raise `StoreUnavailable`, those that name a queue `Misconfigured` ``QueueNotExist``, and
    `Permanent`, with SMQ's error code as reason, for what SMQ would refuse.
    """

    def __init__(self, file: QueueFile, clock: Clock) -> None:
        self._file, self._clock = file, clock
        self._waiting: defaultdict[str, deque[asyncio.Event]] = defaultdict(deque)
        self._watcher: asyncio.Task[None] | None = None
        self._stop_watching = asyncio.Event()

    @classmethod
    async def open(cls, path: Path, *, clock: Clock) -> LocalQueue:
        """Open the file, or create it with its directory.

        Raises:
            StoreUnavailable: it cannot be opened or written, or is no queue file; the text says what to do.
        """
        return cls(await QueueFile.open(path), clock)

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    async def close(self) -> None:
        """Finish what was asked for, release the file; who still waits gets `StoreUnavailable`. May be called twice."""
        self._stop_watching.set()
        if self._watcher is not None:
            await self._watcher
        await self._file.close()
        for queue in self._waiting:
            self._wake(queue)

    async def create_queue(self, queue: str, attributes: QueueAttributes = _DEFAULTS) -> bool:
        """True: made. False: it exists with these attributes. `Permanent` ``QueueAlreadyExist``: with other ones."""
        now = self._now()
        return await self._file.run(lambda c: queue_tables.create_queue(c, queue, attributes, now=now))

    async def ensure(self, queue: str) -> None:
        """Make the queue with default attributes unless it exists."""
        now = self._now()

        def work(connection: Connection) -> None:
            if queue_tables.find_queue(connection, queue) is None:
                queue_tables.create_queue(connection, queue, QueueAttributes(), now=now)

        await self._file.run(work)

    async def get_queue(self, queue: str) -> QueueInfo:
        """Attributes and times of a queue."""
        return await self._file.run(lambda c: queue_tables.get_queue(c, queue))

    async def set_attributes(self, queue: str, changes: Mapping[str, int]) -> None:
        """Change some attributes, named as in `QueueAttributes`."""
        now = self._now()
        await self._file.run(lambda c: queue_tables.set_attributes(c, queue, changes, now=now))

    async def delete_queue(self, queue: str) -> None:
        """Delete it with its messages; nothing happens when there is none."""
        await self._file.run(lambda c: queue_tables.delete_queue(c, queue))
        self._wake(queue)

    async def list_queues(self, *, prefix: str = "", after: str = "", limit: int = 1000) -> list[QueueInfo]:
        """Queues in order of their names, those greater than ``after`` only."""
        return await self._file.run(lambda c: queue_tables.list_queues(c, prefix=prefix, after=after, limit=limit))

    async def send(self, queue: str, messages: Sequence[Outgoing]) -> list[Sent | Failed]:
        """Store messages durably, in one transaction; one answer for each."""
        now, ids, receipt = self._now(), [token().upper() for _ in messages], token()
        answers = await self._file.run(
            lambda c: queue_tables.send(c, queue, messages, ids=ids, receipt=receipt, now=now)
        )
        self._wake(queue)
        return answers

    async def receive(
        self, queue: str, *, limit: int, wait: timedelta | None = None, visibility: timedelta | None = None
    ) -> list[Message]:
        """Lease up to ``limit`` messages; wait for the first one up to ``wait``. Empty when none came.

        Receivers that wait are served in the order they came.

        Args:
            wait: None takes the queue's ``polling_wait_seconds``.
            visibility: the lease; None takes the queue's ``visibility_timeout``.
        """
        if wait is None:
            wait = timedelta(seconds=(await self.get_queue(queue)).attributes.polling_wait_seconds)
        deadline = self._clock.now() + wait
        if wait <= timedelta(0) or not self._waiting.get(queue):
            messages, _ = await self._take(queue, limit, visibility)
            if messages or wait <= timedelta(0):
                return messages
        await self._watch()
        return await self._take_in_turn(queue, limit, visibility, deadline)

    async def _take_in_turn(
        self, queue: str, limit: int, visibility: timedelta | None, deadline: datetime
    ) -> list[Message]:
        """Stand in line. Only the first one looks and keeps time; it wakes the next when it leaves."""
        line, turn = self._waiting[queue], asyncio.Event()
        line.append(turn)
        try:
            while (now := self._clock.now()) < deadline:
                until = deadline
                if line[0] is turn:
                    turn.clear()
                    messages, next_at = await self._take(queue, limit, visibility)
                    if messages:
                        return messages
                    until = min(deadline, next_at or deadline)
                    now = self._clock.now()
                await self._clock.wait(turn, until - now)
            return []
        finally:
            line.remove(turn)
            self._wake(queue)

    async def _take(
        self, queue: str, limit: int, visibility: timedelta | None
    ) -> tuple[list[Message], datetime | None]:
        now, receipt = self._now(), token()
        seconds = None if visibility is None else math.ceil(visibility.total_seconds())

        def work(connection: Connection) -> tuple[list[Message], int | None]:
            messages = queue_tables.take(connection, queue, limit=limit, visibility=seconds, receipt=receipt, now=now)
            return messages, None if messages else queue_tables.next_visible_at(connection, queue)

        messages, next_at = await self._file.run(work)
        return messages, None if next_at is None else instant(next_at)

    async def peek(self, queue: str, *, limit: int = 1) -> list[Message]:
        """Look at the next messages that could be received, without leasing them."""
        now = self._now()
        return await self._file.run(lambda c: queue_tables.peek(c, queue, limit=limit, now=now))

    async def delete(self, queue: str, handles: Sequence[str]) -> list[Failed]:
        """Delete leased messages, in one transaction; answers those whose handle was not valid (any more)."""
        now = self._now()
        return await self._file.run(lambda c: queue_tables.delete(c, queue, handles, now=now))

    async def change_visibility(self, queue: str, handle: str, visibility: timedelta) -> tuple[str, datetime]:
        """Lease for ``visibility`` (whole seconds) from now; 0 gives the message back.

        Answers the new handle and the end of the lease; the old handle is not valid any more.
        """
        now, receipt, seconds = self._now(), token(), math.ceil(visibility.total_seconds())
        handle, until = await self._file.run(
            lambda c: queue_tables.change_visibility(c, queue, handle, seconds=seconds, receipt=receipt, now=now)
        )
        self._wake(queue)
        return handle, instant(until)

    async def purge(self, queue: str) -> int:
        """Delete all messages of a queue, leased ones too; answers how many."""
        return await self._file.run(lambda c: queue_tables.purge(c, queue))

    async def stats(self, queue: str) -> QueueStats:
        """Count a queue's messages."""
        now = self._now()
        return await self._file.run(lambda c: queue_tables.stats(c, queue, now=now))

    def _now(self) -> int:
        return milliseconds(self._clock.now())

    def _wake(self, queue: str) -> None:
        if line := self._waiting.get(queue):
            line[0].set()

    async def _watch(self) -> None:
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._notice_other_processes())
            # The task's first step puts the watch in place, so what another process sends from now on wakes us.
            await asyncio.sleep(0)

    async def _notice_other_processes(self) -> None:
        seen, name = -1, self._file.path.name

        def ours(_: Change, path: str) -> bool:
            return Path(path).name.startswith(name)

        changes = awatch(
            self._file.path.parent,
            watch_filter=ours,
            stop_event=self._stop_watching,
            step=_WATCH_STEP,
            debounce=_WATCH_LIMIT,
            recursive=False,
        )
        try:
            async for _ in changes:
                # Our own writes change the file as well; the version counts only those of other connections.
                version = await self._file.run(_data_version)
                if version != seen:
                    seen = version
                    for queue in self._waiting:
                        self._wake(queue)
        except (OSError, RuntimeError) as error:
            log.warning("%s cannot be watched (%s): messages sent by other processes are seen late", self.path, error)


def _data_version(connection: Connection) -> int:
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return int(version)


def instant(milliseconds: int) -> datetime:
    """Epoch milliseconds as an aware instant."""
    return _EPOCH + milliseconds * _MILLISECOND


def milliseconds(at: datetime) -> int:
    """An aware instant as epoch milliseconds."""
    return (at - _EPOCH) // _MILLISECOND


class LocalSource:
    """One named queue of a `LocalQueue` as a `Source`. Owns the queue file: ``close`` closes it."""

    def __init__(
        self,
        queues: LocalQueue,
        *,
        queue: str = "default",
        name: str = "local",
        destination: Destination = Destination.BOTH,
        lease: timedelta = timedelta(seconds=30),
    ) -> None:
        self._queues, self._queue = queues, queue
        self._name, self._destination, self._lease = name, destination, lease
        self._ready = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def destination(self) -> Destination:
        return self._destination

    @property
    def lease(self) -> timedelta:
        return self._lease

    async def receive(self, *, limit: int, wait: timedelta) -> list[Delivery]:
        with _as_temporary():
            if not self._ready:
                await self._queues.ensure(self._queue)
                self._ready = True
            messages = await self._queues.receive(self._queue, limit=limit, wait=wait, visibility=self._lease)
        return [
            Delivery(
                body=message.body,
                message_id=message.message_id,
                receipt_handle=message.receipt_handle,
                lease_until=instant(message.visible_at),
                receive_count=message.dequeue_count,
                enqueued_at=instant(message.enqueued_at),
                body_md5=message.body_md5,
            )
            for message in messages
        ]

    async def ack(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        by_handle = {delivery.receipt_handle: delivery for delivery in deliveries}
        with _as_temporary():
            return [by_handle[failed.subject] for failed in await self._queues.delete(self._queue, list(by_handle))]

    async def extend(self, delivery: Delivery, by: timedelta) -> bool:
        try:
            with _as_temporary():
                handle, until = await self._queues.change_visibility(self._queue, delivery.receipt_handle, by)
        except Misconfigured:
            raise
        except Permanent:
            return False
        delivery.receipt_handle, delivery.lease_until = handle, until
        return True

    async def close(self) -> None:
        await self._queues.close()


@contextmanager
def _as_temporary() -> Iterator[None]:
    try:
        yield
    except StoreUnavailable as error:
        raise Temporary("queue_unavailable", str(error)) from error
