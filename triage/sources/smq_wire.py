"""SMQ's XML and error codes, as values. Pure.

Names and shapes follow the official SDKs (https://github.com/aliyun/aliyun-mns-python-sdk and its Java and Go
siblings); the error codes are on https://help.aliyun.com/document_detail/27501.html. The answers are outside text: a
DTD is refused before anything in it is read, depth is bounded, and only `UnreadableAnswer` is raised.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple
from xml.parsers import expat
from xml.sax.saxutils import escape, unescape

from triage.errors import TriageError

NAMESPACE: Final = "http://mns.aliyuncs.com/doc/v1/"
BATCH: Final = 16
"""Messages per batch request, the service's maximum."""
MAX_DEPTH: Final = 8
_LONGEST_LEASE_MS: Final = 12 * 3600 * 1000


class UnreadableAnswer(TriageError):
    """An answer that is not the XML it should be."""


class Operation(StrEnum):
    """What was asked of the queue."""

    RECEIVE = "receive"
    DELETE = "delete"
    EXTEND = "extend"  # ChangeMessageVisibility
    SEND = "send"  # only for drills


class Verdict(StrEnum):
    """What an answer means for us: a closed set."""

    OK = "ok"
    EMPTY = "empty"  # no message came while we waited
    GONE = "gone"  # the receipt handle is not ours any more: deleted, or leased to somebody else
    RETRY = "retry"  # later, with a growing pause
    REFRESH_CREDENTIALS = "refresh_credentials"  # once; then a person must look
    FIX_CLOCK = "fix_clock"  # sign with the server's time, once; then a person must look
    MISCONFIGURED = "misconfigured"  # a person must look
    BUG = "bug"  # a request of ours that is never right


_CODES: Final[dict[str, Verdict]] = {
    "QueueNotExist": Verdict.MISCONFIGURED,
    "InvalidQueueName": Verdict.MISCONFIGURED,
    "QueueNameLengthError": Verdict.MISCONFIGURED,
    "TopicNotExist": Verdict.MISCONFIGURED,
    "SubscriptionNotExist": Verdict.MISCONFIGURED,
    "SubscriberNotExist": Verdict.MISCONFIGURED,
    "SignatureDoesNotMatch": Verdict.REFRESH_CREDENTIALS,
    "InvalidAccessKeyId": Verdict.REFRESH_CREDENTIALS,
    "AccessDenied": Verdict.REFRESH_CREDENTIALS,
    "TimeExpired": Verdict.FIX_CLOCK,
    "TooManyRequests": Verdict.RETRY,
    "QpsLimitExceeded": Verdict.RETRY,  # named by older SDKs, with no status told
    "InternalError": Verdict.RETRY,
    "InternalServerError": Verdict.RETRY,
    "InvalidAuthorizationHeader": Verdict.BUG,
    "InvalidDateHeader": Verdict.BUG,
    "MissingAuthorizationHeader": Verdict.BUG,
    "MissingDateHeader": Verdict.BUG,
    "MissingVersionHeader": Verdict.BUG,
    "InvalidArgument": Verdict.BUG,
    "InvalidDegist": Verdict.BUG,  # the service's spelling
    "InvalidDigest": Verdict.BUG,
    "InvalidRequestURL": Verdict.BUG,
    "InvalidQueryString": Verdict.BUG,
    "MalformedXML": Verdict.BUG,
    "MissingReceiptHandle": Verdict.BUG,
    "MissingVisibilityTimeout": Verdict.BUG,
    "QueueDeletedRecently": Verdict.BUG,  # this and the following: only to requests we never make
    "QueueAlreadyExist": Verdict.BUG,
    "TopicAlreadyExist": Verdict.BUG,
    "TopicNameInvalid": Verdict.BUG,
}

_HANDLE_CODES: Final = ("MessageNotExist", "ReceiptHandleError")


