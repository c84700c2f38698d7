"""How a claimed outbox row goes on, by what the far side, or a person, said about it. Pure.

Each reaction looks at the lineage as it is inside the settling transaction, because the result of a re-run may have
overtaken the answer to its submit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from triage.changes import Changes, NewAlert, NewRow, RowKind, Settle
from triage.deed import Deed
from triage.effects import alert_group, awaited, expect_key, hold_key, policy_of
from triage.envelope import FunctionRef, RequestId
from triage.errors import TooLate
from triage.facts import Lineage
from triage.reruns.backoff import next_delay, spread_of
from triage.reruns.gate import Gate
from triage.reruns.lineage import Link, Origin, TaskId
from triage.rules.model import Cause
from triage.states import CLOSED, TRANSITIONS, Event, RowState, State, advance
from triage.views import OutboxRow, RowFacts

ASK_AGAIN: Final = timedelta(seconds=5)
"""First delay before asking the provider about a submit without an answer: a task is not visible for about 3 s."""

ABSENT_AFTER: Final = timedelta(seconds=30)
"""A task that the provider does not know this long after the submit was never accepted."""

_ASK_FOR: Final = timedelta(minutes=15)
"""A submit without an answer is asked about for at least this long, also when its time is up."""

_STILL_RUNNING: Final = timedelta(minutes=1)
"""How often the provider is asked about a task whose result is overdue but which is still running."""

_UNFINISHED: Final = frozenset({"Enqueued", "Dequeued", "Running", "Retrying", "Stopping"})


def submitted(row: OutboxRow, facts: RowFacts, *, request_id: str, now: datetime, already: bool = False) -> Settle:
    """The provider took the re-run, now or earlier: wait for its result."""
    task = TaskId(row.key)
    links: tuple[Link, ...] = ()
    if request_id:
        links = (Link(request_id, RequestId(row.root), row.payload["attempt"]),)
    note = f"{'had been ' if already else ''}submitted as request {request_id or '(not told)'}"
    lineage = _awaiting(row, facts)
    if lineage is None:
        return Settle.done(note=note, changes=Changes(links=links))
    expect = NewRow(
        key=expect_key(task),
        kind=RowKind.EXPECT,
        due_at=now + timedelta(seconds=row.payload["expect_within"]),
        payload={**row.payload, "task_id": task},
        root=row.root,
    )
    moved = lineage.moved(advance(lineage.state, Event.ACCEPTED))
    return Settle.done(note=note, changes=Changes((moved,), links, (expect,)))


def lost(row: OutboxRow, facts: RowFacts, *, note: str, now: datetime) -> Settle:
    """The submit, or the question about it, had no answer: ask later. Only asking never harms.

    Nothing is asked for ever: past the re-run's ``give_up_after`` a person must look.
    """
    lineage = _awaiting(row, facts)
    if lineage is None:
        return Settle.done(note=f"{note}; the failure has moved on")
    payload = {"lost_at": now.isoformat(), **row.payload}
    lost_at = datetime.fromisoformat(payload["lost_at"])
    if lineage.state is State.UNKNOWN and now > max(give_up_at(row), lost_at + _ASK_FOR):
        return ended(row, facts, Event.GIVEN_UP, Cause.UNKNOWN, f"no answer to the submit; {note}")
    moved = lineage.moved(advance(lineage.state, Event.LOST))
    due_at = now + min(ASK_AGAIN * row.attempts, timedelta(minutes=5))
    if now < (certain_at := lost_at + ABSENT_AFTER):
        due_at = min(due_at, certain_at)
    return Settle.unknown(due_at=due_at, note=note, payload=payload, changes=Changes((moved,)))


def not_found(row: OutboxRow, facts: RowFacts, *, tracked: bool, now: datetime) -> Settle:
    """The provider does not know the task of a submit that had no answer.

    Shortly after the submit that says nothing. Later it means, for a tracked task (``asyncTask: true``), that it was
    never accepted, and the provider refuses a second copy anyway: submit again. For an untracked one nobody can tell.
    """
    lost_at = datetime.fromisoformat(row.payload.get("lost_at", now.isoformat()))
    if now - lost_at < ABSENT_AFTER or _awaiting(row, facts) is None:
        return lost(row, facts, note="not known to the provider yet", now=now)
    late = now > give_up_at(row)
    if tracked and late:
        detail = "was never accepted, and it is too late to submit it again"
        return ended(row, facts, Event.REFUSED, Cause.EXHAUSTED, detail)
    if not late and (tracked or row.payload["idempotent"]):
        payload = {key: value for key, value in row.payload.items() if key != "lost_at"}
        return Settle.retry(due_at=now, note="was never accepted; submitting again", payload=payload)
    detail = "no answer to the submit, and the function has no task tracking (asyncTask) by which to ask"
    return ended(row, facts, Event.GIVEN_UP, Cause.UNKNOWN, detail)


def refused(row: OutboxRow, facts: RowFacts, *, note: str) -> Settle:
    """The provider will never take this re-run."""
    return ended(row, facts, Event.REFUSED, Cause.REFUSED, note)


def postponed(
    row: OutboxRow, facts: RowFacts, *, note: str, now: datetime, retry_after: timedelta | None = None
) -> Settle:
    """The provider said: later. Past the re-run's ``give_up_after`` that is a no."""
    # Counted by itself: a row is also claimed to ask about a submit, and that must not make the back-off longer.
    times = row.payload.get("postponed", 0) + 1
    delay = next_delay(
        first=timedelta(seconds=5),
        factor=2.0,
        longest=timedelta(minutes=10),
        jitter=0.2,
        attempt=times,
        spread=spread_of(f"{row.key}/{row.attempts}"),
    )
    due_at = now + max(delay, retry_after or timedelta(0))
    if due_at > give_up_at(row):
        return ended(row, facts, Event.REFUSED, Cause.EXHAUSTED, f"could not be submitted in time: {note}")
    return Settle.retry(due_at=due_at, note=note, payload={**row.payload, "postponed": times})


