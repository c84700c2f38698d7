"""The receiving loop on a queue and a store in memory, with a clock that moves when told."""

import asyncio
import logging
from contextlib import asynccontextmanager
from datetime import timedelta

import make
import pytest

from triage.consumer import Consumer, Intake
from triage.errors import Misconfigured, StoreConflict, StoreUnavailable, Temporary
from triage.progress import Work
from triage.rules.model import AlertPolicy, SourceText
from triage.rules.source import load_rules
from triage.stores import FailureFilter
from triage.testing import FakeSource, ManualClock, MemoryStore

SECOND = timedelta(seconds=1)
LEASE = 30 * SECOND
RULES = make.rules(make.rule("again", rerun=make.RERUN, alert=make.ALERT, fn="my-fc-job"))


class Gate(MemoryStore):
    """A store whose commits wait until it is opened. Counts what it committed."""

    def __init__(self, *, is_open=False):
        super().__init__()
        self.opened, self.committing, self.commits = asyncio.Event(), 0, []
        if is_open:
            self.opened.set()

    async def commit(self, batch):
        self.committing += 1
        await self.opened.wait()
        await super().commit(batch)
        self.commits.append(len(batch.decided) + len(batch.duplicates) + len(batch.conflicts) + len(batch.quarantined))


class SlowAck(FakeSource):
    """A queue whose acknowledgements wait until it is told, or fail with the next of ``ack_failures``."""

    def __init__(self, **options):
        super().__init__(**options)
        self.acking, self.answered, self.ack_failures = asyncio.Event(), asyncio.Event(), []

    async def ack(self, deliveries):
        self.acking.set()
        if self.ack_failures:
            raise self.ack_failures.pop(0)
        await self.answered.wait()
        return await super().ack(deliveries)


class World:
    """A queue, a store and a clock; `running` puts a consumer between them."""

    def __init__(self, *, store=None, source=None):
        self.clock = ManualClock(make.NOW)
        self.store = store or MemoryStore()
        self.source = source(clock=self.clock, lease=LEASE) if source else FakeSource(clock=self.clock, lease=LEASE)
        self.stop = asyncio.Event()
        self.task = self.consumer = None
        self.work = Work()

    @asynccontextmanager
    async def running(self, *more, receivers=1, limit=16, rules=RULES, **options):
        """Consume inside the block, and stop at its end; everything must come to an end by itself then."""
        intakes = [Intake(source, receivers, limit) for source in (self.source, *more)]
        self.consumer = Consumer(
            intakes, store=self.store, rules=lambda: rules, clock=self.clock, work=self.work, **options
        )
        self.task = asyncio.create_task(self.consumer.run(self.stop))
        try:
            await self.clock.advance(timedelta(0))
            yield self
            self.stop.set()
            await asyncio.wait_for(self.task, 10)
        finally:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    async def after(self, seconds=0.0):
        await self.clock.advance(seconds * SECOND)

    async def until(self, true):
        async with asyncio.timeout(10):
            while not true():
                await self.after()

    def sums(self):
        counters = self.store.tables.counters
        assert counters["received"] == sum(counters[n] for n in ("decided", "duplicates", "conflicts", "quarantined"))
        return {
            name: counters[name] for name in ("decided", "duplicates", "conflicts", "quarantined") if counters.get(name)
        }


def bodies(number, prefix="r"):
    return [make.body(f"{prefix}{position}") for position in range(number)]


# ---------------------------------------------------------------- commit, then ack


def test_nothing_is_acknowledged_before_it_is_committed():
    async def scenario():
        world = World(store=Gate())
        async with world.running() as w:
            ids = w.source.put(*bodies(3))
            await w.after(5)
            assert w.store.committing == 1
            assert w.source.acks == 0
            assert w.consumer.oldest("fake") == make.NOW
            w.store.opened.set()
            await w.after()
            assert w.source.acked == ids
            assert w.consumer.oldest("fake") is None
            assert (w.work.commits, w.work.messages, w.work.seconds) == (1, 3, 5)
            assert w.work.decisions == {("again", "matched"): 3}
            assert w.sums() == {"decided": 3}

    asyncio.run(scenario())


