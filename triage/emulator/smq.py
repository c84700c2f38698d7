"""SMQ's HTTP interface over a local queue, so that official SDKs and the ``smq`` source can talk to it.

Operations: https://help.aliyun.com/document_detail/35134.html (messages) and the pages beside it (queues). Best served
with ``web.AppRunner(app, handler_cancellation=True)``: a long poll then ends with its client. Without it, one whose
client has gone gives back what it took, but the message then counts as delivered once.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from email.utils import format_datetime
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from triage.clock import Clock, token
from triage.cloud.signing import Credentials
from triage.emulator import smq_xml
from triage.emulator.faults import Fault, Faults, fault_of, faults_middleware
from triage.emulator.smq_auth import SignedRequest, authenticate, check_digest
from triage.emulator.smq_xml import Element
from triage.errors import Permanent, StoreUnavailable
from triage.sources.local import LocalQueue, milliseconds
from triage.sources.queue_tables import (
    DEFAULT_PRIORITY,
    Failed,
    Outgoing,
    QueueAttributes,
    Sent,
    check_range,
    wire_name,
)

log = logging.getLogger(__name__)

VERSION: Final = "2015-06-06"
BATCH: Final = 16
_LARGEST_BATCH: Final = 65_536  # bytes, all bodies of a batch together
_LARGEST_REQUEST: Final = 1 << 20  # bytes; room for 64 KB with every character escaped
_QUEUE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,119}")
_ATTRIBUTES: Final = {wire_name(name): name for name in QueueAttributes.__dataclass_fields__}
_PROPERTIES: Final = ("UserProperties", "SystemProperties")
_STATUS: Final = {
    "QueueNotExist": 404,
    "MessageNotExist": 404,
    "TimeExpired": 408,
    "QueueAlreadyExist": 409,
    "InvalidAccessKeyId": 403,
    "SignatureDoesNotMatch": 403,
    "AccessDenied": 403,
    "TooManyRequests": 429,
    "InternalError": 500,
}
"""HTTP status by error code; all others are 400."""

Operation = Callable[[web.Request, bytes], Awaitable[web.Response]]


def smq_routes(
    queues: LocalQueue,
    *,
    credentials: Callable[[str], Credentials | None],
    clock: Clock,
    faults: Faults | None = None,
) -> list[web.RouteDef]:
    """Routes for everything under ``/queues``.

    Args:
        credentials: by access key id; None refuses.
        faults: what goes wrong; operations are named as in ``operation_of``.
    """
    endpoint = _Endpoint(queues, credentials, clock)
    handler: Handler = endpoint.answer
    if faults is not None:
        middleware = faults_middleware(faults, operation=operation_of, refuse=endpoint.fail, clock=clock)

        async def faulty(request: web.Request) -> web.StreamResponse:
            return await middleware(request, endpoint.answer)

        handler = faulty
    return [web.route("*", path, handler) for path in ("/queues", "/queues/{queue}", "/queues/{queue}/{rest:.*}")]


def operation_of(request: web.Request) -> str:
    """SMQ's name of what is asked for, the batch forms under the name of the single one; "" when it is nothing."""
    query = request.query
    match request.match_info.get("queue"), request.match_info.get("rest"), request.method:
        case None, None, "GET":
            return "ListQueue"
        case _, None, "PUT":
            return "SetQueueAttributes" if query.get("metaoverride") == "true" else "CreateQueue"
        case _, None, "GET":
            return "GetQueueAttributes"
        case _, None, "DELETE":
            return "DeleteQueue"
        case _, "messages", "POST":
            return "SendMessage"
        case _, "messages", "GET":
            return "PeekMessage" if query.get("peekonly") == "true" else "ReceiveMessage"
        case _, "messages", "PUT":
            return "ChangeMessageVisibility"
        case _, "messages", "DELETE":
            return "DeleteMessage"
    return ""


