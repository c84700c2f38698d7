"""Everything hostile goes through the whole daemon's loops: it stays alive, nothing is lost, nothing unsafe is told."""

import asyncio
import logging
import unicodedata
from contextlib import asynccontextmanager
from datetime import timedelta

import hostile
import make
import pytest

from triage.alerts.delivery import Answer, Result
from triage.clock import SystemClock
from triage.consumer import Consumer, Intake
from triage.decide import decide
from triage.envelope import parse_body
from triage.errors import InvalidEnvelope
from triage.outbox import Outbox
from triage.rules.model import AlertPolicy, SourceText
from triage.rules.source import load_rules
from triage.stores import FailureFilter
from triage.stores.decisions import recall
from triage.stores.sqlite import SqliteStore
from triage.testing import FakeFunctions, FakeSource, MemoryStore

RULES = load_rules(
    [
        SourceText(
            "rules.yaml",
            """
version: 1
defaults: {alert: {group_wait: 0s, group_by: [function, fingerprint, error_message, condition]}}
rules:
  - {id: pattern, match: {error: {message: '/^(a+)+$|(\\w+-?)+!/'}}, alert: {}}
  - {id: event, match: {payload: {n: 1, a.b.c: [x, '/(x+)+y/', {not: z}]}}, alert: {}}
  - {id: large, when: 'payload == payload && has(payload.k1)', alert: {}}
  - {id: loop, when: "payload.all(p, payload.exists(q, string(p) == 'x' || has(q.a)))", alert: {}}
  - {id: again, match: {condition: InvocationError, region: cn-*}, rerun: {after: 1h, max_attempts: 2}, alert: {on: failed}}
  - {id: any, alert: {}}
""",
        )
    ]
)


class Watched(FakeSource):
    """Says when nothing waits any longer."""

    def __init__(self, **options):
        super().__init__(**options)
        self.empty = asyncio.Event()

    async def ack(self, deliveries):
        gone = await super().ack(deliveries)
        if not self.waiting:
            self.empty.set()
        return gone


class Bell:
    """Remembers what it delivered; ``enough`` is set when a group with this word was among it."""

    def __init__(self, word):
        self.told, self.word, self.enough = [], word, asyncio.Event()

    async def send(self, note, *, skip=frozenset()):
        self.told.append(note)
        if self.word in note.body:
            self.enough.set()
        return {"0": Answer(Result.SENT)}


@asynccontextmanager
async def memory(_folder):
    yield MemoryStore()


@asynccontextmanager
async def sqlite(folder):
    store = await SqliteStore.open(folder / "triage.db")
    try:
        yield store
    finally:
        await store.close()


def is_envelope(raw):
    try:
        parse_body(raw)
    except InvalidEnvelope:
        return False
    return True


def unsafe(text):
    return {char for char in text if unicodedata.category(char)[0] == "C"} - {"\n"}


@pytest.mark.parametrize("kind", [memory, sqlite])
def test_all_hostile_bodies_are_stored_or_quarantined_and_told(kind, tmp_path, caplog):
    bodies = list(hostile.BODIES.values())
    good = [raw for raw in bodies if is_envelope(raw)]
    ids = {parse_body(raw).request_id for raw in good}

    async def scenario():
        clock = SystemClock()
        source = Watched(clock=clock)
        bell = Bell("after all the others")
        async with kind(tmp_path) as store:
            await store.save_rule_set(RULES.digest, RULES.sources, now=clock.now())
            outbox = Outbox(store=store, invoker=FakeFunctions(clock, source), notifier=bell, clock=clock)
            consumer = Consumer(
                [Intake(source, receivers=2)],
                store=store,
                rules=lambda: RULES,
                clock=clock,
                committed=outbox.poke,
                quarantine=AlertPolicy(group_wait=timedelta(0)),
            )
            stop = asyncio.Event()
            async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
                tasks.create_task(consumer.run(stop))
                tasks.create_task(outbox.run(stop))
                source.put(*bodies, *bodies)
                await source.empty.wait()
                source.put(make.body("last", condition="Other", error="after all the others"))
                await bell.enough.wait()
                stop.set()

            totals = await store.totals()
            assert totals.received == 2 * len(bodies) + 1
            assert totals.decided == len(ids) + 1
            assert totals.quarantined == 2 * (len(bodies) - len(good))
            assert totals.duplicates + totals.conflicts == 2 * len(good) - len(ids)
            assert totals.received == totals.decided + totals.duplicates + totals.conflicts + totals.quarantined

            listed = await store.failures(FailureFilter(limit=1000))
            assert totals.failures == len(listed) == sum(totals.states.values())
            for row in listed:
                detail = await store.failure(row.request_id)
                arrival, facts, now = recall(detail)
                again = decide(arrival, facts, RULES, now=now)
                assert (again.reason, again.rule.id) == (row.reason, row.rule_id), (
                    "what was decided can be decided again"
                )
            assert len(await store.quarantined(limit=1000)) == totals.quarantined

        assert len({note.title for note in bell.told}) > 20
        assert {note.receiver for note in bell.told} == {"default"}
        for note in bell.told:
            assert not unsafe(note.title + note.body)
            assert len(note.body) < 4_000

    with caplog.at_level(logging.DEBUG):
        asyncio.run(scenario())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
