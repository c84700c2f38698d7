"""What every store promises about plans of re-runs: made in pieces, steered in one transaction, carried out by settling."""

from dataclasses import replace
from datetime import timedelta

import make
import pytest

from triage.changes import Changes, Commit, NewRow, RowKind, Settle
from triage.decide import decide_batch
from triage.effects import decided
from triage.errors import PlanRefused
from triage.orders import Limits, Order
from triage.plans import Say, about, applied, cancelled, paused, plan_step, planned, resumed
from triage.reactions import submitted
from triage.reruns.gate import Gate
from triage.reruns.lineage import Origin, task_id
from triage.reruns.plan import ItemState, Plan, PlanHash, PlanItem, PlanState
from triage.rules.model import AlertPolicy

NOW = make.NOW
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
RULES = make.rules(make.rule("tell", alert=AlertPolicy()))
ANNA, BO = Say("anna", "the parser is mended"), Say("bo", "too many at once")
EMPTY = dict.fromkeys(ItemState, 0)


async def failed(store, *request_ids, at=NOW):
    """So many failures, of which a person is to be told."""
    await take(store, *(make.envelope(request_id) for request_id in request_ids), at=at)


async def take(store, *envelopes, at=NOW):
    arrivals = [make.arrived(envelope, at=at) for envelope in envelopes]
    decisions = decide_batch(arrivals, await store.load_facts(arrivals), RULES, now=at)
    pairs = zip(arrivals, decisions, strict=True)
    await store.commit(Commit(now=at, rule_set="rs", decided=tuple(decided(a, d) for a, d in pairs)))


DRAFT = Plan("draft-1", PlanState.DRAFT, NOW, "anna", "why", {"group": "v1"}, qualifier="blue")


async def freeze(store, *items, at=NOW, draft=DRAFT):
    """A plan of these items, made in two pieces."""
    number = await store.new_plan(replace(draft, created_at=at))
    await store.add_plan_items(number, items[:1])
    await store.add_plan_items(number, items[1:])
    digest = PlanHash(created_at=at, qualifier=draft.qualifier)
    for item in items:
        digest.add(item.request_id, root=item.root, attempt=item.attempt)
    frozen = replace(draft, created_at=at, hash=digest.hexdigest(), functions={"my-fc-job": len(items)})
    await store.freeze_plan(number, planned(frozen, ANNA, now=at), now=at)
    return frozen.hash


def items(*request_ids, attempt=0):
    return [PlanItem(request_id, request_id, attempt) for request_id in request_ids]


def start(known, sizes=(1, 2), threshold=80, now=NOW, **more):
    return applied(known, ANNA, threshold=threshold, sizes=sizes, to=("default",), now=now, **more)


async def step(store, *, now):
    """Claim what is due, and let a plan's row take its turn; the other rows stay claimed."""
    for row in await store.claim_due(now=now, lease=MINUTE, limit=100):
        if row.kind is RowKind.PLAN_STEP:
            assert await store.settle(
                row, lambda facts, row=row: plan_step(row, facts, limits=Limits(), now=now), now=now
            )
    return await store.totals()


def row_of(plan):
    return NewRow(f"plan:{plan}", RowKind.PLAN_STEP, NOW, {"plan": plan})


async def states(store, plan):
    return [(row.request_id, row.state.value, row.step) for row in await store.plan_items(plan, limit=100)]


def test_a_plan_is_what_was_written_and_a_draft_is_none(run):
    async def scenario(store):
        await failed(store, "r1", "r2", "r3")
        number = await store.new_plan(replace(DRAFT, hash="draft-2"))
        await store.add_plan_items(number, items("r1"))
        assert await store.plans(limit=10) == []
        assert await store.plan("draft") is None
        assert (await store.totals()).plans == {}
        held = PlanItem("r2", "r2", 0, "healed: a re-run has succeeded meanwhile")
        plan = await freeze(store, *items("r1"), held, *items("r3"))
        found = await store.plan(plan[:6])
        assert found == await store.plan(plan)
        assert await store.plans(limit=10) == [found]
        assert found == Plan(
            hash=plan,
            state=PlanState.PLANNED,
            created_at=NOW,
            by="anna",
            reason="why",
            selection={"group": "v1"},
            qualifier="blue",
            counts={**EMPTY, ItemState.WAITING: 2, ItemState.EXCLUDED: 1},
            changed_at=NOW,
            functions={"my-fc-job": 3},
        )
        assert found.size == 2
        assert await states(store, plan) == [("r1", "waiting", 0), ("r2", "excluded", 0), ("r3", "waiting", 0)]
        assert await store.excluded(plan) == {"healed": 1}
        assert [row.reason for row in await store.plan_items(plan, state=ItemState.EXCLUDED, limit=9)] == [held.reason]
        (deed,) = await store.deeds_about(about(found))
        assert (deed["by"], deed["action"], deed["reason"]) == ("anna", "plan", ANNA.reason)
        totals = await store.totals()
        assert (totals.plans, totals.plan_items) == ({"planned": 1}, {})

    run(scenario)


