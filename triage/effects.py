"""What follows from a decision, and from what happened to an outbox row: rows to write, as values. Pure.

`decided` turns a decision into the rows committed with it. The reactions (`submitted`, `lost`, `refused`, ...) turn
what the far side said about a claimed row into its `Settle`; each looks at the lineage as it is inside the settling
transaction, because the result of a re-run may have overtaken the answer to its submit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from triage.changes import (
    AlertGroup,
    Changes,
    Decided,
    Deed,
    Link,
    NewAlert,
    NewRow,
    OutboxRow,
    RowFacts,
    RowKind,
    Settle,
)
from triage.decide import DEFAULT_ALERT, Alert, Decision, Hold, Rerun, Resolve
from triage.envelope import FunctionRef, RequestId
from triage.errors import Problem
from triage.facts import Arrival, Lineage
from triage.reruns.backoff import next_delay, spread_of
from triage.reruns.lineage import TaskId, payload_key, task_id
from triage.rules.model import AlertPolicy, Cause, RerunPolicy, Rule, Severity
from triage.states import TRANSITIONS, Event, State, advance

ASK_AGAIN: Final = timedelta(seconds=5)
"""First delay before asking the provider about a submit without an answer: a task is not visible for about 3 s."""

ABSENT_AFTER: Final = timedelta(seconds=30)
"""A task that the provider does not know this long after the submit was never accepted."""

_ASK_FOR: Final = timedelta(minutes=15)
"""A submit without an answer is asked about for at least this long, also when its time is up."""

MANUAL: Final = RerunPolicy(max_attempts=100, give_up_after=timedelta(hours=6))
"""How a task is run again that a person says so of, where no rule says how."""

_STILL_RUNNING: Final = timedelta(minutes=1)
"""How often the provider is asked about a task whose result is overdue but which is still running."""

_UNFINISHED: Final = frozenset({"Enqueued", "Dequeued", "Running", "Retrying", "Stopping"})


def decided(arrival: Arrival, decision: Decision) -> Decided:
    """All rows that storing one decision entails."""
    envelope, lineage = arrival.envelope, decision.lineage
    if lineage is None:
        told = [_new_alert(arrival, effect) for effect in decision.effects if isinstance(effect, Alert)]
        return Decided(arrival, decision, Changes(alerts=tuple(told)), "")
    rows: list[NewRow] = []
    links: list[Link] = []
    alerts: list[NewAlert] = []
    cancel: tuple[str, ...] = ()
    answered = lineage.attempt
    asks = False
    for effect in decision.effects:
        match effect:
            case Rerun():
                answered = effect.attempt - 1
                rows.append(_rerun_row(arrival, lineage, effect, decision.rule))
                links.append(Link(effect.task_id, lineage.root, effect.attempt))
            case Resolve():
                asks = True
                rows.append(_resolve_row(arrival, lineage, effect))
            case Alert():
                alerts.append(_new_alert(arrival, effect, root=lineage.root))
            case Hold():
                rows.append(_hold_row(arrival, lineage, effect, decision.rule))
    if lineage.root != envelope.request_id:
        links.append(Link(envelope.request_id, lineage.root, answered))
        if answered and not asks:
            # The result is here: nobody need wait for it, nor submit what evidently was submitted.
            task = task_id(lineage.root, answered)
            cancel = (_expect_key(task), _resolve_key(task), task)
    before = decision.facts.lineage
    if before is not None and before.state is State.HELD and lineage.state is not State.HELD:
        cancel += (_hold_key(lineage.root),)
    changes = Changes((lineage,), tuple(links), tuple(rows), tuple(alerts), cancel)
    return Decided(arrival, decision, changes, payload_key(envelope.function.label, envelope.request_payload))


def alert_group(labels: Mapping[str, str], policy: AlertPolicy) -> AlertGroup:
    """The group that an alert with these labels belongs to under this policy."""
    parts = [labels.get("rule", ""), *policy.to, *(f"{name}={labels.get(name, '')}" for name in policy.group_by)]
    key = hashlib.sha256("\x1f".join(parts).encode("utf-8", "replace")).hexdigest()[:16]
    return AlertGroup(key, policy.to, str(policy.severity), labels, policy.group_wait, policy.group_interval)


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
        key=_expect_key(task),
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
    if lineage.state is State.UNKNOWN and now > max(_give_up_at(row), lost_at + _ASK_FOR):
        return _ended(row, facts, Event.GIVEN_UP, Cause.UNKNOWN, f"no answer to the submit; {note}")
    moved = lineage.moved(advance(lineage.state, Event.LOST))
    due_at = now + min(ASK_AGAIN * row.attempts, timedelta(minutes=5))
    return Settle.unknown(due_at=due_at, note=note, payload=payload, changes=Changes((moved,)))


def not_found(row: OutboxRow, facts: RowFacts, *, tracked: bool, now: datetime) -> Settle:
    """The provider does not know the task of a submit that had no answer.

    Shortly after the submit that says nothing. Later it means, for a tracked task (``asyncTask: true``), that it was
    never accepted, and the provider refuses a second copy anyway: submit again. For an untracked one nobody can tell.
    """
    lost_at = datetime.fromisoformat(row.payload.get("lost_at", now.isoformat()))
    if now - lost_at < ABSENT_AFTER or _awaiting(row, facts) is None:
        return lost(row, facts, note="not known to the provider yet", now=now)
    late = now > _give_up_at(row)
    if tracked and late:
        detail = "was never accepted, and it is too late to submit it again"
        return _ended(row, facts, Event.REFUSED, Cause.EXHAUSTED, detail)
    if not late and (tracked or row.payload["idempotent"]):
        payload = {key: value for key, value in row.payload.items() if key != "lost_at"}
        return Settle.retry(due_at=now, note="was never accepted; submitting again", payload=payload)
    detail = "no answer to the submit, and the function has no task tracking (asyncTask) by which to ask"
    return _ended(row, facts, Event.GIVEN_UP, Cause.UNKNOWN, detail)


def refused(row: OutboxRow, facts: RowFacts, *, note: str) -> Settle:
    """The provider will never take this re-run."""
    return _ended(row, facts, Event.REFUSED, Cause.REFUSED, note)


def postponed(
    row: OutboxRow, facts: RowFacts, *, note: str, now: datetime, retry_after: timedelta | None = None
) -> Settle:
    """The provider said: later. Past the re-run's ``give_up_after`` that is a no."""
    delay = next_delay(
        first=timedelta(seconds=5),
        factor=2.0,
        longest=timedelta(minutes=10),
        jitter=0.2,
        attempt=row.attempts,
        spread=spread_of(f"{row.key}/{row.attempts}"),
    )
    due_at = now + max(delay, retry_after or timedelta(0))
    if due_at > _give_up_at(row):
        return _ended(row, facts, Event.REFUSED, Cause.EXHAUSTED, f"could not be submitted in time: {note}")
    return Settle.retry(due_at=due_at, note=note)


