"""The circuit breaker of a function: when its re-runs fail they stop, and single probes find out if they help again.

The transitions are one table, and nothing about them may live elsewhere. Results are only counted when they come
(`triage.stores` adds them up for each batch); what follows from the counts is judged when a re-run asks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from triage.errors import IllegalTransition


class BreakerState(StrEnum):
    """Whether re-runs of a function may go."""

    CLOSED = "closed"  # they may
    OPEN = "open"  # none may, until the pause is over
    HALF_OPEN = "half_open"  # a probe is under way, and decides


class BreakerEvent(StrEnum):
    """What happens to a breaker."""

    TRIPPED = "tripped"  # too many re-runs have failed
    PROBED = "probed"  # the pause is over: one re-run is let through
    FAILED = "failed"  # a re-run has failed since
    SUCCEEDED = "succeeded"  # a re-run has succeeded since
    UNHEARD = "unheard"  # none has failed since, and of this function no success is ever heard


TRANSITIONS: Final = {
    (BreakerState.CLOSED, BreakerEvent.TRIPPED): BreakerState.OPEN,
    (BreakerState.OPEN, BreakerEvent.PROBED): BreakerState.HALF_OPEN,
    (BreakerState.HALF_OPEN, BreakerEvent.PROBED): BreakerState.HALF_OPEN,  # the result of the first is long in coming
    (BreakerState.HALF_OPEN, BreakerEvent.FAILED): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, BreakerEvent.SUCCEEDED): BreakerState.CLOSED,
    (BreakerState.HALF_OPEN, BreakerEvent.UNHEARD): BreakerState.CLOSED,
}

WINDOW: Final = timedelta(minutes=10)
"""How long results are counted together."""

ENOUGH: Final = 20
"""Re-runs below which a share of them tells nothing."""


@dataclass(frozen=True, slots=True)
class Tripping:
    """When a breaker opens, and for how long.

    Attributes:
        failures: re-runs that failed one after the other, with no success between; for functions of which successes
            are heard at all.
        share: of the re-runs in ten minutes, when there were `ENOUGH`.
        pause: from opening to the first probe; it doubles with each probe that fails, up to ``longest``.
    """

    failures: int
    share: float
    pause: timedelta
    longest: timedelta


@dataclass(frozen=True, slots=True)
class Breaker:
    """How the re-runs of a function went lately.

    Attributes:
        ok, bad, streak, submitted: results since ``counted_from``, those that failed last in a row, and submits.
        until: no probe, or no further one, before.
        pause: the one that is running, or ran last.
        heard: a success of this function was heard of, ever. A destination may get failures only.
    """

    state: BreakerState = BreakerState.CLOSED
    ok: int = 0
    bad: int = 0
    streak: int = 0
    submitted: int = 0
    counted_from: datetime | None = None
    until: datetime | None = None
    pause: timedelta = timedelta(0)
    heard: bool = False


def advance(state: BreakerState, event: BreakerEvent) -> BreakerState:
    """The state after ``event``.

    Raises:
        IllegalTransition: the table has no such move.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"a breaker that is {state} has no transition for {event}") from None


def judged(breaker: Breaker, tripping: Tripping, *, now: datetime) -> Breaker:
    """What follows from the results that were counted."""
    event = _due(breaker, tripping, now)
    if event is not None:
        return _moved(breaker, event, tripping, now=now)
    if breaker.state is BreakerState.CLOSED and (breaker.counted_from is None or now - breaker.counted_from > WINDOW):
        return _counting(breaker, now)
    return breaker


def admits(breaker: Breaker, *, now: datetime) -> bool:
    """Whether a re-run may go: any while it is closed, else one when the pause is over."""
    return breaker.state is BreakerState.CLOSED or breaker.until is None or now >= breaker.until


def submitted(breaker: Breaker, tripping: Tripping, *, now: datetime) -> Breaker:
    """The breaker after a re-run that it admits was let through."""
    if breaker.state is BreakerState.CLOSED:
        return replace(breaker, submitted=breaker.submitted + 1)
    return _moved(breaker, BreakerEvent.PROBED, tripping, now=now)


def counted(breaker: Breaker, *, succeeded: bool) -> Breaker:
    """The breaker after one result."""
    if succeeded:
        return replace(breaker, ok=breaker.ok + 1, streak=0)
    return replace(breaker, bad=breaker.bad + 1, streak=breaker.streak + 1)


def _due(breaker: Breaker, tripping: Tripping, now: datetime) -> BreakerEvent | None:
    match breaker.state:
        case BreakerState.CLOSED if _trips(breaker, tripping, now):
            return BreakerEvent.TRIPPED
        case BreakerState.HALF_OPEN if breaker.bad:
            return BreakerEvent.FAILED
        case BreakerState.HALF_OPEN if breaker.ok:
            return BreakerEvent.SUCCEEDED
        case BreakerState.HALF_OPEN if not breaker.heard and admits(breaker, now=now):
            return BreakerEvent.UNHEARD
    return None


def _trips(breaker: Breaker, tripping: Tripping, now: datetime) -> bool:
    if breaker.counted_from is not None and now - breaker.counted_from > WINDOW:
        return False
    if breaker.heard and breaker.streak >= tripping.failures:
        return True
    # Where successes are not heard of, what did not fail yet has to count as one.
    number = max(breaker.ok + breaker.bad, breaker.submitted)
    return number >= ENOUGH and breaker.bad >= tripping.share * number


def _moved(breaker: Breaker, event: BreakerEvent, tripping: Tripping, *, now: datetime) -> Breaker:
    state = advance(breaker.state, event)
    fresh = replace(_counting(breaker, now), state=state)
    match event:
        case BreakerEvent.TRIPPED:
            return replace(fresh, pause=tripping.pause, until=now + tripping.pause)
        case BreakerEvent.FAILED:
            pause = min(breaker.pause * 2, tripping.longest)
            return replace(fresh, pause=pause, until=now + pause)
        case BreakerEvent.PROBED:
            return replace(fresh, until=now + breaker.pause)
    return replace(fresh, until=None)


def _counting(breaker: Breaker, now: datetime) -> Breaker:
    return replace(breaker, ok=0, bad=0, streak=0, submitted=0, counted_from=now)