def test_a_failing_store_acknowledges_nothing_and_says_so_until_it_is_back(caplog):
    async def scenario():
        world = World()
        world.store.unavailable = "the disk is full"
        async with world.running() as w:
            ids = w.source.put(*bodies(3))
            await w.after(120)
            assert w.source.acks == 0
            assert w.source.waiting == ids
            w.store.unavailable = ""
            await w.after(31)
            assert w.source.acked == ids
            assert w.sums() == {"decided": 3}

    asyncio.run(scenario())
    told = [r for r in caplog.records if "nothing is acknowledged" in r.message]
    assert 4 <= len(told) <= 10, "it says so again and again, but slower and slower"
    assert all(r.levelno == logging.ERROR and "the disk is full" in r.message for r in told)


def test_what_somebody_else_decided_first_is_decided_again():
    class Contended(MemoryStore):
        """Another process commits the same batch just before we do."""

        rival = True

        async def commit(self, batch):
            if self.rival:
                self.rival = False
                await super().commit(batch)
            await super().commit(batch)

    async def scenario():
        async with World(store=Contended()).running() as w:
            ids = w.source.put(*bodies(2))
            await w.after()
            assert w.source.acked == ids
            assert w.sums() == {"decided": 2, "duplicates": 2}
            assert len(w.store.tables.outbox) == 2

    asyncio.run(scenario())


def test_conflicts_without_end_are_paced_and_told(caplog):
    class Contended(MemoryStore):
        tries = 0

        async def commit(self, batch):
            self.tries += 1
            if self.tries <= 25:
                raise StoreConflict("somebody else was faster")
            await super().commit(batch)

    async def scenario():
        async with World(store=Contended()).running() as w:
            ids = w.source.put(make.body())
            await w.after()
            assert w.store.tries == 10
            await w.after(2)
            assert w.source.acked == ids

    asyncio.run(scenario())
    assert [r.levelname for r in caplog.records if "changed" in r.message] == ["WARNING", "WARNING"]


def test_everything_in_one_batch_ends_as_what_it_is(caplog):
    async def scenario():
        world = World(store=Gate(is_open=True))
        world.source.put(
            make.body("r1"), make.body("r1"), make.body("r1", payload="other"), b"garbage", make.body("r2")
        )
        world.source.put(make.body("r3"), body_md5="0" * 32)
        world.source.put(b"<Message>...", unreadable="no ReceiptHandle")
        quarantine = AlertPolicy(group_by=("fingerprint",), group_wait=SECOND)
        async with world.running(quarantine=quarantine) as w:
            await w.after()
            assert w.source.waiting == []
            assert w.store.commits == [7]
            assert w.sums() == {"decided": 2, "duplicates": 1, "conflicts": 1, "quarantined": 3}
            kept = await w.store.quarantined(limit=10)
            assert [(row.reason, row.detail) for row in kept if row.reason == "unreadable"] == [
                ("unreadable", "no ReceiptHandle")
            ]
            assert {row.reason: row.body for row in kept} == {
                "unreadable": b"<Message>...",
                "md5_mismatch": make.body("r3"),
                "not_base64": b"garbage",
            }
            assert len(w.store.tables.alert_groups) == 3
            (conflict,) = (await w.store.failure("r1")).conflicts
            assert '"other"' in conflict["body"]

    asyncio.run(scenario())
    assert any("request r1 came again with another body" in r.message for r in caplog.records)


def test_without_a_quarantine_policy_nobody_is_told_of_what_was_kept():
    async def scenario():
        async with World().running() as w:
            w.source.put(b"garbage")
            await w.after()
            assert w.sums() == {"quarantined": 1}
            assert w.store.tables.alerts == {}

    asyncio.run(scenario())


def test_each_commit_wakes_the_outbox():
    async def scenario():
        woken = []
        world = World(store=Gate(is_open=True))
        async with world.running(committed=lambda: woken.append(len(world.store.commits))) as w:
            w.source.put(make.body("r1"))
            await w.after()
            w.source.put(make.body("r2"))
            await w.after()
        assert woken == [1, 2], "after the commit, not before"

    asyncio.run(scenario())


# ---------------------------------------------------------------- batches and back-pressure


