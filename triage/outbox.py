"""The acting loop: claim what is due, act, settle. Everything that happens later is a row of the same table.

A claim is a lease with a fencing token. Dying between act and settle leaves the row under its lease; whoever claims it
next knows that it was interrupted, and for a re-run asks the provider before anything else.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from triage import journal
from triage.admission import admitted, concluded, counted, dry, throttled, woken
from triage.alerts.compose import Compose, built_in
from triage.alerts.delivery import Retries, notified
from triage.alerts.grouping import flush
from triage.alerts.routing import Routes, everywhere, fallback_of, routed
from triage.alerts.silences import look
from triage.alerts.storm import storm_look
from triage.changes import Changes, RowKind, Settle
from triage.clock import Clock
from triage.cloud.fc_answers import AsyncConfig, Submitted, Task
from triage.drills import is_drill, is_over
from triage.envelope import FunctionRef
from triage.errors import Misconfigured, OutcomeUnknown, Permanent, SealBroken, StoreUnavailable, Temporary
from triage.log import about
from triage.notify import Notification, Notifier
from triage.orders import Limits
from triage.plans import plan_step
from triage.progress import LIMIT, Progress, Work
from triage.reactions import function_of, lost, not_found, postponed, refused, resolved, submitted, unanswered
from triage.reruns.gate import Gate, Safeguards
from triage.states import RowEvent, RowState, State
from triage.stores import Places, React, Store
from triage.traces import LINEAGES, Traces
from triage.views import OutboxRow, RowFacts

log = logging.getLogger(__name__)

_IDLE: Final = timedelta(seconds=1)
"""How long a row that another process wrote (the command line, a replica) may wait until it is seen."""

_STORE_FAILS: Final = timedelta(seconds=5)

_LIMITS: Final = Limits()
_RETRIES: Final = Retries()

_UNREACHABLE: Final = timedelta(minutes=15)
"""How long the provider may be out of reach before an overdue result is told without having asked."""


class Invoker(Protocol):
    """What the outbox needs of Function Compute. `triage.cloud.fc.FcClient` is it."""

    async def invoke_async(self, function: FunctionRef, payload: bytes, *, task_id: str) -> Submitted: ...

    async def get_task(self, function: FunctionRef, task_id: str) -> Task | None: ...

    async def async_config(self, function: FunctionRef) -> AsyncConfig | None: ...


Standing = Callable[[OutboxRow], Awaitable[React]]
"""Acts on a row that looks after something for as long as the configuration wants it."""


async def no_longer(_row: OutboxRow) -> React:
    """Nothing of the kind is configured."""
    return lambda _facts: Settle.done(note="not configured any more")


class Outbox:
    """Owns the loop over due rows. ``lease`` must be longer than the slowest act."""

    def __init__(
        self,
        *,
        store: Store,
        invoker: Invoker,
        notifier: Notifier,
        clock: Clock,
        lease: timedelta = timedelta(minutes=2),
        concurrency: int = 16,
        retries: Retries = _RETRIES,
        guards: Safeguards = Safeguards(),
        limit: timedelta = LIMIT,
        orders: Limits = _LIMITS,
        work: Work | None = None,
        compose: Compose = built_in,
        traces: Traces | None = None,
        routes: Routes = everywhere,
        standing: Standing = no_longer,
        storm: int = 0,
    ) -> None:
        """``limit`` is how long a stage may stand still; an act may always take a lease. ``orders`` is for plans,
        ``work`` is counted up, ``compose`` writes messages, ``routes`` says how they go to a receiver at that moment,
        ``standing`` answers rows that come again day by day. So many groups that begin at once are a ``storm``; 0 is
        never.
        """
        self._work, self._compose, self._traces, self._routes = work or Work(), compose, traces, routes
        self._standing = standing
        self._store, self._invoker, self._notifier, self._clock = store, invoker, notifier, clock
        self._lease, self._concurrency, self._retries, self._orders = lease, concurrency, retries, orders
        self._guards, self._storm = guards, storm
        self._wake = asyncio.Event()
        self._running: dict[asyncio.Task[None], datetime] = {}
        self._at: dict[asyncio.Task[None], str] = {}
        # Claiming waits for an act when all places are taken. What an act does after its lease is settled by nobody.
        self.progress, self._acting = Progress(max(lease, limit)), Progress(max(lease, limit))

    @property
    def stages(self) -> dict[str, Progress]:
        """Claiming what is due, and acting on it: re-runs, questions, flushes and notifications."""
        return {"outbox": self.progress, "act": self._acting}

    def poke(self) -> None:
        """There may be new rows."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Act on due rows until ``stop``; then finish what is under way, and return."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._wake_on(stop))
            while not stop.is_set():
                self._wake.clear()
                self.progress.busy(self._clock.steady())
                try:
                    pause = timedelta(0) if await self._start_due(tasks) else await self._pause()
                except StoreUnavailable as error:
                    log.error("nothing is acted upon while the store fails: %s", error)  # noqa: TRY400
                    pause = _STORE_FAILS
                    self.progress.tried(self._clock.steady() + pause, error=str(error))
                else:
                    if len(self._running) < self._concurrency:
                        self.progress.rest()
                await self._clock.wait(self._wake, pause)

    async def _wake_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    async def _start_due(self, tasks: asyncio.TaskGroup) -> int:
        free = self._concurrency - len(self._running)
        if free <= 0:
            return 0
        now = self._clock.now()
        rows = await self._store.claim_due(now=now, lease=self._lease, limit=free, places=self._places())
        for row in rows:
            task = tasks.create_task(self._act(row), name=f"act {row.kind} {row.id}")
            self._running[task], self._at[task] = self._clock.steady(), row.place
            task.add_done_callback(self._finished)
        self._acting.oldest(self._running.values())
        return len(rows)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._at.pop(task, None)
        self._acting.oldest(self._running.values())
        self.progress.rest()
        self._wake.set()

    async def _pause(self) -> timedelta:
        if len(self._running) >= self._concurrency:
            return _IDLE  # a finished act wakes us
        due = await self._store.next_due(places=self._places())
        return _IDLE if due is None else min(max(due - self._clock.now(), timedelta(0)), _IDLE)

    def _places(self) -> Places:
        """A function, or a receiver, may take a quarter of the places; the last quarter is for those that have none.
        The others are not to wait for its time-outs.
        """
        share = max(1, self._concurrency // 4)
        taken = Counter(place for place in self._at.values() if place)
        return Places(share, taken, crowd=max(1, self._concurrency - share))

    async def _act(self, row: OutboxRow) -> None:
        began = self._clock.now()
        try:
            react = await self.react(row)
            if react is None:
                return
            settled: list[Settle] = []

            def last(facts: RowFacts) -> Settle:  # a transaction that is done again asks again
                settled[:] = [react(facts)]
                return settled[0]

            if not await self._store.settle(row, last, now=self._clock.now()):
                log.info(
                    "%s %s: settled by somebody else, or no longer needed", row.kind, row.key, extra=about(row.root)
                )
                return
            await self._tell(row, settled[0], rerun_result(row, settled[0]), began=began)
        except StoreUnavailable as error:
            log.error("%s %s: acted, but the store fails: %s", row.kind, row.key, error, extra=about(row.root))  # noqa: TRY400
        except Exception:
            # The task boundary. The row stays under its lease, is claimed again as interrupted, and shows in the log.
            text = "%s %s: a defect of triage; the row is tried again when its lease ends"
            log.exception(text, row.kind, row.key, extra=about(row.root))

    async def _tell(self, row: OutboxRow, settle: Settle, result: str, *, began: datetime) -> None:
        """Count, log and trace what came of an act that is settled."""
        ended = self._clock.now()
        if result and not is_drill(row.root):
            self._work.reruns[result] += 1
        lineages: list[str] = []
        if row.kind is RowKind.NOTIFY and row.group:
            with suppress(StoreUnavailable):  # the act is settled all the same
                lineages = await self._store.lineages_in(row.group, row.payload["flush"], limit=LINEAGES)
        journal.act(row, settle, result, lineages=lineages)
        if self._traces:
            self._traces.act(row, settle, result, began=began, ended=ended, lineages=lineages)

    async def react(self, row: OutboxRow) -> React | None:
        """Carry out one claimed row; what it answers decides, inside the settling transaction, how it goes on. None:
        it waits at a gate, and is not ours any more.
        """
        match row.kind:
            case RowKind.RERUN:
                return await self._rerun(row)
            case RowKind.RESOLVE | RowKind.EXPECT:
                return await self._resolve(row)
            case RowKind.FLUSH:
                now = self._clock.now()
                return lambda facts: flush(facts, now=now, compose=self._compose, storm=self._storm)
            case RowKind.STORM:
                now = self._clock.now()
                return lambda facts: storm_look(row, facts, now=now)
            case RowKind.NOTIFY:
                return await self._notify(row)
            case RowKind.HOLD:
                return lambda facts: unanswered(row, facts)
            case RowKind.WAKE:
                now = self._clock.now()
                return lambda facts: woken(row, facts, guards=self._guards, now=now)
            case RowKind.PLAN_STEP:
                now = self._clock.now()
                return lambda facts: plan_step(row, facts, limits=self._orders, now=now)
            case RowKind.SILENCE:
                now = self._clock.now()
                return lambda facts: look(row, facts, now=now)
            case RowKind.WATCH | RowKind.DIGEST | RowKind.MAINTENANCE:
                return await self._standing(row)

    async def _rerun(self, row: OutboxRow) -> React | None:
        asks, now = row.interrupted or row.state is RowState.UNKNOWN, self._clock.now()
        if row.payload.get("dry") or (is_over(row.root, now) and not asks):  # of a drill that is over nobody waits
            return lambda facts: dry(row, facts, guards=self._guards, now=now)
        if asks:
            return await self._ask(row)
        return await self._unless_stopped(row) or await self._submit(row)

    async def _unless_stopped(self, row: OutboxRow) -> React | None:
        """Ask how the first run ended whose message tells no error; None: nothing is against its re-run."""
        if not row.payload.get("may_be_stopped"):
            return None
        try:
            task = await self._invoker.get_task(function_of(row.payload), row.root)
        except (Temporary, Permanent) as error:
            return self._postponed(row, error)
        if task is None or task.status != "Stopped":
            return None
        return lambda facts: refused(row, facts, note="somebody has stopped the task, so no rule runs it again")

    async def _submit(self, row: OutboxRow) -> React | None:
        now = self._clock.now()
        guards = self._guards
        asked: list[Settle] = []

        def ask(facts: RowFacts) -> Settle:  # a transaction that is done again asks again
            asked[:] = [admitted(row, facts, guards=guards, now=now)]
            return asked[0]

        if not await self._store.admit(row, ask, now=now):
            if asked and rerun_result(row, asked[0]):
                await self._tell(row, asked[0], "given_up", began=now)
            return None
        try:
            payload = await self._store.payload_of(row.root)
        except SealBroken as error:
            note = str(error)
            return lambda facts: refused(row, facts, note=note)
        if payload is None:
            return lambda facts: refused(row, facts, note="the event is gone, or was never told")
        try:
            answer = await self._invoker.invoke_async(function_of(row.payload), payload, task_id=row.key)
        except OutcomeUnknown as error:
            note, now = str(error), self._clock.now()
            return lambda facts: counted(lost(row, facts, note=note, now=now), facts, succeeded=False)
        except (Temporary, Misconfigured) as error:
            # A missing permission or key can be mended while the re-run still makes sense.
            return self._postponed(row, error)
        except Permanent as error:
            note = f"{error}{f' (the event has {len(payload):,} bytes)' if error.reason == 'too_large' else ''}"
            return lambda facts: refused(row, facts, note=note)
        if answer.already:
            # An earlier submit of ours arrived, and its answer, with the request id, did not. The result will be known
            # by that id, so it is asked for until it is found.
            return await self._ask(row)
        return self._submitted(row, answer.request_id, already=False)

    async def _ask(self, row: OutboxRow) -> React:
        function = function_of(row.payload)
        try:
            task = await self._invoker.get_task(function, row.key)
            if task is not None:
                return self._submitted(row, task.request_id, already=True)
            config = await self._invoker.async_config(function)
        except (Temporary, Permanent) as error:
            note = f"asked whether it was submitted: {error}"
            return lambda facts: lost(row, facts, note=note, now=self._clock.now())
        tracked = config is not None and config.async_task
        return lambda facts: not_found(row, facts, tracked=tracked, now=self._clock.now())

    async def _resolve(self, row: OutboxRow) -> React:
        try:
            function, tracked = function_of(row.payload), False
            task = await self._invoker.get_task(function, row.payload["task_id"])
            if task is None and row.payload.get("elsewhere"):  # whoever made it may have chosen its task id
                config = await self._invoker.async_config(function)
                tracked = config is not None and config.async_task
        except (Temporary, Permanent) as error:
            note, now = f"asked how the task ended: {error}", self._clock.now()
            since = datetime.fromisoformat(row.payload.get("unreachable_since", now.isoformat()))
            if row.kind is RowKind.EXPECT and now - since >= _UNREACHABLE:
                return lambda facts: concluded(resolved(row, facts, status=None, now=now), facts)
            payload = {**row.payload, "unreachable_since": since.isoformat()}
            due_at = now + timedelta(seconds=min(5 * 2 ** min(row.attempts, 7), 600))
            return lambda _facts: Settle.retry(due_at=due_at, note=note, payload=payload)
        status, now = task.status if task else None, self._clock.now()
        return lambda facts: concluded(resolved(row, facts, status=status, now=now, tracked=tracked), facts)

    async def _notify(self, row: OutboxRow) -> React | None:
        receiver = row.payload["receiver"]
        if is_over(row.payload.get("drill", ""), self._clock.now()):
            return lambda _facts: Settle.dead(note="the drill is over")
        route = self._routes(receiver)
        if route is not None and not (route.open and row.gate in (None, Gate.PASSED)):
            now = self._clock.now()
            let = await self._store.admit(row, lambda facts: routed(row, facts, route=route, now=now), now=now)
            if let is None:
                return None
            row = let
        payload = row.payload
        note = Notification(receiver, payload["title"], payload["body"], payload["severity"], payload.get("forms", {}))
        sent = frozenset(map(str, payload.get("sent", ())))
        answers = await self._notifier.send(note, skip=sent)
        now = self._clock.now()
        settle = notified(row, answers, retries=self._retries, fallback=fallback_of(receiver, route), now=now)
        if route is None:
            log.error("a message is meant for receiver %r, which is not configured", receiver)
        # A receiver that is not configured any more gets no series.
        if not is_drill(row.group) and (answers or settle.delivery == "sent"):
            self._work.notified[receiver, settle.delivery] += 1
        return lambda _facts: settle

    def _submitted(self, row: OutboxRow, request_id: str, *, already: bool) -> React:
        return lambda facts: submitted(row, facts, request_id=request_id, now=self._clock.now(), already=already)

    def _postponed(self, row: OutboxRow, error: Temporary | Permanent) -> React:
        note, after, now = str(error), getattr(error, "retry_after", None), self._clock.now()

        def react(facts: RowFacts) -> Settle:
            settle = postponed(row, facts, note=note, now=now, retry_after=after)
            match error.reason:
                case "throttled":
                    return throttled(settle, facts, guards=self._guards, now=now, retry_after=after)
                case "unreachable":
                    return counted(settle, facts, succeeded=False)
            return settle

        return react


_SUBMITTED: Final = {
    RowEvent.HAPPENED: "submitted",
    RowEvent.POSTPONED: "postponed",
    RowEvent.LOST: "unknown",
    RowEvent.GIVEN_UP: "refused",
}


def rerun_result(row: OutboxRow, settle: Settle) -> str:
    """The step that a re-run has taken by this, as the metrics call it; empty: none. Pure."""
    if row.kind is RowKind.RERUN:
        moved_on = (
            settle.event in (RowEvent.HAPPENED, RowEvent.GIVEN_UP)
            and replace(settle.changes, standings=()) == Changes()
        )
        return "" if moved_on else _SUBMITTED.get(settle.event, "")
    if row.kind in (RowKind.RESOLVE, RowKind.EXPECT) and settle.changes.lineages:
        healed = settle.changes.lineages[0].state is State.HEALED
        return "succeeded" if healed else "overdue" if row.kind is RowKind.EXPECT else "failed"
    return ""
