"""A plan at work: what one look at it does, and that no step ever orders more than it may."""

from dataclasses import replace
from datetime import timedelta

import make
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.changes import RowKind
from triage.errors import PlanRefused
from triage.facts import Lineage
from triage.orders import Limits
from triage.plans import LOOK_AGAIN, Say, applied, cancelled, paused, plan_step, resumed
from triage.reruns.lineage import Stored, task_id
from triage.reruns.plan import (
    ItemState,
    OrderedItem,
    Plan,
    PlanState,
    PlanView,
    WaitingItem,
    estimate,
    room,
)
from triage.rules.model import Cause
from triage.states import RowState, State
from triage.views import OutboxRow, RowFacts

NOW = make.NOW
SAY = Say("anna", "mended")
LIMITS = Limits()
PLAN = Plan("c0ffee" * 10, PlanState.PLANNED, NOW, "anna", "mended", {"group": "v1"}, counts={ItemState.WAITING: 9})
ROW = OutboxRow(1, "plan:x", RowKind.PLAN_STEP, RowState.PENDING, NOW, {}, "", "", 1, interrupted=False, token="t")


class Simulation:
    """Keeps what a store would: the plan, its items, and the lineage of each."""

    def __init__(self, size, *, sizes=(1, 2, 5), threshold=80):
        self.items = {number: [ItemState.WAITING, 0, 0] for number in range(1, size + 1)}
        self.lineages = {number: Lineage(f"r{number}", State.ALERTED, 0, NOW, "tell", 1) for number in self.items}
        self.plan = replace(PLAN, counts=self._counts())
        self.alerts, self.due, self.now, self.said = [], None, NOW, SAY
        self._take(applied(self.plan, SAY, threshold=threshold, sizes=sizes, to=("default",), now=NOW))

    def _counts(self):
        return {state: sum(item[0] is state for item in self.items.values()) for state in ItemState}

    def _take(self, changes):
        for item in changes.plan.items:
            known = self.items[item.id]
            assert known[0] is item.before
            kept = (known[1] if item.attempt is None else item.attempt, known[2] if item.step is None else item.step)
            self.items[item.id] = [item.after, *kept]
        for lineage in changes.lineages:
            self.lineages[int(lineage.root[1:])] = lineage.written()
        self.plan = replace(changes.plan.plan, counts=self._counts())
        self.alerts += changes.alerts
        if any(row.kind is RowKind.PLAN_STEP for row in changes.rows):
            self.due = self.now

    def say(self, what):
        try:
            self._take(what(self.plan, SAY, now=self.now))
        except PlanRefused:
            return False
        return True

    def view(self):
        ordered = tuple(
            OrderedItem(number, state, attempt, step, self.lineages[number])
            for number, (state, attempt, step) in self.items.items()
            if step and (step == self.plan.step or state is ItemState.ORDERED)
        )
        waiting = [number for number, item in self.items.items() if item[0] is ItemState.WAITING]
        return PlanView(
            self.plan,
            ordered,
            tuple(
                WaitingItem(
                    number, 0, Stored(f"r{number}", make.arrived(make.envelope(f"r{number}")), self.lineages[number])
                )
                for number in waiting[: room(self.plan, ordered)]
            ),
        )

    def look(self):
        """One turn of the plan's row; False when it has none."""
        if self.due is None:
            return False
        self.now = max(self.now, self.due)
        settle = plan_step(ROW, RowFacts(plan=self.view()), limits=LIMITS, now=self.now)
        self._take(settle.changes)
        self.due = settle.due_at if settle.state is RowState.PENDING else None
        return True

    @property
    def in_flight(self):
        return [number for number, item in self.items.items() if item[0] is ItemState.ORDERED]

    def end(self, number, *, well):
        moved = State.HEALED if well else State.ALERTING
        self.lineages[number] = replace(self.lineages[number].moved(moved))

    def of(self, state):
        return [number for number, item in self.items.items() if item[0] is state]

    def run(self, well):
        """Look until nothing is to be looked at; every re-run ends at once, as ``well`` says of its number."""
        turns = 0
        while self.look():
            turns += 1
            assert turns < 10 * len(self.items) + 10, "it gets nowhere"
            for number in self.in_flight:
                self.end(number, well=well(number))
        return self


def test_a_plan_that_goes_well_is_done_in_steps_that_grow():
    done = Simulation(20).run(lambda _: True)
    assert done.plan.state is PlanState.DONE
    steps = [step for _, _, step in done.items.values()]
    assert [steps.count(number) for number in range(1, 7)] == [1, 2, 5, 5, 5, 2]
    assert not done.alerts


def test_a_false_fix_costs_one_re_run():
    stopped = Simulation(100_000).run(lambda _: False)
    assert stopped.plan.state is PlanState.STOPPED
    assert len(stopped.of(ItemState.FAILED)) == 1
    assert len(stopped.of(ItemState.WAITING)) == 99_999
    (alert,) = stopped.alerts
    assert alert.cause is Cause.PLAN_STOPPED
    assert alert.group.receivers == ("default",)
    assert alert.detail == "99999 are left, and are kept"


