"""Re-runs that are to come or under way, for people: who waits where, until when and why. Jobs for SQLite's reader."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from triage.changes import RowKind
from triage.reruns.gate import AWAITED, Gate, Standing
from triage.states import RowState
from triage.stores import standings
from triage.stores.records import IS_OPEN, instant_of


@dataclass(frozen=True, slots=True)
class RerunFilter:
    """Which of them; ``""`` means any. ``function`` and ``rule`` are globs, ``root`` is a lineage.

    ``given_up``: instead of those that are to come or under way, those that were given up before they were submitted.
    """

    function: str = ""
    rule: str = ""
    gate: str = ""
    root: str = ""
    given_up: bool = False
    limit: int = 50


@dataclass(frozen=True, slots=True)
class RerunRow:
    """One re-run.

    Attributes:
        request_id: the result that it was planned for.
        running: it was submitted, and its result is awaited until ``due_at``.
        next_at: when it goes or is looked at again, at the earliest; None: when a switch is on again.
        give_up_at: when it is given up if it was not submitted by then.
        note: why it waits, or what became of the last try.
        tries: claims so far.
        ended_at: when it was given up.
    """

    task_id: str
    request_id: str
    root: str
    function: str
    rule: str
    attempt: int
    origin: str
    state: RowState
    gate: Gate | None
    due_at: datetime
    next_at: datetime | None
    give_up_at: datetime
    claimed_until: datetime | None
    note: str
    tries: int
    running: bool
    ended_at: datetime | None = None

    def standing(self, now: datetime) -> str:
        """Where it stands, in a word."""
        if self.state is RowState.DEAD:
            return "given up"
        if self.running:
            return "running"
        if self.gate is Gate.PASSED or (self.claimed_until is not None and self.claimed_until > now):
            return "submitting"
        if self.state is RowState.UNKNOWN:
            return "unknown"
        if self.gate is not None:
            return f"waits: {self.gate}"
        return "due" if self.due_at <= now else "planned"


class Underway(Protocol):
    """What people ask about re-runs; no loop of the daemon does."""

    async def reruns(self, which: RerunFilter) -> list[RerunRow]:
        """Re-runs that are to come or under way, by when they go on."""
        ...

    async def standing(self, function: str) -> tuple[Standing, int]:
        """How a function stands with its re-runs, and how many of it wait for its breaker or its budget."""
        ...


_AWAITED: Final = ", ".join(f"'{gate}'" for gate in AWAITED)
_RERUNS: Final = f"""
    SELECT o.key, o.kind, o.state, o.due_at, o.payload, o.root, o.function, o.gate, o.note, o.attempts, o.lease_until,
        o.settled_at, w.due_at AS wake_at
    FROM outbox o
    LEFT JOIN outbox w ON o.gate IN ({_AWAITED}) AND w.key = '{RowKind.WAKE}:' || o.function AND w.settled_at IS NULL
    WHERE {{which}}
        AND (:function = '' OR o.function GLOB :function) AND (:gate = '' OR o.gate = :gate)
        AND (:root = '' OR o.root = :root)
        AND (:rule = '' OR json_extract(o.payload, '$.alert.labels.rule') GLOB :rule)
    ORDER BY {{order}} LIMIT :limit"""
_TO_COME: Final = _RERUNS.format(
    which=f"o.kind IN ('{RowKind.RERUN}', '{RowKind.EXPECT}') AND o.{IS_OPEN}",
    order="coalesce(w.due_at, o.due_at), o.id",
)
_GIVEN_UP: Final = _RERUNS.format(
    which=f"o.kind = '{RowKind.RERUN}' AND o.state = '{RowState.DEAD}'", order="o.settled_at DESC, o.id DESC"
)


def reruns(connection: sqlite3.Connection, which: RerunFilter) -> list[RerunRow]:
    """Re-runs that are to come or under way, or those that were given up, the newest first."""
    values = {name: getattr(which, name) for name in ("function", "rule", "gate", "root", "limit")}
    found = connection.execute(_GIVEN_UP if which.given_up else _TO_COME, values)
    names = [column[0] for column in found.description]
    return [_row(dict(zip(names, row, strict=True))) for row in found]


def standing(connection: sqlite3.Connection, function: str) -> tuple[Standing, int]:
    """How a function stands."""
    return standings.load(connection, function), standings.waiting(connection, function)


def _row(row: Mapping[str, Any]) -> RerunRow:
    payload = json.loads(row["payload"])
    gate = Gate(row["gate"]) if row["gate"] else None
    due_at = instant_of(row["due_at"])
    return RerunRow(
        task_id=payload.get("task_id", row["key"]),
        request_id=payload["request_id"],
        root=row["root"],
        function=row["function"],
        rule=payload["alert"]["labels"]["rule"],
        attempt=payload["attempt"],
        origin=payload.get("origin", "automatic"),
        state=RowState(row["state"]),
        gate=gate,
        due_at=due_at,
        next_at=None
        if gate is Gate.SWITCH or row["state"] == RowState.DEAD
        else instant_of(row["wake_at"])
        if row["wake_at"]
        else due_at,
        give_up_at=datetime.fromisoformat(payload["give_up_at"]),
        claimed_until=row["lease_until"] and instant_of(row["lease_until"]),
        note=row["note"] or "",
        tries=row["attempts"],
        running=row["kind"] == RowKind.EXPECT,
        ended_at=row["settled_at"] and instant_of(row["settled_at"]),
    )
