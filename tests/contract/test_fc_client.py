"""The FC client against the emulated platform, and against a far side that answers oddly."""

import asyncio
import json
from collections import deque
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver

from triage.clock import SystemClock
from triage.cloud.credentials import StaticCredentials
from triage.cloud.fc import CONFIG_LIFE, FcClient
from triage.cloud.fc_answers import Submitted
from triage.cloud.signing import Credentials
from triage.emulator.faults import Faults
from triage.emulator.scenario import AsyncConfig, load_scenario
from triage.emulator.server import LOOPBACK_KEY, serve
from triage.envelope import FunctionRef, Outcome, parse_body
from triage.errors import Misconfigured, OutcomeUnknown, Permanent, Temporary
from triage.sources.local import LocalQueue

NEW, OLD, PLAIN = FunctionRef("job"), FunctionRef("job", service="svc"), FunctionRef("plain")
SCENARIO = """
speed: 10000
functions:
  job: &job
    async: {task: true, retries: 1, on_success: results, on_failure: results}
    behaviour:
      - {do: timeout, payload: '*late*'}
      - {do: throttled, payload: '*busy*', times: 1}
  svc/job: *job
  slow: &slow
    timeout: 60d
    takes: 50d
    async: {task: true, on_failure: results}
  svc/slow: *slow
  plain:
    async: {task: false}
  lonely:
    async: {task: true}
"""


class Shifted(SystemClock):
    def __init__(self, by):
        self.by = by

    def now(self):
        return super().now() + self.by


class Later(SystemClock):
    """Goes on by itself, and further when told."""

    ahead = timedelta(0)

    def steady(self):
        return super().steady() + self.ahead


class Renewable:
    """Hands out the next key after each refresh."""

    def __init__(self, *keys):
        self.keys, self.refused = deque(keys), []

    async def get(self):
        return self.keys[0]

    async def refresh(self, refused=None):
        self.refused.append(refused)
        if len(self.keys) > 1:
            self.keys.popleft()


@asynccontextmanager
async def emulated(tmp_path, *, key=LOOPBACK_KEY, faults=None, **client):
    queues = await LocalQueue.open(tmp_path / "queue.db", clock=SystemClock())
    try:
        async with (
            serve(load_scenario(SCENARIO), queues=queues, clock=SystemClock(), credentials=key, faults=faults) as far,
            aiohttp.ClientSession() as session,
        ):
            client = {"credentials": StaticCredentials(key), "clock": SystemClock(), "endpoint": far.url} | client
            yield far, FcClient(session, **client)
    finally:
        await queues.close()


async def next_result(far):
    while True:
        messages = await far.queues.receive("results", limit=1, wait=timedelta(seconds=10))
        if messages:
            return parse_body(messages[0].body)


@pytest.mark.parametrize("function", [NEW, OLD], ids=["fc3", "fc2"])
def test_a_task_runs_once_however_often_it_is_submitted(tmp_path, function):
    async def test():
        async with emulated(tmp_path) as (far, client):
            first = await client.invoke_async(function, b'{"a":1}', task_id="redo-1")
            again = await client.invoke_async(function, b'{"a":1}', task_id="redo-1")
            assert first.request_id
            assert (first.task_id, first.already) == ("redo-1", False)
            assert again == Submitted(request_id="", task_id="redo-1", already=True)
            result = await next_result(far)
            assert result.request_id == first.request_id
            assert (result.function.name, result.function.service) == (function.name, function.service)
            assert (result.request_payload, result.outcome) == (b'{"a":1}', Outcome.AMBIGUOUS)
            await far.fc.settled()
            task = await client.get_task(function, "redo-1")
            assert (task.status, task.request_id, task.payload) == ("Succeeded", first.request_id, '{"a":1}')
            assert [execution.task_id for execution in far.fc.executions] == ["redo-1"]

    asyncio.run(test())


@pytest.mark.parametrize("function", [NEW, OLD], ids=["fc3", "fc2"])
def test_a_failed_task_was_retried_by_the_platform_and_tells_why(tmp_path, function):
    async def test():
        async with emulated(tmp_path) as (far, client):
            submitted = await client.invoke_async(function, b"late", task_id="t")
            result = await next_result(far)
            assert (result.request_id, result.outcome, result.invoke_count) == (
                submitted.request_id,
                Outcome.FAILED,
                2,
            )
            assert "timed out after 60 seconds" in result.error.message
            await far.fc.settled()
            task = await client.get_task(function, "t")
            assert (task.status, task.retries, task.destination_status) == ("Failed", 1, "Succeeded")
            assert "timed out" in task.error
            assert task.ended_at >= task.started_at

    asyncio.run(test())


