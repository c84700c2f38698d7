"""What the queue file's tables mean: SMQ's queue semantics as functions over a connection inside a transaction.

Instants are epoch milliseconds (``now`` is an argument), durations seconds, as the wire has them. Facts:
https://help.aliyun.com/document_detail/35129.html and the pages beside it.

A message is *active* from ``visible_at`` on. Receiving it moves ``visible_at`` to the end of the lease and writes a
fresh receipt, so a receipt is valid exactly as long as it is the last one and the message is invisible.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final

from triage.errors import Misconfigured, Permanent

MAX_PRIORITY: Final = 16
DEFAULT_PRIORITY: Final = 8


def _attribute(default: int, low: int, high: int) -> int:
    value: int = field(default=default, metadata={"range": (low, high)})
    return value


@dataclass(frozen=True, slots=True)
class QueueAttributes:
    """Settings of a queue; seconds, and bytes for the size.

    Raises:
        Permanent: ``InvalidArgument``, a value is out of its range.
    """

    visibility_timeout: int = _attribute(30, 1, 43_200)
    maximum_message_size: int = _attribute(65_536, 1_024, 65_536)
    message_retention_period: int = _attribute(345_600, 60, 604_800)
    delay_seconds: int = _attribute(0, 0, 604_800)
    polling_wait_seconds: int = _attribute(0, 0, 30)

    def __post_init__(self) -> None:
        for attribute in fields(self):
            check_range(wire_name(attribute.name), getattr(self, attribute.name), *attribute.metadata["range"])


def wire_name(attribute: str) -> str:
    """SMQ's name of an attribute: ``DelaySeconds`` for ``delay_seconds``."""
    return attribute.title().replace("_", "")


def check_range(name: str, value: int, low: int, high: int) -> None:
    """Raise `Permanent` ``InvalidArgument`` unless ``low <= value <= high``."""
    if not low <= value <= high:
        raise Permanent("InvalidArgument", f"{name} is {value}, must be between {low} and {high}")


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """A queue as it stands. ``created_at`` and ``modified_at`` are epoch milliseconds."""

    name: str
    attributes: QueueAttributes
    created_at: int
    modified_at: int


