"""A look at an alert group: what its receivers are told, and when it is looked at again. The only place where a group
changes. Pure.

The first message of an incident comes after ``group_wait``. After that the group is looked at every ``group_interval``
while it fails: what is new is told at once, what is not is counted, and told when ``repeat_interval`` has passed, or at
the end. All times are kept in the store, so that a process that was restarted goes on where the last one was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from triage.alerts.compose import Compose, built_in, headed
from triage.alerts.inhibition import kept_back, released
from triage.alerts.silences import SETTLED, audible, silenced
from triage.alerts.storm import begin, joins, next_step
from triage.changes import Changes, Looked, NewRow, RowKind, Settle
from triage.drills import is_drill
from triage.incident import OPEN, GroupEvent, GroupState, Incident, Why, advance, incident_code
from triage.reruns.lineage import Origin
from triage.rules.model import Cause
from triage.rules.readers import show_duration
from triage.silence import Silenced
from triage.states import CLOSED, State
from triage.views import STILL, AlertKind, GroupView, RowFacts

SURGE: Final = 2.0
"""So many times as often as was told is news."""

_SURGE_LEAST: Final = 10
"""Fewer alerts than this are none, however often they come."""

_KNOWN: Final = 256
"""Kinds that are remembered as told; in a group of more, a further one is no news."""

_FUNCTIONS: Final = 256
"""Successes of so many functions are counted; a group of more does not end by them."""

_MINUTE: Final = timedelta(minutes=1)

_DRILL: Final = "DRILL: this is an exercise. Nothing has failed, and what follows is made up."


class _Draft(NamedTuple):
    """A message to be written: about what, to whom, the name in its row's key, and its code."""

    view: GroupView
    receiver: str
    name: str
    code: str


class _Look(NamedTuple):
    """What a look has found. ``due_at``: when to look again, None when the incident is over."""

    looked: Looked
    note: str
    due_at: datetime | None
    drafts: tuple[_Draft, ...] = ()
    hushed: tuple[Silenced, ...] = ()
    rows: tuple[NewRow, ...] = ()


def flush(facts: RowFacts, *, now: datetime, compose: Compose = built_in, storm: int = 0) -> Settle:
    """Tell what there is to tell of a group whose row is due, and look again later; a resolved group has no later.
    ``compose`` writes the messages; so many groups that begin at once are a ``storm``, 0 for never.
    """
    if facts.group is None:
        return Settle.done(note="nothing waits")
    view = replace(facts.group, incident=not_after(facts.group.incident, now))
    silences, others = facts.silences, facts.storm
    if is_drill(view.group.key):  # it is to be told, by a message of its own
        silences, others, storm = (), STILL, 0
    if not view.causes and view.incident.state not in OPEN:
        return Settle.done(note="nothing waits")
    if view.causes:
        joined = joins(others, limit=storm, now=now)
        look = _failing(view, silenced(view, silences, now=now), joined, now=now)
        look = look._replace(rows=begin(others, joined, now=now) if look.looked.incident.storm else ())
    else:
        look = _calm(view, now=now)
    if look.due_at is not None:
        look = _unanswered(view, look, now=now)
    rows = tuple(_notification(draft, compose, now=now) for draft in look.drafts)
    end = released(view, now=now) if look.looked.incident.state is GroupState.RESOLVED else Changes()
    changes = Changes(rows=(*look.rows, *rows, *end.rows), looked=(look.looked, *end.looked), silenced=look.hushed)
    if look.due_at is None:
        return Settle.done(note=look.note, changes=changes)
    return Settle.retry(due_at=look.due_at, note=look.note, changes=changes)


def wants_states(view: GroupView, *, now: datetime) -> bool:
    """Whether it has to be known how the failures of this incident stand: a message may tell it, or it may be over."""
    if not view.causes:
        return view.incident.state in OPEN
    view = replace(view, incident=not_after(view.incident, now))
    incident = _onward(view, _waiting(view), now=now)
    step = next_step(view, incident, first_told_at=incident.first_told_at)
    return _why(view, incident, view.kinds, now=now) is not None or (step is not None and step[0] <= now)