def test_what_arrives_during_a_commit_is_committed_together():
    async def scenario():
        async with World(store=Gate()).running(receivers=4) as w:
            ids = w.source.put(*bodies(16))
            await w.after()
            ids += w.source.put(*bodies(150, "more"))
            await w.after()
            w.store.opened.set()
            await w.after()
            assert w.store.commits == [16, 150]
            assert sorted(w.source.acked) == sorted(ids)

    asyncio.run(scenario())


@pytest.mark.parametrize(("receivers", "limit", "batch"), [(3, 4, 32), (1, 256, 256), (4, 16, 64), (2, 16, 5)], ids=str)
def test_a_blocked_store_stops_the_receivers_asking(receivers, limit, batch):
    async def scenario():
        async with World(store=Gate()).running(receivers=receivers, limit=limit, batch=batch) as w:
            ids = w.source.put(*bodies(1000))
            await w.after(1)
            asked = w.source.receives
            held = sum(message.received for message in w.source._messages.values())
            assert held <= batch + batch + receivers * limit, "in the commit, in the queue, with the receivers"
            await w.after(8)
            assert w.source.receives == asked
            w.store.opened.set()
            await w.until(lambda: not w.source.waiting)
            assert sorted(w.source.acked) == sorted(ids)
            assert w.sums() == {"decided": 1000}
            assert max(w.store.commits) <= batch

    asyncio.run(scenario())


def test_acknowledgements_that_hang_stop_the_receivers_asking_too():
    async def scenario():
        async with World(store=Gate(is_open=True), source=SlowAck).running(limit=1, batch=16) as w:
            ids = w.source.put(*bodies(300))
            await w.after(1)
            committed = len(w.store.commits)
            assert committed <= 4 + 1
            await w.after(10)
            assert len(w.store.commits) == committed
            w.source.answered.set()
            await w.until(lambda: not w.source.waiting)
            assert sorted(w.source.acked) == sorted(ids)
            assert w.sums() == {"decided": 300}

    asyncio.run(scenario())


# ---------------------------------------------------------------- leases


def test_a_slow_batch_is_extended_at_a_third_of_its_lease_and_never_comes_again():
    async def scenario():
        async with World(store=Gate()).running() as w:
            ids = w.source.put(*bodies(3))
            await w.after(9.9)
            assert w.source.extends == 0
            await w.after(0.1)
            assert w.source.extends == 3
            await w.after(300)
            assert 3 * 30 <= w.source.extends <= 3 * 31
            w.store.opened.set()
            await w.after()
            assert w.source.acked == ids
            assert w.sums() == {"decided": 3}

    asyncio.run(scenario())


def test_nothing_is_extended_once_its_acknowledgement_has_begun():
    async def scenario():
        async with World(source=SlowAck).running() as w:
            w.source.put(make.body())
            await asyncio.wait_for(w.source.acking.wait(), 5)
            await w.after(25)
            assert w.source.extends == 0
            w.source.answered.set()
            await w.after()
            assert w.source.waiting == []

    asyncio.run(scenario())


def test_what_is_acknowledged_during_a_renewal_is_not_renewed_any_more():
    class Slow(FakeSource):
        def __init__(self, **options):
            super().__init__(**options)
            self.renewing = asyncio.Event()

        async def extend(self, delivery, by):
            await self.renewing.wait()
            return await super().extend(delivery, by)

    async def scenario():
        async with World(store=Gate(), source=Slow).running() as w:
            ids = w.source.put(*bodies(40))
            await w.after(11)
            w.store.opened.set()
            await w.after()
            assert sorted(w.source.acked) == sorted(ids)
            w.source.renewing.set()
            await w.after()
            assert w.source.extends == 16, "those that were on the wire already"

    asyncio.run(scenario())


def test_a_lease_that_is_lost_is_given_up():
    async def scenario():
        async with World(store=Gate()).running() as w:
            w.source.put(make.body())
            await w.after()
            w.source._messages.clear()  # somebody purged the queue
            await w.after(120)
            assert w.source.extends == 1
            w.store.opened.set()
            await w.after()
            assert w.sums() == {"decided": 1}

    asyncio.run(scenario())


