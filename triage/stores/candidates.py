"""What plans of re-runs are made from, read in pieces: jobs for the reader of the SQLite store."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Any, Final

from triage.facts import NO_LABELS, Arrival
from triage.stores import FailureFilter, decisions, queries, records
from triage.stores.planning import Candidate
from triage.stores.records import instant_of

_LINEAGE: Final = tuple(f"l.{column}" for column in decisions.LINEAGE_FACTS)
# The newest failure of each lineage: of those before it the story is over.
_CANDIDATES: Final = f"""
    SELECT d.facts, {", ".join(_LINEAGE)}, {records.read("envelopes", records.ENVELOPE, "e.")}
    FROM envelopes e JOIN decisions d USING (id) JOIN lineages l ON l.root = e.root
    WHERE e.id BETWEEN :low AND :high AND length(e.body) > 0 AND NOT EXISTS (
        SELECT 1 FROM envelopes later
        WHERE later.root = e.root AND later.attempt > 0 AND later.id > e.id AND later.id <= :last
            AND later.outcome = 'failed'
    )"""
_ROOTS: Final = f"""
    SELECT {records.read("envelopes", records.ENVELOPE)} FROM envelopes
    WHERE length(body) > 0 AND request_id IN (SELECT value FROM json_each(?))"""
_TOOK: Final = """
    SELECT o.settled_at, e.received_at
    FROM envelopes e JOIN outbox o ON o.root = e.root
    WHERE e.attempt > 0 AND e.outcome != 'drill' AND e.function IN (SELECT value FROM json_each(?))
        AND o.kind = 'rerun' AND o.state = 'done'
        AND json_extract(o.payload, '$.attempt') = e.attempt
    ORDER BY e.id DESC LIMIT 200"""


def span(connection: sqlite3.Connection) -> tuple[int, int]:
    """The numbers of the first and the last envelope."""
    low, high = connection.execute("SELECT coalesce(min(id), 1), coalesce(max(id), 0) FROM envelopes").fetchone()
    return low, high


def candidates(
    connection: sqlite3.Connection,
    which: FailureFilter,
    *,
    low: int,
    high: int,
    last: int,
    rates_at: datetime | None,
) -> list[Candidate]:
    """The failures that their lineages end with."""
    where, values = queries.failures_where(which)
    bounds = {"low": low, "high": high, "last": last}
    found = connection.execute(f"{_CANDIDATES} AND {where} ORDER BY e.id", {**values, **bounds}).fetchall()
    split = 1 + len(_LINEAGE)
    envelopes = [dict(zip(records.ENVELOPE, row[split:], strict=True)) for row in found]
    roots = _roots(connection, [row["root"] for row in envelopes if row["root"] != row["request_id"]])
    prints = json.dumps(list({row["fingerprint"] for row in envelopes}))
    groups = queries.groups_of(connection, prints, rates_at=rates_at)
    made = []
    for (facts, *lineage), row in zip((row[:split] for row in found), envelopes, strict=True):
        arrival = decisions.arrival_of(row, labels=_labels(facts))
        root = arrival if row["root"] == row["request_id"] else roots.get(row["root"])
        made.append(Candidate(arrival, root, decisions.lineage_of(lineage), groups.get(row["fingerprint"])))
    return made


def _labels(facts: str) -> Any:
    return json.loads(facts).get("labels", NO_LABELS) if '"labels"' in facts else NO_LABELS


def _roots(connection: sqlite3.Connection, roots: Sequence[str]) -> dict[str, Arrival]:
    if not roots:
        return {}
    rows = connection.execute(_ROOTS, (json.dumps(roots),))
    return {row[0]: decisions.arrival_of(dict(zip(records.ENVELOPE, row, strict=True))) for row in rows}


def typical_rerun(connection: sqlite3.Connection, functions: Sequence[str]) -> timedelta | None:
    """How long re-runs take, from submit to result."""
    took = [
        (instant_of(received) - instant_of(submitted)).total_seconds()
        for submitted, received in connection.execute(_TOOK, (json.dumps(list(functions)),))
    ]
    # A result may have overtaken the answer to its submit.
    return timedelta(seconds=max(median(took), 0)) if took else None
