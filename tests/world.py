"""Everything that outlives the process: the store, the queue, Function Compute, whoever is told, and time. And lives of
the process in it, each of which may end at any point.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import make

from triage.alerts.delivery import Answer, Result
from triage.consumer import Consumer, Intake
from triage.outbox import Outbox
from triage.progress import Work
from triage.reruns.gate import Safeguards
from triage.rules.model import AlertPolicy, RuleSet
from triage.stores.selfcheck import check, view
from triage.stores.sqlite import SqliteStore
from triage.testing import Crash, Crashes, FakeSource, ManualClock, MemoryStore

LEASE = timedelta(seconds=30)


@dataclass
class Bell:
    """A notifier that remembers what it delivered."""

    rung: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    async def send(self, note, *, skip=frozenset()):
        self.rung.append(f"{note.receiver}: {note.title}")
        self.texts.append(note.body)
        return {"0": Answer(Result.SENT)}


class InMemory:
    """A store that lives as long as the test."""

    def __init__(self, _folder: Path) -> None:
        self._store = MemoryStore()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[MemoryStore]:
        yield self._store

    def looked_at(self) -> Any:
        return closing(self._store.tables.database())


class InFile:
    """A store in an SQLite file, opened anew by every process."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "triage.db"

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[SqliteStore]:
        store = await SqliteStore.open(self._path)
        try:
            yield store
        finally:
            await store.close()

    def looked_at(self) -> Any:
        return view(self._path)


Shelf = InMemory | InFile
SHELVES: dict[str, type[Shelf]] = {"memory": InMemory, "sqlite": InFile}
"""Where a store is kept. PostgreSQL's goes here, too."""

Person = Callable[[Any, ManualClock], Awaitable[bool]]
"""Somebody with a command line: is given the store every five seconds, until all is said."""


class World:
    """One queue, one store, one set of functions, on one clock that only moves in `live`."""

    def __init__(
        self,
        shelf: Shelf,
        rules: RuleSet,
        *,
        clock: ManualClock,
        invoker: Any,
        source: FakeSource,
        guards: Safeguards = Safeguards(),
        storm: int = 0,
    ) -> None:
        self.shelf, self.rules, self.clock, self.invoker, self.source = shelf, rules, clock, invoker, source
        self.guards, self.storm = guards, storm
        self.bell, self.work = Bell(), Work()

    async def live(self, crashes: Crashes, *, until: timedelta, person: Person | None = None) -> None:
        """Run one process until it dies or ``until`` has passed; then it stops in good order."""
        async with self.shelf.opened() as real:
            await real.save_rule_set(self.rules.digest, (), now=self.clock.now())
            store = crashes.wrap(real)
            outbox = Outbox(
                store=store,
                invoker=crashes.wrap(self.invoker),
                notifier=crashes.wrap(self.bell),
                clock=self.clock,
                lease=LEASE,
                guards=self.guards,
                storm=self.storm,
                work=self.work,
            )
            intake = Intake(crashes.wrap(self.source, waits=("receive",)), receivers=1, wait=timedelta(hours=1))
            consumer = Consumer(
                [intake],
                store=store,
                rules=lambda: self.rules,
                clock=self.clock,
                quarantine=AlertPolicy(group_wait=timedelta(seconds=5)),
                committed=outbox.poke,
                work=self.work,
                elsewhere=timedelta(hours=1),
            )
            stop = asyncio.Event()
            tasks = [asyncio.create_task(consumer.run(stop)), asyncio.create_task(outbox.run(stop))]
            if person is not None:
                tasks.append(asyncio.create_task(self._visit(store, person, stop)))
            await self._pass_time(crashes, tasks, until)
            stop.set()
            if not crashes.died:
                await crashes.rest(self.clock)
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                _only_crashes(result)

    async def _pass_time(self, crashes: Crashes, tasks: list[asyncio.Task[None]], until: timedelta) -> None:
        end = self.clock.steady() + until
        await crashes.rest(self.clock)
        while not crashes.died and (timers := self.clock.timers) and timers[0] <= end:
            assert not any(task.done() for task in tasks[:2])
            await self.clock.advance(max(timers[0] - self.clock.steady(), timedelta(0)))
            await crashes.rest(self.clock)

    async def _visit(self, store: Any, person: Person, stop: asyncio.Event) -> None:
        while not await self.clock.wait(stop, timedelta(seconds=5)):
            if await person(store, self.clock):
                return

    async def totals(self) -> Any:
        async with self.shelf.opened() as store:
            return await store.totals()

    def broken_laws(self) -> dict[str, Any]:
        """What ``triage selfcheck`` would find."""
        with self.shelf.looked_at() as connection:
            return {
                verdict.law.id: verdict.breaches
                for verdict in check(connection, now=self.clock.now())
                if verdict.broken
            }

    def ask(self, sql: str) -> list[Any]:
        """Look into the store."""
        with self.shelf.looked_at() as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(sql).fetchall()


def _only_crashes(result: BaseException | None) -> None:
    if isinstance(result, BaseExceptionGroup):
        _, others = result.split(lambda error: isinstance(error, Crash | asyncio.CancelledError))
        assert others is None, others
    else:
        assert result is None or isinstance(result, Crash | asyncio.CancelledError), result


def message(function: str, request_id: str, **fields: object) -> bytes:
    """The result of an invocation of a function."""
    return make.body(request_id, arn=make.ARN.replace("my-fc-job", function), **fields)
