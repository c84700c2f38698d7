"""Lineages, outbox rows, breakers and plans in one store, while hypothesis draws what happens next: every law of
``triage selfcheck`` holds after each step, no attempt runs twice, and only the domain's own errors come up.
"""

import asyncio
from collections import Counter
from contextlib import closing, suppress
from datetime import timedelta

import make
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from triage.alerts.delivery import Answer, Result
from triage.changes import Commit, RowKind, Settle
from triage.decide import decide_batch
from triage.effects import decided
from triage.envelope import Destination, parse_body
from triage.errors import OutcomeUnknown, Permanent, PlanRefused, Temporary, TooLate
from triage.orders import Limits, Order
from triage.outbox import Outbox
from triage.plans import Say, applied, cancelled, paused, planned, resumed
from triage.reactions import withdrawn
from triage.reruns.breaker import Tripping
from triage.reruns.budget import Allowance
from triage.reruns.gate import Safeguards
from triage.reruns.lineage import Origin
from triage.reruns.plan import Plan, PlanHash, PlanItem, PlanState
from triage.reruns.rate import Rate
from triage.reruns.switches import Scope, Switch
from triage.rules.model import AlertPolicy, HoldPolicy, RerunPolicy
from triage.stores.selfcheck import check
from triage.testing import FakeFunctions, ManualClock, MemoryStore
from triage.views import OutboxRow

SECOND = timedelta(seconds=1)
LEASE = 30 * SECOND
LIMITS = Limits(max_attempts=4)
AGAIN = RerunPolicy(
    max_attempts=2, give_up_after=timedelta(hours=1), after=SECOND, jitter=0.0, expect_within=60 * SECOND
)
SOON = AlertPolicy(on=make.QUIET, group_wait=SECOND)
RULES = make.rules(
    make.rule("again", rerun=AGAIN, alert=SOON, fn="job-again"),
    make.rule("ask", fn="job-ask", more={"hold": HoldPolicy("was it paid?")}),
    make.rule("tell", alert=AlertPolicy(group_wait=SECOND)),
)
FUNCTIONS = ("job-again", "job-ask", "job-tell")
TIGHT = Safeguards(
    rate=Rate(2, 5 * SECOND),
    function_rate=Rate(1, 5 * SECOND),
    budget=Allowance(share=0.5, floor=6, cap=5),
    breaker=Tripping(failures=2, share=0.5, pause=5 * SECOND, longest=20 * SECOND),
)
"""Gates that a few re-runs close."""

ANSWERS = {
    "taken": None,
    "throttled": Temporary("throttled", retry_after=5 * SECOND),
    "refused": Permanent("not_found"),
    "lost": OutcomeUnknown("no_answer"),
}


class Phone:
    """Takes every message."""

    async def send(self, note, *, skip=frozenset()):
        return {"0": Answer(Result.SENT)}


class Mailbox:
    """Results that are on their way."""

    def __init__(self):
        self.waiting = []

    def put(self, body, *, delay):
        self.waiting.append(body)


