"""The process dies at every step there is, and is started again: nothing is lost, nothing runs twice.

"Dying" is a call into the outside world that never returns: before it did anything, or after it did everything. Then
all tasks are cancelled, and a new consumer and a new outbox start on the same store, queue and functions.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

import make
import pytest

from triage.consumer import Consumer, Intake
from triage.notify import Result
from triage.outbox import Outbox
from triage.rules.model import AlertPolicy, HoldPolicy
from triage.stores import FailureFilter
from triage.testing import FakeFunctions, FakeSource, ManualClock, MemoryStore

LEASE = timedelta(minutes=2)
LIFE = timedelta(minutes=8)
"""Longer than both re-runs with their delays and the alert's grouping take."""

RULES = make.rules(
    make.rule("again", rerun=make.RERUN, alert=make.ALERT, fn="my-fc-job"),
    make.rule("ask", fn="held", more={"hold": HoldPolicy("why", timedelta(minutes=1))}),
    make.rule("tell", alert=AlertPolicy(group_wait=timedelta(seconds=5))),
)


@dataclass
class Reaper:
    """Lets the ``at``-th step be the last one, of all tasks."""

    at: int
    steps: list[str] = field(default_factory=list)
    died: asyncio.Event = field(default_factory=asyncio.Event)

    async def step(self, name: str) -> None:
        if not self.died.is_set():
            self.steps.append(name)
            if len(self.steps) == self.at:
                self.died.set()
        if self.died.is_set():
            await asyncio.Event().wait()


class Mortal:
    """Passes every asynchronous call through, with a step before and after."""

    def __init__(self, inner: object, reaper: Reaper) -> None:
        self._inner, self._reaper = inner, reaper

    def __getattr__(self, name: str) -> object:
        value = getattr(self._inner, name)
        if not asyncio.iscoroutinefunction(value) or name == "next_due":
            return value

        async def call(*args: object, **kwargs: object) -> object:
            label = f"{type(self._inner).__name__}.{name}"
            await self._reaper.step(f"before {label}")
            result = await value(*args, **kwargs)
            await self._reaper.step(f"after {label}")
            return result

        return call


@dataclass
class Bell:
    """A notifier that remembers what it delivered."""

    rung: list[str] = field(default_factory=list)

    async def send(self, note, *, skip=frozenset()):
        self.rung.append(note.title)
        return {0: Result.SENT}


class World:
    """Everything that outlives the process."""

    def __init__(self, outcomes: tuple[bool, ...], *, tracked: bool = True) -> None:
        self.clock = ManualClock(make.NOW)
        self.store = MemoryStore()
        self.source = FakeSource(clock=self.clock)
        self.functions = FakeFunctions(self.clock, self.source, outcomes=outcomes, tracked=tracked)
        self.bell = Bell()
        broken, held = (make.ARN.replace("my-fc-job", name) for name in ("broken", "held"))
        self.source.put(make.body("bad-1", arn=broken), b"garbage", make.body("held-1", arn=held), make.body("r1"))

    async def live(self, reaper: Reaper, *, until: timedelta) -> None:
        """Run one process until it dies or ``until`` has passed."""
        store = Mortal(self.store, reaper)
        outbox = Outbox(
            store=store,
            invoker=Mortal(self.functions, reaper),
            notifier=Mortal(self.bell, reaper),
            clock=self.clock,
            lease=LEASE,
        )
        consumer = Consumer(
            [Intake(Mortal(self.source, reaper), receivers=1)],
            store=store,
            rules=lambda: RULES,
            clock=self.clock,
            committed=outbox.poke,
        )
        stop = asyncio.Event()
        tasks = [asyncio.create_task(consumer.run(stop)), asyncio.create_task(outbox.run(stop))]
        end = self.clock.now() + until
        while self.clock.now() < end and not reaper.died.is_set() and not any(task.done() for task in tasks):
            await self.clock.advance(timedelta(seconds=10))
        if not reaper.died.is_set():
            stop.set()
            await self.clock.advance(timedelta(seconds=1))
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert result is None or isinstance(result, asyncio.CancelledError), result


async def _steps_of(outcomes: tuple[bool, ...]) -> list[str]:
    reaper = Reaper(at=-1)
    await World(outcomes).live(reaper, until=LIFE)
    return reaper.steps


HEALS, FAILS = (False, True), (False, False)
STEPS = {outcomes: len(asyncio.run(_steps_of(outcomes))) for outcomes in (HEALS, FAILS)}


async def _die_and_recover(outcomes: tuple[bool, ...], at: int, *, tracked: bool = True) -> tuple[World, Reaper]:
    world, reaper = World(outcomes, tracked=tracked), Reaper(at)
    await world.live(reaper, until=LIFE)
    await world.live(Reaper(at=-1), until=2 * LIFE)
    return world, reaper


def _first_of_each_kind(outcomes: tuple[bool, ...]) -> list[int]:
    """Every step until nothing new happens: polls of the idle queue repeat, and one of each is enough."""
    seen: dict[str, int] = {}
    numbers = []
    for number, name in enumerate(asyncio.run(_steps_of(outcomes)), 1):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] <= 6:
            numbers.append(number)
    return numbers


CASES = [(outcomes, at) for outcomes in (HEALS, FAILS) for at in _first_of_each_kind(outcomes)]


@pytest.mark.parametrize(
    ("outcomes", "at"),
    CASES,
    ids=lambda value: "heals" if value == HEALS else "fails" if value == FAILS else str(value),
)
def test_after_a_crash_at_any_step_nothing_is_lost_and_nothing_runs_twice(outcomes, at):
    world, reaper = asyncio.run(_die_and_recover(outcomes, at))
    assert reaper.died.is_set(), "the step was not reached"
    totals = asyncio.run(world.store.totals())
    died = reaper.steps[-1]
    assert world.source.waiting == [], died
    assert max(world.functions.executions.values()) == 1, died
    assert len(world.functions.executions) == 2, died
    expected = {"alerted": 2, "healed": 2} if outcomes is HEALS else {"alerted": 5}
    assert {state: count for state, count in totals.states.items() if count} == expected, died
    assert totals.received == totals.decided + totals.duplicates + totals.conflicts + totals.quarantined, died
    assert totals.conflicts == 0
    rows = asyncio.run(world.store.failures(FailureFilter()))
    assert len(rows) == len({row.request_id for row in rows}), died
    told = len(world.bell.rung)
    assert len(set(world.bell.rung)) == (2 if outcomes is HEALS else 3), died
    assert totals.quarantined == 1, died
    # The one at-least-once edge: sent, and dead before that was written.
    sending = any("Bell.send" in step for step in reaper.steps[-6:])
    assert told - len(set(world.bell.rung)) <= int(sending), died


def test_a_submit_without_an_answer_to_an_untracked_function_is_held_for_a_person():
    """FC cannot refuse a repeat there, so the submit whose answer was lost is never repeated."""
    steps = asyncio.run(_steps_of(HEALS))
    at = steps.index("after FakeFunctions.invoke_async") + 1
    world, _ = asyncio.run(_die_and_recover(HEALS, at, tracked=False))
    assert max(world.functions.executions.values()) == 1
