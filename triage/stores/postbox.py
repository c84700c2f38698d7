"""What people ask about the messages to receivers, and how they have some sent again. Jobs for SQLite's threads."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from triage.changes import NewRow, RowKind
from triage.deed import Deed
from triage.states import RowState
from triage.stores.codes import CODE, message_code
from triage.stores.drills import NO_MESSAGE
from triage.stores.records import IS_OPEN, Record, instant_of


@dataclass(frozen=True, slots=True)
class Received:
    """How the messages to one receiver went: the last try, if any, how many are given up, how many still open."""

    receiver: str
    result: str
    note: str
    at: datetime | None
    dead: int
    open: int


@dataclass(frozen=True, slots=True)
class Message:
    """One message to one receiver, as it is or was sent. ``state`` is that of its outbox row, ``note`` how it went."""

    code: str
    receiver: str
    state: str
    title: str
    body: str
    note: str
    at: datetime


class Postbox(Protocol):
    """What the command line asks about messages; no loop of the daemon needs it."""

    async def received(self) -> list[Received]:
        """How messages went, by receiver; those that there were none for are absent."""
        ...

    async def messages(self, *, code: str = "", dead: bool = False, limit: int = 100) -> list[Message]:
        """Messages with this code, or the only one that begins so; ``dead``: only what was given up. The newest first.

        Raises:
            AmbiguousCode: several codes begin so.
        """
        ...

    async def resend(self, *, code: str, dead: bool, by: str, reason: str, now: datetime) -> list[Message]:
        """Have messages sent again that are over: given up ones to targets that did not take them, others to all.

        What is still tried is left alone. The answer tells what is sent again, as it was before.

        Raises:
            AmbiguousCode: several codes begin so.
        """
        ...


_COLUMNS: Final = "id, key, state, payload, note, group_key, coalesce(settled_at, due_at) AS at"
_LAST: Final = """
    SELECT receiver, result, note, at FROM deliveries d
    WHERE d.id IN (SELECT max(id) FROM deliveries WHERE result != 'along' GROUP BY receiver)"""


def received(connection: sqlite3.Connection) -> list[Received]:
    """How the messages to each receiver went, for those that there were any for."""
    last = {name: (result, note, instant_of(at)) for name, result, note, at in connection.execute(_LAST)}
    dead = _counts(connection, "state = 'dead'")
    waiting = _counts(connection, IS_OPEN)
    names = sorted({*last, *dead, *waiting})
    found = []
    for name in names:
        result, note, at = last.get(name, ("", "", None))
        found.append(Received(name, result, note, at, dead.get(name, 0), waiting.get(name, 0)))
    return found


def _counts(connection: sqlite3.Connection, where: str) -> dict[str, int]:
    statement = f"""
        SELECT json_extract(payload, '$.receiver') AS receiver, count(*) FROM outbox
        WHERE kind = 'notify' AND key {NO_MESSAGE} AND {where} GROUP BY receiver"""
    return dict(connection.execute(statement).fetchall())


def messages(connection: sqlite3.Connection, *, code: str, dead: bool, limit: int) -> list[Message]:
    """Messages with a code, or those that were given up; the newest first."""
    return [_message(row) for row in _found(connection, code=code, dead=dead, limit=limit)]


def _found(connection: sqlite3.Connection, *, code: str, dead: bool, limit: int = -1) -> list[Record]:
    conditions = ["kind = 'notify'"]
    code = message_code(connection, code) if code else ""
    if dead:
        conditions.append(f"state = 'dead' AND key {NO_MESSAGE}")
    if code:
        conditions.append(f"{CODE} = :code")
    statement = f"SELECT {_COLUMNS} FROM outbox WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT :limit"
    return connection.execute(statement, {"code": code, "limit": limit}).fetchall()


def _message(row: Record) -> Message:
    payload = json.loads(row[3])
    return Message(
        code=payload.get("code", ""),
        receiver=payload.get("receiver", ""),
        state=row[2],
        title=payload.get("title", ""),
        body=payload.get("body", ""),
        note=row[4],
        at=instant_of(row[6]),
    )


def again(row: Record, *, now: datetime) -> NewRow:
    """The outbox row that sends a message again: to targets that did not take it, or, when it was done, to all."""
    payload: dict[str, Any] = json.loads(row[3])
    gone = ("unknown", "along") if row[2] == RowState.DEAD else ("unknown", "along", "sent")
    kept = {name: value for name, value in payload.items() if name not in gone}
    return NewRow(row[1], RowKind.NOTIFY, now, {**kept, "at": now.isoformat()}, group=row[5] or "", anew=True)


def to_resend(
    connection: sqlite3.Connection, *, code: str, dead: bool, by: str, reason: str, now: datetime
) -> tuple[list[Message], list[NewRow], list[Deed]]:
    """What is sent again, by which rows, and what is remembered of it. Messages that are still tried are left alone."""
    finished = (RowState.DEAD, RowState.DONE)
    rows = [row for row in _found(connection, code=code, dead=dead) if row[2] in finished]
    found = [_message(row) for row in rows]
    deeds = [Deed(by, "resend", reason, about=f"message/{each.code}/{each.receiver}") for each in found]
    return found, [again(row, now=now) for row in rows], deeds
