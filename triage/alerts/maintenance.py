"""Maintenance that comes again: hours of the week in which alerts are silenced. Pure.

Each one has an outbox row, due when its hours begin: it puts a silence into force until they end. What is kept
quiet, and the message that tells it, are the silence's business (`triage.alerts.silences`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from triage.changes import Changes, NewRow, RowKind, Settle
from triage.rules.windows import Hours
from triage.silence import Silence
from triage.views import OutboxRow


@dataclass(frozen=True, slots=True)
class Maintenance:
    """What is silenced when, as configured.

    Attributes:
        match: what an alert must have (`triage.rules.alertmatch.FIELDS`).
        to: receivers that hear of its end, beside those that alerts were kept from.
    """

    name: str
    match: Mapping[str, Any]
    hours: Hours
    reason: str
    to: tuple[str, ...] = ()


class Span(NamedTuple):
    """Once: from its beginning until its end, which is not included."""

    start: datetime
    end: datetime


def next_span(maintenance: Maintenance, *, now: datetime) -> Span:
    """The one that goes on, or the next one; what goes on counts from now."""
    hours = maintenance.hours
    start = now if hours.contains(now) else hours.turn(now)
    end = hours.turn(start) if start is not None else None
    assert start is not None and end is not None, "hours without beginning or end are not configured"  # noqa: S101, PT018
    return Span(start, end)


def row_key(name: str) -> str:
    """Key of the one outbox row of a maintenance."""
    return f"maintenance:{name}"


def armed(maintenance: Maintenance, *, now: datetime) -> NewRow:
    """The row that looks after it, due at once. One that is there already only becomes due."""
    key = row_key(maintenance.name)
    return NewRow(key, RowKind.MAINTENANCE, now, {"maintenance": maintenance.name, "until": ""}, sooner=True)


def maintained(row: OutboxRow, maintenance: Maintenance | None, *, now: datetime) -> Settle:
    """Put a silence into force when its hours have begun, once for each time; else wait for them.

    Args:
        maintenance: as it is configured now; None: not any more. A silence that it has begun goes on to its end.
    """
    if maintenance is None:
        return Settle.done(note="not configured any more")
    until = row.payload.get("until", "")
    if until and now < (end := datetime.fromisoformat(until)):
        # Begun already, whatever became of its silence: a person may have ended it.
        return Settle.retry(due_at=end, note=f"goes on until {end:%Y-%m-%d %H:%M}Z")
    span = next_span(maintenance, now=now)
    if span.start > now:
        return Settle.retry(due_at=span.start, note=f"begins at {span.start:%Y-%m-%d %H:%M}Z")
    silence = Silence(
        id=0,
        match=maintenance.match,
        by=f"maintenance {maintenance.name}",
        reason=maintenance.reason,
        created_at=now,
        ends_at=span.end,
        to=maintenance.to,
    )
    payload = {**row.payload, "until": span.end.isoformat()}
    note = f"silence until {span.end:%Y-%m-%d %H:%M}Z"
    return Settle.retry(due_at=span.end, note=note, payload=payload, changes=Changes(begun=(silence,)))
