"""The SMQ source against an endpoint that answers as it is told: what no well-behaved server does on request.

The seam's own promises are in ``test_source.py``.
"""

import asyncio
import contextlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from triage.cloud.credentials import StaticCredentials
from triage.cloud.signing import Credentials, mns_v2, mns_v4
from triage.envelope import Destination
from triage.errors import Misconfigured, Temporary
from triage.sources import Delivery
from triage.sources.smq import SmqSource
from triage.sources.smq_client import MAX_ANSWER, SmqClient
from triage.sources.smq_wire import Operation

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
KEY = Credentials("id", "hunter2", "hunter2-token")


class LeapingClock:
    """Sleeping moves it, and nothing else does unless told."""

    def __init__(self):
        self.at, self.naps = NOW, []

    def now(self):
        return self.at

    async def sleep(self, duration):
        self.naps.append(duration)
        self.at += max(duration, timedelta(0))

    async def wait(self, event, timeout):  # noqa: ASYNC109 - the clock's signature
        raise NotImplementedError


class Rotating:
    """Credentials of which each renewal gives the next; the last one stays."""

    def __init__(self, *keys):
        self.keys = list(keys)

    async def get(self):
        return self.keys[0]

    async def refresh(self, refused=None):
        if len(self.keys) > 1:
            self.keys.pop(0)


@dataclass
class Endpoint:
    """Gives its answers in order and keeps what it was asked. An answer is a response or makes one from the request."""

    answers: list
    asked: list = field(default_factory=list)
    clock: LeapingClock = field(default_factory=LeapingClock)

    async def handle(self, request):
        self.asked.append((request, await request.text()))
        answer = self.answers.pop(0)
        return answer if isinstance(answer, web.Response) else await answer(self, request)

    @property
    def lines(self):
        return [f"{request.method} {request.raw_path}" for request, _ in self.asked]


@contextlib.asynccontextmanager
async def endpoint(*answers):
    there = Endpoint(list(answers))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", there.handle)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        yield there, str(server.make_url("")), session


@contextlib.asynccontextmanager
async def smq(*answers, credentials=None, **options):
    async with endpoint(*answers) as (there, url, session):
        yield (
            there,
            SmqSource(
                session,
                url,
                "q",
                name="smq",
                credentials=credentials or StaticCredentials(KEY),
                clock=there.clock,
                jitter=lambda: 1.0,
                **options,
            ),
        )


def message(handle="h-1", body="{}", count=1):
    # The server's clock is days off ours.
    return (
        f"<Message><MessageId>m-{handle}</MessageId><ReceiptHandle>{handle}</ReceiptHandle><MessageBody>{body}</MessageBody>"
        f"<MessageBodyMD5>ABC</MessageBodyMD5><EnqueueTime>1767225599000</EnqueueTime>"
        f"<FirstDequeueTime>1767000000000</FirstDequeueTime><NextVisibleTime>1767000045000</NextVisibleTime>"
        f"<DequeueCount>{count}</DequeueCount><Priority>8</Priority></Message>"
    )


def batch(*messages):
    return web.Response(text=f"<Messages>{''.join(messages)}</Messages>", content_type="text/xml")


def error(status, code, **headers):
    text = f"<Error><Code>{code}</Code><Message>it says</Message><RequestId>r-1</RequestId></Error>"
    return web.Response(status=status, text=text, content_type="text/xml", headers=headers)


def empty():
    return error(404, "MessageNotExist")


def empty_after(duration):
    async def answer(there, _request):
        there.clock.at += duration
        return empty()

    return answer


def deleted():
    return web.Response(status=204)


async def lost(there, request):
    """Lose the connection, and the one on which aiohttp sends the request again by itself."""
    if len(there.asked) % 2:
        there.answers.insert(0, lost)
    request.transport.abort()
    return web.Response()


def delivery(handle="h-1"):
    return Delivery(b"{}", f"m-{handle}", handle, NOW)


def run(scenario):
    return asyncio.run(asyncio.wait_for(scenario(), 20))