def resolved(row: OutboxRow, facts: RowFacts, *, status: str | None, now: datetime, tracked: bool = False) -> Settle:
    """What the provider says of a task whose result is ambiguous (RESOLVE) or overdue (EXPECT); None: not known.

    Only a tracked task can be stopped, so an ambiguous result of an unknown task is a success. ``tracked``: of one made
    elsewhere, whose task id may be another, it is known that the function keeps tasks.
    """
    if row.payload.get("elsewhere"):
        return _made_elsewhere(row, facts, status=status, now=now, tracked=tracked)
    overdue = row.kind is RowKind.EXPECT
    lineage = facts.lineage
    task = TaskId(row.payload["task_id"])
    if lineage is None or lineage.attempt != row.payload["attempt"]:
        return Settle.done(note="no longer the current attempt")
    if overdue and lineage.state is not State.RERUNNING:
        return Settle.done(note="answered meanwhile")
    # A late answer may also come to an end that a person was asked about meanwhile: nobody need decide any more.
    over = (expect_key(task), task, *((hold_key(lineage.root),) if lineage.state is State.HELD else ()))
    if status == "Succeeded" or (status is None and not overdue):
        moved = lineage.moved(advance(lineage.state, Event.SUCCEEDED))
        note = f"the provider says {status}" if status else "not a tracked task, so it cannot have been stopped"
        return Settle.done(note=note, changes=Changes((moved,), cancel=() if overdue else over))
    if status in _UNFINISHED:
        wait = _STILL_RUNNING if overdue else ASK_AGAIN
        return Settle.retry(due_at=now + wait, note=f"the provider says {status}")
    event = Event.OVERDUE if overdue else Event.ALERT
    cause = Cause.OVERDUE if overdue else Cause.EXHAUSTED
    detail = "no result came by its deadline" if overdue else "the re-run did not end by itself"
    settle = ended(row, facts, event, cause, f"{detail}; the provider says {status or 'nothing'}")
    if overdue:
        return settle
    return replace(settle, changes=replace(settle.changes, cancel=over))


