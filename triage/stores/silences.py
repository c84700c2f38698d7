"""Silences in the store: as rows and back, the same for every store; and the SQLite store's jobs about them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from triage.changes import AlertGroup
from triage.silence import Silence, Silenced
from triage.states import Event, State, advance
from triage.stores import alertrows
from triage.stores.drills import NO_DRILL
from triage.stores.records import Record, instant, instant_of, json_text, text
from triage.views import SilencedGroup, SilenceView

SILENCE: Final = (
    "id", "matchers", "by", "reason", "created_at", "ends_at", "quiet_for", "receivers", "ended_at", "ended",
)  # fmt: skip

_NEXT_ID: Final = "SELECT coalesce(max(id), 0) + 1 FROM silences"
_INSERT: Final = f"INSERT INTO silences ({', '.join(SILENCE)}) VALUES ({', '.join('?' * len(SILENCE))})"
_SELECT: Final = f"SELECT {', '.join(SILENCE)} FROM silences"
_MUTE: Final = "UPDATE alerts SET silence = ? WHERE group_key = ? AND flush IS NULL AND id <= ? AND kind = ?"
_TALLY: Final = """
    INSERT INTO silenced (silence, group_key, receiver, count, first_at, last_at) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (silence, group_key, receiver) DO UPDATE SET count = count + excluded.count,
        first_at = min(first_at, excluded.first_at), last_at = max(last_at, excluded.last_at)"""
_MUTED: Final = "FROM alerts WHERE group_key = ? AND flush IS NULL AND id <= ? AND silence IS NOT NULL"
_MOVE: Final = f"""
    UPDATE lineages SET state = ?, version = version + 1, updated_at = ?
    WHERE state = ? AND root IN (SELECT root {_MUTED})"""
_END: Final = "UPDATE silences SET ended_at = ?, ended = ? WHERE id = ? AND ended_at IS NULL"
_GROUPS: Final = f"""
    SELECT s.receiver, s.count, s.first_at, s.last_at, coalesce(h.healed, 0),
        {", ".join(f"g.{column}" for column in alertrows.GROUP)}
    FROM silenced s JOIN alert_groups g ON g.key = s.group_key
    LEFT JOIN (
        SELECT a.group_key, count(*) AS healed FROM alerts a JOIN lineages l USING (root)
        WHERE a.silence = :silence AND l.state = 'healed' GROUP BY a.group_key
    ) h USING (group_key)
    WHERE s.silence = :silence ORDER BY s.group_key, s.receiver"""


def silence_record(silence: Silence) -> Record:
    """Values of `SILENCE`."""
    return (
        silence.id,
        json_text(silence.match),
        text(silence.by),
        text(silence.reason),
        instant(silence.created_at),
        instant(silence.ends_at),
        None if silence.quiet_for is None else silence.quiet_for.total_seconds(),
        json_text(silence.to),
        None if silence.ended_at is None else instant(silence.ended_at),
        text(silence.ended),
    )


@lru_cache(maxsize=1024)
def silence_of(record: Record) -> Silence:
    """Undo `silence_record`."""
    number, matchers, by, reason, created_at, ends_at, quiet_for, receivers, ended_at, ended = record
    return Silence(
        id=number,
        match=json.loads(matchers),
        by=by,
        reason=reason,
        created_at=instant_of(created_at),
        ends_at=instant_of(ends_at),
        quiet_for=None if quiet_for is None else timedelta(seconds=quiet_for),
        to=tuple(json.loads(receivers)),
        ended_at=ended_at and instant_of(ended_at),
        ended=ended,
    )


def tally_record(group: str, each: Silenced) -> Record:
    """A silence, a group, a receiver: how many alerts, the first and the last of them."""
    return (each.silence, group, each.receiver, each.count, instant(each.first_at), instant(each.last_at))


def insert(connection: sqlite3.Connection, silence: Silence) -> Silence:
    """Number a silence and store it; the outbox row that sees to its end is the caller's to store."""
    numbered = replace(silence, id=connection.execute(_NEXT_ID).fetchone()[0])
    connection.execute(_INSERT, silence_record(numbered))
    return numbered


def in_force(connection: sqlite3.Connection) -> tuple[Silence, ...]:
    """All that have not ended, whatever the time."""
    return tuple(map(silence_of, connection.execute(f"{_SELECT} WHERE ended_at IS NULL ORDER BY id").fetchall()))


