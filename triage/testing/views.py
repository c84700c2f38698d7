"""What settling sees of the store in memory: an alert group and what waits in it, a silence and what it kept quiet."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from triage.alerts.grouping import wants_states
from triage.alerts.inhibition import name_of
from triage.alerts.storm import KEY, WINDOW
from triage.changes import AlertGroup
from triage.drills import is_drill
from triage.envelope import RequestId
from triage.incident import OPEN, GroupState, incident_code
from triage.reruns.attempts import Attempt, attempts_of
from triage.reruns.lineage import Stored
from triage.rules.course import inhibits
from triage.rules.model import Cause
from triage.silence import Silence
from triage.stores import alertrows, decisions
from triage.stores.records import UNFINISHED, instant_of
from triage.testing.gates import Row
from triage.testing.tables import Tables, lineage_in
from triage.views import AlertKind, GroupView, SilencedGroup, SilenceView, StormView, WaitingAlert

_SAMPLES = 5


def group_view(tables: Tables, key: str, *, now: datetime) -> GroupView | None:
    """An alert group and what waits in it."""
    group = tables.alert_groups.get(key)
    if group is None:
        return None
    waiting = tables.waiting(key)
    times = [instant_of(alert["at"]) for alert in waiting]
    incident = alertrows.incident_in(group)
    view = GroupView(
        group=alertrows.group_of(group),
        flushes=group["flushes"],
        told=group["told"],
        first_at=min(times, default=None),
        last_at=max(times, default=None),
        causes=Counter(Cause(alert["cause"]) for alert in waiting),
        samples=_samples(tables, waiting),
        last_id=max((alert["id"] for alert in waiting), default=0),
        kinds=tuple(_kind(tables, key, waiting) for key in sorted({alert["kind"] for alert in waiting})),
        silenced=group["silenced"],
        incident=incident,
        taken=_taken(tables, key, incident.number + 1) if waiting and incident.state not in OPEN else (),
    )
    view = replace(view, cause=_cause(tables, view.group))
    if not waiting and incident.state in OPEN:
        view = replace(view, symptoms=_symptoms(tables, view.group))
    first = incident.first if incident.opened_at else view.flushes + 1
    own = [alert for alert in tables.alerts.values() if alert["group_key"] == key]
    roots = [alert["root"] for alert in own if alert["flush"] is None or alert["flush"] >= first]
    states = Counter(tables.lineages[root]["state"] if root else "" for root in roots)
    if view.group.course.success_threshold:
        failing = {*incident.heard, *(kind.labels["function"] for kind in view.kinds)}
        view = replace(view, successes={name: tables.succeeded[name] for name in failing if tables.succeeded[name]})
    if not wants_states(view, now=now):
        return view
    healed = {root for root in roots if root and tables.lineages[root]["state"] == "healed"} if not waiting else set()
    return replace(view, states=states, healed_by=Counter(_origin(tables, root) for root in healed))


def _taken(tables: Tables, key: str, number: int) -> tuple[str, ...]:
    """Codes of other groups that begin as that of this incident would."""
    begins = incident_code(key, number)
    sent = [row for row in tables.outbox.values() if row["kind"] == "notify" and row["group_key"] != key]
    codes = {json.loads(row["payload"]).get("code", "").partition("-")[0] for row in sent}
    codes |= {row["code"] for other, row in tables.alert_groups.items() if other != key}
    return tuple(sorted(code for code in codes if code.startswith(begins)))


def _origin(tables: Tables, root: str) -> str:
    """Who wanted the last attempt of a lineage."""
    last = tables.lineages[root]["attempt"]
    links = (link for link in tables.links.values() if (link["root"], link["attempt"]) == (root, last))
    return next((link["origin"] for link in links if link["origin"]), "")


def storm_view(tables: Tables, *, now: datetime) -> StormView:
    """The storm of the moment, with the groups that began in it."""
    row = tables.outbox.get(KEY)
    since = json.loads(row["payload"])["since"] if row and row["state"] in UNFINISHED else ""
    incidents = {key: alertrows.incident_in(row) for key, row in tables.alert_groups.items()}
    beginning = [
        each
        for key, each in incidents.items()
        if not is_drill(key)
        and (
            tables.alert_groups[key]["state"] == "waiting"
            or (each.state is not GroupState.RESOLVED and each.opened_at and each.opened_at >= now - WINDOW)
        )
    ]
    groups = []
    for key, incident in sorted(incidents.items()):
        if since and incident.storm == since:
            groups.append(_summed(tables, key))
    return StormView(since, len(beginning), tuple(groups))


def _summed(tables: Tables, key: str) -> GroupView:
    own = tables.alert_groups[key]
    group, waits = alertrows.group_of(own), max((alert["id"] for alert in tables.waiting(key)), default=0)
    incident = alertrows.incident_in(own)
    return GroupView(group, own["flushes"], own["told"], None, None, {}, (), waits, incident=incident)


def _cause(tables: Tables, group: AlertGroup, *, but: str = "") -> str:
    others = [
        alertrows.group_of(other)
        for key, other in sorted(tables.alert_groups.items())
        if key not in (group.key, but)
        and not is_drill(key)
        and GroupState(other["state"]) in {*OPEN, GroupState.WAITING}
    ]
    found = (
        name_of(other)
        for inhibition in group.course.inhibited_by
        for other in others
        if inhibits(inhibition, group.labels, other.labels)
    )
    return next(found, "")


def _symptoms(tables: Tables, group: AlertGroup) -> tuple[GroupView, ...]:
    keys = [
        key
        for key, row in sorted(tables.alert_groups.items())
        if alertrows.incident_in(row).inhibited == name_of(group)
    ]
    views = (_summed(tables, key) for key in keys)
    return tuple(replace(each, cause=_cause(tables, each.group, but=group.key)) for each in views)


def _kind(tables: Tables, key: str, waiting: Sequence[Row]) -> AlertKind:
    alerts = [alert for alert in waiting if alert["kind"] == key]
    times = [instant_of(alert["at"]) for alert in alerts]
    return AlertKind(
        key=key,
        labels=json.loads(tables.alert_kinds[key]),
        causes=Counter(Cause(alert["cause"]) for alert in alerts),
        first_at=min(times),
        last_at=max(times),
        samples=_samples(tables, alerts),
    )


def _samples(tables: Tables, alerts: Sequence[Row]) -> tuple[WaitingAlert, ...]:
    """The newest few, newest first."""
    return tuple(_waiting_alert(tables, alert) for alert in reversed(alerts[-_SAMPLES:]))


def _waiting_alert(tables: Tables, alert: Row) -> WaitingAlert:
    attempts = tables.lineages.get(alert["root"], {"attempt": 0})["attempt"]
    at = instant_of(alert["at"])
    runs = _runs(tables, alert["root"], last=attempts) if alert["root"] and attempts else ()
    return WaitingAlert(alert["request_id"], Cause(alert["cause"]), alert["detail"], at, attempts, runs)


def _runs(tables: Tables, root: str, *, last: int) -> tuple[Attempt, ...]:
    members = [row for row in tables.envelopes.values() if row["root"] == root]
    members.sort(key=lambda row: (row["attempt"], row["received_at"]))
    links = [row for row in tables.links.values() if row["root"] == root and row["origin"]]
    outbox = [{**row, "payload": json.loads(row["payload"])} for row in tables.outbox.values() if row["root"] == root]
    return tuple(attempts_of(members, links, outbox, last=last))


def silence_view(tables: Tables, silence: Silence) -> SilenceView:
    """A silence and what it kept from whom."""
    return SilenceView(
        silence,
        tuple(
            SilencedGroup(
                group=alertrows.group_of(tables.alert_groups[group]),
                receiver=receiver,
                healed=_healed(tables, silence.id, group),
                **row,
            )
            for (number, group, receiver), row in sorted(tables.silenced.items())
            if number == silence.id
        ),
    )


def _healed(tables: Tables, silence: int, group: str) -> int:
    return sum(
        tables.lineages.get(alert["root"], {"state": ""})["state"] == "healed"
        for alert in tables.alerts.values()
        if (alert["silence"], alert["group_key"]) == (silence, group)
    )


def stored_in(tables: Tables, request_id: str) -> Stored | None:
    """What is known of a request id or task id."""
    own = tables.envelopes.get(request_id)
    root = own["root"] if own else tables.links.get(request_id, {"root": None})["root"]
    if own is None and root is None:
        return None
    first = own if root in (None, request_id) else tables.envelopes.get(root)
    rows = [row for row in tables.outbox.values() if root and row["root"] == root and row["kind"] in ("rerun", "hold")]
    return Stored(
        request_id=RequestId(request_id if own else root),
        arrival=decisions.arrival_of(first) if first else None,
        lineage=lineage_in(tables.lineages[root]) if root else None,
        last=json.loads(max(rows, key=lambda row: row["id"])["payload"]) if rows else None,
    )
