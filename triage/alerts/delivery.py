"""What becomes of a notification, by what its targets said: done, again later, for somebody else, given up. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from triage.alerts.compose import extended
from triage.changes import Changes, NewRow, RowKind, Settle
from triage.reruns.backoff import next_delay, spread_of
from triage.views import OutboxRow


class Result(StrEnum):
    """How one target took a notification."""

    SENT = "sent"
    FAILED = "failed"  # it did not arrive
    UNKNOWN = "unknown"  # it was on its way when the time was up: it may have arrived


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one target of a receiver.

    Attributes:
        target: which one it is, for people: its place in the receiver's list and the kind of service, no address.
        detail: why it did not take the notification; never a text from outside.
        retry_after: how long the far side wants to be left alone, when it said so.
    """

    result: Result
    target: str = ""
    detail: str = ""
    retry_after: timedelta | None = None

    def __str__(self) -> str:
        return f"{self.target}: {self.result}{f', {self.detail}' if self.detail else ''}"


@dataclass(frozen=True, slots=True)
class Retries:
    """When a notification is tried again: back-off, how long at all, and how often when it may have arrived."""

    first: timedelta = timedelta(seconds=5)
    factor: float = 2.0
    longest: timedelta = timedelta(minutes=10)
    give_up_after: timedelta = timedelta(hours=24)
    unknown: int = 3


@dataclass(frozen=True, slots=True)
class Fallback:
    """Who is told when a receiver cannot be reached, and how long it is tried alone before that."""

    to: str
    after: timedelta = timedelta(minutes=10)


NOBODY: Final = Fallback("")


def notified(
    row: OutboxRow,
    answers: Mapping[str, Answer],
    *,
    retries: Retries,
    now: datetime,
    fallback: Fallback = NOBODY,
) -> Settle:
    """How a notification goes on: only targets that did not take it are tried again.

    Args:
        answers: by target (a digest of its address, so that a changed list of targets changes nothing for the others);
            none at all: the receiver is not configured.
    """
    payload = row.payload
    sent = [*payload.get("sent", ()), *(target for target, answer in answers.items() if answer.result is Result.SENT)]
    missed = [answer for answer in answers.values() if answer.result is not Result.SENT]
    told = told_by(row.group, payload) if len(sent) > len(payload.get("sent", ())) else ()
    if sent and not missed:
        changes = Changes(told=told, along=tuple(payload.get("along", ())))
        return Settle.done(note=f"sent to {len(sent)}", changes=changes, delivery=Result.SENT)
    note = "; ".join(map(str, missed)) or f"receiver {payload['receiver']!r} is not configured"
    unknown = payload.get("unknown", 0) + any(answer.result is Result.UNKNOWN for answer in missed)
    due_at = now + _delay(row, missed, retries)
    over = due_at > datetime.fromisoformat(payload["at"]) + retries.give_up_after
    if unknown >= retries.unknown and all(answer.result is Result.UNKNOWN for answer in missed):
        # Whoever takes messages but never says so would get the same one all day.
        over, note = True, f"{note}; it may have arrived {unknown} times, and is not repeated any more"
    rows: tuple[NewRow, ...] = ()
    if fallback.to and (over or not answers or now >= datetime.fromisoformat(payload["at"]) + fallback.after):
        rows = (_instead(row, fallback.to, note, now=now),)
    changes = Changes(rows=rows, told=told)
    if over:
        return Settle.dead(note=note, changes=changes, delivery="dead")
    return Settle.retry(
        due_at=due_at,
        note=note,
        payload={**payload, "sent": sent, "unknown": unknown},
        changes=changes,
        delivery=Result.UNKNOWN if any(answer.result is Result.UNKNOWN for answer in missed) else Result.FAILED,
    )


def told_by(group: str, payload: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """Of which groups a notification tells, each with the number of the message. What is said of a silence belongs to
    none.
    """
    if "told" in payload:
        return tuple((key, number) for key, number in payload["told"])
    return ((group, payload["flush"]),) if group else ()


def _delay(row: OutboxRow, missed: list[Answer], retries: Retries) -> timedelta:
    own = next_delay(
        first=retries.first,
        factor=retries.factor,
        longest=retries.longest,
        jitter=0.2,
        attempt=row.attempts,
        spread=spread_of(f"{row.key}/{row.attempts}"),
    )
    return max([own, *(answer.retry_after for answer in missed if answer.retry_after is not None)])


def _instead(row: OutboxRow, receiver: str, why: str, *, now: datetime) -> NewRow:
    """The same message for the fallback receiver, with the reason: one, however often it is asked for."""
    kept = {name: value for name, value in row.payload.items() if name not in ("sent", "unknown", "along")}
    meant = f"Meant for receiver {row.payload['receiver']}, which could not be reached: {why}"
    own = {"receiver": receiver, "at": now.isoformat(), "instead_of": row.payload["receiver"]}
    payload = extended({**kept, **own}, meant)
    return NewRow(f"{row.key}:fallback:{receiver}", RowKind.NOTIFY, now, payload, group=row.group)