def resolved(row: OutboxRow, facts: RowFacts, *, status: str | None, now: datetime) -> Settle:
    """What the provider says of a task whose result is ambiguous (RESOLVE) or overdue (EXPECT); None: not known.

    Only a tracked task can be stopped, so an ambiguous result of an unknown task is a success.
    """
    overdue = row.kind is RowKind.EXPECT
    lineage = facts.lineage
    task = TaskId(row.payload["task_id"])
    if lineage is None or lineage.attempt != row.payload["attempt"]:
        return Settle.done(note="no longer the current attempt")
    if overdue and lineage.state is not State.RERUNNING:
        return Settle.done(note="answered meanwhile")
    if status == "Succeeded" or (status is None and not overdue):
        moved = lineage.moved(advance(lineage.state, Event.SUCCEEDED))
        note = f"the provider says {status}" if status else "not a tracked task, so it cannot have been stopped"
        return Settle.done(note=note, changes=Changes((moved,), cancel=() if overdue else (_expect_key(task), task)))
    if status in _UNFINISHED:
        wait = _STILL_RUNNING if overdue else ASK_AGAIN
        return Settle.retry(due_at=now + wait, note=f"the provider says {status}")
    event = Event.OVERDUE if overdue else Event.ALERT
    cause = Cause.OVERDUE if overdue else Cause.EXHAUSTED
    detail = "no result came by its deadline" if overdue else "the re-run did not end by itself"
    settle = _ended(row, facts, event, cause, f"{detail}; the provider says {status or 'nothing'}")
    if overdue:
        return settle
    return replace(settle, changes=replace(settle.changes, cancel=(_expect_key(task), task)))


def function_of(payload: Mapping[str, Any]) -> FunctionRef:
    """The function a re-run row is about."""
    return FunctionRef(**payload["function"])


