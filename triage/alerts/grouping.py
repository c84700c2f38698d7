"""Folding the waiting alerts of a group into notifications: the only place where a group changes. Pure."""

from __future__ import annotations

import hashlib
from datetime import datetime

from triage.alerts.compose import Compose, built_in
from triage.alerts.silences import audible, silenced
from triage.changes import Changes, GroupView, NewRow, RowFacts, RowKind, Settle


def flush(facts: RowFacts, *, now: datetime, compose: Compose = built_in) -> Settle:
    """One notification per receiver for all that waits and no silence keeps from it, then look again after
    ``group_interval``. ``compose`` writes them.

    A group in which nothing waits is finished; the next alert starts it again with ``group_wait``.
    """
    view = facts.group
    if view is None or not view.causes:
        return Settle.done(note="nothing waits")
    number = view.flushes + 1
    hushed = silenced(view, facts.silences, now=now)
    left = [(receiver, audible(view, receiver, hushed)) for receiver in view.group.receivers]
    rows = tuple(_notification(part, receiver, number, compose, now=now) for receiver, part in left if part is not None)
    quiet = sum({each.kind: each.count for each in hushed if each.wholly}.values())
    told = f"flush {number}: {sum(view.causes.values()) - quiet} alerts told"
    return Settle.retry(
        due_at=now + view.group.group_interval,
        note=f"{told}, {quiet} silenced" if quiet else told,
        changes=Changes(rows=rows, flushed=(view.group.key, number, view.last_id), silenced=hushed),
    )


def short_code(group_key: str, number: int) -> str:
    """Six characters that are the same when a crash makes a notification go out twice, so that a person can spot it."""
    return hashlib.sha256(f"{group_key}/{number}".encode()).hexdigest()[:6]


def _notification(view: GroupView, receiver: str, number: int, compose: Compose, *, now: datetime) -> NewRow:
    code = short_code(view.group.key, number)
    return NewRow(
        key=f"notify:{view.group.key}:{number}:{receiver}",
        kind=RowKind.NOTIFY,
        due_at=now,
        group=view.group.key,
        payload={
            "receiver": receiver,
            "flush": number,
            "at": now.isoformat(),
            "code": code,
            "severity": view.group.severity,
            "alerts": sum(view.causes.values()),
            **compose(view, code, receiver).payload,
        },
    )
