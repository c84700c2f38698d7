"""The life of one failure, and that of an outbox row, as tables. Nothing about these transitions may live elsewhere.

A failure is a *lineage*: the failed invocation and all its re-runs. Every failed envelope belongs to exactly one
lineage and every lineage is in exactly one state, which is why the sums on the overview add up by construction.

A result may overtake the answer to the submit that caused it, hence the results are legal from RERUN_PENDING and
UNKNOWN too. A re-run may also end after somebody was told, hence they are legal from ALERTING, ALERTED,
SUPPRESSED and SILENCED.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from triage.errors import IllegalTransition


class State(StrEnum):
    """Where a failure stands."""

    NEW = "new"  # decided right now; never stored
    RERUN_PENDING = "rerun_pending"  # a re-run is planned or being submitted
    RERUNNING = "rerunning"  # submitted; the result is awaited
    UNKNOWN = "unknown"  # a submit had no answer; the provider is being asked
    ALERTING = "alerting"  # an alert is waiting for its group or being delivered
    ALERTED = "alerted"  # at least one receiver took the alert
    SUPPRESSED = "suppressed"  # its group was told already; the next message about that counts it
    SILENCED = "silenced"  # a silence kept the alert from everybody; its end tells how many there were
    HEALED = "healed"  # a re-run succeeded
    IGNORED = "ignored"  # a rule or a person said so, with the reason
    HELD = "held"  # a rule wants a person to decide


class Event(StrEnum):
    """What happens to a failure."""

    RERUN = "rerun"  # decided: run it again
    ALERT = "alert"  # decided: tell a person
    IGNORE = "ignore"  # decided: neither
    HOLD = "hold"  # decided: a person decides
    ACCEPTED = "accepted"  # the provider took the re-run, or had it already
    LOST = "lost"  # no answer to the submit
    REFUSED = "refused"  # the provider will never take it
    GIVEN_UP = "given_up"  # no way left to find out; a person must look
    SUCCEEDED = "succeeded"  # the re-run's result is a success
    OVERDUE = "overdue"  # no result, or no person's decision, came by its deadline
    DELIVERED = "delivered"  # a receiver took the alert
    SUPPRESSED = "suppressed"  # the alert's group has nothing new to say
    SILENCED = "silenced"  # a silence keeps the alert from everybody


WAITING: Final = frozenset({State.RERUN_PENDING, State.RERUNNING, State.UNKNOWN, State.HELD})
"""States in which the last word is not said yet. Each has an outbox row with a due time, so nothing waits for ever."""

ACCOUNTED: Final = {
    State.RERUN_PENDING: "held",
    State.RERUNNING: "held",
    State.UNKNOWN: "held",
    State.HELD: "held",
    State.ALERTING: "held",  # until somebody has taken the alert, nobody knows
    State.ALERTED: "alerted",
    State.SUPPRESSED: "suppressed",
    State.SILENCED: "silenced",
    State.HEALED: "healed",
    State.IGNORED: "ignored",
}
"""Under which of `ACCOUNTS` a failure in this state is counted; every stored state is under one."""

ACCOUNTS: Final = ("alerted", "suppressed", "silenced", "healed", "ignored", "held")
"""``failures`` is their sum."""

CLOSED: Final = frozenset({State.HEALED, State.IGNORED})
"""States in which nothing is to come and nobody is needed. All others are open ends: also ALERTED, since that somebody
was told does not mend it."""

_DECIDED: Final = {
    Event.RERUN: State.RERUN_PENDING,
    Event.ALERT: State.ALERTING,
    Event.IGNORE: State.IGNORED,
    Event.HOLD: State.HELD,
}
_RESULT: Final = {**_DECIDED, Event.SUCCEEDED: State.HEALED}

TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    **{(State.NEW, event): state for event, state in _DECIDED.items()},
    **{
        (origin, event): state
        for origin in (
            State.RERUN_PENDING,
            State.RERUNNING,
            State.UNKNOWN,
            State.ALERTING,
            State.ALERTED,
            State.SUPPRESSED,
            State.SILENCED,
            State.IGNORED,
            State.HELD,
        )
        for event, state in _RESULT.items()
    },
    # The platform runs an accepted task at least once: a second execution may fail after the first one succeeded.
    **{(State.HEALED, event): state for event, state in _RESULT.items()},
    (State.RERUN_PENDING, Event.ACCEPTED): State.RERUNNING,
    (State.RERUN_PENDING, Event.LOST): State.UNKNOWN,
    (State.RERUN_PENDING, Event.REFUSED): State.ALERTING,
    (State.UNKNOWN, Event.ACCEPTED): State.RERUNNING,
    (State.UNKNOWN, Event.LOST): State.UNKNOWN,
    (State.UNKNOWN, Event.REFUSED): State.ALERTING,
    (State.UNKNOWN, Event.GIVEN_UP): State.ALERTING,
    (State.RERUNNING, Event.OVERDUE): State.ALERTING,
    (State.HELD, Event.OVERDUE): State.ALERTING,
    (State.ALERTING, Event.DELIVERED): State.ALERTED,
    (State.ALERTING, Event.SUPPRESSED): State.SUPPRESSED,
    (State.SUPPRESSED, Event.DELIVERED): State.ALERTED,
    (State.ALERTING, Event.SILENCED): State.SILENCED,
    # Several rules may tell of one failure, and a silence may keep only one of them quiet.
    (State.SILENCED, Event.DELIVERED): State.ALERTED,
}


def advance(state: State, event: Event) -> State:
    """The state after ``event``.

    Raises:
        IllegalTransition: the table has no such move.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"{state} has no transition for {event}") from None


