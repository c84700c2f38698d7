"""Alert groups as people look at them. Jobs for the SQLite store's reader thread."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from triage.changes import AlertGroup
from triage.incident import OPEN, GroupState, Incident
from triage.stores import alerting, alertrows
from triage.stores.law import texts
from triage.stores.records import instant_of

MINUTES: Final = 10
"""Minutes that are counted one by one: the last ones in which something failed."""

_MESSAGES: Final = 20
_COLUMNS: Final = (*alertrows.GROUP, "state", "code", "flushes", "told", "suppressed", "silenced", "incident")
_SELECT: Final = f"""
    SELECT {", ".join(f"g.{column}" for column in _COLUMNS)},
        (SELECT count(*) FROM alerts a WHERE a.group_key = g.key AND a.flush IS NULL) AS waiting,
        (SELECT max(at) FROM alerts a WHERE a.group_key = g.key AND a.flush IS NULL) AS waiting_at
    FROM alert_groups g"""


@dataclass(frozen=True, slots=True)
class GroupRow:
    """An alert group as listed.

    Attributes:
        told, suppressed, silenced, waiting: its alerts since ever: told by a message, only counted so far, kept quiet,
            and not looked at yet.
        last_at: when the newest of them came.
    """

    group: AlertGroup
    state: GroupState
    code: str
    messages: int
    told: int
    suppressed: int
    silenced: int
    waiting: int
    last_at: datetime | None
    incident: Incident


@dataclass(frozen=True, slots=True)
class GroupStory:
    """An alert group with all that is known of it.

    Attributes:
        lineages: how many failures its last incident is about; ``states``: its alerts by how these stand.
        minutes: alerts in the last minutes in which there were any, the newest first.
        sent: its last messages, the newest first, one for each receiver.
        deeds: what people did about this incident.
    """

    row: GroupRow
    lineages: int
    states: Mapping[str, int]
    minutes: Mapping[str, int]
    sent: tuple[Mapping[str, Any], ...]
    deeds: tuple[Mapping[str, Any], ...]


class AlertDesk(Protocol):
    """What only the command line asks of alert groups."""

    async def alert_groups(self, *, every: bool = False) -> list[GroupRow]:
        """Those that are open or wait for their first look, or all; those that failed last first."""
        ...

    async def alert_groups_named(self, name: str) -> list[str]:
        """The keys of those with this code in one of their messages, or else with a code or key that begins so."""
        ...

    async def alert_group(self, key: str) -> GroupStory:
        """One with all that is known of it."""
        ...


def listed(connection: sqlite3.Connection, *, every: bool) -> list[GroupRow]:
    """The groups that are open or wait for their first look, or all; those that failed last first."""
    going_on = f"WHERE state IN ({texts({*OPEN, GroupState.WAITING})}) OR waiting > 0"
    rows = [_row(found) for found in connection.execute(f"{_SELECT} {'' if every else going_on}")]
    return sorted(rows, key=lambda row: (row.last_at is not None, row.last_at, row.group.key), reverse=True)


def _row(found: tuple[Any, ...]) -> GroupRow:
    *columns, waiting, waiting_at = found
    row = dict(zip(_COLUMNS, columns, strict=True))
    incident = alertrows.incident_in(row)
    return GroupRow(
        group=alertrows.group_of(row),
        state=GroupState(row["state"]),
        code=row["code"],
        messages=row["flushes"],
        told=row["told"],
        suppressed=row["suppressed"],
        silenced=row["silenced"],
        waiting=waiting,
        last_at=instant_of(waiting_at) if waiting_at else incident.last_at,
        incident=incident,
    )


def story(connection: sqlite3.Connection, key: str) -> GroupStory:
    """One group, by its key."""
    row = _row(connection.execute(f"{_SELECT} WHERE g.key = ?", (key,)).fetchone())
    own = {"key": key, "first": row.incident.first, "about": f"alert {row.code}"}
    of_incident = "FROM alerts WHERE group_key = :key AND (flush IS NULL OR flush >= :first)"
    (lineages,) = connection.execute(f"SELECT count(DISTINCT root) {of_incident}", own).fetchone()
    minutes = connection.execute(
        f"SELECT substr(at, 1, 16), count(*) {of_incident} GROUP BY 1 ORDER BY 1 DESC LIMIT {MINUTES}", own
    ).fetchall()
    connection.row_factory = sqlite3.Row
    try:
        sent = connection.execute(_SENT, own).fetchall()
        deeds = connection.execute("SELECT * FROM deeds WHERE about = :about ORDER BY id", own).fetchall()
    finally:
        connection.row_factory = None
    return GroupStory(
        row=row,
        lineages=lineages,
        states=alerting.states_of(connection, key, row.incident, flushes=row.messages),
        minutes=dict(minutes),
        sent=tuple({**dict(each), "payload": json.loads(each["payload"])} for each in sent),
        deeds=tuple(map(dict, deeds)),
    )


_SENT: Final = f"""
    SELECT key, state, note, created_at, settled_at, payload FROM outbox
    WHERE key > 'notify:' || :key || ':' AND key < 'notify:' || :key || ';' ORDER BY id DESC LIMIT {_MESSAGES}"""
