"""Silences: alerts that nobody is told of for a while, and all that follows from one. Pure.

A silence acts when an alert group is flushed. What it keeps quiet is counted by group and receiver, and told when it
ends. It has one outbox row, due whenever there is something to look at: when it is soon to end, and when it ends. A
silence *until resolved* ends sooner: when no alert that it matches has come for ``quiet_for``, or when all the failures
that it kept quiet have healed and none came for `SETTLED`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from triage.alerts.summaries import Moment, summary
from triage.changes import AlertGroup, Changes, NewRow, RowKind, Settle
from triage.incident import short_code
from triage.rules.alertmatch import OWN, matches
from triage.rules.model import Cause
from triage.silence import Silence, Silenced
from triage.views import AlertKind, GroupView, OutboxRow, RowFacts, SilenceView

SETTLED: Final = timedelta(minutes=5)
"""All has healed when nothing new came for so long. So often a silence until resolved is looked at, too."""

_MEMBERS: Final = ("function", "condition", "error_type", "fingerprint", "rule", "owner")
_SAMPLES: Final = 5


def kind_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Of an alert's labels those that silences look at; alerts that are equal in them are of one kind."""
    return {name: text for name, text in labels.items() if name in _MEMBERS or name.startswith(OWN)}


def kind_key(labels: Mapping[str, str]) -> str:
    """The name of an alert's kind."""
    parts = [labels.get(name, "") for name in _MEMBERS]
    parts += [f"{name}={text}" for name, text in labels.items() if name.startswith(OWN)]
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "replace")).hexdigest()[:16]


def silencing(
    silences: Iterable[Silence], labels: Mapping[str, str], *, severity: str, receiver: str, now: datetime
) -> Silence | None:
    """The silence that keeps an alert from a receiver; of several the one that ends last, which then tells of it."""
    found = [
        silence
        for silence in silences
        if now < silence.ends_at and matches(silence.match, labels, severity=severity, receiver=receiver)
    ]
    return max(found, key=lambda silence: (silence.ends_at, -silence.id), default=None)


def by_receiver(
    group: AlertGroup, labels: Mapping[str, str], silences: Sequence[Silence], *, now: datetime
) -> dict[str, Silence]:
    """Which silence keeps an alert with these labels from which of its group's receivers."""
    found = {
        receiver: silencing(silences, labels, severity=group.severity, receiver=receiver, now=now)
        for receiver in group.receivers
    }
    return {receiver: silence for receiver, silence in found.items() if silence is not None}


def silenced(view: GroupView, silences: Sequence[Silence], *, now: datetime) -> tuple[Silenced, ...]:
    """What silences keep from whom, of all that waits in a group."""
    return tuple(each for kind in view.kinds for each in _of_kind(view, kind, silences, now=now)) if silences else ()


def _of_kind(view: GroupView, kind: AlertKind, silences: Sequence[Silence], *, now: datetime) -> list[Silenced]:
    by = by_receiver(view.group, kind.labels, silences, now=now)
    count, wholly = sum(kind.causes.values()), len(by) == len(view.group.receivers)
    return [
        Silenced(kind.key, receiver, silence.id, count, kind.first_at, kind.last_at, wholly)
        for receiver, silence in by.items()
    ]


def audible(view: GroupView, receiver: str, hushed: Sequence[Silenced]) -> GroupView | None:
    """What is left to tell a receiver; None when nothing is."""
    gone = {each.kind for each in hushed if each.receiver == receiver}
    kinds = [kind for kind in view.kinds if kind.key not in gone]
    if len(kinds) == len(view.kinds):
        return view
    if not kinds:
        return None
    causes: Counter[Cause] = Counter()
    for kind in kinds:
        causes.update(kind.causes)
    samples = sorted((sample for kind in kinds for sample in kind.samples), key=lambda each: each.at, reverse=True)
    return replace(
        view,
        group=_speaking_of(view.group, kinds),
        first_at=min(kind.first_at for kind in kinds),
        last_at=max(kind.last_at for kind in kinds),
        causes=causes,
        samples=tuple(samples[:_SAMPLES]),
        kinds=tuple(kinds),
    )


def _speaking_of(group: AlertGroup, kinds: Sequence[AlertKind]) -> AlertGroup:
    """The group as its newest alert left it, or, when that is silenced, as the newest kind that is not says."""
    if kind_key(group.labels) in {kind.key for kind in kinds}:
        return group
    newest = max(kinds, key=lambda kind: kind.last_at)
    return replace(group, labels={**group.labels, **newest.labels, "error_message": ""})


def row_key(silence: int) -> str:
    """Key of the one outbox row of a silence."""
    return f"silence:{silence}"