def classify(operation: Operation, status: int, code: str) -> Verdict:
    """What the answer means, by its error code, or by its HTTP status where the code is unknown or missing."""
    if 200 <= status < 300:
        return Verdict.OK
    if code in _HANDLE_CODES:
        if operation in (Operation.DELETE, Operation.EXTEND):
            return Verdict.GONE
        return Verdict.EMPTY if (operation, code) == (Operation.RECEIVE, "MessageNotExist") else Verdict.BUG
    if code in _CODES:
        return _CODES[code]
    if status in (401, 403):
        return Verdict.REFRESH_CREDENTIALS
    if status >= 500 or status in (408, 425, 429):
        return Verdict.RETRY
    # A redirect or a page that is not there: something at this address answers, but not SMQ.
    return Verdict.MISCONFIGURED if status < 400 or status in (404, 405, 410) else Verdict.BUG


class WireMessage(NamedTuple):
    """A received message. (A named tuple is made in a quarter of a frozen dataclass's time; this is the hot path.)

    Attributes:
        lease_ms: its visibility time-out, by the server's own clock at both ends; only a first delivery tells, else 0.
        unreadable: what was wrong with the XML; ``body`` is then the XML itself.
    """

    message_id: str
    receipt_handle: str
    body: bytes
    body_md5: str = ""
    enqueued_at: datetime | None = None
    receive_count: int = 1
    lease_ms: int = 0
    unreadable: str = ""


@dataclass(frozen=True, slots=True)
class WireError:
    """An error answer, or one entry of a batch's; ``receipt_handle`` is only set for the latter."""

    code: str
    message: str = ""
    request_id: str = ""
    receipt_handle: str = ""


def parse_messages(xml: bytes) -> list[WireMessage]:
    """Read the answer to a receive: ``<Message>`` or ``<Messages>``.

    Raises:
        UnreadableAnswer: nothing else, whatever the input.
    """
    return [_message(fields) for fields in _records(xml, single="Message", several="Messages")]


def salvage_messages(xml: bytes, reason: str) -> list[WireMessage]:
    """Cut an unreadable answer at ``<Message>`` and read each piece for itself, so that one bad message (SMQ takes
    bodies with control characters, which no XML can carry) does not hold up the others. A piece that cannot be read
    becomes a message with ``unreadable`` set and whatever handle its bytes show; one that is cut off shows none, since
    deleting it would lose the rest.
    """
    pieces = re.split(rb"(?=<Message[\s>])", xml, maxsplit=BATCH)[1:]
    if len(pieces) < 2:
        return [_unreadable(xml, reason)] if pieces else []
    messages = []
    for piece in pieces:
        inside, end, _ = piece.partition(b"</Message>")
        try:
            messages += parse_messages(inside + end)
        except UnreadableAnswer as error:
            message = _unreadable(inside + end, str(error))
            messages.append(message if end else message._replace(receipt_handle=""))
    return messages


def parse_error(xml: bytes) -> WireError:
    """Read ``<Error>``; an answer that is none (a proxy's page) gives an empty code."""
    try:
        fields = next(iter(_records(xml, single="Error", several="")), {})
    except UnreadableAnswer:
        fields = {}
    return WireError(fields.get("Code", ""), fields.get("Message", ""), fields.get("RequestId", ""))


def parse_errors(xml: bytes) -> list[WireError]:
    """Read ``<Errors>``, the answer to a batch delete of which some failed. Handles not named in it were deleted.

    Raises:
        UnreadableAnswer: it is something else, such as the ``<Error>`` of a refused request.
    """
    return [
        WireError(
            fields.get("ErrorCode", ""),
            fields.get("ErrorMessage", ""),
            receipt_handle=fields.get("ReceiptHandle", ""),
        )
        for fields in _records(xml, single="Error", several="Errors")
        if "ErrorCode" in fields
    ]


def parse_visibility(xml: bytes) -> str:
    """Read ``<ChangeVisibility>``: the new receipt handle; the old one is void.

    Raises:
        UnreadableAnswer: it is something else, or has no handle.
    """
    fields = next(iter(_records(xml, single="ChangeVisibility", several="")), {})
    if not fields.get("ReceiptHandle"):
        raise UnreadableAnswer("no ReceiptHandle in ChangeVisibility")
    return fields["ReceiptHandle"]


