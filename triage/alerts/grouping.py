"""Folding the waiting alerts of a group into notifications: the only place where a group changes. Pure."""

from __future__ import annotations

import hashlib
from datetime import datetime

from triage.alerts.render import body, title
from triage.changes import Changes, GroupView, NewRow, RowFacts, RowKind, Settle


def flush(facts: RowFacts, *, now: datetime) -> Settle:
    """One notification per receiver for all that waits, then look again after ``group_interval``.

    A group in which nothing waits is finished; the next alert starts it again with ``group_wait``.
    """
    view = facts.group
    if view is None or not view.causes:
        return Settle.done(note="nothing waits")
    number = view.flushes + 1
    rows = tuple(_notification(view, receiver, number, now=now) for receiver in view.group.receivers)
    return Settle.retry(
        due_at=now + view.group.group_interval,
        note=f"flush {number}: {sum(view.causes.values())} alerts told",
        changes=Changes(rows=rows, flushed=(view.group.key, number, view.last_id)),
    )


def short_code(group_key: str, number: int) -> str:
    """Six characters that are the same when a crash makes a notification go out twice, so that a person can spot it."""
    return hashlib.sha256(f"{group_key}/{number}".encode()).hexdigest()[:6]


def _notification(view: GroupView, receiver: str, number: int, *, now: datetime) -> NewRow:
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
            "title": title(view, code),
            "body": body(view),
        },
    )
