"""The store in memory, with the semantics of the real ones; it passes their contract suite."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from itertools import count
from typing import Any

from triage.changes import Changes, Commit, NewAlert, NewRow, RowKind, Settle
from triage.drills import Drill, is_drill
from triage.envelope import event_of
from triage.errors import Problem, StoreUnavailable
from triage.facts import Arrival, Snapshot, recent_of
from triage.orders import Limits, Order, Ordered, Refused, place
from triage.reruns.gate import Gate
from triage.reruns.lineage import payload_key
from triage.reruns.switches import Scope, Switch
from triage.rules.model import SourceText
from triage.silence import Silence
from triage.states import CLOSED
from triage.stores import (
    STANDINGS,
    FailureDetail,
    FailureFilter,
    FailureRow,
    KeptRules,
    Places,
    QuarantineRow,
    React,
    ReactNow,
    RuleHits,
    RulesState,
    Totals,
    decisions,
    records,
)
from triage.stores.records import instant, instant_of
from triage.testing.events import hear, join_elsewhere
from triage.testing.gates import Row
from triage.testing.lines import arrivals, line
from triage.testing.plans import MemoryPlans, plan_reruns, plan_sums, plan_view
from triage.testing.tables import Tables, lineage_in
from triage.testing.views import group_view, silence_view, stored_in, storm_view
from triage.views import OutboxRow, RowFacts, SilenceView


class MemoryStore(MemoryPlans):
    """A `triage.stores.Store` without a disk.

    Windows: ``tables`` holds all rows. ``unavailable``, when set to a text, makes every call raise `StoreUnavailable`
    with it, as a full disk would.
    """

    def __init__(self) -> None:
        self.tables = Tables()
        self.unavailable = ""
        self._tokens = count(1)

    async def load_facts(
        self,
        arrivals: Sequence[Arrival],
        *,
        rates_at: datetime | None = None,
        elsewhere_since: datetime | None = None,
    ) -> Snapshot:
        tables = self._open()
        snapshot = Snapshot(rates=rates_at is not None)
        for arrival in arrivals:
            request_id = arrival.envelope.request_id
            if (stored := tables.envelopes.get(request_id)) is not None:
                snapshot.seen[request_id] = stored["digest"]
            if (link := tables.links.get(request_id) or tables.links.get(records.task_of(arrival))) is not None:
                snapshot.lineages[request_id] = lineage_in(tables.lineages[link["root"]])
                snapshot.attempts[request_id] = link["attempt"]
            if (group := tables.groups.get(arrival.fingerprint)) is not None:
                minutes = tables.group_minutes.get(arrival.fingerprint, {})
                recent = recent_of(minutes, rates_at) if rates_at else None
                row = [group[name] for name in decisions.GROUP_FACTS]
                snapshot.groups[arrival.fingerprint] = decisions.group_facts(row, recent=recent)
        self._join_overtaking(arrivals, snapshot)
        if elsewhere_since is not None:
            join_elsewhere(tables, arrivals, snapshot, since=elsewhere_since)
        roots, ordered = snapshot.drill_roots(arrivals), tables.drills
        snapshot.drills = {name: ordered[root] for name, root in roots.items() if root in ordered}
        return snapshot

    async def expect_drill(self, drill: Drill) -> None:
        self._open().drills[drill.request_id] = drill

    def _join_overtaking(self, arrivals: Sequence[Arrival], snapshot: Snapshot) -> None:
        reruns = [row for row in self.tables.outbox.values() if row["kind"] == "rerun"]
        submitting = {row["root"] for row in reruns if row["gate"] == Gate.PASSED}
        candidates = [
            row
            for row in self.tables.lineages.values()
            if row["state"] == "unknown" or (row["state"] == "rerun_pending" and row["root"] in submitting)
        ]
        candidates.sort(key=lambda row: (row["started_at"], row["root"]))
        for arrival in arrivals:
            request_id = arrival.envelope.request_id
            if request_id in snapshot.seen or request_id in snapshot.lineages or is_drill(request_id):
                continue
            key = payload_key(arrival.envelope.function.label, arrival.envelope.request_payload)
            found = next((row for row in candidates if row["payload_key"] == key), None)
            if found is not None:
                candidates.remove(found)
                snapshot.lineages[request_id] = lineage_in(found)

    async def commit(self, batch: Commit) -> None:
        written = self._open().copy()
        written.commit(batch)
        hear(written, batch.decided, now=batch.now)
        self.tables = written

    async def claim_due(
        self, *, now: datetime, lease: timedelta, limit: int, places: Places = Places()
    ) -> list[OutboxRow]:
        tables = self._open()
        at, token = instant(now), f"claim-{next(self._tokens)}"
        due = [row for row in tables.unfinished() if row["due_at"] <= at and (row["lease_until"] or "") <= at]
        due = [row for row in due if records.place(row) not in places.busy]
        due.sort(key=lambda row: (row["due_at"], row["id"]))
        due = places.fitting(due[:limit], place=records.place)
        claimed = [records.claimed_row(row, token=token) for row in due]
        for row in due:
            held = {"token": token, "lease_until": instant(now + lease), "attempts": row["attempts"] + 1}
            tables.outbox[row["key"]] = {**row, **held}
        return claimed

    async def admit(self, row: OutboxRow, react: React, *, now: datetime) -> OutboxRow | None:
        outcome = self._settle(self._open(), row, react, now=now)
        return records.admitted_row(row, outcome) if outcome is not None and outcome.goes else None

    async def settle(self, row: OutboxRow, react: React, *, now: datetime) -> bool:
        return self._settle(self._open(), row, react, now=now) is not None

    async def settle_now(self, key: str, react: ReactNow, *, now: datetime) -> bool:
        written = self._open().copy()
        stored = written.outbox.get(key)
        if stored is None or stored["state"] not in records.UNFINISHED:
            return False
        row = records.claimed_row(stored, token=f"claim-{next(self._tokens)}")
        written.outbox[key] = {**stored, "token": row.token}
        return self._settle(written, row, lambda facts: react(row, facts), now=now) is not None

    def _settle(self, tables: Tables, row: OutboxRow, react: React, *, now: datetime) -> Settle | None:
        stored = tables.outbox.get(row.key)
        if stored is None or stored["token"] != row.token or stored["state"] not in records.UNFINISHED:
            return None
        outcome = react(self._row_facts(tables, row, now=now))
        written = tables.copy()
        written.settle(row, outcome, now=now)
        self.tables = written
        return outcome

    async def switch_off(self, switch: Switch) -> bool:
        return self._open().switch_off(switch)

    async def switch_on(self, scope: Scope, pattern: str, *, by: str, reason: str, now: datetime) -> bool:
        return self._open().switch_on(scope, pattern, by=by, reason=reason, now=now)

    async def slow_start(self, *, now: datetime) -> None:
        self._open().slow_start([""], now=now)

    async def switches(self, *, past: int = 0) -> list[Switch]:
        tables = self._open()
        on = [item for item in reversed(tables.switches) if item.on_at is not None]
        return tables.off() + sorted(on, key=lambda item: item.on_at or item.at, reverse=True)[:past]

    async def order(
        self, request_ids: Sequence[str], order: Order, *, limits: Limits, now: datetime
    ) -> list[Ordered | Refused]:
        answers = []
        written = self._open().copy()
        for request_id in request_ids:
            answer = place(order, stored_in(written, request_id), limits=limits, now=now)
            if isinstance(answer, Ordered):
                written.order(answer.changes, answer.arrival, now=now)
            answers.append(answer)
        self.tables = written
        return answers

    def _row_facts(self, tables: Tables, row: OutboxRow, *, now: datetime) -> RowFacts:
        lineage = tables.lineages.get(row.root)
        known = lineage_in(lineage) if lineage else None
        if row.kind is RowKind.FLUSH:
            quiet = tuple(silence for silence in tables.silences.values() if silence.ended_at is None)
            storm = storm_view(tables, now=now)
            return RowFacts(known, group_view(tables, row.group, now=now), silences=quiet, storm=storm)
        if row.kind is RowKind.STORM:
            return RowFacts(storm=storm_view(tables, now=now))
        if row.kind is RowKind.SILENCE:
            return RowFacts(known, silence=silence_view(tables, tables.silences[row.payload["silence"]]))
        if row.kind is RowKind.WATCH:
            return RowFacts(known, arrivals=arrivals(tables))
        if row.kind is RowKind.NOTIFY:
            return RowFacts(known, line=line(tables, row, now=now))
        if row.kind is RowKind.PLAN_STEP:
            view = plan_view(tables, row.payload["plan"])
            return RowFacts(known, plan=view, ordered=plan_reruns(tables, view))
        return RowFacts(known, gates=tables.gates(row) if row.function else None)

    async def add_silence(self, silence: Silence, *, warn_before: timedelta) -> Silence:
        return self._open().add_silence(silence, warn_before=warn_before)

    async def silences(self, *, ended: bool = False) -> list[SilenceView]:
        newest = reversed(self._open().silences.values())
        return [silence_view(self.tables, silence) for silence in newest if ended or silence.ended_at is None]

    async def silence(self, number: int) -> SilenceView | None:
        found = self._open().silences.get(number)
        return silence_view(self.tables, found) if found else None

    async def arm(self, rows: Sequence[NewRow], *, now: datetime) -> None:
        self._open().apply(Changes(rows=tuple(rows)), now=now)

    async def next_due(self, *, places: Places = Places()) -> datetime | None:
        rows = [row for row in self._open().unfinished() if records.place(row) not in places.busy]
        times = [max(row["lease_until"] or "", row["due_at"]) for row in rows]
        return instant_of(min(times)) if times else None

    async def payload_of(self, request_id: str) -> bytes | None:
        stored = self._open().envelopes.get(request_id)
        return event_of(stored["body"]) if stored else None

    async def lineages_in(self, group: str, flush: int, *, limit: int) -> list[str]:
        alerts = self.tables.alerts.values()
        roots = {
            each["root"] for each in alerts if (each["group_key"], each["flush"]) == (group, flush) and each["root"]
        }
        return sorted(roots)[:limit]

    async def known(self, request_ids: Sequence[str]) -> frozenset[str]:
        return frozenset(request_ids) & self._open().envelopes.keys()

    async def totals(self) -> Totals:
        tables = self._open()
        states: Counter[str] = Counter()
        for row in tables.lineages.values():
            states[row["state"]] += row["failures"]
        counters = tables.counters
        unfinished = [row for row in tables.unfinished() if not is_drill(row["root"] or row["group_key"] or "")]
        return Totals(
            received=counters["received"],
            decided=counters["decided"],
            duplicates=counters["duplicates"],
            conflicts=counters["conflicts"],
            quarantined=counters["quarantined"],
            failures=counters["failures"],
            states=dict(+states),
            outbox=dict(Counter(row["kind"] for row in unfinished)),
            outbox_due={
                row["kind"]: records.instant_of(row["due_at"])
                for row in sorted(unfinished, key=lambda row: row["due_at"], reverse=True)
            },
            deliveries=dict(
                Counter(row["result"] for row in tables.deliveries.values() if not is_drill(row["group_key"] or ""))
            ),
            groups=dict(
                Counter(
                    row["state"]
                    for row in tables.alert_groups.values()
                    if row["state"] != "resolved" and not is_drill(row["key"])
                )
            ),
            **tables.gate_sums(),
            standings=tables.tightest(limit=STANDINGS),
            **plan_sums(tables),
        )

    async def failures(self, which: FailureFilter) -> list[FailureRow]:
        tables = self._open()
        newest = sorted(tables.envelopes.values(), key=lambda row: row["received_at"])[::-1]
        rows = [self._failure_row(row) for row in newest if row["outcome"] == "failed"]
        return [row for row in rows if _listed(row, which)][: which.limit]

    def _failure_row(self, envelope: Mapping[str, Any]) -> FailureRow:
        decision = self.tables.decisions[envelope["request_id"]]
        state = self.tables.lineages.get(envelope["root"], {"state": ""})["state"]
        return records.failure_row(envelope, reason=decision["reason"], rule_id=decision["rule_id"], state=state)

    async def failure(self, request_id: str) -> FailureDetail | None:
        tables = self._open()
        found = _by_prefix(tables.envelopes, request_id)
        if found is None:
            return None
        envelope = tables.envelopes[found]
        root = envelope["root"]
        flushes = {(row["group_key"], row["flush"]) for row in tables.alerts.values() if root and row["root"] == root}
        return records.detail(
            self._failure_row(envelope),
            envelope=envelope,
            decision=tables.decisions[found],
            lineage=self._lineage_detail(root) if root in tables.lineages else None,
            outbox=[dict(row) for row in tables.outbox.values() if root and row["root"] == root],
            deliveries=[dict(row) for row in tables.deliveries.values() if (row["group_key"], row["flush"]) in flushes],
            conflicts=[row for row in tables.conflicts.values() if row["request_id"] == found],
        )

    def _lineage_detail(self, root: str) -> Row:
        members = [
            {name: row[name] for name in ("request_id", "attempt", "outcome", "received_at")}
            for row in self.tables.envelopes.values()
            if row["root"] == root
        ]
        members.sort(key=lambda row: (row["attempt"], row["received_at"]))
        alerts = [dict(row) for row in self.tables.alerts.values() if row["root"] == root]
        deeds = [dict(row) for row in self.tables.deeds.values() if row["root"] == root]
        return {**self.tables.lineages[root], "members": members, "deeds": deeds, "alerts": alerts}

    async def quarantined(self, *, limit: int) -> list[QuarantineRow]:
        return [records.quarantine_row(row) for row in reversed(self._open().quarantine.values())][:limit]

    async def quarantine_entry(self, entry: int) -> QuarantineRow | None:
        row = self._open().quarantine.get(entry)
        return None if row is None else records.quarantine_row(row)

    async def save_rule_set(self, digest: str, sources: Sequence[SourceText], *, now: datetime) -> None:
        tables = self._open()
        tables.rule_sets.setdefault(digest, tuple(sources))
        tables.rules_kept_at.setdefault(digest, instant(now))
        if tables.last_good != digest:
            tables.last_good, tables.rules_loaded_at = digest, instant(now)
        tables.rules_refused = None

    async def rule_set(self, digest: str | None = None) -> tuple[str, tuple[SourceText, ...]] | None:
        tables = self._open()
        wanted = tables.last_good if digest is None else digest
        found = None if wanted is None else _by_prefix(tables.rule_sets, wanted)
        return None if found is None else (found, tables.rule_sets[found])

    async def refuse_rules(self, problems: Sequence[Problem], alert: NewAlert, *, now: datetime) -> bool:
        tables, found = self._open(), records.problems_json(problems)
        if tables.rules_refused is not None and tables.rules_refused[0] == found:
            return False
        tables.rules_refused = found, instant(now)
        tables.write_alerts([alert], now=now)
        return True

    async def rules_state(self) -> RulesState | None:
        tables = self._open()
        if tables.last_good is None:
            return None
        loaded_at = instant_of(tables.rules_loaded_at)
        if tables.rules_refused is None:
            return RulesState(tables.last_good, loaded_at)
        problems, at = tables.rules_refused
        return RulesState(tables.last_good, loaded_at, records.problems_of(problems), instant_of(at))

    async def kept_rules(self) -> list[KeptRules]:
        tables = self._open()
        kept = [records.kept_rules(digest, at, tables.rule_sets[digest]) for digest, at in tables.rules_kept_at.items()]
        return sorted(sorted(kept, key=lambda rules: rules.digest), key=lambda rules: rules.loaded_at, reverse=True)

    async def rule_hits(self, *, since: datetime | None = None) -> list[RuleHits]:
        hits: dict[str, RuleHits] = {}
        for row in self._open().decisions.values():
            at = instant_of(row["decided_at"])
            drilled = self.tables.envelopes[row["request_id"]]["outcome"] == records.DRILL_OUTCOME
            if drilled or (since is not None and at < since):
                continue
            for rule_id in filter(None, (row["rule_id"], *json.loads(row["also"]))):
                known = hits.get(rule_id, RuleHits(rule_id))
                hits[rule_id] = replace(known, hits=known.hits + 1, last_hit=max(known.last_hit or at, at))
            for shadow in json.loads(row["shadow"]):
                known = hits.get(shadow["rule"], RuleHits(shadow["rule"]))
                hits[shadow["rule"]] = replace(
                    known,
                    shadow_hits=known.shadow_hits + 1,
                    last_shadow_hit=max(known.last_shadow_hit or at, at),
                    disagreed=known.disagreed + (shadow["effects"] != json.loads(row["effects"])),
                )
        for alert in self.tables.alerts.values():
            rule_id = json.loads(self.tables.alert_kinds[alert["kind"]]).get("rule")
            at = instant_of(alert["at"])
            if (
                rule_id in hits
                and not is_drill(alert["group_key"])
                and alert["flush"] is not None
                and (since is None or at >= since)
            ):
                known, quiet = hits[rule_id], int(alert["silence"] is not None)
                hits[rule_id] = replace(known, alerts=known.alerts + 1, silenced=known.silenced + quiet)
        return [hits[rule_id] for rule_id in sorted(hits)]

    async def close(self) -> None:
        self.unavailable = self.unavailable or "the store is closed"

    def _open(self) -> Tables:
        if self.unavailable:
            raise StoreUnavailable(self.unavailable)
        return self.tables


def _by_prefix(known: Iterable[str], prefix: str) -> str | None:
    found = [value for value in known if value.startswith(prefix)]
    return prefix if prefix in found else found[0] if len(found) == 1 else None


def _listed(row: FailureRow, which: FailureFilter) -> bool:
    needle = which.text.encode().lower()  # bytes: only ASCII letters have a case here
    return (
        (not which.function or fnmatchcase(row.function, which.function))
        and which.state in ("", row.state)
        and not (which.open and row.state in CLOSED)
        and row.fingerprint.startswith(which.group)
        and any(needle in value.encode().lower() for value in (row.error_message, row.error_type, row.request_id))
        and (which.since is None or row.received_at >= which.since)
        and (which.until is None or row.received_at < which.until)
    )
