"""All that is kept about one lineage, in the SQLite store, for whoever tells it (`triage.cli.lineage`)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlite_utils import Database

from triage.envelope import RequestId
from triage.reruns.attempts import Attempt, attempts_of
from triage.reruns.lineage import task_id

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Story:
    """One lineage, or one success outside any. Mappings are columns, with JSON read; instants are texts.

    Attributes:
        lineage: None for a success that was never run again.
        members: the envelopes that belong to it with their decisions, by attempt; those removed are absent.
        links: of each attempt, the names that tell its origin: task id, or request id.
        outbox: its re-runs, and what was or is waited for, in the order they were planned.
        deliveries: notifications that its alerts went into.
    """

    root: str
    lineage: Row | None
    members: Sequence[Row]
    links: Sequence[Row]
    outbox: Sequence[Row]
    alerts: Sequence[Row]
    deliveries: Sequence[Row]
    deeds: Sequence[Row]


_MEMBER: Final = """
    SELECT e.request_id, e.attempt, e.outcome, e.function, e.qualifier, e.condition, e.error_type, e.error_message,
        e.received_at, d.decided_at, d.reason, d.rule_id, d.effects, d.facts
    FROM envelopes e JOIN decisions d USING (id)"""
_MEMBERS: Final = f"""
    {_MEMBER} WHERE e.request_id = :root UNION ALL {_MEMBER} WHERE e.root = :root AND e.attempt > 0
    ORDER BY attempt, received_at"""
_DELIVERIES: Final = """
    SELECT * FROM deliveries
    WHERE (group_key, flush) IN (SELECT group_key, flush FROM alerts WHERE root = :root) ORDER BY id"""
_FIND: Final = """
    SELECT coalesce(root, request_id) AS root FROM envelopes WHERE request_id >= :low AND request_id < :high
    UNION SELECT root FROM lineage_links WHERE key >= :low AND key < :high LIMIT 2"""
_EXACT: Final = """
    SELECT coalesce(root, request_id) AS root FROM envelopes WHERE request_id = :low
    UNION SELECT root FROM lineage_links WHERE key = :low LIMIT 1"""


def story(connection: sqlite3.Connection, name: str) -> Story | None:
    """The story of the lineage that a request id or task id belongs to; a prefix is enough if it means one lineage."""
    db = Database(connection, recursive_triggers=False, execute_plugins=False)
    bounds = {"low": name, "high": name + "\U0010ffff"}
    found = list(db.query(_EXACT, bounds)) or list(db.query(_FIND, bounds))
    if len(found) != 1:
        return None
    own = {"root": found[0]["root"]}
    lineage = next(iter(db.query("SELECT * FROM lineages WHERE root = :root", own)), None)
    members = [
        {**row, **{name: json.loads(row[name]) for name in ("effects", "facts")}} for row in db.query(_MEMBERS, own)
    ]
    names = [task_id(own["root"], number + 1) for number in range(lineage["attempt"])] if lineage else []
    names += [row["request_id"] for row in members]
    outbox = db.query("SELECT * FROM outbox WHERE root = :root ORDER BY id", own)
    return Story(
        root=own["root"],
        lineage=lineage,
        members=members,
        links=list(db.query(_LINKS, {"keys": json.dumps(names)})),
        outbox=[{**row, "payload": json.loads(row["payload"])} for row in outbox],
        alerts=list(db.query("SELECT * FROM alerts WHERE root = :root ORDER BY id", own)),
        deliveries=list(db.query(_DELIVERIES, own)),
        deeds=list(db.query("SELECT * FROM deeds WHERE root = :root ORDER BY id", own)),
    )


def attempts(connection: sqlite3.Connection, root: str, *, last: int) -> tuple[Attempt, ...]:
    """Every run of the lineage that begins with ``root``, and counts ``last`` re-runs."""
    db = Database(connection, recursive_triggers=False, execute_plugins=False)
    own = {"root": root}
    members = list(db.query(_MEMBERS, own))
    names = [task_id(RequestId(root), number + 1) for number in range(last)] + [row["request_id"] for row in members]
    links = list(db.query(_LINKS, {"keys": json.dumps(names)}))
    reruns = db.query("SELECT * FROM outbox WHERE root = :root AND kind = 'rerun' ORDER BY id", own)
    outbox = [{**row, "payload": json.loads(row["payload"])} for row in reruns]
    return tuple(attempts_of(members, links, outbox, last=last))


_LINKS: Final = """
    SELECT key, attempt, origin FROM lineage_links
    WHERE origin != '' AND key IN (SELECT value FROM json_each(:keys)) ORDER BY attempt"""
