"""Plans of re-runs in the SQLite store: jobs for its threads, and parts of such jobs."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from triage.reruns.plan import AT_WORK, ItemState, Plan, PlanChange, PlanItem, PlanState
from triage.stores.planning import PlanItemRow
from triage.stores.records import Record, insert, instant, instant_of, json_text, text

_PLAN: Final = (
    "hash", "state", "created_at", "by", "reason", "selection", "qualifier", "threshold", "sizes", "step", "rung",
    "receivers", "note", "changed_at", "functions", "typical",
)  # fmt: skip
_COUNTS: Final = tuple(ItemState)
_COLUMNS: Final = f"{', '.join(_PLAN)}, {', '.join(_COUNTS)}"
_NEW_ITEM: Final = insert("plan_items", ("plan", "request_id", "root", "attempt", "state", "reason", "step"))
_COUNT: Final = f"UPDATE plans SET {', '.join(f'{name} = {name} + ?' for name in _COUNTS)} WHERE id = ?"
_MOVE: Final = f"UPDATE plans SET {', '.join(f'{name} = ?' for name in _PLAN)} WHERE id = ?"
_MOVE_ITEM: Final = """
    UPDATE plan_items SET state = ?, reason = ?, attempt = coalesce(?, attempt), step = coalesce(?, step)
    WHERE id = ? AND state = ?"""
_DISCARDED: Final = 10_000
"""Items of a draft that are deleted in one transaction."""


def new(connection: sqlite3.Connection, draft: Plan) -> int:
    """Begin a draft."""
    columns = (*_PLAN, *_COUNTS)
    values = (*_record(draft), *[0] * len(_COUNTS))
    number = connection.execute(insert("plans", columns), values).lastrowid
    assert number is not None  # noqa: S101 - sqlite3's answer to any other statement than an insert
    return number


def add_items(connection: sqlite3.Connection, draft: int, items: Sequence[PlanItem]) -> None:
    """Write items of a draft, and count them."""
    rows = [(draft, item.request_id, item.root, item.attempt, item.state, text(item.reason), 0) for item in items]
    connection.executemany(_NEW_ITEM, rows)
    counts = Counter(item.state for item in items)
    connection.execute(_COUNT, [*(counts[state] for state in _COUNTS), draft])


def old_drafts(connection: sqlite3.Connection, before: datetime) -> list[int]:
    """Drafts that were begun before."""
    found = connection.execute(
        "SELECT id FROM plans WHERE state = ? AND created_at < ?", (PlanState.DRAFT, instant(before))
    )
    return [number for (number,) in found]


def discard(connection: sqlite3.Connection, draft: int) -> bool:
    """Delete some items of a draft, and the draft after the last of them."""
    some = """
        SELECT i.id FROM plans p JOIN plan_items i ON i.plan = p.id WHERE p.id = ? AND p.state = ? LIMIT ?"""
    found = (draft, PlanState.DRAFT, _DISCARDED)
    deleted = connection.execute(f"DELETE FROM plan_items WHERE id IN ({some})", found).rowcount
    if deleted == _DISCARDED:
        return False
    connection.execute("DELETE FROM plans WHERE id = ? AND state = ?", (draft, PlanState.DRAFT))
    return True


def write(connection: sqlite3.Connection, change: PlanChange) -> None:
    """Write a plan as it is from now on, and those of its items that change."""
    (number,) = connection.execute("SELECT id FROM plans WHERE hash = ?", (change.plan.hash,)).fetchone()
    connection.execute(_MOVE, (*_record(change.plan), number))
    moved = [(item.after, text(item.reason), item.attempt, item.step, item.id, item.before) for item in change.items]
    connection.executemany(_MOVE_ITEM, moved)
    counts = Counter(item.after for item in change.items)
    counts.subtract(item.before for item in change.items)
    connection.execute(_COUNT, [*(counts[state] for state in _COUNTS), number])


def read(connection: sqlite3.Connection, plan: str) -> Plan | None:
    """A plan by its hash, or a unique prefix."""
    found = connection.execute(
        f"SELECT {_COLUMNS} FROM plans WHERE hash >= ? AND hash < ? AND state != ? ORDER BY hash LIMIT 2",
        (plan, plan + "\U0010ffff", PlanState.DRAFT),
    ).fetchall()
    return _plan(found[0]) if len(found) == 1 or (found and found[0][0] == plan) else None


def newest(connection: sqlite3.Connection, *, limit: int) -> list[Plan]:
    """Plans, the newest first."""
    sql = f"SELECT {_COLUMNS} FROM plans WHERE state != ? ORDER BY id DESC LIMIT ?"
    return [_plan(row) for row in connection.execute(sql, (PlanState.DRAFT, limit))]


def sums(connection: sqlite3.Connection) -> tuple[dict[str, int], dict[str, int]]:
    """Plans by state, and the items of those at work by state."""
    states = connection.execute(
        "SELECT state, count(*) FROM plans WHERE state != ? GROUP BY state", (PlanState.DRAFT,)
    ).fetchall()
    marks = ", ".join("?" * len(AT_WORK))
    counts = connection.execute(
        f"SELECT {', '.join(f'coalesce(sum({name}), 0)' for name in _COUNTS)} FROM plans WHERE state IN ({marks})",
        AT_WORK,
    ).fetchone()
    return dict(states), {state: count for state, count in zip(_COUNTS, counts, strict=True) if count}


def items(
    connection: sqlite3.Connection, plan: str, *, state: ItemState | None, after: int, limit: int
) -> list[PlanItemRow]:
    """Items in their order."""
    found = connection.execute(
        f"""
        SELECT id, request_id, root, attempt, state, step, reason FROM plan_items
        WHERE plan = (SELECT id FROM plans WHERE hash = ?) {"" if state is None else "AND state = ?"}
            AND id > ? ORDER BY id LIMIT ?""",
        (plan, *(() if state is None else (state,)), after, limit),
    )
    return [
        PlanItemRow(number, request_id, root, attempt, ItemState(stands), step, reason)
        for number, request_id, root, attempt, stands, step, reason in found
    ]


def excluded(connection: sqlite3.Connection, plan: str) -> dict[str, int]:
    """Reasons, and how often each."""
    return dict(
        connection.execute(
            """
            SELECT substr(reason, 1, instr(reason || ':', ':') - 1) AS why, count(*) FROM plan_items
            WHERE plan = (SELECT id FROM plans WHERE hash = ?) AND state IN (?, ?) GROUP BY why ORDER BY 2 DESC, 1""",
            (plan, ItemState.EXCLUDED, ItemState.SKIPPED),
        ).fetchall()
    )


def deeds(connection: sqlite3.Connection, about: str) -> list[Mapping[str, Any]]:
    """What people did about something."""
    columns = ("at", "by", "action", "reason")
    found = connection.execute(f"SELECT {', '.join(columns)} FROM deeds WHERE about = ? ORDER BY id", (about,))
    return [dict(zip(columns, row, strict=True)) for row in found]


def _record(plan: Plan) -> Record:
    """Values of `_PLAN`."""
    return (
        plan.hash,
        plan.state,
        instant(plan.created_at),
        text(plan.by),
        text(plan.reason),
        json_text(plan.selection),
        plan.qualifier,
        plan.threshold,
        json_text(plan.sizes),
        plan.step,
        plan.rung,
        json_text(plan.to),
        text(plan.note),
        plan.changed_at and instant(plan.changed_at),
        json_text(plan.functions),
        plan.typical and plan.typical.total_seconds(),
    )


def _plan(row: Sequence[Any]) -> Plan:
    """A plan from the values of `_COLUMNS`."""
    values = dict(zip((*_PLAN, *_COUNTS), row, strict=True))
    return Plan(
        hash=values["hash"],
        state=PlanState(values["state"]),
        created_at=instant_of(values["created_at"]),
        by=values["by"],
        reason=values["reason"],
        selection=json.loads(values["selection"]),
        qualifier=values["qualifier"],
        counts={state: values[state] for state in _COUNTS},
        threshold=values["threshold"],
        sizes=tuple(json.loads(values["sizes"])),
        step=values["step"],
        rung=values["rung"],
        to=tuple(json.loads(values["receivers"])),
        note=values["note"],
        changed_at=values["changed_at"] and instant_of(values["changed_at"]),
        functions=json.loads(values["functions"]),
        typical=None if values["typical"] is None else timedelta(seconds=values["typical"]),
    )