def test_without_task_mode_a_repeat_runs_twice(tmp_path):
    async def test():
        async with emulated(tmp_path) as (far, client):
            submits = [await client.invoke_async(PLAIN, b"x", task_id="redo-1") for _ in range(2)]
            assert [submit.already for submit in submits] == [False, False]
            assert submits[0].request_id != submits[1].request_id
            await far.fc.settled()
            assert len(far.fc.executions) == 2
            assert await client.get_task(PLAIN, "redo-1") is None

    asyncio.run(test())


@pytest.mark.parametrize("function", [FunctionRef("slow"), FunctionRef("slow", service="svc")], ids=["fc3", "fc2"])
def test_a_stopped_task_is_told_to_the_failure_destination(tmp_path, function):
    async def test():
        async with emulated(tmp_path) as (far, client):
            await client.invoke_async(function, b"", task_id="t")
            assert await client.stop_task(function, "t")
            result = await next_result(far)
            assert (result.condition, result.outcome) == ("", Outcome.AMBIGUOUS)
            await far.fc.settled()
            assert (await client.get_task(function, "t")).status == "Stopped"
            assert not await client.stop_task(function, "unknown")

    asyncio.run(test())


@pytest.mark.parametrize("function", [NEW, OLD], ids=["fc3", "fc2"])
def test_tasks_are_listed_page_by_page(tmp_path, function):
    async def test():
        async with emulated(tmp_path) as (far, client):
            for number in range(5):
                await client.invoke_async(function, b"late" if number % 2 else b"fine", task_id=f"t{number}")
            await client.invoke_async(function, b"fine", task_id="other")
            await far.fc.settled()
            first = await client.list_tasks(function, prefix="t", limit=3)
            second = await client.list_tasks(function, prefix="t", limit=3, next_token=first.next_token)
            assert [task.task_id for task in first.tasks + second.tasks] == ["t4", "t3", "t2", "t1", "t0"]
            assert (bool(first.next_token), second.next_token) == (True, "")
            failed = await client.list_tasks(function, status="Failed", include_payload=True)
            assert [(task.task_id, task.payload) for task in failed.tasks] == [("t3", "late"), ("t1", "late")]
            assert first.tasks[0].payload is None
            later = datetime.now(UTC) + timedelta(hours=1)
            assert (await client.list_tasks(function, started_from=later)).tasks == ()
            assert len((await client.list_tasks(function, started_until=later)).tasks) == 6

    asyncio.run(test())


def test_the_configuration_tells_whether_task_ids_are_kept(tmp_path):
    async def test():
        async with emulated(tmp_path) as (_, client):
            for function in (NEW, OLD):
                config = await client.async_config(function)
                assert (config.async_task, config.retries, config.age) == (True, 1, timedelta(days=1))
                assert config.on_failure.endswith(":/queues/results/messages")
            assert not (await client.async_config(PLAIN)).async_task
            assert await client.async_config(FunctionRef("job", qualifier="prod")) is None

    asyncio.run(test())


@pytest.mark.parametrize("kept", [True, False], ids=["there is one", "there is none"])
def test_a_configuration_is_asked_for_again_when_its_time_is_up(tmp_path, kept):
    prod, clock = FunctionRef("job", qualifier="prod"), Later()

    async def test():
        async with emulated(tmp_path, clock=clock) as (far, client):
            far.fc.configure("job", "prod", AsyncConfig(task=True) if kept else None)
            assert bool(await client.async_config(prod)) is kept
            far.fc.configure("job", "prod", None if kept else AsyncConfig(task=True))
            clock.ahead = CONFIG_LIFE - timedelta(seconds=20)
            assert bool(await client.async_config(prod)) is kept, "remembered"
            clock.ahead = CONFIG_LIFE
            assert bool(await client.async_config(prod)) is not kept

    asyncio.run(test())


def test_a_qualifier_without_a_configuration_is_not_believed_to_refuse_repeats(tmp_path):
    async def test():
        async with emulated(tmp_path) as (_, client):
            assert (await client.async_config(FunctionRef("job", qualifier="LATEST"))).async_task
            assert await client.async_config(FunctionRef("job", qualifier="prod")) is None

    asyncio.run(test())


