"""A failure that waits for a person: both loops and the command line around it."""

import asyncio
from datetime import timedelta

import make

from triage.alerts.delivery import Answer, Result
from triage.consumer import Consumer, Intake
from triage.orders import Limits, Order, Ordered
from triage.outbox import Outbox
from triage.reruns.lineage import Origin
from triage.rules.model import AlertPolicy, HoldPolicy
from triage.stores import FailureFilter
from triage.testing import FakeFunctions, FakeSource, ManualClock, MemoryStore

HOLD = HoldPolicy("was it paid?", timedelta(minutes=10))
QUICK = AlertPolicy(group_wait=timedelta(seconds=5))


def rules(*, alert=None):
    return make.rules(make.rule("ask", alert=alert, more={"hold": HOLD}))


class Bell:
    """A notifier that remembers what it delivered."""

    def __init__(self):
        self.rung = []

    async def send(self, note, *, skip=frozenset()):
        self.rung.append(note.body)
        return {"0": Answer(Result.SENT)}


class World:
    """Both loops around one failure; time only passes when it is told to."""

    def __init__(self, *, alert=None, outcomes=(True,)):
        self.clock, self.store, self.bell = ManualClock(make.NOW), MemoryStore(), Bell()
        source = FakeSource(clock=self.clock)
        source.put(make.body("r1"))
        self.functions = FakeFunctions(self.clock, source, outcomes=outcomes)
        self.outbox = Outbox(store=self.store, invoker=self.functions, notifier=self.bell, clock=self.clock)
        self.consumer = Consumer(
            [Intake(source, receivers=1)],
            store=self.store,
            rules=lambda: rules(alert=alert),
            clock=self.clock,
            committed=self.outbox.poke,
        )

    def run(self, scenario):
        async def main():
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.consumer.run(stop))
                tasks.create_task(self.outbox.run(stop))
                await scenario()
                stop.set()
                await self.clock.advance(timedelta(seconds=1))

        asyncio.run(main())

    async def wait(self, *, minutes):
        for _ in range(minutes * 6):
            await self.clock.advance(timedelta(seconds=10))

    async def states(self):
        return [row.state for row in await self.store.failures(FailureFilter())]

    async def release(self):
        now = self.clock.now()
        (answer,) = await self.store.order(["r1"], Order(Origin.APPROVAL, "kim", "no", now), limits=Limits(), now=now)
        return isinstance(answer, Ordered)


def test_nobody_decides_and_a_person_is_told_when_the_time_is_up():
    world = World()

    async def scenario():
        await world.wait(minutes=9)
        assert (await world.states(), world.bell.rung) == (["held"], [])
        await world.wait(minutes=3)
        assert await world.states() == ["alerted"]

    world.run(scenario)
    (told,) = world.bell.rung
    assert "nobody decided in time: was it paid?" in told
    assert world.functions.executions == {}


def test_somebody_is_told_at_once_and_decides():
    world = World(alert=QUICK)

    async def scenario():
        await world.wait(minutes=1)
        assert len(world.bell.rung) == 1
        assert await world.states() == ["held"]
        assert await world.release()
        await world.wait(minutes=20)
        assert await world.states() == ["healed"]

    world.run(scenario)
    told, over = world.bell.rung
    assert "held until a person decides" in told
    assert "Resolved: all that failed has healed" in over
    assert sum(world.functions.executions.values()) == 1


def test_a_re_run_that_a_person_asked_for_is_asked_about_again_when_it_fails():
    world = World(outcomes=(False,))

    async def scenario():
        await world.wait(minutes=1)
        assert await world.release()
        await world.wait(minutes=2)
        assert await world.states() == ["held", "held"]
        (_, again) = (await world.store.failure("r1")).lineage["members"]
        saw = (await world.store.failure(again["request_id"])).decision["facts"]["lineage"]
        assert (saw["attempt"], saw["manual"]) == (1, 1)
        await world.wait(minutes=12)
        assert await world.states() == ["alerted", "alerted"]

    world.run(scenario)
