"""The process dies at every point there is while a plan is carried out, and is started again: each item has run once, and
the plan stands as if nothing had happened.

``pytest -s`` prints how many points there were.
"""

import asyncio
from datetime import timedelta
from pathlib import Path

import make
import pytest
from world import LEASE, SHELVES, World

from triage.changes import Commit
from triage.decide import decide_batch
from triage.effects import decided
from triage.plans import Say, applied, planned
from triage.reruns.plan import ItemState, Plan, PlanHash, PlanItem, PlanState
from triage.rules.model import AlertPolicy
from triage.testing import Crashes, FakeFunctions, FakeSource, ManualClock

SAY = Say("anna", "mended")
RULES = make.rules(make.rule("tell", alert=AlertPolicy(group_wait=timedelta(seconds=5))))
NAMES = ("1-a", "1-b", "1-c", "1-d")
SIZES = (1, 2)
LIFE = timedelta(seconds=50)


async def apply(world: World) -> None:
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
            lambda plan: applied(plan, SAY, threshold=80, sizes=SIZES, to=("default",), now=now),
            now=now,
        )


def make_world(outcomes: tuple[bool, ...], folder: Path, shelf: str) -> World:
    clock = ManualClock(make.NOW)
    source = FakeSource(clock=clock, lease=LEASE)
    functions = FakeFunctions(clock, source, outcomes=outcomes, delay=timedelta(seconds=3))
    return World(SHELVES[shelf](folder), RULES, clock=clock, invoker=functions, source=source)


async def one_life(outcomes: tuple[bool, ...], folder: Path, shelf: str, at: int) -> tuple[World, Crashes]:
    """A process that dies at a point, what the store says then, and another process that goes on."""
    world, crashes = make_world(outcomes, folder, shelf), Crashes(at)
    await apply(world)
    await world.live(crashes, until=LIFE)
    assert world.broken_laws() == {}, f"dead {crashes.points[-1]}"
    await assert_bounded(world, crashes.points[-1])
    if crashes.died:
        await world.live(Crashes(), until=LEASE + LIFE)
    return world, crashes


async def assert_bounded(world: World, where: str) -> None:
    """What ran is what the plan has ordered, each once, and no step ordered more than it may."""
    (plan,), items = await look(world)
    ordered = [item.step for item in items if item.step]
    assert all(ordered.count(step) <= SIZES[min(step, len(SIZES)) - 1] for step in ordered), where
    assert len(world.invoker.executions) <= len(ordered), where
    assert max(world.invoker.executions.values(), default=1) == 1, where
    assert {state: count for state, count in plan.counts.items() if count} == {
        state: count for state in ItemState if (count := sum(item.state is state for item in items))
    }, where


async def look(world: World):
    async with world.shelf.opened() as store:
        plans = await store.plans(limit=9)
        return plans, await store.plan_items(plans[0].hash, limit=99)


async def assert_ended(world: World, outcomes: tuple[bool, ...], where: str) -> None:
    await assert_bounded(world, where)
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
@pytest.mark.parametrize("outcomes", [(True,), (True, False)], ids=["mended", "broken"])
def test_after_a_crash_at_any_point_each_item_has_run_once(outcomes, shelf, tmp_path):
    async def sweep():
        at = 0
        while True:
            at += 1
            (home := tmp_path / str(at)).mkdir()
            world, crashes = await one_life(outcomes, home, shelf, at)
            await assert_ended(world, outcomes, f"{at}: {crashes.points[-1]}")
            if not crashes.died:
                return crashes.points

    points = asyncio.run(sweep())
    print(f"\na plan ({shelf}): {len(points)} points, {len(set(points))} kinds")
    assert any("settle" in point for point in points)
    assert sum("invoke_async" in point for point in points) >= 6
