"""What a report asks of the SQLite store. Jobs for its reader thread."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from triage.report import OpenGroup, Spared
from triage.reruns.gate import Standing
from triage.states import CLOSED
from triage.stores import standings
from triage.stores.drills import NO_DRILL
from triage.stores.records import instant, instant_of

_GROUPS: Final = 10
_OVER: Final = ", ".join(f"'{state}'" for state in sorted(CLOSED))
_STATES: Final = """
    SELECT l.state, count(*) FROM envelopes e JOIN lineages l ON l.root = e.root
    WHERE e.outcome = 'failed' AND e.received_at >= ? GROUP BY l.state"""
_OPEN: Final = f"""
    SELECT e.fingerprint, max(e.function), max(coalesce(nullif(e.error_type, ''), e.condition)), count(*) AS number,
        min(e.received_at), max(e.received_at), count(*) OVER ()
    FROM lineages l JOIN envelopes e ON e.root = l.root
    WHERE l.state NOT IN ({_OVER}) AND e.outcome = 'failed'
    GROUP BY e.fingerprint ORDER BY number DESC, e.fingerprint LIMIT {_GROUPS}"""
_SPARED: Final = f"""
    SELECT function, count(*) AS number, sum(attempt) FROM lineages l
    WHERE state = 'healed' AND attempt > 0 AND updated_at >= ? AND root {NO_DRILL}
        AND NOT EXISTS (SELECT 1 FROM alerts a WHERE a.root = l.root)
    GROUP BY function ORDER BY number DESC, function"""
_STOPPED: Final = (
    "SELECT function, breaker FROM functions WHERE breaker != 'closed' AND function != '' ORDER BY function"
)
_SPENT: Final = f"""
    SELECT function, count(*) FILTER (WHERE state = 'done' AND settled_at >= :since) AS reruns,
        count(*) FILTER (WHERE gate = 'budget') AS waiting
    FROM outbox WHERE kind = 'rerun' AND function != '' AND root {NO_DRILL}
    GROUP BY function HAVING reruns OR waiting ORDER BY waiting DESC, reruns DESC, function LIMIT 10"""


@dataclass(frozen=True, slots=True)
class Spending:
    """Re-runs of a function: so many were submitted, so many wait for its budget."""

    reruns: int
    waiting: int
    standing: Standing


@dataclass(frozen=True, slots=True)
class Shift:
    """What the store has to say for a report (`triage.report.Report`)."""

    states: dict[str, int]
    groups: tuple[OpenGroup, ...]
    groups_total: int
    spared: tuple[Spared, ...]
    spent: tuple[Spending, ...]
    stopped: tuple[str, ...]


class Reporting(Protocol):
    """What reports ask; no other loop needs it, so the test double has none of it."""

    async def shift(self, since: datetime) -> Shift:
        """What came since then, what healed, and what is open now."""
        ...


def shift(connection: sqlite3.Connection, *, since: datetime) -> Shift:
    """One consistent view."""
    ask, at = connection.execute, instant(since)
    found = ask(_OPEN).fetchall()
    return Shift(
        states=dict(ask(_STATES, (at,)).fetchall()),
        groups=tuple(OpenGroup(*row[:4], *map(instant_of, row[4:6])) for row in found),
        groups_total=found[0][6] if found else 0,
        spared=tuple(Spared(*row) for row in ask(_SPARED, (at,))),
        spent=tuple(
            Spending(reruns, waiting, standings.load(connection, function))
            for function, reruns, waiting in ask(_SPENT, {"since": at}).fetchall()
        ),
        stopped=tuple(f"{function}: {breaker}" for function, breaker in ask(_STOPPED)),
    )
