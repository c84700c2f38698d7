"""What the SQLite store reads: facts for deciding (in the writer's transaction), and lists for people (a reader's)."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlite_utils import Database

from triage.drills import is_drill
from triage.envelope import RequestId, event_of
from triage.facts import RATES, Arrival, GroupFacts, Lineage, Snapshot, recent_of
from triage.incident import GroupState
from triage.reruns.gate import Gate
from triage.reruns.lineage import payload_key
from triage.rules.model import SourceText
from triage.states import CLOSED
from triage.stores import (
    STANDINGS,
    FailureDetail,
    FailureFilter,
    FailureRow,
    Held,
    KeptRules,
    QuarantineRow,
    RulesState,
    Totals,
    decisions,
    drills,
    events,
    plans,
    records,
)
from triage.stores import standings as functions
from triage.stores.decisions import lineage_of
from triage.stores.drills import NO_DRILL, NO_MESSAGE
from triage.stores.records import instant, instant_of
from triage.stores.retention import REMOVED

_LINEAGE: Final = ", ".join(f"l.{column}" for column in decisions.LINEAGE_FACTS)
_SEEN: Final = "SELECT request_id, digest FROM envelopes WHERE request_id IN (SELECT value FROM json_each(?))"
_LINKED: Final = f"""
    SELECT k.key, k.attempt, {_LINEAGE} FROM lineage_links k JOIN lineages l USING (root)
    WHERE k.key IN (SELECT value FROM json_each(?))"""
_GROUPS: Final = f"""
    SELECT fingerprint, {", ".join(decisions.GROUP_FACTS)} FROM groups
    WHERE fingerprint IN (SELECT value FROM json_each(?))"""
_MINUTES: Final = """
    SELECT fingerprint, minute, count FROM group_minutes
    WHERE fingerprint IN (SELECT value FROM json_each(?)) AND minute BETWEEN ? AND ?"""
# A submit is under way from when its row has passed the gates until it is settled, or when it had no answer, even if
# it waits to be repeated. One that was answered by "later" is not.
_ANY_UNDER_WAY: Final = f"""
    SELECT EXISTS (SELECT 1 FROM outbox WHERE gate = '{Gate.PASSED.value}' AND gate != '' AND kind = 'rerun')
        OR EXISTS (SELECT 1 FROM lineages WHERE state = 'unknown')"""
_UNDER_WAY: Final = f"""
    SELECT l.payload_key, {_LINEAGE} FROM lineages l
    WHERE l.state = 'unknown' AND l.payload_key IN (SELECT value FROM json_each(:keys))
    UNION
    SELECT l.payload_key, {_LINEAGE} FROM outbox o JOIN lineages l USING (root)
    WHERE o.kind = 'rerun' AND o.gate = '{Gate.PASSED.value}' AND o.gate != ''
        AND l.state IN ('rerun_pending', 'unknown') AND l.payload_key IN (SELECT value FROM json_each(:keys))
    ORDER BY started_at, root"""


def load_facts(
    connection: sqlite3.Connection,
    arrivals: Sequence[Arrival],
    *,
    rates_at: datetime | None = None,
    elsewhere_since: datetime | None = None,
) -> Snapshot:
    """Everything deciding this batch may need to know."""
    ids = _json(arrival.envelope.request_id for arrival in arrivals)
    prints = _json({arrival.fingerprint for arrival in arrivals})
    snapshot = Snapshot(
        seen={RequestId(request_id): digest for request_id, digest in connection.execute(_SEEN, (ids,))},
        groups=groups_of(connection, prints, rates_at=rates_at),
        rates=rates_at is not None,
    )
    for key, attempt, *rest in connection.execute(_LINKED, (ids,)):
        snapshot.lineages[key], snapshot.attempts[key] = lineage_of(rest), attempt
    strangers = [
        arrival
        for arrival in arrivals
        if arrival.envelope.request_id not in snapshot.seen
        and arrival.envelope.request_id not in snapshot.lineages
        and not is_drill(arrival.envelope.request_id)
    ]
    if tasks := {task: arrival.envelope.request_id for arrival in strangers if (task := records.task_of(arrival))}:
        for task_id, attempt, *rest in connection.execute(_LINKED, (_json(tasks),)):
            snapshot.lineages[tasks[task_id]], snapshot.attempts[tasks[task_id]] = lineage_of(rest), attempt
    if strangers and connection.execute(_ANY_UNDER_WAY).fetchone()[0]:
        _join_overtaking(connection, strangers, snapshot)
    if elsewhere_since is not None:
        events.join_elsewhere(connection, strangers, snapshot, since=elsewhere_since)
    if roots := snapshot.drill_roots(arrivals):
        ordered = drills.find(connection, set(roots.values()))
        snapshot.drills = {name: ordered[root] for name, root in roots.items() if root in ordered}
    return snapshot


def groups_of(connection: sqlite3.Connection, prints: str, *, rates_at: datetime | None) -> dict[str, GroupFacts]:
    """Failure groups by their fingerprints, given as a JSON list; with rates for the instant ``rates_at``."""
    recent = _recent(connection, prints, rates_at) if rates_at else {}
    default = recent_of({}, rates_at) if rates_at else None
    return {
        key: decisions.group_facts(row, recent=recent.get(key, default))
        for key, *row in connection.execute(_GROUPS, (prints,))
    }


def _recent(connection: sqlite3.Connection, prints: str, now: datetime) -> dict[str, tuple[float, ...]]:
    minute = records.minute(now)
    found: dict[str, dict[int, int]] = {}
    for key, at, count in connection.execute(_MINUTES, (prints, minute - max(RATES), minute)):
        found.setdefault(key, {})[at] = count
    return {key: recent_of(minutes, now) for key, minutes in found.items()}


def _join_overtaking(connection: sqlite3.Connection, strangers: Sequence[Arrival], snapshot: Snapshot) -> None:
    """Join results that came before the answer to the submit that caused them; each to a lineage of its own."""
    keys = [payload_key(item.envelope.function.label, item.envelope.request_payload) for item in strangers]
    waiting: dict[str, list[Any]] = {}
    for key, *rest in connection.execute(_UNDER_WAY, {"keys": _json(set(keys))}):
        waiting.setdefault(key, []).append(rest)
    for key, arrival in zip(keys, strangers, strict=True):
        if arrival.envelope.request_id not in snapshot.lineages and waiting.get(key):
            snapshot.lineages[arrival.envelope.request_id] = lineage_of(waiting[key].pop(0))


def _json(values: Iterable[str]) -> str:
    return json.dumps(list(values))


def lineage_at(connection: sqlite3.Connection, root: str) -> Lineage | None:
    """The lineage that begins with ``root``."""
    if not root:
        return None
    columns = ", ".join(decisions.LINEAGE_FACTS)
    found = connection.execute(f"SELECT {columns} FROM lineages WHERE root = ?", (root,)).fetchone()
    return lineage_of(found) if found else None


_PAYLOAD: Final = f"SELECT {records.body_of('envelopes')} FROM envelopes WHERE request_id = ?"


def payload_of(connection: sqlite3.Connection, request_id: str) -> bytes | None:
    """The event of a stored envelope, read again from its body."""
    found = connection.execute(_PAYLOAD, (request_id,)).fetchone()
    return event_of(found[0]) if found and found[0] else None  # empty: past its retention


def lineages_in(connection: sqlite3.Connection, *, group: str, flush: int, limit: int) -> list[str]:
    """Roots of lineages whose alerts went into a flush."""
    sql = """
        SELECT DISTINCT root FROM alerts WHERE group_key = ? AND flush = ? AND root IS NOT NULL ORDER BY root LIMIT ?"""
    return [root for (root,) in connection.execute(sql, (group, flush, limit))]


def known(connection: sqlite3.Connection, request_ids: Sequence[str]) -> frozenset[str]:
    """Which of them are stored."""
    return frozenset(request_id for request_id, _ in connection.execute(_SEEN, (_json(request_ids),)))


def totals(connection: sqlite3.Connection) -> Totals:
    """The sums."""
    db = _database(connection)
    by_state, items = plans.sums(connection)
    counters = _pairs(db, "SELECT name, value FROM counters")
    states = _pairs(db, "SELECT state AS name, sum(failures) AS value FROM lineages GROUP BY state HAVING value > 0")
    if removed := counters.get(f"{REMOVED}failures"):
        states["removed"] = removed
    deliveries = Counter(
        _pairs(db, f"SELECT result AS name, count(*) AS value FROM deliveries WHERE key {NO_MESSAGE} GROUP BY result")
    )
    gone = f"{REMOVED}deliveries_"
    deliveries.update({name.removeprefix(gone): value for name, value in counters.items() if name.startswith(gone)})
    waiting = list(
        db.query(
            "SELECT kind, count(*) AS rows, min(due_at) AS first FROM outbox "
            f"WHERE state IN ('pending', 'unknown') AND coalesce(root, group_key, '') {NO_DRILL} GROUP BY kind"
        )
    )
    return Totals(
        received=counters.get("received", 0),
        decided=counters.get("decided", 0),
        duplicates=counters.get("duplicates", 0),
        conflicts=counters.get("conflicts", 0),
        quarantined=counters.get("quarantined", 0),
        failures=counters.get("failures", 0),
        states=states,
        outbox={row["kind"]: row["rows"] for row in waiting},
        deliveries=dict(deliveries),
        plans=by_state,
        plan_items=items,
        groups=_pairs(db, _GROUP_STATES),
        outbox_due={row["kind"]: records.instant_of(row["first"]) for row in waiting},
        gates=_pairs(
            db,
            "SELECT gate AS name, count(*) AS value FROM outbox "
            f"WHERE gate NOT IN ('', 'passed') AND coalesce(root, '') {NO_DRILL} GROUP BY gate",
        ),
        breakers=_pairs(
            db, "SELECT breaker AS name, count(*) AS value FROM functions WHERE breaker != 'closed' GROUP BY breaker"
        ),
        standings=functions.tightest(db.conn, limit=STANDINGS),
    )


_GROUP_STATES: Final = f"""
    SELECT state AS name, count(*) AS value FROM alert_groups
    WHERE state != '{GroupState.RESOLVED}' AND key {NO_DRILL} GROUP BY state"""


def _pairs(db: Database, sql: str) -> dict[str, int]:
    return {row["name"]: row["value"] for row in db.query(sql)}


_LISTED: Final = """
    SELECT e.*, d.decided_at, d.reason, d.rule_id, d.rule_set, d.facts, d.effects, d.also, d.shadow,
        coalesce(l.state, '') AS state
    FROM envelopes e JOIN decisions d USING (id) LEFT JOIN lineages l ON l.root = e.root"""


_FILTERS: Final = {
    "function": "e.function GLOB :function",
    "state": "l.state = :state",
    "group": "substr(e.fingerprint, 1, length(:group)) = :group",
    "text": "(e.error_message LIKE :text ESCAPE '~' OR e.error_type LIKE :text ESCAPE '~'"
    " OR e.request_id LIKE :text ESCAPE '~')",
    "since": "e.received_at >= :since",
    "until": "e.received_at < :until",
    "open": "l.state NOT IN ({})".format(", ".join(f"'{state}'" for state in sorted(CLOSED))),
}


def failures(connection: sqlite3.Connection, which: FailureFilter) -> list[FailureRow]:
    """Failed envelopes, newest first."""
    where, values = failures_where(which)
    sql = f"{_LISTED} WHERE {where} ORDER BY e.received_at DESC, e.id DESC LIMIT :limit"
    rows = _database(connection).query(sql, {**values, "limit": which.limit})
    return [_failure_row(row) for row in rows]


def failures_where(which: FailureFilter) -> tuple[str, dict[str, Any]]:
    """Which failures are listed, as SQL over envelopes ``e`` and lineages ``l``, and its values."""
    values = {
        "function": which.function.replace("[!", "[^"),  # a glob's complement, as SQLite spells it
        "state": which.state,
        "group": which.group,
        "text": which.text and f"%{_escaped(which.text)}%",
        "since": which.since and instant(which.since),
        "until": which.until and instant(which.until),
        "open": which.open,
    }
    clauses = ["e.outcome = 'failed'", *(_FILTERS[name] for name, value in values.items() if value)]
    return " AND ".join(clauses), values


def _escaped(part: str) -> str:
    return part.replace("~", "~~").replace("%", "~%").replace("_", "~_")


def _failure_row(row: Mapping[str, Any]) -> FailureRow:
    return records.failure_row(row, reason=row["reason"], rule_id=row["rule_id"], state=row["state"])


def failure(connection: sqlite3.Connection, request_id: str) -> FailureDetail | None:
    """One envelope with all that happened to it."""
    db = _database(connection)
    found = _by_prefix(db, "envelopes", "request_id", request_id)
    if found is None:
        return None
    own = {"id": found}
    listed = next(iter(db.query(f"{_LISTED} WHERE e.request_id = :id", own)))
    envelope = {name: listed[name] for name in records.ENVELOPE}
    (envelope["body"],) = connection.execute(_BODY, own).fetchone()
    root = {"root": envelope["root"]}
    lineage = next(iter(db.query("SELECT * FROM lineages WHERE root = :root", root)), None)
    if lineage is not None:
        lineage["members"] = list(db.query(_MEMBERS, root))
        lineage["deeds"] = list(db.query("SELECT * FROM deeds WHERE root = :root ORDER BY id", root))
        lineage["alerts"] = list(db.query("SELECT * FROM alerts WHERE root = :root ORDER BY id", root))
    return records.detail(
        _failure_row(listed),
        envelope=envelope,
        decision={name: listed[name] for name in decisions.DECISION},
        lineage=lineage,
        outbox=list(db.query("SELECT * FROM outbox WHERE root = :root ORDER BY id", root)),
        deliveries=list(db.query(_DELIVERIES, root)),
        conflicts=list(db.query(_CONFLICTS, own)),
    )


_CONFLICTS: Final = (
    f"SELECT id, {records.read('conflicts', records.CONFLICT)} FROM conflicts WHERE request_id = :id ORDER BY id"
)
_BODY: Final = f"SELECT {records.body_of('envelopes')} FROM envelopes WHERE request_id = :id"
_MEMBERS: Final = """
    SELECT request_id, attempt, outcome, received_at FROM envelopes WHERE request_id = :root
    UNION ALL
    SELECT request_id, attempt, outcome, received_at FROM envelopes WHERE root = :root AND attempt > 0
    ORDER BY attempt, received_at"""
_DELIVERIES: Final = """
    SELECT * FROM deliveries
    WHERE (group_key, flush) IN (SELECT group_key, flush FROM alerts WHERE root = :root) ORDER BY id"""


_HELD: Final = """
    SELECT root, json_extract(payload, '$.request_id') AS request_id, due_at AS until,
        json_extract(payload, '$.reason') AS reason
    FROM outbox WHERE kind = 'hold' AND state IN ('pending', 'unknown') ORDER BY due_at, id"""


def held(connection: sqlite3.Connection) -> list[Held]:
    """Failures that wait for a person."""
    return [Held(**{**row, "until": instant_of(row["until"])}) for row in _database(connection).query(_HELD)]


def _by_prefix(db: Database, table: str, column: str, prefix: str) -> str | None:
    """The one value that is, or else begins with, ``prefix``."""
    sql = f"SELECT {column} AS value FROM {table} WHERE {column} >= :low AND {column} < :high ORDER BY 1 LIMIT 2"
    found = [row["value"] for row in db.query(sql, {"low": prefix, "high": prefix + "\U0010ffff"})]
    # The value itself sorts before all that it is a prefix of.
    return found[0] if found and (len(found) == 1 or found[0] == prefix) else None


_QUARANTINE: Final = f"SELECT id, {records.read('quarantine', records.QUARANTINE)} FROM quarantine"


def quarantined(connection: sqlite3.Connection, *, limit: int) -> list[QuarantineRow]:
    """Quarantined messages, newest first."""
    rows = _database(connection).query(f"{_QUARANTINE} ORDER BY id DESC LIMIT ?", [limit])
    return [records.quarantine_row(row) for row in rows]


def quarantine_entry(connection: sqlite3.Connection, entry: int) -> QuarantineRow | None:
    """One quarantined message."""
    rows = _database(connection).query(f"{_QUARANTINE} WHERE id = ?", [entry])
    return next(map(records.quarantine_row, rows), None)


def rule_set(connection: sqlite3.Connection, digest: str | None) -> tuple[str, tuple[SourceText, ...]] | None:
    """A kept rule set."""
    db = _database(connection)
    if digest is None:
        last = next(iter(db.query("SELECT value FROM meta WHERE key = 'rule_set'")), None)
        digest = last["value"] if last else None
    found = None if digest is None else _by_prefix(db, "rule_sets", "digest", digest)
    if found is None:
        return None
    row = next(iter(db.query("SELECT sources FROM rule_sets WHERE digest = ?", [found])))
    return found, records.sources_of(row["sources"])


def rules_state(connection: sqlite3.Connection) -> RulesState | None:
    """The last good rule set with what was refused since then."""
    row = next(iter(_database(connection).query(_RULES_STATE)), None)
    if row is None:
        return None
    refused_at = row["refused_at"] and instant_of(row["refused_at"])
    return RulesState(
        row["digest"], instant_of(row["loaded_at"]), records.problems_of(row["problems"] or "[]"), refused_at
    )


_RULES_STATE: Final = """
    SELECT s.digest, coalesce((SELECT value FROM meta WHERE key = 'rules_loaded_at'), s.loaded_at) AS loaded_at,
        (SELECT value FROM meta WHERE key = 'rules_problems') AS problems,
        (SELECT value FROM meta WHERE key = 'rules_refused_at') AS refused_at
    FROM meta m JOIN rule_sets s ON s.digest = m.value WHERE m.key = 'rule_set'"""


def kept_rules(connection: sqlite3.Connection) -> list[KeptRules]:
    """All kept rule sets, the newest first."""
    rows = _database(connection).query(
        "SELECT digest, loaded_at, sources FROM rule_sets ORDER BY loaded_at DESC, digest"
    )
    return [records.kept_rules(row["digest"], row["loaded_at"], records.sources_of(row["sources"])) for row in rows]


def _database(connection: sqlite3.Connection) -> Database:
    return Database(connection, recursive_triggers=False, execute_plugins=False)
