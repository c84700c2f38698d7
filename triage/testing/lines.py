"""What settling a notification sees of the store in memory: what else there is for its receiver."""

from __future__ import annotations

import json
from datetime import datetime

from triage.drills import is_drill
from triage.line import Line, Seen
from triage.reruns.gate import Gate
from triage.states import RowState
from triage.stores import notifications, records
from triage.stores.records import instant, instant_of
from triage.testing.tables import Tables
from triage.views import OutboxRow

_GOES = ("", Gate.PASSED)


def line(tables: Tables, row: OutboxRow, *, now: datetime) -> Line:
    """What else there is for the receiver of a notification."""
    receiver, at = row.payload.get("receiver", ""), instant(now)
    rows = [(each, json.loads(each["payload"])) for each in tables.unfinished() if each["kind"] == "notify"]
    rows = [(each, own) for each, own in rows if own.get("receiver") == receiver and each["id"] != row.id]
    sent = [
        instant_of(each["at"])
        for each in tables.deliveries.values()
        if each["receiver"] == receiver
        and each["result"] in ("sent", "unknown")
        and not is_drill(each["group_key"] or "")
    ]
    return Line(
        sent=tuple(sorted(sent, reverse=True)),
        under_way=sum((each["lease_until"] or "") > at and each["gate"] in _GOES for each, _ in rows),
        waiting=tuple(notifications.waiting_of(each["key"], own) for each, own in rows if each["gate"] not in _GOES),
        taken=frozenset(key for _, own in rows for key in own.get("along", ())),
        others=_others(tables, row),
    )


def _others(tables: Tables, row: OutboxRow) -> bool:
    if not row.group or "flush" not in row.payload:
        return False
    prefix = f"notify:{row.group}:{row.payload['flush']}:"
    below = {each["key"] for each in tables.deliveries.values() if each["result"] == "below"}
    states = (*records.UNFINISHED, RowState.DONE)
    return any(
        each["key"].startswith(prefix) and each["id"] != row.id and each["state"] in states and each["key"] not in below
        for each in tables.outbox.values()
    )


def arrivals(tables: Tables) -> tuple[Seen, ...]:
    """When each function was last heard of from each source."""
    found: dict[tuple[str, str], str] = {}
    for row in tables.envelopes.values():
        if row["outcome"] == records.DRILL_OUTCOME:
            continue
        key, at = (row["function"], row["source"]), tables.decisions[row["request_id"]]["decided_at"]
        found[key] = max(at, found.get(key, ""))
    return tuple(Seen(*key, instant_of(found[key])) for key in sorted(found))
