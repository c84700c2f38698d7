"""What goes on at the moment, as far as an SQLite store tells it: read-only, for `triage top`.

All of it is asked again every few seconds beside a running daemon, so nothing here reads a table from end to end
except where `queries.totals` does.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from triage.facts import RATES, GroupFacts, group_state, recent_of
from triage.incident import OPEN
from triage.reruns.gate import Standing
from triage.reruns.switches import Switch
from triage.stores import RulesState, Totals, gating, queries, standings
from triage.stores.drills import NO_DRILL, NO_MESSAGE
from triage.stores.records import IS_OPEN, instant, instant_of, minute

SHOWN: Final = 100
"""Rows of a kind that a screen can have use for; the others are counted."""

_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Outbox rows of one kind that are not finished.

    Attributes:
        due: those whose time has come; ``under_way`` are those being acted on.
        gated: those that wait at a gate.
        first: when the first one is or was due.
    """

    kind: str
    rows: int
    due: int
    under_way: int
    gated: int
    first: datetime


@dataclass(frozen=True, slots=True)
class Failing:
    """A failure group that failed in the last hour.

    Attributes:
        recent: failures in the last `RATES` minutes.
        count: since ever.
    """

    fingerprint: str
    function: str
    condition: str
    error_type: str
    message: str
    state: str
    recent: tuple[float, ...]
    count: int
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class Receiver:
    """What a receiver was told in the last hour, by result, and how many notifications wait for it."""

    name: str
    results: Mapping[str, int]
    waiting: int
    last_at: datetime | None


@dataclass(frozen=True, slots=True)
class Guarded:
    """How a function stands with its re-runs, and how many of them wait at gates."""

    standing: Standing
    waiting: int


@dataclass(frozen=True, slots=True)
class Overview:
    """One consistent view.

    Attributes:
        results: stored in the last minute.
        minutes: failures in each of the last sixty minutes, the present one last.
        recent: failures in the last `RATES` minutes.
        groups: the busiest of the last hour, ``groups_total`` of them in all.
        gates: rows that wait, by the gate.
        functions: those with an open breaker first, then those whose re-runs wait; ``functions_total`` in all.
        silences: how many are in force.
        incidents: alert groups with an incident that goes on, by state; ``acknowledged`` of them are.
    """

    at: datetime
    totals: Totals
    rules: RulesState | None
    results: int
    minutes: tuple[int, ...]
    recent: tuple[float, ...]
    outbox: tuple[Waiting, ...]
    gates: Mapping[str, int]
    functions: tuple[Guarded, ...]
    functions_total: int
    groups: tuple[Failing, ...]
    groups_total: int
    receivers: tuple[Receiver, ...]
    switches: tuple[Switch, ...]
    silences: int
    incidents: Mapping[str, int]
    acknowledged: int


_RESULTS: Final = "SELECT count(*) FROM envelopes WHERE received_at >= ? AND outcome != 'drill'"
_OUTBOX: Final = f"""
    SELECT kind, count(*), sum(due_at <= :now), sum(coalesce(lease_until > :now, 0)), sum(gate != ''), min(due_at)
    FROM outbox WHERE {IS_OPEN} AND coalesce(root, group_key, '') {NO_DRILL} GROUP BY kind ORDER BY min(due_at)"""
_GATES: Final = f"""
    SELECT gate, count(*) FROM outbox WHERE gate != '' AND coalesce(root, group_key, '') {NO_DRILL}
    GROUP BY gate ORDER BY gate"""
_GUARDED: Final = f"""
    WITH waits AS (
        SELECT function, count(*) AS number FROM outbox WHERE gate != '' AND coalesce(root, '') {NO_DRILL}
        GROUP BY function)
    SELECT f.name, coalesce(w.number, 0), count(*) OVER ()
    FROM (SELECT function AS name FROM functions UNION SELECT function FROM waits) f
        LEFT JOIN waits w ON w.function = f.name LEFT JOIN functions s ON s.function = f.name
    WHERE f.name != ''
    ORDER BY coalesce(s.breaker, 'closed') = 'closed', 2 DESC, s.bad DESC, s.ok DESC, f.name LIMIT ?"""
_MINUTES: Final = "SELECT minute, sum(count) FROM group_minutes WHERE minute >= ? GROUP BY minute"
_BUSIEST: Final = """
    SELECT fingerprint, sum(count) AS lately, json_group_object(minute, count) AS minutes FROM group_minutes
    WHERE minute >= ? GROUP BY fingerprint ORDER BY lately DESC, fingerprint LIMIT ?"""
