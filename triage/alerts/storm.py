"""Many groups that begin to fail at once are one storm: told by one summary for each receiver, and its end by another.
Pure.

While a storm lasts, the groups that began in it tell nothing themselves; their alerts are counted, and told by the
summaries. A storm has one outbox row, which exists from its first group until its end, and names the storm. Those that
nobody acknowledges escalate as ever, together: one message for each receiver that is next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from triage.alerts.notice import notice
from triage.alerts.wording import instant, printable, times
from triage.changes import Changes, Looked, NewRow, RowKind, Settle
from triage.incident import OPEN, Incident, Why, short_code
from triage.rules.model import Severity
from triage.views import GroupView, OutboxRow, RowFacts, StormView

KEY: Final = "storm"
"""Key of the one outbox row; its payload says since when."""

WINDOW: Final = timedelta(minutes=5)
"""Groups that began within so long of each other began at once. When none of a storm's has failed for so long, it is
over.
"""

GATHER: Final = timedelta(seconds=10)
"""How long the first summary waits for the groups that are being looked at."""

_AGAIN: Final = timedelta(minutes=10)
"""A storm that goes on is told again after so long, then after twice as long, and so on."""

_LOOK: Final = timedelta(seconds=30)

_GROUPS: Final = 10
"""Groups that a summary tells one by one, those with most alerts first."""

_SEVERITIES: Final = tuple(severity.value for severity in Severity)


def joins(storm: StormView, *, limit: int, now: datetime) -> str:
    """The storm that a group which begins now is part of; empty: there is none. ``limit``: so many groups that begin at
    once are one, 0 for never.
    """
    if not limit:
        return ""
    return storm.since or (now.isoformat() if storm.beginning >= limit else "")


def begin(storm: StormView, since: str, *, now: datetime) -> tuple[NewRow, ...]:
    """The outbox row of a storm that begins with this group."""
    if storm.since == since:
        return ()
    return (NewRow(KEY, RowKind.STORM, now + GATHER, {"since": since, "messages": 0, "to": []}, anew=True),)


def storm_look(row: OutboxRow, facts: RowFacts, *, now: datetime) -> Settle:
    """What is told of a storm whose row is due, and whether it is over."""
    groups = facts.storm.groups if facts.storm else ()
    payload = dict(row.payload)
    instants = (at for view in groups for at in (view.incident.opened_at, view.incident.last_at) if at is not None)
    last_at = min(max(instants, default=now - WINDOW), now)
    # What waits in a group is counted at its next look, which the end must not overtake.
    over = now >= last_at + WINDOW and not any(view.last_id for view in groups)
    told_at = datetime.fromisoformat(payload.get("told_at", now.isoformat()))
    again_at = told_at + _AGAIN * 2 ** min(payload["messages"], 10) / 2
    drafts: tuple[NewRow, ...] = ()
    looked: tuple[Looked, ...] = ()
    if payload["messages"] and not over:
        raised, changed = _raised(groups, payload, now=now)
        drafts = tuple(_unanswered(views, receiver, payload, now=now) for receiver, views in sorted(raised.items()))
        groups = tuple(changed.get(view.group.key, view) for view in groups)
        looked = tuple(_looked(view) for view in changed.values())
        payload["to"] = [*payload["to"], *sorted(raised)]
    if not payload["messages"] or over or now >= again_at:
        payload |= {"messages": payload["messages"] + 1, "told_at": now.isoformat()}
        payload.setdefault("first_told_at", payload["told_at"])
        unsaid = {receiver for view in groups for receiver, count in view.incident.unsaid.items() if count}
        to = dict.fromkeys([*payload["to"], *sorted(unsaid)]) if over else dict.fromkeys(sorted(unsaid))
        drafts += tuple(_summary(groups, receiver, payload, over=over, now=now) for receiver in to)
        payload["to"] = [*dict.fromkeys([*payload["to"], *to])]
        looked = tuple(_told(view, over=over, now=now) for view in groups)
    changes = Changes(rows=drafts, looked=looked)
    note = f"{times(len(groups), 'group')}, {'over' if over else 'going on'}"
    if over:
        return Settle.done(note=note, changes=changes)
    told_at = datetime.fromisoformat(payload["told_at"])
    again_at = told_at + _AGAIN * 2 ** min(payload["messages"], 10) / 2
    due_at = min([again_at, max(last_at + WINDOW, now + _LOOK), *_steps(groups, payload)])
    return Settle.retry(due_at=due_at, note=note, payload=payload, changes=changes)


def _raised(
    groups: Sequence[GroupView], payload: Mapping[str, Any], *, now: datetime
) -> tuple[dict[str, list[GroupView]], dict[str, GroupView]]:
    """Whom steps of escalations are for that are due, with their groups; and all groups that have taken one, by key.
    A receiver that hears of the storm already is told of further groups by its next summary.
    """
    changed: dict[str, GroupView] = {}
    raised: dict[str, list[str]] = {}
    for view in groups:
        key, incident = view.group.key, view.incident
        while (step := next_step(view, incident, first_told_at=_first_told_at(payload))) is not None and step[0] <= now:
            new = [each for each in step[1] if each not in (*view.group.receivers, *incident.told_to)]
            known = {receiver: incident.count for receiver in new if receiver in payload["to"]}
            incident = replace(
                incident,
                escalated=incident.escalated + 1,
                told_to=(*incident.told_to, *new),
                unsaid={**incident.unsaid, **known},
            )
            changed[key] = replace(view, incident=incident)
            for receiver in new:
                if receiver not in known:
                    raised.setdefault(receiver, []).append(key)
    return {receiver: [changed[key] for key in keys] for receiver, keys in raised.items()}, changed


def _looked(view: GroupView) -> Looked:
    return Looked(view.group.key, view.flushes + 1, 0, made=False, incident=view.incident)


def _first_told_at(payload: Mapping[str, Any]) -> datetime:
    # An older version knew the time of the last summary only.
    return datetime.fromisoformat(payload.get("first_told_at", payload["told_at"]))


def _steps(groups: Sequence[GroupView], payload: Mapping[str, Any]) -> Iterable[datetime]:
    """When the groups escalate next."""
    steps = (next_step(view, view.incident, first_told_at=_first_told_at(payload)) for view in groups)
    return (step[0] for step in steps if step is not None)


def next_step(
    view: GroupView, incident: Incident, *, first_told_at: datetime | None
) -> tuple[datetime, tuple[str, ...]] | None:
    """When who is told next because nobody has acknowledged it."""
    steps = view.group.course.escalate
    if incident.state not in OPEN or incident.ack is not None or first_told_at is None:
        return None
    if incident.escalated >= len(steps):
        return None
    step = steps[incident.escalated]
    return first_told_at + step.after, step.to


def _unanswered(views: Sequence[GroupView], receiver: str, payload: dict[str, Any], *, now: datetime) -> NewRow:
    """To the next receiver, all that escalates to it. It marks no alerts: those before it have been told of them."""
    since, total = payload["since"], sum(view.incident.count for view in views)
    key = f"notify:storm:{since}:unanswered:{receiver}"
    code = f"{short_code(f'storm/{since}')}-{payload['messages']}u"
    lines = [
        f"Nobody has acknowledged {times(len(views), 'group')} that began in a storm.",
        *_lines(views, since, fresh=total, total=total, over=False),
        "Take one upon yourself: triage alerts ack CODE --by … --reason …",
    ]
    return notice(
        key,
        receiver,
        code=code,
        why=Why.UNANSWERED,
        severity=max((view.group.severity for view in views), key=_SEVERITIES.index),
        alerts=total,
        told=[],
        title=f"unanswered: storm of failures: {times(len(views), 'group')}, {times(total, 'alert')} #{code}",
        body="\n".join(lines),
        now=now,
    )


def _told(view: GroupView, *, over: bool, now: datetime) -> Looked:
    """What is remembered of a group that a summary tells of. Nobody has heard of it alone, so nobody hears alone of its
    end; if it fails again after the storm, that is told as its first message.
    """
    incident = view.incident
    receivers = [receiver for receiver, count in incident.unsaid.items() if count]
    storm = "" if over else incident.storm
    if over:
        incident = replace(incident, told_at=None, told_to=(), escalated=0)
    if not receivers or incident.state not in OPEN:
        return Looked(view.group.key, view.flushes + 1, 0, made=False, incident=replace(incident, storm=storm))
    minutes = max(((incident.last_at or now) - (incident.opened_at or now)) / timedelta(minutes=1), 1.0)
    told = replace(
        incident,
        storm=storm,
        unsaid={},
        messages=incident.messages + 1,
        told_at=None if over else now,
        rate=max(incident.rate, incident.count / minutes),
    )
    return Looked(view.group.key, view.flushes + 1, 0, made=True, incident=told)


def _summary(
    groups: Sequence[GroupView], receiver: str, payload: dict[str, Any], *, over: bool, now: datetime
) -> NewRow:
    of = [view for view in groups if receiver in (*view.group.receivers, *view.incident.told_to)]
    told = [view for view in of if view.incident.unsaid.get(receiver)]
    key = f"notify:storm:{payload['since']}:{payload['messages']}:{receiver}"
    code = short_code(f"storm/{payload['since']}")
    code = code if payload["messages"] == 1 else f"{code}-{payload['messages']}"
    severity = max((view.group.severity for view in of), key=_SEVERITIES.index, default=Severity.WARNING.value)
    fresh = sum(view.incident.unsaid[receiver] for view in told)
    total = sum(view.incident.count for view in of)
    what = f"{times(len(of), 'group')}, {times(total, 'alert')}"
    return notice(
        key,
        receiver,
        code=code,
        why="storm",
        severity=severity,
        alerts=fresh,
        told=[[view.group.key, view.flushes + 1] for view in told],
        title=f"storm {'is over' if over else 'of failures'}: {what} #{code}",
        body="\n".join(_lines(of, payload["since"], fresh=fresh, total=total, over=over)),
        now=now,
    )


def _lines(of: Sequence[GroupView], since: str, *, fresh: int, total: int, over: bool) -> Iterable[str]:
    yield f"Count: {total:,} in {times(len(of), 'group')} since {instant(datetime.fromisoformat(since))}"
    yield f"Told by this message: {fresh:,}"
    largest = sorted(of, key=lambda view: (-view.incident.count, view.group.key))
    yield from (group_line(view, view.incident.count) for view in largest[:_GROUPS])
    if rest := largest[_GROUPS:]:
        count = sum(view.incident.count for view in rest)
        yield f"  … and {count:,} in {times(len(rest), 'more group')}"
    if over:
        yield "What fails from now on is told group by group again."
    else:
        yield "Until it is over, groups that begin to fail are told in summaries only."
    yield "Look: triage alerts list"


def group_line(view: GroupView, count: int) -> str:
    """A group in a summary: so many of its alerts, of what function, which error, whose."""
    labels = view.group.labels
    what = printable(labels.get("function") or labels.get("condition", ""), 80)
    kind = printable(labels.get("error_type") or labels.get("condition") or "error", 60)
    owner = f", owner {printable(labels['owner'], 80)}" if labels.get("owner") else ""
    return f"  {count:,} × {what}: {kind}{owner}"
