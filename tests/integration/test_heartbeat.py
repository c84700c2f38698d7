"""Signs of life: sent to a real server while every stage gets on, and not when one stands still."""

import asyncio
from datetime import timedelta

from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from triage.alerts.delivery import Answer, Result
from triage.heartbeat import Heartbeat, pinging, pings_of, telling
from triage.progress import Progress
from triage.testing import ManualClock

SECRET = "T0kenThatMustNotBeSeen"


class Told:
    def __init__(self, answer):
        self.notes, self.answer = [], answer

    async def send(self, note, *, skip=frozenset()):
        self.notes.append(note)
        return self.answer


def test_they_stop_with_the_first_stage_that_stands_still_and_go_on_with_it(caplog):
    async def scenario():
        clock, stages, beats = ManualClock(), {"outbox": Progress(), "consumer": Progress()}, []

        async def ping():
            beats.append(clock.now())
            return ""

        heart = Heartbeat({"x": ping}, every=timedelta(minutes=1), stages=stages, clock=clock)
        task = asyncio.create_task(heart.run())
        await clock.advance(timedelta(minutes=2, seconds=30))
        assert len(beats) == 3
        stages["outbox"].busy(clock.steady())
        await clock.advance(timedelta(minutes=10))
        stopped = len(beats)
        assert stopped == 5, "a stage may stand still for two minutes"
        stages["outbox"].rest()
        await clock.advance(timedelta(minutes=1))
        assert len(beats) == stopped + 1
        stages["consumer"].tried(clock.steady(), error="the disk is full")
        await clock.advance(timedelta(minutes=5))
        assert len(beats) == stopped + 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
    assert caplog.text.count("no sign of life is sent: outbox has not got on for") >= 1
    assert "no sign of life is sent: the disk is full" in caplog.text


def test_an_address_is_asked_and_never_shown(caplog):
    async def scenario():
        asked = []

        async def answer(request):
            asked.append(request.path)
            return web.Response(status=500 if "broken" in request.path else 200)

        app = web.Application()
        app.router.add_get("/{rest:.*}", answer)
        async with TestServer(app) as server, ClientSession() as session:
            url = str(server.make_url(f"/ok/{SECRET}"))
            broken = str(server.make_url(f"/broken/{SECRET}"))
            assert await pinging(session, url)() == ""
            assert await pinging(session, broken)() == "it answers with status 500"
            gone = url
        async with ClientSession() as session:
            pings = pings_of(session, Told({}), url=gone, to=["ops"])
            heart = Heartbeat(pings, every=timedelta(minutes=1), stages={}, clock=ManualClock())
            assert await heart.beat()
            assert await heart.beat()
        assert asked == [f"/ok/{SECRET}", f"/broken/{SECRET}"]

    asyncio.run(scenario())
    assert caplog.text.count("did not get through to heartbeat.url: ClientConnectorError") == 1, "said once"
    assert "receiver ops: it is not configured" in caplog.text
    assert SECRET not in caplog.text


def test_a_receiver_gets_a_message():
    async def scenario():
        told = Told({"a": Answer(Result.SENT)})
        assert await telling(told, "ops")() == ""
        (note,) = told.notes
        assert (note.receiver, note.severity) == ("ops", "info")
        assert note.title.endswith("is alive")
        deaf = Told({"a": Answer(Result.FAILED, "target 1 (json)", "HTTP 500")})
        assert await telling(deaf, "ops")() == "target 1 (json): failed, HTTP 500"

    asyncio.run(scenario())
