"""A person takes an incident upon themselves, or says that it is over. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from triage.changes import Changes, Looked, Settle
from triage.deed import Deed
from triage.incident import OPEN, Ack, Incident
from triage.views import GroupView, OutboxRow, RowFacts


def acknowledged(row: OutboxRow, facts: RowFacts, *, by: str, reason: str, now: datetime) -> Settle:
    """Repeats and escalation stop until the group escalates, or comes back after its end. The row is looked at when it
    was to be; a look that is under way is done again. Of a group that is not open nothing is changed.
    """
    view = facts.group
    if view is None or view.incident.state not in OPEN:
        return Settle.retry(due_at=row.due_at, note="not open")
    incident = replace(view.incident, ack=Ack(by, reason, now))
    return _noted(view, incident, Deed(by, "acknowledge", reason), due_at=row.due_at, note=f"acknowledged by {by}")


def closed(row: OutboxRow, facts: RowFacts, *, by: str, reason: str, now: datetime) -> Settle:
    """The next look, which is due now, ends it. While something waits to be told it is not over: nothing is changed."""
    view = facts.group
    if view is None or view.incident.state not in OPEN or view.causes:
        return Settle.retry(due_at=row.due_at, note="not open" if view is None or not view.causes else "it fails now")
    incident = replace(view.incident, closed=Ack(by, reason, now))
    return _noted(view, incident, Deed(by, "resolve", reason), due_at=min(row.due_at, now), note=f"closed by {by}")


def _noted(view: GroupView, incident: Incident, deed: Deed, *, due_at: datetime, note: str) -> Settle:
    looked = Looked(view.group.key, view.flushes + 1, 0, made=False, incident=incident)
    about = f"alert {incident.code}"
    changes = Changes(looked=(looked,), deeds=(replace(deed, about=about),))
    return Settle.retry(due_at=due_at, note=note, changes=changes)
