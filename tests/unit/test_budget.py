"""The budget of re-runs: a share of the successes, a floor, a cap."""

from dataclasses import replace
from datetime import timedelta

import make
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.reruns.budget import Allowance, Budget, left, next_at, spent

NOW = make.NOW
SECOND = timedelta(seconds=1)
USUAL = Allowance(share=0.1, floor=10, cap=1000)
SHARE_ONLY = Allowance(share=0.1, floor=0, cap=1000)


def spend_all(budget, allowance, *, now=NOW, share=None, most=5000):
    for number in range(most):
        after = spent(budget, allowance, now=now, share=share)
        if after is None:
            return number, budget
        budget = after
    return most, budget


def test_a_new_function_has_a_minute_s_worth_of_the_floor():
    assert spend_all(Budget(), USUAL)[0] == 10


def test_the_floor_gives_one_every_few_seconds_and_saves_up_a_minute():
    _, empty = spend_all(Budget(), USUAL)
    assert next_at(empty, USUAL, now=NOW) == NOW + 6 * SECOND
    assert spend_all(empty, USUAL, now=NOW + 5.9 * SECOND)[0] == 0
    assert spend_all(empty, USUAL, now=NOW + 6 * SECOND)[0] == 1
    assert spend_all(empty, USUAL, now=NOW + 3600 * SECOND)[0] == 10


def test_successes_earn_a_share():
    assert spend_all(Budget(credit=100), SHARE_ONLY)[0] == 10
    assert spend_all(Budget(credit=100), USUAL)[0] == 20


def test_a_rule_may_say_what_a_success_is_worth():
    assert spend_all(Budget(credit=100), SHARE_ONLY, share=0.2)[0] == 20
    assert spend_all(Budget(credit=100), SHARE_ONLY, share=0.05)[0] == 5


def test_no_more_than_the_cap_is_saved_up():
    assert spend_all(Budget(credit=1e9), SHARE_ONLY)[0] == 1000


def test_without_share_and_floor_there_is_none():
    nothing = Allowance(share=0, floor=0, cap=10)
    assert spent(Budget(credit=1e9), nothing, now=NOW) is None
    assert left(Budget(credit=1e9), nothing, now=NOW) == 0
    assert next_at(Budget(), nothing, now=NOW) > NOW


ALLOWANCES = st.builds(
    Allowance,
    share=st.sampled_from([0, 0.01, 0.1, 1]),
    floor=st.sampled_from([0, 0.5, 1, 10, 1000]),
    cap=st.floats(0, 50),
)
STEPS = st.lists(st.tuples(st.integers(0, 300), st.floats(0, 90), st.sampled_from([None, 0.05, 0.5])), max_size=40)


@given(ALLOWANCES, STEPS)
def test_it_is_never_negative_nor_above_what_it_may_hold(allowance, steps):
    budget, now = Budget(), NOW
    for successes, wait, share in steps:
        now += wait * SECOND
        budget = replace(budget, credit=budget.credit + successes)
        for _ in range(3):
            there = left(budget, allowance, now=now)
            assert 0 <= there <= allowance.cap + allowance.floor_burst + 1e-9
            budget = spent(budget, allowance, now=now, share=share) or budget
            assert budget.credit >= 0
            assert budget.floor_from is None or budget.floor_from <= now


@given(ALLOWANCES, STEPS)
def test_it_gives_no_more_than_the_share_of_the_successes_and_the_floor(allowance, steps):
    budget, now, given_, earned = Budget(), NOW, 0, 0
    for successes, wait, _ in steps:
        now += wait * SECOND
        earned += successes
        budget = replace(budget, credit=budget.credit + successes)
        number, budget = spend_all(budget, allowance, now=now)
        given_ += number
    minutes = (now - NOW) / timedelta(minutes=1)
    floor = allowance.floor * minutes + allowance.floor_burst if allowance.floor else 0
    assert given_ <= allowance.share * earned + floor + 0.01


@given(ALLOWANCES, STEPS)
def test_what_is_left_can_be_spent(allowance, steps):
    budget, now = Budget(), NOW
    for successes, wait, _ in steps:
        now += wait * SECOND
        budget = replace(budget, credit=budget.credit + successes)
        there = left(budget, allowance, now=now)
        number, budget = spend_all(budget, allowance, now=now)
        # What is left of either part is less than one, so nearly two may be left in all.
        assert there - 2 < number <= there + 0.001 + (number and 1e-6)
        assert left(budget, allowance, now=now) < 2


def test_the_floor_goes_first():
    budget = spent(Budget(credit=100), USUAL, now=NOW)
    assert budget.credit == 100
    assert left(budget, USUAL, now=NOW) == pytest.approx(19)
