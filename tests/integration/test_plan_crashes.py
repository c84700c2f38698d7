"""The process dies at every point there is while a plan is carried out, and is started again: each item has run once, and
the plan stands as if nothing had happened. So it is when the plan stops, or a person cancels it, while some of what it has
ordered waits for its turn: that is called back, and what was submitted gets its result.

``pytest -s`` prints how many points there were.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import make
import pytest
from world import LEASE, SHELVES, Person, World

from triage.changes import Commit
from triage.decide import decide_batch
from triage.effects import decided
from triage.plans import Say, applied, cancelled, planned
from triage.reruns.gate import Safeguards
from triage.reruns.plan import ItemState, Plan, PlanHash, PlanItem, PlanState
from triage.reruns.rate import Rate
from triage.rules.model import AlertPolicy
from triage.testing import Crashes, FakeFunctions, FakeSource, ManualClock

SAY = Say("anna", "mended")
RULES = make.rules(make.rule("tell", alert=AlertPolicy(group_wait=timedelta(seconds=5))))
NAMES = ("1-a", "1-b", "1-c", "1-d")
SIZES = (1, 2)
SLOW = Safeguards(function_rate=Rate(0.05, timedelta(0)))
"""One re-run in twenty seconds."""
LIFE = timedelta(seconds=50)


@dataclass(frozen=True)
class Course:
    """How the re-runs of a plan end, how large its steps are, what holds them up, and who meddles."""

    outcomes: tuple[bool, ...]
    sizes: tuple[int, ...] = SIZES
    guards: Safeguards = Safeguards()
    person: Person | None = None


async def cancel(store, clock) -> bool:
    """Somebody cancels the plan, once."""
    (plan,) = await store.plans(limit=9)
    if plan.state is PlanState.RUNNING:
        now = clock.now()
        await store.move_plan(plan.hash, lambda known: cancelled(known, SAY, now=now), now=now)
    return True


MENDED, BROKEN = Course((True,)), Course((True, False))
STOPPED = Course((False,), (3,), SLOW)
CANCELLED = Course((True,), (3,), SLOW, cancel)


async def apply(world: World, sizes: tuple[int, ...]) -> None:
    """Failures that somebody was told of, and the plan to run them again, applied."""
    now = world.clock.now()
    async with world.shelf.opened() as store:
        await store.save_rule_set(RULES.digest, (), now=now)
        arrivals = [make.arrived(make.envelope(name), at=now) for name in NAMES]
        decisions = decide_batch(arrivals, await store.load_facts(arrivals), RULES, now=now)
        pairs = zip(arrivals, decisions, strict=True)
        whole = tuple(decided(a, d) for a, d in pairs)
        await store.commit(Commit(now=now, rule_set=RULES.digest, decided=whole))
        digest = PlanHash(created_at=now, qualifier="")
        for name in NAMES:
            digest.add(name, root=name, attempt=0)
        draft = Plan(digest.hexdigest(), PlanState.DRAFT, now, SAY.by, SAY.reason, {})
        number = await store.new_plan(draft)
        await store.add_plan_items(number, [PlanItem(name, name, 0) for name in NAMES])
        await store.freeze_plan(number, planned(draft, SAY, now=now), now=now)
        await store.move_plan(
            draft.hash,
            lambda plan: applied(plan, SAY, threshold=80, sizes=sizes, to=("default",), now=now),
            now=now,
        )


def make_world(course: Course, folder: Path, shelf: str) -> World:
    clock = ManualClock(make.NOW)
    source = FakeSource(clock=clock, lease=LEASE)
    functions = FakeFunctions(clock, source, outcomes=course.outcomes, delay=timedelta(seconds=3))
    return World(SHELVES[shelf](folder), RULES, clock=clock, invoker=functions, source=source, guards=course.guards)


async def one_life(course: Course, folder: Path, shelf: str, at: int) -> tuple[World, Crashes]:
    """A process that dies at a point, what the store says then, and another process that goes on."""
    world, crashes = make_world(course, folder, shelf), Crashes(at)
    await apply(world, course.sizes)
    await world.live(crashes, until=LIFE, person=course.person)
    assert world.broken_laws() == {}, f"dead {crashes.points[-1]}"
    await assert_bounded(world, course.sizes, crashes.points[-1])
    if crashes.died:
        await world.live(Crashes(), until=LEASE + LIFE, person=course.person)
    return world, crashes


async def assert_bounded(world: World, sizes: tuple[int, ...], where: str) -> None:
    """What ran is what the plan has ordered, each once, and no step ordered more than it may."""
    (plan,), items = await look(world)
    ordered = [item.step for item in items if item.step]
    assert all(ordered.count(step) <= sizes[min(step, len(sizes)) - 1] for step in ordered), where
    assert len(world.invoker.executions) <= len(ordered), where
    assert max(world.invoker.executions.values(), default=1) == 1, where
    assert {state: count for state, count in plan.counts.items() if count} == {
        state: count for state in ItemState if (count := sum(item.state is state for item in items))
    }, where


async def look(world: World):
    async with world.shelf.opened() as store:
        plans = await store.plans(limit=9)
        return plans, await store.plan_items(plans[0].hash, limit=99)


async def assert_halted(world: World, state: PlanState, result: ItemState, where: str) -> int:
    """What was submitted has its result, the rest waits and is told to a person; how many re-runs were called back."""
    await assert_bounded(world, STOPPED.sizes, where)
    (plan,), items = await look(world)
    assert world.broken_laws() == {}, where
    assert plan.state is state, where
    ran = world.invoker.executions.total()
    assert Counter(item.state for item in items) == Counter({result: ran, ItemState.WAITING: len(NAMES) - ran}), where
    totals = await world.totals()
    assert not {"plan_step", "rerun", "expect"} & set(totals.outbox), where
    assert totals.states.get("rerun_pending", 0) == 0, where
    cancelled_rows = world.ask("SELECT root FROM outbox WHERE kind = 'rerun' AND state = 'cancelled'")
    told = [
        row["root"] for row in world.ask(f"SELECT root FROM alerts WHERE detail LIKE 'called back: plan % is {state}'")
    ]
    # A result that overtakes the answer to its submit cancels the row, too: that one has run.
    assert set(told) <= {row["root"] for row in cancelled_rows}, where
    assert set(told) <= {item.root for item in items if item.state is ItemState.WAITING}, where
    return len(told)


async def assert_ended(world: World, outcomes: tuple[bool, ...], where: str) -> None:
    await assert_bounded(world, SIZES, where)
    (plan,), items = await look(world)
    assert world.broken_laws() == {}, where
    totals = await world.totals()
    assert "plan_step" not in totals.outbox, where
    stops = {title for title in world.bell.rung if "plan of re-runs stopped" in title}
    if all(outcomes):
        assert plan.state is PlanState.DONE, where
        assert [item.step for item in items] == [1, 2, 2, 3], where
        assert {state: count for state, count in totals.states.items() if count} == {"healed": len(NAMES)}, where
        assert world.invoker.executions.total() == len(NAMES), where
        assert not stops, where
    else:
        assert plan.state is PlanState.STOPPED, where
        assert plan.counts[ItemState.FAILED] == 2, where
        assert plan.counts[ItemState.WAITING] == 1, where
        assert world.invoker.executions.total() == 3, where
        assert len(stops) == 1, where


@pytest.mark.timeout(300)
@pytest.mark.parametrize("shelf", SHELVES)
@pytest.mark.parametrize("course", [MENDED, BROKEN], ids=["mended", "broken"])
def test_after_a_crash_at_any_point_each_item_has_run_once(course, shelf, tmp_path):
    async def sweep():
        at = 0
        while True:
            at += 1
            (home := tmp_path / str(at)).mkdir()
            world, crashes = await one_life(course, home, shelf, at)
            await assert_ended(world, course.outcomes, f"{at}: {crashes.points[-1]}")
            if not crashes.died:
                return crashes.points

    points = asyncio.run(sweep())
    print(f"\na plan ({shelf}): {len(points)} points, {len(set(points))} kinds")
    assert any("settle" in point for point in points)
    assert sum("invoke_async" in point for point in points) >= 6


@pytest.mark.timeout(300)
@pytest.mark.parametrize("shelf", SHELVES)
@pytest.mark.parametrize(
    ("course", "state", "result"),
    [(STOPPED, PlanState.STOPPED, ItemState.FAILED), (CANCELLED, PlanState.CANCELLED, ItemState.SUCCEEDED)],
    ids=["stopped", "cancelled"],
)
def test_after_a_crash_at_any_point_a_plan_that_is_over_submits_nothing_more(course, state, result, shelf, tmp_path):
    async def sweep():
        at = 0
        while True:
            at += 1
            (home := tmp_path / str(at)).mkdir()
            world, crashes = await one_life(course, home, shelf, at)
            back = await assert_halted(world, state, result, f"{at}: {crashes.points[-1]}")
            if not crashes.died:
                assert (world.invoker.executions.total(), back) == (1, 2)
                return crashes.points

    points = asyncio.run(sweep())
    print(f"\na plan that is {state} ({shelf}): {len(points)} points, {len(set(points))} kinds")
    assert any("settle" in point for point in points)
