"""The store in one SQLite file: a writer thread with group commit, and a reader thread for lists.

The file is in WAL mode and every commit waits for the disk (``synchronous=FULL``), because the message is deleted from
its queue right afterwards. Another process may open the same file; tables are plain and open in Datasette.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from triage import clock
from triage.changes import Changes, Commit, NewAlert, NewRow
from triage.drills import Drill
from triage.errors import Misconfigured, Problem, StoreUnavailable
from triage.facts import Arrival, Snapshot
from triage.orders import Limits, Order, Ordered, Refused
from triage.reruns.gate import Standing
from triage.reruns.plan import ItemState, Plan, PlanItem
from triage.reruns.switches import Scope, Switch
from triage.rules.model import SourceText
from triage.sealing import Seal
from triage.silence import Silence
from triage.stores import (
    FailureDetail,
    FailureFilter,
    FailureRow,
    Held,
    KeptRules,
    Places,
    QuarantineRow,
    React,
    ReactNow,
    RuleHits,
    RulesState,
    Totals,
    alertgroups,
    candidates,
    claims,
    codes,
    drills,
    gating,
    hits,
    ordering,
    plans,
    planview,
    postbox,
    previews,
    queries,
    records,
    retention,
    silences,
    underway,
    writes,
)
from triage.stores.alertgroups import GroupRow, GroupStory
from triage.stores.migrations import migrate
from triage.stores.planning import Candidate, PlanItemRow
from triage.stores.postbox import Message, Received
from triage.stores.retention import Cutoffs, Step
from triage.stores.shift import Shift
from triage.stores.shift import shift as read_shift
from triage.stores.silences import Alerted
from triage.stores.story import Story
from triage.stores.story import story as read_story
from triage.stores.underway import RerunFilter, RerunRow
from triage.stores.worker import Worker, unavailable
from triage.views import OutboxRow, SilenceView

_BUSY: Final = timedelta(seconds=10)
"""How long to wait for another process that holds the database locked."""


_UNSEALED: Final = Seal()

_REMOVED: Final = 200
"""Rows that are let go in one transaction. More would keep those waiting who write what came in."""


class SqliteStore:
    """`triage.stores.Store`, `triage.stores.Desk`, `triage.stores.underway.Underway` and
    `triage.stores.postbox.Postbox` in one SQLite file.
    """

    def __init__(self, writer: Worker, reader: Worker) -> None:
        self._writer, self._reader = writer, reader

    @classmethod
    async def open(cls, path: Path, *, busy: timedelta = _BUSY, seal: Seal = _UNSEALED) -> SqliteStore:
        """Open the file, or create it with its directory; bring its schema up to date.

        Args:
            path: the database file. Its directory must allow files beside it (``-wal``, ``-shm``).
            busy: how long to wait for another process that holds the database locked.
            seal: seals and opens the stored messages.

        Raises:
            StoreUnavailable: it cannot be opened or written, is no database, or is of a newer version.
            Misconfigured: ``seal`` has not all keys that are needed.
        """
        writer = await Worker.start(
            "triage-store-writer", partial(_connect, path, seal, busy=busy), begin="BEGIN IMMEDIATE"
        )
        try:
            reader = await Worker.start(
                "triage-store-reader", partial(_connect_reader, path, seal, busy=busy), begin="BEGIN"
            )
        except BaseException:
            await writer.close()
            raise
        return cls(writer, reader)

    @property
    def transactions(self) -> int:
        """Write transactions committed so far; with the number of calls it tells how well commits are grouped."""
        return self._writer.transactions

    async def load_facts(
        self,
        arrivals: Sequence[Arrival],
        *,
        rates_at: datetime | None = None,
        elsewhere_since: datetime | None = None,
    ) -> Snapshot:
        job = partial(queries.load_facts, arrivals=arrivals, rates_at=rates_at, elsewhere_since=elsewhere_since)
        return await self._writer.run(job)

    async def expect_drill(self, drill: Drill) -> None:
        await self._writer.run(partial(drills.expect, drill=drill))

    async def commit(self, batch: Commit) -> None:
        await self._writer.run(partial(writes.commit, batch=batch))

    async def claim_due(
        self, *, now: datetime, lease: timedelta, limit: int, places: Places = Places()
    ) -> list[OutboxRow]:
        job = partial(claims.claim, now=now, lease=lease, limit=limit, places=places, token=clock.token())
        return await self._writer.run(job)

    async def admit(self, row: OutboxRow, react: React, *, now: datetime) -> OutboxRow | None:
        return await self._writer.run(partial(claims.admit, row=row, react=react, now=now))

    async def settle(self, row: OutboxRow, react: React, *, now: datetime) -> bool:
        return await self._writer.run(partial(claims.settle, row=row, react=react, now=now))

    async def settle_now(self, key: str, react: ReactNow, *, now: datetime) -> bool:
        job = partial(claims.settle_now, key=key, react=react, now=now, token=clock.token())
        return await self._writer.run(job)

    async def order(
        self, request_ids: Sequence[str], order: Order, *, limits: Limits, now: datetime
    ) -> list[Ordered | Refused]:
        job = partial(ordering.order_all, request_ids=request_ids, order=order, limits=limits, now=now)
        return await self._writer.run(job)

    async def switch_off(self, switch: Switch) -> bool:
        return await self._writer.run(partial(gating.switch_off, switch=switch))

    async def switch_on(self, scope: Scope, pattern: str, *, by: str, reason: str, now: datetime) -> bool:
        job = partial(gating.switch_on, scope=scope, pattern=pattern, by=by, reason=reason, now=now)
        return await self._writer.run(job)

    async def slow_start(self, *, now: datetime) -> None:
        await self._writer.run(partial(gating.slow_start, functions=[""], now=now))

    async def switches(self, *, past: int = 0) -> list[Switch]:
        return await self._reader.run(partial(gating.switches, past=past))

    async def new_plan(self, draft: Plan) -> int:
        return await self._writer.run(partial(plans.new, draft=draft))

    async def add_plan_items(self, draft: int, items: Sequence[PlanItem]) -> None:
        await self._writer.run(partial(plans.add_items, draft=draft, items=items))

    async def freeze_plan(self, draft: int, changes: Changes, *, now: datetime) -> None:
        await self._writer.run(partial(planview.freeze, draft=draft, changes=changes, now=now))

    async def old_drafts(self, before: datetime) -> list[int]:
        return await self._reader.run(partial(plans.old_drafts, before=before))

    async def discard_draft(self, draft: int) -> bool:
        return await self._writer.run(partial(plans.discard, draft=draft))

    async def move_plan(self, plan: str, react: Callable[[Plan], Changes], *, now: datetime) -> Plan | None:
        return await self._writer.run(partial(planview.move, plan=plan, react=react, now=now))

    async def plan(self, plan: str) -> Plan | None:
        return await self._reader.run(partial(plans.read, plan=plan))

    async def plans(self, *, limit: int) -> list[Plan]:
        return await self._reader.run(partial(plans.newest, limit=limit))

    async def plan_items(
        self, plan: str, *, state: ItemState | None = None, after: int = 0, limit: int
    ) -> list[PlanItemRow]:
        return await self._reader.run(partial(plans.items, plan=plan, state=state, after=after, limit=limit))

    async def excluded(self, plan: str) -> Mapping[str, int]:
        return await self._reader.run(partial(plans.excluded, plan=plan))

    async def deeds_about(self, about: str) -> list[Mapping[str, Any]]:
        return await self._reader.run(partial(plans.deeds, about=about))

    async def failure_span(self) -> tuple[int, int]:
        return await self._reader.run(candidates.span)

    async def candidates(
        self, which: FailureFilter, *, low: int, high: int, last: int, rates_at: datetime | None
    ) -> list[Candidate]:
        job = partial(candidates.candidates, which=which, low=low, high=high, last=last, rates_at=rates_at)
        return await self._reader.run(job)

    async def typical_rerun(self, functions: Sequence[str]) -> timedelta | None:
        return await self._reader.run(partial(candidates.typical_rerun, functions=functions))

    async def previewed(self, name: str) -> previews.Previewed | None:
        return await self._reader.run(partial(previews.previewed, name=name))

    async def arm(self, rows: Sequence[NewRow], *, now: datetime) -> None:
        await self._writer.run(partial(writes.arm, rows=rows, now=now))

    async def next_due(self, *, places: Places = Places()) -> datetime | None:
        return await self._writer.run(partial(claims.next_due, places=places))

    async def payload_of(self, request_id: str) -> bytes | None:
        return await self._writer.run(partial(queries.payload_of, request_id=request_id))

    async def lineages_in(self, group: str, flush: int, *, limit: int) -> list[str]:
        return await self._reader.run(partial(queries.lineages_in, group=group, flush=flush, limit=limit))

    async def known(self, request_ids: Sequence[str]) -> frozenset[str]:
        return await self._reader.run(partial(queries.known, request_ids=request_ids))

    async def totals(self) -> Totals:
        return await self._reader.run(queries.totals)

    async def failures(self, which: FailureFilter) -> list[FailureRow]:
        return await self._reader.run(partial(queries.failures, which=which))

    async def failure(self, request_id: str) -> FailureDetail | None:
        return await self._reader.run(partial(queries.failure, request_id=request_id))

    async def story(self, name: str) -> Story | None:
        """All that is kept about the lineage with this request id or task id, or one that alone begins so."""
        return await self._reader.run(partial(read_story, name=name))

    async def reruns(self, which: RerunFilter) -> list[RerunRow]:
        return await self._reader.run(partial(underway.reruns, which=which))

    async def standing(self, function: str) -> tuple[Standing, int]:
        return await self._reader.run(partial(underway.standing, function=function))

    async def held(self) -> list[Held]:
        return await self._reader.run(queries.held)

    async def quarantined(self, *, limit: int) -> list[QuarantineRow]:
        return await self._reader.run(partial(queries.quarantined, limit=limit))

    async def quarantine_entry(self, entry: int) -> QuarantineRow | None:
        return await self._reader.run(partial(queries.quarantine_entry, entry=entry))

    async def save_rule_set(self, digest: str, sources: Sequence[SourceText], *, now: datetime) -> None:
        kept = records.sources_json(sources)
        await self._writer.run(partial(writes.save_rule_set, digest=digest, sources=kept, now=now))

    async def rule_set(self, digest: str | None = None) -> tuple[str, tuple[SourceText, ...]] | None:
        return await self._reader.run(partial(queries.rule_set, digest=digest))

    async def refuse_rules(self, problems: Sequence[Problem], alert: NewAlert, *, now: datetime) -> bool:
        kept = records.problems_json(problems)
        return await self._writer.run(partial(writes.refuse_rules, problems=kept, alert=alert, now=now))

    async def rules_state(self) -> RulesState | None:
        return await self._reader.run(queries.rules_state)

    async def kept_rules(self) -> list[KeptRules]:
        return await self._reader.run(queries.kept_rules)

    async def rule_hits(self, *, since: datetime | None = None) -> list[RuleHits]:
        return await self._reader.run(partial(hits.rule_hits, since=since))

    async def retire(self, stage: str, cutoffs: Cutoffs, *, after: int) -> Step:
        """Look at the rows of a stage of `retention.STAGES` after number ``after``, and remove those that may go."""
        ids, step = await self._reader.run(partial(retention.step, name=stage, cutoffs=cutoffs, after=after))
        removed = 0
        for start in range(0, len(ids), _REMOVED):
            job = partial(retention.remove, name=stage, ids=ids[start : start + _REMOVED], cutoffs=cutoffs)
            removed += await self._writer.run(job)
        return replace(step, removed=removed)

    async def add_silence(self, silence: Silence, *, warn_before: timedelta) -> Silence:
        return await self._writer.run(partial(writes.add_silence, silence=silence, warn_before=warn_before))

    async def silences(self, *, ended: bool = False) -> list[SilenceView]:
        return await self._reader.run(partial(silences.listed, ended=ended))

    async def alert_groups(self, *, every: bool = False) -> list[GroupRow]:
        return await self._reader.run(partial(alertgroups.listed, every=every))

    async def alert_groups_named(self, name: str) -> list[str]:
        return await self._reader.run(partial(codes.groups_named, name=name))

    async def alert_group(self, key: str) -> GroupStory:
        return await self._reader.run(partial(alertgroups.story, key=key))

    async def silences_since(self, at: datetime) -> list[Silence]:
        return await self._reader.run(partial(silences.since, at=at))

    async def alerted(self, *, since: datetime) -> list[Alerted]:
        """What there was to tell since then; for the command line, that tells what a silence would keep quiet."""
        return await self._reader.run(partial(silences.alerted, since=since))

    async def shift(self, since: datetime) -> Shift:
        return await self._reader.run(partial(read_shift, since=since))

    async def received(self) -> list[Received]:
        return await self._reader.run(postbox.received)

    async def messages(self, *, code: str = "", dead: bool = False, limit: int = 100) -> list[Message]:
        return await self._reader.run(partial(postbox.messages, code=code, dead=dead, limit=limit))

    async def resend(self, *, code: str, dead: bool, by: str, reason: str, now: datetime) -> list[Message]:
        return await self._writer.run(partial(writes.resend, code=code, dead=dead, by=by, reason=reason, now=now))

    async def silence(self, number: int) -> SilenceView | None:
        return await self._reader.run(partial(silences.view, number=number))

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()


def _connect(path: Path, seal: Seal, *, busy: timedelta) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # events may be confidential; the files beside it inherit the mode
    except OSError as error:
        raise StoreUnavailable(f"{path}: the database cannot be created or written: {error.strerror}") from error
    return _opened(path, partial(_prepare_writer, seal=seal), busy=busy)


def _connect_reader(path: Path, seal: Seal, *, busy: timedelta) -> sqlite3.Connection:
    def prepare(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA query_only = ON")
        seal.attach(connection)

    return _opened(path, prepare, busy=busy)


def _opened(path: Path, prepare: Callable[[sqlite3.Connection], object], *, busy: timedelta) -> sqlite3.Connection:
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(
            path, timeout=busy.total_seconds(), isolation_level=None, check_same_thread=False, cached_statements=256
        )
        prepare(connection)
    except (sqlite3.Error, StoreUnavailable, Misconfigured) as error:
        if connection is not None:
            connection.close()
        if isinstance(error, Misconfigured):
            raise
        reason = unavailable(error) if isinstance(error, sqlite3.Error) else error
        raise StoreUnavailable(f"{path}: {reason}") from error
    return connection


def _prepare_writer(connection: sqlite3.Connection, *, seal: Seal) -> None:
    _use_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA cache_size = -32768")  # KiB
    connection.execute("PRAGMA journal_size_limit = 67108864")  # bytes kept of a log that a long reader made grow
    connection.execute("PRAGMA wal_autocheckpoint = 4000")  # pages: a page changed in several commits is copied once
    migrate(connection)
    seal.attach(connection)
    seal.check(connection)
    seal.begin(connection)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL. Several processes may try it at once, and for this SQLite does not wait by itself."""
    for attempt in range(100):
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if attempt == 99 or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            time.sleep(0.05)
        else:
            return