def test_a_batch_is_received_and_tells_the_lease():
    async def scenario():
        async with smq(batch(message(), message("h-2", count=4)), destination=Destination.FAILURE) as (there, source):
            assert source.lease == 30 * SECOND
            found = await source.receive(limit=16, wait=20 * SECOND)
            assert there.lines == ["GET /queues/q/messages?numOfMessages=16&waitseconds=20"]
            return source, found

    source, (first, second) = run(scenario)
    assert (source.name, source.destination, source.lease) == ("smq", Destination.FAILURE, 45 * SECOND)
    assert (first.body, first.message_id, first.receipt_handle) == (b"{}", "m-h-1", "h-1")
    assert (first.body_md5, first.enqueued_at) == ("ABC", NOW - SECOND)
    assert (first.lease_until, first.receive_count) == (NOW + 45 * SECOND, 1)
    assert (second.lease_until, second.receive_count) == (NOW + 45 * SECOND, 4)


@pytest.mark.parametrize(
    ("limit", "wait", "lines"),
    [
        (1, 0.0, ["waitseconds=0"]),
        (5, 1.2, ["numOfMessages=5&waitseconds=2"]),
        (99, 30.0, ["numOfMessages=16&waitseconds=30"]),
        (2, 40.0, ["numOfMessages=2&waitseconds=30", "numOfMessages=2&waitseconds=10"]),
    ],
)
def test_limits_and_waits_are_those_of_the_service(limit, wait, lines):
    async def hold(there, request):
        there.clock.at += int(request.query["waitseconds"]) * SECOND
        return empty()

    async def scenario():
        async with smq(*[hold] * len(lines)) as (there, source):
            assert await source.receive(limit=limit, wait=timedelta(seconds=wait)) == []
            return there

    there = run(scenario)
    assert there.lines == [f"GET /queues/q/messages?{line}" for line in lines]
    assert there.clock.naps == []


@pytest.mark.parametrize("signature", ["v2", "v4"])
def test_requests_are_signed_as_sent(signature):
    async def scenario():
        handle = "1-O+DU/4=="
        new = web.Response(text="<ChangeVisibility><ReceiptHandle>n</ReceiptHandle></ChangeVisibility>")
        async with smq(batch(), new, deleted(), signature=signature, region="cn-hangzhou") as (there, source):
            await source.receive(limit=16, wait=timedelta(0))
            assert await source.extend(delivery(handle), 60 * SECOND)
            assert await source.ack([delivery(handle)]) == []
            return there.asked

    for request, _ in run(scenario):
        headers = request.headers
        assert headers["security-token"] == KEY.security_token
        assert headers["x-mns-version"] == "2015-06-06"
        kind = headers.get("Content-Type", "")
        if signature == "v2":
            expected = mns_v2(
                KEY,
                method=request.method,
                resource=request.raw_path,
                date=headers["Date"],
                headers=headers,
                content_type=kind,
            )
        else:
            expected = mns_v4(
                KEY,
                region="cn-hangzhou",
                at="20260101T000000Z",
                method=request.method,
                path=request.path,
                query=request.query,
                headers=headers,
            )
        assert headers["Authorization"] == expected


@pytest.mark.parametrize(
    ("url", "options", "reason"),
    [
        ("ftp://a", {}, "endpoint"),
        ("example", {}, "endpoint"),
        ("http://a/queues", {}, "endpoint"),
        ("http://[", {}, "endpoint"),
        ("http://a:b", {}, "endpoint"),
        ("http://id:hunter2@a", {}, "endpoint"),
        ("http://a", {"signature": "v4"}, "region"),
    ],
)
def test_an_unusable_configuration_is_refused_at_the_start(url, options, reason):
    with pytest.raises(Misconfigured) as caught:
        SmqSource(None, url, "q", name="smq", credentials=StaticCredentials(KEY), clock=LeapingClock(), **options)
    assert caught.value.reason == reason
    assert "hunter2" not in str(caught.value)


def test_early_empty_answers_make_it_ask_less_and_less_often():
    async def scenario():
        answers = [empty() for _ in range(7)] + [batch(message()), empty(), empty_after(29 * SECOND)]
        async with smq(*answers) as (there, source):
            found = await source.receive(limit=16, wait=300 * SECOND)
            after = await source.receive(limit=16, wait=30 * SECOND)
            return there, found, after

    there, found, after = run(scenario)
    assert len(found) == 1
    assert after == []
    assert [nap / SECOND for nap in there.clock.naps] == [0.5, 1, 2, 4, 8, 10, 10, 0.5]
    assert there.lines[-2:] == ["GET /queues/q/messages?numOfMessages=16&waitseconds=30"] * 2


