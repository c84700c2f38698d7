"""What one step writes to the store, as values: the same few kinds of row for commits and for settled outbox rows.

Everything that happens *later* (a delayed re-run, a retry, a flush of grouped alerts, a result's deadline) is an outbox
row with a due time: one claim, one lease, one crash table, one way to cancel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from triage.decide import Decision
from triage.deed import Deed
from triage.facts import Arrival, Lineage
from triage.incident import Incident
from triage.reruns.gate import Gate, Standing
from triage.reruns.lineage import Link
from triage.reruns.plan import PlanChange
from triage.rules.course import COURSE, Course
from triage.rules.model import Cause
from triage.silence import Silence, Silenced
from triage.states import ROW_STATE_AFTER, RowEvent, RowState


class RowKind(StrEnum):
    """What an outbox row does when it is due."""

    RERUN = "rerun"  # submit one attempt to FC
    RESOLVE = "resolve"  # ask FC how the task of an ambiguous result ended
    EXPECT = "expect"  # the result of a re-run is overdue
    FLUSH = "flush"  # fold the waiting alerts of a group into notifications
    NOTIFY = "notify"  # deliver one notification to one receiver
    HOLD = "hold"  # nobody has decided about a held failure in time
    WAKE = "wake"  # let go what may go of a function's re-runs that wait
    PLAN_STEP = "plan_step"  # look how a bulk re-run gets on, and order what comes next
    SILENCE = "silence"  # a silence is about to end, or ends
    MAINTENANCE = "maintenance"  # hours of maintenance begin
    WATCH = "watch"  # something may have been silent for too long
    DIGEST = "digest"  # the report of a day is due
    STORM = "storm"  # tell of many groups that began to fail at once, or that this is over


@dataclass(frozen=True, slots=True)
class NewRow:
    """An outbox row to insert; ignored when a row with its key exists (``key`` is the idempotency key).

    ``root`` names the lineage and ``group`` the alert group it belongs to; either may be empty. ``payload`` is JSON.
    ``anew``: a row with its key takes its values and starts again. ``sooner``: an unfinished one may only become due
    sooner; a finished one starts again.
    """

    key: str
    kind: RowKind
    due_at: datetime
    payload: Mapping[str, Any] = field(default_factory=dict)
    root: str = ""
    group: str = ""
    anew: bool = False
    sooner: bool = False


@dataclass(frozen=True, slots=True)
class AlertGroup:
    """Alerts that are told together. ``key`` follows from rule, receivers and the ``group_by`` values."""

    key: str
    receivers: tuple[str, ...]
    severity: str
    labels: Mapping[str, str]
    """What the alerts of the group have in common: function, condition, error, rule, owner, runbook."""
    group_wait: timedelta
    group_interval: timedelta
    course: Course = COURSE


@dataclass(frozen=True, slots=True)
class NewAlert:
    """One failure that a person must hear of, waiting for its group's flush."""

    group: AlertGroup
    root: str
    request_id: str
    cause: Cause
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Looked:
    """An alert group was looked at: what is remembered of it, and what becomes of the alerts that wait.

    Attributes:
        message: the number of the message that counts them: made now, or the next one to be made.
        last_id: up to this one they wait; what comes later is for the next look.
        made: it is made now.
    """

    group: str
    message: int
    last_id: int
    made: bool
    incident: Incident


