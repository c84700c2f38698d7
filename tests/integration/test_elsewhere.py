"""Both loops, and somebody who runs failed tasks again in the console."""

import asyncio
from datetime import timedelta

import make
import pytest
from world import LEASE, SHELVES, World, message

from triage.rules.model import AlertPolicy, HoldPolicy, RerunPolicy
from triage.testing import Crashes, FakeFunctions, FakeSource, ManualClock

GROUPED = timedelta(seconds=5)
RERUN = RerunPolicy(max_attempts=2, give_up_after=timedelta(hours=6), after=timedelta(minutes=2), jitter=0.0)
RULES = make.rules(
    make.rule("again", rerun=RERUN, alert=AlertPolicy(on=make.QUIET, group_wait=GROUPED), fn="again"),
    make.rule("ask", more={"hold": HoldPolicy("was it paid?", timedelta(minutes=2))}, fn="held"),
    make.rule("tell", alert=AlertPolicy(group_wait=GROUPED, group_interval=GROUPED)),
)
SOON = timedelta(minutes=1)


@pytest.fixture(params=SHELVES)
def world(request, tmp_path):
    clock = ManualClock(make.NOW)
    source = FakeSource(clock=clock, lease=LEASE)
    functions = FakeFunctions(clock, source)
    functions.ran("2-console", "Succeeded")
    return World(SHELVES[request.param](tmp_path), RULES, clock=clock, invoker=functions, source=source)


def failed(function, request_id="1-root", **fields):
    """A failure, and before it other runs by which the function's events are known to differ."""
    others = (message(function, f"0-{n}", payload=f"another event, {n}", condition="") for n in range(5))
    return [*others, message(function, request_id, **fields)]


def live(world, *bodies, until=timedelta(seconds=90), delay=SOON):
    async def scenario():
        world.source.put(*bodies, delay=delay)
        await world.live(Crashes(), until=until)
        return {state: count for state, count in (await world.totals()).states.items() if count}

    states = asyncio.run(scenario())
    assert world.broken_laws() == {}
    return states


@pytest.mark.parametrize("function", ["again", "held", "told"])
def test_a_success_ends_the_failure_whatever_it_waits_for(world, function):
    world.source.put(*failed(function))
    assert live(world, message(function, "2-console", condition="")) == {"healed": 1}
    (link,) = world.ask("SELECT * FROM lineage_links WHERE origin = 'elsewhere'")
    assert (link["key"], link["root"]) == ("2-console", "1-root")
    assert live(world, until=timedelta(minutes=3)) == {"healed": 1}
    assert not world.invoker.executions
    assert len(world.bell.rung) == (1 if function == "told" else 0), "said before it was run again, or not at all"


def test_a_failure_uses_up_an_attempt_and_the_one_alert_tells_of_it(world):
    world.source.put(*failed("again"))
    assert live(world, message("again", "2-console")) == {"alerted": 2}
    (text,) = world.bell.texts
    assert "1-root first run: failed at" in text
    assert "re-run 1 (automatic): cancelled" in text
    assert "2-console re-run 2 (elsewhere): failed at" in text
    assert live(world, until=timedelta(minutes=3)) == {"alerted": 2}
    assert not world.invoker.executions, "our own re-run was called back"


def test_a_failure_leaves_the_attempts_that_are_left(world):
    world.source.put(*failed("told"))
    assert sum(live(world, message("told", "2-console"), message("told", "3-console")).values()) == 3
    rows = world.ask("SELECT key, attempt FROM lineage_links WHERE origin = 'elsewhere' ORDER BY attempt")
    assert [tuple(row) for row in rows] == [("2-console", 1), ("3-console", 2)]


def test_our_own_result_that_comes_late_changes_nothing(world):
    world.invoker.delay = timedelta(minutes=3)
    world.source.put(*failed("again"))
    bodies = [message("again", "2-console", condition="")]
    assert live(world, *bodies, until=timedelta(minutes=6), delay=timedelta(minutes=4)) == {"healed": 1}
    assert world.invoker.executions.total() == 1
    assert not world.source.waiting


def test_a_timer_with_one_event_is_never_taken_for_a_re_run(world):
    world.source.put(message("told", "1-tick"))
    ticks = [message("told", f"{n}-tick", condition="" if n % 2 else "InvocationError") for n in range(2, 8)]
    assert sum(live(world, *ticks).values()) == 4
    assert len(world.ask("SELECT * FROM lineages")) == 4
    assert world.ask("SELECT * FROM lineage_links WHERE origin = 'elsewhere'") == []


@pytest.mark.parametrize(
    ("tracked", "status", "state"),
    [
        (True, "Stopped", "alerting"),
        (True, "", "alerting"),
        (False, "", "healed"),
    ],
    ids=["it was stopped", "its task id is another", "what keeps no tasks cannot have stopped it"],
)
def test_what_may_have_been_stopped_heals_nothing(world, tracked, status, state):
    world.invoker.tracked = tracked
    if status:
        world.invoker.ran("3-console", status)
    world.source.put(*failed("told"))
    states = live(world, message("told", "3-console", condition=""), until=timedelta(minutes=3))
    assert states == {{"alerting": "alerted"}.get(state, state): 1}
    (row,) = world.ask("SELECT * FROM outbox WHERE key = 'resolve:3-console'")
    assert row["state"] == "done"
