"""What every source promises (``triage.sources.Source``): one suite, run on the SMQ source and on the local one.

Both stand on the same queue, one through HTTP and signatures, one directly. What only SMQ can do wrong is in
``test_smq_source.py``.
"""

import asyncio
import contextlib
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from aiohttp import web

from triage.cloud.credentials import StaticCredentials
from triage.cloud.signing import Credentials
from triage.emulator.smq import smq_routes
from triage.envelope import Destination
from triage.errors import Misconfigured
from triage.sources import Source
from triage.sources.local import LocalQueue, LocalSource
from triage.sources.queue_tables import Outgoing, QueueAttributes
from triage.sources.smq import SmqSource

SECOND = timedelta(seconds=1)
ZERO = timedelta(0)
LEASE = 45 * SECOND
KEY = Credentials("id", "secret", "token")


class HandClock:
    """Time that moves only by ``advance``; tells when somebody waits for it."""

    def __init__(self):
        self.at, self.timers, self.waiting = datetime(2026, 3, 1, tzinfo=UTC), [], asyncio.Event()

    def now(self):
        return self.at

    async def sleep(self, duration):
        await self.wait(asyncio.Event(), duration)

    async def wait(self, event, timeout):  # noqa: ASYNC109 - the clock's signature
        timer = (self.at + timeout, asyncio.Event())
        self.timers.append(timer)
        self.waiting.set()
        waits = [asyncio.ensure_future(either.wait()) for either in (event, timer[1])]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            self.timers.remove(timer)
        return event.is_set()

    def advance(self, by):
        self.at += by
        for due, event in self.timers:
            if due <= self.at:
                event.set()


@dataclass
class World:
    """A source, the queue behind it, and the time of both."""

    source: Source
    queues: LocalQueue
    clock: HandClock

    async def send(self, *bodies, **options):
        await self.queues.send("q", [Outgoing(body.encode(), **options) for body in bodies])

    async def receive(self, limit=16):
        return await self.source.receive(limit=limit, wait=ZERO)


@contextlib.asynccontextmanager
async def _smq(queues, clock, signature="v2", *, key=KEY, queue="q", server_clock=None):
    app = web.Application()
    app.add_routes(smq_routes(queues, credentials={"id": KEY}.get, clock=server_clock or clock))
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession() as session:
            yield SmqSource(
                session,
                f"http://127.0.0.1:{runner.addresses[0][1]}",
                queue,
                name="source",
                credentials=StaticCredentials(key),
                clock=clock,
                destination=Destination.FAILURE,
                signature=signature,
                region="cn-hangzhou",
            )
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def _local(queues, _clock):
    yield LocalSource(queues, queue="q", name="source", destination=Destination.FAILURE, lease=LEASE)


MAKERS = {
    "smq v2": lambda queues, clock: _smq(queues, clock, "v2"),
    "smq v4": lambda queues, clock: _smq(queues, clock, "v4"),
    "local": _local,
}


@pytest.fixture(params=MAKERS)
def run(request, tmp_path):
    """Runs a scenario, a coroutine function that takes a `World`."""

    def run_scenario(scenario):
        async def main():
            clock = HandClock()
            queues = await LocalQueue.open(tmp_path / "queue.db", clock=clock)
            await queues.create_queue("q", QueueAttributes(visibility_timeout=45))
            try:
                async with asyncio.timeout(30), MAKERS[request.param](queues, clock) as source:
                    return await scenario(World(source, queues, clock))
            finally:
                await queues.close()

        return asyncio.run(main())

    return run_scenario


def test_a_delivery_says_what_it_is_and_until_when_it_is_ours(run):
    async def scenario(world):
        await world.send("{}")
        world.clock.advance(10 * SECOND)
        (one,) = await world.receive()
        now = world.clock.now()
        assert (world.source.name, world.source.destination, world.source.lease) == (
            "source",
            Destination.FAILURE,
            LEASE,
        )
        assert (one.body, one.receive_count, one.unreadable) == (b"{}", 1, "")
        assert (one.enqueued_at, one.lease_until) == (now - 10 * SECOND, now + LEASE)
        assert one.body_md5 == hashlib.md5(b"{}").hexdigest().upper()
        assert one.message_id
        assert one.receipt_handle

    run(scenario)


@pytest.mark.parametrize(
    "body",
    [
        "é😀 ",
        "<&>]]>\"'",
        "a\r\nb\rc\n\td",
        " padded ",
        "&" * 65_536,
        "<Message><ReceiptHandle>x</ReceiptHandle></Message>",
    ],
    ids=["unicode", "markup", "line ends", "spaces", "largest", "forged"],
)
def test_bodies_come_as_they_were_sent(run, body):
    async def scenario(world):
        await world.send(body)
        (one,) = await world.receive()
        assert one.body == body.encode()
        assert one.body_md5 == hashlib.md5(body.encode()).hexdigest().upper()

    run(scenario)


def test_a_body_that_cannot_be_carried_holds_up_nobody_and_can_be_deleted(run):
    async def scenario(world):
        await world.send("first", "a\x01b", "last")
        found = await world.receive()
        assert [one.body for one in found if not one.unreadable and b"\x01" not in one.body] == [b"first", b"last"]
        assert len([one for one in found if b"a\x01b" in one.body]) == 1
        assert await world.source.ack(found) == []
        world.clock.advance(LEASE)
        assert await world.receive() == []

    run(scenario)