def not_after(incident: Incident, now: datetime) -> Incident:
    """The same, had it all happened until now: a clock that was set back must not keep a group quiet for long."""

    def at(then: datetime | None) -> datetime | None:
        return min(then, now) if then else None

    return replace(
        incident,
        opened_at=at(incident.opened_at),
        last_at=at(incident.last_at),
        looked_at=at(incident.looked_at),
        told_at=at(incident.told_at),
        first_told_at=at(incident.first_told_at),
    )


def message_code(incident: Incident) -> str:
    """Names the incident, and which message about it this is; the same when a crash makes a message go out twice."""
    return incident.code if incident.messages <= 1 else f"{incident.code}-{incident.messages}"


def _failing(view: GroupView, hushed: tuple[Silenced, ...], storm: str, *, now: datetime) -> _Look:
    """Alerts wait: they are told, or counted for a later message."""
    wholly = {each.kind: each.count for each in hushed if each.wholly}
    quiet = sum(wholly.values())
    fresh = _waiting(view) - quiet
    kinds = [kind for kind in view.kinds if kind.key not in wholly]
    incident = _onward(view, fresh, now=now)
    why = _why(view, incident, kinds, now=now) if fresh else None
    if storm and (incident.storm == storm or why is Why.FIRST):
        why, incident = None, replace(incident, storm=storm, known=_known(incident, kinds))
    elif incident.storm:
        incident = replace(incident, storm="")
    whole = replace(view, incident=incident, states=_with_silenced(view.states, quiet), why=why or Why.REPEAT)
    parts = {
        receiver: replace(part, unsaid=incident.unsaid.get(receiver, 0))
        for receiver in dict.fromkeys([*view.group.receivers, *incident.told_to])
        if (part := audible(whole, receiver, hushed)) is not None
    }
    incident = replace(incident, count=incident.count + fresh, inhibited=view.cause)
    drafts: tuple[_Draft, ...] = ()
    if why is None:
        added = {receiver: part.unsaid + _waiting(part) for receiver, part in parts.items()}
        incident = replace(incident, unsaid={**incident.unsaid, **added})
    else:
        incident = _told(incident, why, kinds, rate=_rate(view, fresh, now=now), to=parts, now=now)
        code, name = message_code(incident), str(view.flushes + 1)
        drafts = tuple(_Draft(part, receiver, name, code) for receiver, part in parts.items())
    note = f"{incident.state}: {fresh} alerts {'told' if drafts else 'counted'}{f', {quiet} silenced' if quiet else ''}"
    if view.cause:
        note += f", inhibited by {view.cause}"
    looked = Looked(view.group.key, view.flushes + 1, view.last_id, bool(drafts), incident)
    return _Look(looked, note, now + view.group.group_interval, drafts, hushed)


def _calm(view: GroupView, *, now: datetime) -> _Look:
    """None waits: the incident is over, or nothing has failed for the moment."""
    before = view.incident
    last_at = before.last_at or now
    if (ended := _ended(view, last_at=last_at, now=now)) and not kept_back(view, last_at=last_at, now=now):
        return _resolved(view, ended, now=now)
    incident = replace(before, state=advance(before.state, GroupEvent.CALMED), looked_at=now)
    due_at = now + max(view.group.group_interval, SETTLED)
    if not ended and view.group.course.quiet_for is not None:
        due_at = min(due_at, last_at + view.group.course.quiet_for)
    looked = Looked(view.group.key, view.flushes + 1, view.last_id, made=False, incident=incident)
    return _Look(looked, str(incident.state), due_at)


def _resolved(view: GroupView, ended: str, *, now: datetime) -> _Look:
    """The incident is over; whoever heard of it hears that, and whom a cause has kept from hearing of it."""
    before = view.incident
    incident = replace(before, state=advance(before.state, GroupEvent.RESOLVED), looked_at=now, inhibited="")
    # Of a storm only its summaries speak, also to whom it has escalated.
    to = before.told_to if view.group.course.resolved and before.messages and not before.storm else ()
    if before.inhibited:
        to = tuple(dict.fromkeys([*to, *(receiver for receiver, count in before.unsaid.items() if count)]))
    drafts: tuple[_Draft, ...] = ()
    if to:
        incident = replace(incident, messages=before.messages + 1, told_at=now, unsaid={})
        code, name = message_code(incident), str(view.flushes + 1)
        over = replace(view, why=Why.RESOLVED, ended=ended)
        drafts = tuple(
            _Draft(replace(over, unsaid=before.unsaid.get(receiver, 0)), receiver, name, code) for receiver in to
        )
    looked = Looked(view.group.key, view.flushes + 1, view.last_id, bool(drafts), incident)
    return _Look(looked, f"resolved: {ended}", None, drafts)