def test_a_source_that_hangs_does_not_cost_another_one_its_leases():
    class Hanging(FakeSource):
        async def extend(self, delivery, by):
            self.extends += 1
            await asyncio.Event().wait()

    async def scenario():
        world = World(store=Gate(), source=Hanging)
        healthy = FakeSource(clock=world.clock, lease=LEASE)
        async with world.running(healthy) as w:
            w.source.put(*bodies(2))
            await w.after()
            ids = healthy.put(*bodies(40, "healthy"))
            await w.after(120)
            assert w.source.extends == 2
            assert healthy.extends == 40 * 12
            w.store.opened.set()
            await w.until(lambda: healthy.acked)
            assert healthy.acked == ids

    asyncio.run(scenario())


def test_a_lost_acknowledgement_is_a_later_duplicate_without_effects(caplog):
    async def scenario():
        async with World(source=SlowAck).running() as w:
            w.source.answered.set()
            w.source.ack_failures = [Temporary("connection_lost")]
            ids = w.source.put(make.body())
            await w.after(29)
            assert w.source.waiting == ids
            effects = dict(w.store.tables.outbox)
            assert len(effects) == 1
            await w.after(2)
            assert w.source.acked == ids
            assert w.sums() == {"decided": 1, "duplicates": 1}
            assert w.store.tables.outbox == effects

    asyncio.run(scenario())
    assert any(
        "1 messages are not acknowledged and will come again: connection_lost" in r.message for r in caplog.records
    )


# ---------------------------------------------------------------- errors of a source


@pytest.mark.parametrize(
    ("errors", "asked_at"),
    [
        ([Temporary("throttled", retry_after=7 * SECOND)], [0, 7]),
        ([Temporary("no_answer")] * 7, [0, 1, 3, 7, 15, 31, 61, 91]),
        ([Misconfigured("QueueNotExist")] * 2, [0, 30, 60]),
    ],
    ids=["as the queue wishes", "longer and longer up to half a minute", "slowly when a person must act"],
)
def test_a_source_in_trouble_is_left_alone_for_a_while(errors, asked_at, caplog):
    async def scenario():
        world = World()
        world.source.failures = list(errors)
        ids = world.source.put(make.body())
        async with world.running() as w:
            seen = [0]
            for second in range(1, asked_at[-1] + 1):
                before = w.source.receives
                await w.after(1)
                if w.source.receives > before:
                    seen.append(second)
            assert seen == asked_at
            assert w.source.acked == ids

    asyncio.run(scenario())
    assert len([r for r in caplog.records if "asking again in" in r.message]) == 1, "the same again is no news"


def test_the_patience_with_a_source_starts_anew_after_a_success():
    async def scenario():
        world = World()
        world.source.failures = [Temporary("no_answer")] * 3
        async with world.running() as w:
            await w.after(7)
            w.source.put(make.body())
            await w.after()
            w.source.failures = [Temporary("no_answer")]
            await w.after(30)  # the long poll under way ends, the next one fails
            asked = w.source.receives
            await w.after(1)
            assert w.source.receives == asked + 1

    asyncio.run(scenario())


def test_a_queue_that_was_away_for_very_long_is_still_asked(caplog):
    async def scenario():
        world = World()
        world.source.failures = [Temporary("throttled", retry_after=SECOND / 1000)] * 1100 + [Temporary("no_answer")]
        async with world.running() as w:
            ids = w.source.put(make.body())
            await w.after(2 + 30)
            assert w.source.acked == ids

    with caplog.at_level(logging.CRITICAL):
        asyncio.run(scenario())


def test_several_sources_are_each_acknowledged_where_they_are_from():
    async def scenario():
        world = World(store=Gate())
        other = FakeSource(clock=world.clock, name="other")
        broken = SlowAck(clock=world.clock, name="broken")
        broken.ack_failures = [Misconfigured("access_denied")]
        async with world.running(broken, other) as w:
            ids = [source.put(*bodies(3, source.name)) for source in (w.source, other, broken)]
            await w.after()
            w.store.opened.set()
            await w.after()
            assert [w.source.acked, other.acked] == ids[:2]
            assert broken.waiting == ids[2]
            rows = await w.store.failures(FailureFilter())
            sources = {(await w.store.failure(row.request_id)).envelope["source"] for row in rows}
            assert sources == {"fake", "other", "broken"}

    asyncio.run(scenario())


