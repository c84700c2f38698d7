"""Slots of the cell rate algorithm: an even stream, a slow start, less after a refusal."""

from datetime import timedelta

import make
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from triage.reruns.rate import BEGINNING, Pace, Rate, reserve, share_at, slowed, throttled

NOW = make.NOW
SECOND = timedelta(seconds=1)
TEN = Rate(10, timedelta(minutes=1))


def slots(pace, rate, number, *, now=NOW):
    found = []
    for _ in range(number):
        pace, slot = reserve(pace, rate, now=now)
        found.append((slot - NOW) / SECOND)
    return found


def test_a_second_s_worth_goes_at_once_and_the_rest_one_by_one():
    assert slots(Pace(), TEN, 14) == pytest.approx([0] * 10 + [0.1, 0.2, 0.3, 0.4])


def test_ten_thousand_at_once_become_an_even_stream():
    found = slots(Pace(), TEN, 10_000)
    assert found == sorted(found)
    assert found[-1] == pytest.approx(999)


def test_a_rest_gives_the_burst_back():
    pace, _ = reserve(Pace(), TEN, now=NOW)
    for _ in range(30):
        pace, _ = reserve(pace, TEN, now=NOW)
    assert slots(pace, TEN, 11, now=NOW + 60 * SECOND) == pytest.approx([60] * 10 + [60.1])


def test_a_slow_rate_has_no_burst():
    assert slots(Pace(), Rate(0.5, timedelta(0)), 3) == [0, 2, 4]


def test_a_slow_start_begins_with_a_tenth_and_has_no_burst():
    found = slots(slowed(Pace(), now=NOW), TEN, 400)
    assert found[:3] == pytest.approx([0, 1, 1.87], abs=0.02)
    within = [sum(second <= at < second + 10 for at in found) for second in (0, 20, 40, 60)]
    assert within[0] < within[1] < within[2] <= 100
    assert within[0] == pytest.approx(10 * 10 * (BEGINNING + 0.075), rel=0.2)


@given(st.floats(0, 120), st.sampled_from([0, 1, 60]))
def test_the_share_grows_from_the_beginning_to_all(seconds, ramp):
    rate = Rate(10, timedelta(seconds=ramp))
    share = share_at(slowed(Pace(), now=NOW), rate, NOW + seconds * SECOND)
    assert BEGINNING <= share <= 1
    assert share == 1 or seconds < ramp


def test_a_refusal_stops_the_function_for_as_long_as_it_says_and_halves_its_rate():
    pace = throttled(Pace(), TEN, now=NOW, retry_after=timedelta(seconds=30))
    assert slots(pace, TEN, 3) == pytest.approx([30, 30.2, 30.4], abs=0.01)
    assert pace.share == 0.5


def test_of_several_refusals_at_a_time_the_first_halves():
    pace = throttled(Pace(), TEN, now=NOW, retry_after=timedelta(seconds=5))
    again = throttled(pace, TEN, now=NOW + SECOND, retry_after=timedelta(seconds=9))
    assert (again.share, again.since) == (0.5, NOW + 10 * SECOND)
    shorter = throttled(pace, TEN, now=NOW + SECOND, retry_after=SECOND)
    assert (shorter.share, shorter.since) == (0.5, NOW + 5 * SECOND)
    later = throttled(pace, TEN, now=NOW + 6 * SECOND, retry_after=None)
    assert later.share == pytest.approx(0.25, abs=0.01)


def test_a_slow_start_does_not_cut_a_rest_short():
    pace = throttled(Pace(), TEN, now=NOW, retry_after=timedelta(hours=1))
    assert slowed(pace, now=NOW) == pace


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "reserve", "reserve", "slow", "throttle"]),
        st.floats(0, 3, allow_nan=False),
        st.integers(1, 30),
    ),
    max_size=60,
)


@given(EVENTS, st.sampled_from([0.3, 1, 7.5, 40]), st.sampled_from([0, 2, 60]))
@example([("reserve", 0.0, 30), ("reserve", 3.0, 30)], 7.5, 0)
def test_never_more_than_burst_and_rate_allow(events, per_second, ramp):
    """Between two changes of the pace, in each span of time; a change voids what was reserved under the old one."""
    rate, pace, now, found = Rate(per_second, timedelta(seconds=ramp)), Pace(), NOW, []
    for what, wait, number in events:
        now += wait * SECOND
        match what:
            case "slow":
                found = [slot for slot in found if slot <= now] if slowed(pace, now=now) == pace else []
                pace = slowed(pace, now=now)
            case "throttle":
                pace, found = throttled(pace, rate, now=now, retry_after=None), []
            case "reserve":
                for _ in range(number):
                    pace, slot = reserve(pace, rate, now=now)
                    assert slot >= now
                    assert pace.since is None or slot >= pace.since
                    found.append(slot)
        found.sort()
        for i, first in enumerate(found):
            for count, last in enumerate(found[i:], 1):
                # A slot is rounded to the microsecond.
                assert count <= rate.burst + per_second * ((last - first) / SECOND + count * 2e-6) + 1e-6