def quarantine_alert(*, source: str, reason: str, detail: str, policy: AlertPolicy, entry: str) -> NewAlert:
    """The alert for a message that could not be read; all of one source and reason make one group."""
    labels = {
        "function": "",
        "condition": "quarantined",
        "error_type": reason,
        "error_message": "",
        "fingerprint": f"quarantine/{source}/{reason}",
        "rule": "",
        "owner": "",
        "runbook": "",
    }
    return NewAlert(alert_group(labels, policy), root="", request_id=entry, cause=Cause.QUARANTINED, detail=detail)


def rules_alert(problems: Sequence[Problem], *, policy: AlertPolicy) -> NewAlert:
    """The alert for rule files that cannot be used, with the first of their problems; all make one group."""
    first = problems[0]
    place = f"{first.file}:{first.line}:{first.column}" if first.line else first.file
    reason = f"{first.message} ({first.hint})" if first.hint else first.message
    more = f"; and {len(problems) - 1} more" if len(problems) > 1 else ""
    labels = {
        "function": "",
        "condition": "rules refused",
        "error_type": "",
        "error_message": f"{place}: {reason}{more}"[:2000],
        "fingerprint": "rules",
        "rule": "",
        "owner": "",
        "runbook": "",
    }
    group = alert_group(labels, policy)
    return NewAlert(group, root="", request_id=place, cause=Cause.RULES_REFUSED, detail=f"{reason}{more}")


def _give_up_at(row: OutboxRow) -> datetime:
    return datetime.fromisoformat(row.payload["give_up_at"])


def _awaiting(row: OutboxRow, facts: RowFacts) -> Lineage | None:
    """The row's lineage, if it still waits for this row's attempt to be submitted."""
    lineage = facts.lineage
    if lineage is None or lineage.attempt != row.payload["attempt"]:
        return None
    return lineage if lineage.state in (State.RERUN_PENDING, State.UNKNOWN) else None


def released(row: OutboxRow, facts: RowFacts, *, rerun: bool, by: str, reason: str, now: datetime) -> Settle:
    """A person has decided about a held failure: run it again, or leave it."""
    lineage = facts.lineage
    if lineage is None or lineage.state is not State.HELD:
        return Settle.dead(note="no longer held")
    action = "rerun" if rerun else "ignore"
    deed = Deed(by, action, reason, lineage.root, row.payload["request_id"])
    note = f"{action}, says {by}: {reason}"
    if not rerun:
        moved = lineage.moved(advance(lineage.state, Event.IGNORE))
        return Settle.done(note=note, changes=Changes((moved,), deeds=(deed,)))
    attempt = lineage.attempt + 1
    task = task_id(lineage.root, attempt)
    moved = replace(lineage.moved(advance(lineage.state, Event.RERUN), attempt=attempt), manual=lineage.manual + 1)
    submit = NewRow(
        key=task,
        kind=RowKind.RERUN,
        due_at=now,
        root=lineage.root,
        payload={
            "request_id": row.payload["request_id"],
            "attempt": attempt,
            **row.payload["rerun"],
            "give_up_at": (now + MANUAL.give_up_after).isoformat(),
            "alert": row.payload["alert"],
        },
    )
    link = Link(task, lineage.root, attempt)
    return Settle.done(note=note, changes=Changes((moved,), (link,), (submit,), deeds=(deed,)))


def unanswered(row: OutboxRow, facts: RowFacts) -> Settle:
    """Nobody has decided about a held failure in time. That is always told, or it would be held for ever."""
    return _ended(row, facts, Event.OVERDUE, Cause.HELD, f"nobody decided in time: {row.payload['reason']}")


def _ended(row: OutboxRow, facts: RowFacts, event: Event, cause: Cause, detail: str) -> Settle:
    """The row will not come to its end: a person must hear of it, unless the rule does not want that."""
    lineage = facts.lineage
    if lineage is None or lineage.attempt != row.payload["attempt"] or (lineage.state, event) not in TRANSITIONS:
        return Settle.dead(note=f"{detail}; the failure has moved on")
    plan = row.payload["alert"]
    if cause not in plan["on"] and cause is not Cause.HELD:
        moved = lineage.moved(advance(lineage.state, Event.IGNORE))
        return Settle.dead(note=detail, changes=Changes((moved,)))
    moved = lineage.moved(advance(lineage.state, event))
    group = alert_group(plan["labels"], _policy(plan))
    alert = NewAlert(group, row.root, row.payload["request_id"], cause, detail)
    return Settle.dead(note=detail, changes=Changes((moved,), alerts=(alert,)))