class _Endpoint:
    """The handlers and what they share."""

    def __init__(self, queues: LocalQueue, credentials: Callable[[str], Credentials | None], clock: Clock) -> None:
        self._queues, self._credentials, self._clock = queues, credentials, clock
        self._operations: Mapping[str, Operation] = {
            "ListQueue": self._list_queues,
            "CreateQueue": self._create_queue,
            "SetQueueAttributes": self._set_queue_attributes,
            "GetQueueAttributes": self._get_queue_attributes,
            "DeleteQueue": self._delete_queue,
            "SendMessage": self._send,
            "ReceiveMessage": self._receive,
            "PeekMessage": self._peek,
            "ChangeMessageVisibility": self._change_visibility,
            "DeleteMessage": self._delete,
        }

    async def answer(self, request: web.Request) -> web.Response:
        try:
            body = await _read(request)
            signed = SignedRequest(
                method=request.method,
                resource=request.raw_path,
                path=request.path,
                query=request.query,
                headers={name.lower(): value for name, value in request.headers.items()},
            )
            authenticate(signed, credentials=self._credentials, now=self._clock.now())
            check_digest(request.headers.get("Content-MD5", ""), body)
            return await self._operations.get(operation_of(request), _unknown)(request, body)
        except Permanent as error:
            return self._refuse(request, error.reason, error.detail)
        except StoreUnavailable as error:
            log.error("%s", error)  # noqa: TRY400 - the text says it all; the client is told no paths
            return self._refuse(request, "InternalError", "the queue file cannot be used")

    def fail(self, request: web.Request, fault: Fault) -> web.Response:
        """The answer to a request that a fault has struck."""
        if fault is Fault.THROTTLED:
            return self._refuse(request, "TooManyRequests", "denied by cluster flow limiter")
        return self._refuse(request, "InternalError", "internal error")

    def _refuse(self, request: web.Request, code: str, detail: str) -> web.Response:
        request_id = _request_id()
        body = smq_xml.error_body(code, detail, request_id=request_id, host=_base(request))
        return self._respond(_STATUS.get(code, 400), body, request_id=request_id)

    def _respond(
        self, status: int, body: bytes = b"", *, request_id: str = "", headers: Mapping[str, str] | None = None
    ) -> web.Response:
        return web.Response(
            status=status,
            body=body or None,
            content_type="text/xml" if body else None,
            charset="utf-8" if body else None,
            headers={
                "x-mns-request-id": request_id or _request_id(),
                "x-mns-version": VERSION,
                "Date": format_datetime(self._clock.now(), usegmt=True),
                **(headers or {}),
            },
        )

    async def _list_queues(self, request: web.Request, _: bytes) -> web.Response:
        headers = request.headers
        limit = _number(headers, "x-mns-ret-number", default=1000, low=1, high=1000)
        found = await self._queues.list_queues(
            prefix=headers.get("x-mns-prefix", ""), after=headers.get("x-mns-marker", ""), limit=limit + 1
        )
        with_meta = headers.get("x-mns-with-meta", "").lower() == "true"
        page = [
            (
                f"{_base(request)}/queues/{queue.name}",
                queue,
                await self._queues.stats(queue.name) if with_meta else None,
            )
            for queue in found[:limit]
        ]
        marker = found[limit - 1].name if len(found) > limit else ""
        return self._respond(200, smq_xml.queues_body(page, next_marker=marker))

    async def _create_queue(self, request: web.Request, body: bytes) -> web.Response:
        name = _queue(request)
        if len(name) > 120:
            raise Permanent("QueueNameLengthError", "a queue's name has at most 120 characters")
        if not _QUEUE_NAME.fullmatch(name):
            raise Permanent("InvalidQueueName", "a queue's name is letters, digits and hyphens")
        created = await self._queues.create_queue(name, QueueAttributes(**_attributes(body)))
        return self._respond(201 if created else 204, headers={"Location": f"{_base(request)}/queues/{name}"})

    async def _set_queue_attributes(self, request: web.Request, body: bytes) -> web.Response:
        await self._queues.set_attributes(_queue(request), _attributes(body))
        return self._respond(204)

    async def _get_queue_attributes(self, request: web.Request, _: bytes) -> web.Response:
        name = _queue(request)
        return self._respond(
            200, smq_xml.queue_body(await self._queues.get_queue(name), await self._queues.stats(name))
        )

    async def _delete_queue(self, request: web.Request, _: bytes) -> web.Response:
        await self._queues.delete_queue(_queue(request))
        return self._respond(204)

    async def _send(self, request: web.Request, body: bytes) -> web.Response:
        root = smq_xml.read(body)
        if root.name == "Message":
            [answer] = await self._store(request, [_outgoing(root)])
            if isinstance(answer, Failed):
                raise Permanent(answer.code, answer.detail)
            return self._respond(201, smq_xml.sent_body(answer))
        if root.name != "Messages" or any(child.name != "Message" for child in root.children):
            raise Permanent("MalformedXML", "expected Message, or Messages with Message elements")
        check_range("number of messages", len(root.children), 1, BATCH)
        total = sum(len((child.get("MessageBody") or "").encode()) for child in root.children)
        check_range("size of all messages", total, 1, _LARGEST_BATCH)
        answers = await self._store(request, [_outgoing(child) for child in root.children])
        # Which status a partial failure has is not documented; the SDKs expect one from 400 on.
        status = 400 if any(isinstance(answer, Failed) for answer in answers) else 201
        return self._respond(status, smq_xml.batch_sent_body(answers))

    async def _store(self, request: web.Request, entries: list[Outgoing | Failed]) -> list[Sent | Failed]:
        messages = [entry for entry in entries if isinstance(entry, Outgoing)]
        stored = iter(await self._queues.send(_queue(request), messages))
        if fault_of(request) is Fault.DUPLICATE:
            await self._queues.send(_queue(request), messages)
        return [next(stored) if isinstance(entry, Outgoing) else entry for entry in entries]

    async def _receive(self, request: web.Request, _: bytes) -> web.Response:
        query = request.query
        limit = _number(query, "numOfMessages", default=1, low=1, high=BATCH)
        wait = timedelta(seconds=_number(query, "waitseconds", default=0, low=0, high=30))
        messages = await self._queues.receive(
            _queue(request), limit=limit, wait=wait if "waitseconds" in query else None
        )
        if request.transport is None:  # the client has gone, and nobody else would get them before the lease ends
            for message in messages:
                await self._queues.change_visibility(_queue(request), message.receipt_handle, timedelta(0))
        if not messages:
            raise Permanent("MessageNotExist", "Message not exist.")
        several = "numOfMessages" in query
        return self._respond(200, smq_xml.messages_body(messages) if several else smq_xml.message_body(messages[0]))

    async def _peek(self, request: web.Request, _: bytes) -> web.Response:
        limit = _number(request.query, "numOfMessages", default=1, low=1, high=BATCH)
        messages = await self._queues.peek(_queue(request), limit=limit)
        if not messages:
            raise Permanent("MessageNotExist", "Message not exist.")
        several = "numOfMessages" in request.query
        return self._respond(200, smq_xml.messages_body(messages) if several else smq_xml.message_body(messages[0]))

    async def _change_visibility(self, request: web.Request, _: bytes) -> web.Response:
        query = _any_case(request)
        if not (handle := query.get("receipthandle")):
            raise Permanent("MissingReceiptHandle", "the query has no ReceiptHandle")
        if "visibilitytimeout" not in query:
            raise Permanent("MissingVisibilityTimeout", "the query has no VisibilityTimeout")
        seconds = _number(query, "visibilitytimeout", default=0, low=0, high=43_200)
        handle, until = await self._queues.change_visibility(_queue(request), handle, timedelta(seconds=seconds))
        return self._respond(200, smq_xml.visibility_body(handle, milliseconds(until)))

    async def _delete(self, request: web.Request, body: bytes) -> web.Response:
        if handle := _any_case(request).get("receipthandle"):
            for failed in await self._queues.delete(_queue(request), [handle]):
                raise Permanent(failed.code, failed.detail)
            return self._respond(204)
        if not body:
            raise Permanent("MissingReceiptHandle", "neither the query nor the body has a ReceiptHandle")
        root = smq_xml.read(body)
        if root.name != "ReceiptHandles" or any(child.name != "ReceiptHandle" for child in root.children):
            raise Permanent("MalformedXML", "expected ReceiptHandles with ReceiptHandle elements")
        check_range("number of receipt handles", len(root.children), 1, BATCH)
        failures = await self._queues.delete(_queue(request), [child.text for child in root.children])
        return self._respond(404, smq_xml.delete_errors_body(failures)) if failures else self._respond(204)


