"""The acting loop on a store and functions in memory, with a clock that moves when told."""

import asyncio
import logging
from collections import Counter, deque
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import make
import pytest

from triage.alerts.delivery import Answer, Result, Retries
from triage.changes import Commit, RowKind
from triage.cloud.fc_answers import Task
from triage.consumer import Consumer, Intake
from triage.decide import decide_batch
from triage.effects import decided
from triage.envelope import Destination
from triage.errors import Misconfigured, OutcomeUnknown, Permanent, StoreUnavailable, Temporary
from triage.outbox import Outbox
from triage.progress import Work
from triage.reruns.lineage import task_id
from triage.reruns.switches import Scope, Switch
from triage.rules.course import ONE_BY_ONE, Course
from triage.rules.model import AlertPolicy, Cause, RerunPolicy
from triage.states import State
from triage.testing import FakeFunctions, FakeSource, ManualClock, MemoryStore

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
LEASE = timedelta(minutes=2)
TASK = task_id("r1", 1)
TELL = AlertPolicy(group_wait=10 * SECOND, group_interval=60 * SECOND)
RERUN = RerunPolicy(
    max_attempts=2, give_up_after=timedelta(hours=1), after=5 * SECOND, jitter=0.0, expect_within=timedelta(minutes=10)
)


def again(**changes):
    policy = RerunPolicy(**({name: getattr(RERUN, name) for name in RERUN.__slots__} | changes))
    quiet = AlertPolicy(on=make.QUIET, group_wait=TELL.group_wait, group_interval=TELL.group_interval)
    return make.rules(make.rule("again", rerun=policy, alert=quiet))