def _rerun_row(arrival: Arrival, lineage: Lineage, effect: Rerun, rule: Rule | None) -> NewRow:
    policy = effect.policy
    return NewRow(
        key=effect.task_id,
        kind=RowKind.RERUN,
        due_at=effect.due_at,
        root=lineage.root,
        payload={
            "request_id": arrival.envelope.request_id,
            "attempt": effect.attempt,
            **_rerun_plan(arrival, policy),
            "give_up_at": (lineage.started_at + policy.give_up_after).isoformat(),
            "alert": _alert_plan(arrival, rule),
        },
    )


def _rerun_plan(arrival: Arrival, policy: RerunPolicy) -> dict[str, Any]:
    return {
        "function": _function(arrival.envelope.function, policy.qualifier),
        "expect_within": policy.expect_within.total_seconds(),
        "idempotent": policy.idempotent,
    }


def _hold_row(arrival: Arrival, lineage: Lineage, effect: Hold, rule: Rule | None) -> NewRow:
    return NewRow(
        key=_hold_key(lineage.root),
        kind=RowKind.HOLD,
        due_at=effect.due_at,
        root=lineage.root,
        payload={
            "request_id": arrival.envelope.request_id,
            "attempt": lineage.attempt,
            "reason": effect.policy.reason,
            "rerun": _rerun_plan(arrival, (rule.rerun if rule else None) or MANUAL),
            "alert": _alert_plan(arrival, rule),
        },
        anew=True,
    )


def _new_alert(arrival: Arrival, alert: Alert, *, root: str = "") -> NewAlert:
    group = alert_group(_labels(arrival, alert.rule), alert.policy)
    return NewAlert(group, root, arrival.envelope.request_id, alert.cause)


def _resolve_row(arrival: Arrival, lineage: Lineage, effect: Resolve) -> NewRow:
    return NewRow(
        key=_resolve_key(effect.task_id),
        kind=RowKind.RESOLVE,
        due_at=arrival.received_at,
        root=lineage.root,
        payload={
            "request_id": arrival.envelope.request_id,
            "attempt": effect.attempt,
            "task_id": effect.task_id,
            "function": _function(arrival.envelope.function, ""),
            "alert": _alert_plan(arrival, None),
        },
    )


def _function(function: FunctionRef, qualifier: str) -> dict[str, str]:
    return {
        "name": function.name,
        "service": function.service,
        "qualifier": qualifier or function.qualifier,
        "region": function.region,
        "account": function.account,
    }


def _labels(arrival: Arrival, rule: Rule | None) -> dict[str, str]:
    envelope = arrival.envelope
    return {
        "function": envelope.function.label,
        "condition": envelope.condition,
        "error_type": envelope.error.type,
        "error_message": envelope.error.message[:2000],
        "fingerprint": arrival.fingerprint,
        "rule": rule.id if rule else "",
        "owner": rule.owner if rule else "",
        "runbook": rule.runbook if rule else "",
    }


def _alert_plan(arrival: Arrival, rule: Rule | None) -> dict[str, Any]:
    """The alert policy as JSON: a re-run may end badly long after the rule that planned it was changed."""
    policy = (rule.alert if rule else None) or DEFAULT_ALERT
    return {
        "labels": _labels(arrival, rule),
        "to": list(policy.to),
        "on": sorted(policy.on),
        "severity": str(policy.severity),
        "group_by": list(policy.group_by),
        "group_wait": policy.group_wait.total_seconds(),
        "group_interval": policy.group_interval.total_seconds(),
    }


def _policy(plan: Mapping[str, Any]) -> AlertPolicy:
    return AlertPolicy(
        to=tuple(plan["to"]),
        on=frozenset(Cause(cause) for cause in plan["on"]),
        severity=Severity(plan["severity"]),
        group_by=tuple(plan["group_by"]),
        group_wait=timedelta(seconds=plan["group_wait"]),
        group_interval=timedelta(seconds=plan["group_interval"]),
    )


def _expect_key(task: TaskId) -> str:
    return f"expect:{task}"


def _hold_key(root: str) -> str:
    return f"hold:{root}"


def _resolve_key(task: TaskId) -> str:
    return f"resolve:{task}"
