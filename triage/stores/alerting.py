"""Alert groups in the SQLite store: alerts that come, what a look at a group sees, and what it writes. Jobs for the
writer thread.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from triage.alerts.grouping import wants_states
from triage.alerts.inhibition import name_of
from triage.alerts.storm import KEY, WINDOW
from triage.changes import AlertGroup, Looked, NewAlert, NewRow
from triage.incident import OPEN, GroupState, Incident
from triage.rules.model import Cause
from triage.silence import Silenced
from triage.states import Event, State, advance
from triage.stores import alertrows, codes, silences, standings
from triage.stores.drills import NO_DRILL
from triage.stores.law import texts
from triage.stores.records import IS_OPEN, insert, instant, instant_of
from triage.stores.story import attempts as runs_of
from triage.views import AlertKind, GroupView, StormView, WaitingAlert

_SAMPLES: Final = 5
_UPSERT_GROUP: Final = insert(
    "alert_groups",
    alertrows.GROUP,
    """ON CONFLICT (key) DO UPDATE SET receivers = excluded.receivers, severity = excluded.severity,
    labels = excluded.labels, group_wait = excluded.group_wait, group_interval = excluded.group_interval,
    course = excluded.course RETURNING looked_at""",
)
_INHIBITED: Final = "json_extract(incident, '$.inhibited')"  # as in the index idx_alert_groups_inhibited
_INSERT_KIND: Final = insert("alert_kinds", alertrows.KIND, "ON CONFLICT DO NOTHING")
_INSERT_ALERT: Final = insert("alerts", alertrows.ALERT)
_WAITING: Final = "FROM alerts WHERE group_key = ? AND flush IS NULL"
_UP_TO: Final = f"{_WAITING} AND id <= ?"
_TAKE: Final = "UPDATE alerts SET flush = ? WHERE group_key = ? AND flush IS NULL AND id <= ?"
_MOVE: Final = "UPDATE lineages SET state = ?, version = version + 1, updated_at = ? WHERE state = ? AND root IN"
_LOOKED: Final = f"""
    UPDATE alert_groups SET flushes = flushes + :made, silenced = silenced + :quiet,
        told = told + :made * (suppressed + :fresh), suppressed = CASE WHEN :made THEN 0 ELSE suppressed + :fresh END,
        {", ".join(f"{column} = :{column}" for column in alertrows.INCIDENT)}
    WHERE key = :key"""


def write_alerts(
    connection: sqlite3.Connection,
    alerts: Sequence[NewAlert],
    insert_rows: Callable[[list[NewRow]], None],
    *,
    now: datetime,
) -> None:
    """Put alerts into their groups, each with a look to come."""
    groups: dict[str, AlertGroup] = {alert.group.key: alert.group for alert in alerts}
    rows = []
    for group in groups.values():
        ((looked_at,),) = connection.execute(_UPSERT_GROUP, alertrows.group_record(group, now=now)).fetchall()
        rows.append(alertrows.flush_row(group, looked_at=looked_at, now=now))
    connection.executemany(_INSERT_ALERT, [alertrows.alert_record(alert, now=now) for alert in alerts])
    connection.executemany(_INSERT_KIND, alertrows.kind_records(alerts))
    insert_rows(rows)


def mark_looked(connection: sqlite3.Connection, looked: Looked, silenced: Sequence[Silenced], *, now: datetime) -> None:
    """Write what a look at a group found: what is remembered, and which message counts the alerts that waited."""
    quiet = 0
    if silenced:
        silences.mute(connection, looked.group, looked.last_id, silenced)
        quiet = silences.move(connection, looked.group, looked.last_id, now=now)
    if not looked.made:
        suppressed = advance(State.ALERTING, Event.SUPPRESSED).value
        connection.execute(
            f"{_MOVE} (SELECT root {_UP_TO} AND silence IS NULL)",
            (suppressed, instant(now), State.ALERTING.value, looked.group, looked.last_id),
        )
    taken = connection.execute(_TAKE, (looked.message, looked.group, looked.last_id)).rowcount
    incident = dict(zip(alertrows.INCIDENT, alertrows.incident_record(looked.incident), strict=True))
    own = {"key": looked.group, "made": looked.made, "quiet": quiet, "fresh": taken - quiet}
    connection.execute(_LOOKED, {**incident, **own})


def mark_told(connection: sqlite3.Connection, group: str, message: int, *, now: datetime) -> None:
    """The set-based form of the transitions that a delivery causes."""
    for state in (State.ALERTING, State.SUPPRESSED, State.SILENCED):
        moved = advance(state, Event.DELIVERED).value
        connection.execute(
            f"{_MOVE} (SELECT root FROM alerts WHERE group_key = ? AND flush = ? AND silence IS NULL)",
            (moved, instant(now), state.value, group, message),
        )


def group_view(
    connection: sqlite3.Connection, key: str, *, now: datetime | None = None, apart: bool = False
) -> GroupView | None:
    """An alert group and what waits in it; ``apart``: with samples of each kind; ``now``: as a look at it needs it."""
    columns = (*alertrows.GROUP, "flushes", "told", "silenced", "incident")
    found = connection.execute(f"SELECT {', '.join(columns)} FROM alert_groups WHERE key = ?", (key,)).fetchone()
    if found is None:
        return None
    group = dict(zip(columns, found, strict=True))
    newest = connection.execute(f"SELECT max(id) {_WAITING}", (key,)).fetchone()[0]
    kinds = _kinds(connection, key, labels=group["labels"])
    if apart and len(kinds) > 1:
        kinds = _with_samples(connection, key, kinds)
    causes: Counter[Cause] = Counter()
    for kind in kinds:
        causes.update(kind.causes)
    samples = connection.execute(f"{_SAMPLE} {_WAITING} ORDER BY id DESC LIMIT {_SAMPLES}", (key,))
    incident = alertrows.incident_in(group)
    view = GroupView(
        group=alertrows.group_of(group),
        flushes=group["flushes"],
        told=group["told"],
        first_at=min((kind.first_at for kind in kinds), default=None),
        last_at=max((kind.last_at for kind in kinds), default=None),
        causes=causes,
        samples=tuple(_sample(connection, row) for row in samples),
        last_id=newest or 0,
        kinds=kinds,
        silenced=group["silenced"],
        incident=incident,
        taken=codes.taken(connection, key, incident.number + 1) if causes and incident.state not in OPEN else (),
    )
    view = replace(view, cause=_cause(connection, view.group))
    if not kinds and incident.state in OPEN:
        view = replace(view, symptoms=_symptoms(connection, view.group))
    if view.group.course.success_threshold:
        failing = {*incident.heard, *(kind.labels["function"] for kind in kinds)}
        view = replace(view, successes=standings.succeeded(connection, failing))
    if now is None or not wants_states(view, now=now):
        return view
    view = replace(view, states=states_of(connection, key, incident, flushes=view.flushes))
    if view.causes or not view.states.get(State.HEALED):
        return view
    return replace(view, healed_by=dict(connection.execute(_HEALED_BY, (key, incident.first)).fetchall()))


def storm_view(connection: sqlite3.Connection, *, now: datetime, groups: bool = False) -> StormView:
    """The storm of the moment; ``groups``: with those that began in it."""
    open_ = f"SELECT payload ->> '$.since' FROM outbox WHERE key = '{KEY}' AND {IS_OPEN}"
    found = connection.execute(open_).fetchone()
    since = found[0] if found else ""
    (beginning,) = connection.execute(_BEGINNING, (instant(now - WINDOW),)).fetchone()
    views: list[GroupView] = []
    if groups and since:
        views = _summed(connection, "incident ->> '$.storm' = ?", since)
    return StormView(since, beginning, tuple(views))


def _summed(connection: sqlite3.Connection, which: str, value: str) -> list[GroupView]:
    """Groups as a summary of several tells of them: without what waits in them."""
    columns = (*alertrows.GROUP, "flushes", "told", "incident", "waits")
    waits = "(SELECT coalesce(max(id), 0) FROM alerts WHERE group_key = key AND flush IS NULL) AS waits"
    select = f"SELECT {', '.join(columns)} FROM (SELECT *, {waits} FROM alert_groups WHERE {which} ORDER BY key)"
    views = []
    for row in connection.execute(select, (value,)).fetchall():
        group = dict(zip(columns, row, strict=True))
        incident, own = alertrows.incident_in(group), alertrows.group_of(group)
        views.append(
            GroupView(own, group["flushes"], group["told"], None, None, {}, (), group["waits"], incident=incident)
        )
    return views


def _cause(connection: sqlite3.Connection, group: AlertGroup, *, but: str = "") -> str:
    """An open group that inhibits this one, by its name, the group ``but`` aside."""
    for each in group.course.inhibited_by:
        equal = [(f'$."{name}"', group.labels.get(name, "")) for name in each.equal]
        alike = " AND coalesce(labels ->> ?, '') = ?" * len(equal)
        values = (group.key, but, each.rule, *(value for pair in equal for value in pair))
        found = connection.execute(f"{_CAUSE}{alike} ORDER BY key LIMIT 1", values).fetchone()
        if found is not None:
            return str(found[0])
    return ""


def _symptoms(connection: sqlite3.Connection, group: AlertGroup) -> tuple[GroupView, ...]:
    """The groups that remember this one as their cause, each with another one that it has."""
    found = _summed(connection, f"{_INHIBITED} = ? AND {_INHIBITED} != ''", name_of(group))
    return tuple(replace(each, cause=_cause(connection, each.group, but=group.key)) for each in found)


_BEGINNING: Final = f"""
    SELECT count(*) FROM alert_groups WHERE key {NO_DRILL} AND (state = '{GroupState.WAITING}'
        OR (state != '{GroupState.RESOLVED}' AND incident ->> '$.opened_at' >= ?))"""


def states_of(connection: sqlite3.Connection, key: str, incident: Incident, *, flushes: int) -> Mapping[str, int]:
    """The alerts of an incident by the state of their failure; of one that begins, what waits."""
    first = incident.first if incident.opened_at else flushes + 1
    return dict(connection.execute(_STATES, (key, key, first)).fetchall())


_CAUSE: Final = f"""
    SELECT labels ->> '$.rule' || ' (' || key || ')' FROM alert_groups
    WHERE key NOT IN (?, ?) AND key {NO_DRILL} AND state IN ({texts({*OPEN, GroupState.WAITING})})
        AND labels ->> '$.rule' = ?"""
_STATES: Final = """
    SELECT state, count(*) FROM (
        SELECT coalesce(l.state, '') AS state FROM alerts a LEFT JOIN lineages l USING (root)
        WHERE a.group_key = ? AND a.flush IS NULL
        UNION ALL
        SELECT coalesce(l.state, '') AS state FROM alerts a LEFT JOIN lineages l USING (root)
        WHERE a.group_key = ? AND a.flush >= ?
    ) GROUP BY state"""
_HEALED_BY: Final = f"""
    SELECT coalesce(
        (SELECT o.payload ->> '$.origin' FROM outbox o
            WHERE o.root = l.root AND o.kind = 'rerun' AND o.payload ->> '$.attempt' = l.attempt LIMIT 1),
        (SELECT k.origin FROM envelopes e JOIN lineage_links k ON k.key = e.request_id
            WHERE e.root = l.root AND e.attempt > 0 AND e.attempt = l.attempt LIMIT 1), '') AS origin,
        count(DISTINCT l.root)
    FROM alerts a JOIN lineages l USING (root)
    WHERE a.group_key = ? AND a.flush >= ? AND l.state = '{State.HEALED.value}' GROUP BY 1"""
_KINDS: Final = f"""
    SELECT kind, (SELECT labels FROM alert_kinds k WHERE k.key = kind), cause, count(*), min(at), max(at)
    {_WAITING} GROUP BY kind, cause ORDER BY kind"""
_SAMPLE: Final = """
    SELECT root, request_id, cause, detail, at, coalesce((SELECT attempt FROM lineages WHERE root = alerts.root), 0)"""
_APART: Final = f"""
    {_SAMPLE}, kind FROM alerts WHERE id IN (
        SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY kind ORDER BY id DESC) AS place {_WAITING})
        WHERE place <= {_SAMPLES}
    ) ORDER BY id DESC"""


def _kinds(connection: sqlite3.Connection, key: str, *, labels: str) -> tuple[AlertKind, ...]:
    kinds: dict[str, AlertKind] = {}
    for kind, own, cause, count, first, last in connection.execute(_KINDS, (key,)):
        known = kinds.get(kind)
        # An alert of an older version has no kind; what its group says comes close.
        kinds[kind] = AlertKind(
            key=kind,
            labels=known.labels if known else json.loads(own or labels),
            causes={**(known.causes if known else {}), Cause(cause): count},
            first_at=min(instant_of(first), known.first_at) if known else instant_of(first),
            last_at=max(instant_of(last), known.last_at) if known else instant_of(last),
        )
    return tuple(kinds.values())


def _with_samples(connection: sqlite3.Connection, key: str, kinds: Sequence[AlertKind]) -> tuple[AlertKind, ...]:
    samples: dict[str, list[WaitingAlert]] = {}
    for *row, kind in connection.execute(_APART, (key,)):
        samples.setdefault(kind, []).append(_sample(connection, row))
    return tuple(replace(kind, samples=tuple(samples[kind.key])) for kind in kinds)


def _sample(connection: sqlite3.Connection, row: Sequence[Any]) -> WaitingAlert:
    root, request_id, cause, detail, at, attempts = row
    runs = runs_of(connection, root, last=attempts) if root and attempts else ()
    return WaitingAlert(request_id, Cause(cause), detail, instant_of(at), attempts, runs)
