"""A plan of re-runs out of a large store: how long it takes to make, what memory, and what a false fix costs.

    python benchmarks/plan.py [failures, a million when not given]

Failures of 1 KB are stored, planned by an expression, and the plan is applied with functions that fail every time: the
daemon's outbox and consumer work on it until it has stopped by itself. Memory is what is resident while the plan is
made, SQLite's cache included, and what tracemalloc sees of it in Python.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
import tracemalloc
from datetime import timedelta
from pathlib import Path

from store import NOW, arrivals

from triage.alerts.delivery import Answer, Result
from triage.changes import Commit
from triage.consumer import Consumer, Intake
from triage.decide import decide_batch
from triage.effects import decided
from triage.outbox import Outbox
from triage.planning import Selection, make_plan
from triage.plans import Say, applied
from triage.reruns.plan import SIZES, THRESHOLD, ItemState, PlanState
from triage.rules.expression import compile_expression
from triage.rules.model import Place, Rule, RuleSet
from triage.stores import FailureFilter
from triage.stores.sqlite import SqliteStore
from triage.testing import FakeFunctions, FakeSource, ManualClock

RULES = RuleSet((Rule("known", Place("bench.yaml", 1), ignore="known to fail"),), "bench")
SAY = Say("bench", "is it mended?")
BATCH = 500


class Silent:
    """A notifier that nobody hears."""

    async def send(self, note, *, skip=frozenset()):  # noqa: ARG002 - as notifiers are called
        return {"0": Answer(Result.SENT)}


async def fill(store, count):
    for start in range(0, count, 5000):
        many = arrivals(min(5000, count - start), start)
        for at in range(0, len(many), BATCH):
            batch = many[at : at + BATCH]
            decisions = decide_batch(batch, await store.load_facts(batch), RULES, now=NOW)
            pairs = zip(batch, decisions, strict=True)
            await store.commit(Commit(now=NOW, rule_set="bench", decided=tuple(decided(a, d) for a, d in pairs)))


def resident() -> float:
    """MiB of this process in memory, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


async def plan(store, clock, *, traced):
    expression = compile_expression('fn.startsWith("job-") && error.message != "" && lineage.attempt == 0')
    selection = Selection(FailureFilter(), expression, frozenset(), {"filter": expression.text})
    before, began, seen = resident(), time.perf_counter(), [resident()]
    if traced:
        tracemalloc.start()
    made, _ = await make_plan(store, selection, SAY, clock=clock, progress=lambda _done, _all: seen.append(resident()))
    told = f"{made.size:,} failures planned in {time.perf_counter() - began:.0f} s"
    if traced:
        print(f"{told} under tracemalloc: at most {tracemalloc.get_traced_memory()[1] / 1e6:.1f} MB in Python")
        tracemalloc.stop()
    else:
        print(f"{told}; memory: {before:.0f} MiB before, at most {max(seen):.0f} MiB meanwhile")
    return made


async def false_fix(store, made, clock):
    source = FakeSource(clock=clock)
    functions = FakeFunctions(clock, source, outcomes=(False,))
    outbox = Outbox(store=store, invoker=functions, notifier=Silent(), clock=clock)
    consumer = Consumer([Intake(source, receivers=1)], store=store, rules=lambda: RULES, clock=clock)
    now = clock.now()
    begin = lambda known: applied(known, SAY, threshold=THRESHOLD, sizes=SIZES, to=("default",), now=now)  # noqa: E731
    await store.move_plan(made.hash, begin, now=now)
    stop = asyncio.Event()
    tasks = [asyncio.create_task(part.run(stop)) for part in (outbox, consumer)]
    began = time.perf_counter()
    while (found := await store.plan(made.hash)).state is PlanState.RUNNING:
        await clock.advance(timedelta(seconds=1))
    stop.set()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(
        f"a false fix: {functions.executions.total()} re-run, {found.counts[ItemState.FAILED]} failed, "
        f"{found.counts[ItemState.WAITING]:,} kept; {found.note} ({time.perf_counter() - began:.1f} s)"
    )


async def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        store = await SqliteStore.open(Path(folder) / "triage.db")
        clock = ManualClock(NOW + timedelta(minutes=5))
        await fill(store, count)
        first = await plan(store, clock, traced=False)
        await clock.advance(timedelta(seconds=1))
        await plan(store, clock, traced=True)
        await false_fix(store, first, clock)
        await store.close()


asyncio.run(main())
