"""What the SQLite store knows of the gates of re-runs. Jobs for its writer thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Final

from triage.changes import RowKind
from triage.reruns.gate import Gate, GateFacts
from triage.reruns.rate import slowed
from triage.reruns.switches import Scope, Switch
from triage.stores import records, standings
from triage.stores.records import insert, instant, text
from triage.views import OutboxRow

_SWITCH_OFF: Final = insert("switches", records.SWITCH, "ON CONFLICT DO NOTHING")
_SWITCH_ON: Final = """
    UPDATE switches SET on_at = ?, on_by = ?, on_reason = ? WHERE scope = ? AND pattern = ? AND on_at IS NULL"""
_LET_GO: Final = "UPDATE outbox SET due_at = min(due_at, ?), gate = '' WHERE gate = ? AND state = 'pending'"


def facts(connection: sqlite3.Connection, row: OutboxRow) -> GateFacts:
    """What is known at the gates about a row of some function."""
    return GateFacts(
        switches=tuple(switches(connection, past=0)),
        own=standings.load(connection, row.function),
        every=standings.load(connection, ""),
        waiting=standings.waiting(connection, row.function) if row.kind is RowKind.WAKE else 0,
    )


def switches(connection: sqlite3.Connection, *, past: int) -> list[Switch]:
    """What is switched off, the newest first; after it the last ``past`` switches that are on again."""
    columns = ", ".join(records.SWITCH_ROW)
    found = connection.execute(f"SELECT {columns} FROM switches WHERE on_at IS NULL ORDER BY id DESC").fetchall()
    if past:
        found += connection.execute(
            f"SELECT {columns} FROM switches WHERE on_at IS NOT NULL ORDER BY on_at DESC, id DESC LIMIT ?", (past,)
        ).fetchall()
    return [records.switch_of(dict(zip(records.SWITCH_ROW, row, strict=True))) for row in found]


def switch_off(connection: sqlite3.Connection, switch: Switch) -> bool:
    """Stop re-runs; False when that very switch is off already."""
    return connection.execute(_SWITCH_OFF, records.switch_record(switch)).rowcount == 1


def switch_on(
    connection: sqlite3.Connection, scope: Scope, pattern: str, *, by: str, reason: str, now: datetime
) -> bool:
    """Let re-runs go on; what waits is asked at once, for another switch may stop it. False: it was not off."""
    values = (instant(now), text(by), text(reason), scope.value, text(pattern))
    if connection.execute(_SWITCH_ON, values).rowcount == 0:
        return False
    stopped = [""] if scope in (Scope.ALL, Scope.FILE) else _stopped(connection)
    slow_start(connection, stopped, now=now)
    connection.execute(_LET_GO, (instant(now), Gate.SWITCH.value))
    return True


def slow_start(connection: sqlite3.Connection, functions: Iterable[str], *, now: datetime) -> None:
    """Let the rate of these begin low; an empty name stands for all together."""
    found = [standings.load(connection, function) for function in functions]
    standings.save(connection, [replace(each, pace=slowed(each.pace, now=now)) for each in found])


def _stopped(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute("SELECT DISTINCT function FROM outbox WHERE gate = ?", (Gate.SWITCH.value,))
    return [function for (function,) in found]
