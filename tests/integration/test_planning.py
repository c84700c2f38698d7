"""Plans are made from what is stored: which failures, which of them not and why, in bounded pieces, all or nothing."""

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

import make
import pytest

from triage.changes import Commit
from triage.decide import decide_batch
from triage.effects import decided
from triage.errors import PlanRefused, StoreUnavailable
from triage.orders import Limits, Order
from triage.planning import WINDOW, Selection, make_plan
from triage.plans import Say
from triage.reactions import submitted
from triage.reruns.lineage import Origin, task_id
from triage.reruns.plan import ItemState, PlanHash, PlanState
from triage.rules.expression import compile_expression
from triage.rules.model import AlertPolicy, HoldPolicy
from triage.stores import FailureFilter
from triage.stores.sqlite import SqliteStore
from triage.testing import ManualClock

NOW = make.NOW
ANNA = Say("anna", "the parser is mended")
RULES = make.rules(
    make.rule("ask", fn="held", more={"hold": HoldPolicy("why")}),
    make.rule("again", fn="again", rerun=make.RERUN),
    make.rule("tell", alert=AlertPolicy()),
)


@asynccontextmanager
async def opened(folder):
    store = await SqliteStore.open(folder / "triage.db")
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def run(tmp_path):
    def runner(scenario):
        async def main():
            async with opened(tmp_path) as store:
                return await scenario(store)

        return asyncio.run(main())

    return runner


def failure(request_id, function="my-fc-job", **fields):
    return make.envelope(request_id, arn=make.ARN.replace("my-fc-job", function), **fields)


async def take(store, *envelopes, at=NOW):
    arrivals = [make.arrived(envelope, at=at) for envelope in envelopes]
    decisions = decide_batch(arrivals, await store.load_facts(arrivals), RULES, now=at)
    pairs = zip(arrivals, decisions, strict=True)
    await store.commit(Commit(now=at, rule_set="rs", decided=tuple(decided(a, d) for a, d in pairs)))


async def rerun(store, request_id, *, at=NOW):
    order = Order(Origin.MANUAL, "bo", "by hand", at)
    await store.order([request_id], order, limits=Limits(), now=at)


def select(when=None, *, exclude=(), limits=Limits(), **which):
    expression = compile_expression(when) if when else None
    return Selection(FailureFilter(**which), expression, frozenset(exclude), {"filter": when or ""}, limits=limits)


def clock(at=NOW + timedelta(minutes=5)):
    return ManualClock(at)


async def planned(store, selection, at=NOW + timedelta(minutes=5)):
    plan, unjudged = await make_plan(store, selection, ANNA, clock=clock(at))
    return plan, unjudged, await store.plan_items(plan.hash, limit=10_000)


def test_a_plan_holds_what_matches_and_says_why_some_of_it_is_left_out(run):
    async def scenario(store):
        await take(
            store,
            *(failure(f"r{number}") for number in range(4)),
            failure("mine"),
            failure("other", error="something else"),
            failure("waiting", "again"),
            failure("asked", "held"),
            failure("empty", payload=None),
        )
        for name in ("r1", "r2"):
            await rerun(store, name)
        await take(store, make.success(task_id("r1", 1)))
        await take(store, failure(task_id("r2", 1)))
        plan, unjudged, items = await planned(
            store, select('error.message.contains("timed out")', exclude=["mine", "unknown"])
        )
        assert (plan.state, plan.by, plan.reason, unjudged.count) == (PlanState.PLANNED, "anna", ANNA.reason, 0)
        assert [(item.request_id, item.root, item.attempt, item.state.value) for item in items] == [
            ("r0", "r0", 0, "waiting"),
            ("r1", "r1", 1, "excluded"),
            ("r3", "r3", 0, "waiting"),
            ("mine", "mine", 0, "excluded"),
            ("waiting", "waiting", 1, "excluded"),
            ("asked", "asked", 0, "excluded"),
            ("empty", "empty", 0, "excluded"),
            (task_id("r2", 1), "r2", 1, "waiting"),
        ]
        reasons = {item.root: item.reason.partition(":")[0] for item in items if item.reason}
        assert reasons == {
            "r1": "healed",
            "mine": "excluded",
            "waiting": "under_way",
            "asked": "held",
            "empty": "no_payload",
        }
        assert plan.functions == {"my-fc-job": 3}
        assert plan.size == 3

    run(scenario)


def test_the_hash_is_that_of_what_will_run(run):
    async def scenario(store):
        await take(store, *(failure(f"r{number}") for number in range(5)))
        plan, _, items = await planned(store, select("lineage.attempt == 0", exclude=["r3"]))
        digest = PlanHash(created_at=plan.created_at, qualifier="")
        for item in items:
            if item.state is ItemState.WAITING:
                digest.add(item.request_id, root=item.root, attempt=item.attempt)
        assert plan.hash == digest.hexdigest()
        again, _, _ = await planned(store, select("lineage.attempt == 0"), NOW + timedelta(minutes=6))
        assert again.hash != plan.hash

    run(scenario)