_NUMBER: Final = "SELECT count(DISTINCT fingerprint) FROM group_minutes WHERE minute >= ?"
_GROUP: Final = """
    SELECT function, condition, error_type, message, count, first_seen, last_seen, back_since FROM groups
    WHERE fingerprint = ?"""
_INCIDENTS: Final = f"""
    SELECT state, count(*), sum(incident ->> '$.ack' IS NOT NULL) FROM alert_groups
    WHERE state IN (SELECT value FROM json_each(?)) AND key {NO_DRILL} GROUP BY state"""
_TOLD: Final = f"""
    SELECT receiver, result, count(*), max(at) FROM deliveries WHERE at >= ? AND key {NO_MESSAGE}
    GROUP BY receiver, result"""
_TO_TELL: Final = f"""
    SELECT payload ->> '$.receiver', count(*) FROM outbox WHERE kind = 'notify' AND {IS_OPEN} AND key {NO_MESSAGE}
    GROUP BY 1"""


def overview(connection: sqlite3.Connection, *, now: datetime) -> Overview:
    """What goes on now. The caller holds a transaction, so that it is all of one instant."""
    ask, this = connection.execute, minute(now)
    (results,) = ask(_RESULTS, (instant(now - _MINUTE),)).fetchone()
    (silences,) = ask("SELECT count(*) FROM silences WHERE ended_at IS NULL").fetchone()
    (groups,) = ask(_NUMBER, (this - max(RATES),)).fetchone()
    guarded = ask(_GUARDED, (SHOWN,)).fetchall()
    incidents = ask(_INCIDENTS, (json.dumps(sorted(OPEN)),)).fetchall()
    minutes: dict[int, int] = dict(ask(_MINUTES, (this - max(RATES),)).fetchall())
    return Overview(
        at=now,
        totals=queries.totals(connection),
        rules=queries.rules_state(connection),
        results=results,
        minutes=tuple(minutes.get(this - back, 0) for back in reversed(range(max(RATES)))),
        recent=recent_of(minutes, now),
        outbox=tuple(_waiting(row) for row in ask(_OUTBOX, {"now": instant(now)})),
        gates=dict(ask(_GATES).fetchall()),
        functions=tuple(Guarded(standings.load(connection, name), waiting) for name, waiting, _ in guarded),
        functions_total=guarded[0][2] if guarded else 0,
        groups=tuple(_failing(connection, now)),
        groups_total=groups,
        receivers=tuple(_receivers(connection, now)),
        switches=tuple(gating.switches(connection, past=0)),
        silences=silences,
        incidents={state: number for state, number, _ in incidents},
        acknowledged=sum(number for _, _, number in incidents),
    )


def _waiting(row: tuple[Any, ...]) -> Waiting:
    kind, rows, due, under_way, gated, first = row
    return Waiting(kind, rows, due, under_way, gated, instant_of(first))


def _failing(connection: sqlite3.Connection, now: datetime) -> Iterator[Failing]:
    for fingerprint, _, counts in connection.execute(_BUSIEST, (minute(now) - max(RATES), SHOWN)).fetchall():
        found = connection.execute(_GROUP, (fingerprint,)).fetchone()
        if found is None:
            continue
        function, condition, error_type, message, count, *times = found
        first_seen, last_seen, back_since = map(instant_of, times)
        recent = recent_of({int(at): number for at, number in json.loads(counts).items()}, now)
        facts = GroupFacts(first_seen, count, last_seen, back_since, recent)
        state = group_state(facts, now)
        yield Failing(fingerprint, function, condition, error_type, message, state, recent, count, last_seen)


def _receivers(connection: sqlite3.Connection, now: datetime) -> Iterator[Receiver]:
    told: dict[str, dict[str, int]] = {}
    last: dict[str, str] = {}
    for name, result, number, at in connection.execute(_TOLD, (instant(now - _HOUR),)):
        told.setdefault(name, {})[result] = number
        last[name] = max(at, last.get(name, ""))
    waiting = dict(connection.execute(_TO_TELL).fetchall())
    for name in sorted({*told, *waiting}):
        yield Receiver(name, told.get(name, {}), waiting.get(name, 0), instant_of(last[name]) if name in last else None)