@pytest.mark.parametrize(
    ("function", "payload", "error", "reason"),
    [
        (NEW, b"busy", Temporary, "throttled"),
        (NEW, b"x" * (128 * 1024 + 1), Permanent, "too_large"),
        (FunctionRef("deleted"), b"", Permanent, "not_found"),
        (FunctionRef("a b/c~中", qualifier="x y"), b"", Permanent, "not_found"),
        (FunctionRef("a b~中", service="s/t", qualifier="x"), b"", Permanent, "not_found"),
    ],
    ids=["throttled", "too large", "unknown", "odd name", "odd name fc2"],
)
def test_refusals_are_told_apart(tmp_path, function, payload, error, reason):
    async def test():
        async with emulated(tmp_path) as (far, client):
            with pytest.raises(error) as caught:
                await client.invoke_async(function, payload, task_id="t")
            assert caught.value.reason == reason
            assert not isinstance(caught.value, OutcomeUnknown | Misconfigured)
            assert not far.fc.submits

    asyncio.run(test())


@pytest.mark.parametrize("function", [NEW, OLD], ids=["fc3", "fc2"])
def test_a_wrong_secret_is_refused_once_more_then_told(tmp_path, function):
    wrong = Credentials(LOOPBACK_KEY.access_key_id, "hunter2")

    async def test():
        keys = Renewable(wrong)
        async with emulated(tmp_path, credentials=keys) as (far, client):
            with pytest.raises(Misconfigured) as caught:
                await client.invoke_async(function, b"", task_id="t")
            assert keys.refused == [wrong]
            assert "hunter2" not in str(caught.value)
            assert not far.fc.submits

    asyncio.run(test())


@pytest.mark.parametrize("function", [NEW, OLD], ids=["fc3", "fc2"])
def test_a_renewed_temporary_key_is_taken(tmp_path, function):
    key = Credentials("sts", "secret", "token-2")

    async def test():
        keys = Renewable(Credentials("sts", "secret", "token-1"), key)
        async with emulated(tmp_path, key=key, credentials=keys) as (_, client):
            assert not (await client.invoke_async(function, b"", task_id="t")).already
            assert [refused.security_token for refused in keys.refused] == ["token-1"]

    asyncio.run(test())


@pytest.mark.parametrize("function", [NEW, OLD], ids=["fc3", "fc2"])
def test_a_wrong_clock_is_set_by_the_services_date(tmp_path, function):
    async def test():
        async with emulated(tmp_path, clock=Shifted(timedelta(hours=-3))) as (far, client):
            assert not (await client.invoke_async(function, b"", task_id="t")).already
            assert (await client.get_task(function, "t")) is not None
            assert len(far.fc.submits) == 1

    asyncio.run(test())


def test_a_lost_answer_is_unknown_and_the_same_task_id_finds_out(tmp_path):
    faults = Faults(3, {"InvokeFunction:lost_answer": 0.5})  # seed 3 draws: lost, not lost
    lonely = FunctionRef("lonely")

    async def test():
        async with emulated(tmp_path, faults=faults) as (far, client):
            with pytest.raises(OutcomeUnknown):
                await client.invoke_async(lonely, b"", task_id="t")
            assert (await client.invoke_async(lonely, b"", task_id="t")).already
            assert (await client.get_task(lonely, "t")).request_id == far.fc.submits[0].request_id
            assert len(far.fc.submits) == 1

    asyncio.run(test())


@asynccontextmanager
async def answering(*answers, **client):
    """A far side that gives these answers one after the other, the last one for ever, and keeps the requests."""
    requests, left = [], deque(answers)

    async def handler(request):
        requests.append(request)
        await request.read()
        answer = left.popleft() if len(left) > 1 else left[0]
        return await answer(request) if callable(answer) else web.Response(**answer)

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    try:
        async with aiohttp.ClientSession() as session:
            client = {"credentials": Renewable(LOOPBACK_KEY), "clock": SystemClock(), **client}
            yield requests, FcClient(session, endpoint=f"http://{host}:{port}/", **client)
    finally:
        await runner.cleanup()


async def drop(request):
    request.transport.abort()
    return web.Response()


async def never(_request):
    await asyncio.Event().wait()


