"""How many re-runs a function has earned: a share of its own successes, and a floor that every function has.

A function that fails under its load must not get a second load of re-runs. What bounds them is what it has lately done
well: re-runs <= share × successes of first runs + floor × time (and a minute's worth of the floor).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

_SELDOM: Final = timedelta(hours=1)
"""When to look again where there is no floor."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What functions may have.

    Attributes:
        share: re-runs for one success of a first run.
        floor: re-runs a minute that a function may have whatever its successes; of these one minute's worth at once.
        cap: re-runs that successes can save up.
    """

    share: float
    floor: float
    cap: float

    @property
    def interval(self) -> timedelta:
        """The time in which the floor gives one."""
        return timedelta(minutes=1 / self.floor)

    @property
    def floor_burst(self) -> float:
        """What the floor saves up at most."""
        return max(1.0, self.floor)


@dataclass(frozen=True, slots=True)
class Budget:
    """What a function has left.

    Attributes:
        credit: successes of first runs that no re-run was given for yet. They are only counted, so that what one is
            worth can be said at the time of spending.
        floor_from: the floor has saved up since then; None: always.
    """

    credit: float = 0.0
    floor_from: datetime | None = None


def left(budget: Budget, allowance: Allowance, *, now: datetime) -> float:
    """Re-runs that may go now."""
    return _floor(budget, allowance, now) + _credit(budget, allowance) * allowance.share


def spent(budget: Budget, allowance: Allowance, *, now: datetime, share: float | None = None) -> Budget | None:
    """The budget after one re-run; None when there is nothing left for it.

    Args:
        share: re-runs for one success, if the rule says so.
    """
    floor = _floor(budget, allowance, now)
    if floor >= 1:
        since = now - (floor - 1) * allowance.interval
        return Budget(_credit(budget, allowance), since)
    worth = allowance.share if share is None else share
    credit = _credit(budget, allowance)
    if worth <= 0 or credit * worth < 1:
        return None
    return Budget(max(credit - 1 / worth, 0.0), budget.floor_from)


def next_at(budget: Budget, allowance: Allowance, *, now: datetime) -> datetime:
    """When the floor gives the next one."""
    if allowance.floor <= 0:
        return now + _SELDOM
    return now + max(1 - _floor(budget, allowance, now), 0.0) * allowance.interval


def _floor(budget: Budget, allowance: Allowance, now: datetime) -> float:
    if allowance.floor <= 0:
        return 0.0
    if budget.floor_from is None:
        return allowance.floor_burst
    return min(max((now - budget.floor_from) / allowance.interval, 0.0), allowance.floor_burst)


def _credit(budget: Budget, allowance: Allowance) -> float:
    return min(budget.credit, allowance.cap / allowance.share) if allowance.share > 0 else budget.credit
