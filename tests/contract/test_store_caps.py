"""One cap and one deadline over all re-runs of a failure: a rule's, a person's, a plan's and an approved one's."""

from datetime import timedelta

import make
import pytest

from triage.changes import Commit, RowKind
from triage.decide import Reason, decide_batch
from triage.effects import decided
from triage.orders import Limits, Order, Ordered, Refusal, Refused
from triage.plans import Say, applied, plan_step, planned
from triage.reactions import submitted
from triage.reruns.lineage import Origin, task_id
from triage.reruns.plan import ItemState, Plan, PlanHash, PlanItem, PlanState
from triage.rules.model import AlertPolicy, HoldPolicy, RerunPolicy
from triage.states import State

NOW = make.NOW
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
ANNA = Say("anna", "mended")
LIMITS = Limits(max_attempts=4, give_up_after=10 * HOUR)
AGAIN = make.rules(
    make.rule("again", rerun=RerunPolicy(max_attempts=4, give_up_after=10 * HOUR, jitter=0.0), alert=AlertPolicy())
)
TELL = make.rules(make.rule("tell", alert=AlertPolicy()))
ASK = make.rules(make.rule("ask", more={"hold": HoldPolicy("was it paid?")}))


async def fails(store, request_id, rules, *, at):
    """A failed result, decided by these rules: why it was decided so."""
    arrivals = [make.arrived(make.envelope(request_id), at=at)]
    decisions = decide_batch(arrivals, await store.load_facts(arrivals), rules, now=at)
    whole = tuple(decided(arrived, decision) for arrived, decision in zip(arrivals, decisions, strict=True))
    await store.commit(Commit(now=at, rule_set=rules.digest, decided=whole))
    return decisions[0].reason


async def submit(store, attempt, *, at, origin=Origin.MANUAL):
    """The re-run that is due, of such an origin, is taken by the provider."""
    rows = await store.claim_due(now=at, lease=MINUTE, limit=99)
    (row,) = (row for row in rows if row.kind is RowKind.RERUN)
    assert (row.key, row.payload["attempt"], row.payload["origin"]) == (task_id("r1", attempt), attempt, origin)
    request_id = f"again-{attempt}"
    assert await store.settle(row, lambda facts: submitted(row, facts, request_id=request_id, now=at), now=at)
    return request_id


async def ask(store, origin, *, at):
    (answer,) = await store.order(["r1"], Order(origin, "anna", "mended", at), limits=LIMITS, now=at)
    return answer


async def by_plan(store, attempt, *, at):
    """A plan of this failure alone takes its first step; what came of its only item, and why."""
    digest = PlanHash(created_at=at, qualifier="")
    digest.add("r1", root="r1", attempt=attempt)
    draft = Plan(digest.hexdigest(), PlanState.DRAFT, at, "anna", "mended", {})
    number = await store.new_plan(draft)
    await store.add_plan_items(number, [PlanItem("r1", "r1", attempt)])
    await store.freeze_plan(number, planned(draft, ANNA, now=at), now=at)
    begin = {"threshold": 80, "sizes": (1,), "to": ("default",), "now": at}
    await store.move_plan(draft.hash, lambda known: applied(known, ANNA, **begin), now=at)
    rows = await store.claim_due(now=at, lease=MINUTE, limit=99)
    (row,) = (row for row in rows if row.kind is RowKind.PLAN_STEP)
    assert await store.settle(row, lambda facts: plan_step(row, facts, limits=LIMITS, now=at), now=at)
    (item,) = await store.plan_items(draft.hash, limit=9)
    return item


async def state_of(store):
    detail = await store.failure("r1")
    return detail.row.state, detail.lineage["attempt"]


def test_one_re_run_of_each_kind_uses_up_a_cap_of_four(run):
    async def scenario(store):
        at = NOW
        assert await fails(store, "r1", AGAIN, at=at) is Reason.MATCHED
        at += MINUTE
        name = await submit(store, 1, at=at, origin=Origin.AUTOMATIC)
        await fails(store, name, ASK, at=at)
        assert await state_of(store) == (State.HELD, 1)
        assert isinstance(await ask(store, Origin.APPROVAL, at=at), Ordered)
        await fails(store, await submit(store, 2, at=at, origin=Origin.APPROVAL), TELL, at=at)
        assert isinstance(await ask(store, Origin.MANUAL, at=at), Ordered)
        await fails(store, await submit(store, 3, at=at), TELL, at=at)
        assert (await by_plan(store, 3, at=at)).state is ItemState.ORDERED
        name = await submit(store, 4, at=at, origin=Origin.PLAN)

        # The fifth, of whatever kind, is one too many.
        assert await fails(store, name, AGAIN, at=at) is Reason.ATTEMPTS_EXHAUSTED
        manual = await ask(store, Origin.MANUAL, at=at)
        assert isinstance(manual, Refused)
        assert manual.why is Refusal.EXHAUSTED
        item = await by_plan(store, 4, at=at)
        assert (item.state, item.reason.partition(":")[0]) == (ItemState.SKIPPED, "exhausted")

    run(scenario)


def test_an_approval_is_under_the_same_cap(run):
    async def scenario(store):
        await fails(store, "r1", TELL, at=NOW)
        name = "r1"
        for attempt in (1, 2, 3, 4):
            assert isinstance(await ask(store, Origin.MANUAL, at=NOW), Ordered)
            name = await submit(store, attempt, at=NOW)
            await fails(store, name, ASK if attempt == 4 else TELL, at=NOW)
        assert await state_of(store) == (State.HELD, 4)
        assert (await ask(store, Origin.APPROVAL, at=NOW)).why is Refusal.EXHAUSTED

    run(scenario)


@pytest.mark.parametrize("kind", [*Origin][:4])
@pytest.mark.parametrize("late", [False, True], ids=["in time", "late"])
def test_no_re_run_of_any_kind_is_due_past_the_deadline_of_its_failure(run, kind, late):
    """The deadline runs from the first failure, however often, and by whom, it was run again since."""

    async def scenario(store):
        await fails(store, "r1", TELL, at=NOW)
        assert isinstance(await ask(store, Origin.MANUAL, at=NOW + 9 * HOUR), Ordered)
        at = NOW + (11 if late else 9) * HOUR
        name = await submit(store, 1, at=NOW + 9 * HOUR)
        rules = {Origin.AUTOMATIC: AGAIN, Origin.APPROVAL: ASK}.get(kind, TELL)
        reason = await fails(store, name, rules, at=at)
        match kind:
            case Origin.AUTOMATIC:
                assert reason is (Reason.TOO_OLD if late else Reason.MATCHED)
            case Origin.PLAN:
                item = await by_plan(store, 1, at=at)
                assert (item.state, item.reason.partition(":")[0]) == (
                    (ItemState.SKIPPED, "too_late") if late else (ItemState.ORDERED, "")
                )
            case _:
                answer = await ask(store, kind, at=at)
                assert answer.why is Refusal.TOO_LATE if late else isinstance(answer, Ordered)

    run(scenario)
