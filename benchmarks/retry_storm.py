"""A retry storm on a virtual clock: what re-runs do to a function that already has more to do than it can.

    python benchmarks/retry_storm.py

writes the figures and the plot of docs/explanation/retry-storm.md. Function and time are simulated; what is decided,
what passes the gates and what is settled is the daemon's own code, on its SQLite store. Chance is seeded: each run
writes the same.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import math
import re
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from storm_plot import Chart, Line, plot

from triage.alerts.delivery import Answer, Result
from triage.changes import Commit
from triage.cloud.fc_answers import AsyncConfig, Submitted, Task
from triage.decide import decide_batch
from triage.effects import decided
from triage.envelope import Destination, FunctionRef, parse_body
from triage.facts import arrival
from triage.outbox import Outbox
from triage.reruns.breaker import Tripping
from triage.reruns.budget import Allowance
from triage.reruns.gate import Safeguards
from triage.reruns.rate import Rate
from triage.rules.model import AlertPolicy, Place, RerunPolicy, Rule, RuleSet
from triage.states import State
from triage.stores.sqlite import SqliteStore
from triage.testing import ManualClock

PAGE = Path(__file__).parents[1] / "docs/explanation/retry-storm.md"
FUNCTION = FunctionRef("resize", "", "", "cn-hangzhou", "1034")
RERUN = RerunPolicy(max_attempts=3, give_up_after=timedelta(hours=6), after=timedelta(seconds=10))
RULES = RuleSet((Rule("again", Place("storm.yaml", 1), rerun=RERUN, alert=AlertPolicy()),), "storm")
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TICK = timedelta(seconds=0.5)

DEFAULT = Safeguards()
NO_RATE, NO_BUDGET = Rate(1e6, timedelta(0)), Allowance(1, 1e6, 1e6)
NO_BREAKER = Tripping(1_000_000_000, 1e9, timedelta(seconds=30), timedelta(minutes=10))
UNGUARDED = Safeguards(NO_RATE, NO_RATE, NO_BUDGET, NO_BREAKER)
BY_DEFAULT = "all, as they are by default"
GUARDS = {
    "no re-runs at all": Safeguards(NO_RATE, NO_RATE, Allowance(0, 0, 0), NO_BREAKER),
    "nothing": UNGUARDED,
    "rate only": Safeguards(DEFAULT.rate, DEFAULT.function_rate, NO_BUDGET, NO_BREAKER),
    "breaker only": Safeguards(NO_RATE, NO_RATE, NO_BUDGET, DEFAULT.breaker),
    "rate and breaker": Safeguards(DEFAULT.rate, DEFAULT.function_rate, NO_BUDGET, DEFAULT.breaker),
    "budget only": Safeguards(NO_RATE, NO_RATE, DEFAULT.budget, NO_BREAKER),
    BY_DEFAULT: DEFAULT,
}


@dataclass(frozen=True)
class Load:
    """First runs a second, and when there are more; all in seconds.

    Attributes:
        capacity: what the function's database can do a second.
        patience: who waits for it longer than this times out; the database does the work all the same.
        room: seconds of work that may wait; whoever comes then is refused at once.
    """

    usual: float = 16
    peak: float = 40
    begins: int = 120
    ends: int = 240
    length: int = 900
    capacity: float = 20
    patience: float = 5
    room: float = 10
    seed: int = 1

    def arrivals(self) -> Iterator[float]:
        """The instants of first runs: a Poisson process."""
        chance, at = Random(self.seed), 0.0
        while True:
            at += chance.expovariate(self.peak)
            if at >= self.length:
                return
            if self.begins <= at < self.ends or chance.random() < self.usual / self.peak:
                yield at


@dataclass
class Busy:
    """A function whose every execution asks one database, which works in the order of coming."""

    load: Load
    clock: ManualClock
    results: list[tuple[float, int, bytes, bool, bool]] = field(default_factory=list)
    done_at: float = 0.0  # when the database will have done all that waits
    first: Counter[int] = field(default_factory=Counter)  # submits, by the second
    again: Counter[int] = field(default_factory=Counter)
    taken: int = 0

    def run(self, at: float, payload: bytes, *, first: bool) -> str:
        self.taken += 1
        (self.first if first else self.again)[int(at)] += 1
        waits = max(self.done_at - at, 0.0)
        if waits < self.load.room:
            self.done_at = max(self.done_at, at) + 1 / self.load.capacity
        succeeds = waits <= self.load.patience
        ends = at + (0.0 if waits >= self.load.room else min(waits, self.load.patience)) + 0.1
        request_id = f"r-{self.taken}"
        heapq.heappush(self.results, (ends, self.taken, body(request_id, payload, succeeds), succeeds, first))
        return request_id

    def finished(self, until: float) -> Iterator[tuple[float, bytes, bool, bool]]:
        while self.results and self.results[0][0] <= until:
            at, _, told, succeeded, first = heapq.heappop(self.results)
            yield at, told, succeeded, first

    async def invoke_async(self, _function: FunctionRef, payload: bytes, *, task_id: str) -> Submitted:
        at = (self.clock.now() - START).total_seconds()
        return Submitted(self.run(at, payload, first=False), task_id, already=False)

    async def get_task(self, _function: FunctionRef, _task_id: str) -> Task | None:
        return None

    async def async_config(self, _function: FunctionRef) -> AsyncConfig:
        return AsyncConfig(async_task=True)


def body(request_id: str, payload: bytes, succeeded: bool) -> bytes:
    arn = f"acs:fc:{FUNCTION.region}:{FUNCTION.account}:functions/{FUNCTION.name}"
    condition = "" if succeeded else "InvocationError"
    message = {
        "requestContext": {"requestId": request_id, "functionArn": arn, "condition": condition},
        "requestPayload": payload.decode(),
        "responseContext": {"statusCode": 200, "functionError": condition},
        "responsePayload": "{}" if succeeded else '{"errorMessage": "the database timed out"}',
    }
    return json.dumps(message).encode()


class Silent:
    """A notifier that nobody hears."""

    async def send(self, _note: Any, *, skip: frozenset[str] = frozenset()) -> dict[str, Answer]:  # noqa: ARG002
        return {"nobody": Answer(Result.SENT, "nobody")}


@dataclass
class Story:
    """What happened; instants in seconds."""

    load: Load
    first: Counter[int]  # submits, by the second
    again: Counter[int]
    succeeded: Counter[int] = field(default_factory=Counter)  # first runs, by the second in which they ended
    last_failure: float = 0.0
    states: dict[str, int] = field(default_factory=dict)

    def amplification(self, begin: int = 0, end: int | None = None) -> float:
        """Submits for one first run, in some seconds."""
        seconds = range(begin, self.load.length if end is None else end)
        first, again = (sum(counted[second] for second in seconds) for counted in (self.first, self.again))
        return (first + again) / first

    @property
    def recovered_after(self) -> float | None:
        """From the end of the peak until no first run failed any more; None: they still do."""
        after = max(self.last_failure - self.load.ends, 0.0)
        return after if self.last_failure < self.load.length - 60 else None


async def simulate(load: Load, guards: Safeguards) -> Story:
    """One story, from an empty store."""
    clock = ManualClock(START)
    function = Busy(load, clock)
    story = Story(load, function.first, function.again)
    with tempfile.TemporaryDirectory() as folder:
        store = await SqliteStore.open(Path(folder) / "triage.db")
        outbox = Outbox(store=store, invoker=function, notifier=Silent(), clock=clock, guards=guards)
        await store.slow_start(now=START)
        coming, number = load.arrivals(), 0
        ahead = next(coming, math.inf)
        while (now := (clock.now() - START).total_seconds()) < load.length:
            while ahead <= now:
                number += 1
                function.run(ahead, b'{"picture": %d}' % number, first=True)
                ahead = next(coming, math.inf)
            await take_in(store, function, story, clock.now())
            while rows := await store.claim_due(now=clock.now(), lease=timedelta(minutes=2), limit=200):
                await asyncio.gather(*(act(store, outbox, row, clock.now()) for row in rows))
            await clock.advance(TICK)
        await store.close()
        with closing(sqlite3.connect(Path(folder) / "triage.db")) as file:
            story.states = dict(file.execute("SELECT state, count(*) FROM lineages GROUP BY state"))
    return story


async def take_in(store: SqliteStore, function: Busy, story: Story, now: datetime) -> None:
    """What the consumer does with a batch, without the queue."""
    batch = []
    for at, told, succeeded, first in function.finished((now - START).total_seconds()):
        if first and succeeded:
            story.succeeded[int(at)] += 1
        elif first:
            story.last_failure = at
        destination = Destination.SUCCESS if succeeded else Destination.FAILURE
        envelope = parse_body(told, destination=destination)
        batch.append(
            arrival(envelope, source="storm", message_id=envelope.request_id, received_at=now, enqueued_at=now)
        )
    decisions = decide_batch(batch, await store.load_facts(batch), RULES, now=now)
    pairs = zip(batch, decisions, strict=True)
    await store.commit(Commit(now=now, rule_set=RULES.digest, decided=tuple(decided(a, d) for a, d in pairs)))


async def act(store: SqliteStore, outbox: Outbox, row: Any, now: datetime) -> None:
    """What the outbox does with a row that it has claimed."""
    if (react := await outbox.react(row)) is not None:
        await store.settle(row, react, now=now)


def table(stories: dict[str, Story]) -> str:
    """The figures, as Markdown."""
    head = (
        "what bounds the re-runs", "submits for one first run", "the same in the minute after the peak",
        "first runs succeed again", "failures healed", "waiting for their re-run", "given up and told",
    )  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, story in stories.items():
        end = story.load.ends
        recovered = story.recovered_after
        states = story.states
        waiting = states.get(State.RERUN_PENDING, 0) + states.get(State.RERUNNING, 0)
        told = sum(states.get(state, 0) for state in (State.ALERTING, State.ALERTED))
        lines.append(
            f"| {name} | {story.amplification():.2f} | {story.amplification(end, end + 60):.2f} "
            f"| {'never' if recovered is None else f'after {recovered:.0f} s'} "
            f"| {states.get(State.HEALED, 0):,} | {waiting:,} | {told:,} |"
        )
    return "\n".join(lines)


def charts(stories: dict[str, Story], step: int = 10) -> list[Chart]:
    """Submits a second, and first runs that succeed a second, without bounds and with those that are the default."""
    unbound, bound = stories["nothing"], stories[BY_DEFAULT]

    def rate(*counted: Counter[int]) -> list[float]:
        both = sum(counted, Counter())
        return [sum(both[at + each] for each in range(step)) / step for at in range(0, bound.load.length, step)]

    above = [
        Line("without bounds", rate(unbound.first, unbound.again), "red"),
        Line("default bounds", rate(bound.first, bound.again), "blue"),
        Line("first runs alone", rate(bound.first), "grey"),
    ]
    below = [
        Line("without bounds", rate(unbound.succeeded), "red"),
        Line("default bounds", rate(bound.succeeded), "blue"),
    ]
    return [
        Chart("Submits a second: first runs and re-runs", above, (bound.load.capacity, "capacity")),
        Chart("First runs that succeed, a second", below),
    ]


async def main() -> None:
    load = Load()
    stories = {}
    for name, guards in GUARDS.items():
        stories[name] = await simulate(load, guards)
        print(f"{name}: {stories[name].amplification():.2f} submits for one first run", flush=True)
    figures = table(stories)
    drawn = plot(charts(stories), seconds=load.length, peak=(load.begins, load.ends))
    PAGE.with_suffix(".svg").write_text(drawn)
    page = PAGE.read_text()
    marks = r"(?s)(<!-- figures: benchmarks/retry_storm.py -->\n).*?(<!-- end of figures -->)"
    PAGE.write_text(re.sub(marks, lambda found: f"{found[1]}\n{figures}\n\n{found[2]}", page))


if __name__ == "__main__":
    asyncio.run(main())
