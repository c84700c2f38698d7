"""Plans of re-runs in the SQLite store, where reading and writing are one: jobs for its writer thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime
from typing import Final

from triage.changes import Changes
from triage.reruns.plan import ItemState, OrderedItem, Plan, PlanView, WaitingItem, room
from triage.stores import decisions, ordering, plans, records, writes
from triage.views import OutboxRow

_LINEAGE: Final = ", ".join(f"l.{column}" for column in decisions.LINEAGE_FACTS)
# A union, so that each half has its index: a plan may have a million items.
_ORDERED: Final = f"""
    SELECT i.id, i.state, i.attempt, i.step, {_LINEAGE}
    FROM (
        SELECT * FROM plan_items WHERE plan = :plan AND step = :step AND step > 0
        UNION
        SELECT * FROM plan_items WHERE plan = :plan AND state = '{ItemState.ORDERED}'
    ) i LEFT JOIN lineages l USING (root) ORDER BY i.id"""
_WAITING: Final = f"""
    SELECT id, request_id, attempt FROM plan_items
    WHERE plan = ? AND state = '{ItemState.WAITING}' ORDER BY id LIMIT ?"""

_RERUNS: Final = f"""
    SELECT {", ".join(f"o.{column}" for column in records.CLAIM)} FROM json_each(?) j JOIN outbox o ON o.key = j.value
    WHERE {records.IS_OPEN}"""


def view(connection: sqlite3.Connection, plan: str) -> PlanView | None:
    """A plan at work, and what its next step is judged by."""
    known = plans.read(connection, plan)
    if known is None:
        return None
    (number,) = connection.execute("SELECT id FROM plans WHERE hash = ?", (plan,)).fetchone()
    ordered = tuple(
        OrderedItem(item, ItemState(state), attempt, step, decisions.lineage_of(rest) if rest[0] else None)
        for item, state, attempt, step, *rest in connection.execute(_ORDERED, {"plan": number, "step": known.step})
    )
    waiting = connection.execute(_WAITING, (number, room(known, ordered))).fetchall()
    return PlanView(
        known,
        ordered,
        tuple(
            WaitingItem(item, attempt, ordering.stored(connection, request_id)) for item, request_id, attempt in waiting
        ),
    )


def ordered(connection: sqlite3.Connection, known: PlanView | None) -> tuple[OutboxRow, ...]:
    """The re-runs that a plan has ordered and that are not over."""
    found = connection.execute(_RERUNS, (records.json_text(list(known.tasks) if known else []),))
    return tuple(records.claimed_row(dict(zip(records.CLAIM, row, strict=True)), token="") for row in found)


def freeze(connection: sqlite3.Connection, draft: int, changes: Changes, *, now: datetime) -> None:
    """Make a draft a plan."""
    assert changes.plan is not None  # noqa: S101 - the caller's mistake
    connection.execute("UPDATE plans SET hash = ? WHERE id = ?", (changes.plan.plan.hash, draft))
    writes.apply_changes(connection, changes, now=now)


def move(connection: sqlite3.Connection, plan: str, react: Callable[[Plan], Changes], *, now: datetime) -> Plan | None:
    """Ask ``react`` what becomes of a plan, and write it."""
    found = plans.read(connection, plan)
    if found is None:
        return None
    writes.apply_changes(connection, react(found), now=now)
    return plans.read(connection, found.hash)
