"""The life of a plan, its hash, and how its steps are judged."""

from datetime import timedelta

import make
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.errors import IllegalTransition
from triage.facts import Lineage
from triage.reruns.plan import (
    SIZES,
    ItemState,
    PlanEvent,
    PlanHash,
    PlanState,
    Verdict,
    advance_plan,
    judge,
    result_of,
    steps_of,
)
from triage.states import State

ORDERED, SUCCEEDED, FAILED = ItemState.ORDERED, ItemState.SUCCEEDED, ItemState.FAILED


@given(st.lists(st.sampled_from(PlanEvent), max_size=30))
def test_a_plan_is_applied_at_most_once_and_ends_for_good(events):
    state, applied = PlanState.DRAFT, 0
    for event in events:
        try:
            moved = advance_plan(state, event)
        except IllegalTransition:
            continue
        assert state not in (PlanState.DONE, PlanState.CANCELLED)
        applied += event is PlanEvent.APPLY
        state = moved
    assert applied <= 1


def _hash(*items, at=make.NOW, qualifier=""):
    plan = PlanHash(created_at=at, qualifier=qualifier)
    for request_id, root, attempt in items:
        plan.add(request_id, root=root, attempt=attempt)
    return plan.hexdigest()


def test_the_hash_covers_every_item_their_order_and_what_is_run():
    items = ("r1", "r1", 0), ("r3", "r2", 1)
    assert _hash(*items) == _hash(*items)
    others = [
        _hash(*reversed(items)),
        _hash(items[0]),
        _hash(items[0], ("r3", "r2", 2)),
        _hash(items[0], ("r3", "r9", 1)),
        _hash(*items, qualifier="blue"),
        _hash(*items, at=make.NOW + timedelta(microseconds=1)),
        _hash(("r1", "r1", 0), ("r3\x1fr2", "", 1)),
    ]
    assert len({_hash(*items), *others}) == 1 + len(others)


def _lineage(state, attempt):
    return Lineage("r1", state, attempt, make.NOW, "rule", 3)


@pytest.mark.parametrize(
    ("state", "attempt", "result"),
    [
        (State.RERUN_PENDING, 2, ORDERED),
        (State.RERUNNING, 2, ORDERED),
        (State.UNKNOWN, 2, ORDERED),
        (State.HEALED, 2, SUCCEEDED),
        (State.HEALED, 3, SUCCEEDED),
        (State.RERUN_PENDING, 3, FAILED),  # it failed, and a rule runs it again
        (State.ALERTING, 2, FAILED),
        (State.ALERTED, 2, FAILED),
        (State.IGNORED, 2, FAILED),
        (State.HELD, 2, FAILED),
    ],
)
def test_the_result_is_that_of_the_attempt_that_was_ordered(state, attempt, result):
    assert result_of(_lineage(state, attempt), attempt=2) is result


def test_a_failure_that_is_gone_has_not_succeeded():
    assert result_of(None, attempt=1) is FAILED


@pytest.mark.parametrize(
    ("results", "size", "more", "verdict"),
    [
        ([], 1, True, Verdict.OPEN),
        ([ORDERED], 1, True, Verdict.OPEN),
        ([SUCCEEDED], 1, True, Verdict.PASSED),
        ([FAILED], 1, True, Verdict.BAD),
        ([SUCCEEDED, FAILED], 2, True, Verdict.BAD),
        ([SUCCEEDED, ORDERED], 2, True, Verdict.OPEN),
        ([FAILED, *[SUCCEEDED] * 4], 5, True, Verdict.PASSED),
        ([FAILED, FAILED, *[ORDERED] * 3], 5, True, Verdict.BAD),  # no need to wait for the others
        ([FAILED], 5, True, Verdict.OPEN),  # four more may be ordered
        ([SUCCEEDED] * 3, 5, False, Verdict.PASSED),  # the last step is shorter
        ([FAILED, SUCCEEDED, SUCCEEDED], 5, False, Verdict.BAD),
        ([], 5, False, Verdict.PASSED),  # all that was left was skipped
    ],
)
def test_a_step_is_over_with_its_last_result_or_when_it_cannot_pass_any_more(results, size, more, verdict):
    assert judge(results, size=size, more=more, threshold=80) is verdict


@given(st.lists(st.sampled_from([ORDERED, SUCCEEDED, FAILED]), max_size=60), st.integers(1, 100), st.booleans())
def test_a_step_that_has_passed_has_all_results_and_enough_good_ones(results, threshold, more):
    size = max(len(results), 1)
    verdict = judge(results, size=size, more=more, threshold=threshold)
    if verdict is Verdict.PASSED:
        assert ORDERED not in results
        assert 100 * results.count(SUCCEEDED) >= threshold * len(results)
    # More good results never make it worse, more bad ones never better.
    good = judge(
        [SUCCEEDED if each is ORDERED else each for each in results], size=size, more=more, threshold=threshold
    )
    assert verdict is not Verdict.BAD or good is Verdict.BAD
    bad = judge([FAILED if each is ORDERED else each for each in results], size=size, more=more, threshold=threshold)
    assert verdict is not Verdict.BAD or bad is Verdict.BAD


@given(st.integers(0, 10_000), st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_the_number_of_steps_is_that_of_taking_them_one_by_one(size, sizes):
    left, taken = size, 0
    while left > 0:
        left -= sizes[min(taken, len(sizes) - 1)]
        taken += 1
    assert steps_of(size, sizes) == taken


def test_the_usual_steps_of_a_large_plan():
    assert steps_of(100_000, SIZES) == 5 + -(-(100_000 - 78) // 50)
