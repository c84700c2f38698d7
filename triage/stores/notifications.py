"""Notifications as rows and back: pure, and the same for every store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from triage.changes import RowKind, Settle
from triage.line import Waiting
from triage.states import RowState
from triage.stores.records import Record, instant, text
from triage.views import OutboxRow

DELIVERY: Final = ("key", "receiver", "result", "note", "at", "group_key", "flush")

ALONG: Final = "went with another message to the same receiver"
"""The note of a notification that was taken along."""


def along_record(key: str, payload: Mapping[str, Any], *, group: str | None, now: datetime) -> Record:
    """A notification that went as part of another one, as values of `DELIVERY`."""
    return (key, payload["receiver"], "along", ALONG, instant(now), group, payload.get("flush"))


def waiting_of(key: str, payload: Mapping[str, Any]) -> Waiting:
    """A notification that waits, from its payload."""
    at = datetime.fromisoformat(payload["at"])
    return Waiting(key, payload["severity"], payload["title"], payload.get("alerts", 0), at)


def delivery_record(row: OutboxRow, outcome: Settle, *, now: datetime) -> Record | None:
    """One try to notify somebody, as values of `DELIVERY`; None when the settled row was none."""
    dead = outcome.state is RowState.DEAD
    if row.kind is not RowKind.NOTIFY or not (dead or outcome.delivery):
        return None
    receiver, flush = row.payload.get("receiver", ""), row.payload.get("flush")
    result = "dead" if dead else outcome.delivery
    return (row.key, receiver, result, text(outcome.note), instant(now), row.group or None, flush)
