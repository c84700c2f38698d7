"""The emulated platform: what it executes, pushes, keeps and refuses."""

import asyncio
import hashlib
import socket
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import aiohttp
import pytest

from triage.clock import SystemClock
from triage.cloud.signing import Credentials, acs3, mns_v2
from triage.emulator.faults import Faults
from triage.emulator.platform import Platform, Refused
from triage.emulator.scenario import AsyncConfig, load_scenario
from triage.emulator.server import LOOPBACK_KEY, serve
from triage.envelope import Outcome, parse_body
from triage.errors import Permanent
from triage.sources.local import LocalQueue

SCENARIO = """
speed: 10000
retry_after: 10s
functions:
  job:
    async: &async {task: true, retries: 1, on_success: done, on_failure: results}
    behaviour:
      - {do: fail, payload: '*flaky*', times: 3}
      - {do: crash, payload: '*crash*'}
      - {do: exhausted, payload: '*busy*'}
      - {do: throttled, payload: '*often*', times: 2}
      - {do: succeed, payload: '*large*', returns: '%s'}
  svc/job:
    async: *async
    behaviour: [{do: fail}]
""" % ("x" * 66_000)


def run(test, *, faults=None, scenario=SCENARIO, push=None):
    """Run ``test(platform, pushed)``; ``pushed`` are queue and body."""

    async def main():
        pushed = []

        async def keep(queue, body):
            pushed.append((queue, body))

        platform = Platform(load_scenario(scenario), push=push or keep, clock=SystemClock(), faults=faults)
        try:
            await test(platform, pushed)
        finally:
            await platform.close()

    asyncio.run(main())


def test_an_event_fails_n_times_over_all_its_submits_then_succeeds():
    async def test(platform, pushed):
        for number in range(3):
            platform.submit("job", b"flaky", task_id=f"t{number}")
            await platform.settled()
        assert [execution.did for execution in platform.executions] == ["fail", "fail", "fail", "succeed", "succeed"]
        assert [execution.attempt for execution in platform.executions] == [1, 2, 1, 2, 1]
        envelopes = [(queue, parse_body(body)) for queue, body in pushed]
        assert [queue for queue, _ in envelopes] == ["results", "done", "done"]
        assert [envelope.invoke_count for _, envelope in envelopes] == [2, 2, 1]
        assert len({envelope.request_id for _, envelope in envelopes}) == 3
        platform.submit("job", b"flaky too")
        await platform.settled()
        assert platform.executions[-1].did == "fail"

    run(test)


@pytest.mark.parametrize(
    ("name", "event", "expected", "message"),
    [
        ("job", b"crash", ("InvocationError", "InvocationError", 2), "Process exited unexpectedly"),
        ("job", b"busy", ("FunctionResourceExhausted", "", 1), ""),
        ("svc/job", b"{}", ("UnhandledInvocationError", "UnhandledInvocationError", 2), "something is wrong"),
    ],
)
def test_failures_are_told_in_the_platforms_words(name, event, expected, message):
    async def test(platform, pushed):
        platform.submit(name, event)
        await platform.settled()
        [(_, body)] = pushed
        envelope = parse_body(body)
        assert (envelope.condition, envelope.function_error, envelope.invoke_count) == expected
        assert message in envelope.error.message
        assert envelope.function.label == name

    run(test)


def test_an_event_that_is_no_text_is_told_as_far_as_it_can_be():
    async def test(platform, pushed):
        platform.submit("job", b"\xff{}")
        await platform.settled()
        assert parse_body(pushed[0][1]).request_payload == "\ufffd{}".encode()

    run(test)


@pytest.mark.parametrize("body", ["raw", "base64"])
def test_bodies_are_raw_or_base64(body):
    async def test(platform, pushed):
        platform.submit("job", b"crash")
        await platform.settled()
        assert pushed[0][1].startswith(b"{" if body == "raw" else b"ey")
        assert parse_body(pushed[0][1]).outcome is Outcome.FAILED

    run(test, scenario=f"body: {body}\n{SCENARIO}")


def test_a_throttled_submit_is_refused_and_not_executed():
    async def test(platform, _pushed):
        for _ in range(2):
            with pytest.raises(Refused, match="429 ResourceExhausted"):
                platform.submit("job", b"often", task_id="t")
        platform.submit("job", b"often", task_id="t")
        await platform.settled()
        assert len(platform.submits) == len(platform.executions) == 1

    run(test)


