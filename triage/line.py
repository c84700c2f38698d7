"""The messages to one receiver: what came of them, and what else there is for it when the next one is to go."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

DELIVERIES: Final = ("sent", "failed", "unknown", "dead", "below", "along")
"""What came of a try to notify somebody: it was taken; it was not; it may have been; it is given up; the receiver wants
nothing so harmless; it went as part of another message."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A notification that waits at a gate; ``alerts`` is how many it tells of, ``at`` since when it is to be told."""

    key: str
    severity: str
    title: str
    alerts: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Seen:
    """When the last message about a function came from a source."""

    function: str
    source: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Line:
    """What else there is for the receiver of a notification.

    Attributes:
        sent: when messages were sent to it, the newest first; no more than a rate can count.
        under_way: how many others are being sent to it.
        waiting: those that wait at a gate, the oldest first.
        taken: keys of those that others, which have been tried, take along.
        others: another receiver is told, or was, of the same flush.
    """

    sent: tuple[datetime, ...] = ()
    under_way: int = 0
    waiting: tuple[Waiting, ...] = ()
    taken: frozenset[str] = frozenset()
    others: bool = False