@dataclass(frozen=True, slots=True)
class QueueStats:
    """How many messages can be received now, are leased, and have not become visible yet; when the oldest was sent."""

    active: int
    inactive: int
    delayed: int
    oldest_at: int | None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send.

    Attributes:
        body: kept as it is.
        delay: seconds until it can be received; None takes the queue's ``delay_seconds``.
        priority: 1 (first) to 16.
        properties: opaque text that is given back with the message.
    """

    body: bytes
    delay: int | None = None
    priority: int = DEFAULT_PRIORITY
    properties: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """A stored message. ``receipt_handle`` is given for a delayed one, which may be deleted before it is delivered."""

    message_id: str
    body_md5: str
    receipt_handle: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """A message as received, or as peeked (then without a receipt handle). Instants are epoch milliseconds."""

    message_id: str
    body: bytes
    body_md5: str
    priority: int
    enqueued_at: int
    visible_at: int
    first_dequeued_at: int
    dequeue_count: int
    properties: str
    receipt_handle: str


@dataclass(frozen=True, slots=True)
class Failed:
    """One part of a batch that was not carried out. ``subject`` is the receipt handle, where there is one."""

    code: str
    detail: str
    subject: str = ""


_ATTRIBUTES = ", ".join(attribute.name for attribute in fields(QueueAttributes))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_HANDLE = re.compile(r"([0-9]{1,18})-([0-9a-f]{32})")
_MESSAGE = (
    "id, message_id, body, body_md5, priority, enqueued_at, visible_at, first_dequeued_at, dequeue_count, properties, "
    "receipt"
)
_PRIORITIES = ", ".join(str(priority) for priority in range(1, MAX_PRIORITY + 1))
# Every priority is named so that SQLite walks the index in delivery order and stops at the limit.
_DUE = (
    f"SELECT id FROM messages WHERE queue = :queue AND priority IN ({_PRIORITIES}) AND visible_at <= :now "
    "ORDER BY priority, visible_at, id LIMIT :limit"
)


def create_queue(connection: sqlite3.Connection, name: str, attributes: QueueAttributes, *, now: int) -> bool:
    """True: made; False: there is one with these attributes already.

    Raises:
        Permanent: ``QueueAlreadyExist`` with other attributes, ``InvalidQueueName``.
    """
    if not _NAME.fullmatch(name):
        raise Permanent(
            "InvalidQueueName", f"{name!r}: 1 to 128 letters, digits, '_', '-' or '.', a letter or digit first"
        )
    if (existing := find_queue(connection, name)) is not None:
        if existing.attributes != attributes:
            raise Permanent("QueueAlreadyExist", f"queue {name!r} exists with other attributes")
        return False
    values = asdict(attributes)
    connection.execute(
        f"INSERT INTO queues (name, {_ATTRIBUTES}, created_at, modified_at) VALUES (?, {'?, ' * len(values)}?, ?)",
        (name, *values.values(), now, now),
    )
    return True


def find_queue(connection: sqlite3.Connection, name: str) -> QueueInfo | None:
    """None when there is no such queue."""
    row = connection.execute(
        f"SELECT name, created_at, modified_at, {_ATTRIBUTES} FROM queues WHERE name = ?", (name,)
    ).fetchone()
    return row and QueueInfo(row[0], QueueAttributes(*row[3:]), row[1], row[2])


def get_queue(connection: sqlite3.Connection, name: str) -> QueueInfo:
    """Raise `Misconfigured` ``QueueNotExist`` when there is no such queue."""
    if (queue := find_queue(connection, name)) is None:
        raise Misconfigured("QueueNotExist", f"there is no queue {name!r}")
    return queue


def set_attributes(connection: sqlite3.Connection, name: str, changes: Mapping[str, int], *, now: int) -> None:
    """Change the named attributes and leave the others."""
    attributes = replace(get_queue(connection, name).attributes, **changes)
    connection.execute(
        f"UPDATE queues SET ({_ATTRIBUTES}, modified_at) = (?, ?, ?, ?, ?, ?) WHERE name = ?",
        (*asdict(attributes).values(), now, name),
    )


def delete_queue(connection: sqlite3.Connection, name: str) -> None:
    """Delete it with its messages; nothing happens when there is none."""
    connection.execute("DELETE FROM messages WHERE queue = ?", (name,))
    connection.execute("DELETE FROM queues WHERE name = ?", (name,))


def list_queues(connection: sqlite3.Connection, *, prefix: str, after: str, limit: int) -> list[QueueInfo]:
    """Queues by name, those greater than ``after`` only."""
    rows = connection.execute(
        f"SELECT name, created_at, modified_at, {_ATTRIBUTES} FROM queues "
        "WHERE substr(name, 1, length(:prefix)) = :prefix AND name > :after ORDER BY name LIMIT :limit",
        {"prefix": prefix, "after": after, "limit": limit},
    )
    return [QueueInfo(row[0], QueueAttributes(*row[3:]), row[1], row[2]) for row in rows]


def send(
    connection: sqlite3.Connection,
    name: str,
    messages: Sequence[Outgoing],
    *,
    ids: Sequence[str],
    receipt: str,
    now: int,
) -> list[Sent | Failed]:
    """Store messages; those that the queue does not take are answered one by one.

    Args:
        ids: a fresh identity for each message.
        receipt: a fresh, unguessable token.
    """
    attributes = get_queue(connection, name).attributes
    return [
        _insert(connection, name, attributes, message, message_id=identity, receipt=receipt, now=now)
        for message, identity in zip(messages, ids, strict=True)
    ]


def _insert(
    connection: sqlite3.Connection,
    name: str,
    attributes: QueueAttributes,
    message: Outgoing,
    *,
    message_id: str,
    receipt: str,
    now: int,
) -> Sent | Failed:
    delay = attributes.delay_seconds if message.delay is None else message.delay
    try:
        if (size := len(message.body)) > (most := attributes.maximum_message_size):
            return Failed("InvalidArgument", f"{size} bytes, at most {most} fit in a message")
        check_range("DelaySeconds", delay, 0, 604_800)
        check_range("Priority", message.priority, 1, MAX_PRIORITY)
    except Permanent as error:
        return Failed(error.reason, error.detail)
    digest = hashlib.md5(message.body, usedforsecurity=False).hexdigest().upper()
    row = (name, message_id, message.body, digest, message.properties, message.priority, now, now + delay * 1000)
    cursor = connection.execute(
        "INSERT INTO messages (queue, message_id, body, body_md5, properties, priority, enqueued_at, visible_at, "
        "receipt) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*row, receipt if delay else ""),
    )
    return Sent(message_id, digest, f"{cursor.lastrowid}-{receipt}" if delay else "")


def take(
    connection: sqlite3.Connection, name: str, *, limit: int, visibility: int | None, receipt: str, now: int
) -> list[Message]:
    """Lease up to ``limit`` active messages, most urgent and then longest due first.

    Args:
        visibility: seconds of the lease; None takes the queue's ``visibility_timeout``.
        receipt: a fresh, unguessable token.
    """
    attributes = _live(connection, name, now)
    seconds = attributes.visibility_timeout if visibility is None else visibility
    rows = connection.execute(
        f"UPDATE messages SET visible_at = :until, dequeue_count = dequeue_count + 1, receipt = :receipt, "
        f"first_dequeued_at = coalesce(first_dequeued_at, :now) WHERE id IN ({_DUE}) RETURNING {_MESSAGE}",
        {"until": now + seconds * 1000, "receipt": receipt, "now": now, "queue": name, "limit": limit},
    ).fetchall()
    # RETURNING promises no order.
    return [_message(row) for row in sorted(rows, key=lambda row: (row[4], row[5], row[0]))]


def peek(connection: sqlite3.Connection, name: str, *, limit: int, now: int) -> list[Message]:
    """Look at the next active messages without leasing them."""
    _live(connection, name, now)
    rows = connection.execute(
        f"SELECT {_MESSAGE} FROM messages WHERE id IN ({_DUE}) ORDER BY priority, visible_at, id",
        {"queue": name, "now": now, "limit": limit},
    ).fetchall()
    return [replace(_message(row), receipt_handle="") for row in rows]


def next_visible_at(connection: sqlite3.Connection, name: str) -> int | None:
    """When a message becomes active at the earliest; None when the queue is empty."""
    priorities = ", ".join(f"({priority})" for priority in range(1, MAX_PRIORITY + 1))
    (at,) = connection.execute(
        f"SELECT min((SELECT min(visible_at) FROM messages WHERE queue = ? AND priority = column1)) "
        f"FROM (VALUES {priorities})",
        (name,),
    ).fetchone()
    return None if at is None else int(at)


def delete(connection: sqlite3.Connection, name: str, handles: Sequence[str], *, now: int) -> list[Failed]:
    """Delete leased messages. Answers those that were not: malformed handles, and handles not valid any more."""
    get_queue(connection, name)
    failed = []
    for handle in handles:
        try:
            identity, receipt = parse_handle(handle)
        except Permanent as error:
            failed.append(Failed(error.reason, error.detail, handle))
            continue
        deleted = connection.execute(
            "DELETE FROM messages WHERE id = ? AND queue = ? AND receipt = ? AND visible_at > ?",
            (identity, name, receipt, now),
        ).rowcount
        if not deleted:
            failed.append(_gone(handle))
    return failed


def change_visibility(
    connection: sqlite3.Connection, name: str, handle: str, *, seconds: int, receipt: str, now: int
) -> tuple[str, int]:
    """Lease for ``seconds`` from now (0 gives the message back); answers the new handle and the end of the lease.

    Raises:
        Permanent: ``MessageNotExist`` (the handle is not valid any more), ``ReceiptHandleError``, ``InvalidArgument``.
    """
    check_range("VisibilityTimeout", seconds, 0, 43_200)
    get_queue(connection, name)
    identity, old = parse_handle(handle)
    until = now + seconds * 1000
    changed = connection.execute(
        "UPDATE messages SET visible_at = ?, receipt = ? WHERE id = ? AND queue = ? AND receipt = ? AND visible_at > ?",
        (until, receipt, identity, name, old, now),
    ).rowcount
    if not changed:
        gone = _gone(handle)
        raise Permanent(gone.code, gone.detail)
    return f"{identity}-{receipt}", until


def purge(connection: sqlite3.Connection, name: str) -> int:
    """Delete all messages of a queue, leased ones too; answers how many."""
    get_queue(connection, name)
    return connection.execute("DELETE FROM messages WHERE queue = ?", (name,)).rowcount


def stats(connection: sqlite3.Connection, name: str, *, now: int) -> QueueStats:
    """Count a queue's messages."""
    _live(connection, name, now)
    active, inactive, delayed, oldest = connection.execute(
        "SELECT count(*) FILTER (WHERE visible_at <= :now), "
        "count(*) FILTER (WHERE visible_at > :now AND dequeue_count), "
        "count(*) FILTER (WHERE visible_at > :now AND NOT dequeue_count), min(enqueued_at) "
        "FROM messages WHERE queue = :queue",
        {"queue": name, "now": now},
    ).fetchone()
    return QueueStats(active, inactive, delayed, oldest)


def parse_handle(handle: str) -> tuple[int, str]:
    """Row and receipt. Raises `Permanent` ``ReceiptHandleError`` for what is no receipt handle of ours."""
    if not (match := _HANDLE.fullmatch(handle)):
        raise Permanent("ReceiptHandleError", "this is not a receipt handle")
    return int(match[1]), match[2]


def _live(connection: sqlite3.Connection, name: str, now: int) -> QueueAttributes:
    """The queue's attributes, after dropping what has outlived its retention period."""
    attributes = get_queue(connection, name).attributes
    connection.execute(
        "DELETE FROM messages WHERE queue = ? AND enqueued_at <= ?",
        (name, now - attributes.message_retention_period * 1000),
    )
    return attributes


def _message(row: Sequence[Any]) -> Message:
    return Message(
        message_id=row[1],
        body=row[2],
        body_md5=row[3],
        priority=row[4],
        enqueued_at=row[5],
        visible_at=row[6],
        first_dequeued_at=row[7] or 0,
        dequeue_count=row[8],
        properties=row[9],
        receipt_handle=f"{row[0]}-{row[10]}",
    )


def _gone(handle: str) -> Failed:
    return Failed("MessageNotExist", "the receipt handle is not valid any more, or the message is deleted", handle)
