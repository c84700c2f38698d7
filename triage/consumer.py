"""The receiving loop: receive, parse, facts, decide, commit, ack. In that order, always.

A message is acknowledged when the *intention* is durable, not when it is carried out: a slow API or a dead receiver
never holds a lease. When the store fails nothing is acknowledged, the bounded queue fills, and receiving stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import compress
from typing import Final

from triage import journal
from triage.changes import Commit, NewAlert, Quarantined
from triage.clock import Clock
from triage.decide import Decision, Reason, decide_batch
from triage.drills import is_drill
from triage.effects import decided, quarantine_alert
from triage.errors import Permanent, StoreConflict, StoreUnavailable, Temporary
from triage.facts import NO_LABELS, Arrival
from triage.progress import LIMIT, Progress, Receiving, Work
from triage.reading import Labels, Taken, read_batch, sifted
from triage.redaction import NOTHING, Redaction
from triage.rules.model import AlertPolicy, RuleSet
from triage.settings import show_duration
from triage.sources import Delivery, Source
from triage.stores import Store
from triage.subject import NEED_RATES
from triage.traces import Traces

log = logging.getLogger(__name__)

_GROUP: Final = 16
"""Messages that move together; what SMQ hands out at once."""

_ACKS_UNDER_WAY: Final = 4
"""Acknowledgements that may still be on the wire while the next batches are decided."""

_FIRST_RETRY: Final = timedelta(seconds=1)
"""Pause after the first of several errors that may pass; it doubles up to `_SLOW_RETRY`."""

_SLOW_RETRY: Final = timedelta(seconds=30)
"""Pause after an error that only a person can mend."""

_CONFLICTS: Final = 10
"""A batch that somebody else keeps changing is decided this often before it pauses and says so."""


@dataclass(frozen=True, slots=True)
class Intake:
    """One source and how it is asked: ``receivers`` long polls at a time, up to ``batch`` messages each."""

    source: Source
    receivers: int = 4
    batch: int = 16
    wait: timedelta = timedelta(seconds=30)


class Consumer:
    """Owns the receivers, the bounded queue between them and the decision, and the leases of all it holds."""

    def __init__(
        self,
        intakes: Sequence[Intake],
        *,
        store: Store,
        rules: Callable[[], RuleSet],
        clock: Clock,
        batch: int = 256,
        quarantine: AlertPolicy | None = None,
        committed: Callable[[], None] = lambda: None,
        labels: Labels = lambda _function: NO_LABELS,
        limit: timedelta = LIMIT,
        work: Work | None = None,
        traces: Traces | None = None,
        redaction: Redaction = NOTHING,
        elsewhere: timedelta = timedelta(0),
    ) -> None:
        """``rules`` gives the set in force, ``batch`` bounds what is committed at once (and what waits for that, once
        more), ``committed`` is called after each commit (it wakes the outbox), ``limit`` is how long a stage may stand
        still, ``work`` is counted up, ``redaction`` is what must not be told nor stored in the clear. Re-runs made
        elsewhere are joined to failures to which something happened within ``elsewhere``; 0 is never.
        """
        self._work, self._traces, self._redaction = work or Work(), traces, redaction
        self._intakes, self._store, self._rules, self._clock = intakes, store, rules, clock
        self._quarantine, self._committed, self._labels = quarantine, committed, labels
        self._elsewhere, self._group = elsewhere, min(_GROUP, batch)
        self._queue: asyncio.Queue[list[Taken]] = asyncio.Queue(batch // self._group)
        self._held: dict[int, Taken] = {}
        self._acks: dict[asyncio.Task[None], datetime] = {}
        self.progress, self._acking = Progress(limit), Progress(limit)
        self._asking = [
            (f"receive {intake.source.name}{f' #{number}' if intake.receivers > 1 else ''}", intake, Progress(limit))
            for intake in intakes
            for number in range(1, intake.receivers + 1)
        ]
        self.receiving = {intake.source.name: Receiving() for intake in intakes}
        """By the name of the source."""

    def use(self, *, labels: Labels, quarantine: AlertPolicy | None) -> None:
        """Take other settings, from the next batch on."""
        self._labels, self._quarantine = labels, quarantine

    def oldest(self, source: str) -> datetime | None:
        """When the oldest message that we hold from ``source``, not acknowledged yet, was put into its queue; None when
        there is none, or the queue does not tell.
        """
        held = (item.delivery.enqueued_at for item in self._held.values() if item.source.name == source)
        return min((at for at in held if at is not None), default=None)

    @property
    def stages(self) -> dict[str, Progress]:
        """Every receiver, the work on a batch up to its commit, and the acknowledgements."""
        asking = {name: progress for name, _, progress in self._asking}
        return {**asking, "consumer": self.progress, "ack": self._acking}

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until ``stop``; then finish what was received, and return. Cancelling it loses nothing either:
        what is not acknowledged comes again.
        """
        async with asyncio.TaskGroup() as tasks:
            sources = dict.fromkeys(intake.source for intake in self._intakes)
            renewing = [tasks.create_task(self._renew(source)) for source in sources]
            async with asyncio.TaskGroup() as receiving:
                handling = tasks.create_task(self._handle_all(tasks))
                for name, intake, asking in self._asking:
                    receiving.create_task(self._receive(intake, asking, stop), name=name)
            await self._queue.join()
            for task in (handling, *renewing):
                task.cancel()

    async def _receive(self, intake: Intake, asking: Progress, stop: asyncio.Event) -> None:
        failures = 0
        receiving = self.receiving[intake.source.name]
        while not stop.is_set():
            asking.busy(self._clock.steady() + intake.wait)
            try:
                deliveries = await _unless(stop, intake.source.receive(limit=intake.batch, wait=intake.wait))
            except Temporary as error:
                asking.rest()  # an error is an answer
                pause = error.retry_after or min(_FIRST_RETRY * 2 ** min(failures, 8), _SLOW_RETRY)
                failures += 1
                level = logging.WARNING if receiving.failed(error, now=self._clock.now()) else logging.DEBUG
                log.log(level, "%s: %s; asking again in %s", intake.source.name, error, show_duration(pause))
                await self._clock.wait(stop, pause)
                continue
            except Permanent as error:
                asking.rest()
                level = logging.ERROR if receiving.failed(error, now=self._clock.now()) else logging.DEBUG
                log.log(level, "%s: %s; asking again in %s", intake.source.name, error, show_duration(_SLOW_RETRY))
                await self._clock.wait(stop, _SLOW_RETRY)
                continue
            asking.rest()
            failures = 0
            oldest = min((each.enqueued_at for each in deliveries if each.enqueued_at), default=None)
            receiving.received(len(deliveries), now=self._clock.now(), oldest=oldest)
            if deliveries:
                taken = [Taken(intake.source, delivery) for delivery in deliveries]
                self._held.update((id(item.delivery), item) for item in taken)
                for start in range(0, len(taken), self._group):  # so that the queue's bound is one of messages
                    await self._queue.put(taken[start : start + self._group])

    async def _handle_all(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            batch = await self._queue.get()
            self.progress.busy(self._clock.steady())
            groups = 1
            while not self._queue.empty():  # it holds a batch at most
                batch = batch + self._queue.get_nowait()
                groups += 1
            try:
                await self._handle(batch, tasks)
                self.progress.rest()
            finally:
                for _ in range(groups):
                    self._queue.task_done()

    async def _handle(self, batch: Sequence[Taken], tasks: asyncio.TaskGroup) -> None:
        await self._commit(batch)
        self._committed()
        by_source: dict[Source, list[Taken]] = {}
        for item in batch:
            by_source.setdefault(item.source, []).append(item)
        for source, items in by_source.items():
            while len(self._acks) >= _ACKS_UNDER_WAY:
                await asyncio.wait(self._acks, return_when=asyncio.FIRST_COMPLETED)
            task = tasks.create_task(self._ack(source, items), name=f"ack {source.name}")
            self._acks[task] = self._clock.steady()
            self._acking.oldest(self._acks.values())
            task.add_done_callback(self._acknowledged)

    def _acknowledged(self, task: asyncio.Task[None]) -> None:
        self._acks.pop(task, None)
        self._acking.oldest(self._acks.values())

    async def _commit(self, batch: Sequence[Taken]) -> None:
        now, began = self._clock.now(), self._clock.steady()
        arrivals, unread = read_batch(batch, now=now, labels=self._labels)
        unread = tuple(replace(item, detail=self._redaction.text(item.detail)) for item in unread)
        quarantined = tuple(replace(item, alert=self._quarantine_alert(item)) for item in unread)
        # Rules decide by what came; what is written and told of it is made of this.
        shown = [self._redaction.arrival(each) for each in arrivals]
        pause = timedelta(milliseconds=500)
        conflicts = 0
        while True:
            try:
                rules = self._rules()
                snapshot = await self._store.load_facts(
                    arrivals,
                    rates_at=now if rules.names & NEED_RATES else None,
                    elsewhere_since=now - self._elsewhere if self._elsewhere else None,
                )
                if any(is_drill(each.envelope.request_id) for each in arrivals):
                    genuine, forged = sifted(arrivals, snapshot)
                    arrivals, shown = list(compress(arrivals, genuine)), list(compress(shown, genuine))
                    quarantined += tuple(replace(item, alert=self._quarantine_alert(item)) for item in forged)
                decisions = decide_batch(arrivals, snapshot, rules, now=now)
                commit = Commit(
                    now=now,
                    rule_set=rules.digest,
                    decided=tuple(decided(a, d) for a, d in zip(shown, decisions, strict=True) if d.is_new),
                    duplicates=tuple(
                        a
                        for a, d in zip(arrivals, decisions, strict=True)
                        if d.reason is Reason.DUPLICATE and d.facts.drill is None
                    ),
                    conflicts=_with(Reason.CONFLICT, arrivals, decisions),
                    quarantined=quarantined,
                )
                await self._store.commit(commit)
            except StoreConflict:
                # Somebody else decided one of these first. Deciding is pure, so deciding again costs nothing.
                conflicts += 1
                self.progress.tried(self._clock.steady())
                if conflicts % _CONFLICTS == 0:
                    log.warning("facts changed %d times while deciding; again in %s", conflicts, show_duration(pause))
                    await self._clock.sleep(pause)
            except StoreUnavailable as error:
                log.error("nothing is acknowledged while the store fails: %s; again in %s", error, show_duration(pause))  # noqa: TRY400
                self.progress.tried(self._clock.steady() + pause, error=str(error))
                await self._clock.sleep(pause)
                pause = min(pause * 2, _SLOW_RETRY)
            else:
                self._count(commit, self._clock.steady() - began)
                journal.batch(commit)
                if self._traces:
                    self._traces.batch(commit, began=now, ended=self._clock.now())
                return

    def _count(self, commit: Commit, took: timedelta) -> None:
        work = self._work
        work.commits += 1
        work.messages += len(commit.duplicates) + len(commit.conflicts) + len(commit.quarantined)
        work.messages += sum(item.counts for item in commit.decided)
        work.seconds += took.total_seconds()
        decisions = [item.decision for item in commit.decided if item.counts]
        work.decisions.update((each.rule.id if each.rule else "", str(each.reason)) for each in decisions)
        work.rule_errors.update(clause.rule_id for each in decisions for clause in each.errors)
        # How an ambiguous result ended is asked first; the outbox counts it.
        work.reruns.update(
            "succeeded" if each.reason is Reason.HEALED else "failed"
            for each in decisions
            if each.facts.lineage is not None and each.reason is not Reason.AMBIGUOUS
        )

    def _quarantine_alert(self, item: Quarantined) -> NewAlert | None:
        if self._quarantine is None:
            return None
        return quarantine_alert(
            source=item.source,
            reason=item.reason,
            detail=f"{item.where}: {item.detail}" if item.where else item.detail,
            policy=self._quarantine,
            entry=item.message_id,
        )

    async def _ack(self, source: Source, items: Sequence[Taken]) -> None:
        for item in items:  # from here on nobody extends what may be deleted already
            self._held.pop(id(item.delivery), None)
        try:
            gone = await source.ack([item.delivery for item in items])
        except (Temporary, Permanent) as error:
            log.warning("%s: %d messages are not acknowledged and will come again: %s", source.name, len(items), error)
        else:
            if gone:
                log.info("%s: %d messages will come again: their lease had run out", source.name, len(gone))

    async def _renew(self, source: Source) -> None:
        """Extend the leases of whatever we hold from ``source``, each once a third of it has passed."""
        while True:
            soon = self._clock.now() + source.lease * 2 / 3
            held = [item for item in self._held.values() if item.source is source]
            due = [item for item in held if item.delivery.lease_until <= soon]
            for start in range(0, len(due), _GROUP):
                async with asyncio.TaskGroup() as tasks:
                    for item in due[start : start + _GROUP]:
                        tasks.create_task(self._extend(item))
            await self._clock.sleep(source.lease / 6)

    async def _extend(self, item: Taken) -> None:
        key = id(item.delivery)
        if key not in self._held:
            return  # its acknowledgement has begun
        with contextlib.suppress(Temporary, Permanent):  # the lease then runs out, and the message comes again
            if not await item.source.extend(item.delivery, item.source.lease):
                self._held.pop(key, None)  # not ours any more


async def _unless(stop: asyncio.Event, receive: Awaitable[list[Delivery]]) -> list[Delivery]:
    """What ``receive`` gives, or nothing when ``stop`` comes first: a long poll must not delay a shutdown. What the
    queue had handed out to the abandoned poll comes again when its lease runs out.
    """
    asking = asyncio.ensure_future(receive)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((asking, stopping), return_when=asyncio.FIRST_COMPLETED)
        if asking.done():
            return asking.result()
        return []
    finally:
        stopping.cancel()
        if not asking.done():
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError, Temporary, Permanent):
                await asking


def _with(reason: Reason, arrivals: Sequence[Arrival], decisions: Sequence[Decision]) -> tuple[Arrival, ...]:
    return tuple(a for a, d in zip(arrivals, decisions, strict=True) if d.reason is reason)
