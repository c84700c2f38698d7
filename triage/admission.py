"""What a re-run has to pass at the moment it is submitted: a claimed row goes, or waits at a gate. Pure.

What was decided an hour ago may be wrong by now, so nothing is asked earlier. A row that waits is not claimed again
until it may go, and it never waits past its ``give_up_at``.
"""

from __future__ import annotations

from datetime import datetime

from triage.changes import OutboxRow, RowFacts, Settle
from triage.reactions import ended, give_up_at
from triage.reruns.gate import Gate, GateFacts
from triage.reruns.switches import stopping
from triage.rules.model import Cause
from triage.states import Event


def admitted(row: OutboxRow, facts: RowFacts, *, now: datetime) -> Settle:
    """Whether a re-run may be submitted now."""
    if (paused := row.payload.get("paused")) is not None:
        return _waits(row, facts, Gate.PAUSED, give_up_at(row), paused["note"], now=now)
    gates = facts.gates or GateFacts()
    rule = row.payload["alert"]["labels"]["rule"]
    if (switch := stopping(gates.switches, function=row.function, rule=rule)) is not None:
        note = f"{switch} switched off by {switch.by} at {switch.at:%Y-%m-%d %H:%M:%SZ}: {switch.reason}"
        return _waits(row, facts, Gate.SWITCH, give_up_at(row), note, now=now)
    return Settle.go()


def _waits(row: OutboxRow, facts: RowFacts, gate: Gate, until: datetime, note: str, *, now: datetime) -> Settle:
    last = give_up_at(row)
    if now >= last:
        return ended(row, facts, Event.REFUSED, Cause.EXHAUSTED, f"could not be submitted in time: {note}")
    return Settle.wait(gate, due_at=min(until, last), note=note)
