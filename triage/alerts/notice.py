"""The outbox row of a message that is not about one alert group: of a storm, of a cause that is over, of silence."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from triage.changes import NewRow, RowKind


def notice(
    key: str, receiver: str, *, code: str, severity: str, title: str, body: str, now: datetime, **more: Any
) -> NewRow:
    """Send it now. ``more`` is kept in the payload beside it: why it is sent, how many alerts it counts, which ones."""
    said = {"code": code, "severity": severity, "title": title, "body": body}
    payload = {"receiver": receiver, "at": now.isoformat(), **said, **more}
    return NewRow(key=key, kind=RowKind.NOTIFY, due_at=now, payload=payload)
