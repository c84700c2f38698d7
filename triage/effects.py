"""What follows from a decision: rows to write together with it, as values. Pure.

What follows from what happens to such a row later is `triage.reactions`' business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from triage.changes import AlertGroup, Changes, Decided, NewAlert, NewRow, RowKind
from triage.decide import Alert, Decision, Hold, Reason, Rerun, Resolve, policy_of_rule
from triage.drills import PREFIX, Drill
from triage.envelope import FunctionRef, RequestId, may_be_stopped
from triage.errors import Problem
from triage.facts import Arrival, Lineage
from triage.reruns.event import unfit_text
from triage.reruns.lineage import Link, Origin, TaskId, hold_code, payload_key, task_id
from triage.rules.course import ONE_BY_ONE, course_json, course_of
from triage.rules.fingerprints import own_fingerprint
from triage.rules.model import AlertPolicy, Cause, RerunPolicy, Rule, Severity
from triage.states import State

MANUAL: Final = RerunPolicy(max_attempts=100, give_up_after=timedelta(hours=6))
"""How a task is run again that a person says so of, where no rule says how."""


def decided(arrival: Arrival, decision: Decision) -> Decided:
    """All rows that storing one decision entails."""
    envelope, lineage, drill = arrival.envelope, decision.lineage, decision.facts.drill
    # Results are joined by function and event only to real failures.
    event = "" if drill else payload_key(envelope.function.label, envelope.request_payload)
    known = decision.facts.lineage
    if lineage is None:
        told = [_new_alert(arrival, effect) for effect in _told_once(arrival, decision)]
        asked = [
            _resolve_row(arrival, known, effect, elsewhere=True)
            for effect in decision.effects
            if isinstance(effect, Resolve) and known is not None
        ]
        return Decided(arrival, decision, Changes(rows=tuple(asked), alerts=tuple(told)), event)
    rows: list[NewRow] = []
    links: list[Link] = []
    cancel: tuple[str, ...] = ()
    answered = lineage.attempt if decision.facts.attempt is None else decision.facts.attempt
    asks = False
    for effect in decision.effects:
        match effect:
            case Rerun():
                answered = effect.attempt - 1
                rows.append(_rerun_row(arrival, lineage, effect, decision.rule, drill))
                links.append(Link(effect.task_id, lineage.root, effect.attempt, Origin.AUTOMATIC))
            case Resolve():
                asks = True
                rows.append(_resolve_row(arrival, lineage, effect, drill))
            case Hold():
                rows.append(_hold_row(arrival, lineage, effect, decision.rule, drill))
    alerts = [_new_alert(arrival, effect, drill, root=lineage.root) for effect in _told_once(arrival, decision)]
    if lineage.root != envelope.request_id:
        origin = Origin.ELSEWHERE if decision.facts.elsewhere else None
        links.append(Link(envelope.request_id, lineage.root, answered, origin))
        if answered and not asks:
            # The result is here: nobody need wait for it, nor submit what evidently was submitted.
            over = {answered}
            if decision.reason is Reason.HEALED:  # a late success ends the later attempt, too
                over.add(lineage.attempt)
            if decision.facts.elsewhere:  # our own before it is not wanted any more, unless it runs already
                over.add(answered - 1)
            for attempt in sorted(over):
                cancel += awaited(lineage.root, attempt)
    if known is not None and known.state is State.HELD and lineage.state is not State.HELD:
        cancel += (hold_key(lineage.root),)
    changes = Changes((lineage,), tuple(links), tuple(rows), tuple(alerts), cancel)
    return Decided(arrival, decision, changes, event)


def _told_once(arrival: Arrival, decision: Decision) -> list[Alert]:
    """The alerts of a decision. Several rules may want a receiver to hear of one group: the first of them does."""
    told: set[tuple[str, ...]] = set()
    alerts = []
    for effect in decision.effects:
        if isinstance(effect, Alert):
            labels, policy = _labels(arrival, effect.rule), effect.policy
            about = tuple(f"{name}={labels.get(name, '')}" for name in policy.group_by)
            to = tuple(receiver for receiver in policy.to if (receiver, *about) not in told)
            told |= {(receiver, *about) for receiver in to}
            if to:
                alerts.append(effect if to == policy.to else replace(effect, policy=replace(policy, to=to)))
    return alerts


def alert_group(labels: Mapping[str, str], policy: AlertPolicy) -> AlertGroup:
    """The group that an alert with these labels belongs to under this policy; that of a drill is its own, told at once
    and once.
    """
    parts = [labels.get("rule", ""), *policy.to, *(f"{name}={labels.get(name, '')}" for name in policy.group_by)]
    key = hashlib.sha256("\x1f".join(parts).encode("utf-8", "replace")).hexdigest()[:16]
    severity = str(policy.severity)
    if drill := labels.get("drill"):
        key = PREFIX + hashlib.sha256(f"{drill}/{key}".encode()).hexdigest()[:16]
        return AlertGroup(key, policy.to, severity, labels, timedelta(0), timedelta(seconds=5), ONE_BY_ONE)
    return AlertGroup(key, policy.to, severity, labels, policy.group_wait, policy.group_interval, policy.course)


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


def _rerun_row(arrival: Arrival, lineage: Lineage, effect: Rerun, rule: Rule | None, drill: Drill | None) -> NewRow:
    policy = effect.policy
    return NewRow(
        key=effect.task_id,
        kind=RowKind.RERUN,
        due_at=effect.due_at,
        root=lineage.root,
        payload={
            "request_id": arrival.envelope.request_id,
            "attempt": effect.attempt,
            "origin": Origin.AUTOMATIC,
            **rerun_plan(arrival, policy),
            **({"may_be_stopped": True} if effect.attempt == 1 and may_be_stopped(arrival.envelope) else {}),
            **({} if policy.budget is None else {"budget": policy.budget}),
            **({} if drill is None or drill.rerun else {"dry": True}),
            "give_up_at": (lineage.started_at + policy.give_up_after).isoformat(),
            "alert": alert_plan(arrival, rule, drill),
        },
    )


def rerun_plan(arrival: Arrival, policy: RerunPolicy) -> dict[str, Any]:
    """How to run a task again, as JSON, for the row that will do it."""
    return {
        "function": _function(arrival.envelope.function, policy.qualifier),
        "expect_within": policy.expect_within.total_seconds(),
        "idempotent": policy.idempotent,
    }


def _hold_row(arrival: Arrival, lineage: Lineage, effect: Hold, rule: Rule | None, drill: Drill | None) -> NewRow:
    return NewRow(
        key=hold_key(lineage.root),
        kind=RowKind.HOLD,
        due_at=effect.due_at,
        root=lineage.root,
        payload={
            "request_id": arrival.envelope.request_id,
            "attempt": lineage.attempt,
            "reason": effect.policy.reason,
            "rerun": rerun_plan(arrival, (rule.rerun if rule else None) or MANUAL),
            "alert": alert_plan(arrival, rule, drill),
        },
        anew=True,
    )


def _new_alert(arrival: Arrival, alert: Alert, drill: Drill | None = None, *, root: str = "") -> NewAlert:
    group = alert_group(_labels(arrival, alert.rule, drill), _to_whom(alert.policy, drill))
    return NewAlert(group, root, arrival.envelope.request_id, alert.cause, _detail(arrival, alert, root=root))


def _detail(arrival: Arrival, alert: Alert, *, root: str) -> str:
    match alert.cause:
        case Cause.HELD:
            code = hold_code(root)
            return f"triage approve {code}, or triage reject {code}"
        case Cause.REFUSED:
            return f"not run again: {unfit_text(arrival.envelope)}"
    return ""


def _to_whom(policy: AlertPolicy, drill: Drill | None) -> AlertPolicy:
    return policy if drill is None or not drill.to else replace(policy, to=(drill.to,))


def _resolve_row(
    arrival: Arrival, lineage: Lineage, effect: Resolve, drill: Drill | None = None, *, elsewhere: bool = False
) -> NewRow:
    return NewRow(
        key=resolve_key(effect.task_id),
        kind=RowKind.RESOLVE,
        due_at=arrival.received_at,
        root=lineage.root,
        payload={
            "request_id": arrival.envelope.request_id,
            "attempt": effect.attempt,
            "task_id": effect.task_id,
            "function": _function(arrival.envelope.function, ""),
            "alert": alert_plan(arrival, None, drill),
            **({"elsewhere": True} if elsewhere else {}),
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


def _labels(arrival: Arrival, rule: Rule | None, drill: Drill | None = None) -> dict[str, str]:
    envelope = arrival.envelope
    return {
        "function": envelope.function.label,
        "region": envelope.function.region,
        "account": envelope.function.account,
        "condition": envelope.condition,
        "error_type": envelope.error.type,
        "error_message": envelope.error.message[:2000],
        "fingerprint": own_fingerprint(arrival, rule.fingerprint) if rule and rule.fingerprint else arrival.fingerprint,
        "failure_group": arrival.fingerprint,
        "rule": rule.id if rule else "",
        "owner": rule.owner if rule else "",
        "runbook": rule.runbook if rule else "",
        **{f"labels.{name}": text for name, text in {**arrival.labels, **(rule.labels if rule else {})}.items()},
        **({"drill": drill.request_id} if drill else {}),
    }


def alert_plan(arrival: Arrival, rule: Rule | None, drill: Drill | None = None) -> dict[str, Any]:
    """The alert policy as JSON: a re-run may end badly long after the rule that planned it was changed."""
    policy = _to_whom(policy_of_rule(rule), drill)
    return {
        "labels": _labels(arrival, rule, drill),
        "to": list(policy.to),
        "on": sorted(policy.on),
        "severity": str(policy.severity),
        "group_by": list(policy.group_by),
        "group_wait": policy.group_wait.total_seconds(),
        "group_interval": policy.group_interval.total_seconds(),
        "course": course_json(policy.course),
    }


def policy_of(plan: Mapping[str, Any]) -> AlertPolicy:
    """The alert policy that an outbox row carries (``payload["alert"]``)."""
    return AlertPolicy(
        to=tuple(plan["to"]),
        on=frozenset(Cause(cause) for cause in plan["on"]),
        severity=Severity(plan["severity"]),
        group_by=tuple(plan["group_by"]),
        group_wait=timedelta(seconds=plan["group_wait"]),
        group_interval=timedelta(seconds=plan["group_interval"]),
        course=course_of(plan.get("course", {})),  # not there in a row of an older version
    )


def awaited(root: RequestId, attempt: int) -> tuple[str, ...]:
    """Keys of the rows by which an attempt is submitted, and its result waited for and asked for."""
    task = task_id(root, attempt)
    return (expect_key(task), resolve_key(task), task)


def expect_key(task: TaskId) -> str:
    """Key of the row that waits for the result of a task."""
    return f"expect:{task}"


def hold_key(root: str) -> str:
    """Key of the row that waits for a person's decision."""
    return f"hold:{root}"


def resolve_key(task: TaskId) -> str:
    """Key of the row that asks how a task ended."""
    return f"resolve:{task}"