async def accept_then_drop(request):
    response = web.StreamResponse(status=202, headers={"x-fc-request-id": "r", "content-length": "5"})
    await response.prepare(request)
    request.transport.abort()
    return response


TASK = {"body": json.dumps({"taskId": "t", "requestId": "r", "status": "Running"})}
ACCEPTED = {"status": 202, "headers": {"x-fc-request-id": "r"}}


NO_CONFIG = {"status": 404, "text": '{"Code":"AsyncConfigNotExists"}'}
TRACKED = {"text": '{"asyncTask":true}'}


def test_what_latest_has_not_is_looked_for_without_a_qualifier():
    async def test():
        async with answering(NO_CONFIG, TRACKED) as (requests, client):
            assert (await client.async_config(FunctionRef("job", qualifier="LATEST"))).async_task
            assert [dict(request.query) for request in requests] == [{"qualifier": "LATEST"}, {}]

    asyncio.run(test())


@pytest.mark.parametrize(
    ("answer", "error"),
    [({"status": 500}, Temporary), ({"status": 403}, Misconfigured), ({"text": "<html>"}, Temporary)],
    ids=["error", "forbidden", "garbage"],
)
def test_a_configuration_that_cannot_be_read_is_not_remembered_as_none(answer, error):
    async def test():
        async with answering(answer) as (_, client):
            with pytest.raises(error):
                await client.async_config(NEW)
            with pytest.raises(error):
                await client.async_config(NEW)
        async with answering(*[answer] * 3, TRACKED) as (requests, client):
            if error is Temporary:  # repeated within the call
                with pytest.raises(error):
                    await client.async_config(NEW)
                assert (await client.async_config(NEW)).async_task
                assert (await client.async_config(NEW)).async_task
                assert len(requests) == 4

    asyncio.run(test())


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        (drop, OutcomeUnknown, "no_answer"),
        (never, OutcomeUnknown, "no_answer"),
        ({"status": 500}, OutcomeUnknown, "server_error"),
        ({"status": 200, "text": "<html>hello"}, OutcomeUnknown, "unexpected_answer"),
        ({"status": 429}, Temporary, "throttled"),
        ({"status": 503}, Temporary, "throttled"),
        ({"status": 409, "text": '{"Code":"ConcurrentUpdateError"}'}, Temporary, "conflict"),
        ({"status": 302, "headers": {"location": "/elsewhere"}}, Permanent, "unexpected_answer"),
        ({"status": 404, "text": '{"Code":"AsyncTaskNotFound"}'}, Permanent, "not_found"),
        ({"status": 400, "text": "[" * 10_000}, Permanent, "bad_request"),
    ],
    ids=["dropped", "silent", "500", "200", "429", "503", "conflict", "redirect", "404", "400"],
)
def test_a_submit_is_sent_once_whatever_the_answer(answer, error, reason):
    async def test():
        async with answering(answer, timeout=timedelta(seconds=0.3)) as (requests, client):
            with pytest.raises(error) as caught:
                await client.invoke_async(NEW, b"", task_id="t")
            assert type(caught.value) is error
            assert caught.value.reason == reason
            assert len(requests) == 1

    asyncio.run(test())


def test_a_connection_lost_after_the_status_leaves_no_doubt():
    async def test():
        async with answering(accept_then_drop) as (_, client):
            assert await client.invoke_async(NEW, b"", task_id="t") == Submitted("r", "t", already=False)

    asyncio.run(test())


def test_credentials_are_renewed_once_and_the_submit_is_sent_again():
    async def test():
        keys = Renewable(Credentials("one", "s"), Credentials("two", "s"))
        async with answering({"status": 403}, ACCEPTED, credentials=keys) as (requests, client):
            assert (await client.invoke_async(NEW, b"", task_id="t")).request_id == "r"
            assert [key.access_key_id for key in keys.refused] == ["one"]
            assert ["Credential=two" in request.headers["authorization"] for request in requests] == [False, True]

    asyncio.run(test())


def test_the_pause_that_throttling_asks_for_is_passed_on():
    async def test():
        answer = {"status": 429, "headers": {"X-Acs-Retry-After": "2500"}}
        async with answering(answer) as (_, client):
            with pytest.raises(Temporary) as caught:
                await client.invoke_async(NEW, b"", task_id="t")
            assert caught.value.retry_after == timedelta(seconds=2.5)

    asyncio.run(test())