def test_items_are_read_in_pieces(run):
    async def scenario(store):
        names = [f"r{number}" for number in range(5)]
        await failed(store, *names)
        plan = await freeze(store, *items(*names))
        first = await store.plan_items(plan, limit=3)
        rest = await store.plan_items(plan, after=first[-1].id, limit=3)
        assert [row.request_id for row in (*first, *rest)] == names

    run(scenario)


def test_plans_are_listed_the_newest_first_and_found_by_a_unique_prefix(run):
    async def scenario(store):
        await failed(store, "r1")
        hashes = [await freeze(store, *items("r1"), at=NOW + number * SECOND) for number in range(20)]
        assert [plan.hash for plan in await store.plans(limit=3)] == hashes[:-4:-1]
        assert await store.plan("") is None
        assert await store.plan("no such hash") is None
        assert (await store.plan(hashes[3])).hash == hashes[3]

    run(scenario)


def test_a_draft_is_discarded_with_its_items_and_a_plan_is_not(run):
    async def scenario(store):
        await failed(store, "r1", "r2")
        plan = await freeze(store, *items("r1", "r2"))
        number = await store.new_plan(replace(DRAFT, hash="draft-2", created_at=NOW + MINUTE))
        await store.add_plan_items(number, items("r1"))
        assert await store.old_drafts(NOW + MINUTE) == []
        assert await store.old_drafts(NOW + 2 * MINUTE) == [number]
        while not await store.discard_draft(number):
            pass
        assert await store.old_drafts(NOW + 2 * MINUTE) == []
        for other in (1, number):
            assert await store.discard_draft(other)
        assert len(await store.plan_items(plan, limit=10)) == 2
        assert (await store.plan(plan)).size == 2

    run(scenario)


def test_a_plan_is_moved_by_what_a_person_says_or_not_at_all(run):
    async def scenario(store):
        await failed(store, "r1")
        plan = await freeze(store, *items("r1"))
        assert await store.move_plan("unknown", start, now=NOW) is None
        with pytest.raises(PlanRefused, match="cannot be paused: it is planned"):
            await store.move_plan(plan, lambda known: paused(known, BO, now=NOW), now=NOW)
        late = NOW + timedelta(hours=25)
        with pytest.raises(PlanRefused, match="make a new one"):
            await store.move_plan(plan, lambda known: start(known, now=late), now=late)
        assert len(await store.deeds_about(f"plan:{plan}")) == 1
        moved = await store.move_plan(plan[:8], start, now=NOW + SECOND)
        assert (moved.state, moved.step, moved.sizes) == (PlanState.RUNNING, 1, (1, 2))
        assert moved == await store.plan(plan)
        with pytest.raises(PlanRefused, match="cannot be applied: it is running"):
            await store.move_plan(plan, start, now=NOW)
        totals = await store.totals()
        assert totals.outbox["plan_step"] == 1
        assert (totals.plans, totals.plan_items) == ({"running": 1}, {"waiting": 1})
        assert [deed["action"] for deed in await store.deeds_about(f"plan:{plan}")] == ["plan", "plan apply"]

    run(scenario)


def test_a_step_orders_so_many_waits_for_their_results_and_grows(run):
    async def scenario(store):
        names = [f"r{number}" for number in range(4)]
        await failed(store, *names)
        plan = await freeze(store, *items(*names))
        await store.move_plan(plan, start, now=NOW)
        totals = await step(store, now=NOW)
        assert totals.outbox["rerun"] == 1
        assert totals.states == {"alerting": 3, "rerun_pending": 1}
        assert totals.plan_items == {"waiting": 3, "ordered": 1}
        at = NOW + MINUTE
        assert (await step(store, now=at)).outbox["rerun"] == 1, "the result is awaited"
        await take(store, make.success(task_id("r0", 1)), at=at)
        at += MINUTE
        await step(store, now=at)
        totals = await step(store, now=at)
        assert totals.plan_items == {"waiting": 1, "ordered": 2, "succeeded": 1}
        await take(store, *(make.success(task_id(name, 1)) for name in ("r1", "r2")), at=at)
        for _ in range(3):
            at += MINUTE
            await step(store, now=at)
        await take(store, make.success(task_id("r3", 1)), at=at)
        totals = await step(store, now=at + MINUTE)
        assert totals.states == {"healed": 4}
        assert (totals.plans, totals.plan_items) == ({"done": 1}, {})
        assert "plan_step" not in totals.outbox
        assert await states(store, plan) == [
            ("r0", "succeeded", 1),
            ("r1", "succeeded", 2),
            ("r2", "succeeded", 2),
            ("r3", "succeeded", 3),
        ]
        detail = await store.failure("r0")
        (deed,) = detail.lineage["deeds"]
        assert (deed["by"], deed["action"], deed["reason"]) == ("anna", "plan", f"plan {plan[:12]}: {ANNA.reason}")

    run(scenario)


