"""What the SQLite store lets go of, in bounded steps: found on the reader's thread, removed by a job of the writer's.

Nothing that is open is touched, and nothing that a row still refers to. Counters keep what was removed, so that the
sums go on adding up. The pages that become free are used again; the file does not shrink.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from triage.states import ACCOUNTED
from triage.stores import drills
from triage.stores.records import instant

REMOVED: Final = "removed_"
"""The counters of what is gone: of envelopes, failures, alerts, quarantined messages, and notifications by result."""


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """Before when something must have ended for it to go; None keeps it for ever.

    Attributes:
        successes: results of tasks that did well, outside any lineage: with their decisions.
        failures: the messages of failures that are over, that is, what functions were called with and answered.
        decisions: what is left of failures that are over: the story, the decisions, the alerts, what people did.
        quarantine: messages that could not be read.

    When a function was last heard of is kept as long as decisions.
    """

    successes: datetime | None = None
    failures: datetime | None = None
    decisions: datetime | None = None
    quarantine: datetime | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What a step has removed, and after which row the next one begins; None when the stage is at its end."""

    removed: int
    after: int | None


@dataclass(frozen=True, slots=True)
class _Stage:
    """``find`` gives, of the rows after ``:after``, the first ``:scan``: number, when it ended, and whether it may go.

    ``in_order`` says that later rows ended later, so that the first one that is too young ends the stage.
    """

    cutoff: str
    find: str
    remove: Callable[[sqlite3.Connection, Sequence[int]], int]
    in_order: bool = False


_SCAN: Final = 1000
"""Rows that a step looks at, at most."""

_OVER: Final = ", ".join(f"'{state}'" for state, account in sorted(ACCOUNTED.items()) if account != "held")
_TABLES: Final = ("envelopes", "lineage_links", "alerts", "outbox", "deeds")
"""What goes together with a lineage."""
_IDS: Final = "(SELECT value FROM json_each(:ids))"
_UNFINISHED: Final = "SELECT 1 FROM outbox o WHERE o.root = l.root AND o.settled_at IS NULL"
_FINISHED: Final = f"l.state IN ({_OVER}) AND NOT EXISTS ({_UNFINISHED})"
_MEMBERS: Final = f"""
    SELECT e.id, e.request_id FROM envelopes e WHERE e.request_id IN (SELECT root FROM lineages WHERE rowid IN {_IDS})
    UNION
    SELECT e.id, e.request_id FROM envelopes e
    WHERE e.attempt > 0 AND e.root IN (SELECT root FROM lineages WHERE rowid IN {_IDS})"""


def step(connection: sqlite3.Connection, name: str, cutoffs: Cutoffs, *, after: int) -> tuple[list[int], Step]:
    """Look at the next rows of a stage, without removing any: which may go, and where the step after this begins."""
    stage = STAGES[name]
    before = getattr(cutoffs, stage.cutoff)
    if before is None:
        return [], Step(0, None)
    values = {"after": after, "scan": _SCAN, "before": instant(before)}
    rows = connection.execute(_find(connection, stage), values).fetchall()
    young = stage.in_order and any(ended >= values["before"] for _, ended, _ in rows)
    passed = [row for row in rows if not (stage.in_order and row[1] >= values["before"])]
    ids = [number for number, ended, over in passed if over and ended < values["before"]]
    end = len(rows) < _SCAN or young
    return ids, Step(0, None if end else rows[-1][0])


def remove(connection: sqlite3.Connection, name: str, ids: Sequence[int], cutoffs: Cutoffs) -> int:
    """Remove what was found; how many. What has changed since is left alone."""
    stage = STAGES[name]
    found = f"SELECT number FROM ({_find(connection, stage)}) WHERE may_go AND ended < :before"
    before = instant(getattr(cutoffs, stage.cutoff))
    still: set[int] = set()
    for number in ids:  # each by its key: the writer must not scan
        values = {"after": number - 1, "scan": 1, "before": before}
        still.update(row[0] for row in connection.execute(found, values))
    return stage.remove(connection, [number for number in ids if number in still])


def _find(connection: sqlite3.Connection, stage: _Stage) -> str:
    """The statement that finds, with a lineage kept for as long as a table that is not known here refers to it."""
    if "{kept}" not in stage.find:
        return stage.find
    others = connection.execute(
        """SELECT m.name, f."from" FROM sqlite_master m, pragma_foreign_key_list(m.name) f
        WHERE m.type = 'table' AND f."table" = 'lineages'"""
    )
    kept = "".join(
        f' AND NOT EXISTS (SELECT 1 FROM "{table}" x WHERE x."{column}" = l.root)'
        for table, column in others.fetchall()
        if table not in _TABLES
    )
    return stage.find.replace("{kept}", kept)


