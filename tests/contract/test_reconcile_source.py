"""Failures whose message was lost, found by asking the emulated platform, and one that answers oddly."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import aiohttp
import make
import pytest

from triage.clock import SystemClock
from triage.cloud.credentials import StaticCredentials
from triage.cloud.fc import FcClient
from triage.cloud.fc_answers import AsyncConfig, Task, TaskPage
from triage.emulator.faults import Faults
from triage.emulator.scenario import load_scenario
from triage.emulator.server import LOOPBACK_KEY, serve
from triage.envelope import Destination, FunctionRef, Outcome, event_of, parse_body
from triage.errors import Misconfigured, Permanent, StoreUnavailable, Temporary
from triage.sources.local import LocalQueue
from triage.sources.reconcile import ReconcileSource, reconstructed_message

MINUTE = timedelta(minutes=1)
ROUND = 10 * MINUTE
JOB, OLD, ODD = FunctionRef("job"), FunctionRef("job", service="svc"), FunctionRef("nobody")
SCENARIO = """
speed: 10000
functions:
  job: &job
    async: {task: true, retries: 1, on_failure: results}
    behaviour:
      - {do: timeout, payload: '*late*'}
      - {do: fail, payload: '*bad*', type: ValueError, message: cannot identify image file}
      - {do: exhausted, payload: '*busy*'}
      - {do: succeed}
  svc/job: *job
  untracked: {async: {task: false, on_failure: results}}