def test_one_source_in_trouble_does_not_hold_up_another():
    async def scenario():
        world = World()
        world.source.failures = [Misconfigured("QueueNotExist")]
        healthy = FakeSource(clock=world.clock, name="healthy")
        async with world.running(healthy) as w:
            ids = healthy.put(*bodies(3))
            await w.after()
            assert healthy.acked == ids
            assert w.source.receives == 1

    asyncio.run(scenario())


def test_acknowledgements_that_hang_do_not_hold_up_those_of_another_source():
    async def scenario():
        world = World(store=Gate(), source=SlowAck)
        healthy = FakeSource(clock=world.clock)
        async with world.running(healthy) as w:
            w.source.put(make.body("r1"))
            ids = healthy.put(make.body("r2"))
            await w.after()
            w.store.opened.set()
            await w.after()
            assert w.source.acking.is_set()
            assert healthy.acked == ids
            w.source.answered.set()

    asyncio.run(scenario())


def test_a_defect_of_a_source_is_not_passed_over():
    class Defective(FakeSource):
        async def receive(self, *, limit, wait):
            raise KeyError("a defect")

    async def scenario():
        world = World(source=Defective)
        with pytest.raises(ExceptionGroup) as caught:
            async with world.running():
                pass
        assert caught.group_contains(KeyError)

    asyncio.run(scenario())


def test_a_defect_of_an_acknowledgement_is_not_passed_over():
    class Defective(FakeSource):
        async def ack(self, deliveries):
            raise KeyError("a defect")

    async def scenario():
        world = World(source=Defective)
        world.source.put(make.body())
        with pytest.raises(ExceptionGroup) as caught:
            async with world.running() as w:
                await w.after()
        assert caught.group_contains(KeyError)

    asyncio.run(scenario())


# ---------------------------------------------------------------- rules


def test_a_rule_that_cannot_be_evaluated_does_not_match_and_is_told(caplog):
    rules = load_rules(
        [
            SourceText(
                "r.yaml",
                """\
version: 1
rules:
  - {id: broken, when: payload.no.such.key > 1, ignore: because}
  - {id: sound, alert: {to: default}}
""",
            )
        ]
    )

    async def scenario():
        async with World().running(rules=rules) as w:
            ids = w.source.put(make.body("r1"))
            await w.after()
            assert w.source.acked == ids
            detail = await w.store.failure("r1")
            assert (detail.decision["reason"], detail.decision["rule_id"]) == ("matched", "sound")
            assert detail.decision["rule_set"] == rules.digest

    asyncio.run(scenario())
    (told,) = [r.message for r in caplog.records if "could not be evaluated" in r.message]
    assert told.startswith("rule broken: when: payload.no.such.key > 1")


# ---------------------------------------------------------------- coming to an end


def test_a_stop_abandons_a_long_poll_at_once():
    async def scenario():
        async with World().running(receivers=4) as w:
            await w.after(1)
            assert w.source.receives == 4
            w.stop.set()
            await asyncio.wait_for(w.task, 10)
            assert w.clock.timers == [], "nothing waits any more, and the clock did not move"

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [Temporary("no_answer", retry_after=600 * SECOND), Misconfigured("QueueNotExist")])
def test_a_stop_ends_the_pause_after_an_error(error):
    async def scenario():
        world = World()
        world.source.failures = [error]
        async with world.running() as w:
            w.stop.set()
            await asyncio.wait_for(w.task, 10)
            assert w.clock.now() == make.NOW

    asyncio.run(scenario())


def test_a_stop_finishes_what_was_received_and_leaves_the_rest():
    async def scenario():
        async with World(store=Gate()).running(limit=4, batch=16) as w:
            ids = w.source.put(*bodies(40))
            await w.after()
            w.stop.set()
            await w.after()
            assert not w.task.done()
            w.store.opened.set()
            await asyncio.wait_for(w.task, 10)
            # One group in the commit, one in the queue, one with the receiver.
            assert w.source.acked == ids[:12]
            assert w.source.waiting == ids[12:]
            assert w.sums() == {"decided": 12}

    asyncio.run(scenario())


