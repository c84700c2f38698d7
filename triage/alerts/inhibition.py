"""A cause that keeps its symptoms quiet: what becomes of them meanwhile, and what is told when it ends. Pure.

While a group is open that inhibits another one, the other's alerts are only counted. When the cause is resolved, one
message for each receiver tells all that was counted because of it; what fails from then on is told as ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from triage.alerts.notice import notice
from triage.alerts.storm import group_line
from triage.alerts.wording import printable, times
from triage.changes import AlertGroup, Changes, Looked, NewRow
from triage.incident import short_code
from triage.rules.model import Severity
from triage.views import GroupView

KEYS: Final = "notify:inhibition:"
"""Begins the keys of these messages."""

PATIENCE: Final = timedelta(hours=24)
"""A group that is over otherwise waits so long for the end of its cause. After that its own end tells what was counted:
of two that ever came to keep each other quiet, by rules that were changed meanwhile, each would wait for ever.
"""

_GROUPS: Final = 10
"""Groups that a message tells one by one, those with most alerts first."""

_SEVERITIES: Final = tuple(severity.value for severity in Severity)


def name_of(group: AlertGroup) -> str:
    """How a symptom names its cause."""
    return f"{group.labels.get('rule', '')} ({group.key})"


def kept_back(view: GroupView, *, last_at: datetime, now: datetime) -> bool:
    """Whether a group that is over stays open, because the end of its cause will tell what was counted."""
    incident = view.incident
    if not (view.cause and incident.inhibited and any(incident.unsaid.values())) or incident.closed is not None:
        return False
    return now < last_at + (view.group.course.quiet_for or timedelta()) + PATIENCE


def released(view: GroupView, *, now: datetime) -> Changes:
    """A group has ended: what its receivers are told of those that it has kept quiet. One that has another cause, too,
    waits for the end of that.
    """
    free = [symptom for symptom in view.symptoms if not symptom.cause]
    others = [
        replace(symptom.incident, inhibited=symptom.cause) if symptom.cause else None for symptom in view.symptoms
    ]
    looked = [
        Looked(symptom.group.key, symptom.flushes + 1, 0, made=False, incident=incident)
        for symptom, incident in zip(view.symptoms, others, strict=True)
        if incident is not None
    ]
    to = sorted({receiver for each in free for receiver, count in each.incident.unsaid.items() if count})
    rows = tuple(_message(view, free, receiver, now=now) for receiver in to)
    return Changes(rows=rows, looked=(*looked, *map(_told, free)))


def _told(symptom: GroupView) -> Looked:
    """What a symptom remembers. Who has not heard of it alone does not hear alone of its end either."""
    incident = replace(symptom.incident, inhibited="")
    made = any(incident.unsaid.values())
    if made:
        incident = replace(incident, unsaid={}, messages=incident.messages + 1)
    return Looked(symptom.group.key, symptom.flushes + 1, 0, made=made, incident=incident)


def _message(view: GroupView, symptoms: Sequence[GroupView], receiver: str, *, now: datetime) -> NewRow:
    told = [each for each in symptoms if each.incident.unsaid.get(receiver)]
    told.sort(key=lambda each: (-each.incident.unsaid[receiver], each.group.key))
    count = sum(each.incident.unsaid[receiver] for each in told)
    key = f"{KEYS}{view.group.key}:{view.incident.number}:{receiver}"
    code = short_code(key)
    cause = printable(view.group.labels.get("rule", ""), 60)
    return notice(
        key,
        receiver,
        code=code,
        why="inhibited",
        severity=max((each.group.severity for each in told), key=_SEVERITIES.index),
        alerts=count,
        told=[[each.group.key, each.flushes + 1] for each in told],
        title=f"{cause} is over: it kept {times(count, 'alert')} of {times(len(told), 'group')} quiet #{code}",
        body="\n".join(_lines(view, told, receiver, count=count)),
        now=now,
    )


def _lines(view: GroupView, told: Sequence[GroupView], receiver: str, *, count: int) -> Iterable[str]:
    labels = view.group.labels
    what = printable(labels.get("function") or labels.get("condition", ""), 80)
    yield f"Cause: {what}, rule {printable(labels.get('rule', ''), 80)}, is resolved"
    yield f"Told by this message: {count:,} in {times(len(told), 'group')}, only counted till now"
    yield from (group_line(each, each.incident.unsaid[receiver]) for each in told[:_GROUPS])
    if rest := told[_GROUPS:]:
        counted = sum(each.incident.unsaid[receiver] for each in rest)
        yield f"  … and {counted:,} in {times(len(rest), 'more group')}"
    yield "What fails from now on is told group by group again."
    yield "Look: triage alerts list"
