"""People hear of a store that fails, though every other alert is a row of that store."""

import asyncio
from datetime import timedelta

from triage.alarm import StoreAlarm
from triage.alerts.delivery import Answer, Result
from triage.progress import Progress
from triage.testing import ManualClock

MINUTE = timedelta(minutes=1)


class Told:
    """A receiver that takes notifications, unless told not to."""

    def __init__(self):
        self.notes, self.results = [], []

    async def send(self, note, *, skip=frozenset()):
        result = self.results.pop(0) if self.results else Result.SENT
        if result is Result.SENT:
            self.notes.append(note)
        return {"0": Answer(result)}


class Daemon:
    def __init__(self):
        self.clock, self.receiver = ManualClock(), Told()
        self.stage = Progress()
        stages = {"receive": Progress(), "consumer": self.stage}
        self.alarm = StoreAlarm(
            self.receiver,
            to=("default",),
            stages=stages,
            clock=self.clock,
            redact=lambda s: s.replace("hunter2", "***"),
        )

    def fails(self):
        self.stage.tried(self.clock.steady(), error="the disk is full\x1b[2J hunter2")


def story(tell):
    async def told():
        daemon = Daemon()
        running = asyncio.create_task(daemon.alarm.run())
        await tell(daemon)
        running.cancel()
        return daemon.receiver.notes

    return asyncio.run(told())


def test_it_is_told_once_after_a_minute_and_again_when_it_works():
    async def tell(daemon):
        await daemon.clock.advance(2 * MINUTE)
        daemon.fails()
        await daemon.clock.advance(timedelta(seconds=59))
        assert daemon.receiver.notes == []
        await daemon.clock.advance(30 * MINUTE)
        daemon.stage.rest()
        await daemon.clock.advance(MINUTE)

    failing, works = story(tell)
    assert (failing.receiver, failing.severity, failing.title) == (
        "default", "critical", "[critical] triage takes nothing in: its store fails",
    )  # fmt: skip
    assert failing.body.startswith("Since 2026-01-01 00:02:05Z: the disk is full\\x1b[2J ***\nNothing is acknowledged")
    assert works.title == "[info] triage works again"
    assert works.body == "Its store failed from 2026-01-01 00:02:05Z to 2026-01-01 00:33:00Z."


def test_what_passes_within_a_minute_is_not_told():
    async def tell(daemon):
        for _ in range(5):
            daemon.fails()
            await daemon.clock.advance(timedelta(seconds=50))
            daemon.stage.rest()
            await daemon.clock.advance(timedelta(seconds=10))

    assert story(tell) == []


def test_it_is_repeated_every_four_hours():
    async def tell(daemon):
        daemon.fails()
        await daemon.clock.advance(timedelta(hours=9))

    assert len(story(tell)) == 3


def test_a_receiver_that_does_not_take_it_is_asked_again_and_hears_of_no_end_it_knows_no_begin_of(caplog):
    async def tell(daemon):
        daemon.receiver.results = [Result.FAILED, Result.UNKNOWN]
        daemon.fails()
        await daemon.clock.advance(3.5 * MINUTE)
        assert len(daemon.receiver.notes) == 1
        daemon.stage.rest()
        await daemon.clock.advance(MINUTE)
        daemon.receiver.results = [Result.FAILED]
        daemon.fails()
        await daemon.clock.advance(1.5 * MINUTE)
        daemon.stage.rest()
        await daemon.clock.advance(MINUTE)

    assert [note.severity for note in story(tell)] == ["critical", "info"]
    assert caplog.text.count("no receiver was told") == 3
