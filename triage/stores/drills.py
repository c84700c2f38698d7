"""Ordered drills in the SQLite store: jobs for its writer thread; and how its queries leave drills out."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from typing import Any, Final

from triage.drills import GLOB, Drill
from triage.envelope import RequestId
from triage.stores.records import Record, insert, instant, instant_of, text

DRILL: Final = ("request_id", "digest", "by", "at", "receiver", "rerun")

NO_DRILL: Final = f"NOT GLOB '{GLOB}'"
"""Follows the root of a lineage, or the key of an alert group, in what leaves drills out."""

NO_MESSAGE: Final = f"NOT GLOB 'notify:{GLOB}'"
"""Follows the key of a notification, likewise."""

ENVELOPES: Final = """
    SELECT e.id FROM drills d JOIN envelopes e USING (request_id)
    UNION ALL SELECT e.id FROM drills d JOIN envelopes e ON e.root = d.request_id AND e.attempt > 0"""
"""The numbers of the envelopes of all drills, and of their decisions."""

_INSERT: Final = insert("drills", DRILL)
_FIND: Final = f"SELECT {', '.join(DRILL)} FROM drills WHERE request_id IN (SELECT value FROM json_each(?))"


def expect(connection: sqlite3.Connection, drill: Drill) -> None:
    """Remember that a drill will come."""
    connection.execute(_INSERT, drill_record(drill))


def find(connection: sqlite3.Connection, roots: Collection[str]) -> dict[str, Drill]:
    """Those of them that were ordered."""
    rows = connection.execute(_FIND, (json.dumps(list(roots)),))
    return {row[0]: drill_of(row) for row in rows}


def drill_record(drill: Drill) -> Record:
    """Values of `DRILL`."""
    return (drill.request_id, drill.digest, text(drill.by), instant(drill.at), drill.to, int(drill.rerun))


def drill_of(row: tuple[Any, ...]) -> Drill:
    """Undo `drill_record`."""
    request_id, digest, by, at, to, rerun = row
    return Drill(RequestId(request_id), digest, by, instant_of(at), to, bool(rerun))