def _count(connection: sqlite3.Connection, removed: Mapping[str, int]) -> None:
    statement = """INSERT INTO counters (name, value) VALUES (?, ?)
        ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"""
    connection.executemany(statement, [(f"{REMOVED}{name}", number) for name, number in removed.items() if number])


def _successes(connection: sqlite3.Connection, ids: Sequence[int]) -> int:
    own = {"ids": json.dumps(ids)}
    connection.execute(
        f"DELETE FROM conflicts WHERE request_id IN (SELECT request_id FROM envelopes WHERE id IN {_IDS})", own
    )
    connection.execute(f"DELETE FROM decisions WHERE id IN {_IDS}", own)
    removed = connection.execute(f"DELETE FROM envelopes WHERE id IN {_IDS}", own).rowcount
    _count(connection, {"envelopes": removed})
    return removed


def _messages(connection: sqlite3.Connection, ids: Sequence[int]) -> int:
    members = connection.execute(_MEMBERS, {"ids": json.dumps(ids)}).fetchall()
    connection.executemany("DELETE FROM conflicts WHERE request_id = ?", [(request_id,) for _, request_id in members])
    emptied = "UPDATE envelopes SET body = x'' WHERE id = ? AND length(body) > 0"
    return connection.executemany(emptied, [(number,) for number, _ in members]).rowcount


def _lineages(connection: sqlite3.Connection, ids: Sequence[int]) -> int:
    own = {"ids": json.dumps(ids)}
    roots = f"(SELECT root FROM lineages WHERE rowid IN {_IDS})"
    members = connection.execute(_MEMBERS, own).fetchall()
    drilled = {number for (number,) in connection.execute(drills.ENVELOPES)}
    counted = sum(number not in drilled for number, _ in members)
    lost = f"SELECT coalesce(sum(failures), 0) FROM lineages WHERE rowid IN {_IDS}"
    (failures,) = connection.execute(lost, own).fetchone()
    connection.executemany("DELETE FROM conflicts WHERE request_id = ?", [(request_id,) for _, request_id in members])
    connection.executemany("DELETE FROM decisions WHERE id = ?", [(number,) for number, _ in members])
    connection.executemany("DELETE FROM envelopes WHERE id = ?", [(number,) for number, _ in members])
    alerts = connection.execute(f"DELETE FROM alerts WHERE root IN {roots}", own).rowcount
    for table in ("deeds", "outbox", "lineage_links"):
        connection.execute(f"DELETE FROM {table} WHERE root IN {roots}", own)
    connection.execute(f"DELETE FROM drills WHERE request_id IN {roots}", own)
    removed = connection.execute(f"DELETE FROM lineages WHERE rowid IN {_IDS}", own).rowcount
    _count(connection, {"envelopes": counted, "failures": failures, "alerts": alerts})
    return removed


def _rows(table: str, counted: str = "") -> Callable[[sqlite3.Connection, Sequence[int]], int]:
    def delete(connection: sqlite3.Connection, ids: Sequence[int]) -> int:
        removed = connection.execute(f"DELETE FROM {table} WHERE id IN {_IDS}", {"ids": json.dumps(ids)}).rowcount
        _count(connection, {counted: removed} if counted else {})
        return removed

    return delete


def _deliveries(connection: sqlite3.Connection, ids: Sequence[int]) -> int:
    own = {"ids": json.dumps(ids)}
    counted = f"id IN {_IDS} AND key {drills.NO_MESSAGE}"
    results = connection.execute(f"SELECT result, count(*) FROM deliveries WHERE {counted} GROUP BY result", own)
    _count(connection, {f"deliveries_{result}": number for result, number in results.fetchall()})
    return connection.execute(f"DELETE FROM deliveries WHERE id IN {_IDS}", own).rowcount


def _groups(connection: sqlite3.Connection, ids: Sequence[int]) -> int:
    own = {"ids": json.dumps(ids)}
    counted = f"SELECT key, told + suppressed + silenced FROM alert_groups WHERE rowid IN {_IDS}"
    groups = connection.execute(counted, own).fetchall()
    connection.executemany("DELETE FROM outbox WHERE key = 'flush:' || ?", [(key,) for key, _ in groups])
    _count(connection, {"alerts": -sum(flushed for _, flushed in groups)})  # they were counted by the group till now
    return connection.execute(f"DELETE FROM alert_groups WHERE rowid IN {_IDS}", own).rowcount


