"""The process dies at every point there is, and is started again: nothing is lost, nothing runs twice, all laws hold.

``pytest -s`` prints how many points there were.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import make
import pytest
from world import LEASE, SHELVES, Person, World, message

from triage.alerts.acks import acknowledged, closed
from triage.effects import alert_group
from triage.errors import OutcomeUnknown, Temporary
from triage.orders import Limits, Order, Ordered, Refusal
from triage.reruns.breaker import Tripping
from triage.reruns.budget import Allowance
from triage.reruns.gate import Safeguards
from triage.reruns.lineage import Origin
from triage.reruns.switches import Scope, Switch
from triage.rules.course import Course, Escalation
from triage.rules.model import AlertPolicy, HoldPolicy, RerunPolicy
from triage.testing import Crashes, FakeFunctions, FakeSource, ManualClock

GROUPED = timedelta(seconds=5)
RERUN = RerunPolicy(max_attempts=2, give_up_after=timedelta(hours=6), after=timedelta(seconds=10), jitter=0.0)
COURSE = Course(quiet_for=timedelta(seconds=80), escalate=(Escalation(timedelta(seconds=20), ("boss",)),))
LASTING = Course(quiet_for=None, escalate=(Escalation(timedelta(seconds=40), ("boss",)),))
ACKED = AlertPolicy(group_by=("rule",), group_wait=GROUPED, course=LASTING)
RULES = make.rules(
    make.rule("again", rerun=RERUN, alert=AlertPolicy(on=make.QUIET, group_wait=GROUPED), fn="again"),
    make.rule("ask", fn="held", more={"hold": HoldPolicy("was it paid?", timedelta(minutes=1))}),
    make.rule("incident", alert=AlertPolicy(group_wait=GROUPED, group_interval=GROUPED, course=COURSE), fn="incident"),
    make.rule("acked", alert=ACKED, fn="acked"),
    make.rule("tell", alert=AlertPolicy(group_wait=GROUPED)),
)


async def approve(store, clock):
    """Says yes as soon as there is something to approve; a person who is interrupted does it again."""
    order = Order(Origin.APPROVAL, "ann", "it was paid", clock.now())
    (answer,) = await store.order(["1-held"], order, limits=Limits(), now=clock.now())
    return isinstance(answer, Ordered) or answer.why is Refusal.UNDER_WAY


async def take_and_close(store, clock):
    """Acknowledges an incident as soon as it was told, and a minute later says that it is over."""
    early = clock.now() < make.NOW + timedelta(minutes=1)
    say = partial(acknowledged if early else closed, by="ann", reason="I look at it", now=clock.now())
    key = f"flush:{alert_group({'rule': 'acked'}, ACKED).key}"
    return not await store.settle_now(key, say, now=clock.now()) and not early


async def stop_and_go(store, clock):
    """Switches re-runs off, and half a minute later on again."""
    if clock.now() < make.NOW + timedelta(seconds=30):
        await store.switch_off(Switch(Scope.ALL, "", "ann", "a deploy", clock.now()))
        return False
    await store.switch_on(Scope.ALL, "", by="ann", reason="it is over", now=clock.now())
    return not await store.switches()


@dataclass(frozen=True)
class Scenario:
    """What comes in, how the far side behaves, and what must come of it.

    ``told`` counts notifications. ``at_most``: the functions cannot refuse a repeat, so an attempt may also be held.
    ``later`` comes half-way to the first re-run, and calls it back unless it is too late for that.
    """

    bodies: Sequence[bytes]
    states: Mapping[str, int]
    executions: int
    told: int = 0
    outcomes: Sequence[bool] = (True,)
    tracked: bool = True
    refused: Sequence[Temporary] = ()
    lost: Sequence[Temporary] = ()
    person: Person | None = None
    life: timedelta = timedelta(seconds=100)
    at_most: bool = False
    delay: timedelta = timedelta(seconds=10)
    guards: Safeguards = Safeguards()
    storm: int = 0
    later: Sequence[bytes] = ()


AGAIN = (message("again", "1-again"),)
TWO = (*AGAIN, message("again", "2-again"))
HELD = (message("held", "1-held"),)
NO_ANSWER = OutcomeUnknown("no_answer", "connection lost")
POOR = replace(Safeguards(), budget=Allowance(share=0, floor=1, cap=0))
WARY = replace(Safeguards(), breaker=Tripping(failures=1, share=1, pause=GROUPED, longest=GROUPED))

SCENARIOS = {
    "the first re-run fails, the second one heals": Scenario(AGAIN, {"healed": 2}, 2, outcomes=(False, True)),
    "healed quietly": Scenario(AGAIN, {"healed": 1}, 1),
    "the final failure is told": Scenario(AGAIN, {"alerted": 3}, 2, 1, outcomes=(False,)),
    "throttled at first": Scenario(AGAIN, {"healed": 1}, 1, refused=(Temporary("throttled"),) * 2),
    "the answer to the submit is lost": Scenario(AGAIN, {"healed": 1}, 1, lost=(NO_ANSWER,)),
    "the submit is lost": Scenario(AGAIN, {"healed": 1}, 1, refused=(NO_ANSWER,)),
    "the result overtakes the answer": Scenario(
        AGAIN, {"healed": 1}, 1, lost=(NO_ANSWER,), delay=timedelta(seconds=1)
    ),
    "the answer of one who cannot refuse a repeat is lost": Scenario(
        AGAIN, {"alerted": 1}, 1, 1, lost=(NO_ANSWER,), tracked=False, at_most=True, delay=timedelta(hours=9)
    ),
    "held, and nobody decides": Scenario(HELD, {"alerted": 1}, 0, 1),
    "held, and approved": Scenario(HELD, {"healed": 1}, 1, person=approve),
    "the budget is for one, then for the other": Scenario(
        TWO, {"healed": 2}, 2, guards=POOR, life=timedelta(minutes=4)
    ),
    "the breaker opens, and a probe closes it": Scenario(
        TWO, {"healed": 3}, 3, outcomes=(True, False, True), guards=WARY
    ),
    "run again elsewhere with success": Scenario(
        (*AGAIN, *(message("again", f"{n}-first", payload=f"another event, {n}", condition="") for n in range(5))),
        {"healed": 1}, 1, later=(message("again", "1-console", condition=""),),
    ),
    "switched off, and on again": Scenario(AGAIN, {"healed": 1}, 1, person=stop_and_go),
    "told, told to the next receiver, resolved": Scenario((message("incident", "1-incident"),), {"alerted": 1}, 0, 4),
    "acknowledged, closed by a person": Scenario(
        (message("acked", "1-acked"),), {"alerted": 1}, 0, 2, person=take_and_close, life=timedelta(minutes=2)
    ),
    "a storm begins and ends": Scenario(
        tuple(message(f"storm-{number}", f"1-storm-{number}") for number in range(3)),
        {"alerted": 3},
        0,
        2,
        storm=2,
        life=timedelta(minutes=8),
    ),
    "told, with garbage and a repetition": Scenario(
        (message("broken", "1-a"), message("broken", "1-b"), b"garbage", message("broken", "1-a")), {"alerted": 2}, 0, 2
    ),
}  # fmt: skip


def make_world(scenario: Scenario, folder: Path, shelf: str) -> World:
    clock = ManualClock(make.NOW)
    source = FakeSource(clock=clock, lease=LEASE)
    functions = FakeFunctions(
        clock,
        source,
        outcomes=scenario.outcomes,
        tracked=scenario.tracked,
        failures=list(scenario.refused),
        lost=list(scenario.lost),
        delay=scenario.delay,
    )
    source.put(*scenario.bodies)
    source.put(*scenario.later, delay=timedelta(seconds=5))
    functions.ran("1-console", "Succeeded")
    return World(
        SHELVES[shelf](folder),
        RULES,
        clock=clock,
        invoker=functions,
        source=source,
        guards=scenario.guards,
        storm=scenario.storm,
    )


async def one_life(world: World, scenario: Scenario, at: int) -> Crashes:
    """A process that dies at a point, what the store says then, and another process that goes on."""
    crashes = Crashes(at)
    await world.live(crashes, until=scenario.life, person=scenario.person)
    where = crashes.points[-1]
    assert world.broken_laws() == {}, f"dead {where}"
    assert_executed(world, scenario, where)
    if crashes.died:
        await world.live(Crashes(), until=LEASE + scenario.life, person=scenario.person)
    return crashes


def assert_executed(world: World, scenario: Scenario, where: str) -> None:
    """No attempt ran twice; none that counts as submitted did not run, and what did not run is still to come."""
    executions = world.invoker.executions
    assert max(executions.values(), default=0) <= 1, where
    for row in world.ask("SELECT key, state, note FROM outbox WHERE kind = 'rerun'"):
        if row["state"] == "done" and not scenario.at_most:
            assert executions[row["key"]] == 1, (where, row["note"])
        if executions[row["key"]] == 0:
            called_back = scenario.later and row["state"] == "cancelled"
            assert row["state"] in ("pending", "unknown") or scenario.at_most or called_back, where


async def assert_ended(world: World, scenario: Scenario, crashes: Crashes) -> None:
    where = crashes.points[-1]
    totals = await world.totals()
    assert world.broken_laws() == {}, where
    assert_executed(world, scenario, where)
    executed = world.invoker.executions.total()
    assert len(world.source.waiting) == (executed if scenario.at_most else 0), where
    states = {state: count for state, count in totals.states.items() if count}
    if scenario.at_most and executed < scenario.executions:
        assert states == {"alerted": 1}, where
    else:
        assert executed == scenario.executions or (scenario.later and executed == 0), where
        assert states == scenario.states, where
    assert totals.quarantined == scenario.bodies.count(b"garbage"), where
    assert set(totals.outbox) <= {"flush"}, where
    told = Counter(world.bell.rung)
    assert len(told) == scenario.told, where
    # The one at-least-once edge: sent, and dead before that was written.
    repeated = told.total() - len(told)
    assert repeated <= any("Bell.send" in point for point in crashes.points[-8:]), where


async def sweep(scenario: Scenario, folder: Path, shelf: str) -> list[str]:
    """Die at every point, one after the other, until a life ends without having reached its own. The points."""
    at = 0
    while True:
        at += 1
        (home := folder / str(at)).mkdir()
        world = make_world(scenario, home, shelf)
        crashes = await one_life(world, scenario, at)
        await assert_ended(world, scenario, crashes)
        if not crashes.died:
            return crashes.points


@pytest.mark.timeout(300)
@pytest.mark.parametrize("shelf", SHELVES)
@pytest.mark.parametrize("name", SCENARIOS)
def test_after_a_crash_at_any_point_nothing_is_lost_and_nothing_runs_twice(name, shelf, tmp_path):
    points = asyncio.run(sweep(SCENARIOS[name], tmp_path, shelf))
    print(f"\n{name} ({shelf}): {len(points)} points, {len(set(points))} kinds")
    page = (Path(__file__).parents[2] / "docs/explanation/crashes.md").read_text()
    counted = re.search(rf"^\| {name} \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    assert counted, "docs/explanation/crashes.md does not tell this scenario"
    assert len(points) >= int(counted[1])  # with threads a loop may look once more
