"""The watchdog ends a process that hangs, whatever it is that hangs. Here it only says that it would."""

import asyncio
import logging
import re
import threading
import time
from datetime import timedelta

import pytest

from triage.alerts.delivery import Answer, Result
from triage.clock import SystemClock
from triage.progress import Progress
from triage.watchdog import EXIT_STALLED, Watchdog

LIMIT = timedelta(milliseconds=200)


class Receivers:
    """Keeps what it was told; ``pager`` never answers."""

    def __init__(self):
        self.told = []

    async def send(self, note, *, skip=frozenset()):
        self.told.append(note)
        if note.receiver == "pager":
            await asyncio.Event().wait()
        return {"0": Answer(Result.SENT)}


class Watched:
    """A process with some stages, and how it was ended."""

    def __init__(self, *names, to=(), **options):
        self.stages = {name: Progress(LIMIT) for name in names}
        self.receivers, self.codes, self.over = Receivers(), [], threading.Event()
        self.clock = SystemClock()
        self.dog = Watchdog(self.stages, notifier=self.receivers, to=to, clock=self.clock, end=self._ended, **options)

    def _ended(self, code):
        self.codes.append(code)
        self.over.set()

    def busy(self, name):
        self.stages[name].busy(self.clock.steady())


async def ended(watched, within=10):
    return await asyncio.to_thread(watched.over.wait, within)


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]


def test_a_stage_that_stands_still_ends_the_process_and_the_log_tells_where_everything_stood(caplog):
    async def scenario():
        async def half_open():
            await asyncio.Event().wait()

        async def receive():
            await half_open()

        watched = Watched("receive queue", "ack", to=["oncall"])
        hanging = asyncio.create_task(receive(), name="receive queue")
        await asyncio.sleep(0)
        watched.dog.start()
        watched.busy("receive queue")
        assert await ended(watched)
        hanging.cancel()
        watched.dog.stop()
        return watched

    watched = asyncio.run(scenario())
    assert watched.codes == [EXIT_STALLED] == [70]
    (note,) = watched.receivers.told
    assert (note.receiver, note.severity) == ("oncall", "critical")
    assert note.body.startswith("receive queue has not got on for ")
    first, *stacks = lines(caplog)
    assert first.startswith("stalled: receive queue has not got on for ")
    assert first.endswith("; this process ends with code 70, to be started anew")
    (stack,) = [line for line in stacks if line.startswith("task receive queue: ")]
    assert re.search(r"Event\.wait < \S+:\d+ \S+half_open < \S+:\d+ \S+receive$", stack)
    assert any(line.startswith("thread MainThread: ") for line in stacks)


def test_an_event_loop_that_is_blocked_is_seen_from_outside(caplog):
    async def scenario():
        watched = Watched("event loop")
        watched.dog.start()
        watched.busy("event loop")
        began = time.monotonic()
        while not watched.over.is_set() and time.monotonic() - began < 10:
            time.sleep(0.01)  # noqa: ASYNC251 - nothing else of this loop runs meanwhile
        watched.dog.stop()
        return watched.codes

    assert asyncio.run(scenario()) == [EXIT_STALLED]
    assert any("thread MainThread: " in line and "scenario" in line for line in lines(caplog))


def test_the_event_loop_is_told_with_what_waits_on_it(caplog):
    async def scenario():
        watched = Watched("rules watch", "event loop", "act")
        watched.busy("rules watch")
        watched.stages["event loop"].busy(SystemClock().steady() + LIMIT / 4)
        watched.dog.start()
        assert await ended(watched)
        watched.dog.stop()

    asyncio.run(scenario())
    first, *_ = lines(caplog)
    assert re.match(r"stalled: rules watch has not got on for \S+ s; event loop has not got on for \S+ s; this", first)


def test_what_gets_on_is_left_alone(caplog):
    async def scenario():
        watched = Watched("act", "outbox")
        watched.dog.start()
        for _ in range(30):
            watched.stages["outbox"].rest()
            watched.busy("outbox")
            await asyncio.sleep(LIMIT.total_seconds() / 10)
        watched.dog.stop()
        return watched.codes

    assert asyncio.run(scenario()) == []
    assert lines(caplog) == []


def test_a_process_that_was_stopped_and_goes_on_gets_a_chance_to_catch_up():
    class Late(SystemClock):
        looks = 0

        def steady(self):
            self.looks += 1
            return super().steady() + (timedelta(hours=1) if self.looks == 2 else timedelta(0))

    async def scenario():
        watched = Watched("act")
        watched.dog._clock = clock = Late()
        watched.busy("act")
        watched.dog.start()
        while clock.looks < 4:
            watched.stages["act"].rest()
            watched.busy("act")
            await asyncio.sleep(0.005)
        watched.dog.stop()
        return watched.codes

    assert asyncio.run(scenario()) == []


@pytest.mark.parametrize("hangs", ["a receiver", "the log"])
def test_nothing_keeps_it_from_the_end(hangs):
    class Stuck(logging.Handler):
        free = threading.Event()

        def emit(self, record):
            self.free.wait(20)

    async def scenario():
        watched = Watched("act", to=["pager" if hangs == "a receiver" else "oncall"], farewell=timedelta(seconds=0.3))
        watched.dog.start()
        watched.busy("act")
        assert await ended(watched)
        watched.dog.stop()
        return watched

    stuck = Stuck()
    logger = logging.getLogger("triage.watchdog")
    if hangs == "the log":
        logger.addHandler(stuck)
    try:
        watched = asyncio.run(scenario())
    finally:
        stuck.free.set()
        logger.removeHandler(stuck)
    assert watched.codes == [EXIT_STALLED]
    assert len(watched.receivers.told) == 1
