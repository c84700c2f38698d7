"""A Simple Message Queue (SMQ, formerly MNS) queue as a source. What it does on the wire: docs/reference/smq.md."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import aiohttp
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_exponential_jitter

from triage.clock import Clock, spread
from triage.cloud.credentials import CredentialsProvider
from triage.envelope import Destination
from triage.errors import Temporary
from triage.sources import Delivery
from triage.sources.smq_client import Answer, Signature, SmqClient
from triage.sources.smq_wire import (
    BATCH,
    Operation,
    UnreadableAnswer,
    Verdict,
    WireMessage,
    delete_body,
    parse_messages,
    parse_visibility,
    salvage_messages,
)

LONGEST_POLL: Final = timedelta(seconds=30)
LONGEST_LEASE: Final = timedelta(hours=12)
FIRST_PAUSE: Final = timedelta(milliseconds=500)
LONGEST_PAUSE: Final = timedelta(seconds=10)
_SECOND: Final = timedelta(seconds=1)


class SmqSource:
    """Receives in batches by long poll, deletes in batches, extends leases one by one.

    Any number of tasks may receive from one source at the same time. The session belongs to the caller.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: str,
        queue: str,
        *,
        name: str,
        credentials: CredentialsProvider,
        clock: Clock,
        destination: Destination = Destination.BOTH,
        lease: timedelta = timedelta(seconds=30),
        signature: Signature = "v2",
        region: str = "",
        jitter: Callable[[], float] = spread,
    ) -> None:
        """Take part in a queue.

        Args:
            endpoint: ``https://ACCOUNT.mns.REGION.aliyuncs.com``, no path.
            lease: the queue's visibility time-out as long as no message has told it.
            region: needed for signature v4.
            jitter: draws from [0, 1).

        Raises:
            Misconfigured: the endpoint is no address, or v4 is asked for without a region.
        """
        self._client = SmqClient(
            session, endpoint, queue, credentials=credentials, clock=clock, signature=signature, region=region
        )
        self._name, self._destination, self._lease = name, destination, lease
        self._clock, self._jitter = clock, jitter
        self._early = 0  # empty answers in a row that came before their time
        self._singly_until: datetime | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def destination(self) -> Destination:
        return self._destination

    @property
    def lease(self) -> timedelta:
        """The queue's visibility time-out: as configured until the first message tells it."""
        return self._lease

    async def receive(self, *, limit: int, wait: timedelta) -> list[Delivery]:
        """Take up to ``limit`` messages, 16 at most; whole seconds are waited, rounded up.

        A server with too many long polls open answers at once that there is nothing. Then the next request waits: half
        a second, twice as long each time up to ten seconds, jittered, until an answer comes in its time again.
        """
        until = self._clock.now() + wait
        while True:
            asked_at = self._clock.now()
            hold = min(max(math.ceil((until - asked_at) / _SECOND), 0) * _SECOND, LONGEST_POLL)
            messages = await self._take(limit, hold)
            now = self._clock.now()
            if messages:
                self._early = 0
                return [self._delivery(message, now) for message in messages]
            rest = until - now
            if now - asked_at >= 0.75 * hold:
                self._early = 0
                if rest < _SECOND:
                    return []
            else:
                pause = self._pause()
                await self._clock.sleep(min(pause, rest))
                if pause >= rest:
                    return []

    async def ack(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Delete them, sixteen per request, all requests at once. When some fail for good the others are deleted still.

        A message is returned as not deleted, too, when a first try deleted it and only the answer was lost.
        """
        ours = [delivery for delivery in deliveries if delivery.receipt_handle]
        parts = [ours[start : start + BATCH] for start in range(0, len(ours), BATCH)]
        results = await asyncio.gather(*(self._delete(part) for part in parts), return_exceptions=True)
        left = [delivery for delivery in deliveries if not delivery.receipt_handle]
        for result in results:
            if isinstance(result, BaseException):
                raise result
            left += result
        return left

    async def extend(self, delivery: Delivery, by: timedelta) -> bool:
        """Lease it for ``by`` from now on, whole seconds rounded up, 1 s to 12 h; the old handle is void after that."""
        seconds = math.ceil(min(max(by, _SECOND), LONGEST_LEASE) / _SECOND)
        if not delivery.receipt_handle:
            return False
        asked_at = self._clock.now()
        query = {"ReceiptHandle": delivery.receipt_handle, "VisibilityTimeout": str(seconds)}
        answer = await self._ask_patiently(Operation.EXTEND, query)
        if answer.verdict is not Verdict.OK:
            return False
        try:
            delivery.receipt_handle = parse_visibility(answer.body)
        except UnreadableAnswer:
            return False  # extended, but the new handle is not known, so it is not ours any more
        delivery.lease_until = asked_at + seconds * _SECOND
        return True

    async def close(self) -> None:
        """Nothing is held: the session belongs to the caller."""

    def _pause(self) -> timedelta:
        pause = min(FIRST_PAUSE * (1 << min(self._early, 10)), LONGEST_PAUSE)
        self._early += 1
        return pause * (0.5 + self._jitter() / 2)

    async def _take(self, limit: int, hold: timedelta) -> list[WireMessage]:
        singly = limit == 1 or (self._singly_until is not None and self._clock.now() < self._singly_until)
        query = {} if singly else {"numOfMessages": str(min(limit, BATCH))}
        query["waitseconds"] = str(int(hold / _SECOND))  # 0 as well: it overrides the queue's PollingWaitSeconds
        answer = await self._client.ask(Operation.RECEIVE, query, hold=hold)
        if answer.verdict is Verdict.EMPTY:
            return []
        try:
            return parse_messages(answer.body)
        except UnreadableAnswer as error:
            return self._salvage(answer, str(error), singly=singly)

    def _salvage(self, answer: Answer, reason: str, *, singly: bool) -> list[WireMessage]:
        """What an unreadable answer holds. Only a message whose handle shows can be deleted; if a batch has others,
        they are left to come again when their lease ends, and messages are taken one by one until then: alone, a
        message's handle may show, and if not, it is handed over without.
        """
        found = salvage_messages(answer.body, reason)
        if not found or (singly and answer.truncated):
            raise Temporary("unreadable_answer", f"{reason}; it begins {answer.body[:100]!r}")
        if singly:
            self._singly_until = None
            return found
        whole = [message for message in found if message.receipt_handle]
        if len(whole) < len(found):
            self._singly_until = self._clock.now() + 2 * self._lease
        return whole

    def _delivery(self, message: WireMessage, now: datetime) -> Delivery:
        if message.lease_ms:
            self._lease = timedelta(milliseconds=message.lease_ms)
        return Delivery(
            body=message.body,
            message_id=message.message_id,
            receipt_handle=message.receipt_handle,
            # Not NextVisibleTime: that is the server's clock, and ours may be off by minutes.
            lease_until=now + self._lease,
            receive_count=message.receive_count,
            enqueued_at=message.enqueued_at,
            body_md5=message.body_md5,
            unreadable=message.unreadable,
        )

    async def _delete(self, part: Sequence[Delivery]) -> list[Delivery]:
        handles = [delivery.receipt_handle for delivery in part]
        answer = await self._ask_patiently(Operation.DELETE, {}, delete_body(handles))
        if answer.verdict is Verdict.OK:
            return []
        if not answer.failed:
            return list(part)
        failed = {entry.receipt_handle for entry in answer.failed}
        return [delivery for delivery, handle in zip(part, handles, strict=True) if handle in failed]

    async def _ask_patiently(self, operation: Operation, query: dict[str, str], body: bytes = b"") -> Answer:
        """Try up to three times, well inside a lease; receiving is not tried again here, its loop does that."""
        try:
            return await self._client.ask(operation, query, body=body)
        except Temporary as error:
            if error.retry_after is not None:
                raise

        async def sleep(seconds: float) -> None:
            await self._clock.sleep(timedelta(seconds=seconds))

        # Set up only when it is needed: for every delete of a drain it would cost as much as signing the request.
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, Temporary) and error.retry_after is None),
            stop=stop_after_attempt(2) | stop_after_delay(10),
            wait=wait_exponential_jitter(multiplier=0.2, max=2, jitter=0.2),
            sleep=sleep,
            reraise=True,
        )
        await sleep(0.2 + 0.2 * self._jitter())
        return await retrying(self._client.ask, operation, query, body=body)
