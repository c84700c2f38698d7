"""How functions stand with their re-runs, in the SQLite store. Jobs for its writer thread."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from triage.reruns.breaker import Breaker, BreakerState
from triage.reruns.budget import Budget
from triage.reruns.gate import AWAITED, Heard, Standing
from triage.reruns.rate import Pace
from triage.stores.records import Record, insert, instant, instant_of, maybe, text

_STANDING: Final = (
    "function", "next_at", "since", "share", "credit", "floor_from", "breaker", "ok", "bad", "streak", "submitted",
    "counted_from", "until", "pause", "heard",
)  # fmt: skip
_COLUMNS: Final = ", ".join(_STANDING)
_LOAD: Final = f"SELECT {_COLUMNS} FROM functions WHERE function = ?"
_TIGHTEST: Final = f"""
    SELECT {_COLUMNS} FROM functions WHERE function != ''
    ORDER BY breaker = 'closed', floor_from IS NULL, floor_from DESC, function LIMIT ?"""
_SAVE: Final = insert(
    "functions",
    _STANDING,
    "ON CONFLICT (function) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _STANDING if name != "function"),
)
_HEAR: Final = insert(
    "functions",
    ("function", "credit", "ok", "bad", "streak", "heard", "succeeded"),
    """ON CONFLICT (function) DO UPDATE SET credit = credit + excluded.credit, ok = ok + excluded.ok,
    bad = bad + excluded.bad, streak = CASE WHEN excluded.ok THEN excluded.streak ELSE streak + excluded.streak END,
    heard = max(heard, excluded.heard), succeeded = succeeded + excluded.succeeded""",
)
_SUCCEEDED: Final = """
    SELECT function, succeeded FROM functions WHERE function IN (SELECT value FROM json_each(?))"""
_GATES: Final = ", ".join(f"'{gate}'" for gate in AWAITED)
_WAITING: Final = f"SELECT count(*) FROM outbox WHERE gate IN ({_GATES}) AND function = ?"
_LET_GO: Final = f"""
    UPDATE outbox SET due_at = min(due_at, ?), gate = ''
    WHERE id IN (SELECT id FROM outbox WHERE gate IN ({_GATES}) AND function = ? ORDER BY id LIMIT ?)"""


def load(connection: sqlite3.Connection, function: str) -> Standing:
    """How a function stands; empty for all together."""
    found = connection.execute(_LOAD, (function,)).fetchone()
    if found is None:
        return Standing(function)
    return _standing_of(dict(zip(_STANDING, found, strict=True)))


def tightest(connection: sqlite3.Connection, *, limit: int) -> tuple[Standing, ...]:
    """How functions stand, first those that are the most likely to have re-runs that wait."""
    found = connection.execute(_TIGHTEST, (limit,))
    return tuple(_standing_of(dict(zip(_STANDING, row, strict=True))) for row in found)


def save(connection: sqlite3.Connection, standings: Iterable[Standing]) -> None:
    """Keep how functions stand."""
    connection.executemany(_SAVE, map(_standing_record, standings))


def hear(connection: sqlite3.Connection, heard: Iterable[Heard]) -> None:
    """Add what a batch of results tells of each function."""
    connection.executemany(_HEAR, map(_heard_record, heard))


def succeeded(connection: sqlite3.Connection, functions: Iterable[str]) -> Mapping[str, int]:
    """How often each of these has succeeded, of those that have."""
    names = json.dumps(list(map(text, functions)))
    return {name: count for name, count in connection.execute(_SUCCEEDED, (names,)) if count}


def waiting(connection: sqlite3.Connection, function: str) -> int:
    """How many re-runs of a function wait until they are let go."""
    found: int = connection.execute(_WAITING, (function,)).fetchone()[0]
    return found


def let_go(connection: sqlite3.Connection, function: str, number: int, *, now: datetime) -> None:
    """Make the oldest of them due."""
    connection.execute(_LET_GO, (instant(now), function, number))


def _standing_record(standing: Standing) -> Record:
    """Values of `_STANDING`."""
    pace, budget, breaker = standing.pace, standing.budget, standing.breaker
    return (
        text(standing.function),
        maybe(pace.next_at),
        maybe(pace.since),
        pace.share,
        budget.credit,
        maybe(budget.floor_from),
        breaker.state.value,
        *(breaker.ok, breaker.bad, breaker.streak, breaker.submitted),
        maybe(breaker.counted_from),
        maybe(breaker.until),
        breaker.pause.total_seconds(),
        int(breaker.heard),
    )


def _standing_of(row: Mapping[str, Any]) -> Standing:
    """Undo `_standing_record`."""
    at = {
        name: row[name] and instant_of(row[name])
        for name in ("next_at", "since", "floor_from", "counted_from", "until")
    }
    breaker = Breaker(
        BreakerState(row["breaker"]),
        *(row["ok"], row["bad"], row["streak"], row["submitted"]),
        *(at["counted_from"], at["until"], timedelta(seconds=row["pause"]), bool(row["heard"])),
    )
    pace = Pace(at["next_at"], at["since"], row["share"])
    return Standing(row["function"], pace, Budget(row["credit"], at["floor_from"]), breaker)


def _heard_record(heard: Heard) -> Record:
    """What is added to a function: its name, successes of first runs, results of re-runs, whether it has succeeded, and
    how often.
    """
    name, total = text(heard.function), heard.succeeded
    return (name, float(heard.successes), heard.ok, heard.bad, heard.streak, int(total > 0), total)