@pytest.mark.parametrize(
    ("selection", "found"),
    [
        (select(function="img-*", group=""), ["a1", "a2"]),
        (select('fn == "img-b" || condition == "Odd"'), ["a2", "b2"]),
        (select("payload.size > 100"), ["b1"]),
        (select("group.count == 1 && group.age < duration('4m')"), ["b2"]),
        (select("group.rate_1h > 0.0", state="alerting"), ["a1", "a2", "b1", "b2"]),
        (select("lineage.age < duration('4m')"), ["b2"]),
        (select(since=NOW + timedelta(minutes=2), until=NOW + timedelta(minutes=3)), ["b2"]),
        (select("now > timestamp('2026-03-01T12:04:00Z')", function="*a"), ["a1"]),
    ],
    ids=["function", "expression", "payload", "group", "rate", "age", "time", "both"],
)
def test_failures_are_selected_by_columns_and_by_the_names_of_rules(run, selection, found):
    async def scenario(store):
        await take(
            store,
            failure("a1", "img-a"),
            failure("a2", "img-b", error="other"),
            failure("b1", "pdf", payload='{"size": 101}'),
        )
        await take(store, failure("b2", "pdf", condition="Odd"), at=NOW + timedelta(minutes=2))
        _, _, items = await planned(store, selection)
        assert [item.request_id for item in items] == found

    run(scenario)


def test_what_cannot_be_judged_is_no_part_of_the_plan_and_is_counted(run):
    async def scenario(store):
        await take(store, failure("r1", payload='{"size": "large"}'), failure("r2", payload='{"size": 7}'))
        _, unjudged, items = await planned(store, select("payload.size > 5"))
        assert [item.request_id for item in items] == ["r2"]
        assert unjudged.count == 1
        assert unjudged.why

    run(scenario)


def test_a_plan_with_nothing_in_it_is_refused_and_leaves_nothing(run):
    async def scenario(store):
        await take(store, failure("r1"), failure("asked", "held"))
        with pytest.raises(PlanRefused, match="no failure matches"):
            await planned(store, select('fn == "unknown"'))
        with pytest.raises(PlanRefused, match="1 failures match, but none of them can be run again: 1 held"):
            await planned(store, select('fn == "held"'))
        with pytest.raises(PlanRefused, match=r"could not be evaluated for 2 of them: .*size"):
            await planned(store, select("payload.size > 5"))
        assert await store.plans(limit=10) == []
        assert await store.old_drafts(NOW + timedelta(days=9)) == []

    run(scenario)


def test_limits_of_people_hold_for_plans(run):
    async def scenario(store):
        await take(store, failure("old"), at=NOW - timedelta(days=3))
        await take(store, failure("often"), failure("good"))
        await rerun(store, "often")
        await take(store, failure(task_id("often", 1)))
        limits = Limits(max_attempts=1, give_up_after=timedelta(days=2))
        _, _, items = await planned(store, select("true || lineage.attempt > 0", limits=limits))
        reasons = {item.root: item.reason.partition(":")[0] for item in items}
        assert reasons == {"old": "too_late", "often": "exhausted", "good": ""}

    run(scenario)


def test_how_long_a_re_run_takes_is_known_from_earlier_ones(run):
    async def scenario(store):
        await take(store, failure("r1"), failure("r2"))
        plan, _, _ = await planned(store, select('fn != ""'))
        assert plan.typical is None
        await rerun(store, "r1")
        (row,) = [
            row for row in await store.claim_due(now=NOW, lease=timedelta(minutes=1), limit=9) if row.kind == "rerun"
        ]
        await store.settle(row, lambda facts: submitted(row, facts, request_id="c1", now=NOW), now=NOW)
        await take(store, failure("c1"), at=NOW + timedelta(seconds=42))
        plan, _, _ = await planned(store, select('fn != ""'), NOW + timedelta(minutes=7))
        assert plan.typical == timedelta(seconds=42)

    run(scenario)


def test_more_failures_than_are_looked_at_in_one_go(run):
    async def scenario(store):
        many = [f"r{number:05}" for number in range(2 * WINDOW + 7)]
        await take(store, *(failure(name, error="boom", payload="{}") for name in many))
        told = []
        plan, _ = await make_plan(
            store,
            select("lineage.attempt == 0"),
            ANNA,
            clock=clock(),
            progress=lambda done, of: told.append((done, of)),
        )
        assert plan.size == len(many)
        assert [done for done, _ in told] == [WINDOW, 2 * WINDOW, len(many)]
        seen, after = [], 0
        while page := await store.plan_items(plan.hash, after=after, limit=1000):
            seen += [item.request_id for item in page]
            after = page[-1].id
        assert seen == many

    run(scenario)


class Dying:
    """A store that dies for good at its ``at``-th call: before it did anything, or after it did everything."""

    def __init__(self, inner, at):
        self._inner, self._left = inner, at
        self.reached = ""

    def __getattr__(self, name):
        value = getattr(self._inner, name)

        async def call(*args, **kwargs):
            self._step(f"before {name}")
            result = await value(*args, **kwargs)
            self._step(f"after {name}")
            return result

        return call

    def _step(self, what):
        self._left -= 1
        if self._left <= 0:
            self.reached = self.reached or what
            raise StoreUnavailable("dead")


@pytest.mark.parametrize("at", range(1, 25))
def test_whoever_dies_while_making_a_plan_leaves_it_whole_or_nothing_that_counts(run, at):
    async def scenario(store):
        names = [f"r{number}" for number in range(3)]
        await take(store, *map(failure, names))
        dying = Dying(store, at)
        try:
            await make_plan(dying, select("lineage.attempt == 0"), ANNA, clock=clock())
        except StoreUnavailable:
            pass
        else:
            assert at > 15, "every call was survived"
            return
        found = await store.plans(limit=10)
        frozen = dying.reached in ("after freeze_plan", "before plan", "after plan")
        assert [plan.size for plan in found] == ([3] if frozen else []), dying.reached
        # Whoever makes the next plan removes what is left of this one.
        later = NOW + timedelta(hours=2)
        _, _, items = await planned(store, select("lineage.attempt == 0"), later)
        assert [item.request_id for item in items] == names
        assert await store.old_drafts(later + timedelta(days=1)) == []

    run(scenario)