class RowState(StrEnum):
    """Where an outbox row stands."""

    PENDING = "pending"
    UNKNOWN = "unknown"  # pending, but an earlier try may have succeeded: ask first
    DONE = "done"
    DEAD = "dead"  # given up, with the reason
    CANCELLED = "cancelled"


class RowEvent(StrEnum):
    """What happens to an outbox row."""

    WENT = "went"  # it has passed all gates, and is being acted upon
    WAITED = "waited"  # it waits at a gate
    POSTPONED = "postponed"  # it did not happen; again later
    LOST = "lost"  # it may have happened; ask later
    HAPPENED = "happened"
    GIVEN_UP = "given_up"  # it will not happen
    CANCELLED = "cancelled"  # it is not wanted any more
    RESTARTED = "restarted"  # there is something to do again


_GOES_ON: Final = {
    RowEvent.POSTPONED: RowState.PENDING,
    RowEvent.LOST: RowState.UNKNOWN,
    RowEvent.HAPPENED: RowState.DONE,
    RowEvent.GIVEN_UP: RowState.DEAD,
    RowEvent.CANCELLED: RowState.CANCELLED,
}

ROW_TRANSITIONS: Final[dict[tuple[RowState, RowEvent], RowState]] = {
    **{(origin, event): state for origin in (RowState.PENDING, RowState.UNKNOWN) for event, state in _GOES_ON.items()},
    # What may have happened is asked about, and neither acted upon nor begun anew before that is known.
    (RowState.PENDING, RowEvent.WENT): RowState.PENDING,
    (RowState.PENDING, RowEvent.WAITED): RowState.PENDING,
    **{(origin, RowEvent.RESTARTED): RowState.PENDING for origin in RowState if origin is not RowState.UNKNOWN},
}
"""The life of an outbox row: what was claimed goes on, and what is over may begin anew."""

ROW_STATE_AFTER: Final = {event: state for (_, event), state in ROW_TRANSITIONS.items()}
"""Wherever a row comes from, an event leads to one state."""


def advance_row(state: RowState, event: RowEvent) -> RowState:
    """The state of a row after ``event``.

    Raises:
        IllegalTransition: the table has no such move.
    """
    try:
        return ROW_TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"a row that is {state} has no transition for {event}") from None
