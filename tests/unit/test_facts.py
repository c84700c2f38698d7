"""What deciding knows of lineages and groups, and that nothing is worked out that no rule mentions."""

from datetime import timedelta

import make
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.facts import GROUP_STATES, Facts, GroupFacts, Lineage, first_failure, group_state, has_regressed, recent_of
from triage.rules.expression import compile_expression
from triage.rules.match import matching
from triage.states import State
from triage.subject import NEED_RATES, VOCABULARY, Subject

NOW = make.NOW
MINUTE = int(NOW.timestamp() // 60)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def group(
    *, first: timedelta, last: timedelta, back: timedelta | None = None, recent=(0.0, 0.0, 0.0, 0.0)
) -> GroupFacts:
    return GroupFacts(NOW - first, 9, NOW - last, NOW - (first if back is None else back), recent)


def subject(facts: Facts) -> Subject:
    return Subject(make.arrived(), facts, now=NOW)


@pytest.mark.parametrize(
    ("minutes", "seconds", "expected"),
    [
        ({}, 0, (0, 0, 0, 0)),
        ({0: 2}, 30, (2, 2, 2, 2)),
        # the minute before counts for 1m by the part of it that is in the last 60 seconds
        ({0: 2, 1: 4}, 0, (6, 6, 6, 6)),
        ({0: 2, 1: 4}, 45, (3, 6, 6, 6)),
        ({1: 1, 4: 10, 5: 100, 15: 1000, 60: 10000, 61: 7}, 30, (0.5, 61, 611, 6111)),
        ({4: 1, 14: 10, 59: 100}, 30, (0, 1, 11, 111)),
    ],
)
def test_recent_failures_are_counted_by_minutes(minutes, seconds, expected):
    counts = {MINUTE - ago: count for ago, count in minutes.items()}
    assert recent_of(counts, NOW + timedelta(seconds=seconds)) == pytest.approx(expected)


@given(st.dictionaries(st.integers(0, 90), st.integers(1, 50)), st.integers(0, 59))
def test_longer_spans_hold_shorter_ones(minutes, seconds):
    recent = recent_of({MINUTE - ago: count for ago, count in minutes.items()}, NOW + timedelta(seconds=seconds))
    assert list(recent) == sorted(recent)
    assert recent[-1] <= sum(minutes.values())


@pytest.mark.parametrize(
    ("known", "state", "regressed"),
    [
        (None, "new", False),
        (group(first=HOUR / 2, last=HOUR / 4, recent=(30, 90, 90, 90)), "new", False),
        (group(first=9 * DAY, last=DAY), "regressed", True),
        (group(first=9 * DAY, last=DAY - HOUR / 60), "quiet", False),
        (group(first=9 * DAY, last=HOUR / 60, back=HOUR / 2), "regressed", True),
        (group(first=9 * DAY, last=HOUR / 60, back=HOUR, recent=(0, 1, 2, 3)), "ongoing", False),
        (group(first=HOUR, last=HOUR / 60, recent=(5, 10, 20, 41)), "ongoing", False),
        (group(first=HOUR, last=HOUR / 60, recent=(5, 10, 20, 40)), "escalating", False),
        (group(first=HOUR, last=HOUR / 60, recent=(5, 9, 9, 9)), "ongoing", False),
        (group(first=2 * HOUR, last=HOUR), "quiet", False),
    ],
)
def test_what_a_group_is_doing(known, state, regressed):
    assert group_state(known, NOW) == state
    assert has_regressed(known, NOW) is regressed
    assert state in GROUP_STATES


def test_a_group_learns_of_each_failure():
    one = first_failure(NOW, rates=True)
    assert one == GroupFacts(NOW, 1, NOW, NOW, (1, 1, 1, 1))
    two = one.grown(NOW + HOUR)
    assert (two.count, two.last_seen, two.back_since, two.recent) == (2, NOW + HOUR, NOW, (2, 2, 2, 2))
    back = two.grown(NOW + HOUR + DAY)
    assert (back.first_seen, back.last_seen, back.back_since) == (NOW, NOW + HOUR + DAY, NOW + HOUR + DAY)
    assert first_failure(NOW, rates=False).grown(NOW).recent is None


def test_every_name_of_the_vocabulary_has_a_value():
    names = subject(Facts(group=group(first=HOUR, last=HOUR, recent=(3, 10, 15, 60))))
    assert {name for name in VOCABULARY if names[name] is None} == set()
    rates = [names[f"group.rate_{span}"] for span in ("1m", "5m", "15m", "1h")]
    assert rates == [3.0, 2.0, 1.0, 1.0]
    assert subject(Facts())["group.rate_5m"] == 0.0
    with pytest.raises(KeyError):
        names["group.rate_2m"]


def test_reruns_by_rules_and_by_people_are_told_apart():
    known = Lineage("root", State.RERUNNING, 5, NOW, "", 1, manual=2)
    names = subject(Facts(lineage=known))
    assert (names["lineage.attempt"], names["lineage.automatic"], names["lineage.manual"]) == (5, 3, 2)
    assert known.moved(State.HEALED).manual == known.written().manual == 2


@pytest.mark.parametrize("name", sorted(NEED_RATES))
def test_a_rate_that_was_not_read_is_no_match_and_no_error(name):
    comparison = "== 'ongoing'" if name == "group.state" else ">= 0.0"
    when = compile_expression(f"{name} {comparison}")
    found = matching(
        make.rules(make.rule("r", when=when)), subject(Facts(group=group(first=DAY, last=HOUR / 2, recent=None)))
    )
    assert found.rules == []
    assert found.errors[0].actual == f"{name} was not recorded with this decision"


def test_only_what_is_mentioned_is_worked_out():
    failure = make.arrived()
    names = Subject(failure, Facts(), now=NOW)
    eager = set(names)
    assert compile_expression("group.count == 0 && fn != ''").evaluate(names) is True
    assert set(names) == eager | {"group.count"}
    assert (
        eager & (NEED_RATES | {"payload", "labels", "group.regressed", "lineage.manual", "lineage.automatic"}) == set()
    )