async def _unknown(_request: web.Request, _body: bytes) -> web.Response:
    raise Permanent("InvalidRequestURL", "there is no such operation")


async def _read(request: web.Request) -> bytes:
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > _LARGEST_REQUEST:
            raise Permanent("InvalidArgument", f"the request's body has more than {_LARGEST_REQUEST} bytes")
    return bytes(body)


def _outgoing(element: Element) -> Outgoing | Failed:
    body, delay, priority = (element.get(name) for name in ("MessageBody", "DelaySeconds", "Priority"))
    if not body:
        return Failed("InvalidArgument", "MessageBody is missing or empty")
    try:
        return Outgoing(
            body.encode(),
            delay=None if delay is None else int(delay),
            priority=DEFAULT_PRIORITY if priority is None else int(priority),
            properties=b"".join(
                smq_xml.write(child) for child in element.children if child.name in _PROPERTIES
            ).decode(),
        )
    except ValueError:
        return Failed("InvalidArgument", "DelaySeconds and Priority must be whole numbers")


def _attributes(body: bytes) -> dict[str, int]:
    if not body:
        return {}
    root = smq_xml.read(body)
    if root.name != "Queue":
        raise Permanent("MalformedXML", "expected Queue")
    given = {child.name: child.text for child in root.children if child.name in _ATTRIBUTES}
    return {_ATTRIBUTES[name]: _whole(name, text) for name, text in given.items()}


def _number(values: Mapping[str, str], name: str, *, default: int, low: int, high: int) -> int:
    if name not in values:
        return default
    number = _whole(name, values[name])
    check_range(name, number, low, high)
    return number


def _whole(name: str, text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,9}", text.strip()):
        raise Permanent("InvalidArgument", f"{name} must be a whole number")
    return int(text)


def _any_case(request: web.Request) -> dict[str, str]:
    """The query by lower-case names: the documentation writes receiptHandle, the SDKs ReceiptHandle."""
    return {name.lower(): value for name, value in request.query.items()}


def _queue(request: web.Request) -> str:
    return request.match_info["queue"]


def _base(request: web.Request) -> str:
    return f"{request.scheme}://{request.host}"


def _request_id() -> str:
    return token()[:24].upper()
