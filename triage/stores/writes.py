"""What the SQLite store writes: jobs for its writer thread, each inside a transaction that the thread opened."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from triage.admission import heard
from triage.alerts.silences import begin
from triage.changes import Changes, Commit, Decided, NewAlert, NewRow
from triage.errors import StoreConflict
from triage.facts import RATES, SILENCE, Arrival, Lineage
from triage.reruns.lineage import Origin, payload_key
from triage.silence import Silence
from triage.states import ROW_TRANSITIONS, RowEvent, RowState
from triage.stores import alerting, decisions, events, lines, plans, records, silences, standings
from triage.stores.postbox import Message, to_resend
from triage.stores.records import Record, insert, instant, is_failure

_LINEAGE: Final = (
    "root", "state", "attempt", "rule_id", "updated_at", "failures", "manual", "started_at", "function", "payload_key",
    "version",
)  # fmt: skip
_LAST_ID: Final = """
    SELECT max(coalesce((SELECT max(id) FROM envelopes), 0), coalesce((SELECT max(id) FROM decisions), 0))"""
_INSERT_ENVELOPE: Final = insert("envelopes", ("id", *records.ENVELOPE))
_INSERT_DECISION: Final = insert("decisions", ("id", *decisions.DECISION))
_INSERT_LINEAGE: Final = insert("lineages", _LINEAGE)
_UPDATE_LINEAGE: Final = """
    UPDATE lineages SET state = ?, attempt = ?, rule_id = ?, updated_at = ?, failures = failures + ?,
        manual = ?, version = version + 1
    WHERE root = ? AND version = ?"""
_INSERT_LINK: Final = insert("lineage_links", records.LINK, "ON CONFLICT DO NOTHING")
_JOIN: Final = "UPDATE envelopes SET root = ?, attempt = ? WHERE request_id = ? AND root IS NULL"
_INSERT_ROW: Final = insert("outbox", records.OUTBOX, "ON CONFLICT (key) DO NOTHING")
_RESTART_ROW: Final = insert(
    "outbox",
    records.OUTBOX,
    """ON CONFLICT (key) DO UPDATE SET state = excluded.state, due_at = excluded.due_at, payload = excluded.payload,
    function = excluded.function, gate = '', attempts = 0, note = '', token = NULL, lease_until = NULL,
    settled_at = NULL WHERE state IN """
    f"({', '.join(f'{state.value!r}' for state in RowState if (state, RowEvent.RESTARTED) in ROW_TRANSITIONS)})",
)
_HASTEN_ROW: Final = insert(
    "outbox",
    records.OUTBOX,
    """ON CONFLICT (key) DO UPDATE SET settled_at = NULL,
    due_at = CASE WHEN settled_at IS NULL THEN min(due_at, excluded.due_at) ELSE excluded.due_at END,
    attempts = CASE WHEN settled_at IS NULL THEN attempts ELSE 0 END,
    state = CASE WHEN settled_at IS NULL THEN state ELSE excluded.state END""",
)
_INSERT_DEED: Final = insert("deeds", records.DEED)
_CANCEL_ROW: Final = f"""
    UPDATE outbox SET state = 'cancelled', token = NULL, lease_until = NULL, gate = '', settled_at = ?
    WHERE key = ? AND {records.IS_OPEN}"""
_INSERT_QUARANTINED: Final = insert("quarantine", records.QUARANTINE, "ON CONFLICT DO NOTHING")
_INSERT_CONFLICT: Final = insert("conflicts", records.CONFLICT, "ON CONFLICT DO NOTHING")
_UPSERT_FAILURE_GROUP: Final = """
    INSERT INTO groups (fingerprint, function, condition, error_type, message, first_seen, last_seen, back_since, count)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (fingerprint) DO UPDATE SET message = excluded.message, count = count + excluded.count,
        back_since = CASE WHEN last_seen <= ? THEN excluded.back_since ELSE back_since END,
        last_seen = max(last_seen, excluded.last_seen)"""
_COUNT_MINUTE: Final = """
    INSERT INTO group_minutes (fingerprint, minute, count) VALUES (?, ?, ?)
    ON CONFLICT (fingerprint, minute) DO UPDATE SET count = count + excluded.count"""
_SEEN: Final = insert(
    "arrivals",
    ("function", "source", "at"),
    "ON CONFLICT (function, source) DO UPDATE SET at = max(at, excluded.at)",
)
_FORGET_MINUTES: Final = "DELETE FROM group_minutes WHERE minute < ?"
_SET_META: Final = insert("meta", ("key", "value"), "ON CONFLICT (key) DO UPDATE SET value = excluded.value")
_COUNT: Final = """
    INSERT INTO counters (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"""


def commit(connection: sqlite3.Connection, batch: Commit) -> None:
    """Write one batch.

    Raises:
        StoreConflict: see `triage.stores.Store.commit`; the caller rolls back.
    """
    now, decided = batch.now, batch.decided
    # One id for both: a second index over request ids, which come in no order, would cost more than the row itself.
    numbered = list(enumerate(decided, connection.execute(_LAST_ID).fetchone()[0] + 1))
    envelopes = [(number, *records.envelope_record(item)) for number, item in numbered]
    _insert_new(connection, _INSERT_ENVELOPE, envelopes, what="request id")
    decided_rows = [
        (number, *decisions.decision_record(item, now=now, rule_set=batch.rule_set)) for number, item in numbered
    ]
    connection.executemany(_INSERT_DECISION, decided_rows)
    _write_lineages(connection, _batch_lineages(decided), now=now)
    _write_changes(connection, [item.changes for item in decided], now=now)
    kept = [
        item
        for item in batch.quarantined
        if connection.execute(_INSERT_QUARANTINED, records.quarantine_record(item)).rowcount
    ]
    _write_alerts(connection, [item.alert for item in kept if item.alert is not None], now=now)
    connection.executemany(_INSERT_CONFLICT, map(records.conflict_record, batch.conflicts))
    failures = [item for item in decided if is_failure(item)]
    _write_failure_groups(connection, failures, now=now)
    standings.hear(connection, heard(decided))
    events.hear(connection, decided, now=now)
    seen = {(item.arrival.envelope.function.label, item.arrival.source) for item in decided if item.counts}
    connection.executemany(_SEEN, [(function, source, instant(now)) for function, source in seen])
    sums = {
        "decided": sum(item.counts for item in decided),
        "duplicates": len(batch.duplicates) + len(batch.quarantined) - len(kept),
        "conflicts": len(batch.conflicts),
        "quarantined": len(kept),
    }
    sums |= {"received": sum(sums.values()), "failures": len(failures)}
    connection.executemany(_COUNT, [(name, value) for name, value in sums.items() if value])


def apply_changes(connection: sqlite3.Connection, changes: Changes, *, now: datetime) -> None:
    """Write what a settled outbox row entails.

    Raises:
        StoreConflict: a lineage is not at the version it was read at.
    """
    _write_lineages(connection, [(lineage, 0, "", "") for lineage in changes.lineages], now=now)
    _write_changes(connection, [changes], now=now)
    standings.save(connection, changes.standings)
    if changes.wake is not None:
        standings.let_go(connection, *changes.wake, now=now)


NewLineage = tuple[Lineage, int, str, str]
"""A lineage to write, by how many failures it grows, and the function and payload key it starts with."""


def apply_order(connection: sqlite3.Connection, changes: Changes, arrival: Arrival, *, now: datetime) -> None:
    """Write what an order to run ``arrival`` again entails; it may be a success, whose lineage begins here."""
    (lineage,) = changes.lineages
    envelope = arrival.envelope
    label = envelope.function.label
    key = payload_key(label, envelope.request_payload)
    _write_lineages(connection, [(lineage, 0, label, key)], now=now)
    if lineage.version == 0:
        connection.execute("UPDATE envelopes SET root = ? WHERE request_id = ?", (lineage.root, lineage.root))
    _write_changes(connection, [changes], now=now)


def _batch_lineages(decided: Iterable[Decided]) -> list[NewLineage]:
    written: list[NewLineage] = []
    for item in decided:
        own = item.decision.lineage
        label = item.arrival.envelope.function.label
        for lineage in item.changes.lineages:
            grows = own is not None and lineage.root == own.root and is_failure(item)
            written.append((lineage, int(grows), label, item.payload_key))
    return written


def _write_lineages(connection: sqlite3.Connection, lineages: Sequence[NewLineage], *, now: datetime) -> None:
    """Insert the new ones, then move the others in order: a batch may hold several results of one lineage."""
    at = instant(now)
    new: list[Record] = []
    moved: list[Record] = []
    for lineage, failures, function, key in lineages:
        state, attempt, manual = lineage.state.value, lineage.attempt, lineage.manual
        if lineage.version == 0:
            start = instant(lineage.started_at)
            new.append((lineage.root, state, attempt, lineage.rule_id, at, failures, manual, start, function, key, 1))
        else:
            moved.append((state, attempt, lineage.rule_id, at, failures, manual, lineage.root, lineage.version))
    _insert_new(connection, _INSERT_LINEAGE, new, what="lineage")
    if moved and connection.executemany(_UPDATE_LINEAGE, moved).rowcount != len(moved):
        raise StoreConflict("a lineage has changed since it was read")


def _insert_new(connection: sqlite3.Connection, statement: str, rows: Iterable[Record], *, what: str) -> None:
    try:
        connection.executemany(statement, rows)
    except sqlite3.IntegrityError as error:
        if error.sqlite_errorcode not in (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE):
            raise
        raise StoreConflict(f"a {what} of the batch is stored already") from error


def _write_changes(connection: sqlite3.Connection, several: Sequence[Changes], *, now: datetime) -> None:
    """All but the lineages. Rows are inserted and cancelled in the order of the steps they come from."""
    links = [link for changes in several for link in changes.links]
    connection.executemany(_INSERT_LINK, [records.link_record(link) for link in links])
    # What was a success of its own until the provider had been asked.
    joined = [(link.root, link.attempt, link.key) for link in links if link.origin is Origin.ELSEWHERE]
    connection.executemany(_JOIN, joined)
    rows: list[NewRow] = []
    for changes in several:
        if changes.cancel:
            _insert_rows(connection, rows, now=now)
            rows = []
            connection.executemany(_CANCEL_ROW, [(instant(now), key) for key in changes.cancel])
        rows += changes.rows
    _insert_rows(connection, rows, now=now)
    _write_alerts(connection, [alert for changes in several for alert in changes.alerts], now=now)
    for changes in several:
        connection.executemany(_INSERT_DEED, [records.deed_record(deed, now=now) for deed in changes.deeds])
        for looked in changes.looked:
            alerting.mark_looked(connection, looked, changes.silenced, now=now)
        for silence in changes.begun:
            add_silence(connection, silence, warn_before=timedelta())
        if changes.ended is not None:
            silences.end(connection, *changes.ended, now=now)
        for group, message in changes.told:
            alerting.mark_told(connection, group, message, now=now)
        for group, flush in lines.take_along(connection, changes.along, now=now):
            alerting.mark_told(connection, group, flush, now=now)
        if changes.plan is not None:
            plans.write(connection, changes.plan)


def _insert_rows(connection: sqlite3.Connection, rows: Sequence[NewRow], *, now: datetime) -> None:
    for statement, chosen in (
        (_INSERT_ROW, [row for row in rows if not (row.anew or row.sooner)]),
        (_RESTART_ROW, [row for row in rows if row.anew]),
        (_HASTEN_ROW, [row for row in rows if row.sooner]),
    ):
        connection.executemany(statement, [records.outbox_record(row, now=now) for row in chosen])


def _write_alerts(connection: sqlite3.Connection, alerts: Sequence[NewAlert], *, now: datetime) -> None:
    alerting.write_alerts(connection, alerts, lambda rows: _insert_rows(connection, rows, now=now), now=now)


def _write_failure_groups(connection: sqlite3.Connection, failures: Sequence[Decided], *, now: datetime) -> None:
    counts = Counter(item.arrival.fingerprint for item in failures)
    newest = {item.arrival.fingerprint: item.arrival.envelope for item in failures}
    at, silent = instant(now), instant(now - SILENCE)
    rows: list[Record] = []
    for key, envelope in newest.items():
        kind, message = envelope.error.type, envelope.error.message
        limit = records.MESSAGE_LIMIT
        words = (envelope.function.label, envelope.condition, kind[:limit], message[:limit])
        rows.append((key, *map(records.text, words), at, at, at, counts[key], silent))
    connection.executemany(_UPSERT_FAILURE_GROUP, rows)
    minute = records.minute(now)
    connection.executemany(_COUNT_MINUTE, [(key, minute, count) for key, count in counts.items()])
    connection.execute(_FORGET_MINUTES, (minute - max(RATES),))


def add_silence(connection: sqlite3.Connection, silence: Silence, *, warn_before: timedelta) -> Silence:
    """Put a silence into force."""
    numbered = silences.insert(connection, silence)
    _insert_rows(connection, [begin(numbered, warn_before=warn_before)], now=silence.created_at)
    return numbered


def arm(connection: sqlite3.Connection, rows: Sequence[NewRow], *, now: datetime) -> None:
    """Write rows that belong to no envelope."""
    _insert_rows(connection, rows, now=now)


def resend(
    connection: sqlite3.Connection, *, code: str, dead: bool, by: str, reason: str, now: datetime
) -> list[Message]:
    """Have messages sent again, and remember who wanted it."""
    found, rows, deeds = to_resend(connection, code=code, dead=dead, by=by, reason=reason, now=now)
    _write_changes(connection, [Changes(rows=tuple(rows), deeds=tuple(deeds))], now=now)
    return found


def save_rule_set(connection: sqlite3.Connection, digest: str, sources: str, *, now: datetime) -> None:
    """Keep a rule set, and that it is the last good one."""
    row: Record = (digest, instant(now), sources)
    connection.execute(insert("rule_sets", ("digest", "loaded_at", "sources"), "ON CONFLICT DO NOTHING"), row)
    last = connection.execute("SELECT value FROM meta WHERE key = 'rule_set'").fetchone()
    if last is None or last[0] != digest:
        connection.executemany(_SET_META, [("rule_set", digest), ("rules_loaded_at", instant(now))])
    connection.execute("DELETE FROM meta WHERE key IN ('rules_problems', 'rules_refused_at')")


def refuse_rules(connection: sqlite3.Connection, problems: str, alert: NewAlert, *, now: datetime) -> bool:
    """Remember what is wrong with the rule files, and raise the alert; False when that is known."""
    if connection.execute("SELECT 1 FROM meta WHERE key = 'rules_problems' AND value = ?", (problems,)).fetchone():
        return False
    connection.executemany(_SET_META, [("rules_problems", problems), ("rules_refused_at", instant(now))])
    _write_alerts(connection, [alert], now=now)
    return True
