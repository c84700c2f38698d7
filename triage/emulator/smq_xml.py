"""SMQ's XML as the service reads and writes it. Pure.

Requests are outside text: a DTD is refused, depth and number of elements are bounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple
from xml.parsers import expat

from triage.errors import Permanent
from triage.sources.queue_tables import Failed, Message, QueueInfo, QueueStats, Sent, wire_name

NAMESPACE: Final = "http://mns.aliyuncs.com/doc/v1/"

_DEEPEST: Final = 8
_MOST_ELEMENTS: Final = 5000


class Element(NamedTuple):
    """An element with its own text and its children; name without prefix."""

    name: str
    text: str
    children: tuple[Element, ...]

    def get(self, name: str) -> str | None:
        """Text of the first child of this name."""
        return next((child.text for child in self.children if child.name == name), None)


def read(xml: bytes) -> Element:
    """Read a request's body.

    Raises:
        Permanent: ``MalformedXML``, with the place.
    """
    open_: list[tuple[str, list[str], list[Element]]] = [("", [], [])]
    elements = 0

    def start(name: str, _attributes: object) -> None:
        nonlocal elements
        elements += 1
        if len(open_) > _DEEPEST or elements > _MOST_ELEMENTS:
            raise Permanent("MalformedXML", "the XML is nested too deep or has too many elements")
        open_.append((name.rpartition(":")[2], [], []))

    def end(_name: str) -> None:
        name, text, children = open_.pop()
        open_[-1][2].append(Element(name, "".join(text), tuple(children)))

    def characters(text: str) -> None:
        open_[-1][1].append(text)

    def doctype(*_: object) -> None:
        raise Permanent("MalformedXML", "a document type declaration is not allowed")

    parser = expat.ParserCreate("utf-8")  # whatever the declaration says: other encodings raise errors of all kinds
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(xml, True)  # noqa: FBT003 - expat takes no keyword
    except expat.ExpatError as error:
        place = f"line {error.lineno}, column {error.offset}"
        raise Permanent("MalformedXML", f"{expat.ErrorString(error.code)} at {place}") from None
    return open_[0][2][0]


def write(element: Element) -> bytes:
    """The XML of an element as it was read."""
    return _element(element.name, _escaped(element.text.encode()), *map(write, element.children))


def error_body(code: str, detail: str, *, request_id: str, host: str) -> bytes:
    """``<Error>``, the answer to a request that was refused."""
    return _document("Error", _fields(Code=code, Message=detail, RequestId=request_id, HostId=host))


def sent_body(answer: Sent) -> bytes:
    """``<Message>``, the answer to a send."""
    return _document("Message", _sent(answer))


def batch_sent_body(answers: Iterable[Sent | Failed]) -> bytes:
    """``<Messages>``, the answer to a batch send. The SDKs take an entry for a failure by its exact set of fields."""
    entries = (
        _fields(ErrorCode=answer.code, ErrorMessage=answer.detail)
        if isinstance(answer, Failed)
        else _fields(MessageId=answer.message_id, MessageBodyMD5=answer.body_md5)
        for answer in answers
    )
    return _document("Messages", *(_element("Message", entry) for entry in entries))


def message_body(message: Message) -> bytes:
    """``<Message>``, the answer to a receive or a peek."""
    return _document("Message", _message(message))


def messages_body(messages: Iterable[Message]) -> bytes:
    """``<Messages>``, the answer to a batch receive or peek."""
    return _document("Messages", *(_element("Message", _message(message)) for message in messages))


def delete_errors_body(failures: Iterable[Failed]) -> bytes:
    """``<Errors>``, the answer to a batch delete of which some failed."""
    return _document(
        "Errors",
        *(
            _element(
                "Error",
                _fields(ErrorCode=failed.code, ErrorMessage=failed.detail, ReceiptHandle=failed.subject),
            )
            for failed in failures
        ),
    )


def visibility_body(handle: str, until: int) -> bytes:
    """``<ChangeVisibility>``; ``until`` is epoch milliseconds."""
    return _document("ChangeVisibility", _fields(ReceiptHandle=handle, NextVisibleTime=until))


def queue_body(queue: QueueInfo, stats: QueueStats) -> bytes:
    """``<Queue>``, a queue's attributes."""
    return _document("Queue", _queue(queue, stats))


def queues_body(queues: Iterable[tuple[str, QueueInfo, QueueStats | None]], *, next_marker: str) -> bytes:
    """``<Queues>``, a list of queues as (URL, queue, stats); without stats only the URL is told."""
    entries = (
        _element("Queue", _fields(QueueURL=url), b"" if stats is None else _queue(queue, stats))
        for url, queue, stats in queues
    )
    return _document("Queues", *entries, _fields(NextMarker=next_marker) if next_marker else b"")


def _queue(queue: QueueInfo, stats: QueueStats) -> bytes:
    attributes = queue.attributes
    return _fields(
        QueueName=queue.name,
        CreateTime=queue.created_at // 1000,
        LastModifyTime=queue.modified_at // 1000,
        **{wire_name(name): getattr(attributes, name) for name in attributes.__dataclass_fields__},
        ActiveMessages=stats.active,
        InactiveMessages=stats.inactive,
        DelayMessages=stats.delayed,
        LoggingEnabled="False",
    )


def _sent(answer: Sent) -> bytes:
    handle = _fields(ReceiptHandle=answer.receipt_handle) if answer.receipt_handle else b""
    return _fields(MessageId=answer.message_id, MessageBodyMD5=answer.body_md5) + handle


def _message(message: Message) -> bytes:
    leased = bool(message.receipt_handle)  # a peeked message has neither handle nor lease
    return b"".join(
        (
            _fields(MessageId=message.message_id, MessageBodyMD5=message.body_md5),
            _fields(ReceiptHandle=message.receipt_handle, NextVisibleTime=message.visible_at) if leased else b"",
            # As stored, byte for byte: a body that no XML can carry makes the answer unreadable, as SMQ's own does.
            _element("MessageBody", _escaped(message.body)),
            _fields(
                EnqueueTime=message.enqueued_at,
                FirstDequeueTime=message.first_dequeued_at,
                DequeueCount=message.dequeue_count,
                Priority=message.priority,
            ),
            message.properties.encode(),
        )
    )


def _document(name: str, *content: bytes) -> bytes:
    root = f'<{name} xmlns="{NAMESPACE}">'.encode()
    return b"".join((b'<?xml version="1.0" encoding="utf-8"?>', root, *content, f"</{name}>".encode()))


def _fields(**values: str | int) -> bytes:
    return b"".join(_element(name, _escaped(str(value).encode())) for name, value in values.items())


def _element(name: str, *content: bytes) -> bytes:
    tag = name.encode()
    return b"".join((b"<", tag, b">", *content, b"</", tag, b">"))


def _escaped(raw: bytes) -> bytes:
    # A carriage return that is not escaped is read as a line feed.
    return raw.replace(b"&", b"&amp;").replace(b"<", b"&lt;").replace(b">", b"&gt;").replace(b"\r", b"&#13;")
