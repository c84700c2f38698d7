"""Outbox, switches and standings of the store in memory: what the gates of re-runs go by."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from triage.changes import RowKind
from triage.drills import is_drill
from triage.reruns.breaker import BreakerState
from triage.reruns.gate import AWAITED, Gate, GateFacts, Heard, Standing
from triage.reruns.rate import slowed
from triage.reruns.switches import Scope, Switch
from triage.stores import records, standings
from triage.stores.records import instant
from triage.views import OutboxRow

Row = Mapping[str, Any]

BEFORE_ALL: Final = datetime.min.replace(tzinfo=UTC)
_SWITCH: Final = records.insert("switches", records.SWITCH_ROW)


@dataclass(slots=True)
class Gates:
    """The part of `triage.testing.tables.Tables` that is about gates."""

    outbox: dict[str, Row] = field(default_factory=dict)
    """By key."""
    switches: list[Switch] = field(default_factory=list)
    standings: dict[str, Standing] = field(default_factory=dict)
    """By function."""
    succeeded: Counter[str] = field(default_factory=Counter)
    """How often each function has."""

    def unfinished(self) -> list[Row]:
        """Outbox rows that can be claimed, now or later."""
        return [row for row in self.outbox.values() if row["state"] in records.UNFINISHED]

    def switch_off(self, switch: Switch) -> bool:
        """Stop re-runs."""
        known = any((item.scope, item.pattern) == (switch.scope, switch.pattern) for item in self.off())
        if not known:
            self.switches.append(switch)
        return not known

    def switch_on(self, scope: Scope, pattern: str, *, by: str, reason: str, now: datetime) -> bool:
        """Let re-runs go on."""
        found = [item for item in self.off() if (item.scope, item.pattern) == (scope, pattern)]
        for item in found:
            self.switches[self.switches.index(item)] = replace(item, on_at=now, on_by=by, on_reason=reason)
            waiting = [row for row in self.unfinished() if row["gate"] == Gate.SWITCH]
            self.slow_start([""] if scope in (Scope.ALL, Scope.FILE) else [row["function"] for row in waiting], now=now)
            self.let_go(waiting, now=now)
        return bool(found)

    def slow_start(self, functions: Iterable[str], *, now: datetime) -> None:
        """Let the rate of these begin low; an empty name stands for all together."""
        for function in functions:
            standing = self.standing(function)
            self.standings[function] = replace(standing, pace=slowed(standing.pace, now=now))

    def standing(self, function: str) -> Standing:
        """How a function stands with its re-runs."""
        return self.standings.get(function, Standing(function))

    def awaiting(self, function: str) -> list[Row]:
        """Re-runs of a function that wait until they are let go."""
        return [row for row in self.outbox.values() if row["gate"] in AWAITED and row["function"] == function]

    def gates(self, row: OutboxRow) -> GateFacts:
        """What is known at the gates about a row of some function."""
        waiting = len(self.awaiting(row.function)) if row.kind is RowKind.WAKE else 0
        return GateFacts(tuple(self.off()), self.standing(row.function), self.standing(""), waiting)

    def let_go(self, rows: Iterable[Row], *, now: datetime) -> None:
        """Make due what waits at a gate."""
        for row in rows:
            self.outbox[row["key"]] = {**row, "gate": "", "due_at": min(row["due_at"], instant(now))}

    def hear(self, heard: Heard) -> None:
        """Add what a batch of results tells of a function."""
        known = self.standing(heard.function)
        breaker, budget = known.breaker, known.budget
        self.succeeded[heard.function] += heard.succeeded
        self.standings[heard.function] = replace(
            known,
            budget=replace(budget, credit=budget.credit + heard.successes),
            breaker=replace(
                breaker,
                ok=breaker.ok + heard.ok,
                bad=breaker.bad + heard.bad,
                streak=heard.streak if heard.ok else breaker.streak + heard.streak,
                heard=breaker.heard or heard.succeeded > 0,
            ),
        )

    def tightest(self, *, limit: int) -> tuple[Standing, ...]:
        """How functions stand, first those that are the most likely to have re-runs that wait."""
        known = sorted((each for each in self.standings.values() if each.function), key=lambda each: each.function)
        known.sort(key=lambda each: each.budget.floor_from or BEFORE_ALL, reverse=True)
        known.sort(key=lambda each: each.breaker.state is BreakerState.CLOSED)
        return tuple(known[:limit])

    def gate_sums(self) -> dict[str, dict[str, int]]:
        """What `triage.stores.Totals` says of gates and breakers."""
        states = Counter(str(each.breaker.state) for each in self.standings.values())
        del states[BreakerState.CLOSED]
        gates = [str(row["gate"]) for row in self.outbox.values() if not is_drill(row["root"] or "")]
        return {
            "gates": dict(Counter(gate for gate in gates if gate not in ("", Gate.PASSED))),
            "breakers": dict(states),
        }

    def write_gates(self, connection: sqlite3.Connection) -> None:
        """Put switches and standings into an SQLite database."""
        standings.save(connection, self.standings.values())
        for switch in self.switches:
            ended = (switch.on_at and instant(switch.on_at), switch.on_by, switch.on_reason)
            connection.execute(_SWITCH, (*records.switch_record(switch), *ended))

    def off(self) -> list[Switch]:
        """What is switched off, the newest first."""
        return [item for item in reversed(self.switches) if item.on_at is None]