def test_a_bad_step_stops_the_plan_tells_somebody_and_keeps_the_rest(run):
    async def scenario(store):
        await failed(store, "r1", "r2", "r3")
        plan = await freeze(store, *items("r1", "r2", "r3"))
        await store.move_plan(plan, start, now=NOW)
        await step(store, now=NOW)
        await failed(store, task_id("r1", 1), at=NOW + SECOND)
        totals = await step(store, now=NOW + MINUTE)
        found = await store.plan(plan)
        assert found.state is PlanState.STOPPED
        assert found.note == "1 of 1 re-runs of step 1 failed; 80 % have to succeed"
        assert totals.plan_items == {"waiting": 2, "failed": 1}
        assert "plan_step" not in totals.outbox
        flushes = [row for row in await store.claim_due(now=NOW + MINUTE, lease=MINUTE, limit=99) if row.group]
        views = []
        for row in flushes:
            await store.settle(row, lambda facts: views.append(facts.group) or Settle.done(), now=NOW + MINUTE)
        (told,) = [view for view in views if view.group.labels["condition"] == "plan stopped"]
        assert told.samples[0].detail == "2 are left, and are kept"
        moved = await store.move_plan(plan, lambda known: resumed(known, BO, now=NOW + MINUTE), now=NOW + MINUTE)
        assert (moved.state, moved.step, moved.rung) == (PlanState.RUNNING, 2, 0)
        totals = await step(store, now=NOW + MINUTE)
        assert totals.plan_items == {"waiting": 1, "ordered": 1, "failed": 1}

    run(scenario)


def test_what_has_changed_since_is_skipped_with_the_reason(run):
    async def scenario(store):
        await failed(store, "healed", "again", "twice", "same")
        plan = await freeze(store, *items("healed", "again", "twice", "same"), *items("gone"))
        await rerun(store, "healed", "again", "twice")
        await take(store, make.success(task_id("healed", 1)), at=NOW)
        await failed(store, task_id("again", 1))
        await store.move_plan(plan, lambda known: start(known, sizes=(2,)), now=NOW)
        for number in range(4):
            await step(store, now=NOW + number * MINUTE)
        rows = {row.request_id: row for row in await store.plan_items(plan, limit=10)}
        assert {name: row.state for name, row in rows.items()} == {
            "healed": ItemState.SKIPPED,
            "again": ItemState.SKIPPED,
            "twice": ItemState.SKIPPED,
            "same": ItemState.ORDERED,
            "gone": ItemState.SKIPPED,
        }
        assert rows["healed"].reason == "changed: it has been run again meanwhile (re-run 1)"
        assert rows["gone"].reason.startswith("unknown_id: ")
        assert await store.excluded(plan) == {"changed": 3, "unknown_id": 1}

    run(scenario)


async def rerun(store, *request_ids):
    order = Order(Origin.MANUAL, "bo", "by hand", NOW)
    await store.order(request_ids, order, limits=Limits(), now=NOW)


@pytest.mark.parametrize("say", [paused, cancelled])
def test_a_plan_that_is_halted_orders_nothing_more_but_gets_its_results(run, say):
    async def scenario(store):
        await failed(store, "r1", "r2")
        plan = await freeze(store, *items("r1", "r2"))
        await store.move_plan(plan, start, now=NOW)
        await step(store, now=NOW)
        await store.move_plan(plan, lambda known: say(known, BO, now=NOW), now=NOW)
        await take(store, make.success(task_id("r1", 1)), at=NOW)
        at = NOW
        for _ in range(3):
            at += MINUTE
            totals = await step(store, now=at)
        assert totals.outbox.get("plan_step", 0) == 0
        assert await states(store, plan) == [("r1", "succeeded", 1), ("r2", "waiting", 0)]
        if say is cancelled:
            with pytest.raises(PlanRefused, match="cannot be resumed: it is cancelled"):
                await store.move_plan(plan, lambda known: resumed(known, BO, now=at), now=at)
            return
        await store.move_plan(plan, lambda known: resumed(known, BO, now=at), now=at)
        for _ in range(2):
            totals = await step(store, now=at)
        assert await states(store, plan) == [("r1", "succeeded", 1), ("r2", "ordered", 2)]

    run(scenario)