class Life(RuleBasedStateMachine):
    """One store, one daemon that acts when told, people and functions that do what is drawn."""

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock, self.store, self.mail = ManualClock(make.NOW), MemoryStore(), Mailbox()
        self.functions = FakeFunctions(self.clock, self.mail)
        self.outbox = Outbox(
            store=self.store,
            invoker=self.functions,
            notifier=Phone(),
            clock=self.clock,
            lease=LEASE,
            guards=TIGHT,
            orders=LIMITS,
        )
        self.failures: list[str] = []
        self.plans: list[str] = []
        self.abandoned: list[OutboxRow] = []

    def teardown(self):
        self.runner.close()

    @property
    def now(self):
        return self.clock.now()

    def run(self, work):
        return self.runner.run(work)

    @initialize()
    def begin(self):
        self.run(self.store.save_rule_set(RULES.digest, (), now=self.now))
        for function in ("job-again", "job-again", "job-tell", "job-ask"):
            self.first_run(function, well=False)

    # ------------------------------------------------------------ what arrives

    @rule(function=st.sampled_from(FUNCTIONS), well=st.booleans())
    def arrives(self, function, well):
        self.first_run(function, well=well)

    def first_run(self, function, *, well):
        request_id = f"r{len(self.failures)}-{self.now:%H%M%S}-{function}-{well}"
        arn = make.ARN.replace("my-fc-job", function)
        self._take((make.success if well else make.envelope)(request_id, arn=arn))
        if not well:
            self.failures.append(request_id)

    @precondition(lambda self: self.mail.waiting)
    @rule(data=st.data(), twice=st.booleans())
    def result(self, data, twice):
        body = data.draw(st.sampled_from(self.mail.waiting))
        if not twice:
            self.mail.waiting.remove(body)
        self._take(parse_body(body, destination=Destination.BOTH))

    def _take(self, envelope):
        async def take():
            arrivals = [make.arrived(envelope, at=self.now)]
            facts = await self.store.load_facts(arrivals)
            if facts.seen.get(envelope.request_id):
                await self.store.commit(Commit(self.now, RULES.digest, duplicates=tuple(arrivals)))
                return
            (decision,) = decide_batch(arrivals, facts, RULES, now=self.now)
            await self.store.commit(Commit(self.now, RULES.digest, (decided(arrivals[0], decision),)))

        self.run(take())

    # ------------------------------------------------------------ the outbox

    @rule(seconds=st.sampled_from([1, 1, 5, 5, 31, 31, 65, 3700]))
    def time_passes(self, seconds):
        self.run(self.clock.advance(seconds * SECOND))

    @precondition(lambda self: any(self.store.tables.unfinished()))
    @rule(
        limit=st.sampled_from([50, 50, 1, 5]),
        answer=st.sampled_from(sorted(ANSWERS)),
        well=st.booleans(),
        dies=st.sampled_from([False, False, False, True]),
    )
    def act(self, limit, answer, well, dies):
        """What is due next is acted upon; or the process dies between the act and its settling."""
        self.run(self._act(limit, ANSWERS[answer], well=well, dies=dies))

    @rule(turns=st.integers(2, 12), well=st.booleans())
    def get_on(self, turns, well):
        """Nothing gets in the way: what is due next is acted upon, and results come."""
        for _ in range(turns):
            if any(self.store.tables.unfinished()):
                self.run(self._act(50, None, well=well, dies=False))
            while self.mail.waiting:
                self._take(parse_body(self.mail.waiting.pop(0), destination=Destination.BOTH))

    async def _act(self, limit, error, *, well, dies):
        self.functions.outcomes = (well,)
        await self.clock.advance(max(await self.store.next_due() - self.now, timedelta(0)))
        for row in await self.store.claim_due(now=self.now, lease=LEASE, limit=limit):
            if row.kind is RowKind.RERUN and error is not None:
                kept = self.functions.lost if isinstance(error, OutcomeUnknown) else self.functions.failures
                kept.append(error)
            react = await self.outbox.react(row)
            self.functions.failures.clear()
            self.functions.lost.clear()
            if dies:
                self.abandoned.append(row)
            elif react is not None:
                await self.store.settle(row, react, now=self.now)

    @precondition(lambda self: self.abandoned)
    @rule(data=st.data())
    def settle_late(self, data):
        """A process that was thought dead comes back: its claim is lost once somebody else has the row."""
        row = data.draw(st.sampled_from(self.abandoned))
        self.abandoned.remove(row)
        self.run(self.store.settle(row, lambda _: Settle.retry(due_at=self.now, note="late"), now=self.now))

    # ------------------------------------------------------------ people

    @precondition(lambda self: self.failures)
    @rule(data=st.data(), origin=st.sampled_from([Origin.MANUAL, Origin.APPROVAL]))
    def order(self, data, origin):
        request_id = data.draw(st.sampled_from(self.failures))
        self.run(self.store.order([request_id], Order(origin, "anna", "mended", self.now), limits=LIMITS, now=self.now))

    @precondition(lambda self: self.functions.executions)
    @rule(data=st.data())
    def call_back(self, data):
        keys = [row["key"] for row in self.store.tables.outbox.values() if row["kind"] == RowKind.RERUN]
        if not keys:
            return
        key = data.draw(st.sampled_from(sorted(keys)))
        with suppress(TooLate):
            self.run(
                self.store.settle_now(
                    key, lambda row, facts: withdrawn(row, facts, by="anna", reason="no"), now=self.now
                )
            )

    @precondition(lambda self: self.functions.executions)
    @rule(
        off=st.sampled_from([True, False, False]), scope=st.sampled_from([(Scope.ALL, ""), (Scope.FUNCTION, "job-*")])
    )
    def switch(self, off, scope):
        if off:
            self.run(self.store.switch_off(Switch(*scope, "anna", "incident", self.now)))
        else:
            self.run(self.store.switch_on(*scope, by="anna", reason="over", now=self.now))

    @precondition(lambda self: self.failures and len(self.plans) < 3)
    @rule(data=st.data(), sizes=st.sampled_from([(1,), (1, 2), (3,)]))
    def plan(self, data, sizes):
        names = data.draw(st.lists(st.sampled_from(self.failures), min_size=1, max_size=5, unique=True))
        lineages = self.store.tables.lineages
        say, now = Say("anna", "mended"), self.now
        items = [PlanItem(name, name, lineages[name]["attempt"]) for name in names if name in lineages]
        digest = PlanHash(created_at=now, qualifier=str(len(self.plans)))
        for item in items:
            digest.add(item.request_id, root=item.root, attempt=item.attempt)
        draft = Plan(digest.hexdigest(), PlanState.DRAFT, now, say.by, say.reason, {})

        async def make_and_apply():
            number = await self.store.new_plan(draft)
            await self.store.add_plan_items(number, items)
            await self.store.freeze_plan(number, planned(draft, say, now=now), now=now)
            begin = {"threshold": 80, "sizes": sizes, "to": ("default",), "now": now}
            await self.store.move_plan(draft.hash, lambda known: applied(known, say, **begin), now=now)

        self.run(make_and_apply())
        self.plans.append(draft.hash)

    @precondition(lambda self: self.plans)
    @rule(data=st.data(), what=st.sampled_from([paused, resumed, cancelled]))
    def steer(self, data, what):
        plan = data.draw(st.sampled_from(self.plans))
        with suppress(PlanRefused):
            self.run(self.store.move_plan(plan, lambda known: what(known, Say("bo", "x"), now=self.now), now=self.now))

    # ------------------------------------------------------------ what holds whatever happens

    @invariant()
    def no_attempt_has_run_twice(self):
        assert all(count == 1 for count in self.functions.executions.values())

    @invariant()
    def all_kinds_are_under_one_cap(self):
        runs = Counter(task.rpartition("-")[0] for task in self.functions.executions)
        assert max(runs.values(), default=0) <= LIMITS.max_attempts
        assert all(row["attempt"] <= LIMITS.max_attempts for row in self.store.tables.lineages.values())

    @invariant()
    def every_law_holds(self):
        with closing(self.store.tables.database()) as connection:
            broken = {each.law.id: each.breaches for each in check(connection, now=self.now, quick=True) if each.broken}
        assert broken == {}


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=10, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