def since(connection: sqlite3.Connection, at: datetime) -> list[Silence]:
    """Those that had not ended then."""
    rows = connection.execute(f"{_SELECT} WHERE coalesce(ended_at, ends_at) > ? ORDER BY id", (instant(at),))
    return [silence_of(row) for row in rows]


def listed(connection: sqlite3.Connection, *, ended: bool) -> list[SilenceView]:
    """The silences that have not ended, or all, the newest first, with what they kept quiet."""
    which = "" if ended else "WHERE ended_at IS NULL"
    found = connection.execute(f"{_SELECT} {which} ORDER BY id DESC").fetchall()
    return [SilenceView(silence_of(row), _groups(connection, row[0])) for row in found]


def view(connection: sqlite3.Connection, number: int) -> SilenceView | None:
    """One silence with what it kept quiet."""
    found = connection.execute(f"{_SELECT} WHERE id = ?", (number,)).fetchone()
    return SilenceView(silence_of(found), _groups(connection, number)) if found else None


def _groups(connection: sqlite3.Connection, number: int) -> tuple[SilencedGroup, ...]:
    return tuple(
        SilencedGroup(
            group=group_of_columns(group),
            receiver=receiver,
            count=count,
            first_at=instant_of(first_at),
            last_at=instant_of(last_at),
            healed=healed,
        )
        for receiver, count, first_at, last_at, healed, *group in connection.execute(_GROUPS, {"silence": number})
    )


def group_of_columns(row: Sequence[Any]) -> AlertGroup:
    """An alert group from the values of `alertrows.GROUP`."""
    return alertrows.group_of(dict(zip(alertrows.GROUP, row, strict=True)))


@dataclass(frozen=True, slots=True)
class Alerted:
    """Alerts of one kind in one group since some time; ``waiting``: those that were not flushed yet."""

    group: AlertGroup
    labels: Mapping[str, str]
    count: int
    waiting: int
    last_at: datetime


def alerted(connection: sqlite3.Connection, since: datetime) -> list[Alerted]:
    """What there was to tell since then, by group and kind, the largest first."""
    rows = connection.execute(_ALERTED, (instant(since),)).fetchall()
    found = []
    for count, waiting, last_at, labels, *columns in rows:
        group = group_of_columns(columns)
        own = json.loads(labels) if labels else group.labels
        found.append(Alerted(group, own, count, waiting, instant_of(last_at)))
    return found


_ALERTED: Final = f"""
    SELECT a.count, a.waiting, a.last_at, k.labels, {", ".join(f"g.{column}" for column in alertrows.GROUP)}
    FROM (
        SELECT group_key, kind, count(*) AS count, count(*) - count(flush) AS waiting, max(at) AS last_at
        FROM alerts WHERE (at >= ? OR flush IS NULL) AND group_key {NO_DRILL} GROUP BY group_key, kind
    ) a JOIN alert_groups g ON g.key = a.group_key LEFT JOIN alert_kinds k ON k.key = a.kind
    ORDER BY a.count DESC, a.group_key, a.kind"""


def mute(connection: sqlite3.Connection, group: str, last_id: int, several: Sequence[Silenced]) -> None:
    """Count what is kept from whom, and mark the alerts that nobody is told of, before a message takes them."""
    connection.executemany(_TALLY, [tally_record(group, each) for each in several])
    marks = [(number, group, last_id, kind) for kind, number in wholly(several).items()]
    connection.executemany(_MUTE, marks)


def wholly(several: Sequence[Silenced]) -> dict[str, int]:
    """The kinds that nobody is told of, with the silence that says so: of one for each receiver, the first's."""
    return {each.kind: each.silence for each in reversed(several) if each.wholly}


def move(connection: sqlite3.Connection, group: str, last_id: int, *, now: datetime) -> int:
    """The set-based form of the one transition that a silence causes; returns how many alerts nobody is told of."""
    state = advance(State.ALERTING, Event.SILENCED).value
    connection.execute(_MOVE, (state, instant(now), State.ALERTING.value, group, last_id))
    counted = connection.execute(f"SELECT count(*) {_MUTED}", (group, last_id)).fetchone()
    return int(counted[0])


def end(connection: sqlite3.Connection, number: int, how: str, *, now: datetime) -> None:
    """It is over."""
    connection.execute(_END, (instant(now), text(how), number))
