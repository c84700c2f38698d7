"""How fast re-runs may follow each other: the generic cell rate algorithm, with slots that can be reserved.

Who has to wait is given an instant of its own, so that ten thousand that are due at once become an even stream.
After a start, a resume, an outage or a refusal the rate begins low and grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

BEGINNING: Final = 0.1
"""Share of the full rate with which a slow start begins."""

_LOWEST: Final = 0.05
"""Share of the full rate below which no refusal brings it."""

_REFUSED: Final = timedelta(seconds=1)
"""How long nothing is submitted after a refusal that does not say how long."""


@dataclass(frozen=True, slots=True)
class Rate:
    """The full rate, and how long it takes to come to it. A second's worth may go at once."""

    per_second: float
    slow_start: timedelta

    @property
    def burst(self) -> int:
        """How many may go at once after a rest."""
        return max(1, int(self.per_second))

    def interval(self, share: float) -> timedelta:
        """The time between two, at this share of the full rate."""
        return timedelta(seconds=1 / (self.per_second * share))


@dataclass(frozen=True, slots=True)
class Pace:
    """How far the reserved slots go, and how the rate grows.

    Attributes:
        next_at: the "theoretical arrival time": what comes earlier uses up the burst.
        since: nothing goes before; from then on the rate grows. What was reserved under another value is void.
        share: of the full rate, at ``since``.
    """

    next_at: datetime | None = None
    since: datetime | None = None
    share: float = 1.0


def share_at(pace: Pace, rate: Rate, at: datetime) -> float:
    """Share of the full rate at an instant, more than 0 and at most 1."""
    if pace.since is None or not rate.slow_start or at >= pace.since + rate.slow_start:
        return 1.0
    grown = max((at - pace.since) / rate.slow_start, 0.0)
    return pace.share + (1 - pace.share) * grown


def reserve(pace: Pace, rate: Rate, *, now: datetime) -> tuple[Pace, datetime]:
    """Take the next slot: the pace after that, and when the slot is, now or later.

    In no span of time there are more slots than the burst and the full rate allow.
    """
    earliest = now if pace.since is None else max(now, pace.since)
    next_at = pace.next_at or earliest
    # While the rate grows nothing goes at once.
    ahead = rate.interval(1) * (rate.burst - 1) if share_at(pace, rate, earliest) == 1 else timedelta(0)
    slot = max(earliest, next_at - ahead)
    after = max(slot, next_at) + rate.interval(share_at(pace, rate, slot))
    return Pace(after, pace.since, pace.share), slot


def slowed(pace: Pace, *, now: datetime) -> Pace:
    """The pace of a slow start. What was held back for longer stays so."""
    if pace.since is not None and pace.since > now:
        return pace
    return Pace(None, now, BEGINNING)


def throttled(pace: Pace, rate: Rate, *, now: datetime, retry_after: timedelta | None) -> Pace:
    """The pace after the far side has refused one because there were too many: a rest, then half the rate, growing.

    Of several that were under way the first halves it.
    """
    since = now + max(retry_after or timedelta(0), _REFUSED)
    if pace.since is not None and pace.since > now:
        return Pace(None, max(since, pace.since), pace.share)
    return Pace(None, since, max(share_at(pace, rate, now) / 2, _LOWEST))
