"""Orders of people to run something again, in the SQLite store. Jobs for its writer thread, and parts of such jobs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from triage.envelope import RequestId
from triage.facts import Arrival
from triage.orders import Limits, Order, Ordered, Refused, place
from triage.reruns.lineage import Stored
from triage.stores import decisions, records
from triage.stores.queries import lineage_at
from triage.stores.writes import apply_order

_ENVELOPE: Final = f"SELECT {records.read('envelopes', records.ENVELOPE)} FROM envelopes WHERE request_id = ?"
_LAST: Final = "SELECT payload FROM outbox WHERE root = ? AND kind IN ('rerun', 'hold') ORDER BY id DESC LIMIT 1"


def order_all(
    connection: sqlite3.Connection, request_ids: Sequence[str], order: Order, *, limits: Limits, now: datetime
) -> list[Ordered | Refused]:
    """Carry out an order for each; see `triage.stores.Store.order`."""
    answers: list[Ordered | Refused] = []
    for request_id in request_ids:
        answer = place(order, stored(connection, request_id), limits=limits, now=now)
        if isinstance(answer, Ordered):
            write(connection, answer, now=now)
        answers.append(answer)
    return answers


def stored(connection: sqlite3.Connection, request_id: str) -> Stored | None:
    """What is known of a request id or task id; None when that is nothing."""
    own = _envelope(connection, request_id)
    root = own["root"] if own else _linked(connection, request_id)
    if own is None and root is None:
        return None
    first = own if root in (None, request_id) else _envelope(connection, root)
    last = connection.execute(_LAST, (root,)).fetchone() if root else None
    return Stored(
        request_id=RequestId(request_id if own else root),
        arrival=_told(first) if first and first["body"] else None,
        lineage=lineage_at(connection, root) if root else None,
        last=json.loads(last[0]) if last else None,
    )


def _told(row: Mapping[str, Any]) -> Arrival:
    """An envelope with the error as it is told of, which may be redacted."""
    arrival = decisions.arrival_of(row)
    error = replace(arrival.envelope.error, type=row["error_type"], message=row["error_message"])
    return replace(arrival, envelope=replace(arrival.envelope, error=error))


def write(connection: sqlite3.Connection, answer: Ordered, *, now: datetime) -> None:
    """Write what `place` said, in the transaction in which it was asked."""
    apply_order(connection, answer.changes, answer.arrival, now=now)


def _envelope(connection: sqlite3.Connection, request_id: str) -> Mapping[str, Any] | None:
    found = connection.execute(_ENVELOPE, (request_id,)).fetchone()
    return dict(zip(records.ENVELOPE, found, strict=True)) if found else None


def _linked(connection: sqlite3.Connection, key: str) -> Any:
    found = connection.execute("SELECT root FROM lineage_links WHERE key = ?", (key,)).fetchone()
    return found[0] if found else None