def test_pushes_can_come_twice():
    async def test(platform, pushed):
        platform.submit("job", b"fine")
        await platform.settled()
        assert len(pushed) == 2
        assert pushed[0] == pushed[1]

    run(test, faults=Faults(1, {"PushResult:duplicate": 1.0}))


def test_pushes_can_come_out_of_order():
    async def test(platform, pushed):
        for number in range(50):
            platform.submit("job", b"%d" % number)
        await platform.settled()
        order = [int(parse_body(body).request_payload) for _, body in pushed]
        assert sorted(order) == list(range(50))
        assert order != sorted(order)

    slow = SCENARIO.replace("speed: 10000", "speed: 20")
    run(test, faults=Faults(1, {"PushResult:delay": 0.5}), scenario=slow)


async def refuse(_queue, _body):
    raise Permanent("QueueNotExist", "it was deleted")


@pytest.mark.parametrize(("event", "push"), [(b"large", None), (b"fine", refuse)], ids=["too large", "no queue"])
def test_a_result_that_cannot_be_delivered_only_shows_in_the_task(event, push):
    async def test(platform, pushed):
        task = platform.submit("job", event)
        await platform.settled()
        assert (task.status, task.destination_status) == ("Succeeded", "Failed")
        assert pushed == []

    run(test, push=push)


def test_a_version_may_have_a_configuration_of_its_own():
    async def test(platform, pushed):
        platform.configure("job", "prod", AsyncConfig(task=False, retries=0, on_failure="other"))
        assert platform.config("job", "canary") == platform.config("job")
        for _ in range(2):
            platform.submit("job", b"crash", qualifier="prod", task_id="t")
        await platform.settled()
        assert Counter(queue for queue, _ in pushed) == {"other": 2}
        assert platform.task("job", "t") is None

    run(test)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"task_id": "1t"}, "InvalidArgument"),
        ({"task_id": "t" * 129}, "InvalidArgument"),
        ({"task_id": "a b"}, "InvalidArgument"),
        ({"delay": timedelta(hours=2)}, "InvalidArgument"),
        ({"name": "nope"}, "FunctionNotFound"),
        ({"event": b"x" * 131_073}, "EntityTooLarge"),
    ],
)
def test_what_the_api_refuses(given, code):
    async def test(platform, _pushed):
        with pytest.raises(Refused) as caught:
            platform.submit(**{"name": "job", "event": b""} | given)
        assert caught.value.code == code
        assert not platform.submits

    run(test)


def test_closing_ends_what_runs():
    async def test(platform, pushed):
        platform.submit("job", b"fine", delay=timedelta(hours=1))
        await platform.close()
        await asyncio.wait_for(platform.settled(), 1)
        assert pushed == []

    run(test, scenario=SCENARIO.replace("10000", "1"))


@asynccontextmanager
async def served(tmp_path, scenario=SCENARIO, **options):
    queues = await LocalQueue.open(tmp_path / "queue.db", clock=SystemClock())
    try:
        async with serve(load_scenario(scenario), queues=queues, clock=SystemClock(), **options) as emulator:
            yield emulator
    finally:
        await queues.close()


