"""Sources: where envelopes come from. Contract suite: ``tests/contract/test_source.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from triage.envelope import Destination


@dataclass(slots=True, eq=False)
class Delivery:
    """One message, leased to us. The receipt handle and the end of the lease change when the lease is extended.

    Attributes:
        body: as received, before any decoding.
        body_md5: ``MessageBodyMD5`` as the queue tells it, or "".
        receive_count: deliveries so far, this one included; approximate.
        enqueued_at: when the queue took the message, the best "time of report" there is.
        unreadable: what was wrong when the queue's own answer could not be read; ``body`` is then the raw answer.
        reconstructed: nobody sent it; it was made from what the provider says of a task.
    """

    body: bytes
    message_id: str
    receipt_handle: str
    lease_until: datetime
    receive_count: int = 1
    enqueued_at: datetime | None = None
    body_md5: str = ""
    unreadable: str = ""
    reconstructed: bool = False


class Source(Protocol):
    """A queue with leases (visibility time-out).

    ``receive`` and ``ack`` raise `Temporary` (back off and try again) or `Misconfigured` (say so, try again slowly).
    """

    @property
    def name(self) -> str:
        """Stable name from the configuration; stored with every envelope."""
        ...

    @property
    def destination(self) -> Destination:
        """Which results this queue was configured to receive."""
        ...

    @property
    def lease(self) -> timedelta:
        """Visibility time-out of a fresh delivery."""
        ...

    async def receive(self, *, limit: int, wait: timedelta) -> list[Delivery]:
        """Take up to ``limit`` messages; wait up to ``wait`` for the first one. Empty when none came."""
        ...

    async def ack(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Delete them from the queue. Returns those that could not be deleted: their lease had run out, they will come
        again as duplicates.
        """
        ...

    async def extend(self, delivery: Delivery, by: timedelta) -> bool:
        """Lease it for ``by`` from now on; updates handle and end of lease. False: it is not ours any more."""
        ...

    async def close(self) -> None:
        """Release connections and files. May be called twice."""
        ...
