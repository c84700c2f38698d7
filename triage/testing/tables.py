"""The rows of the store in memory, and all that writes them. A row, once stored, is replaced and never changed, so a
copy of the tables is cheap: that is how a commit that fails leaves nothing behind.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from copy import copy
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from triage.admission import heard
from triage.alerts.delivery import told_by
from triage.alerts.silences import begin
from triage.changes import Changes, Commit, Decided, Looked, NewAlert, NewRow, Quarantined, Settle
from triage.drills import Drill
from triage.errors import StoreConflict
from triage.facts import RATES, SILENCE, Arrival, Lineage
from triage.reruns.elsewhere import Sample
from triage.reruns.gate import Gate
from triage.reruns.lineage import Link, Origin, payload_key
from triage.reruns.plan import Plan, PlanChange
from triage.rules.model import SourceText
from triage.silence import Silence, Silenced
from triage.states import ROW_TRANSITIONS, Event, RowEvent, RowState, State, advance, advance_row
from triage.stores import alertrows, decisions, drills, notifications, records, silences
from triage.stores.migrations import migrate
from triage.stores.records import instant
from triage.testing.gates import Gates, Row
from triage.views import OutboxRow


@dataclass(slots=True)
class Tables(Gates):
    """The rows, with the columns that the real stores have (see ``triage.stores.records``); instants are text."""

    envelopes: dict[str, Row] = field(default_factory=dict)
    decisions: dict[str, Row] = field(default_factory=dict)
    lineages: dict[str, Row] = field(default_factory=dict)
    links: dict[str, Row] = field(default_factory=dict)
    alert_groups: dict[str, Row] = field(default_factory=dict)
    alerts: dict[int, Row] = field(default_factory=dict)
    alert_kinds: dict[str, str] = field(default_factory=dict)
    deliveries: dict[int, Row] = field(default_factory=dict)
    silences: dict[int, Silence] = field(default_factory=dict)
    silenced: dict[tuple[int, str, str], Row] = field(default_factory=dict)
    """By silence, group and receiver."""
    conflicts: dict[int, Row] = field(default_factory=dict)
    quarantine: dict[int, Row] = field(default_factory=dict)
    deeds: dict[int, Row] = field(default_factory=dict)
    groups: dict[str, Row] = field(default_factory=dict)
    group_minutes: dict[str, Mapping[int, int]] = field(default_factory=dict)
    """Failures per minute since the epoch, by fingerprint."""
    event_samples: dict[str, Sample] = field(default_factory=dict)
    plans: dict[int, Plan] = field(default_factory=dict)
    plan_items: dict[int, Row] = field(default_factory=dict)
    drills: dict[str, Drill] = field(default_factory=dict)
    counters: Counter[str] = field(default_factory=Counter)
    rule_sets: dict[str, tuple[SourceText, ...]] = field(default_factory=dict)
    rules_kept_at: dict[str, str] = field(default_factory=dict)
    last_good: str | None = None
    rules_loaded_at: str = ""
    rules_refused: tuple[str, str] | None = None
    """What is wrong with the rule files, and since when."""

    def copy(self) -> Tables:
        """The same rows in tables of their own."""
        return Tables(*(copy(getattr(self, table.name)) for table in fields(self)))

    def database(self) -> sqlite3.Connection:
        """The same rows in an SQLite database in memory, for those who ask in SQL (`triage.stores.selfcheck`)."""
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.deserialize(_empty())
        for digest, at in self.rules_kept_at.items():
            _insert(connection, "rule_sets", {"digest": digest, "loaded_at": at, "sources": "[]"})
        for name, value in self.counters.items():
            _insert(connection, "counters", {"name": name, "value": value})
        numbers = {request_id: number for number, request_id in enumerate(self.envelopes, 1)}
        for ours, name in _TABLES.items():
            for row in getattr(self, ours).values():
                numbered = {"id": numbers[row["request_id"]], **row} if ours in ("envelopes", "decisions") else row
                _insert(connection, name, numbered)
        for drill in self.drills.values():
            _insert(connection, "drills", dict(zip(drills.DRILL, drills.drill_record(drill), strict=True)))
        for silence in self.silences.values():
            _insert(connection, "silences", dict(zip(silences.SILENCE, silences.silence_record(silence), strict=True)))
        for (number, group, receiver), row in self.silenced.items():
            times = {name: instant(row[name]) for name in ("first_at", "last_at")}
            key = {"silence": number, "group_key": group, "receiver": receiver, "count": row["count"]}
            _insert(connection, "silenced", key | times)
        self.write_gates(connection)
        return connection

    def waiting(self, group: str) -> list[Row]:
        """Alerts of a group that no flush has taken yet, oldest first."""
        return [alert for alert in self.alerts.values() if alert["group_key"] == group and alert["flush"] is None]

    def commit(self, batch: Commit) -> None:
        """Write a batch.

        Raises:
            StoreConflict: a part may have been written; throw these tables away.
        """
        now = batch.now
        for item in batch.decided:
            self._insert_decided(item, batch)
        for item in batch.decided:
            self._apply(item.changes, now=now)
        kept = [item for item in batch.quarantined if self._quarantine(item)]
        self.write_alerts([item.alert for item in kept if item.alert is not None], now=now)
        for arrival in batch.conflicts:
            known = {(row["request_id"], row["digest"]) for row in self.conflicts.values()}
            if (arrival.envelope.request_id, arrival.envelope.digest) not in known:
                _append(self.conflicts, records.CONFLICT, records.conflict_record(arrival))
        for told in heard(batch.decided):
            self.hear(told)
        again = len(batch.quarantined) - len(kept)
        self.counters["duplicates"] += again
        self.counters["quarantined"] -= again
        uncounted = sum(not item.counts for item in batch.decided)
        self.counters["decided"] -= uncounted
        self.counters["received"] -= uncounted
        for name in ("decided", "duplicates", "conflicts", "quarantined"):
            self.counters[name] += len(getattr(batch, name))
            self.counters["received"] += len(getattr(batch, name))

    def _quarantine(self, item: Quarantined) -> bool:
        record = records.quarantine_record(item)
        row = dict(zip(records.QUARANTINE, record, strict=True))
        same = ("source", "message_id")
        if item.message_id and any(all(row[name] == old[name] for name in same) for old in self.quarantine.values()):
            return False
        _append(self.quarantine, records.QUARANTINE, record)
        return True

    def settle(self, row: OutboxRow, outcome: Settle, *, now: datetime) -> None:
        """Write how a claimed outbox row goes on.

        Raises:
            StoreConflict: a part may have been written; throw these tables away.
        """
        stored = self.outbox[row.key]
        state = advance_row(RowState(stored["state"]), outcome.event)
        if outcome.goes:
            payload = stored["payload"] if outcome.payload is None else records.json_text(outcome.payload)
            self.outbox[row.key] = {**stored, "gate": Gate.PASSED, "note": "", "payload": payload}
            self.apply(outcome.changes, now=now)
            return
        self.outbox[row.key] = {
            **stored,
            "gate": outcome.gate or "",
            "attempts": stored["attempts"] - (outcome.gate is not None),
            "state": state.value,
            "due_at": stored["due_at"] if outcome.due_at is None else instant(outcome.due_at),
            "payload": stored["payload"] if outcome.payload is None else records.json_text(outcome.payload),
            "note": records.text(outcome.note),
            "token": None,
            "lease_until": None,
            "settled_at": None if state in records.UNFINISHED else instant(now),
        }
        self.apply(outcome.changes, now=now)
        if (delivery := notifications.delivery_record(row, outcome, now=now)) is not None:
            _append(self.deliveries, notifications.DELIVERY, delivery)

    def apply(self, changes: Changes, *, now: datetime) -> None:
        """Write what a step entails that is no part of a commit.

        Raises:
            StoreConflict: a part may have been written; throw these tables away.
        """
        for lineage in changes.lineages:
            self._write_lineage(lineage, now=now, failures=0)
        self._apply(changes, now=now)
        self.standings.update((standing.function, standing) for standing in changes.standings)
        if changes.wake is not None:
            function, number = changes.wake
            oldest = sorted(self.awaiting(function), key=lambda row: row["id"])
            self.let_go(oldest[:number], now=now)

    def _insert_decided(self, item: Decided, batch: Commit) -> None:
        request_id = item.arrival.envelope.request_id
        if request_id in self.envelopes:
            raise StoreConflict("a request id of the batch is stored already")
        self.envelopes[request_id] = dict(zip(records.ENVELOPE, records.envelope_record(item), strict=True))
        decision = decisions.decision_record(item, now=batch.now, rule_set=batch.rule_set)
        self.decisions[request_id] = dict(zip(decisions.DECISION, decision, strict=True))
        own, failed = item.decision.lineage, records.is_failure(item)
        for lineage in item.changes.lineages:
            grows = failed and own is not None and own.root == lineage.root
            begun = (item.arrival.envelope.function.label, item.payload_key)
            self._write_lineage(lineage, now=batch.now, failures=int(grows), begun=begun)
        if failed:
            self._count_failure(item, now=batch.now)

    def order(self, changes: Changes, arrival: Arrival, *, now: datetime) -> None:
        """Write what an order to run ``arrival`` again entails; it may be a success, whose lineage begins here."""
        (lineage,) = changes.lineages
        label = arrival.envelope.function.label
        begun = (label, payload_key(label, arrival.envelope.request_payload))
        self._write_lineage(lineage, now=now, failures=0, begun=begun)
        if lineage.version == 0:
            self.envelopes[lineage.root] = {**self.envelopes[lineage.root], "root": lineage.root}
        self._apply(changes, now=now)

    def _write_lineage(
        self, lineage: Lineage, *, now: datetime, failures: int, begun: tuple[str, str] = ("", "")
    ) -> None:
        stored = self.lineages.get(lineage.root)
        if (stored["version"] if stored else 0) != lineage.version:
            raise StoreConflict("a lineage has changed since it was read")
        fresh = {
            "started_at": instant(lineage.started_at),
            "failures": 0,
            "function": begun[0],
            "payload_key": begun[1],
        }
        row = {**fresh, **(stored or {})}
        self.lineages[lineage.root] = {
            **dict(zip(decisions.LINEAGE_FACTS, decisions.lineage_record(lineage), strict=True)),
            **{name: row[name] for name in fresh},
            "version": lineage.version + 1,
            "failures": row["failures"] + failures,
            "updated_at": instant(now),
        }

    def _count_failure(self, item: Decided, *, now: datetime) -> None:
        envelope, at, key = item.arrival.envelope, instant(now), item.arrival.fingerprint
        self.counters["failures"] += 1
        known = self.groups.get(key, {"first_seen": at, "last_seen": at, "back_since": at, "count": 0})
        minutes = self.group_minutes.get(key, {})
        minute = records.minute(now)
        kept = {past: count for past, count in minutes.items() if past >= minute - max(RATES)}
        self.group_minutes[key] = {**kept, minute: kept.get(minute, 0) + 1}
        self.groups[key] = {
            "fingerprint": key,
            "function": envelope.function.label,
            "condition": envelope.condition,
            "error_type": envelope.error.type,
            "message": envelope.error.message,
            "first_seen": known["first_seen"],
            "back_since": at if known["last_seen"] <= instant(now - SILENCE) else known["back_since"],
            "last_seen": max(at, known["last_seen"]),
            "count": known["count"] + 1,
        }

    def _apply(self, changes: Changes, *, now: datetime) -> None:
        """All but the lineages."""
        self._link(changes.links)
        for key in changes.cancel:
            row = self.outbox.get(key)
            if row is not None and row["state"] in records.UNFINISHED:
                free = {"token": None, "lease_until": None, "gate": "", "settled_at": instant(now)}
                self.outbox[key] = {**row, **free, "state": "cancelled"}
        for new in changes.rows:
            self._insert_row(new, now=now)
        self.write_alerts(changes.alerts, now=now)
        for deed in changes.deeds:
            _append(self.deeds, records.DEED, records.deed_record(deed, now=now))
        for looked in changes.looked:
            self._mark_looked(looked, silences.wholly(changes.silenced), now=now)
            for each in changes.silenced:
                self._tally(looked.group, each)
        for silence in changes.begun:
            self.add_silence(silence, warn_before=timedelta())
        if changes.ended is not None:
            number, how = changes.ended
            self.silences[number] = replace(self.silences[number], ended_at=now, ended=how)
        for told in changes.told:
            self._mark_told(told, now=now)
        for key in changes.along:
            self._end_along(key, now=now)
        if changes.plan is not None:
            self._move_plan(changes.plan)

    def _link(self, links: Iterable[Link]) -> None:
        for link in links:
            self.links.setdefault(link.key, dict(zip(records.LINK, records.link_record(link), strict=True)))
            envelope = self.envelopes.get(link.key)
            if link.origin is Origin.ELSEWHERE and envelope and envelope["root"] is None:
                self.envelopes[link.key] = {**envelope, "root": link.root, "attempt": link.attempt}

    def _move_plan(self, change: PlanChange) -> None:
        number = next(number for number, plan in self.plans.items() if plan.hash == change.plan.hash)
        counts = Counter(self.plans[number].counts)
        for item in change.items:
            row = self.plan_items[item.id]
            attempt = row["attempt"] if item.attempt is None else item.attempt
            step = row["step"] if item.step is None else item.step
            moved = {"state": item.after, "reason": item.reason, "attempt": attempt, "step": step}
            self.plan_items[item.id] = {**row, **moved}
            counts[item.before] -= 1
            counts[item.after] += 1
        self.plans[number] = replace(change.plan, counts=dict(counts))

    def _mark_looked(self, looked: Looked, muted: Mapping[str, int], *, now: datetime) -> None:
        taken = [alert for alert in self.waiting(looked.group) if alert["id"] <= looked.last_id]
        for alert in taken:
            self.alerts[alert["id"]] = {**alert, "flush": looked.message, "silence": muted.get(alert["kind"])}
        quiet = {alert["id"]: alert["root"] for alert in taken if alert["kind"] in muted}
        self._advance(set(quiet.values()), Event.SILENCED, (State.ALERTING,), now=now)
        if not looked.made:
            counted = {alert["root"] for alert in taken if alert["id"] not in quiet}
            self._advance(counted, Event.SUPPRESSED, (State.ALERTING,), now=now)
        group, fresh = self.alert_groups[looked.group], len(taken) - len(quiet)
        told = group["suppressed"] + fresh
        self.alert_groups[looked.group] = {
            **group,
            **dict(zip(alertrows.INCIDENT, alertrows.incident_record(looked.incident), strict=True)),
            "flushes": group["flushes"] + looked.made,
            "silenced": group["silenced"] + len(quiet),
            "told": group["told"] + (told if looked.made else 0),
            "suppressed": 0 if looked.made else told,
        }

    def _tally(self, group: str, each: Silenced) -> None:
        key = (each.silence, group, each.receiver)
        known = self.silenced.get(key, {"count": 0, "first_at": each.first_at, "last_at": each.last_at})
        self.silenced[key] = {
            "count": known["count"] + each.count,
            "first_at": min(known["first_at"], each.first_at),
            "last_at": max(known["last_at"], each.last_at),
        }

    def _mark_told(self, told: tuple[str, int], *, now: datetime) -> None:
        alerts = [alert for alert in self.alerts.values() if (alert["group_key"], alert["flush"]) == told]
        roots = {alert["root"] for alert in alerts if alert["silence"] is None}
        self._advance(roots, Event.DELIVERED, (State.ALERTING, State.SUPPRESSED, State.SILENCED), now=now)

    def _end_along(self, key: str, *, now: datetime) -> None:
        row = self.outbox.get(key)
        if row is None or row["state"] not in records.UNFINISHED:
            return
        payload, state = json.loads(row["payload"]), advance_row(RowState(row["state"]), RowEvent.HAPPENED).value
        free = {"token": None, "lease_until": None, "gate": "", "settled_at": instant(now)}
        self.outbox[key] = {**row, **free, "state": state, "note": notifications.ALONG}
        record = notifications.along_record(key, payload, group=row["group_key"], now=now)
        _append(self.deliveries, notifications.DELIVERY, record)
        for told in told_by(row["group_key"], payload):
            self._mark_told(told, now=now)

    def _advance(self, roots: Iterable[str | None], event: Event, origins: Sequence[State], *, now: datetime) -> None:
        for root in roots:
            row = self.lineages.get(root or "")
            if row is not None and row["state"] in origins:
                state, version = advance(State(row["state"]), event).value, row["version"] + 1
                self.lineages[row["root"]] = {**row, "state": state, "version": version, "updated_at": instant(now)}

    def add_silence(self, silence: Silence, *, warn_before: timedelta) -> Silence:
        """Put a silence into force."""
        numbered = replace(silence, id=len(self.silences) + 1)
        self.silences[numbered.id] = numbered
        self._insert_row(begin(numbered, warn_before=warn_before), now=silence.created_at)
        return numbered

    def _insert_row(self, new: NewRow, *, now: datetime) -> None:
        row = dict(zip(records.OUTBOX, records.outbox_record(new, now=now), strict=True))
        row |= {"id": len(self.outbox) + 1, "attempts": 0, "note": "", "token": None, "lease_until": None}
        row |= {"settled_at": None, "gate": ""}
        known = self.outbox.setdefault(new.key, row)
        if new.sooner and known["settled_at"] is None:
            self.outbox[new.key] = {**known, "due_at": min(known["due_at"], row["due_at"])}
        elif (new.anew or new.sooner) and (RowState(known["state"]), RowEvent.RESTARTED) in ROW_TRANSITIONS:
            self.outbox[new.key] = {**row, **{name: known[name] for name in ("id", "created_at")}}

    def write_alerts(self, alerts: Iterable[NewAlert], *, now: datetime) -> None:
        """Put alerts into their groups, each with a flush to come."""
        for alert in alerts:
            group = dict(zip(alertrows.GROUP, alertrows.group_record(alert.group, now=now), strict=True))
            known = self.alert_groups.get(alert.group.key, {**group, **_NEVER_LOOKED_AT})
            kept = {name: known[name] for name in ("created_at", *_NEVER_LOOKED_AT)}
            self.alert_groups[alert.group.key] = {**group, **kept}
            self.alert_kinds.update(alertrows.kind_records([alert]))
            _append(self.alerts, alertrows.ALERT, alertrows.alert_record(alert, now=now), flush=None, silence=None)
            self._insert_row(alertrows.flush_row(alert.group, looked_at=known["looked_at"], now=now), now=now)


_NEVER_LOOKED_AT: Final = {
    "flushes": 0, "told": 0, "silenced": 0, "suppressed": 0, "state": "waiting", "code": "", "looked_at": None,
    "incident": "{}",
}  # fmt: skip


_TABLES: Final = {
    "lineages": "lineages",
    "links": "lineage_links",
    "envelopes": "envelopes",
    "decisions": "decisions",
    "outbox": "outbox",
    "alert_groups": "alert_groups",
    "alerts": "alerts",
    "deliveries": "deliveries",
    "conflicts": "conflicts",
    "quarantine": "quarantine",
    "deeds": "deeds",
    "groups": "groups",
}
"""The tables here, and their names in the database."""


@lru_cache(maxsize=1)
def _empty() -> bytes:
    """A database with all tables and no rows."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection)
        return connection.serialize()


def _insert(connection: sqlite3.Connection, table: str, row: Row) -> None:
    connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", [*row.values()])


def _append(table: dict[int, Row], columns: Sequence[str], values: Sequence[Any], **more: Any) -> None:
    number = len(table) + 1
    table[number] = {"id": number, **dict(zip(columns, values, strict=True)), **more}


def lineage_in(row: Row) -> Lineage:
    """A lineage from its row."""
    return decisions.lineage_of([row[name] for name in decisions.LINEAGE_FACTS])