def signed(url, *, key=LOOPBACK_KEY, at=None, leave_out=(), **extra):
    headers = {
        "host": url.removeprefix("http://"),
        "x-acs-action": "InvokeFunction",
        "x-acs-version": "2023-03-30",
        "x-acs-date": (at or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x-acs-signature-nonce": "n",
        "x-acs-content-sha256": hashlib.sha256(b"event").hexdigest(),
        "content-type": "application/octet-stream",
        "x-fc-invocation-type": "Async",
        "x-fc-async-task-id": "t",
        **extra,
    }
    path = "/2023-03-30/functions/job/invocations"
    names = headers.keys() - set(leave_out)
    headers["authorization"] = acs3(key, method="POST", path=path, query={}, headers=headers, signed=names)
    return headers


@pytest.mark.parametrize(
    ("options", "change", "status", "code"),
    [
        ({}, {}, 202, None),
        ({"leave_out": ["x-fc-async-task-id"]}, {"x-fc-async-task-id": "other"}, 202, None),
        ({}, {"x-fc-async-task-id": "other"}, 403, "SignatureNotMatch"),
        ({}, {"x-acs-content-sha256": hashlib.sha256(b"").hexdigest()}, 403, "SignatureNotMatch"),
        ({"x-acs-content-sha256": "0" * 64}, {}, 403, "SignatureNotMatch"),
        ({}, {"x-acs-extra": "unsigned"}, 400, "MissingRequiredHeader"),
        ({"leave_out": ["content-type"]}, {}, 400, "MissingRequiredHeader"),
        ({"leave_out": ["x-acs-signature-nonce"]}, {}, 400, "MissingRequiredHeader"),
        ({"at": datetime(2020, 1, 1, tzinfo=UTC)}, {}, 400, "InvalidTimeStamp.Expired"),
        ({"x-acs-date": "yesterday"}, {}, 400, "InvalidTimeStamp.Format"),
        ({"key": Credentials("stranger", "s")}, {}, 403, "InvalidAccessKeyID"),
        ({"key": Credentials("emulator", "s")}, {}, 403, "SignatureNotMatch"),
        ({}, {"authorization": "Bearer x"}, 403, "AccessDenied"),
        ({}, {"authorization": "FC emulator:AAAA", "date": "nonsense"}, 400, "InvalidTimeStamp.Format"),
    ],
    ids=range(14),
)
def test_signatures_are_checked(tmp_path, options, change, status, code):
    async def test():
        async with served(tmp_path) as emulator, aiohttp.ClientSession() as session:
            url = f"{emulator.url}/2023-03-30/functions/job/invocations"
            async with session.post(url, data=b"event", headers=signed(emulator.url, **options) | change) as answer:
                assert answer.status == status
                assert answer.headers["x-fc-request-id"]
                if code:
                    assert (await answer.json())["Code"] == code
            assert len(emulator.fc.submits) == (status == 202)

    asyncio.run(test())


@pytest.mark.parametrize(("fault", "status"), [("server_error", 500), ("throttled", 429)])
def test_injected_errors_mean_that_nothing_was_done(tmp_path, fault, status):
    async def test():
        faults = Faults(1, {f"InvokeFunction:{fault}": 1.0})
        async with served(tmp_path, faults=faults) as emulator, aiohttp.ClientSession() as session:
            url = f"{emulator.url}/2023-03-30/functions/job/invocations"
            async with session.post(url, data=b"event", headers=signed(emulator.url)) as answer:
                assert answer.status == status
                assert (await answer.json())["RequestId"]
            assert not emulator.fc.submits

    asyncio.run(test())


def test_invocations_of_the_scenario_are_made_at_the_start(tmp_path):
    invoke = "invoke: [{function: job, payload: crash, count: 3, after: 5s}]"

    async def test():
        async with served(tmp_path, SCENARIO + invoke) as emulator:
            await emulator.fc.settled()
            messages = await emulator.queues.receive("results", limit=16, wait=timedelta(0))
            assert [parse_body(message.body).request_payload for message in messages] == [b"crash"] * 3

    asyncio.run(test())


def polled(url, query):
    resource, date = f"/queues/results/messages?{query}", format_datetime(datetime.now(UTC), usegmt=True)
    headers = {"date": date, "x-mns-version": "2015-06-06"}
    given = mns_v2(LOOPBACK_KEY, method="GET", resource=resource, date=date, headers=headers)
    return {"url": url + resource, "headers": headers | {"authorization": given}}


def test_requests_of_clients_that_have_gone_do_not_outlive_the_emulator(tmp_path, caplog):
    async def test():
        async with served(tmp_path) as emulator, aiohttp.ClientSession() as session:
            polls = [asyncio.create_task(session.get(**polled(emulator.url, "waitseconds=30"))) for _ in range(3)]
            async with session.get(
                **polled(emulator.url, "peekonly=true")
            ) as answer:  # the ones before it are waiting by now
                assert answer.status == 404
            for poll in polls:
                poll.cancel()
            await asyncio.gather(*polls, return_exceptions=True)

    asyncio.run(test())
    assert caplog.messages == []


def test_a_port_in_use_is_an_error_of_the_caller(tmp_path):
    async def test():
        with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="address already in use"):
            async with served(tmp_path, port=taken.getsockname()[1]):
                pass

    asyncio.run(test())
