"""A daemon's past on a real store: the consumer, the outbox and the SQLite file are real, time and the far side are not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from make import NOW

from triage.alerts.delivery import Answer, Result
from triage.consumer import Consumer, Intake
from triage.outbox import Outbox
from triage.rules.model import RuleSet, SourceText
from triage.rules.source import load_rules
from triage.sealing import Seal
from triage.stores.sqlite import SqliteStore
from triage.testing import FakeFunctions, FakeSource, ManualClock

SHUT = timedelta(minutes=2)


def rule_set(text: str, *, name: str = "rules.yaml") -> RuleSet:
    """Rules from YAML, without the line that every file begins with."""
    return load_rules([SourceText(name, f"version: 1\nrules:\n{text}")])


class _Told:
    async def send(self, note, *, skip=frozenset()):
        return {"0": Answer(Result.SENT)}


class Past:
    """Made by `open`; `receive`, `pass_time` and `use` let it happen; close it."""

    def __init__(self, store: SqliteStore, rules: RuleSet, outcomes: Sequence[bool], notifier: Any) -> None:
        self.store, self.rules = store, rules
        self.clock = ManualClock(NOW)
        self.source = FakeSource(clock=self.clock)
        self.functions = FakeFunctions(self.clock, self.source, outcomes=outcomes)
        self._outbox = Outbox(store=store, invoker=self.functions, notifier=notifier, clock=self.clock)

    @classmethod
    async def open(
        cls,
        path: Path,
        rules: RuleSet,
        *,
        outcomes: Sequence[bool] = (True,),
        seal: Seal = Seal(),
        notifier: Any = None,
    ) -> Past:
        past = cls(await SqliteStore.open(path, seal=seal), rules, outcomes, notifier or _Told())
        await past.use(rules)
        return past

    async def use(self, rules: RuleSet) -> None:
        """Put other rules in force."""
        self.rules = rules
        await self.store.save_rule_set(rules.digest, rules.sources, now=self.clock.now())

    async def receive(self, *bodies: bytes) -> None:
        """Take in messages, and results that have come meanwhile."""
        self.source.put(*bodies)
        await self._consume()

    async def pass_time(self, duration: timedelta) -> None:
        """Let time pass; what is due on the way is done, and results are taken in."""
        end = self.clock.now() + duration
        while (due := await self._due()) is not None and due <= end:
            await self.clock.advance(max(due - self.clock.now(), timedelta(0)))
            for row in await self.store.claim_due(now=self.clock.now(), lease=SHUT, limit=100):
                if (react := await self._outbox.react(row)) is not None:
                    await self.store.settle(row, react, now=self.clock.now())
            await self._consume()
        await self.clock.advance(end - self.clock.now())
        await self._consume()

    async def close(self) -> None:
        await self.store.close()

    async def _due(self):
        """When something happens next: an outbox row, or a result that is on its way."""
        times = [message.visible_at for message in self.source._messages.values()]
        due = await self.store.next_due()
        return min([*times, *([due] if due else [])], default=None)

    async def _consume(self) -> None:
        stop = asyncio.Event()

        def committed() -> None:
            if not self.source._visible():
                stop.set()

        if self.source._visible():
            intake = Intake(self.source, receivers=1, wait=timedelta(0))
            rules = lambda: self.rules  # noqa: E731
            await Consumer([intake], store=self.store, rules=rules, clock=self.clock, committed=committed).run(stop)
