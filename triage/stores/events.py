"""The events that functions ran with, in the SQLite store: which failures began with one, and how often they come
again. Jobs for its writer thread.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from triage.changes import Decided
from triage.envelope import FunctionRef
from triage.facts import Arrival, Snapshot
from triage.reruns.elsewhere import Beginning, Sample, judged, may_tell, sampled
from triage.reruns.lineage import payload_key
from triage.stores import decisions
from triage.stores.records import insert, instant, instant_of, json_text

_LINEAGE: Final = ", ".join(f"l.{column}" for column in decisions.LINEAGE_FACTS)
_KNOWN: Final = """
    SELECT value FROM json_each(?) WHERE EXISTS (SELECT 1 FROM lineages WHERE payload_key = value)"""
_BEGUN: Final = f"""
    SELECT e.function, e.service, e.qualifier, e.region, e.account, l.updated_at, {_LINEAGE}
    FROM lineages l JOIN envelopes e ON e.request_id = l.root
    WHERE l.payload_key = ? ORDER BY l.started_at DESC LIMIT 2"""
_SAMPLE: Final = "SELECT since, runs, before FROM event_samples WHERE function = ?"
_SAVE: Final = insert(
    "event_samples",
    ("function", "since", "runs", "before"),
    "ON CONFLICT (function) DO UPDATE SET since = excluded.since, runs = excluded.runs, before = excluded.before",
)


def join_elsewhere(
    connection: sqlite3.Connection, strangers: Sequence[Arrival], snapshot: Snapshot, *, since: datetime
) -> None:
    """Join what can only be the result of a re-run that somebody made without us."""
    keys = {
        item.envelope.request_id: payload_key(item.envelope.function.label, item.envelope.request_payload)
        for item in strangers
        if item.envelope.request_id not in snapshot.lineages and may_tell(item.envelope)
    }
    if not keys:
        return
    known = {key for (key,) in connection.execute(_KNOWN, (json.dumps(sorted(set(keys.values()))),))}
    for item in strangers if known else ():
        request_id, function = item.envelope.request_id, item.envelope.function
        if (key := keys.get(request_id)) not in known or key is None:
            continue
        begun = [_beginning(row) for row in connection.execute(_BEGUN, (key,))]
        answer = judged(function, key, begun, _sample(connection, function.label), since=since)
        if isinstance(answer, str):
            if answer:
                snapshot.apart[request_id] = answer
        else:
            snapshot.lineages[request_id] = answer
            snapshot.elsewhere.add(request_id)


def _beginning(row: Sequence[str]) -> Beginning:
    label, service, qualifier, region, account, moved_at, *lineage = row
    name = label.removeprefix(f"{service}/") if service else label
    function = FunctionRef(name, service, qualifier, region, account)
    return Beginning(decisions.lineage_of(lineage), function, instant_of(moved_at))


def first_runs(decided: Iterable[Decided]) -> Mapping[str, list[str]]:
    """By function, the events of results that are, by all that is known, of no re-run."""
    found: dict[str, list[str]] = {}
    for item in decided:
        envelope = item.arrival.envelope
        if item.counts and item.decision.facts.lineage is None and envelope.has_payload:
            found.setdefault(envelope.function.label, []).append(item.payload_key)
    return found


def hear(connection: sqlite3.Connection, decided: Iterable[Decided], *, now: datetime) -> None:
    """Note the events of first runs."""
    for function, keys in first_runs(decided).items():
        after = sampled(_sample(connection, function), keys, now=now)
        if after is not None:
            connection.execute(_SAVE, (function, instant(after.since), json_text(after.runs), json_text(after.before)))


def _sample(connection: sqlite3.Connection, function: str) -> Sample | None:
    found = connection.execute(_SAMPLE, (function,)).fetchone()
    return Sample(instant_of(found[0]), json.loads(found[1]), json.loads(found[2])) if found else None