@pytest.mark.parametrize("limit", [1, 3, 16])
def test_no_more_than_the_limit_is_received_and_nothing_twice(run, limit):
    async def scenario(world):
        await world.send(*map(str, range(20)))
        seen = []
        while found := await world.receive(limit):
            assert len(found) <= limit
            seen += [one.body for one in found]
        assert sorted(seen, key=int) == [str(n).encode() for n in range(20)]

    run(scenario)


def test_receivers_share_the_messages(run):
    async def scenario(world):
        await world.send(*map(str, range(50)))
        found = await asyncio.gather(*(world.receive() for _ in range(8)))
        bodies = [one.body for batch in found for one in batch]
        assert len(bodies) == len(set(bodies)) == 50

    run(scenario)


def test_a_long_poll_ends_empty_when_its_time_is_over(run):
    async def scenario(world):
        polling = asyncio.create_task(world.source.receive(limit=16, wait=20 * SECOND))
        await world.clock.waiting.wait()
        assert not polling.done()
        world.clock.advance(20 * SECOND)
        assert await polling == []

    run(scenario)


def test_a_long_poll_is_answered_when_a_message_comes(run):
    async def scenario(world):
        polling = asyncio.create_task(world.source.receive(limit=16, wait=20 * SECOND))
        await world.clock.waiting.wait()
        await world.send("{}")
        assert [one.body for one in await polling] == [b"{}"]

    run(scenario)


def test_a_long_poll_that_is_given_up_loses_nothing(run):
    async def scenario(world):
        polling = asyncio.create_task(world.source.receive(limit=16, wait=20 * SECOND))
        await world.clock.waiting.wait()
        polling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await polling
        await world.send("{}")
        if not (found := await world.receive()):  # the server had not noticed yet, and leased it to nobody
            world.clock.advance(LEASE)
            found = await world.receive()
        assert [one.body for one in found] == [b"{}"]

    run(scenario)


def test_a_message_comes_again_when_its_lease_has_run_out_and_not_before(run):
    async def scenario(world):
        await world.send("{}")
        (first,) = await world.receive()
        world.clock.advance(LEASE - SECOND)
        assert await world.receive() == []
        world.clock.advance(SECOND)
        (second,) = await world.receive()
        assert (second.message_id, second.receive_count) == (first.message_id, 2)
        assert second.lease_until == world.clock.now() + LEASE
        assert await world.source.ack([first]) == [first]
        assert await world.source.ack([second]) == []

    run(scenario)


@pytest.mark.parametrize("count", [1, 16, 40])
def test_acknowledged_messages_do_not_come_again(run, count):
    async def scenario(world):
        await world.send(*map(str, range(count)))
        held = []
        while found := await world.receive():
            held += found
        assert len(held) == count
        assert await world.source.ack(held) == []
        world.clock.advance(LEASE)
        assert await world.receive() == []

    run(scenario)


def test_acknowledging_returns_exactly_what_was_not_ours(run):
    async def scenario(world):
        await world.send("late", "late too")
        late = await world.receive()
        world.clock.advance(LEASE)
        await world.receive()
        await world.send("in time")
        fresh = await world.receive()
        left = await world.source.ack([late[0], *fresh, late[1]])
        assert {id(one) for one in left} == {id(one) for one in late}
        assert await world.source.ack(fresh) == fresh
        assert await world.source.ack([]) == []

    run(scenario)


def test_an_extended_lease_counts_from_now(run):
    async def scenario(world):
        await world.send("{}")
        (one,) = await world.receive()
        old = one.receipt_handle
        world.clock.advance(40 * SECOND)
        assert await world.source.extend(one, 60 * SECOND)
        assert one.lease_until == world.clock.now() + 60 * SECOND
        assert one.receipt_handle != old
        world.clock.advance(59 * SECOND)
        assert await world.receive() == []
        assert await world.source.ack([one]) == []

    run(scenario)


def test_only_what_is_ours_can_be_extended(run):
    async def scenario(world):
        await world.send("deleted", "late")
        deleted, late = await world.receive()
        await world.source.ack([deleted])
        assert not await world.source.extend(deleted, LEASE)
        world.clock.advance(LEASE)
        (again,) = await world.receive()
        assert not await world.source.extend(late, LEASE)
        assert await world.source.ack([again]) == []

    run(scenario)


def test_closing_twice_is_allowed(run):
    async def scenario(world):
        await world.source.close()
        await world.source.close()

    run(scenario)


class Ahead(HandClock):
    """Three hours before anybody else."""

    def now(self):
        return super().now() + timedelta(hours=3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"queue": "missing"}, "queue"),
        ({"key": Credentials("nobody", "secret")}, "credentials"),
        ({"key": Credentials("id", "wrong", "token")}, "credentials"),
        ({"key": Credentials("id", "secret", "expired")}, "credentials"),
        ({"server_clock": Ahead()}, ""),
    ],
    ids=["no queue", "unknown key", "wrong secret", "expired token", "clocks differ"],
)
def test_what_the_endpoint_refuses_is_understood(tmp_path, options, reason):
    async def scenario():
        clock = HandClock()
        queues = await LocalQueue.open(tmp_path / "queue.db", clock=clock)
        await queues.create_queue("q")
        await queues.send("q", [Outgoing(b"{}")])
        try:
            async with _smq(queues, clock, **options) as source:
                if not reason:
                    (one,) = await source.receive(limit=16, wait=ZERO)
                    assert one.lease_until == clock.now() + 30 * SECOND
                    assert await source.ack([one]) == []
                    return
                with pytest.raises(Misconfigured) as caught:
                    await source.receive(limit=16, wait=ZERO)
                assert caught.value.reason == reason
        finally:
            await queues.close()

    asyncio.run(scenario())
