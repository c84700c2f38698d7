"""Re-runs that people ask for: for one failure or success, for a held one, for many at once. Pure.

`place` is the only way from such an order to the next attempt of a lineage, whoever asks. A store calls it for
`triage.stores.Store.order`, inside the transaction that reads what it judges by and writes what it says, so that two
orders for one failure cannot both be carried out. Whoever has more to write in the same transaction, as a plan has that
marks its own item, does not call that method, but the parts it is made of: `triage.stores.ordering.stored` reads,
`place` judges, `triage.stores.ordering.write` writes. What comes of it is a row of the outbox and a link of the lineage
that both tell their origin, and a deed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from triage.changes import Changes, NewRow, RowKind
from triage.deed import Deed
from triage.drills import is_drill
from triage.effects import MANUAL, alert_plan, hold_key, rerun_plan
from triage.envelope import Envelope
from triage.facts import Arrival, Lineage
from triage.reruns.event import Unfit, unfit, unfit_text
from triage.reruns.lineage import Link, Origin, Stored, TaskId, task_id
from triage.states import Event, State, advance


@dataclass(frozen=True, slots=True)
class Order:
    """Run it again, not before ``due_at``.

    Attributes:
        by: the person who says so.
        qualifier: version or alias to run; empty means the one that ran, or what the rule says that holds it.
    """

    origin: Origin
    by: str
    reason: str
    due_at: datetime
    qualifier: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What people may ask for. Both count everything that a lineage has seen, rules' re-runs included.

    Attributes:
        max_attempts: re-runs of one lineage; the rules' own ``max_attempts`` are mostly lower.
        give_up_after: since the lineage began; no re-run is due past it.
    """

    max_attempts: int = 20
    give_up_after: timedelta = timedelta(days=30)


class Refusal(StrEnum):
    """Why an order is not carried out."""

    UNKNOWN_ID = "unknown_id"  # nothing is stored under this request id
    UNDER_WAY = "under_way"  # a re-run is planned, submitted or running, or its result is being asked for
    HELD = "held"  # a plan leaves to a person what a rule wants a person to decide
    NOT_HELD = "not_held"  # there is nothing to approve
    HEALED = "healed"  # a plan leaves alone what has succeeded meanwhile
    EXHAUSTED = "exhausted"  # all attempts are used up, of whatever origin
    TOO_LATE = "too_late"  # it would be due past the deadline
    NO_PAYLOAD = Unfit.NO_PAYLOAD.value  # the event is not stored (any more)
    PAYLOAD_TOO_LARGE = Unfit.TOO_LARGE.value  # the platform takes no such event
    DRILL = "drill"  # nothing has failed


@dataclass(frozen=True, slots=True)
class Refused:
    """The order is not carried out; ``detail`` says so to a person."""

    why: Refusal
    detail: str


@dataclass(frozen=True, slots=True)
class Ordered:
    """The order will be carried out: ``lineage`` as it is then, ``arrival`` whose event is run, and what to write."""

    lineage: Lineage
    task_id: TaskId
    arrival: Arrival
    changes: Changes


def place(order: Order, stored: Stored | None, *, limits: Limits, now: datetime) -> Ordered | Refused:
    """Judge an order. A success that belongs to no lineage begins one, which counts no failure."""
    if stored is None:
        return Refused(Refusal.UNKNOWN_ID, "nothing is stored under this request id")
    if stored.arrival is None:
        return Refused(Refusal.NO_PAYLOAD, "the event it ran with is not stored any more")
    envelope = stored.arrival.envelope
    if (problem := payload_problem(envelope)) is not None:
        return problem
    lineage = stored.lineage or Lineage(envelope.request_id, State.NEW, 0, now, "", 0)
    if (refused := refusal(order, lineage, limits=limits)) is not None:
        return refused
    deadline = lineage.started_at + limits.give_up_after
    attempt = lineage.attempt + 1
    name = task_id(lineage.root, attempt)
    task, alert = _plans(stored, stored.arrival)
    if order.qualifier:
        task["function"] = {**task["function"], "qualifier": order.qualifier}
    row = NewRow(
        key=name,
        kind=RowKind.RERUN,
        due_at=order.due_at,
        root=lineage.root,
        payload={
            "request_id": stored.request_id,
            "attempt": attempt,
            "origin": order.origin,
            **task,
            "give_up_at": min(deadline, max(order.due_at, now) + MANUAL.give_up_after).isoformat(),
            "alert": alert,
        },
    )
    moved = lineage.moved(advance(lineage.state, Event.RERUN), attempt=attempt)
    changes = Changes(
        lineages=(replace(moved, manual=lineage.manual + 1),),
        links=(Link(name, lineage.root, attempt, order.origin),),
        rows=(row,),
        cancel=(hold_key(lineage.root),) if lineage.state is State.HELD else (),
        deeds=(Deed(order.by, _ACTIONS[order.origin], order.reason, lineage.root, stored.request_id),),
    )
    return Ordered(changes.lineages[0].written(), name, stored.arrival, changes)


def _plans(stored: Stored, arrival: Arrival) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """How it is run, and who is told when that ends badly: what the rule had said, if one had planned a re-run."""
    task = rerun_plan(arrival, MANUAL)
    if stored.last is None:
        return task, alert_plan(arrival, None)
    known = stored.last.get("rerun", stored.last)
    task |= {"expect_within": known["expect_within"], "idempotent": known["idempotent"]}
    if stored.lineage is not None and stored.lineage.state is State.HELD:
        task["function"] = known["function"]  # else the qualifier was meant for the earlier re-run alone
    return task, stored.last["alert"]


_ACTIONS: Final = {Origin.MANUAL: "rerun", Origin.APPROVAL: "approve", Origin.PLAN: "plan"}

_UNDER_WAY: Final = {
    State.RERUN_PENDING: "re-run {} is planned already",
    State.RERUNNING: "re-run {} is running; its result is awaited",
    State.UNKNOWN: "whether re-run {} was taken is being found out",
}


def refusal(order: Order, lineage: Lineage, *, limits: Limits) -> Refused | None:
    """Why an order is refused by where its lineage stands; None when it is not."""
    state, attempt = lineage.state, lineage.attempt
    if is_drill(lineage.root):
        return Refused(Refusal.DRILL, "it is a drill: nothing has failed")
    if state in _UNDER_WAY:
        return Refused(Refusal.UNDER_WAY, _UNDER_WAY[state].format(attempt))
    if order.origin is Origin.APPROVAL and state is not State.HELD:
        return Refused(Refusal.NOT_HELD, f"it is not held: it is {state}")
    if order.origin is Origin.PLAN and state is State.HELD:
        return Refused(Refusal.HELD, "it is held until a person decides about it")
    if order.origin is Origin.PLAN and state is State.HEALED:
        return Refused(Refusal.HEALED, "a re-run has succeeded meanwhile")
    if attempt >= limits.max_attempts:
        return Refused(Refusal.EXHAUSTED, f"it has been run again {attempt} times (reruns.max_attempts)")
    if order.due_at > lineage.started_at + limits.give_up_after:
        detail = f"it failed at {lineage.started_at:%Y-%m-%d %H:%M}Z, too long before (reruns.give_up_after)"
        return Refused(Refusal.TOO_LATE, detail)
    return None


def payload_problem(envelope: Envelope) -> Refused | None:
    """Why a task cannot be run again with the event that its result tells; None when it can."""
    why = unfit(envelope)
    return None if why is None else Refused(Refusal(why.value), unfit_text(envelope))
