"""An alert group as a message tells of it: what waits in it, or what one of its messages told. For the command line."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, replace
from typing import Final

from triage.errors import AmbiguousCode
from triage.rules.model import Cause
from triage.stores.alerting import group_view
from triage.stores.codes import CODE, groups_named, plain
from triage.stores.records import instant_of
from triage.views import AlertKind, GroupView, WaitingAlert

_NUMBER: Final = f"""
    SELECT payload ->> '$.flush' FROM outbox WHERE kind = 'notify' AND group_key = ? AND {CODE} = ? LIMIT 1"""
_TOLD: Final = "FROM alerts WHERE group_key = ? AND flush = ?"
_COUNTS: Final = f"SELECT cause, count(*), min(at), max(at), max(id) {_TOLD} AND silence IS NULL GROUP BY cause"
_BEFORE: Final = "SELECT count(*) FROM alerts WHERE group_key = ? AND flush >= ? AND silence IS NULL"
_NEWEST: Final = f"""
    SELECT request_id, cause, detail, at, coalesce((SELECT attempt FROM lineages WHERE root = alerts.root), 0)
    {_TOLD} AND silence IS NULL ORDER BY id DESC LIMIT 5"""

_KINDS: Final = f"""
    SELECT kind, coalesce((SELECT labels FROM alert_kinds k WHERE k.key = kind), '{{}}'), min(at), max(at)
    {_TOLD} AND silence IS NULL GROUP BY kind"""


@dataclass(frozen=True, slots=True)
class Previewed:
    """A group, and the number of the message: the next one, or one that was sent."""

    view: GroupView
    number: int


def previewed(connection: sqlite3.Connection, name: str) -> Previewed | None:
    """The group with this key or this short code of a message, or the first characters of either. None: there is none,
    or nothing is kept of what it told.

    Raises:
        AmbiguousCode: there are several.
    """
    keys = groups_named(connection, name)
    if len(keys) > 1:
        raise AmbiguousCode(name, keys)
    view = group_view(connection, keys[0]) if keys else None
    if view is None:
        return None
    coded = connection.execute(_NUMBER, (keys[0], plain(name))).fetchone()
    if coded is not None:
        return _told(connection, view, int(coded[0]))
    return Previewed(view, view.flushes + 1) if view.causes else _told(connection, view, view.flushes)


def _told(connection: sqlite3.Connection, view: GroupView, number: int) -> Previewed | None:
    counts = connection.execute(_COUNTS, (view.group.key, number)).fetchall()
    if not counts:
        return None
    since = connection.execute(_BEFORE, (view.group.key, number)).fetchone()[0]
    samples = connection.execute(_NEWEST, (view.group.key, number))
    told = replace(
        view,
        flushes=number - 1,
        told=max(view.told - since, 0),
        first_at=min(instant_of(first) for _, _, first, _, _ in counts),
        last_at=max(instant_of(last) for _, _, _, last, _ in counts),
        causes={Cause(cause): count for cause, count, *_ in counts},
        samples=tuple(
            WaitingAlert(request_id, Cause(cause), detail, instant_of(at), attempts)
            for request_id, cause, detail, at, attempts in samples
        ),
        last_id=max(last for *_, last in counts),
        kinds=tuple(
            AlertKind(kind, json.loads(labels), {}, instant_of(first), instant_of(last))
            for kind, labels, first, last in connection.execute(_KINDS, (view.group.key, number))
        ),
    )
    return Previewed(told, number)