class Instantly(SystemClock):
    """Waits are noted, not waited for."""

    def __init__(self):
        self.waits = []

    async def sleep(self, duration):
        self.waits.append(duration)


def test_reads_are_tried_again_with_the_pause_asked_for_but_not_for_long():
    async def test():
        clock = Instantly()
        busy = {"status": 429, "headers": {"x-acs-retry-after": "60000"}}
        async with answering({"status": 500}, busy, TASK, clock=clock) as (requests, client):
            assert (await client.get_task(NEW, "t")).status == "Running"
            assert len(requests) == 3
            assert clock.waits == [timedelta(seconds=0.2), timedelta(seconds=2)]

    asyncio.run(test())


@pytest.mark.parametrize(
    ("answer", "error", "times"),
    [
        ({"status": 503}, Temporary, 3),
        ({"text": "<html>"}, Temporary, 3),
        ({"text": '{"status":"Running"}'}, Temporary, 3),
        ({"text": '{"taskId":"t","status":"Running","startedTime":1e300}'}, Temporary, 3),
        (drop, OutcomeUnknown, 3),
        ({"status": 400}, Permanent, 1),
        ({"status": 403}, Misconfigured, 2),
    ],
    ids=["503", "html", "no id", "far future", "dropped", "400", "403"],
)
def test_reads_give_up_after_a_few_tries(answer, error, times):
    async def test():
        async with answering(answer, clock=Instantly()) as (requests, client):
            with pytest.raises(error):
                await client.get_task(NEW, "t")
            # The HTTP library may repeat a GET on its own when a kept connection breaks.
            assert len(requests) >= times if answer is drop else len(requests) == times

    asyncio.run(test())


class NoNames(AbstractResolver):
    """Knows no host, and remembers who was asked for."""

    def __init__(self):
        self.asked = []

    async def resolve(self, host, port=0, family=0):
        self.asked.append(host)
        raise OSError(0, "no such host")

    async def close(self):
        pass


@pytest.mark.parametrize(
    ("function", "configured", "host"),
    [
        (FunctionRef("f", region="cn-hangzhou", account="123"), {}, "123.cn-hangzhou.fc.aliyuncs.com"),
        (FunctionRef("f", region="cn-hangzhou", account="12****"), {"account": "9"}, "9.cn-hangzhou.fc.aliyuncs.com"),
        (FunctionRef("f", service="s"), {"account": "9", "region": "eu-central-1"}, "9.eu-central-1.fc.aliyuncs.com"),
        (
            FunctionRef("f", region="evil.example#", account="1"),
            {"region": "cn-beijing"},
            "1.cn-beijing.fc.aliyuncs.com",
        ),
    ],
    ids=["from the ARN", "masked account", "empty", "hostile region"],
)
def test_the_host_comes_from_the_arn_or_the_configuration(function, configured, host):
    async def test():
        resolver = NoNames()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver)) as session:
            client = FcClient(session, credentials=Renewable(LOOPBACK_KEY), clock=SystemClock(), **configured)
            with pytest.raises(Temporary) as caught:
                await client.invoke_async(function, b"", task_id="t")
            assert not isinstance(caught.value, OutcomeUnknown)
            assert resolver.asked == [host]

    asyncio.run(test())


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (FunctionRef("f", region="cn-hangzhou", account="12****"), "account"),
        (FunctionRef("f", service="s"), "region and the account"),
        (FunctionRef("f", region="evil.example/", account="1"), "region"),
    ],
)
def test_a_host_that_cannot_be_known_is_a_matter_of_configuration(function, words):
    async def test():
        async with aiohttp.ClientSession() as session:
            client = FcClient(session, credentials=Renewable(LOOPBACK_KEY), clock=SystemClock())
            with pytest.raises(Misconfigured, match=words):
                await client.invoke_async(function, b"", task_id="t")

    asyncio.run(test())


def test_nobody_listening_is_known_to_have_done_nothing():
    async def test():
        async with aiohttp.ClientSession() as session:
            keys = Renewable(LOOPBACK_KEY)
            client = FcClient(session, credentials=keys, clock=SystemClock(), endpoint="http://127.0.0.1:1")
            with pytest.raises(Temporary) as caught:
                await client.invoke_async(NEW, b"", task_id="t")
            assert (type(caught.value), caught.value.reason) == (Temporary, "unreachable")

    asyncio.run(test())
