"""Alert groups and their alerts as rows and back: pure, and the same for every store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from triage.alerts.silences import kind_key, kind_labels
from triage.changes import AlertGroup, NewAlert, NewRow, RowKind
from triage.incident import Incident, incident_json, incident_of
from triage.rules.course import course_json, course_of
from triage.stores.records import Record, instant, instant_of, json_text, text

GROUP: Final = ("key", "receivers", "severity", "labels", "group_wait", "group_interval", "course", "created_at")
ALERT: Final = ("group_key", "root", "request_id", "cause", "detail", "at", "kind")
KIND: Final = ("key", "labels")
INCIDENT: Final = ("state", "code", "looked_at", "incident")
"""Columns of a group that only a look at it writes; `UNSEEN` has none of them."""


def group_record(group: AlertGroup, *, now: datetime) -> Record:
    """Values of `GROUP`."""
    return (
        group.key,
        json_text(group.receivers),
        group.severity,
        json_text(group.labels),
        group.group_wait.total_seconds(),
        group.group_interval.total_seconds(),
        json_text(course_json(group.course)),
        instant(now),
    )


def group_of(row: Mapping[str, Any]) -> AlertGroup:
    """Undo `group_record`."""
    return AlertGroup(
        key=row["key"],
        receivers=tuple(json.loads(row["receivers"])),
        severity=row["severity"],
        labels=json.loads(row["labels"]),
        group_wait=timedelta(seconds=row["group_wait"]),
        group_interval=timedelta(seconds=row["group_interval"]),
        course=course_of(json.loads(row["course"])),
    )


def incident_record(incident: Incident) -> Record:
    """Values of `INCIDENT`."""
    looked_at = incident.looked_at and instant(incident.looked_at)
    return (incident.state.value, incident.code, looked_at, json_text(incident_json(incident)))


def incident_in(row: Mapping[str, Any]) -> Incident:
    """Undo `incident_record`."""
    return incident_of(json.loads(row["incident"]))


def alert_record(alert: NewAlert, *, now: datetime) -> Record:
    """Values of `ALERT`."""
    root, request_id, why = alert.root or None, text(alert.request_id), text(alert.detail)
    return (alert.group.key, root, request_id, alert.cause.value, why, instant(now), kind_key(alert.group.labels))


def kind_records(alerts: Iterable[NewAlert]) -> list[Record]:
    """Values of `KIND`, for each kind among the alerts."""
    kinds = {kind_key(alert.group.labels): alert.group.labels for alert in alerts}
    return [(key, json_text(kind_labels(labels))) for key, labels in kinds.items()]


def flush_row(group: AlertGroup, *, looked_at: str | None, now: datetime) -> NewRow:
    """The one outbox row that looks at a group, for alerts that came now: after ``group_wait``, and ``group_interval``
    after the last look. A row that is due sooner stays as it is.
    """
    due_at = now + group.group_wait
    if looked_at is not None:
        due_at = max(due_at, min(instant_of(looked_at), now) + group.group_interval)
    return NewRow(f"flush:{group.key}", RowKind.FLUSH, due_at, group=group.key, sooner=True)