def _silenced(connection: sqlite3.Connection, ids: Sequence[int]) -> int:
    return connection.execute(f"DELETE FROM silenced WHERE rowid IN {_IDS}", {"ids": json.dumps(ids)}).rowcount


def _arrivals(connection: sqlite3.Connection, ids: Sequence[int]) -> int:
    return connection.execute(f"DELETE FROM arrivals WHERE rowid IN {_IDS}", {"ids": json.dumps(ids)}).rowcount


STAGES: Final[Mapping[str, _Stage]] = {
    "successes": _Stage(
        "successes",
        """SELECT id AS number, received_at AS ended, root IS NULL AND outcome != 'failed' AS may_go
        FROM envelopes WHERE id > :after ORDER BY id LIMIT :scan""",
        _successes,
        in_order=True,
    ),
    "messages": _Stage(
        "failures",
        f"""SELECT l.rowid AS number, l.updated_at AS ended, l.updated_at < :before AND {_FINISHED} AND (
            EXISTS (SELECT 1 FROM envelopes e WHERE e.request_id = l.root AND length(e.body) > 0) OR
            EXISTS (SELECT 1 FROM envelopes e WHERE e.root = l.root AND e.attempt > 0 AND length(e.body) > 0)) AS may_go
        FROM lineages l WHERE l.rowid > :after ORDER BY l.rowid LIMIT :scan""",
        _messages,
    ),
    "lineages": _Stage(
        "decisions",
        f"""SELECT l.rowid AS number, l.updated_at AS ended, l.updated_at < :before AND {_FINISHED} AND NOT EXISTS (
            SELECT 1 FROM alerts a WHERE a.root = l.root AND a.flush IS NULL){{kept}} AS may_go
        FROM lineages l WHERE l.rowid > :after ORDER BY l.rowid LIMIT :scan""",
        _lineages,
    ),
    "alerts": _Stage(
        "decisions",
        """SELECT id AS number, at AS ended, root IS NULL AND flush IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM envelopes e WHERE e.request_id = a.request_id) AS may_go
        FROM alerts a WHERE id > :after ORDER BY id LIMIT :scan""",
        _rows("alerts", "alerts"),
        in_order=True,
    ),
    "silenced": _Stage(  # what a silence kept quiet; who asked for it, and why, is kept for ever
        "decisions",
        """SELECT t.rowid AS number, s.ended_at AS ended, s.ended_at IS NOT NULL AS may_go
        FROM silenced t JOIN silences s ON s.id = t.silence WHERE t.rowid > :after ORDER BY t.rowid LIMIT :scan""",
        _silenced,
    ),
    "notifications": _Stage(
        "decisions",
        """SELECT id AS number, coalesce(settled_at, due_at) AS ended, kind = 'notify' AND settled_at IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM alerts a
                WHERE a.group_key = o.group_key AND a.flush = json_extract(o.payload, '$.flush')) AS may_go
        FROM outbox o WHERE id > :after ORDER BY id LIMIT :scan""",
        _rows("outbox"),
    ),
    "deliveries": _Stage(
        "decisions",
        "SELECT id AS number, at AS ended, 1 AS may_go FROM deliveries WHERE id > :after ORDER BY id LIMIT :scan",
        _deliveries,
        in_order=True,
    ),
    "groups": _Stage(
        "decisions",
        """SELECT g.rowid AS number, g.created_at AS ended,
            NOT EXISTS (SELECT 1 FROM alerts a WHERE a.group_key = g.key)
            AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.group_key = g.key)
            AND NOT EXISTS (SELECT 1 FROM silenced s WHERE s.group_key = g.key)
            AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.key = 'flush:' || g.key AND o.settled_at IS NULL)
            AND NOT EXISTS (SELECT 1 FROM outbox o
                WHERE o.key > 'notify:' || g.key || ':' AND o.key < 'notify:' || g.key || ';') AS may_go
        FROM alert_groups g WHERE g.rowid > :after ORDER BY g.rowid LIMIT :scan""",
        _groups,
    ),
    "quarantine": _Stage(
        "quarantine",
        """SELECT id AS number, received_at AS ended, 1 AS may_go
        FROM quarantine WHERE id > :after ORDER BY id LIMIT :scan""",
        _rows("quarantine", "quarantined"),
        in_order=True,
    ),
    "arrivals": _Stage(  # of functions that are there no more; of which nothing has come counts from the start then
        "decisions",
        """SELECT rowid AS number, at AS ended, 1 AS may_go
        FROM arrivals WHERE rowid > :after ORDER BY rowid LIMIT :scan""",
        _arrivals,
    ),
}
"""In this order: what refers to others goes before them."""