def test_early_empty_answers_never_make_it_wait_longer_than_asked():
    async def scenario():
        async with smq(*(empty() for _ in range(3))) as (there, source):
            assert await source.receive(limit=16, wait=2 * SECOND) == []
            return there.clock

    clock = run(scenario)
    assert clock.at == NOW + 2 * SECOND


def test_acks_go_in_sixteens_at_the_same_time():
    async def scenario():
        together = asyncio.Barrier(3)

        async def answer(_there, _request):
            await together.wait()
            return deleted()

        async with smq(*[answer] * 3) as (there, source):
            assert await source.ack([delivery(f"h-{n}") for n in range(40)]) == []
            return there.asked

    bodies = [body for _, body in run(scenario)]
    assert sorted(body.count("<ReceiptHandle>") for body in bodies) == [8, 16, 16]
    assert sorted(re.findall(r"h-\d+", "".join(bodies))) == sorted(f"h-{n}" for n in range(40))


def test_what_could_not_be_deleted_is_returned():
    async def scenario():
        entries = "".join(
            f"<Error><ErrorCode>{code}</ErrorCode><ErrorMessage/><ReceiptHandle>{handle}</ReceiptHandle></Error>"
            for code, handle in (("MessageNotExist", "b"), ("ReceiptHandleError", "c"))
        )
        partly = web.Response(status=404, text=f"<Errors>{entries}</Errors>")
        async with smq(partly, error(404, "MessageNotExist")) as (there, source):
            given = [delivery(handle) for handle in ("a", "b", "", "c", "d")]
            left = await source.ack(given)
            assert {id(one) for one in left} == {id(given[n]) for n in (1, 2, 3)}
            assert await source.ack([given[0]]) == [given[0]]
            assert await source.ack([given[2]]) == [given[2]]
            assert await source.ack([]) == []
            assert len(there.asked) == 2

    run(scenario)


def test_a_lost_answer_is_asked_for_again_three_times_at_most():
    async def scenario():
        async with smq(lost, error(500, "InternalError"), deleted()) as (there, source):
            assert await source.ack([delivery()]) == []
            assert len(there.clock.naps) == 2
        async with smq(*(error(503, "") for _ in range(3))) as (there, source):
            with pytest.raises(Temporary):
                await source.ack([delivery()])
            assert there.answers == []

    run(scenario)


def test_one_refused_part_does_not_keep_the_others_from_being_deleted():
    async def scenario():
        async with smq(error(404, "QueueNotExist"), deleted(), deleted()) as (there, source):
            with pytest.raises(Misconfigured, match="QueueNotExist"):
                await source.ack([delivery(f"h-{n}") for n in range(40)])
            assert there.answers == []

    run(scenario)


@pytest.mark.parametrize(
    ("answer", "kind", "reason", "says"),
    [
        (error(500, "InternalError"), Temporary, "server_error", "r-1"),
        (web.Response(status=502, text="<html>"), Temporary, "server_error", "502"),
        (error(429, "TooManyRequests", **{"Retry-After": "7"}), Temporary, "throttled", "it says"),
        (error(400, "QpsLimitExceeded"), Temporary, "throttled", "QpsLimitExceeded"),
        (lost, Temporary, "network", "http://127.0.0.1"),
        (web.Response(text="<html>sign in</html>"), Temporary, "unreadable_answer", "sign in"),
        (error(404, "QueueNotExist"), Misconfigured, "queue", "create queue 'q'"),
        (web.Response(status=404, text="nothing here"), Misconfigured, "endpoint", "no answer of SMQ"),
        (web.Response(status=302, headers={"Location": "/elsewhere"}), Misconfigured, "endpoint", "302"),
        (error(400, "InvalidArgument"), Misconfigured, "refused", "InvalidArgument"),
    ],
    ids=["500", "502", "429", "qps", "lost", "page", "queue", "404", "redirect", "bug"],
)  # fmt: skip
def test_refusals_are_named_and_never_quote_the_secret(answer, kind, reason, says):
    async def scenario():
        async with smq(answer) as (there, source):
            with pytest.raises(kind) as caught:
                await source.receive(limit=16, wait=timedelta(0))
            assert there.answers == []
            assert "GET /elsewhere" not in there.lines
            return caught.value

    refusal = run(scenario)
    assert refusal.reason == reason
    assert says in str(refusal)
    assert "hunter2" not in str(refusal)
    if "Retry" in str(getattr(answer, "headers", "")):
        assert refusal.retry_after == 7 * SECOND


