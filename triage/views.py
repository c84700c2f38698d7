"""What the store tells of a claimed outbox row: the row itself, and what is known about it when it is settled.

All of it is read inside the transaction that settles the row, so a decision made of it cannot be out of date.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from triage.changes import AlertGroup, RowKind
from triage.facts import Lineage
from triage.incident import UNSEEN, Incident, Why
from triage.line import Line, Seen
from triage.reruns.attempts import Attempt
from triage.reruns.gate import Gate, GateFacts
from triage.reruns.plan import PlanView
from triage.rules.model import Cause
from triage.silence import Silence
from triage.states import RowState


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A claimed outbox row. ``token`` is our claim on it; settling with another one's token writes nothing.

    Attributes:
        attempts: claims so far, this one included.
        interrupted: an earlier claim ran out without being settled, so what it did is not known.
        function: label of the function it is about, if it is about one.
        gate: where it waited until now, if it did.
    """

    id: int
    key: str
    kind: RowKind
    state: RowState
    due_at: datetime
    payload: Mapping[str, Any]
    root: str
    group: str
    attempts: int
    interrupted: bool
    token: str
    function: str = ""
    gate: Gate | None = None

    @property
    def place(self) -> str:
        """What may be slow about it (`place_of`)."""
        return place_of(self.kind, self.function, self.payload)


def place_of(kind: str, function: str, payload: Mapping[str, Any]) -> str:
    """The function that a row is about, or its receiver: what may make acting on it slow."""
    return f"to {payload.get('receiver', '')}" if kind == RowKind.NOTIFY else function


@dataclass(frozen=True, slots=True)
class WaitingAlert:
    """One alert among those to be told, for the text of the message."""

    request_id: str
    cause: Cause
    detail: str
    at: datetime
    attempts: int
    runs: tuple[Attempt, ...] = ()
    """Of a failure that was run again, every run, the first one included."""


@dataclass(frozen=True, slots=True)
class AlertKind:
    """Waiting alerts of a group that are equal in all that silences can look at. ``samples`` are the newest few, newest
    first; they are only there for one of several kinds, and when there is a silence.
    """

    key: str
    labels: Mapping[str, str]
    causes: Mapping[Cause, int]
    first_at: datetime
    last_at: datetime
    samples: tuple[WaitingAlert, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupView:
    """An alert group with what waits in it, summed up by the store (there may be very many).

    Attributes:
        flushes: how many messages there were before.
        told: alerts that they counted.
        causes: how many of the waiting alerts have which cause; the sum is the number waiting.
        samples: the newest few of the waiting ones, newest first.
        last_id: the newest waiting alert's row id; what comes later belongs to the next flush.
        kinds: the waiting ones, sorted by what silences look at.
        silenced: alerts that silences kept from everybody before.
        incident: what is remembered of the last look.
        taken: codes of others that begin as the next incident's would; only there when one may begin.
        states: alerts of this incident by the state of their failure, empty for those that are about none; only there
            when the group may have something to say.
        successes: by function, how often it has succeeded so far: of those that fail in it; only there when its course
            counts them.
        healed_by: of the failures of this incident that have healed, who wanted the last attempt; empty for none.
        cause: an open group that inhibits this one (`triage.alerts.inhibition.name_of`); empty: there is none.
        symptoms: groups that this one inhibits, by what they remember; only there when none of its own alerts waits.
        why: why a message about it is sent, for its text.
        unsaid: how many alerts it counts beside those that wait.
        ended: how the incident has come to its end, empty before.
    """

    group: AlertGroup
    flushes: int
    told: int
    first_at: datetime | None
    last_at: datetime | None
    causes: Mapping[Cause, int]
    samples: tuple[WaitingAlert, ...]
    last_id: int
    kinds: tuple[AlertKind, ...] = ()
    silenced: int = 0
    incident: Incident = UNSEEN
    taken: tuple[str, ...] = ()
    states: Mapping[str, int] = field(default_factory=dict)
    successes: Mapping[str, int] = field(default_factory=dict)
    healed_by: Mapping[str, int] = field(default_factory=dict)
    why: Why = Why.FIRST
    cause: str = ""
    symptoms: tuple[GroupView, ...] = ()
    unsaid: int = 0
    ended: str = ""


@dataclass(frozen=True, slots=True)
class SilencedGroup:
    """Alerts of one group that a silence kept from one receiver. ``healed``: of those that nobody was told of."""

    group: AlertGroup
    receiver: str
    count: int
    first_at: datetime
    last_at: datetime
    healed: int


@dataclass(frozen=True, slots=True)
class SilenceView:
    """A silence with what it kept from whom."""

    silence: Silence
    groups: tuple[SilencedGroup, ...] = ()


@dataclass(frozen=True, slots=True)
class StormView:
    """What there is to know of the storm of the moment.

    Attributes:
        since: when it began, which is its name; empty: there is none.
        beginning: groups that began not long ago, or wait for their first look.
        groups: those that began in it; only there when its row is due.
    """

    since: str = ""
    beginning: int = 0
    groups: tuple[GroupView, ...] = ()


STILL: Final = StormView()
"""No storm, and nothing that begins."""


@dataclass(frozen=True, slots=True)
class RowFacts:
    """What is known about a claimed row at the moment of settling, inside the transaction: its lineage, its group with
    all silences that have not ended, its plan, its silence, what else its receiver is told, or when each function was
    last heard of.

    ``gates`` is there for rows that are about a function; ``ordered`` are the re-runs that its plan has ordered
    and that are not over.
    """

    lineage: Lineage | None = None
    group: GroupView | None = None
    gates: GateFacts | None = None
    plan: PlanView | None = None
    ordered: tuple[OutboxRow, ...] = ()
    silences: tuple[Silence, ...] = ()
    silence: SilenceView | None = None
    storm: StormView = STILL
    line: Line | None = None
    arrivals: tuple[Seen, ...] = ()
