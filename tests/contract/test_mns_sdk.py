"""The SMQ endpoint as independent clients see it: the official ``aliyun-mns-sdk``, and requests built by hand."""

import asyncio
import base64
import hashlib
import io
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from mns.account import Account
from mns.message_property import MessagePropertyValue
from mns.mns_exception import MNSClientNetworkException, MNSServerException
from mns.queue import Message, QueueMeta
from yarl import URL

from triage.clock import SystemClock
from triage.cloud.signing import Credentials, mns_v2, mns_v4
from triage.emulator.faults import Faults
from triage.emulator.smq import smq_routes
from triage.sources.local import LocalQueue
from triage.sources.queue_tables import Outgoing

# The SDK marks its own counters as deprecated, and reads them itself.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated function:DeprecationWarning")

KEY = Credentials("testid", "testsecret")
TEMPORARY = Credentials("STS.id", "stssecret", "the-token")
KEYS = {key.access_key_id: key for key in (KEY, TEMPORARY)}


class Shifted(SystemClock):
    """A clock that is wrong."""

    def __init__(self, by: timedelta = timedelta(0)) -> None:
        self.by = by

    def now(self) -> datetime:
        return super().now() + self.by


def serve(
    tmp_path: Path,
    test: Callable[[str, LocalQueue], Awaitable[None]],
    *,
    clock: Any = None,
    faults: Faults | None = None,
    cancels: bool = True,
) -> None:
    """Run ``test`` with the address of an endpoint."""

    async def main() -> None:
        now = clock or SystemClock()
        queues = await LocalQueue.open(tmp_path / "queue.db", clock=now)
        app = web.Application()
        app.add_routes(smq_routes(queues, credentials=KEYS.get, clock=now, faults=faults))
        runner = web.AppRunner(app, handler_cancellation=cancels, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            async with asyncio.timeout(30):
                await test(f"http://127.0.0.1:{runner.addresses[0][1]}", queues)
        finally:
            await runner.cleanup()
            await queues.close()

    asyncio.run(main())


def with_sdk(tmp_path: Path, script: Callable[[Account], None], *, key: Credentials = KEY, **options: Any) -> None:
    """Run a synchronous ``script`` with the official client, in a thread."""

    async def test(url: str, queues: LocalQueue) -> None:
        def in_thread() -> None:
            account = Account(url, key.access_key_id, key.access_key_secret, key.security_token)
            try:
                script(account)
            finally:
                account.mns_client.close_connection()

        await asyncio.to_thread(in_thread)

    serve(tmp_path, test, **options)


@contextmanager
def refused(code: str) -> Iterator[Any]:
    with pytest.raises(MNSServerException) as error:
        yield error
    assert error.value.type == code


def test_sdk_manages_queues_and_attributes(tmp_path: Path) -> None:
    def script(account: Account) -> None:
        queue = account.get_queue("results")
        url = queue.create(QueueMeta(vis_timeout=45, polling_wait_sec=2))
        assert url.endswith("/queues/results")
        assert queue.create(QueueMeta(vis_timeout=45, polling_wait_sec=2)) == url
        with refused("QueueAlreadyExist"):
            queue.create(QueueMeta(vis_timeout=46))
        queue.set_attributes(QueueMeta(msg_ttl=3600, delay_sec=5))
        meta = queue.get_attributes()
        assert (meta.visibility_timeout, meta.polling_wait_seconds) == (45, 2)
        assert (meta.message_retention_period, meta.delay_seconds, meta.maximum_message_size) == (3600, 5, 65536)
        assert (meta.queue_name, meta.logging_enabled) == ("results", False)
        assert meta.last_modify_time >= meta.create_time > 1_700_000_000
        for name in ("ra", "rb", "s"):
            account.get_queue(name).create(QueueMeta())
        page, marker = account.list_queue(prefix="r", ret_number=2)
        rest, end = account.list_queue(prefix="r", ret_number=2, marker=marker)
        assert [url.rpartition("/")[2] for url in page + rest] == ["ra", "rb", "results"]
        assert end == ""
        queue.delete()
        queue.delete()
        with refused("QueueNotExist"):
            queue.get_attributes()
        with refused("QueueNotExist"):
            queue.receive_message(0)
        with refused("InvalidQueueName"):
            account.get_queue("a_b").create(QueueMeta())
        with refused("QueueNameLengthError"):
            account.get_queue("a" * 121).create(QueueMeta())

    with_sdk(tmp_path, script)


@pytest.mark.parametrize("encoded", [True, False], ids=["base64", "raw"])
def test_sdk_sends_receives_and_deletes(tmp_path: Path, encoded: bool) -> None:
    text = '{"requestId": "ä\r\n\t<&>]]>", "emoji": "🦊"}'

    def script(account: Account) -> None:
        queue = account.get_queue("q")
        queue.create(QueueMeta())
        queue.set_encoding(encoded)
        with refused("MessageNotExist"):
            queue.receive_message(0)
        outgoing = Message(text, priority=3)
        outgoing.add_user_property("trace", MessagePropertyValue("STRING", "a<b"))
        sent = queue.send_message(outgoing)
        peeked = queue.peek_message()
        message = queue.receive_message(0)
        # An XML reader turns the client's own CR LF into LF before we see it, as any XML does.
        expected = text.encode() if encoded else text.replace("\r\n", "\n")
        assert peeked.message_body == message.message_body == expected
        assert sent.message_id == peeked.message_id == message.message_id
        stored = base64.b64encode(text.encode()) if encoded else str(expected).encode()
        assert sent.message_body_md5 == message.message_body_md5 == hashlib.md5(stored).hexdigest().upper()
        assert (message.priority, message.dequeue_count, peeked.dequeue_count) == (3, 1, 0)
        assert message.next_visible_time - message.first_dequeue_time == 30_000
        assert message.user_properties["trace"].get_string_value_by_type() == "a<b"
        old = message.receipt_handle
        changed = queue.change_message_visibility(old, 60)
        assert changed.receipt_handle != old
        with refused("MessageNotExist"):
            queue.delete_message(old)
        queue.delete_message(changed.receipt_handle)
        with refused("MessageNotExist"):
            queue.delete_message(changed.receipt_handle)
        with refused("ReceiptHandleError"):
            queue.delete_message("nonsense")
        delayed = queue.send_message(Message("later", delay_seconds=60))
        with refused("MessageNotExist"):
            queue.receive_message(0)
        queue.delete_message(delayed.receipt_handle)

    with_sdk(tmp_path, script)


def test_sdk_batches_with_partial_failures(tmp_path: Path) -> None:
    def script(account: Account) -> None:
        queue = account.get_queue("q")
        queue.create(QueueMeta(max_msg_size=1024))
        queue.set_encoding(False)
        sent = queue.batch_send_message([Message(f"m{number}") for number in range(16)])
        assert len({message.message_id for message in sent}) == 16
        assert len(queue.batch_peek_message(16)) == 16
        received = queue.batch_receive_message(16, 0)
        assert sorted(message.message_body for message in received) == sorted(f"m{number}" for number in range(16))
        with refused("MessageNotExist"):
            queue.batch_receive_message(16, 0)
        handles = [message.receipt_handle for message in received]
        queue.batch_delete_message(handles[:8])
        with refused("MessageNotExist") as error:
            queue.batch_delete_message(handles[6:12])
        assert [entry["ReceiptHandle"] for entry in error.value.sub_errors] == handles[6:8]
        queue.batch_delete_message(handles[12:])
        with refused("InvalidArgument") as error:
            queue.batch_send_message([Message("good"), Message("x" * 1025), Message("fine")])
        assert [sorted(entry) for entry in error.value.sub_errors] == [
            ["MessageBodyMD5", "MessageId"],
            ["ErrorCode", "ErrorMessage"],
            ["MessageBodyMD5", "MessageId"],
        ]
        assert sorted(message.message_body for message in queue.batch_receive_message(16, 0)) == ["fine", "good"]
        with refused("InvalidArgument"):
            queue.send_message(Message("x" * 1025))

    with_sdk(tmp_path, script)


def test_sdk_with_a_security_token(tmp_path: Path) -> None:
    def script(account: Account) -> None:
        account.get_queue("q").create(QueueMeta())

    with_sdk(tmp_path, script, key=TEMPORARY)


@pytest.mark.parametrize(
    ("key", "shift", "code"),
    [
        (Credentials("testid", "not-the-secret"), 0, "SignatureDoesNotMatch"),
        (Credentials("nobody", "testsecret"), 0, "InvalidAccessKeyId"),
        (Credentials("STS.id", "stssecret"), 0, "AccessDenied"),
        (Credentials("STS.id", "stssecret", "old-token"), 0, "AccessDenied"),
        (KEY, 16, "TimeExpired"),
        (KEY, -16, "TimeExpired"),
    ],
)
def test_sdk_is_refused(tmp_path: Path, key: Credentials, shift: int, code: str) -> None:
    def script(account: Account) -> None:
        with refused(code) as error:
            account.get_queue("q").create(QueueMeta())
        assert len(error.value.req_id) == 24
        assert key.access_key_secret not in str(error.value)

    with_sdk(tmp_path, script, key=key, clock=Shifted(timedelta(minutes=shift)))


def test_sdk_meets_faults_and_what_was_done_is_done(tmp_path: Path) -> None:
    rates = {
        "SendMessage:duplicate": 1.0,
        "ReceiveMessage:throttled": 1.0,
        "PeekMessage:server_error": 1.0,
        "CreateQueue:lost_answer": 1.0,
    }

    def script(account: Account) -> None:
        queue = account.get_queue("q")
        with pytest.raises(MNSClientNetworkException):
            queue.create(QueueMeta())
        queue.send_message(Message("twice"))
        assert queue.get_attributes().active_messages == 2
        with refused("TooManyRequests"):
            queue.receive_message(0)
        with refused("InternalError"):
            queue.peek_message()

    with_sdk(tmp_path, script, faults=Faults(1, rates))


def test_delayed_request_is_carried_out_late(tmp_path: Path) -> None:
    slept: list[timedelta] = []

    class Patient(SystemClock):
        async def sleep(self, duration: timedelta) -> None:
            slept.append(duration)

    def script(account: Account) -> None:
        account.get_queue("q").create(QueueMeta())

    with_sdk(tmp_path, script, faults=Faults(1, {"delay": 1.0}), clock=Patient())
    assert slept == [timedelta(seconds=1)]


async def request(
    url: str,
    method: str,
    resource: str,
    body: bytes = b"",
    *,
    headers: dict[str, str] | None = None,
    drop: str = "",
    v4: bool = False,
) -> tuple[int, str]:
    """A signed request by hand; answers status and body. ``drop`` leaves out a header."""
    now = SystemClock().now()
    sent = {"Date": format_datetime(now, usegmt=True), "x-mns-version": "2015-06-06", **(headers or {})}
    if body:
        sent.setdefault("Content-Type", "text/xml")
    if v4:
        target = URL(resource, encoded=True)
        sent["Authorization"] = mns_v4(
            KEY,
            region="cn-hangzhou",
            at=f"{now:%Y%m%dT%H%M%SZ}",
            method=method,
            path=target.path,
            query=target.query,
            headers=sent,
        )
    else:
        sent.setdefault(
            "Authorization",
            mns_v2(
                KEY,
                method=method,
                resource=resource,
                date=sent.get("x-mns-date", sent["Date"]),
                headers=sent,
                content_md5=sent.get("Content-MD5", ""),
                content_type=sent.get("Content-Type", ""),
            ),
        )
    sent.pop(drop, None)
    async with (
        aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as session,
        session.request(
            method, URL(url + resource, encoded=True), data=io.BytesIO(body) if body else None, headers=sent
        ) as response,
    ):
        assert len(response.headers["x-mns-request-id"]) == 24
        assert response.headers["x-mns-version"] == "2015-06-06"
        assert response.headers["Date"]
        return response.status, await response.text()


MESSAGES = "/queues/q/messages"
BOMB = b'<!DOCTYPE a [<!ENTITY x "xx"><!ENTITY y "&x;&x;">]><Message><MessageBody>&y;</MessageBody></Message>'
ALIEN = b'<?xml version="1.0" encoding="utf-16"?><Message><MessageBody>m</MessageBody></Message>'


def md5(form: bytes) -> dict[str, str]:
    return {"Content-MD5": base64.b64encode(form).decode()}


SEND = b"<Message><MessageBody>m</MessageBody></Message>"
DIGEST = hashlib.md5(SEND)

REQUESTS = {
    "no authorization": ("GET", MESSAGES, b"", {"drop": "Authorization"}, 400, "MissingAuthorizationHeader"),
    "no version": ("GET", MESSAGES, b"", {"drop": "x-mns-version"}, 400, "MissingVersionHeader"),
    "no date": ("GET", MESSAGES, b"", {"drop": "Date"}, 400, "MissingDateHeader"),
    "bad date": ("GET", MESSAGES, b"", {"headers": {"Date": "yesterday"}}, 400, "InvalidDateHeader"),
    "bad authorization": ("GET", MESSAGES, b"", {"headers": {"Authorization": "Basic x"}}, 400, "InvalidAuthorizationHeader"),
    "old date": ("GET", MESSAGES, b"", {"headers": {"Date": "Tue, 01 Jan 2019 00:00:00 GMT"}}, 408, "TimeExpired"),
    "x-mns-date replaces date": (
        "GET",
        MESSAGES,
        b"",
        {"headers": {"x-mns-date": format_datetime(SystemClock().now(), usegmt=True), "Date": "Tue, 01 Jan 2019 00:00:00 GMT"}},
        404,
        "MessageNotExist",
    ),
    "signed with v4": ("GET", MESSAGES + "?numOfMessages=3&waitseconds=0", b"", {"v4": True}, 404, "MessageNotExist"),
    "sent with v4": ("POST", MESSAGES, SEND, {"v4": True}, 201, "<MessageId>"),
    "v4, wrong header": (
        "GET", MESSAGES, b"", {"v4": True, "drop": "Date", "headers": {"x-mns-date": "Tue, 01 Jan 2019 00:00:00 GMT"}}, 408, "TimeExpired",
    ),
    "md5 of the bytes": ("POST", MESSAGES, SEND, {"headers": md5(DIGEST.digest())}, 201, "<MessageId>"),
    "md5 of the hex": ("POST", MESSAGES, SEND, {"headers": md5(DIGEST.hexdigest().encode())}, 201, "<MessageId>"),
    "md5 of something else": ("POST", MESSAGES, SEND, {"headers": md5(b"0" * 16)}, 400, "InvalidDigest"),
    "escaped query is signed as sent": ("DELETE", MESSAGES + "?ReceiptHandle=a%2Fb%20c", b"", {}, 400, "ReceiptHandleError"),
    "small receiptHandle": ("DELETE", MESSAGES + "?receiptHandle=x", b"", {}, 400, "ReceiptHandleError"),
    "no handle": ("DELETE", MESSAGES, b"", {}, 400, "MissingReceiptHandle"),
    "no handle to change": ("PUT", MESSAGES + "?VisibilityTimeout=1", b"", {}, 400, "MissingReceiptHandle"),
    "no time to change": ("PUT", MESSAGES + "?receiptHandle=x", b"", {}, 400, "MissingVisibilityTimeout"),
    "time out of range": ("PUT", MESSAGES + "?receiptHandle=x&visibilityTimeout=43201", b"", {}, 400, "InvalidArgument"),
    "17 messages": ("GET", MESSAGES + "?numOfMessages=17", b"", {}, 400, "InvalidArgument"),
    "31 seconds": ("GET", MESSAGES + "?waitseconds=31", b"", {}, 400, "InvalidArgument"),
    "no number": ("GET", MESSAGES + "?waitseconds=soon", b"", {}, 400, "InvalidArgument"),
    "unknown operation": ("PATCH", MESSAGES, b"", {}, 400, "InvalidRequestURL"),
    "unknown path": ("GET", "/queues/q/elsewhere", b"", {}, 400, "InvalidRequestURL"),
    "no XML": ("POST", MESSAGES, b'{"json": 1}', {}, 400, "MalformedXML"),
    "cut XML": ("POST", MESSAGES, SEND[:-5], {}, 400, "MalformedXML"),
    "no body": ("POST", MESSAGES, b"", {}, 400, "MalformedXML"),
    "entity bomb": ("POST", MESSAGES, BOMB, {}, 400, "MalformedXML"),
    "encoding that lies": ("POST", MESSAGES, ALIEN, {}, 201, "<MessageId>"),
    "not UTF-8": ("POST", MESSAGES, b"<Message><MessageBody>\xff</MessageBody></Message>", {}, 400, "MalformedXML"),
    "deep XML": ("POST", MESSAGES, b"<a>" * 5000, {}, 400, "MalformedXML"),
    "very many elements": ("POST", MESSAGES, b"<Message>" + b"<a/>" * 6000 + b"</Message>", {}, 400, "MalformedXML"),
    "other root": ("POST", MESSAGES, b"<Queue/>", {}, 400, "MalformedXML"),
    "no MessageBody": ("POST", MESSAGES, b"<Message/>", {}, 400, "InvalidArgument"),
    "bad priority": ("POST", MESSAGES, SEND.replace(b"</Message>", b"<Priority>high</Priority></Message>"), {}, 400, "InvalidArgument"),
    "too much in a batch": (
        "POST", MESSAGES, b"<Messages>" + SEND.replace(b">m<", b">" + b"x" * 40_000 + b"<") * 2 + b"</Messages>", {}, 400, "InvalidArgument",
    ),
    "17 in a batch": ("POST", MESSAGES, b"<Messages>" + SEND * 17 + b"</Messages>", {}, 400, "InvalidArgument"),
    "largest message": ("POST", MESSAGES, SEND.replace(b">m<", b">" + b"&amp;" * 65_536 + b"<"), {}, 201, "<MessageId>"),
    "too large a message": ("POST", MESSAGES, SEND.replace(b">m<", b">" + b"x" * 65_537 + b"<"), {}, 400, "InvalidArgument"),
    "too large a request": ("POST", MESSAGES, b" " * ((1 << 20) + 1), {}, 400, "InvalidArgument"),
    "prefixed XML": (
        "POST", MESSAGES, b'<m:Message xmlns:m="http://mns.aliyuncs.com/doc/v1/"><m:MessageBody>m</m:MessageBody></m:Message>', {}, 201, "<MessageId>",
    ),
    "attribute out of range": ("PUT", "/queues/n", b"<Queue><DelaySeconds>-1</DelaySeconds></Queue>", {}, 400, "DelaySeconds is -1"),
    "attributes of no queue": ("PUT", "/queues/n?metaoverride=true", b"<Queue/>", {}, 404, "QueueNotExist"),
}  # fmt: skip


def test_requests_by_hand_get_the_documented_answers(tmp_path: Path) -> None:
    async def test(url: str, queues: LocalQueue) -> None:
        for name, (method, resource, body, options, status, expected) in REQUESTS.items():
            await queues.delete_queue("q")
            await queues.create_queue("q")
            got = await request(url, method, resource, body, **options)
            assert (name, got[0], expected in got[1]) == (name, status, True), got[1]

    serve(tmp_path, test)


class Watched(SystemClock):
    """Tells when somebody begins and stops to wait."""

    def __init__(self) -> None:
        self.begun, self.ended = asyncio.Queue[None](), asyncio.Queue[None]()

    async def wait(self, event: asyncio.Event, timeout: timedelta | None) -> bool:  # noqa: ASYNC109
        self.begun.put_nowait(None)
        try:
            return await super().wait(event, timeout)
        finally:
            self.ended.put_nowait(None)


@pytest.mark.parametrize("cancels", [True, False], ids=["cancelled", "not cancelled"])
def test_long_poll_over_http_keeps_nothing_for_a_client_that_has_gone(tmp_path: Path, cancels: bool) -> None:
    clock = Watched()

    async def test(url: str, queues: LocalQueue) -> None:
        await queues.create_queue("q")
        gone = asyncio.create_task(request(url, "GET", MESSAGES + "?waitseconds=30"))
        await clock.begun.get()
        gone.cancel()
        if cancels:
            await clock.ended.get()
        waiting = asyncio.create_task(request(url, "GET", MESSAGES + "?numOfMessages=16&waitseconds=30"))
        await clock.begun.get()
        await queues.send("q", [Outgoing(b"m")])
        status, body = await waiting
        assert (status, f"<DequeueCount>{1 if cancels else 2}<" in body) == (200, True)

    serve(tmp_path, test, clock=clock, cancels=cancels)
