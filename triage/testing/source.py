"""A queue with leases, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from triage.clock import Clock
from triage.envelope import Destination
from triage.errors import Permanent, Temporary
from triage.sources import Delivery


@dataclass(slots=True, eq=False)
class _Message:
    body: bytes
    message_id: str
    enqueued_at: datetime
    visible_at: datetime
    body_md5: str = ""
    unreadable: str = ""
    received: int = 0
    handle: str = ""


class FakeSource:
    """A `triage.sources.Source` whose messages a test puts in.

    A message that is received and not acknowledged comes again when its lease has run out on ``clock``; every delivery
    has a fresh receipt handle, and an old handle acknowledges nothing.

    Windows: ``waiting`` (messages not acknowledged, leased ones included), ``acked`` (message ids, in order),
    ``receives``, ``acks`` and ``extends`` (calls so far), ``closed``.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        name: str = "fake",
        destination: Destination = Destination.BOTH,
        lease: timedelta = timedelta(seconds=30),
    ) -> None:
        self.name, self.destination, self.lease = name, destination, lease
        self.acked: list[str] = []
        self.receives = self.acks = self.extends = 0
        self.closed = False
        self.failures: list[Temporary | Permanent] = []
        """Errors for the next calls of ``receive`` and ``ack``, one each, first one first."""
        self._clock = clock
        self._messages: dict[str, _Message] = {}
        self._arrived = asyncio.Event()
        self._serial = 0

    @property
    def waiting(self) -> list[str]:
        """Ids of the messages that are not acknowledged."""
        return list(self._messages)

    def put(
        self, *bodies: bytes, body_md5: str = "", unreadable: str = "", delay: timedelta = timedelta(0)
    ) -> list[str]:
        """Enqueue messages, to be seen after ``delay``; returns their ids."""
        now = self._clock.now()
        ids = []
        for body in bodies:
            self._serial += 1
            message_id = f"{self.name}-{self._serial}"
            self._messages[message_id] = _Message(body, message_id, now, now + delay, body_md5, unreadable)
            ids.append(message_id)
        self._arrived.set()
        return ids

    async def receive(self, *, limit: int, wait: timedelta) -> list[Delivery]:
        self.receives += 1
        self._fail()
        until = self._clock.now() + wait
        while not (ready := self._visible()) and (now := self._clock.now()) < until:
            self._arrived.clear()
            next_visible = min((m.visible_at for m in self._messages.values()), default=until)
            await self._clock.wait(self._arrived, min(next_visible, until) - now)
        return [self._lease(message) for message in ready[:limit]]

    async def ack(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        self.acks += 1
        self._fail()
        gone = []
        for delivery in deliveries:
            if self._held(delivery) is None:
                gone.append(delivery)
            else:
                del self._messages[delivery.message_id]
                self.acked.append(delivery.message_id)
        return gone

    async def extend(self, delivery: Delivery, by: timedelta) -> bool:
        self.extends += 1
        message = self._held(delivery)
        if message is None:
            return False
        message.visible_at = self._clock.now() + by
        self._handle(message)
        delivery.receipt_handle, delivery.lease_until = message.handle, message.visible_at
        return True

    async def close(self) -> None:
        self.closed = True

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    def _visible(self) -> list[_Message]:
        now = self._clock.now()
        return [message for message in self._messages.values() if message.visible_at <= now]

    def _lease(self, message: _Message) -> Delivery:
        message.received += 1
        message.visible_at = self._clock.now() + self.lease
        self._handle(message)
        return Delivery(
            body=message.body,
            message_id=message.message_id,
            receipt_handle=message.handle,
            lease_until=message.visible_at,
            receive_count=message.received,
            enqueued_at=message.enqueued_at,
            body_md5=message.body_md5,
            unreadable=message.unreadable,
        )

    def _handle(self, message: _Message) -> None:
        self._serial += 1
        message.handle = f"{message.message_id}/{self._serial}"

    def _held(self, delivery: Delivery) -> _Message | None:
        message = self._messages.get(delivery.message_id)
        if message is None or message.handle != delivery.receipt_handle or message.visible_at <= self._clock.now():
            return None
        return message