def _made_elsewhere(row: OutboxRow, facts: RowFacts, *, status: str | None, now: datetime, tracked: bool) -> Settle:
    """What the provider says of a task that may be a re-run which somebody made elsewhere: a success ends the failure,
    and our own re-run that was to come; anything else leaves all as it is.
    """
    lineage = facts.lineage
    if lineage is None or lineage.state in CLOSED:
        return Settle.done(note="the failure is over already")
    if status in _UNFINISHED or lineage.state is State.UNKNOWN:
        # Whether our own was submitted is being found out: its result must find its way home.
        waits = f"the provider says {status}" if status in _UNFINISHED else "our own re-run is being asked about"
        return Settle.retry(due_at=now + ASK_AGAIN, note=waits)
    if status is None and tracked:
        if row.attempts * ASK_AGAIN < ABSENT_AFTER:
            return Settle.retry(due_at=now + ASK_AGAIN, note="made elsewhere; not known to the provider yet")
        return Settle.done(note="made elsewhere; the provider knows no such task, so it may have been stopped")
    if status not in ("Succeeded", None):
        return Settle.done(note=f"made elsewhere; the provider says {status}, so it ends nothing")
    attempt = lineage.attempt + 1
    moved = lineage.moved(advance(lineage.state, Event.SUCCEEDED), attempt=attempt)
    link = Link(row.payload["request_id"], lineage.root, attempt, Origin.ELSEWHERE)
    held = (hold_key(lineage.root),) if lineage.state is State.HELD else ()
    note = f"re-run {attempt}, made elsewhere, has succeeded"
    return Settle.done(
        note=note, changes=Changes((moved,), (link,), cancel=(*awaited(lineage.root, lineage.attempt), *held))
    )


def function_of(payload: Mapping[str, Any]) -> FunctionRef:
    """The function a re-run row is about."""
    return FunctionRef(**payload["function"])


def rejected(row: OutboxRow, facts: RowFacts, *, by: str, reason: str) -> Settle:
    """A person has decided not to run a held failure again. (Approving it is an order: `triage.orders`.)"""
    lineage = facts.lineage
    if lineage is None or lineage.state is not State.HELD:
        return Settle.dead(note="no longer held")
    deed = Deed(by, "reject", reason, lineage.root, row.payload["request_id"])
    moved = lineage.moved(advance(lineage.state, Event.IGNORE))
    return Settle.done(note=f"rejected by {by}: {reason}", changes=Changes((moved,), deeds=(deed,)))


def withdrawn(row: OutboxRow, facts: RowFacts, *, by: str, reason: str) -> Settle:
    """A person has called back a re-run.

    Raises:
        TooLate: it is being submitted, or may have been.
    """
    settle = called_back(row, facts.lineage, f"cancelled by {by}: {reason}")
    deed = Deed(by, "cancel", reason, row.root, row.payload["request_id"])
    return replace(settle, changes=replace(settle.changes, deeds=(deed,)))


def called_back(row: OutboxRow, lineage: Lineage | None, why: str) -> Settle:
    """A re-run is not wanted any more. That is always told: somebody has to see to the failure now.

    Raises:
        TooLate: it is being submitted, or may have been.
    """
    if row.interrupted or row.gate is Gate.PASSED or row.state is RowState.UNKNOWN:
        raise TooLate("it is being submitted, or may have been; what came of it is being found out")
    return ended(row, RowFacts(lineage), Event.REFUSED, Cause.REFUSED, why, always=True)


def unanswered(row: OutboxRow, facts: RowFacts) -> Settle:
    """Nobody has decided about a held failure in time. That is always told, or it would be held for ever."""
    return ended(row, facts, Event.OVERDUE, Cause.HELD, f"nobody decided in time: {row.payload['reason']}", always=True)


def give_up_at(row: OutboxRow) -> datetime:
    """When a re-run that was not submitted is given up."""
    return datetime.fromisoformat(row.payload["give_up_at"])


def _awaiting(row: OutboxRow, facts: RowFacts) -> Lineage | None:
    """The row's lineage, if it still waits for this row's attempt to be submitted."""
    lineage = facts.lineage
    if lineage is None or lineage.attempt != row.payload["attempt"]:
        return None
    return lineage if lineage.state in (State.RERUN_PENDING, State.UNKNOWN) else None


def ended(row: OutboxRow, facts: RowFacts, event: Event, cause: Cause, detail: str, *, always: bool = False) -> Settle:
    """The row will not come to its end: a person must hear of it, unless the rule does not want that."""
    lineage = facts.lineage
    if lineage is None or lineage.attempt != row.payload["attempt"] or (lineage.state, event) not in TRANSITIONS:
        return Settle.dead(note=f"{detail}; the failure has moved on")
    plan = row.payload["alert"]
    if cause not in plan["on"] and not always:
        moved = lineage.moved(advance(lineage.state, Event.IGNORE))
        return Settle.dead(note=detail, changes=Changes((moved,)))
    moved = lineage.moved(advance(lineage.state, event))
    group = alert_group(plan["labels"], policy_of(plan))
    alert = NewAlert(group, row.root, row.payload["request_id"], cause, detail)
    return Settle.dead(note=detail, changes=Changes((moved,), alerts=(alert,)))