"""


class Hasty(SystemClock):
    """Who sleeps is awake at once, and so much later it is."""

    def __init__(self):
        self.skipped = timedelta(0)

    def now(self):
        return super().now() + self.skipped

    async def sleep(self, duration):
        self.skipped += max(duration, timedelta(0))
        await asyncio.sleep(0)


class World:
    """The platform, and a source that asks it. What is acknowledged is stored; ``stored`` may hold more."""

    def __init__(self, far, client, functions, clock, **options):
        self.far, self.clock, self.stored = far, clock, set()
        self.source = ReconcileSource(client, functions, known=self.known, clock=clock, **options)

    async def known(self, request_ids):
        return self.stored & set(request_ids)

    async def submit(self, name, *events):
        tasks = [self.far.fc.submit(name, event) for event in events]
        await self.far.fc.settled()
        return [task.request_id for task in tasks]

    async def take(self, limit=16):
        """What the next answer holds, stored and acknowledged; it takes a round and a little more."""
        found = await self.source.receive(limit=limit, wait=ROUND + MINUTE)
        self.stored |= {one.receipt_handle for one in found}
        assert await self.source.ack(found) == []
        return found


def run(tmp_path, scenario, *, functions=(JOB,), faults=("PushResult:lost",), **options):
    async def main():
        queues = await LocalQueue.open(tmp_path / "queue.db", clock=SystemClock())
        clock = Hasty()
        rates = Faults(1, dict.fromkeys(faults, 1.0))
        try:
            async with (
                asyncio.timeout(60),
                serve(load_scenario(SCENARIO), queues=queues, clock=SystemClock(), faults=rates) as far,
                aiohttp.ClientSession() as session,
            ):
                key = StaticCredentials(LOOPBACK_KEY)
                client = FcClient(session, credentials=key, clock=SystemClock(), endpoint=far.url)
                await scenario(World(far, client, functions, clock, **options))
        finally:
            await queues.close()

    asyncio.run(main())


@pytest.mark.parametrize("function", [JOB, OLD], ids=["fc3", "fc2"])
@pytest.mark.parametrize("event", [b'{"late": "\xc3\xa9"}', b"bad", b"busy"], ids=["time-out", "error", "no instance"])
def test_a_lost_failure_is_told_as_its_message_would_have_told_it(tmp_path, function, event):
    async def scenario(world):
        (request_id,) = await world.submit(function.label, event)
        (one,) = await world.take()
        lost = parse_body(one.body, destination=world.source.destination)
        assert (lost.request_id, lost.function.label, lost.request_payload) == (request_id, function.label, event)
        assert lost.outcome is Outcome.FAILED
        assert one.reconstructed
        assert one.enqueued_at is None, "no queue has ever had it"
        world.far.fc._faults = None
        await world.submit(function.label, event)
        (message,) = await world.far.queues.receive("results", limit=1)
        sent = parse_body(message.body)
        for name in ("condition", "function_error", "status_code", "invoke_count", "error", "function", "outcome"):
            assert getattr(lost, name) == getattr(sent, name), name

    run(tmp_path, scenario, functions=(function,))


def test_a_failure_is_found_once_and_successes_are_none(tmp_path):
    async def scenario(world):
        ids = await world.submit("job", b"late", b"fine", b"bad")
        assert sorted(one.receipt_handle for one in await world.take()) == sorted([ids[0], ids[2]])
        for _ in range(3):
            assert await world.take() == []
        world.stored.clear()
        assert len(await world.take()) == 2

    run(tmp_path, scenario)


def test_what_was_told_by_its_own_message_is_left_alone(tmp_path):
    async def scenario(world):
        world.stored |= set(await world.submit("job", b"late", b"bad"))
        assert await world.take() == []

    run(tmp_path, scenario)


def test_what_is_held_is_not_handed_out_again(tmp_path):
    async def scenario(world):
        await world.submit("job", b"late")
        (one,) = await world.source.receive(limit=16, wait=2 * ROUND)
        assert await world.source.extend(one, MINUTE)
        assert one.lease_until == pytest.approx(world.clock.now() + MINUTE, abs=MINUTE / 60)
        assert await world.source.receive(limit=16, wait=2 * ROUND) == []

    run(tmp_path, scenario)


def test_hundreds_are_handed_out_piece_by_piece_each_once(tmp_path):
    async def scenario(world):
        ids = await world.submit("job", *(b"late %d" % number for number in range(230)))
        seen = []
        while found := await world.take():
            assert len(found) <= 16
            seen += found
        assert Counter(one.receipt_handle for one in seen) == Counter(ids)
        assert {one.body.count(b"late ") for one in seen} == {1}

    run(tmp_path, scenario)


def test_a_failure_is_left_to_its_message_for_a_while_and_not_looked_for_for_ever(tmp_path):
    async def scenario(world):
        began = world.clock.now()
        await world.submit("job", b"late")
        while not await world.take():
            pass
        assert 30 * MINUTE <= world.clock.now() - began < 51 * MINUTE
        world.stored.clear()
        world.clock.skipped += timedelta(hours=2)
        assert await world.take() == []

    run(tmp_path, scenario, grace=30 * MINUTE, lookback=timedelta(hours=2))


def test_the_first_round_comes_after_what_waits_in_the_queues(tmp_path):
    async def scenario(world):
        await world.submit("job", b"late")
        assert await world.source.receive(limit=16, wait=ROUND - MINUTE) == []
        assert len(await world.source.receive(limit=16, wait=2 * MINUTE)) == 1

    run(tmp_path, scenario)


def test_a_function_that_is_not_there_is_told_each_round_and_hinders_no_other(tmp_path):
    async def scenario(world):
        await world.submit("job", b"late")
        assert len(await world.take()) == 1
        for _ in range(2):
            with pytest.raises(Permanent, match=r"nobody.*FunctionNotFound"):
                await world.take()
        await world.submit("job", b"bad")
        assert len(await world.take()) == 1

    run(tmp_path, scenario, functions=(ODD, JOB))


@pytest.mark.parametrize("qualifier", ["", "prod"])
def test_a_function_that_keeps_no_tasks_is_told_and_one_without_failures_is_not(tmp_path, qualifier):
    async def scenario(world):
        await world.submit("job", b"fine")
        with pytest.raises(Misconfigured, match=r"^no_tasks: untracked keeps no tasks: switch on asyncTask"):
            await world.take()

    names = [FunctionRef("untracked", qualifier=qualifier), FunctionRef("job", qualifier=qualifier), OLD]
    run(tmp_path, scenario, functions=names)


def test_a_throttled_service_is_left_alone_and_asked_in_the_next_round(tmp_path):
    async def scenario(world):
        await world.submit("job", b"late")
        with pytest.raises(Temporary, match="429"):
            await world.take()
        world.far.fc._faults = None

    run(tmp_path, scenario, faults=("PushResult:lost", "ListAsyncTasks:throttled"))


# ---------------------------------------------------------------- a far side that answers oddly

ARN = "acs:fc:cn-hangzhou:1034354682:functions/job"
TASK = Task("t1", "r1", "Failed", make.NOW, make.NOW + MINUTE, 1, "Oops", payload="{}", function_arn=ARN)


class Odd:
    """A Function Compute that lists ``tasks``, and fails as it is told to."""

    def __init__(self, *tasks, got=(), errors=(), payloads=None):
        self.tasks, self.got, self.errors, self.payloads = tasks, dict(got), list(errors), payloads or {}
        self.asked = []

    async def list_tasks(self, function, *, prefix="", include_payload=False, next_token="", **query):
        self.asked.append(("list", function.name, prefix))
        if self.errors and (error := self.errors.pop(0)):
            raise error
        page = [replace(task, payload=self.payloads.get(task.task_id)) for task in self.tasks]
        return TaskPage(tuple(task for task in page if task.task_id.startswith(prefix)), next_token="again")

    async def async_config(self, function):
        return AsyncConfig(async_task=True)

    async def get_task(self, function, task_id):
        self.asked.append(("get", function.name, task_id))
        return self.got.get(task_id)


def ask(odd, scenario, *functions, known=None):
    async def main():
        clock = Hasty()

        async def nothing(request_ids):
            return ()

        clock.skipped = make.NOW + timedelta(hours=1) - SystemClock().now()
        source = ReconcileSource(odd, functions or (JOB,), known=known or nothing, clock=clock)
        async with asyncio.timeout(30):
            await scenario(source, clock)

    asyncio.run(main())


def test_the_event_is_asked_for_until_it_is_told():
    odd = Odd(TASK, got={"t1": replace(TASK, payload=None)}, payloads={"t1": "an event", "t": "another"})

    async def scenario(source, clock):
        (one,) = await source.receive(limit=1, wait=2 * ROUND)
        assert parse_body(one.body).request_payload == b"an event"
        assert odd.asked == [("list", "job", ""), ("get", "job", "t1"), ("list", "job", "t1")]

    ask(odd, scenario)


def test_what_the_service_asks_for_is_waited_and_the_others_are_asked_all_the_same():
    slow = Temporary("throttled", "job: 429", retry_after=timedelta(seconds=25))
    odd = Odd(errors=[slow, None])

    async def scenario(source, clock):
        began = clock.now()
        with pytest.raises(Temporary, match="job: 429"):
            await source.receive(limit=1, wait=2 * ROUND)
        assert clock.now() - began >= ROUND + timedelta(seconds=25)
        assert [name for _, name, _ in odd.asked] == ["job", "other", "other"], (
            "the same page is not asked for for ever"
        )

    ask(odd, scenario, JOB, FunctionRef("other"))


def test_a_service_that_wants_to_be_left_alone_for_ever_holds_nobody_up_for_long():
    class Shut(Odd):
        async def get_task(self, function, task_id):
            raise Temporary("throttled", "429", retry_after=timedelta(hours=1))

    odd = Shut(*(replace(TASK, task_id=f"t{number}", request_id=f"r{number}") for number in range(90)))

    async def scenario(source, clock):
        began = clock.now()
        assert await source.receive(limit=16, wait=ROUND + MINUTE) == []
        assert clock.now() - began < ROUND + 2 * MINUTE
        with pytest.raises(Temporary, match="429"):
            await source.receive(limit=16, wait=10 * ROUND)
        asked = odd.asked.count(("list", "job", ""))
        await source.receive(limit=16, wait=MINUTE + timedelta(seconds=1))
        assert odd.asked.count(("list", "job", "")) > asked, "errors that may pass are tried again after a minute"

    ask(odd, scenario)


def test_several_mistakes_are_told_together_the_lasting_kind_first():
    errors = [Temporary("network", "a"), Misconfigured("no_endpoint", "b"), Temporary("network", "a")]
    odd = Odd(errors=errors)

    async def scenario(source, clock):
        with pytest.raises(Misconfigured) as caught:
            await source.receive(limit=1, wait=2 * ROUND)
        assert (caught.value.reason, caught.value.detail) == ("no_endpoint", "a; b")

    ask(odd, scenario, JOB, JOB, JOB)


def test_a_store_that_fails_is_an_error_that_passes():
    async def unavailable(request_ids):
        raise StoreUnavailable("the disk is full")

    async def scenario(source, clock):
        with pytest.raises(Temporary, match="the disk is full"):
            await source.receive(limit=1, wait=2 * ROUND)

    ask(Odd(TASK), scenario, known=unavailable)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, {"condition": "Oops", "function_error": "", "response_payload": ""}),
        ({"error": '{"errorMessage":"no"}'}, {"condition": "InvocationError", "response_payload": '{"errorMessage":"no"}'}),
        ({"error": "Oops", "result": "{}"}, {"condition": "Oops", "function_error": "Oops", "response_payload": "{}"}),
        ({"error": "", "detail": "expired"}, {"condition": "", "response_payload": "expired"}),
        ({"function_arn": "garbage"}, {"function": FunctionRef("job", qualifier="prod", region="r", account="1")}),
        ({}, {"function": FunctionRef("job", qualifier="prod", region="cn-hangzhou", account="1034354682")}),
        ({"started_at": None, "payload": None}, {"timestamp": None, "request_payload": b""}),
        ({"payload": '"\U0001f680 \x00'}, {"request_payload": '"\U0001f680 \x00'.encode()}),
    ],
    ids=["code", "error", "code and error", "nothing", "odd arn", "arn", "no event", "any text"],
)  # fmt: skip
def test_a_message_is_made_from_whatever_is_said_of_a_task(changes, told):
    function = FunctionRef("job", qualifier="prod", region="r", account="1")
    body = reconstructed_message(function, replace(TASK, **changes))
    envelope = parse_body(body, destination=Destination.FAILURE)
    assert {name: getattr(envelope, name) for name in told} == told
    assert (event_of(body) is None) == ("payload" in changes and changes["payload"] is None)
