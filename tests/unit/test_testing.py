"""The shipped doubles do what the real ones do: the clock by hand, and the queue that runs on it."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from triage.errors import Misconfigured, Temporary
from triage.testing import Crash, Crashes, FakeSource, ManualClock

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ZERO = timedelta(0)


def test_sleepers_wake_in_the_order_of_their_times_and_see_them():
    async def scenario():
        clock, seen = ManualClock(START), []

        async def sleeper(name, seconds):
            await clock.sleep(seconds * SECOND)
            seen.append((name, clock.now() - START))

        async with asyncio.TaskGroup() as tasks:
            for name, seconds in (("late", 3), ("early", 1), ("also early", 1), ("never", 99)):
                last = tasks.create_task(sleeper(name, seconds))
            await clock.advance(5 * SECOND)
            last.cancel()
        return seen, clock.now() - START

    seen, passed = asyncio.run(scenario())
    assert seen == [("early", SECOND), ("also early", SECOND), ("late", 3 * SECOND)]
    assert passed == 5 * SECOND


def test_a_loop_that_sleeps_again_and_again_is_woken_each_time():
    async def scenario():
        clock, ticks = ManualClock(START), []

        async def loop():
            while True:
                await clock.sleep(SECOND)
                ticks.append(clock.now())

        task = asyncio.ensure_future(loop())
        await clock.advance(10 * SECOND)
        task.cancel()
        return ticks

    assert asyncio.run(scenario()) == [START + number * SECOND for number in range(1, 11)]


def test_nobody_wakes_before_its_time():
    async def scenario():
        clock = ManualClock(START)
        task = asyncio.ensure_future(clock.sleep(2 * SECOND))
        await clock.advance(SECOND)
        assert not task.done()
        assert clock.timers == [START + 2 * SECOND]
        await clock.advance(SECOND)
        assert task.done()
        assert clock.timers == []

    asyncio.run(scenario())


@pytest.mark.parametrize("duration", [ZERO, -SECOND])
def test_a_sleep_of_nothing_returns_at_once(duration):
    async def scenario():
        clock = ManualClock(START)
        await clock.sleep(duration)
        return clock.now()

    assert asyncio.run(scenario()) == START


@pytest.mark.parametrize(
    ("set_after", "timeout", "found"),
    [
        (0, SECOND, True),
        (0, None, True),
        (1, 2 * SECOND, True),
        (1, None, True),
        (3, 2 * SECOND, False),
        (3, ZERO, False),
    ],
)
def test_waiting_ends_with_the_event_or_the_timeout(set_after, timeout, found):
    async def scenario():
        clock, event = ManualClock(START), asyncio.Event()
        if set_after == 0:
            event.set()
        waiting = asyncio.ensure_future(clock.wait(event, timeout))
        await clock.advance(set_after * SECOND)
        if not found:
            return waiting.result()
        event.set()
        return await waiting

    assert asyncio.run(scenario()) is found


def test_a_waiter_that_is_gone_leaves_no_timer():
    async def scenario():
        clock, event = ManualClock(START), asyncio.Event()
        waiting = asyncio.ensure_future(clock.wait(event, SECOND))
        await clock.asleep()
        event.set()
        await waiting
        return clock.timers

    assert asyncio.run(scenario()) == []


def test_a_test_can_wait_until_somebody_sleeps():
    async def scenario():
        clock = ManualClock(START)

        async def later():
            await asyncio.sleep(0)
            await clock.sleep(SECOND)

        tasks = [asyncio.ensure_future(later()) for _ in range(3)]
        await clock.asleep(3)
        assert len(clock.timers) == 3
        await clock.advance(SECOND)
        return [task.done() for task in tasks]

    assert asyncio.run(scenario()) == [True] * 3


def test_a_message_comes_again_when_its_lease_has_run_out():
    async def scenario():
        clock = ManualClock(START)
        source = FakeSource(clock=clock, lease=30 * SECOND)
        (message_id,) = source.put(b"a")
        (first,) = await source.receive(limit=16, wait=ZERO)
        assert (first.body, first.receive_count, first.lease_until) == (b"a", 1, START + 30 * SECOND)
        assert await source.receive(limit=16, wait=ZERO) == []
        await clock.advance(30 * SECOND)
        (second,) = await source.receive(limit=16, wait=ZERO)
        assert (second.message_id, second.receive_count) == (message_id, 2)
        assert await source.ack([first]) == [first], "the old handle is worth nothing"
        assert await source.ack([second]) == []
        assert (source.acked, source.waiting) == ([message_id], [])

    asyncio.run(scenario())


def test_an_extended_lease_holds_and_a_lost_one_cannot_be_extended():
    async def scenario():
        clock = ManualClock(START)
        source = FakeSource(clock=clock, lease=30 * SECOND)
        source.put(b"a")
        (delivery,) = await source.receive(limit=16, wait=ZERO)
        handle = delivery.receipt_handle
        await clock.advance(20 * SECOND)
        assert await source.extend(delivery, 30 * SECOND)
        assert delivery.receipt_handle != handle
        assert delivery.lease_until == START + 50 * SECOND
        await clock.advance(20 * SECOND)
        assert await source.receive(limit=16, wait=ZERO) == []
        await clock.advance(10 * SECOND)
        assert not await source.extend(delivery, 30 * SECOND)
        assert await source.ack([delivery]) == [delivery]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("after", "comes"),
    [("put", True), ("delayed", True), ("lease", True), ("nothing", False)],
)
def test_a_long_poll_ends_with_the_first_message_or_its_time(after, comes):
    async def scenario():
        clock = ManualClock(START)
        source = FakeSource(clock=clock, lease=5 * SECOND)
        if after == "delayed":
            source.put(b"a", delay=3 * SECOND)
        if after == "lease":
            source.put(b"a")
            assert len(await source.receive(limit=1, wait=ZERO)) == 1
        polling = asyncio.ensure_future(source.receive(limit=16, wait=10 * SECOND))
        await clock.asleep()
        if after == "put":
            source.put(b"a")
        await clock.advance(10 * SECOND)
        return polling.result()

    assert [delivery.body for delivery in asyncio.run(scenario())] == ([b"a"] if comes else [])


def test_a_limit_is_kept_and_order_with_it():
    async def scenario():
        source = FakeSource(clock=ManualClock(START))
        source.put(b"a", b"b", b"c")
        first = await source.receive(limit=2, wait=ZERO)
        second = await source.receive(limit=2, wait=ZERO)
        return [[delivery.body for delivery in batch] for batch in (first, second)]

    assert asyncio.run(scenario()) == [[b"a", b"b"], [b"c"]]


def test_planned_failures_are_raised_one_per_call():
    async def scenario():
        source = FakeSource(clock=ManualClock(START))
        source.put(b"a")
        source.failures += [Temporary("busy"), Misconfigured("no_queue")]
        for error in (Temporary, Misconfigured):
            with pytest.raises(error):
                await source.receive(limit=1, wait=ZERO)
        return await source.receive(limit=1, wait=ZERO)

    assert len(asyncio.run(scenario())) == 1


def test_a_process_dies_at_the_point_of_ones_choice_and_stays_dead():
    class Seam:
        quiet = True
        called = 0

        async def act(self):
            self.called += 1
            return self.called

    async def scenario(at):
        seam, crashes = Seam(), Crashes(at)
        wrapped = crashes.wrap(seam)
        assert wrapped.quiet
        got = []
        for _ in range(3):
            try:
                got.append(await wrapped.act())
            except Crash:
                got.append("dead")
        return got, seam.called, crashes.points

    before, after = "before Seam.act", "after Seam.act"
    assert asyncio.run(scenario(0)) == ([1, 2, 3], 3, [before, after] * 3)
    assert asyncio.run(scenario(3)) == ([1, "dead", "dead"], 1, [before, after, before])
    assert asyncio.run(scenario(4)) == ([1, "dead", "dead"], 2, [before, after, before, after])


def test_a_loop_that_finds_nothing_passes_its_points_once_until_something_happens():
    class Empty:
        rows = ()

        async def claim_due(self):
            return self.rows

    async def scenario():
        seam, crashes = Empty(), Crashes()
        wrapped = crashes.wrap(seam)
        await wrapped.claim_due()
        await wrapped.claim_due()
        seam.rows = ("row",)
        await wrapped.claim_due()
        await wrapped.claim_due()
        return crashes.points

    before, after = "before Empty.claim_due", "after Empty.claim_due"
    assert asyncio.run(scenario()) == [before, after, after, before, after]
