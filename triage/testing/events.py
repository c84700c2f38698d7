"""The events that functions ran with, in the store in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from triage.changes import Decided
from triage.drills import is_drill
from triage.envelope import FunctionRef
from triage.facts import Arrival, Snapshot
from triage.reruns.elsewhere import Beginning, judged, may_tell, sampled
from triage.reruns.lineage import payload_key
from triage.stores.events import first_runs
from triage.stores.records import instant_of
from triage.testing.tables import Tables, lineage_in


def join_elsewhere(tables: Tables, arrivals: Sequence[Arrival], snapshot: Snapshot, *, since: datetime) -> None:
    """Join what can only be the result of a re-run that somebody made without us."""
    for arrival in arrivals:
        envelope, request_id = arrival.envelope, arrival.envelope.request_id
        known = request_id in snapshot.seen or request_id in snapshot.lineages or is_drill(request_id)
        if known or not may_tell(envelope):
            continue
        label = envelope.function.label
        key = payload_key(label, envelope.request_payload)
        newest = sorted(tables.lineages.values(), key=lambda row: row["started_at"], reverse=True)
        begun = [_beginning(tables, row["root"]) for row in newest if row["payload_key"] == key]
        answer = judged(envelope.function, key, begun[:2], tables.event_samples.get(label), since=since)
        if isinstance(answer, str):
            snapshot.apart.update({request_id: answer} if answer else {})
        else:
            snapshot.lineages[request_id] = answer
            snapshot.elsewhere.add(request_id)


def _beginning(tables: Tables, root: str) -> Beginning:
    first, lineage = tables.envelopes[root], tables.lineages[root]
    name = first["function"].rpartition("/")[2]
    function = FunctionRef(name, *(first[column] for column in ("service", "qualifier", "region", "account")))
    return Beginning(lineage_in(lineage), function, instant_of(lineage["updated_at"]))


def hear(tables: Tables, decided: Iterable[Decided], *, now: datetime) -> None:
    """Note the events of first runs."""
    for function, keys in first_runs(decided).items():
        if (after := sampled(tables.event_samples.get(function), keys, now=now)) is not None:
            tables.event_samples[function] = after