def test_nobody_listening_is_temporary():
    async def scenario():
        async with aiohttp.ClientSession() as session:
            source = SmqSource(
                session,
                "http://127.0.0.1:1",
                "q",
                name="smq",
                credentials=StaticCredentials(KEY),
                clock=LeapingClock(),
            )
            with pytest.raises(Temporary, match="network"):
                await source.receive(limit=1, wait=SECOND)

    run(scenario)


def test_a_server_that_hangs_is_given_up_on():
    async def scenario():
        released = asyncio.Event()

        async def hang(_there, _request):
            await released.wait()
            return deleted()

        async with endpoint(hang) as (there, url, session):
            client = SmqClient(
                session,
                url,
                "q",
                credentials=StaticCredentials(KEY),
                clock=there.clock,
                signature="v2",
                region="",
                reply_within=timedelta(milliseconds=50),
            )
            with pytest.raises(Temporary) as caught:
                await client.ask(Operation.DELETE, {})
            released.set()
            return caught.value.reason

    assert run(scenario) == "timeout"


def test_a_wrong_clock_is_corrected_from_the_answer_and_stays_corrected():
    theirs = NOW + timedelta(hours=3)

    async def scenario():
        answers = error(408, "TimeExpired", Date=format_datetime(theirs, usegmt=True)), batch(message()), batch()
        async with smq(*answers) as (there, source):
            (found,) = await source.receive(limit=16, wait=SECOND)
            there.clock.at += timedelta(hours=1)
            await source.receive(limit=16, wait=timedelta(0))
            return found, [request.headers["Date"] for request, _ in there.asked]

    found, dates = run(scenario)
    assert dates == [format_datetime(at, usegmt=True) for at in (NOW, theirs, theirs + timedelta(hours=1))]
    assert found.lease_until == NOW + 45 * SECOND


@pytest.mark.parametrize(
    ("dates", "requests"),
    [(["Thu, 01 Jan 2026 03:00:00 GMT"] * 2, 2), (["yesterday"], 1)],
    ids=["no use", "no date"],
)
def test_a_clock_that_cannot_be_corrected_is_reported(dates, requests):
    async def scenario():
        async with smq(*(error(408, "TimeExpired", Date=date) for date in dates)) as (there, source):
            with pytest.raises(Misconfigured, match="NTP"):
                await source.receive(limit=16, wait=SECOND)
            return len(there.asked)

    assert run(scenario) == requests


@pytest.mark.parametrize(
    ("keys", "answers", "reason", "used"),
    [
        (["a", "b"], [error(403, "InvalidAccessKeyId"), batch()], "", ["a", "b"]),
        (["a", "b"], [error(403, "SignatureDoesNotMatch"), error(403, "AccessDenied")], "credentials", ["a", "b"]),
        (["a"], [error(403, "AccessDenied")], "credentials", ["a"]),
        (["a", "b"], [web.Response(status=401), batch()], "", ["a", "b"]),
    ],
    ids=["renewed", "renewed in vain", "nothing to renew", "unknown code"],
)
def test_a_refused_key_is_renewed_once(keys, answers, reason, used):
    async def scenario():
        credentials = Rotating(*(Credentials(key, "secret") for key in keys))
        async with smq(*answers, credentials=credentials) as (there, source):
            try:
                await source.receive(limit=16, wait=timedelta(0))
                said = ""
            except Misconfigured as refusal:
                said = refusal.reason
            return said, [re.match(r"MNS (\w+):", request.headers["Authorization"])[1] for request, _ in there.asked]

    assert run(scenario) == (reason, used)