@pytest.mark.parametrize("lucky", range(3))
def test_a_fix_that_only_seems_to_work_at_first_costs_three_re_runs_at_most(lucky):
    stopped = Simulation(1000).run(lambda number: number <= lucky)
    assert stopped.plan.state is PlanState.STOPPED
    assert 1 <= len(stopped.of(ItemState.FAILED)) <= 3


def test_a_stopped_plan_that_is_resumed_begins_with_one_again():
    plan = Simulation(100).run(lambda number: number < 9)
    failed = len(plan.of(ItemState.FAILED))
    assert plan.plan.state is PlanState.STOPPED
    assert plan.say(resumed)
    plan.look()
    assert len(plan.in_flight) == 1
    plan.run(lambda _: False)
    assert plan.plan.state is PlanState.STOPPED
    assert len(plan.of(ItemState.FAILED)) == failed + 1
    assert len(plan.alerts) == 2
    plan.say(resumed)
    assert plan.run(lambda _: True).plan.state is PlanState.DONE


def test_a_threshold_of_fewer_lets_some_fail():
    done = Simulation(40, sizes=(10,), threshold=50).run(lambda number: number % 2 == 0)
    assert done.plan.state is PlanState.DONE
    assert len(done.of(ItemState.FAILED)) == 20


def test_results_are_looked_at_again_after_a_while_and_ordering_goes_on_at_once():
    plan = Simulation(5)
    plan.look()
    assert plan.due == NOW + LOOK_AGAIN
    plan.end(1, well=True)
    plan.look()
    assert plan.due == plan.now, "the next step may begin"


EVENTS = st.lists(
    st.one_of(
        st.just(("look",)),
        st.tuples(st.just("end"), st.integers(0, 60), st.booleans()),
        st.tuples(st.just("meddle"), st.integers(1, 30), st.sampled_from([State.RERUNNING, State.HEALED, State.HELD])),
        st.tuples(st.just("say"), st.sampled_from([paused, resumed, cancelled])),
    ),
    max_size=120,
)


@given(EVENTS, st.integers(1, 30), st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(1, 100))
def test_whatever_happens_a_step_never_has_more_in_flight_than_it_may(events, size, sizes, threshold):
    plan = Simulation(size, sizes=tuple(sizes), threshold=threshold)
    ever = {}
    for event, *args in events:
        before = plan.plan.state
        match event:
            case "look":
                plan.look()
            case "end" if plan.in_flight:
                plan.end(plan.in_flight[args[0] % len(plan.in_flight)], well=args[1])
            case "meddle" if args[0] in plan.items and plan.items[args[0]][0] is ItemState.WAITING:
                # Somebody else has run it again.
                plan.lineages[args[0]] = plan.lineages[args[0]].moved(args[1], attempt=1)
            case "say":
                plan.say(args[0])
        for number, (state, attempt, step) in plan.items.items():
            if step:
                assert ever.setdefault(number, (attempt, step)) == (attempt, step), "an item is ordered once"
            if before in (PlanState.CANCELLED, PlanState.DONE):
                assert state is not ItemState.ORDERED or number in ever
        steps = [step for _, _, step in plan.items.values() if step]
        assert all(steps.count(step) <= max(sizes) for step in set(steps))
        if plan.in_flight and plan.plan.state is PlanState.RUNNING:
            current = [number for number in plan.in_flight if plan.items[number][2] == plan.plan.step]
            assert len(current) <= plan.plan.step_size
            assert not current or len(current) == len(plan.in_flight), "a step begins when the one before it is over"
        if plan.plan.state is PlanState.DONE:
            assert not plan.of(ItemState.WAITING)
            assert not plan.in_flight
        if plan.in_flight and plan.plan.state is not PlanState.DONE:
            assert plan.due is not None, "a result would never be looked at"


def test_nothing_is_run_again_that_is_not_as_it_was():
    plan = Simulation(3, sizes=(3,))
    plan.lineages[1] = plan.lineages[1].moved(State.HEALED)
    plan.lineages[2] = plan.lineages[2].moved(State.ALERTED, attempt=1)
    plan.look()
    assert plan.in_flight == [3]
    assert plan.of(ItemState.SKIPPED) == [1, 2]


def test_what_is_to_be_expected_says_when_it_guesses():
    plan = replace(PLAN, counts={ItemState.WAITING: 100, ItemState.EXCLUDED: 7})
    guessed = estimate(plan)
    assert (guessed.runs, guessed.steps, guessed.guess) == (100, 6, True)
    known = estimate(replace(plan, typical=timedelta(seconds=10)))
    assert known.executes == timedelta(seconds=1000)
    assert known.lasts == timedelta(seconds=60)
    assert not known.guess
    assert estimate(replace(plan, rung=4), left=100).steps == 2


def test_an_order_of_a_plan_is_one_for_the_attempt_that_comes_next():
    plan = Simulation(1)
    settle = plan_step(ROW, RowFacts(plan=plan.view()), limits=LIMITS, now=NOW)
    (row,) = settle.changes.rows
    assert (row.kind, row.key, row.payload["origin"]) == (RowKind.RERUN, task_id("r1", 1), "plan")
    (item,) = settle.changes.plan.items
    assert (item.after, item.attempt, item.step) == (ItemState.ORDERED, 1, 1)
