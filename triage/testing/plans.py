"""Plans of re-runs in the store in memory: `triage.stores.planning.Plans`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from triage.changes import Changes
from triage.reruns.plan import AT_WORK, ItemState, OrderedItem, Plan, PlanItem, PlanState, PlanView, WaitingItem, room
from triage.stores import records
from triage.stores.planning import PlanItemRow
from triage.testing.gates import Row
from triage.testing.tables import Tables, lineage_in
from triage.testing.views import stored_in
from triage.views import OutboxRow


class MemoryPlans(ABC):
    """The part of `MemoryStore` that is about plans."""

    tables: Tables

    @abstractmethod
    def _open(self) -> Tables: ...

    async def new_plan(self, draft: Plan) -> int:
        number = len(self._open().plans) + 1
        self.tables.plans[number] = replace(draft, counts=dict.fromkeys(ItemState, 0))
        return number

    async def add_plan_items(self, draft: int, items: Sequence[PlanItem]) -> None:
        tables = self._open()
        for item in items:
            number = len(tables.plan_items) + 1
            row = {"id": number, "plan": draft, "request_id": item.request_id, "root": item.root, "step": 0}
            row |= {"attempt": item.attempt, "state": item.state, "reason": item.reason}
            tables.plan_items[number] = row
        counts = Counter(tables.plans[draft].counts) + Counter(item.state for item in items)
        tables.plans[draft] = replace(tables.plans[draft], counts={state: counts[state] for state in ItemState})

    async def freeze_plan(self, draft: int, changes: Changes, *, now: datetime) -> None:
        assert changes.plan is not None  # noqa: S101 - the caller's mistake
        written = self._open().copy()
        written.plans[draft] = replace(written.plans[draft], hash=changes.plan.plan.hash)
        written.apply(changes, now=now)
        self.tables = written

    async def old_drafts(self, before: datetime) -> list[int]:
        drafts = self._open().plans.items()
        return [number for number, plan in drafts if plan.state is PlanState.DRAFT and plan.created_at < before]

    async def discard_draft(self, draft: int) -> bool:
        tables = self._open()
        if draft in tables.plans and tables.plans[draft].state is PlanState.DRAFT:
            tables.plan_items = {number: row for number, row in tables.plan_items.items() if row["plan"] != draft}
            del tables.plans[draft]
        return True

    async def move_plan(self, plan: str, react: Callable[[Plan], Changes], *, now: datetime) -> Plan | None:
        found = await self.plan(plan)
        if found is None:
            return None
        written = self.tables.copy()
        written.apply(react(found), now=now)
        self.tables = written
        return await self.plan(found.hash)

    async def plan(self, plan: str) -> Plan | None:
        known = [each for each in self._open().plans.values() if each.state is not PlanState.DRAFT]
        found = [each for each in known if each.hash == plan] or [each for each in known if each.hash.startswith(plan)]
        return found[0] if len(found) == 1 else None

    async def plans(self, *, limit: int) -> list[Plan]:
        known = [plan for plan in self._open().plans.values() if plan.state is not PlanState.DRAFT]
        return known[::-1][:limit]

    async def plan_items(
        self, plan: str, *, state: ItemState | None = None, after: int = 0, limit: int
    ) -> list[PlanItemRow]:
        rows = [row for row in _items(self._open(), plan) if row["id"] > after and state in (None, row["state"])]
        names = ("id", "request_id", "root", "attempt", "state", "step", "reason")
        return [PlanItemRow(**{name: row[name] for name in names}) for row in rows[:limit]]

    async def excluded(self, plan: str) -> Mapping[str, int]:
        rows = [row for row in _items(self._open(), plan) if row["state"] in (ItemState.EXCLUDED, ItemState.SKIPPED)]
        return dict(Counter(row["reason"].partition(":")[0] for row in rows).most_common())

    async def deeds_about(self, about: str) -> list[Mapping[str, Any]]:
        found = [row for row in self._open().deeds.values() if row["about"] == about]
        return [{name: row[name] for name in ("at", "by", "action", "reason")} for row in found]


def _items(tables: Tables, plan: str) -> list[Row]:
    numbers = [number for number, each in tables.plans.items() if each.hash == plan]
    return [row for row in tables.plan_items.values() if row["plan"] in numbers]


def plan_sums(tables: Tables) -> dict[str, dict[str, int]]:
    """Plans by state, and the items of those at work by state."""
    plans = [plan for plan in tables.plans.values() if plan.state is not PlanState.DRAFT]
    counts: Counter[str] = Counter()
    for plan in plans:
        if plan.state in AT_WORK:
            counts.update(plan.counts)
    return {"plans": dict(Counter(str(plan.state) for plan in plans)), "plan_items": dict(+counts)}


def plan_reruns(tables: Tables, known: PlanView | None) -> tuple[OutboxRow, ...]:
    """The re-runs that a plan has ordered and that are not over."""
    found = (tables.outbox.get(task) for task in (known.tasks if known else ()))
    return tuple(records.claimed_row(row, token="") for row in found if row and row["state"] in records.UNFINISHED)


def plan_view(tables: Tables, plan: str) -> PlanView | None:
    """A plan at work, and what its next step is judged by."""
    known = next((each for each in tables.plans.values() if each.hash == plan), None)
    if known is None:
        return None
    rows = _items(tables, plan)
    ordered = tuple(
        OrderedItem(
            id=row["id"],
            state=row["state"],
            attempt=row["attempt"],
            step=row["step"],
            lineage=lineage_in(tables.lineages[row["root"]]) if row["root"] in tables.lineages else None,
        )
        for row in rows
        if row["step"] and (row["step"] == known.step or row["state"] is ItemState.ORDERED)
    )
    waiting = [row for row in rows if row["state"] is ItemState.WAITING][: room(known, ordered)]
    return PlanView(
        known,
        ordered,
        tuple(WaitingItem(row["id"], row["attempt"], stored_in(tables, row["request_id"])) for row in waiting),
    )