def send_body(body: bytes) -> bytes:
    """The request that sends a message. Base64, as the official SDKs send it, needs no escape."""
    return (
        b'<?xml version="1.0" encoding="UTF-8"?><Message xmlns="http://mns.aliyuncs.com/doc/v1/"><MessageBody>'
        + b64encode(body)
        + b"</MessageBody></Message>"
    )


def delete_body(handles: Iterable[str]) -> bytes:
    """The request body of a batch delete."""
    entries = "".join(f"<ReceiptHandle>{escape(handle)}</ReceiptHandle>" for handle in handles)
    return (
        f'<?xml version="1.0" encoding="utf-8"?><ReceiptHandles xmlns="{NAMESPACE}">{entries}</ReceiptHandles>'.encode()
    )


def _records(xml: bytes, *, single: str, several: str) -> list[dict[str, str]]:
    """The ``<single>`` elements, alone or inside ``<several>``, each as its children's texts."""
    records: list[dict[str, str]] = []
    fields: dict[str, str] = {}
    text: list[str] = []
    depth = level = 0  # level: depth of the record that is open

    def start(name: str, _attributes: object) -> None:
        nonlocal depth, level, fields
        depth += 1
        if level:
            text.clear()
            if depth > MAX_DEPTH:
                raise UnreadableAnswer(f"XML nested deeper than {MAX_DEPTH}")
        elif name == single:
            level = depth
            fields = {}
            records.append(fields)
        elif depth > 1 or name != several:
            raise UnreadableAnswer(f"<{name[:100]}> where <{single}> was expected")

    def end(name: str) -> None:
        nonlocal depth, level
        if depth == level + 1:
            fields[name] = "".join(text)
        elif depth == level:
            level = 0
        depth -= 1

    _parse(xml, start, end, text.append)
    return records


def _parse(
    xml: bytes, start: Callable[[str, Any], None], end: Callable[[str], None], text: Callable[[str], None]
) -> None:
    parser = expat.ParserCreate("utf-8")  # whatever the declaration says: other encodings raise errors of all kinds
    parser.buffer_text = True
    parser.buffer_size = 1 << 16
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(xml, True)  # noqa: FBT003 - expat takes no keyword
    except expat.ExpatError as error:
        place = f"line {error.lineno}, column {error.offset}"
        raise UnreadableAnswer(f"{expat.ErrorString(error.code)} at {place}") from None


def _refuse_doctype(*_: object) -> None:
    raise UnreadableAnswer("XML with a DTD is refused")


def _message(fields: dict[str, str]) -> WireMessage:
    get = fields.get
    count = _number(get("DequeueCount", ""), default=1)
    lease = _number(get("NextVisibleTime", "")) - _number(get("FirstDequeueTime", "")) if count == 1 else 0
    return WireMessage(
        get("MessageId", ""),
        get("ReceiptHandle", ""),
        get("MessageBody", "").encode(),
        get("MessageBodyMD5", ""),
        _instant(get("EnqueueTime", "")),
        count,
        lease if 0 < lease <= _LONGEST_LEASE_MS else 0,
    )


def _unreadable(xml: bytes, reason: str) -> WireMessage:
    return WireMessage(_shown(xml, b"MessageId"), _shown(xml, b"ReceiptHandle"), xml, unreadable=reason)


def _shown(xml: bytes, name: bytes) -> str:
    """The text of an element that shows in bytes which are no XML; "" unless it is printable and stands there once."""
    found = re.findall(rb"<%b>([!-;=-~]{1,1024})</%b>" % (name, name), xml)
    return unescape(found[0].decode()) if len(found) == 1 else ""


def _number(text: str, *, default: int = 0) -> int:
    try:
        return int(text)
    except ValueError:
        return default


def _instant(milliseconds: str) -> datetime | None:
    try:
        return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
