"""The circuit breaker: what trips it, and how it comes back. Its table: `test_state_machines`."""

from dataclasses import replace
from datetime import timedelta

import make
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.reruns.breaker import (
    ENOUGH,
    WINDOW,
    Breaker,
    BreakerState,
    Tripping,
    admits,
    counted,
    judged,
    submitted,
)

NOW = make.NOW
SECOND = timedelta(seconds=1)
TRIPPING = Tripping(failures=5, share=0.5, pause=30 * SECOND, longest=120 * SECOND)
CLOSED, OPEN, HALF_OPEN = BreakerState
HEARD = Breaker(heard=True, counted_from=NOW)


def results(breaker, told):
    """After results, ``+`` for each success and ``-`` for each failure."""
    for each in told:
        breaker = counted(breaker, succeeded=each == "+")
    return breaker


@pytest.mark.parametrize(
    ("breaker", "state"),
    [
        (results(HEARD, "-" * 4), CLOSED),
        (results(HEARD, "-" * 5), OPEN),
        (results(HEARD, "----+-"), CLOSED),
        (results(HEARD, "+-" * 10), OPEN),
        (results(HEARD, "+-" * 9), CLOSED),
        (results(HEARD, "++-" * 10), CLOSED),
        (results(replace(HEARD, heard=False), "-" * 19), CLOSED),
        (results(replace(HEARD, heard=False), "-" * 20), OPEN),
        (results(replace(HEARD, heard=False, submitted=100), "-" * 40), CLOSED),
        (results(replace(HEARD, heard=False, submitted=100), "-" * 50), OPEN),
        (results(replace(HEARD, counted_from=NOW - WINDOW - SECOND), "-" * 50), CLOSED),
    ],
    ids=[
        "too few in a row", "in a row", "a success between", "half of enough", "half of too few", "a third",
        "no success is heard of: in a row is not enough", "none is heard of: enough", "none is heard of: many more submits",
        "none is heard of: half of the submits", "long ago",
    ],
)  # fmt: skip
def test_it_opens_when_too_many_re_runs_fail(breaker, state):
    assert judged(breaker, TRIPPING, now=NOW).state is state


def opened():
    return judged(results(HEARD, "-" * 5), TRIPPING, now=NOW)


def test_while_it_is_open_nothing_goes_and_after_the_pause_one_does():
    breaker = opened()
    assert not admits(breaker, now=NOW + 29 * SECOND)
    at = NOW + 30 * SECOND
    assert admits(breaker, now=at)
    probing = submitted(breaker, TRIPPING, now=at)
    assert probing.state is HALF_OPEN
    assert not admits(probing, now=at)


def test_what_comes_in_while_it_is_open_is_no_result_of_the_probe():
    breaker = results(opened(), "+-")
    assert judged(breaker, TRIPPING, now=NOW).state is OPEN
    assert submitted(breaker, TRIPPING, now=NOW + 30 * SECOND).bad == 0


def test_a_probe_that_succeeds_closes_it():
    probing = results(submitted(opened(), TRIPPING, now=NOW + 30 * SECOND), "+")
    closed = judged(probing, TRIPPING, now=NOW + 31 * SECOND)
    assert (closed.state, closed.ok, closed.until) == (CLOSED, 0, None)


def test_each_probe_that_fails_doubles_the_pause_up_to_the_longest():
    breaker, now, pauses = opened(), NOW, []
    for _ in range(4):
        now = breaker.until
        breaker = judged(results(submitted(breaker, TRIPPING, now=now), "-"), TRIPPING, now=now)
        assert breaker.state is OPEN
        pauses.append((breaker.until - now) / SECOND)
    assert pauses == [60, 120, 120, 120]


def test_another_probe_goes_when_the_first_one_is_long_in_coming():
    probing = submitted(opened(), TRIPPING, now=NOW + 30 * SECOND)
    later = NOW + 60 * SECOND
    assert judged(probing, TRIPPING, now=later) == probing
    assert admits(probing, now=later)
    assert submitted(probing, TRIPPING, now=later).state is HALF_OPEN


def test_where_no_success_is_heard_of_no_news_is_good_news():
    unheard = judged(results(replace(HEARD, heard=False), "-" * ENOUGH), TRIPPING, now=NOW)
    probing = submitted(unheard, TRIPPING, now=NOW + 30 * SECOND)
    assert judged(probing, TRIPPING, now=NOW + 59 * SECOND).state is HALF_OPEN
    assert judged(probing, TRIPPING, now=NOW + 60 * SECOND).state is CLOSED
    assert judged(results(probing, "-"), TRIPPING, now=NOW + 60 * SECOND).state is OPEN


BREAKERS = st.builds(
    Breaker,
    state=st.sampled_from(BreakerState),
    ok=st.integers(0, 50),
    bad=st.integers(0, 50),
    streak=st.integers(0, 50),
    submitted=st.integers(0, 50),
    counted_from=st.none() | st.sampled_from([NOW, NOW - WINDOW, NOW - 2 * WINDOW]),
    until=st.none() | st.sampled_from([NOW - SECOND, NOW, NOW + SECOND]),
    pause=st.sampled_from([timedelta(0), SECOND, 600 * SECOND]),
    heard=st.booleans(),
)


@given(BREAKERS, st.lists(st.tuples(st.sampled_from(["ok", "bad", "ask"]), st.integers(0, 700)), max_size=30))
def test_any_breaker_takes_any_event(breaker, events):
    now = NOW
    for event, seconds in events:
        now += seconds * SECOND
        if event == "ask":
            breaker = judged(breaker, TRIPPING, now=now)
            assert judged(breaker, TRIPPING, now=now) == breaker, "judging twice changes nothing"
            if admits(breaker, now=now):
                breaker = submitted(breaker, TRIPPING, now=now)
                assert breaker.state is not OPEN
        else:
            breaker = counted(breaker, succeeded=event == "ok")
        assert min(breaker.ok, breaker.bad, breaker.streak, breaker.submitted) >= 0
        assert breaker.pause <= max(TRIPPING.longest, 600 * SECOND)


@given(st.integers(1, 400))
def test_single_probes_are_let_through_while_all_fail(seconds):
    """However often a re-run asks, few go."""
    breaker, gone = opened(), 0
    for second in range(seconds):
        now = NOW + second * SECOND
        breaker = judged(breaker, TRIPPING, now=now)
        for _ in range(10):
            if admits(breaker, now=now):
                breaker = submitted(breaker, TRIPPING, now=now)
                gone += 1
        if breaker.state is HALF_OPEN:
            breaker = counted(breaker, succeeded=False)
    assert gone <= 1 + seconds // 30
