"""A person takes an incident upon themselves. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from triage.changes import Changes, Looked, OutboxRow, RowFacts, Settle
from triage.deed import Deed
from triage.incident import OPEN, Ack, incident_code


def acknowledged(row: OutboxRow, facts: RowFacts, *, by: str, reason: str, now: datetime) -> Settle:
    """Repeats and escalation stop until the group escalates, or comes back after its end. The row is looked at when it
    was to be; a look that is under way is done again. Of a group that is not open nothing is changed.
    """
    view = facts.group
    if view is None or view.incident.state not in OPEN:
        return Settle.retry(due_at=row.due_at, note="not open")
    incident = replace(view.incident, ack=Ack(by, reason, now))
    looked = Looked(view.group.key, view.flushes + 1, 0, made=False, incident=incident)
    code = incident_code(view.group.key, incident.number)
    deed = Deed(by, "acknowledge", reason, about=f"alert {code}")
    return Settle.retry(
        due_at=row.due_at, note=f"acknowledged by {by}", changes=Changes(looked=(looked,), deeds=(deed,))
    )