def test_an_unreadable_message_does_not_hold_up_its_batch_and_can_be_deleted():
    async def scenario():
        async with smq(batch(message("a"), message("b", "\x01"), message("c")), deleted()) as (there, source):
            found = await source.receive(limit=16, wait=SECOND)
            assert await source.ack(found) == []
            return found, there.asked[-1][1]

    (first, bad, last), request = run(scenario)
    assert (first.unreadable, last.unreadable) == ("", "")
    assert bad.unreadable.startswith("not well-formed")
    assert b"<MessageBody>\x01</MessageBody>" in bad.body
    assert re.findall(r"<ReceiptHandle>(\w)<", request) == ["a", "b", "c"]


def test_a_message_without_a_readable_handle_is_isolated_by_receiving_singly():
    bad = message("\x02").encode().decode()

    async def scenario():
        answers = batch(message("a"), bad), empty(), web.Response(text=bad), batch()
        async with smq(*answers) as (there, source):
            (first,) = await source.receive(limit=16, wait=timedelta(0))
            assert await source.receive(limit=16, wait=timedelta(0)) == []
            (isolated,) = await source.receive(limit=16, wait=timedelta(0))
            assert await source.ack([isolated]) == [isolated]
            await source.receive(limit=16, wait=timedelta(0))
            return there, first, isolated

    there, first, isolated = run(scenario)
    assert first.receipt_handle == "a"
    assert isolated.unreadable.startswith("not well-formed")
    assert isolated.body == bad.encode()
    assert ["numOfMessages" in line for line in there.lines] == [True, False, False, True]


def test_receiving_singly_ends_when_the_message_does_not_come_again():
    async def scenario():
        async with smq(batch(message("a"), message("\x02")), batch()) as (there, source):
            await source.receive(limit=16, wait=timedelta(0))
            there.clock.at += 2 * source.lease
            await source.receive(limit=16, wait=timedelta(0))
            return there.lines

    assert all("numOfMessages" in line for line in run(scenario))


def test_an_endless_answer_is_cut_off_without_losing_what_came_before():
    async def scenario():
        async with smq(batch(message("a"), message("b", "x" * MAX_ANSWER))) as (_, source):
            return await source.receive(limit=16, wait=timedelta(0))

    assert [one.receipt_handle for one in run(scenario)] == ["a"]


def test_compressed_answers_are_read():
    async def scenario():
        answer = batch(message())
        answer.enable_compression(web.ContentCoding.gzip)
        async with smq(answer) as (_, source):
            return await source.receive(limit=16, wait=timedelta(0))

    assert [one.body for one in run(scenario)] == [b"{}"]


@pytest.mark.parametrize(
    ("by", "seconds"),
    [(timedelta(0), 1), (timedelta(seconds=20.5), 21), (timedelta(days=2), 43200)],
    ids=["least", "rounded up", "most"],
)
def test_extending_updates_handle_and_lease(by, seconds):
    async def scenario():
        new = web.Response(text="<ChangeVisibility><ReceiptHandle>new</ReceiptHandle></ChangeVisibility>")
        async with smq(new) as (there, source):
            one = delivery("a/b")
            assert await source.extend(one, by)
            return one, there.lines

    one, lines = run(scenario)
    assert lines == [f"PUT /queues/q/messages?ReceiptHandle=a%2Fb&VisibilityTimeout={seconds}"]
    assert (one.receipt_handle, one.lease_until) == ("new", NOW + seconds * SECOND)


@pytest.mark.parametrize(
    ("answers", "handle"),
    [
        ([error(404, "MessageNotExist")], "h"),
        ([error(400, "ReceiptHandleError")], "h"),
        ([web.Response(text="<ChangeVisibility/>")], "h"),
        ([], ""),
    ],
    ids=["gone", "stale", "no new handle", "no handle"],
)
def test_a_lease_that_cannot_be_extended_is_not_ours(answers, handle):
    async def scenario():
        async with smq(*answers) as (there, source):
            one = delivery(handle)
            assert not await source.extend(one, 60 * SECOND)
            return one, there.answers

    one, left = run(scenario)
    assert (one.lease_until, left) == (NOW, [])