@pytest.mark.parametrize("end", ["stopped", "cancelled"])
def test_a_plan_that_is_over_calls_back_what_was_not_submitted(run, end):
    """One of three re-runs has its result, one is submitted just now, one waits for its turn."""

    async def scenario(store):
        await failed(store, "r1", "r2", "r3", "r4")
        plan = await freeze(store, *items("r1", "r2", "r3", "r4"))
        await store.move_plan(plan, lambda known: start(known, sizes=(3,)), now=NOW)
        await step(store, now=NOW)
        submits = {
            row.root: row
            for row in await store.claim_due(now=NOW, lease=2 * MINUTE, limit=99)
            if row.kind is RowKind.RERUN
        }
        assert await store.admit(submits["r2"], lambda _: Settle.go(), now=NOW)
        wait = Settle.wait(Gate.FUNCTION_RATE, due_at=NOW + 9 * MINUTE, note="its turn is later")
        assert await store.admit(submits["r3"], lambda _: wait, now=NOW) is None
        if end == "stopped":
            await failed(store, task_id("r1", 1), at=NOW)
        else:
            await take(store, make.success(task_id("r1", 1)), at=NOW)
            await store.move_plan(plan, lambda known: cancelled(known, BO, now=NOW), now=NOW)
        at = NOW + MINUTE
        totals = await step(store, now=at)
        first = "failed" if end == "stopped" else "succeeded"
        assert (totals.plans, totals.outbox["rerun"], totals.outbox["plan_step"]) == ({end: 1}, 1, 1)
        assert await states(store, plan) == [
            ("r1", first, 1),
            ("r2", "ordered", 1),
            ("r3", "waiting", 0),
            ("r4", "waiting", 0),
        ]
        detail = await store.failure("r3")
        assert (detail.row.state, detail.lineage["attempt"]) == ("alerting", 1)
        assert await store.settle(submits["r2"], lambda facts: accept(submits["r2"], facts, at), now=at)
        await take(store, make.success(task_id("r2", 1)), at=at)
        totals = await step(store, now=at + MINUTE)
        assert not {"rerun", "plan_step"} & set(totals.outbox)
        assert (await states(store, plan))[1] == ("r2", "succeeded", 1)
        if end == "stopped":  # what was called back is the next to be ordered, as an attempt of its own
            await store.move_plan(plan, lambda known: resumed(known, BO, now=at), now=at)
            await step(store, now=at + 2 * MINUTE)
            assert await states(store, plan) == [
                ("r1", first, 1),
                ("r2", "succeeded", 1),
                ("r3", "ordered", 2),
                ("r4", "ordered", 2),
            ]
            assert (await store.failure("r3")).lineage["attempt"] == 2

    run(scenario)


def accept(row, facts, at):
    return submitted(row, facts, request_id="2-new", now=at)


def test_a_claim_that_was_lost_moves_no_plan(run):
    async def scenario(store):
        await failed(store, "r1")
        plan = await freeze(store, *items("r1"))
        await store.move_plan(plan, start, now=NOW)
        (row,) = [
            row for row in await store.claim_due(now=NOW, lease=SECOND, limit=99) if row.kind is RowKind.PLAN_STEP
        ]
        (again,) = [
            row
            for row in await store.claim_due(now=NOW + MINUTE, lease=MINUTE, limit=99)
            if row.kind is RowKind.PLAN_STEP
        ]

        def react(facts):
            return plan_step(row, facts, limits=Limits(), now=NOW)

        assert not await store.settle(row, react, now=NOW)
        assert (await store.totals()).plan_items == {"waiting": 1}
        assert await store.settle(again, react, now=NOW)
        assert (await store.totals()).plan_items == {"ordered": 1}

    run(scenario)


def test_a_row_of_a_plan_that_is_not_there_is_given_up(run):
    async def scenario(store):
        await take(store, make.envelope("r1"))
        await store.move_plan(await freeze(store, *items("r1")), start, now=NOW)
        (row,) = [
            row for row in await store.claim_due(now=NOW, lease=SECOND, limit=99) if row.kind is RowKind.PLAN_STEP
        ]
        seen = []
        await store.settle(
            row,
            lambda facts: seen.append(facts.plan) or Settle.done(changes=Changes(rows=(row_of("gone"),))),
            now=NOW,
        )
        assert seen[0] is not None
        (row,) = [
            row for row in await store.claim_due(now=NOW, lease=SECOND, limit=99) if row.kind is RowKind.PLAN_STEP
        ]
        settled = []

        def react(facts):
            settled.append(plan_step(row, facts, limits=Limits(), now=NOW))
            return settled[-1]

        await store.settle(row, react, now=NOW)
        assert settled[0].note == "the plan is gone"
        assert (await store.totals()).outbox.get("plan_step", 0) == 0

    run(scenario)