@dataclass(frozen=True, slots=True)
class Changes:
    """What a step writes beside its own row.

    Attributes:
        cancel: keys of outbox rows that are no longer needed.
        told: group keys with the number of a message: the alerts that it counts have reached a receiver.
        looked: alert groups were looked at.
        silenced: of the alerts that waited in the only one, those that silences keep from receivers.
        begun: silences that come into force, with nobody warned of their end.
        ended: (silence, how): it is over.
        standings: how functions stand with their re-runs now; only when a row is settled.
        wake: (function, number): so many of its re-runs that wait are let go, the oldest first; only then, too.
        along: keys of notifications that have gone to their receiver as part of this one: they are done, and told.
    """

    lineages: tuple[Lineage, ...] = ()
    links: tuple[Link, ...] = ()
    rows: tuple[NewRow, ...] = ()
    alerts: tuple[NewAlert, ...] = ()
    cancel: tuple[str, ...] = ()
    told: tuple[tuple[str, int], ...] = ()
    looked: tuple[Looked, ...] = ()
    deeds: tuple[Deed, ...] = ()
    plan: PlanChange | None = None
    silenced: tuple[Silenced, ...] = ()
    begun: tuple[Silence, ...] = ()
    ended: tuple[int, str] | None = None
    standings: tuple[Standing, ...] = ()
    wake: tuple[str, int] | None = None
    along: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decided:
    """One envelope with its decision, to be stored together with what follows from it."""

    arrival: Arrival
    decision: Decision
    changes: Changes
    payload_key: str

    @property
    def counts(self) -> bool:
        """Whether it counts: a drill does not."""
        return self.decision.facts.drill is None


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A message that is no envelope: kept raw, with the place and the reason, once however often it comes.

    ``alert``, if any, is raised when it is kept for the first time.
    """

    source: str
    message_id: str
    received_at: datetime
    body: bytes
    reason: str
    where: str
    detail: str
    alert: NewAlert | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """All that one batch of deliveries leads to; written in one transaction or not at all."""

    now: datetime
    rule_set: str
    decided: tuple[Decided, ...] = ()
    duplicates: tuple[Arrival, ...] = ()
    conflicts: tuple[Arrival, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    """A message that is kept already (same source, same message id) counts as a duplicate."""


@dataclass(frozen=True, slots=True)
class Settle:
    """How a claimed outbox row goes on. Made by the constructors only."""

    event: RowEvent
    due_at: datetime | None = None
    note: str = ""
    payload: Mapping[str, Any] | None = None
    changes: Changes = Changes()
    delivery: str = ""
    """For a notification: what came of the try (`triage.line.DELIVERIES`), kept in the audit of deliveries."""
    gate: Gate | None = None
    """Where it waits; the claim that asked there does not count as an attempt."""

    @property
    def state(self) -> RowState:
        """Where the row stands then."""
        return ROW_STATE_AFTER[self.event]

    @property
    def goes(self) -> bool:
        """The claim stays ours: it may be acted upon now."""
        return self.event is RowEvent.WENT

    @classmethod
    def go(cls, *, payload: Mapping[str, Any] | None = None, changes: Changes = Changes()) -> Settle:
        """It has passed all gates; with ``payload`` instead of the present one if given."""
        return cls(RowEvent.WENT, payload=payload, changes=changes)

    @classmethod
    def wait(
        cls,
        gate: Gate,
        *,
        due_at: datetime,
        note: str,
        payload: Mapping[str, Any] | None = None,
        changes: Changes = Changes(),
    ) -> Settle:
        """It waits at a gate, until ``due_at`` at the latest."""
        return cls(RowEvent.WAITED, due_at=due_at, note=note, payload=payload, changes=changes, gate=gate)

    @classmethod
    def cancelled(cls, *, note: str, changes: Changes = Changes()) -> Settle:
        """A person does not want it."""
        return cls(RowEvent.CANCELLED, note=note, changes=changes)

    @classmethod
    def done(cls, *, note: str = "", changes: Changes = Changes(), delivery: str = "") -> Settle:
        """It happened."""
        return cls(RowEvent.HAPPENED, note=note, changes=changes, delivery=delivery)

    @classmethod
    def retry(
        cls,
        *,
        due_at: datetime,
        note: str,
        payload: Mapping[str, Any] | None = None,
        changes: Changes = Changes(),
        delivery: str = "",
    ) -> Settle:
        """It did not happen; again at ``due_at``, with ``payload`` instead of the present one if given."""
        return cls(RowEvent.POSTPONED, due_at=due_at, note=note, payload=payload, changes=changes, delivery=delivery)

    @classmethod
    def unknown(
        cls,
        *,
        due_at: datetime,
        note: str,
        payload: Mapping[str, Any] | None = None,
        changes: Changes = Changes(),
    ) -> Settle:
        """It may have happened; ask at ``due_at``."""
        return cls(RowEvent.LOST, due_at=due_at, note=note, payload=payload, changes=changes)

    @classmethod
    def dead(cls, *, note: str, changes: Changes = Changes(), delivery: str = "") -> Settle:
        """It will not happen."""
        return cls(RowEvent.GIVEN_UP, note=note, changes=changes, delivery=delivery)