def begin(silence: Silence, *, warn_before: timedelta) -> NewRow:
    """The outbox row that sees to a silence's end. ``warn_before``: so long before it that is told; zero: never."""
    payload = {"silence": silence.id, "warn_before": warn_before.total_seconds()}
    due_at = _next_look(silence, payload, last_at=silence.created_at, now=silence.created_at)
    return NewRow(row_key(silence.id), RowKind.SILENCE, due_at, payload)


def look(row: OutboxRow, facts: RowFacts, *, now: datetime) -> Settle:
    """What becomes of a silence whose row is due: it ends, or somebody hears that it soon will, or it goes on."""
    view = facts.silence
    if view is None or view.silence.ended_at is not None:
        return Settle.done(note="ended before")
    silence, payload = view.silence, dict(row.payload)
    last_at = max((group.last_at for group in view.groups), default=silence.created_at)
    if how := _over(view, last_at=last_at, now=now):
        return _end(view, how, now=now)
    rows: tuple[NewRow, ...] = ()
    if not payload.get("warned") and (warn_at := _warn_at(silence, payload)) is not None and now >= warn_at:
        payload["warned"] = True
        rows = _notifications(view, Moment.SOON, silence.to or tuple(_receivers(view)), now=now)
    due_at = _next_look(silence, payload, last_at=last_at, now=now)
    return Settle.retry(due_at=due_at, note="in force", payload=payload, changes=Changes(rows=rows))


def end_now(facts: RowFacts, *, by: str, reason: str, now: datetime) -> Settle:
    """A person ends a silence ahead of its time."""
    view = facts.silence
    if view is None or view.silence.ended_at is not None:
        return Settle.dead(note="ended before")
    return _end(view, f"ended by {by}: {reason}", now=now)


def _end(view: SilenceView, how: str, *, now: datetime) -> Settle:
    whom = dict.fromkeys([*_receivers(view), *view.silence.to])
    rows = _notifications(view, Moment.OVER, tuple(whom), now=now, how=how)
    # A warning that could not be delivered yet would only confuse.
    stale = tuple(_key(view, Moment.SOON, receiver) for receiver in whom)
    changes = Changes(rows=rows, cancel=stale, ended=(view.silence.id, how))
    return Settle.done(note=how, changes=changes)


def _over(view: SilenceView, *, last_at: datetime, now: datetime) -> str:
    """How a silence has ended by itself; empty when it has not."""
    silence = view.silence
    if now >= silence.ends_at:
        return "expired"
    if silence.quiet_for is None:
        return ""
    if now >= last_at + silence.quiet_for:
        return "resolved: nothing that it matches has failed any more"
    if view.groups and not still_open(view) and now >= last_at + SETTLED:
        return "resolved: all that it kept quiet has healed"
    return ""


def still_open(view: SilenceView) -> int:
    """Alerts that a silence kept quiet and whose failures have not healed."""
    counts: dict[str, int] = {}
    healed: dict[str, int] = {}
    for each in view.groups:  # the same alerts, once per receiver
        counts[each.group.key] = max(each.count, counts.get(each.group.key, 0))
        healed[each.group.key] = each.healed
    return sum(counts.values()) - sum(healed.values())


def _next_look(silence: Silence, payload: Mapping[str, Any], *, last_at: datetime, now: datetime) -> datetime:
    times = [silence.ends_at]
    if not payload.get("warned") and (warn_at := _warn_at(silence, payload)) is not None:
        times.append(warn_at)
    if silence.quiet_for is not None:
        times += [last_at + silence.quiet_for, now + SETTLED]
    return min(times)


def _warn_at(silence: Silence, payload: Mapping[str, Any]) -> datetime | None:
    """When somebody hears that a silence is about to end; None for one that is hardly longer than that."""
    before = timedelta(seconds=payload["warn_before"])
    warn_at = silence.ends_at - before
    return warn_at if before and warn_at > silence.created_at + before else None


def _receivers(view: SilenceView) -> Iterable[str]:
    return dict.fromkeys(each.receiver for each in view.groups)


def _key(view: SilenceView, moment: Moment, receiver: str) -> str:
    return f"notify:{row_key(view.silence.id)}:{moment}:{receiver}"


def _notifications(
    view: SilenceView, moment: Moment, receivers: Sequence[str], *, now: datetime, how: str = ""
) -> tuple[NewRow, ...]:
    """One message to each receiver with what was kept from it; to one that nothing was kept from, with everything."""
    if not view.groups:
        return ()
    rows = []
    for receiver in receivers:
        key = _key(view, moment, receiver)
        code = short_code(key)
        text = summary(view, moment, receiver, code=code, how=how)
        payload = {
            "receiver": receiver,
            "at": now.isoformat(),
            "code": code,
            "severity": text.severity,
            "title": text.title,
            "body": text.body,
        }
        rows.append(NewRow(key, RowKind.NOTIFY, now, payload))
    return tuple(rows)