def _unanswered(view: GroupView, look: _Look, *, now: datetime) -> _Look:
    """When nobody has acknowledged it for so long, others hear of it, and of all of it. That is no message to those who
    heard of it before, so no alert is marked by it.
    """
    incident, drafts, due_at = look.looked.incident, look.drafts, look.due_at
    while (step := next_step(view, incident, first_told_at=incident.first_told_at)) is not None and step[0] <= now:
        incident = replace(incident, messages=incident.messages + 1, escalated=incident.escalated + 1)
        whole = replace(view, incident=incident, causes={}, why=Why.UNANSWERED, unsaid=incident.count)
        code, name = message_code(incident), f"{incident.number}.{incident.escalated}"
        to = [receiver for receiver in step[1] if receiver not in incident.told_to]
        drafts += tuple(_Draft(whole, receiver, name, code) for receiver in to)
        incident = replace(incident, told_to=(*incident.told_to, *to))
    if step is not None and due_at is not None:
        due_at = min(due_at, step[0])
    return look._replace(looked=replace(look.looked, incident=incident), drafts=drafts, due_at=due_at)


def _onward(view: GroupView, fresh: int, *, now: datetime) -> Incident:
    """The incident with alerts that wait, before anything is told of them."""
    before = view.incident
    if before.state not in OPEN:
        return Incident(
            number=before.number + 1,
            code=incident_code(view.group.key, before.number + 1, view.taken),
            state=advance(before.state, GroupEvent.FAILED),
            opened_at=view.first_at,
            last_at=view.last_at,
            looked_at=now,
            first=view.flushes + 1,
            unsaid=before.unsaid,
            heard=_heard(view, {}),
        )
    surged = before.messages and fresh >= _SURGE_LEAST and _rate(view, fresh, now=now) >= SURGE * before.rate
    return replace(
        before,
        state=advance(before.state, GroupEvent.SURGED if surged else GroupEvent.FAILED),
        last_at=view.last_at,
        looked_at=now,
        ack=None if surged else before.ack,
        closed=None,
        heard=_heard(view, before.heard),
    )


def _heard(view: GroupView, before: Mapping[str, int]) -> Mapping[str, int]:
    """What has succeeded until now says nothing of the failures that wait."""
    if not view.group.course.success_threshold:
        return {}
    failing = {kind.labels["function"] for kind in view.kinds}
    found = {**before, **{function: view.successes.get(function, 0) for function in failing}}
    return dict(sorted(found.items())[:_FUNCTIONS])


def _why(view: GroupView, incident: Incident, kinds: Sequence[AlertKind], *, now: datetime) -> Why | None:
    """Why a message is sent now; None when a cause is known, or nothing is new but counts, and it is too early for
    these.
    """
    course = view.group.course
    if view.cause:
        return None
    if incident.told_at is None:
        return Why.FIRST
    if incident.state is GroupState.ESCALATING:
        return Why.SURGED
    news = {*_names(kinds)} - {*incident.known} if len(incident.known) < _KNOWN else ()
    if not course.repeat_interval:
        return Why.EACH
    if news or Cause.HELD in view.causes:
        return Why.CHANGED
    if incident.ack is None and now >= incident.told_at + course.repeat_after(incident.repeats):
        return Why.REPEAT
    return None


