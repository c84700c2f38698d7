"""What the SQLite store knows of the messages to one receiver. Jobs for its writer thread."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from triage.alerts.delivery import told_by
from triage.line import Line, Seen
from triage.reruns.gate import Gate
from triage.states import RowEvent, RowState, advance_row
from triage.stores import notifications, records
from triage.stores.drills import NO_MESSAGE
from triage.stores.records import insert, instant, instant_of
from triage.views import OutboxRow

MOST: Final = 1000
"""Messages that a rate can count, and that are taken along at once."""

_OPEN: Final = f"outbox.kind = 'notify' AND {records.IS_OPEN}"
# As the index has it.
_OF: Final = f"{_OPEN} AND json_extract(outbox.payload, '$.receiver') = :receiver AND outbox.id != :id"
_WAITS: Final = f"gate NOT IN ('', '{Gate.PASSED.value}')"
_SENT: Final = f"""
    SELECT at FROM deliveries WHERE receiver = ? AND result IN ('sent', 'unknown') AND key {NO_MESSAGE}
    ORDER BY at DESC LIMIT {MOST}"""
_OTHERS: Final = f"""
    SELECT 1 FROM outbox o WHERE o.key > :first AND o.key < :last AND o.id != :id AND o.state IN
        ({", ".join(f"'{state}'" for state in (*records.UNFINISHED, RowState.DONE))})
    AND o.key NOT IN (SELECT key FROM deliveries WHERE group_key = :group AND flush = :flush AND result = 'below')
    LIMIT 1"""
_DELIVERY: Final = insert("deliveries", notifications.DELIVERY)


def line(connection: sqlite3.Connection, row: OutboxRow, *, now: datetime) -> Line:
    """What else there is for the receiver of a notification."""
    receiver = row.payload.get("receiver", "")
    own = {"receiver": receiver, "id": row.id}
    under_way = f"SELECT count(*) FROM outbox WHERE {_OF} AND lease_until > :now AND NOT {_WAITS}"
    taken = f"SELECT along.value FROM outbox, json_each(outbox.payload, '$.along') along WHERE {_OF}"
    waiting = f"SELECT key, payload FROM outbox WHERE {_OF} AND {_WAITS} ORDER BY id LIMIT {MOST}"
    return Line(
        sent=tuple(instant_of(at) for (at,) in connection.execute(_SENT, (receiver,))),
        under_way=connection.execute(under_way, {**own, "now": instant(now)}).fetchone()[0],
        waiting=tuple(
            notifications.waiting_of(key, json.loads(payload)) for key, payload in connection.execute(waiting, own)
        ),
        taken=frozenset(key for (key,) in connection.execute(taken, own)),
        others=_others(connection, row),
    )


def _others(connection: sqlite3.Connection, row: OutboxRow) -> bool:
    if not row.group or "flush" not in row.payload:
        return False
    flush = row.payload["flush"]
    prefix = f"notify:{row.group}:{flush}"
    values = {"first": f"{prefix}:", "last": f"{prefix};", "id": row.id, "group": row.group, "flush": flush}
    return connection.execute(_OTHERS, values).fetchone() is not None


def take_along(connection: sqlite3.Connection, keys: Sequence[str], *, now: datetime) -> list[tuple[str, int]]:
    """End the notifications that have gone as part of another one; what they told of, as group and flush."""
    told: list[tuple[str, int]] = []
    for key in keys:
        found = connection.execute(
            f"SELECT id, state, payload, group_key FROM outbox WHERE key = ? AND {records.IS_OPEN}", (key,)
        ).fetchone()
        if found is None:
            continue
        number, before, payload, group = found[0], RowState(found[1]), json.loads(found[2]), found[3]
        state = advance_row(before, RowEvent.HAPPENED)
        connection.execute(
            "UPDATE outbox SET state = ?, note = ?, settled_at = ?, token = NULL, lease_until = NULL, gate = ''"
            " WHERE id = ?",
            (state.value, notifications.ALONG, instant(now), number),
        )
        connection.execute(_DELIVERY, notifications.along_record(key, payload, group=group, now=now))
        told += told_by(group, payload)
    return told


def arrivals(connection: sqlite3.Connection) -> tuple[Seen, ...]:
    """When each function was last heard of from each source."""
    found = connection.execute("SELECT function, source, at FROM arrivals ORDER BY function, source")
    return tuple(Seen(function, source, instant_of(at)) for function, source, at in found)