def test_a_stop_waits_for_the_acknowledgements_under_way():
    async def scenario():
        async with World(source=SlowAck).running() as w:
            ids = w.source.put(make.body())
            await asyncio.wait_for(w.source.acking.wait(), 5)
            w.stop.set()
            await w.after()
            assert not w.task.done()
            w.source.answered.set()
            await asyncio.wait_for(w.task, 10)
            assert w.source.acked == ids

    asyncio.run(scenario())


@pytest.mark.parametrize("at", ["commit", "ack"])
def test_cancelling_loses_nothing_and_leaves_nothing_running(at):
    async def scenario():
        world = World(store=Gate(is_open=at == "ack"), source=SlowAck)
        ids = world.source.put(*bodies(3))
        async with world.running() as w:
            await w.after()
            w.task.cancel()
            await asyncio.gather(w.task, return_exceptions=True)
            assert w.task.cancelled()
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert w.source.waiting == ids
            w.task = asyncio.create_task(asyncio.sleep(0))
        world.store.opened.set()
        world.source.answered.set()
        world.stop = asyncio.Event()
        async with world.running() as w:
            await w.after(31)
            assert sorted(w.source.acked) == sorted(ids)
            expected = {"decided": 3} if at == "commit" else {"decided": 3, "duplicates": 3}
            assert w.sums() == expected

    asyncio.run(scenario())


def test_a_store_that_fails_for_good_leaves_everything_in_the_queue():
    class Dead(MemoryStore):
        async def load_facts(self, arrivals, **_):
            raise StoreUnavailable("no such device")

    async def scenario():
        world = World(store=Dead())
        ids = world.source.put(*bodies(3))
        async with world.running() as w:
            w.stop.set()
            await w.after(60)
            assert not w.task.done(), "whoever wants to end it must cancel it"
            w.task.cancel()
            await asyncio.gather(w.task, return_exceptions=True)
            w.task = asyncio.create_task(asyncio.sleep(0))
        assert world.source.waiting == ids

    asyncio.run(scenario())


# ---------------------------------------------------------------- what deciding knows


RATED = """\
version: 1
rules:
  - {id: media, match: {labels: {team: media}}, when: group.rate_5m >= 0.4, ignore: many}
  - {id: rest, alert: {}}
"""


def test_rules_see_labels_and_rates_and_a_decision_keeps_them():
    rules = load_rules([SourceText("r.yaml", RATED)])
    asked = []

    def labels(function):
        asked.append(function)
        return {"team": "media"}

    async def scenario():
        async with World().running(rules=rules, labels=labels, receivers=1, limit=1) as w:
            w.source.put(*bodies(4))
            await w.after()
            details = [await w.store.failure(f"r{number}") for number in range(4)]
            assert [detail.row.rule_id for detail in details] == ["rest", "rest", "media", "media"]
            assert details[3].decision["facts"]["labels"] == {"team": "media"}
            assert details[3].decision["facts"]["group"]["recent"] == [3.0, 3.0, 3.0, 3.0]

    asyncio.run(scenario())
    assert set(asked) == {"my-fc-job"}


def test_rates_are_not_read_when_no_rule_mentions_them():
    class Asked(MemoryStore):
        rates: set

        async def load_facts(self, arrivals, *, rates_at=None, **how):
            self.rates = {rates_at}
            return await super().load_facts(arrivals, rates_at=rates_at, **how)

    async def scenario():
        async with World(store=Asked()).running() as w:
            w.source.put(*bodies(2))
            await w.after()
            assert w.store.rates == {None}
            assert "recent" not in str((await w.store.failure("r1")).decision["facts"])

    asyncio.run(scenario())


def test_a_message_that_cannot_be_read_is_quarantined_and_told_once_however_often_it_comes():
    async def scenario():
        async with World(source=SlowAck).running(quarantine=AlertPolicy()) as w:
            w.source.answered.set()
            w.source.ack_failures.append(Temporary("timeout"))
            w.source.put(b"garbage")
            await w.after(2 * LEASE.total_seconds())
            assert w.sums() == {"quarantined": 1, "duplicates": 1}
            assert len(w.store.tables.quarantine) == len(w.store.tables.alerts) == 1
            w.source.put(b"garbage")
            await w.after()
            assert w.sums() == {"quarantined": 2, "duplicates": 1}, "another message, though with the same bytes"

    asyncio.run(scenario())
