"""The life of an alert group, as a table, and what is remembered of it. Nothing about these transitions may live
elsewhere.

An *incident* begins when a group that was never heard of, or was resolved, fails, and ends when it is resolved. All
messages about it carry its code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from triage.errors import IllegalTransition


class GroupState(StrEnum):
    """Where an alert group stands, as it was last looked at."""

    WAITING = "waiting"  # its first alerts wait for ``group_wait``
    NEW = "new"  # it has begun to fail
    ONGOING = "ongoing"  # more of it has failed since
    ESCALATING = "escalating"  # it fails much more often than when it was last told
    REGRESSED = "regressed"  # it was resolved, and fails again
    QUIET = "quiet"  # nothing has failed since the last look
    RESOLVED = "resolved"  # it is over


class GroupEvent(StrEnum):
    """What a look at an alert group finds."""

    FAILED = "failed"  # alerts wait
    SURGED = "surged"  # alerts wait, and many more than before
    CALMED = "calmed"  # none waits
    RESOLVED = "resolved"  # none has come for long enough, all has healed, it succeeds again, or a person says so


OPEN: Final = frozenset(
    {GroupState.NEW, GroupState.ONGOING, GroupState.ESCALATING, GroupState.REGRESSED, GroupState.QUIET}
)
"""An incident goes on."""

TRANSITIONS: Final[dict[tuple[GroupState, GroupEvent], GroupState]] = {
    (GroupState.WAITING, GroupEvent.FAILED): GroupState.NEW,
    (GroupState.RESOLVED, GroupEvent.FAILED): GroupState.REGRESSED,
    **{(state, GroupEvent.FAILED): GroupState.ONGOING for state in OPEN},
    **{(state, GroupEvent.SURGED): GroupState.ESCALATING for state in OPEN},
    **{(state, GroupEvent.CALMED): GroupState.QUIET for state in OPEN},
    **{(state, GroupEvent.RESOLVED): GroupState.RESOLVED for state in OPEN},
}


def advance(state: GroupState, event: GroupEvent) -> GroupState:
    """The state after ``event``.

    Raises:
        IllegalTransition: the table has no such move.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"an alert group that is {state} has no transition for {event}") from None


class Why(StrEnum):
    """Why a message is sent: a closed set."""

    FIRST = "first"  # the first one of an incident
    SURGED = "surged"  # it fails much more often
    CHANGED = "changed"  # something of another kind fails, or a person is asked something
    EACH = "each"  # the rule wants every alert told at the next look
    REPEAT = "repeat"  # nothing is new but counts, and ``repeat_interval`` has passed
    UNANSWERED = "unanswered"  # nobody has acknowledged it
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Ack:
    """What somebody has said of it."""

    by: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Incident:
    """What is remembered of an alert group from one look to the next.

    Attributes:
        number: how many incidents there were, this one included; 0 before the first look.
        opened_at: when the first alert of this incident came.
        last_at: when the newest one came.
        looked_at: when the group was looked at last.
        told_at: when the last message was made, None before the first.
        first_told_at: when the first one was.
        first: the number of the first message; alerts of this incident are told by it or by a later one.
        count: alerts so far, also those that a silence keeps from everybody.
        messages: how many were made.
        repeats: how many of them, in a row, had no news but counts.
        rate: alerts per minute, the highest that was told.
        known: kinds and causes that were told.
        unsaid: by receiver, alerts that no message to it has counted yet.
        told_to: who got a message.
        escalated: how many steps of the escalation were taken.
        ack: who has acknowledged it.
        closed: who has said that it is over; its next look ends it, unless something has failed meanwhile.
        heard: by function, how often it had succeeded when it was last seen to fail; empty unless successes count.
        code: its short code, told by all messages about it; empty before the first look.
        storm: the storm that it began in and that tells of it; empty: it speaks for itself.
        inhibited: its cause, of which the end tells what was counted since (`triage.alerts.inhibition`); empty: none.
    """

    number: int = 0
    code: str = ""
    state: GroupState = GroupState.WAITING
    opened_at: datetime | None = None
    last_at: datetime | None = None
    looked_at: datetime | None = None
    told_at: datetime | None = None
    first_told_at: datetime | None = None
    first: int = 1
    count: int = 0
    messages: int = 0
    repeats: int = 0
    rate: float = 0.0
    known: tuple[str, ...] = ()
    unsaid: Mapping[str, int] = field(default_factory=dict)
    told_to: tuple[str, ...] = ()
    escalated: int = 0
    ack: Ack | None = None
    storm: str = ""
    closed: Ack | None = None
    heard: Mapping[str, int] = field(default_factory=dict)
    inhibited: str = ""


UNSEEN: Final = Incident()
"""What is remembered of a group that nobody has looked at."""


LEAST_CODE: Final = 8
"""Characters of a code; of 10,000 that are kept, two share one with a chance of about one in a hundred."""


def short_code(name: str, taken: Collection[str] = ()) -> str:
    """Eight characters by which people know a message; more of them when something else has these."""
    digits = hashlib.sha256(name.encode()).hexdigest()
    lengths = range(LEAST_CODE, len(digits))
    return next((digits[:length] for length in lengths if digits[:length] not in taken), digits)


def incident_code(group_key: str, number: int, taken: Collection[str] = ()) -> str:
    """The code of an incident; ``taken``: codes that others have."""
    return short_code(f"{group_key}/{number}", taken)


_INSTANTS: Final = ("opened_at", "last_at", "looked_at", "told_at", "first_told_at")


def incident_json(incident: Incident) -> dict[str, Any]:
    """As JSON."""
    plain = {each.name: getattr(incident, each.name) for each in fields(incident)}
    instants = {name: plain[name] and plain[name].isoformat() for name in _INSTANTS}
    return {**plain, **instants, "ack": _ack_json(incident.ack), "closed": _ack_json(incident.closed)}


def incident_of(written: Mapping[str, Any]) -> Incident:
    """Undo `incident_json`; nothing at all is a group that nobody has looked at."""
    given = dict(written)
    given |= {name: datetime.fromisoformat(given[name]) for name in _INSTANTS if given.get(name)}
    given |= {name: tuple(given[name]) for name in ("known", "told_to") if name in given}
    if "state" in given:
        given["state"] = GroupState(given["state"])
    for name in ("ack", "closed"):
        if word := given.get(name):
            given[name] = Ack(word["by"], word["reason"], datetime.fromisoformat(word["at"]))
    return Incident(**given)


def _ack_json(word: Ack | None) -> dict[str, str] | None:
    return None if word is None else {"by": word.by, "reason": word.reason, "at": word.at.isoformat()}