class Functions(FakeFunctions):
    """Also fails questions, loses answers, and counts both."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.answers_lost, self.question_failures = 0, deque()
        self.submits, self.questions = [], []

    async def invoke_async(self, function, payload, *, task_id):
        self.submits.append(self.clock.now())
        answer = await super().invoke_async(function, payload, task_id=task_id)
        if self.answers_lost:
            self.answers_lost -= 1
            raise OutcomeUnknown("no_answer")
        return answer

    async def get_task(self, function, task_id):
        self.questions.append(self.clock.now())
        if self.question_failures and (error := self.question_failures.popleft()):
            raise error
        return await super().get_task(function, task_id)

    def say(self, status, task=TASK):
        self._tasks[task] = Task(task, "fake-1", status)


class Phone:
    """A receiver that answers with the next of ``answers``, else takes everything."""

    def __init__(self, clock):
        self.clock, self.answers, self.calls, self.notes = clock, deque(), [], []

    async def send(self, note, *, skip=frozenset()):
        self.calls.append((self.clock.now(), note.receiver, sorted(skip)))
        answer = self.answers.popleft() if self.answers else {"1": Result.SENT}
        if Result.SENT in answer.values():
            self.notes.append(note)
        return {
            key: each if isinstance(each, Answer) else Answer(each, f"target {key}") for key, each in answer.items()
        }


class World:
    def __init__(self, rules=None, *, store=None, **functions):
        self.rules = rules or again()
        self.clock = ManualClock(make.NOW)
        self.store = store or MemoryStore()
        self.source = FakeSource(clock=self.clock)
        self.functions = Functions(self.clock, self.source, **functions)
        self.phone = Phone(self.clock)
        self.outbox = self.task = None
        self.work = Work()
        self.stop = asyncio.Event()

    async def fail(self, *request_ids, **fields):
        """Failures arrive, are decided and stored."""
        await self.store_arrivals(*(make.envelope(request_id, **fields) for request_id in request_ids))

    async def store_arrivals(self, *envelopes):
        now = self.clock.now()
        arrivals = [make.arrived(envelope, at=now) for envelope in envelopes]
        decisions = decide_batch(arrivals, await self.store.load_facts(arrivals), self.rules, now=now)
        both = zip(arrivals, decisions, strict=True)
        await self.store.commit(Commit(now, self.rules.digest, tuple(decided(a, d) for a, d in both)))

    @asynccontextmanager
    async def running(self, **options):
        """Act inside the block, and stop at its end; everything must come to an end by itself then."""
        self.outbox = Outbox(
            store=self.store,
            invoker=self.functions,
            notifier=self.phone,
            clock=self.clock,
            work=self.work,
            **{"lease": LEASE, **options},
        )
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(self.outbox.run(self.stop))
        try:
            await self.after(0)
            yield self
            self.stop.set()
            await asyncio.wait_for(self.task, 10)
        finally:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    async def after(self, seconds):
        await self.clock.advance(seconds * SECOND)

    def states(self):
        return {root: row["state"] for root, row in self.store.tables.lineages.items()}

    def state(self, root="r1"):
        return self.states()[root]

    def row(self, key=TASK):
        row = self.store.tables.outbox[key]
        return row["state"], row["note"]

    def causes(self):
        return [alert["cause"] for alert in self.store.tables.alerts.values()]

    def since(self, instants):
        return [(at - make.NOW).total_seconds() for at in instants]


def run(scenario):
    asyncio.run(scenario())


# ---------------------------------------------------------------- submitting


@pytest.mark.parametrize(
    ("outcomes", "end", "submits"),
    [((True,), State.HEALED, 1), ((False, True), State.HEALED, 2), ((False,), State.ALERTED, 2)],
    ids=["heals", "heals at the second attempt", "fails for good"],
)
def test_a_failure_is_run_again_until_it_heals_or_somebody_hears_of_it(outcomes, end, submits):
    async def scenario():
        world = World(outcomes=outcomes)
        consumer = Consumer(
            [Intake(world.source, 1)],
            store=world.store,
            rules=lambda: world.rules,
            clock=world.clock,
            work=world.work,
        )
        await world.fail("r1")
        async with world.running() as w:
            consuming = asyncio.create_task(consumer.run(w.stop))
            await w.after(120)
            healed = end is State.HEALED
            assert +w.work.reruns == +Counter(submitted=submits, succeeded=healed, failed=submits - healed)
            assert w.states() == {"r1": end}
            assert len(w.functions.submits) == submits
            assert set(w.functions.executions.values()) == {1}
            assert len(w.phone.notes) == (end is State.ALERTED)
            assert await w.store.next_due() is None or end is State.ALERTED
            w.stop.set()
            await consuming

    run(scenario)


def test_a_rerun_is_submitted_when_it_is_due_and_not_before():
    async def scenario():
        world = World()
        await world.fail("r1")
        async with world.running() as w:
            await w.after(4.9)
            assert w.functions.submits == []
            await w.after(0.1)
            assert w.since(w.functions.submits) == [5]
            assert w.state() == State.RERUNNING
            assert w.store.tables.links["fake-1"]["root"] == "r1"

    run(scenario)


def test_a_refused_rerun_is_told():
    async def scenario():
        world = World()
        world.functions.failures = [Permanent("not_found", "no function my-fc-job")]
        await world.fail("r1")
        async with world.running() as w:
            await w.after(30)
            assert (w.state(), w.causes()) == (State.ALERTED, [Cause.REFUSED])
            assert w.row() == ("dead", "not_found: no function my-fc-job")
            assert w.work.reruns == Counter(refused=1)
            (note,) = w.phone.notes
            assert "the re-run was refused" in note.body
            assert "no function my-fc-job" in note.body

    run(scenario)


@pytest.mark.parametrize(
    ("status", "condition", "end", "causes", "submits"),
    [
        ("Stopped", "", State.ALERTED, [Cause.REFUSED], 0),
        ("Stopped", "InvocationError", State.RERUNNING, [], 1),
        ("Failed", "", State.RERUNNING, [], 1),
        ("", "", State.RERUNNING, [], 1),
    ],
    ids=["stopped", "an error is told", "failed", "no such task is kept"],
)
def test_a_task_that_somebody_has_stopped_is_not_run_again_by_a_rule(status, condition, end, causes, submits):
    async def scenario():
        world = World()
        if status:
            world.functions.ran("r1", status)
        await world.store_arrivals(make.envelope("r1", condition=condition, destination=Destination.FAILURE))
        async with world.running() as w:
            await w.after(16)
            assert (w.state(), w.causes(), len(w.functions.submits)) == (end, causes, submits)

    run(scenario)


def test_whether_a_task_was_stopped_is_asked_until_there_is_an_answer():
    async def scenario():
        world = World()
        world.functions.question_failures.extend([Temporary("unreachable"), Permanent("access_denied")])
        await world.store_arrivals(make.envelope("r1", condition="", destination=Destination.FAILURE))
        async with world.running() as w:
            await w.after(7)
            assert (w.state(), len(w.functions.submits)) == (State.RERUN_PENDING, 0)
            await w.after(60)
            assert (w.state(), len(w.functions.submits)) == (State.RERUNNING, 1)

    run(scenario)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ({"requestPayload": None}, "not run again: the message did not hold the event"),
        ({"payload": "x" * 300_000}, "not run again: the event has 300,000 bytes; Function Compute takes 262,144 at"),
    ],
)
def test_an_event_that_cannot_be_run_is_told_and_never_submitted(message, told):
    async def scenario():
        world = World()
        await world.fail("r1", **message)
        async with world.running() as w:
            await w.after(30)
            assert (w.state(), w.causes(), w.functions.submits) == (State.ALERTED, [Cause.REFUSED], [])
            assert told in w.phone.notes[0].body

    run(scenario)


def test_an_event_larger_than_the_account_s_limit_is_refused_once():
    async def scenario():
        world = World()
        world.functions.failures = [Permanent("too_large", "HTTP 400 EntityTooLarge")]
        await world.fail("r1", payload="x" * 200_000)
        async with world.running() as w:
            await w.after(3600)
            assert (w.state(), len(w.functions.submits)) == (State.ALERTED, 1)
            assert w.row() == ("dead", "too_large: HTTP 400 EntityTooLarge (the event has 200,000 bytes)")

    run(scenario)


@pytest.mark.parametrize(
    ("error", "earliest"),
    [(Temporary("throttled", retry_after=90 * SECOND), 95), (Temporary("throttled"), 9), (Misconfigured("denied"), 9)],
    ids=["as long as asked for", "a few seconds", "also when a person must mend it"],
)
def test_a_submit_that_is_turned_away_comes_again_later(error, earliest):
    async def scenario():
        world = World()
        world.functions.failures = [error]
        await world.fail("r1")
        async with world.running() as w:
            await w.after(110)
            first, second = w.since(w.functions.submits)
            assert w.work.reruns == Counter(postponed=1, submitted=1)
            assert first == 5
            assert earliest <= second <= earliest + 2
            assert w.state() == State.RERUNNING

    run(scenario)


def test_a_submit_that_is_turned_away_for_too_long_is_told():
    async def scenario():
        world = World(again(give_up_after=60 * SECOND))
        world.functions.failures = [Temporary("throttled")] * 20
        await world.fail("r1")
        async with world.running() as w:
            await w.after(80)
            assert (w.state(), w.causes()) == (State.ALERTED, [Cause.EXHAUSTED])
            assert max(w.since(w.functions.submits)) <= 60

    run(scenario)


def test_a_payload_that_is_gone_is_told():
    class Forgetful(MemoryStore):
        async def payload_of(self, request_id):
            return None

    async def scenario():
        world = World(store=Forgetful())
        await world.fail("r1")
        async with world.running() as w:
            await w.after(10)
            assert w.row() == ("dead", "the event is gone, or was never told")
            assert w.functions.submits == []

    run(scenario)


# ---------------------------------------------------------------- submits without an answer


def test_a_submit_whose_answer_was_lost_is_asked_for_and_found():
    async def scenario():
        world = World()
        world.functions.answers_lost = 1
        await world.fail("r1")
        async with world.running() as w:
            await w.after(5)
            assert w.state() == State.UNKNOWN
            await w.after(5)
            assert w.state() == State.RERUNNING
            assert w.row() == ("done", "had been submitted as request fake-1")
            assert w.store.tables.links["fake-1"]["root"] == "r1"
            assert w.functions.executions == {TASK: 1}
            assert w.work.reruns == Counter(unknown=1, submitted=1)

    run(scenario)


def test_a_submit_that_never_arrived_is_submitted_again_when_that_is_certain():
    async def scenario():
        world = World()
        world.functions.failures = [OutcomeUnknown("no_answer")]
        await world.fail("r1")
        async with world.running() as w:
            await w.after(34)
            assert w.state() == State.UNKNOWN
            assert len(w.functions.submits) == 1
            await w.after(26)
            assert w.state() == State.RERUNNING
            assert w.functions.executions == {TASK: 1}
            assert w.since(w.functions.submits)[1] >= 35

    run(scenario)


@pytest.mark.parametrize(("idempotent", "end"), [(True, State.RERUNNING), (False, State.ALERTED)])
def test_an_untracked_submit_is_repeated_only_where_that_does_no_harm(idempotent, end):
    async def scenario():
        world = World(again(idempotent=idempotent), tracked=False)
        world.functions.failures = [OutcomeUnknown("no_answer")]
        await world.fail("r1")
        async with world.running() as w:
            await w.after(80)
            assert w.state() == end
            assert w.causes() == ([] if idempotent else [Cause.UNKNOWN])
            assert len(w.functions.submits) == 1 + idempotent

    run(scenario)


def test_a_question_that_is_never_answered_is_given_up_and_told():
    async def scenario():
        world = World(again(give_up_after=60 * SECOND))
        world.functions.answers_lost = 1
        world.functions.question_failures.extend([Misconfigured("access_denied")] * 1000)
        await world.fail("r1")
        async with world.running() as w:
            await w.after(20 * 60)
            assert (w.state(), w.causes()) == (State.ALERTED, [Cause.UNKNOWN])
            assert "access_denied" in w.phone.notes[0].body
            asked = len(w.functions.questions)
            await w.after(20 * 60)
            assert len(w.functions.questions) == asked
            assert w.functions.executions == {TASK: 1}

    run(scenario)


def test_a_task_id_that_is_known_already_is_asked_for_its_request_id():
    async def scenario():
        world = World()
        await world.functions.invoke_async(make.envelope("r1").function, b"{}", task_id=TASK)
        await world.fail("r1")
        async with world.running() as w:
            await w.after(5)
            assert w.row() == ("done", "had been submitted as request fake-1")
            assert w.store.tables.links["fake-1"]["root"] == "r1"
            assert w.functions.executions == {TASK: 1}

    run(scenario)


def test_a_known_task_whose_request_id_cannot_be_fetched_is_asked_for_again():
    """Without the request id its result would be taken for a failure of its own, with attempts of its own."""

    async def scenario():
        world = World(outcomes=(False, True))
        await world.functions.invoke_async(make.envelope("r1").function, b'{"failure":true}', task_id=TASK)
        world.functions.question_failures.append(Temporary("throttled"))
        await world.fail("r1")
        async with world.running() as w:
            await w.after(5)
            assert w.state() == State.UNKNOWN
            await w.after(10)
            assert w.state() == State.RERUNNING
            await w.fail("fake-1")
            assert w.states() == {"r1": State.RERUN_PENDING}
            assert w.store.tables.lineages["r1"]["attempt"] == 2

    run(scenario)


@pytest.mark.parametrize("arrived", [True, False])
def test_an_interrupted_submit_asks_before_anything_else(arrived):
    async def scenario():
        world = World()
        await world.fail("r1")
        await world.after(5)
        assert len(await world.store.claim_due(now=world.clock.now(), lease=LEASE, limit=9)) == 1
        if arrived:
            await world.functions.invoke_async(make.envelope("r1").function, b"{}", task_id=TASK)
            world.functions.submits.clear()
        async with world.running() as w:
            await w.after(119)
            assert (w.functions.questions, w.functions.submits) == ([], [])
            await w.after(60)
            assert w.since(w.functions.questions)[0] == 125
            assert len(w.functions.submits) == (0 if arrived else 1)
            assert w.state() == State.RERUNNING
            assert w.functions.executions == {TASK: 1}

    run(scenario)


# ---------------------------------------------------------------- results that are overdue or say little


@pytest.mark.parametrize(
    ("status", "end", "causes"),
    [
        ("Succeeded", State.HEALED, []),
        ("Failed", State.ALERTED, [Cause.OVERDUE]),
        (None, State.ALERTED, [Cause.OVERDUE]),
        ("Running", State.RERUNNING, []),
    ],
)
def test_an_overdue_result_is_asked_for(status, end, causes):
    async def scenario():
        world = World(delay=timedelta(days=9))
        await world.fail("r1")
        async with world.running() as w:
            await w.after(5)
            if status is None:
                w.functions._tasks.clear()
            else:
                w.functions.say(status)
            await w.after(599)
            assert w.functions.questions == []
            await w.after(30)
            assert (w.state(), w.causes()) == (end, causes)
            assert (w.work.reruns["succeeded"], w.work.reruns["overdue"]) == (end is State.HEALED, bool(causes))
            if status == "Running":
                w.functions.say("Succeeded")
                await w.after(60)
                assert w.state() == State.HEALED
                assert w.since(w.functions.questions) == [605, 665]

    run(scenario)


def test_an_overdue_result_nobody_can_be_asked_about_is_told():
    async def scenario():
        world = World(delay=timedelta(days=9))
        await world.fail("r1")
        async with world.running() as w:
            await w.after(5)
            w.functions.question_failures.extend([Temporary("unreachable")] * 99)
            await w.after(2400)
            assert (w.state(), w.causes()) == (State.ALERTED, [Cause.OVERDUE])

    run(scenario)


@pytest.mark.parametrize(
    ("status", "tracked", "end", "causes"),
    [
        ("Succeeded", True, State.HEALED, []),
        ("Stopped", True, State.ALERTED, [Cause.EXHAUSTED]),
        (None, False, State.HEALED, []),
    ],
    ids=["succeeded", "stopped", "untracked, so it cannot have been stopped"],
)
def test_an_ambiguous_result_is_settled_by_asking(status, tracked, end, causes):
    async def scenario():
        world = World(delay=timedelta(days=9), tracked=tracked)
        await world.fail("r1")
        async with world.running() as w:
            await w.after(5)
            w.functions.say("Running")
            w.functions.question_failures.append(Temporary("throttled"))
            await w.store_arrivals(make.envelope("fake-1", condition=""))
            w.outbox.poke()
            await w.after(9)
            assert w.state() == State.RERUNNING
            w.functions.say(status)
            await w.after(40)
            assert (w.state(), w.causes()) == (end, causes)
            assert (w.work.reruns["succeeded"], w.work.reruns["failed"]) == (end is State.HEALED, bool(causes))
            assert w.store.tables.outbox[f"expect:{TASK}"]["state"] == "cancelled"

    run(scenario)


# ---------------------------------------------------------------- telling


def told(**changes):
    return make.rules(make.rule("tell", alert=replace(TELL, **changes)))


def test_alerts_of_a_group_are_one_message_with_the_exact_number():
    async def scenario():
        world = World(told())
        await world.fail("r1", "r2", "r3")
        await world.fail("x1", error="something else entirely")
        async with world.running() as w:
            await w.after(5)
            await w.fail(*(f"more-{number}" for number in range(20)))
            assert w.phone.notes == []
            await w.after(5)
            titles = sorted(note.title.partition(" #")[0] for note in w.phone.notes)
            assert titles == [
                "my-fc-job failed: InvocationError",
                "my-fc-job failed: InvocationError × 23",
            ]
            assert "… and 18 more" in max((note.body for note in w.phone.notes), key=len)
            assert set(w.states().values()) == {State.ALERTED}

    run(scenario)


def test_more_of_the_same_is_counted_and_told_after_the_repeat_interval_or_at_the_end():
    async def scenario():
        world = World(told(course=Course(repeat_interval=3 * MINUTE, quiet_for=10 * MINUTE)))
        await world.fail("r1")
        async with world.running() as w:
            await w.after(20)
            await w.fail("r2", "r3")
            await w.after(60)  # it was looked at, and there is nothing new
            assert len(w.phone.notes) == 1
            assert (await w.store.totals()).states == {"alerted": 1, "suppressed": 2}
            await w.after(110)
            await w.fail("r4")
            await w.after(60)
            assert w.since(at for at, _, _ in w.phone.calls) == [10, 200]
            assert w.phone.notes[1].title.startswith("still: my-fc-job failed × 3: InvocationError #")
            assert "In all: 4 = 4 alerted" in w.phone.notes[1].body
            assert (await w.store.totals()).states == {"alerted": 4}
            await w.fail("r5")
            await w.after(700)
            assert w.since(at for at, _, _ in w.phone.calls) == [10, 200, 850]
            assert "resolved: my-fc-job failed × 5: InvocationError #" in w.phone.notes[2].title
            assert "1 of them were only counted till now" in w.phone.notes[2].body
            assert (await w.store.totals()).states == {"alerted": 5}
            assert await w.store.next_due() is None
            await w.fail("r6")
            await w.after(15)
            assert "my-fc-job failed again: InvocationError #" in w.phone.notes[3].title
            codes = [note.title.rpartition("#")[2] for note in w.phone.notes]
            assert codes == [codes[0], f"{codes[0]}-2", f"{codes[0]}-3", codes[3]]
            assert codes[3] != codes[0]

    run(scenario)


def test_one_rule_may_have_everything_told_at_every_interval():
    async def scenario():
        world = World(told(course=ONE_BY_ONE))
        await world.fail("r1")
        async with world.running() as w:
            await w.after(20)
            await w.fail("r2", "r3")
            await w.after(49)
            assert len(w.phone.notes) == 1
            await w.after(1)
            assert w.since(at for at, _, _ in w.phone.calls) == [10, 70]
            assert " × 2 #" in w.phone.notes[1].title
            assert "In all: 3 = 3 alerted" in w.phone.notes[1].body

    run(scenario)


RETRIES = Retries(first=10 * SECOND, factor=2.0, longest=60 * SECOND, give_up_after=timedelta(minutes=5))


def test_only_targets_that_did_not_take_a_notification_are_tried_again():
    async def scenario():
        world = World(told())
        world.phone.answers.extend(
            [
                {"1": Result.FAILED, "2": Result.UNKNOWN, "3": Result.FAILED},
                {"1": Result.FAILED, "2": Result.SENT, "3": Result.FAILED},
                {"1": Result.SENT, "3": Result.FAILED},
                {"3": Result.SENT},
            ]
        )
        await world.fail("r1")
        async with world.running(retries=RETRIES) as w:
            await w.after(15)
            assert w.state() == State.ALERTING
            (key,) = (key for key in w.store.tables.outbox if key.startswith("notify:"))
            assert w.row(key) == ("pending", "target 1: failed; target 2: unknown; target 3: failed")
            await w.after(10)
            assert w.state() == State.ALERTED, "one target is enough to have told it"
            await w.after(150)
            assert [skip for _, _, skip in w.phone.calls] == [[], [], ["2"], ["1", "2"]]
            assert w.row(key) == ("done", "sent to 3")
            assert (await w.store.totals()).deliveries == {"failed": 2, "unknown": 1, "sent": 1}
            assert w.work.notified == Counter(
                {("default", "failed"): 2, ("default", "unknown"): 1, ("default", "sent"): 1}
            )

    run(scenario)


def test_a_notification_is_done_when_the_targets_that_failed_were_removed():
    async def scenario():
        world = World(told())
        world.phone.answers.extend([{"1": Result.SENT, "2": Result.FAILED}, {}])
        await world.fail("r1")
        async with world.running(retries=RETRIES) as w:
            await w.after(30)
            assert [skip for _, _, skip in w.phone.calls] == [[], ["1"]]
            assert (await w.store.totals()).deliveries == {"failed": 1, "sent": 1}

    run(scenario)


@pytest.mark.parametrize(
    ("answer", "note"),
    [({"1": Result.FAILED}, "target 1: failed"), ({}, "receiver 'default' is not configured")],
    ids=["nobody takes it", "nobody is configured"],
)
def test_a_notification_nobody_takes_is_dead_in_the_end(answer, note):
    async def scenario():
        world = World(told())
        world.phone.answers.extend([answer] * 99)
        await world.fail("r1")
        async with world.running(retries=RETRIES) as w:
            await w.after(360)
            (key,) = (key for key in w.store.tables.outbox if key.startswith("notify:"))
            assert w.row(key) == ("dead", note)
            assert w.state() == State.ALERTING
            times = w.since(at for at, _, _ in w.phone.calls)
            assert times[0] == 10
            assert times[-1] <= 310
            deliveries = (await w.store.totals()).deliveries
            assert deliveries == {"failed": len(times) - 1, "dead": 1}
            assert {result for _, result in w.work.notified} == (set(deliveries) if answer else set())
            gaps = [later - sooner for sooner, later in pairwise(times)]
            assert 8 <= gaps[0] <= 12
            assert max(gaps) <= 72

    run(scenario)


# ---------------------------------------------------------------- the loop


class Busy(Phone):
    """Takes calls and answers them when told."""

    def __init__(self, clock):
        super().__init__(clock)
        self.answered, self.now, self.most = asyncio.Event(), 0, 0

    async def send(self, note, *, skip=frozenset()):
        self.now += 1
        self.most = max(self.most, self.now)
        await self.answered.wait()
        self.now -= 1
        return await super().send(note, skip=skip)


async def busy_world(number):
    """As many notifications due at once, each to a receiver of its own."""
    receivers = tuple(f"team-{position}" for position in range(number))
    world = World(make.rules(make.rule("tell", alert=AlertPolicy(to=receivers, group_wait=timedelta(0)))))
    world.phone = Busy(world.clock)
    await world.fail("r1")
    return world


def test_no_more_rows_are_acted_upon_at_once_than_allowed():
    async def scenario():
        world = await busy_world(10)
        async with world.running(concurrency=3) as w:
            await w.after(30)
            assert w.phone.now == 3
            w.phone.answered.set()
            await w.after(0)
            await w.after(0)
            assert len(w.phone.notes) == 10
            assert w.phone.most == 3

    run(scenario)


def test_a_stop_finishes_what_is_under_way_and_begins_nothing():
    async def scenario():
        world = await busy_world(5)
        async with world.running(concurrency=3) as w:
            await w.after(0)
            w.stop.set()
            await w.after(30)
            assert not w.task.done()
            w.phone.answered.set()
            await asyncio.wait_for(w.task, 10)
            assert len(w.phone.notes) == 3
            assert (await w.store.totals()).deliveries == {"sent": 3}

    run(scenario)


def test_cancelling_leaves_nothing_running_and_the_rows_to_the_next_one():
    async def scenario():
        world = await busy_world(3)
        async with world.running() as w:
            await w.after(0)
            assert w.phone.now == 3
            w.task.cancel()
            await asyncio.gather(w.task, return_exceptions=True)
            assert w.task.cancelled()
            assert asyncio.all_tasks() == {asyncio.current_task()}
            w.task = asyncio.create_task(asyncio.sleep(0))
        world.phone.answered.set()
        async with world.running() as w:
            await w.after(125)
            assert len(w.phone.notes) == 3

    run(scenario)


def test_a_stop_while_idle_ends_at_once():
    async def scenario():
        async with World().running() as w:
            await w.after(7)
            w.stop.set()
            await asyncio.wait_for(w.task, 10)
            assert w.clock.now() == make.NOW + 7 * SECOND

    run(scenario)


def test_a_poke_wakes_it_at_once():
    async def scenario():
        async with World(again(after=timedelta(0))).running() as w:
            await w.fail("r1")
            await w.after(0)
            assert w.functions.submits == []
            w.outbox.poke()
            await w.after(0)
            assert w.since(w.functions.submits) == [0]

    run(scenario)


def test_rows_that_another_process_wrote_are_seen_soon():
    async def scenario():
        async with World(again(after=timedelta(0))).running() as w:
            await w.fail("r1")
            await w.after(5)
            assert len(w.functions.submits) == 1

    run(scenario)


def test_a_store_that_fails_between_act_and_settle_repeats_no_rerun(caplog):
    class Flaky(MemoryStore):
        broken = True

        async def settle(self, row, react, *, now):
            if self.broken and row.kind is RowKind.RERUN:
                self.broken = False
                raise StoreUnavailable("the disk is full")
            return await super().settle(row, react, now=now)

    async def scenario():
        world = World(store=Flaky())
        await world.fail("r1")
        async with world.running() as w:
            await w.after(120)
            assert w.state() == State.RERUN_PENDING
            await w.after(10)
            assert w.state() == State.RERUNNING
            assert w.functions.executions == {TASK: 1}
            assert len(w.functions.submits) == 1

    run(scenario)
    assert any("acted, but the store fails: the disk is full" in r.message for r in caplog.records)


def test_a_store_that_can_only_be_read_is_asked_now_and_then(caplog):
    class Full(MemoryStore):
        claims = 0

        async def claim_due(self, **_given):
            self.claims += 1
            raise StoreUnavailable("the disk is full")

    async def scenario():
        world = World(store=Full())
        await world.fail("r1")
        async with world.running() as w:
            await w.after(60)
            assert 10 <= w.store.claims <= 14

    run(scenario)
    assert all(r.message == "nothing is acted upon while the store fails: the disk is full" for r in caplog.records)


def test_a_store_that_comes_back_is_noticed():
    async def scenario():
        world = World()
        await world.fail("r1")
        world.store.unavailable = "locked"
        async with world.running() as w:
            await w.after(60)
            w.store.unavailable = ""
            await w.after(5)
            assert w.state() == State.RERUNNING

    run(scenario)


def test_a_defect_is_logged_and_stops_only_its_own_row(caplog):
    class Defective(Functions):
        broken = True

        async def invoke_async(self, function, payload, *, task_id):
            if task_id == TASK and self.broken:
                self.broken = False
                raise KeyError("a defect")
            return await super().invoke_async(function, payload, task_id=task_id)

    async def scenario():
        world = World()
        world.functions = Defective(world.clock, world.source)
        await world.fail("r1", "r2")
        async with world.running() as w:
            await w.after(10)
            assert w.states() == {"r1": State.RERUN_PENDING, "r2": State.RERUNNING}
            await w.after(200)
            assert w.states() == {"r1": State.RERUNNING, "r2": State.RERUNNING}

    run(scenario)
    (record,) = (r for r in caplog.records if r.levelno == logging.ERROR)
    assert "a defect of triage; the row is tried again when its lease ends" in record.message
    assert record.exc_info[0] is KeyError


def test_a_row_that_is_cancelled_while_it_is_acted_upon_stays_cancelled():
    """The result overtakes the answer to its submit."""

    class Overtaken(Functions):
        async def invoke_async(self, function, payload, *, task_id):
            answer = await super().invoke_async(function, payload, task_id=task_id)
            await self.world.store_arrivals(make.success(answer.request_id))
            return answer

    async def scenario():
        world = World()
        world.functions = Overtaken(world.clock, world.source)
        world.functions.world = world
        await world.fail("r1")
        async with world.running() as w:
            await w.after(200)
            assert w.states() == {"r1": State.HEALED}
            assert w.store.tables.outbox[TASK]["state"] == "cancelled"
            assert len(w.functions.submits) == 1
            assert f"expect:{TASK}" not in w.store.tables.outbox

    run(scenario)


# ---------------------------------------------------------------- the gates


def switched_off(world, scope=Scope.ALL, pattern=""):
    return world.store.switch_off(Switch(scope, pattern, "alice", "incident", world.clock.now()))


def switched_on(world):
    return world.store.switch_on(Scope.ALL, "", by="alice", reason="over", now=world.clock.now())


def test_what_is_switched_off_is_not_submitted_and_goes_on_when_it_is_on_again():
    async def scenario():
        world = World()
        await switched_off(world)
        await world.fail("r1")
        async with world.running() as w:
            await w.after(600)
            assert w.functions.submits == []
            assert w.row() == ("pending", "all re-runs switched off by alice at 2026-03-01 12:00:00Z: incident")
            await switched_on(w)
            await w.after(1)
            assert w.since(w.functions.submits) == [pytest.approx(600, abs=1)]
            assert w.state() == State.RERUNNING

    run(scenario)


def test_what_waits_at_a_switch_is_not_claimed_again_and_again():
    async def scenario():
        claimed = []

        class Watched(MemoryStore):
            async def claim_due(self, **given):
                found = await super().claim_due(**given)
                claimed.extend(found)
                return found

        world = World(again(after=timedelta(0)), store=Watched())
        await switched_off(world)
        await world.fail(*(f"r{number}" for number in range(200)))
        async with world.running() as w:
            await w.after(300)
            assert len(claimed) == 200

    run(scenario)


def test_a_re_run_that_waits_too_long_is_told():
    async def scenario():
        world = World()
        await switched_off(world, Scope.FUNCTION, "my-*")
        await world.fail("r1")
        async with world.running() as w:
            await w.after(3590)
            assert w.causes() == []
            await w.after(30)
            assert (w.state(), w.causes()) == (State.ALERTED, [Cause.EXHAUSTED])
            assert "switched off by alice" in w.phone.notes[0].body
            assert w.functions.submits == []
            assert w.work.reruns == {"given_up": 1}

    run(scenario)


def test_a_submit_without_an_answer_is_asked_about_also_while_it_is_switched_off():
    async def scenario():
        world = World()
        world.functions.answers_lost = 1
        await world.fail("r1")
        async with world.running() as w:
            await w.after(5)
            assert w.state() == State.UNKNOWN
            await switched_off(w)
            await w.after(10)
            assert w.state() == State.RERUNNING
            assert len(w.functions.submits) == 1

    run(scenario)


def test_a_submit_is_not_repeated_while_it_is_switched_off():
    async def scenario():
        world = World()
        world.functions.failures = [OutcomeUnknown("no_answer")]
        await world.fail("r1")
        async with world.running() as w:
            await w.after(5)
            assert w.state() == State.UNKNOWN
            await switched_off(w)
            await w.after(60)
            assert w.functions.executions == {}
            assert "switched off" in w.row()[1]
            await switched_on(w)
            await w.after(2)
            assert w.functions.executions == {TASK: 1}

    run(scenario)
