"""The runs of one lineage, from what is kept of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

Row = Mapping[str, Any]

_UNFINISHED: Final = ("pending", "unknown")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of the task: 0 is the first, the others are re-runs.

    ``origin`` is empty for the first, and where it was not kept. ``result`` is one of planned, submitting, running,
    succeeded, failed, refused, cancelled, ended; ``detail`` says more.
    """

    number: int
    origin: str
    task_id: str
    request_id: str
    due_at: datetime | None
    submitted_at: datetime | None
    result: str
    result_at: datetime | None
    detail: str


def attempts_of(members: Sequence[Row], links: Sequence[Row], outbox: Sequence[Row], *, last: int) -> list[Attempt]:
    """Every run of a lineage, the first one included.

    Args:
        members: columns of its envelopes, by attempt.
        links: of each attempt those that tell its origin.
        outbox: its rows, with their payloads read.
        last: how many re-runs the lineage counts.
    """
    origins = {link["attempt"]: link["origin"] for link in reversed(links)}
    reruns = {row["payload"]["attempt"]: row for row in outbox if row["kind"] == "rerun"}
    results: dict[int, Row] = {}
    for member in members:
        results[member["attempt"]] = member  # the newest: a task may have run twice
    last = max(last, *results, 0)
    return [
        _attempt(number, origins.get(number, ""), reruns.get(number), results.get(number)) for number in range(last + 1)
    ]


def _attempt(number: int, origin: str, row: Row | None, result: Row | None) -> Attempt:
    came, detail = _result(row, result)
    note = row["note"] if row else ""
    submitted = row is not None and row["state"] == "done"
    return Attempt(
        number=number,
        origin=origin,
        task_id=row["key"] if row else "",
        request_id=result["request_id"] if result else note.rpartition("as request ")[2] if submitted else "",
        due_at=_at(row["due_at"]) if row and row["state"] in _UNFINISHED else None,
        submitted_at=_at(row["settled_at"]) if row and submitted else None,
        result=came,
        result_at=_at(result["received_at"])
        if result
        else _at(row["settled_at"])
        if row and came == "refused"
        else None,
        detail=detail,
    )


def _result(row: Row | None, result: Row | None) -> tuple[str, str]:
    if result is not None:
        if result["outcome"] == "failed":
            return "failed", error_of(result)
        return ("succeeded" if result["outcome"] == "succeeded" else "ended"), ""
    match row["state"] if row else "":
        case "pending":
            return "planned", row["note"] if row else ""
        case "unknown":
            return "submitting", row["note"] if row else ""
        case "dead":
            return "refused", row["note"] if row else ""
        case "done":
            return "running", ""
        case "cancelled":
            return "cancelled", row["note"] if row else ""
    return "ended", row["note"] if row else "nothing more is kept"


def error_of(member: Row) -> str:
    """What an envelope that failed says of its error."""
    return ": ".join(filter(None, (member["error_type"] or member["condition"], member["error_message"])))


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)
