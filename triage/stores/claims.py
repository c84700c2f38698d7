"""The outbox of the SQLite store: claiming rows, and settling them. Jobs for its writer thread."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta
from typing import Final

from triage.changes import RowKind, Settle
from triage.reruns.gate import Gate
from triage.states import RowState, advance_row
from triage.stores import Places, React, ReactNow, alerting, gating, lines, notifications, planview, records, silences
from triage.stores.queries import lineage_at
from triage.stores.records import insert, instant, instant_of
from triage.stores.writes import apply_changes
from triage.views import OutboxRow, RowFacts

_SAMPLES: Final = 5

_NOT_BUSY: Final = """(:busy = '[]' OR
    CASE kind WHEN 'notify' THEN 'to ' || coalesce(json_extract(payload, '$.receiver'), '') ELSE function END
    NOT IN (SELECT value FROM json_each(:busy)))"""
_DUE: Final = f"""
    SELECT {", ".join(records.CLAIM)} FROM outbox
    WHERE {records.IS_OPEN} AND due_at <= :now AND (lease_until IS NULL OR lease_until <= :now)
        AND {_NOT_BUSY}
    ORDER BY due_at, id LIMIT :limit"""
_TAKE: Final = "UPDATE outbox SET token = ?, lease_until = ?, attempts = attempts + 1 WHERE id = ?"
_SETTLE: Final = """
    UPDATE outbox SET state = ?, due_at = coalesce(?, due_at), note = ?, payload = coalesce(?, payload),
        settled_at = ?, token = NULL, lease_until = NULL, gate = ?, attempts = attempts - ?
    WHERE id = ?"""
_GO: Final = f"UPDATE outbox SET gate = '{Gate.PASSED.value}', note = '', payload = coalesce(?, payload) WHERE id = ?"
_BY_KEY: Final = f"SELECT {', '.join(records.CLAIM)} FROM outbox WHERE key = ? AND {records.IS_OPEN}"
_WAITING: Final = "FROM alerts WHERE group_key = ? AND flush IS NULL"
_DELIVERY: Final = insert("deliveries", notifications.DELIVERY)


def claim(
    connection: sqlite3.Connection, *, now: datetime, lease: timedelta, limit: int, places: Places, token: str
) -> list[OutboxRow]:
    """Take due rows that nobody holds."""
    values = {"now": instant(now), "limit": limit, "busy": records.json_text(list(places.busy))}
    rows = [dict(zip(records.CLAIM, row, strict=True)) for row in connection.execute(_DUE, values)]
    found = places.fitting(rows, place=records.place)
    until = instant(now + lease)
    connection.executemany(_TAKE, [(token, until, row["id"]) for row in found])
    return [records.claimed_row(row, token=token) for row in found]


def settle(connection: sqlite3.Connection, row: OutboxRow, react: React, *, now: datetime) -> bool:
    """Ask ``react`` and write what it says, if the claim is still ours."""
    return _settled(connection, row, react, now=now) is not None


def admit(connection: sqlite3.Connection, row: OutboxRow, react: React, *, now: datetime) -> OutboxRow | None:
    """Ask ``react`` whether the row may be acted upon, and write what it says; None: it may not, or is not ours."""
    outcome = _settled(connection, row, react, now=now)
    return records.admitted_row(row, outcome) if outcome is not None and outcome.goes else None


def _settled(connection: sqlite3.Connection, row: OutboxRow, react: React, *, now: datetime) -> Settle | None:
    held = f"SELECT state FROM outbox WHERE id = ? AND token = ? AND {records.IS_OPEN}"
    if (stored := connection.execute(held, (row.id, row.token)).fetchone()) is None:
        return None
    outcome = react(_row_facts(connection, row, now=now))
    state = advance_row(RowState(stored[0]), outcome.event)
    if outcome.goes:
        payload = None if outcome.payload is None else records.json_text(outcome.payload)
        connection.execute(_GO, (payload, row.id))
        apply_changes(connection, outcome.changes, now=now)
        return outcome
    connection.execute(
        _SETTLE,
        (
            state.value,
            None if outcome.due_at is None else instant(outcome.due_at),
            records.text(outcome.note),
            None if outcome.payload is None else records.json_text(outcome.payload),
            None if state in records.UNFINISHED else instant(now),
            outcome.gate or "",
            int(outcome.gate is not None),
            row.id,
        ),
    )
    apply_changes(connection, outcome.changes, now=now)
    if (delivery := notifications.delivery_record(row, outcome, now=now)) is not None:
        connection.execute(_DELIVERY, delivery)
    return outcome


def _row_facts(connection: sqlite3.Connection, row: OutboxRow, *, now: datetime) -> RowFacts:
    lineage = lineage_at(connection, row.root)
    if row.kind is RowKind.FLUSH:
        quiet = silences.in_force(connection)
        view = alerting.group_view(connection, row.group, now=now, apart=bool(quiet))
        return RowFacts(lineage, view, silences=quiet, storm=alerting.storm_view(connection, now=now))
    if row.kind is RowKind.STORM:
        return RowFacts(storm=alerting.storm_view(connection, now=now, groups=True))
    if row.kind is RowKind.SILENCE:
        return RowFacts(lineage, silence=silences.view(connection, row.payload["silence"]))
    if row.kind is RowKind.WATCH:
        return RowFacts(lineage, arrivals=lines.arrivals(connection))
    if row.kind is RowKind.NOTIFY:
        return RowFacts(lineage, line=lines.line(connection, row, now=now))
    gates = gating.facts(connection, row) if row.function else None
    if row.kind is RowKind.PLAN_STEP:
        plan = planview.view(connection, row.payload["plan"])
        return RowFacts(lineage, gates=gates, plan=plan, ordered=planview.ordered(connection, plan))
    return RowFacts(lineage, gates=gates)


def settle_now(connection: sqlite3.Connection, key: str, react: ReactNow, *, now: datetime, token: str) -> bool:
    """Settle an unfinished row by its key; a claim that somebody has on it is lost."""
    found = connection.execute(_BY_KEY, (key,)).fetchone()
    if found is None:
        return False
    row = records.claimed_row(dict(zip(records.CLAIM, found, strict=True)), token=token)
    connection.execute("UPDATE outbox SET token = ? WHERE id = ?", (token, row.id))
    return settle(connection, row, lambda facts: react(row, facts), now=now)


def next_due(connection: sqlite3.Connection, *, places: Places) -> datetime | None:
    """The earliest due time of a free row or end of a lease."""
    busy = {"busy": records.json_text(list(places.busy))}
    # Rows under a lease come first in the index, but there are never more of them than the outbox works on.
    free = connection.execute(
        f"SELECT due_at FROM outbox WHERE {records.IS_OPEN} AND lease_until IS NULL AND {_NOT_BUSY}"
        " ORDER BY due_at LIMIT 1",
        busy,
    ).fetchone()
    leased = connection.execute(
        "SELECT min(max(lease_until, due_at)) FROM outbox"
        f" WHERE (lease_until IS NOT NULL OR state = 'unknown') AND {_NOT_BUSY}",
        busy,
    ).fetchone()
    times = [found[0] for found in (free, leased) if found is not None and found[0] is not None]
    return instant_of(min(times)) if times else None
