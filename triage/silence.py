"""A silence, and what it keeps from whom, as values. What follows from one is `triage.alerts.silences`' business."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any


@dataclass(frozen=True, slots=True)
class Silence:
    """Alerts that nobody is told of for a while. Whoever asks for one says why, and it always ends.

    Attributes:
        match: what an alert must have (`triage.rules.alertmatch.FIELDS`), as written.
        ends_at: when it ends at the latest.
        quiet_for: it ends sooner, when nothing has failed that it matches for this long (see `triage.alerts.silences`).
        to: receivers of what there is to say of it; empty: those that it kept alerts from.
        ended: how it ended, empty until then.
    """

    id: int
    match: Mapping[str, Any]
    by: str
    reason: str
    created_at: datetime
    ends_at: datetime
    quiet_for: timedelta | None = None
    to: tuple[str, ...] = ()
    ended_at: datetime | None = None
    ended: str = ""


@dataclass(frozen=True, slots=True)
class Silenced:
    """So many waiting alerts of one kind that a silence keeps from one receiver. ``wholly``: from all, so that none is
    told of them.
    """

    kind: str
    receiver: str
    silence: int
    count: int
    first_at: datetime
    last_at: datetime
    wholly: bool