def _told(
    incident: Incident, why: Why, kinds: Sequence[AlertKind], *, rate: float, to: Collection[str], now: datetime
) -> Incident:
    return replace(
        incident,
        messages=incident.messages + 1,
        repeats=incident.repeats + 1 if why is Why.REPEAT else 0,
        rate=max(incident.rate, rate),
        known=_known(incident, kinds),
        told_to=tuple(dict.fromkeys([*incident.told_to, *to])),
        unsaid={receiver: count for receiver, count in incident.unsaid.items() if receiver not in to},
        told_at=now,
        first_told_at=incident.first_told_at or now,
    )


def _known(incident: Incident, kinds: Sequence[AlertKind]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*incident.known, *_names(kinds)]))[:_KNOWN]


def _names(kinds: Sequence[AlertKind]) -> Iterator[str]:
    """What can be new in a group: a kind of alert, and why it is raised."""
    return (f"{kind.key}/{cause}" for kind in kinds for cause in sorted(kind.causes))


def _rate(view: GroupView, fresh: int, *, now: datetime) -> float:
    """Alerts per minute since the last look."""
    since = view.incident.looked_at if view.incident.state in OPEN else view.first_at
    return fresh / max((now - (since or now)) / _MINUTE, 1.0)


def _waiting(view: GroupView) -> int:
    return sum(view.causes.values())


def _with_silenced(states: Mapping[str, int], quiet: int) -> Mapping[str, int]:
    """Of those that were to be told, so many are kept quiet now."""
    if not quiet or not states:
        return states
    moved = Counter(states)
    moved[State.ALERTING] -= quiet
    moved[State.SILENCED] += quiet
    return +moved


def _ended(view: GroupView, *, last_at: datetime, now: datetime) -> str:
    """How the incident has come to its end; empty when it has not."""
    course, known = view.group.course, {state: count for state, count in view.states.items() if count}
    left = sum(count for state, count in known.items() if state not in CLOSED)
    still = f"; {left:,} of {sum(known.values()):,} have not healed" if left else ""
    if (word := view.incident.closed) is not None:
        return f"{word.by} says so: {word.reason}{still}"
    if now >= last_at + SETTLED:
        if known and not left:
            return _healed(view.healed_by) if State.HEALED in known else "all that failed is ignored by now"
        if _succeeds(view):
            return f"each of its functions has succeeded {course.success_threshold:,} times since{still}"
    if course.quiet_for is not None and now >= last_at + course.quiet_for:
        return f"nothing has failed for {show_duration(course.quiet_for)}{still}"
    return ""


_HEALED_BY: Final[Mapping[str, str]] = {
    Origin.AUTOMATIC: "by a rule",
    Origin.APPROVAL: "with an approval",
    Origin.MANUAL: "by hand",
    Origin.PLAN: "by a plan",
    Origin.ELSEWHERE: "elsewhere",
}


def _healed(healed_by: Mapping[str, int]) -> str:
    how = ", ".join(
        f"{count:,} run again {_HEALED_BY.get(origin, 'by somebody')}" for origin, count in sorted(healed_by.items())
    )
    return f"all that failed has healed{f': {how}' if how else ''}"


def _succeeds(view: GroupView) -> bool:
    """Whether all that failed has succeeded often enough since."""
    threshold, heard = view.group.course.success_threshold, view.incident.heard
    if not threshold or not heard or len(heard) >= _FUNCTIONS:
        return False
    return all(view.successes.get(function, 0) - before >= threshold for function, before in heard.items())


def _notification(draft: _Draft, compose: Compose, *, now: datetime) -> NewRow:
    view = draft.view
    # One that only the next receiver gets marks no alerts: what it delivers is what the last message told.
    number = view.flushes if view.why is Why.UNANSWERED else view.flushes + 1
    texts = compose(view, draft.code, draft.receiver).payload
    if drill := view.group.labels.get("drill"):
        texts = {**headed(texts, "DRILL", _DRILL), "drill": drill}
    return NewRow(
        key=f"notify:{view.group.key}:{draft.name}:{draft.receiver}",
        kind=RowKind.NOTIFY,
        due_at=now,
        group=view.group.key,
        payload={
            "receiver": draft.receiver,
            "flush": number,
            "at": now.isoformat(),
            "code": draft.code,
            "why": view.why,
            "severity": view.group.severity,
            "alerts": _waiting(view) + view.unsaid,
            **texts,
        },
    )
