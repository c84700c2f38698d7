"""The life of an alert group, and what its receivers are told: by looks at any time, with any number of alerts."""

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import product

import make
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triage.alerts.grouping import flush, wants_states
from triage.changes import AlertGroup
from triage.errors import IllegalTransition
from triage.incident import (
    OPEN,
    TRANSITIONS,
    Ack,
    GroupEvent,
    GroupState,
    Incident,
    advance,
    incident_json,
    incident_of,
)
from triage.rules.course import COURSE, Course, Escalation, Inhibition, course_json, course_of
from triage.rules.model import Cause
from triage.states import RowState
from triage.views import AlertKind, GroupView, RowFacts, WaitingAlert

NOW = make.NOW
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
LABELS = dict.fromkeys(("function", "condition", "error_type", "error_message", "fingerprint", "rule", "owner"), "x")
GROUP = AlertGroup("k1", ("default",), "warning", {**LABELS, "runbook": ""}, 30 * MINUTE / 60, 5 * MINUTE)


def course(**changes):
    return replace(GROUP, course=Course(**changes))


@dataclass
class Pager:
    """A group that is looked at, with nothing but `flush`: what a store does between two looks, in a few lines."""

    group: AlertGroup = GROUP
    incident: Incident = field(default_factory=Incident)
    waiting: Counter = field(default_factory=Counter)
    states: Counter = field(default_factory=Counter)
    succeeded: Counter = field(default_factory=Counter)
    flushes: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    due_at: datetime | None = None
    told: list = field(default_factory=list)
    """(when, why, receiver, how many)"""

    def fail(self, now, count=1, *, kind="k", cause=Cause.FAILED):
        self.waiting[kind, cause] += count
        self.first_at, self.last_at = self.first_at or now, now
        self.states["alerting"] += count

    def look(self, now):
        causes, kinds = Counter(), {}
        for (kind, cause), count in self.waiting.items():
            causes[cause] += count
            kinds.setdefault(kind, Counter())[cause] += count
        view = GroupView(
            group=self.group,
            flushes=self.flushes,
            told=0,
            first_at=self.first_at,
            last_at=self.last_at,
            causes=causes,
            samples=(WaitingAlert("r", Cause.FAILED, "", now, 0),) if causes else (),
            last_id=0,
            kinds=tuple(AlertKind(kind, LABELS, found, self.first_at, self.last_at) for kind, found in kinds.items()),
            incident=self.incident,
            successes=dict(self.succeeded),
        )
        if wants_states(view, now=now):
            view = replace(view, states=dict(+self.states))
        settle = flush(RowFacts(group=view), now=now)
        (looked,) = settle.changes.looked or (None,)
        if looked is not None:
            self.incident, self.waiting = looked.incident, Counter()
            self.first_at = self.last_at = None
            self.flushes += looked.made
            self.states["alerted" if looked.made else "suppressed"] += self.states.pop("alerting", 0)
            if looked.made:
                self.states["alerted"] += self.states.pop("suppressed", 0)
        self.told += [(now, str(row.payload["why"]), row.payload["receiver"], row) for row in settle.changes.rows]
        self.due_at = settle.due_at if settle.state is RowState.PENDING else None
        return settle

    @property
    def reasons(self):
        return [why for _, why, _, _ in self.told]


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize(("state", "event"), [*product(GroupState, GroupEvent)])
def test_every_state_and_event_gives_a_state_or_the_table_s_own_error(state, event):
    if (state, event) in TRANSITIONS:
        assert advance(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransition, match=state):
            advance(state, event)


def test_whatever_is_open_can_be_resolved_and_nothing_else_can():
    assert {state for state, event in TRANSITIONS if event is GroupEvent.RESOLVED} == OPEN
    assert {state for state, event in TRANSITIONS if event is GroupEvent.FAILED} == set(GroupState)


INSTANTS = st.datetimes(
    NOW.replace(year=2020, tzinfo=None), NOW.replace(year=2040, tzinfo=None), timezones=st.just(UTC)
)
INCIDENTS = st.builds(
    Incident,
    number=st.integers(0, 9),
    state=st.sampled_from(GroupState),
    opened_at=st.none() | INSTANTS,
    last_at=st.none() | INSTANTS,
    looked_at=st.none() | INSTANTS,
    told_at=st.none() | INSTANTS,
    first_told_at=st.none() | INSTANTS,
    rate=st.floats(0, 1e6),
    known=st.lists(st.text(max_size=5), max_size=3).map(tuple),
    unsaid=st.dictionaries(st.text(max_size=5), st.integers(0, 10**9), max_size=3),
    told_to=st.lists(st.text(max_size=5), max_size=3).map(tuple),
    ack=st.none() | st.builds(Ack, st.text(max_size=5), st.text(max_size=5), INSTANTS),
    closed=st.none() | st.builds(Ack, st.text(max_size=5), st.text(max_size=5), INSTANTS),
    heard=st.dictionaries(st.text(max_size=5), st.integers(0, 10**9), max_size=3),
)


@given(INCIDENTS)
def test_an_incident_is_kept_as_it_is(incident):
    assert incident_of(incident_json(incident)) == incident


def test_a_course_is_kept_as_it_is_and_what_is_missing_has_its_default():
    cause = Inhibition("db", ("region",))
    written = Course(MINUTE, 3.5, HOUR, False, 2 * HOUR, (Escalation(HOUR, ("boss", "board")),), (cause,))  # noqa: FBT003
    assert course_of(course_json(written)) == written
    never = Course(quiet_for=None, success_threshold=3)
    assert course_of(course_json(never)) == never
    assert course_of({}) == COURSE
    by_name = course_of({"inhibited_by": ["db"]})  # as an older version wrote it
    assert by_name == Course(inhibited_by=(Inhibition("db"),))
    assert course_of(course_json(by_name)) == by_name
    assert course_of({"resolved": False}) == Course(resolved=False)


@given(st.integers(0, 10_000), st.floats(1, 10))
def test_repeats_grow_up_to_the_longest(repeats, factor):
    course = Course(repeat_factor=factor)
    assert HOUR <= course.repeat_after(repeats) <= 24 * HOUR
    assert course.repeat_after(repeats) <= course.repeat_after(repeats + 1)
    assert course.repeat_after(0) == HOUR


# ---------------------------------------------------------------- what is told


def test_a_group_that_goes_on_failing_is_told_at_growing_intervals():
    pager = Pager()
    now = NOW
    for _ in range(24 * 12):
        pager.fail(now)
        pager.look(now)
        assert pager.due_at == now + GROUP.group_interval
        now += GROUP.group_interval
    hours = [(at - NOW) / HOUR for at, _, _, _ in pager.told]
    assert hours == [0, 1, 3, 7, 15]
    assert pager.reasons == ["first", *["repeat"] * 4]
    assert [row.payload["title"].partition(" #")[0].rpartition("× ")[2] for _, _, _, row in pager.told[1:]] == [
        "12", "24", "48", "96",
    ]  # fmt: skip
    codes = [row.payload["code"] for _, _, _, row in pager.told]
    assert codes == [codes[0], *(f"{codes[0]}-{number}" for number in range(2, 6))]


def test_states_follow_what_comes():
    pager = Pager()
    seen = []
    for minutes, count in ((0, 1), (5, 1), (10, 60), (15, 1), (20, 0), (25, 1), (30, 0), (90, 0), (91, 1)):
        now = NOW + minutes * MINUTE
        if count:
            pager.fail(now, count)
        pager.look(now)
        seen.append(str(pager.incident.state))
    assert seen == ["new", "ongoing", "escalating", "ongoing", "quiet", "ongoing", "quiet", "resolved", "regressed"]
    assert pager.reasons == ["first", "surged", "resolved", "first"]
    assert pager.incident.number == 2


def test_twice_as_many_as_was_told_is_news_and_again_when_that_doubles():
    pager = Pager()
    for look, count in enumerate((100, 199, 500, 999, 2000)):
        pager.fail(NOW + 5 * look * MINUTE, count)
        pager.look(NOW + 5 * look * MINUTE)
    # a minute's worth at the first look; then 39.8, 100, 199.8 and 400 a minute
    assert pager.reasons == ["first", "surged"]


def test_an_error_of_another_kind_or_another_cause_is_news_once():
    pager = Pager()
    news = [("k", Cause.FAILED), ("k", Cause.FAILED), ("other", Cause.FAILED), ("k", Cause.UNKNOWN)]
    for look, (kind, cause) in enumerate(news * 2):
        pager.fail(NOW + 5 * look * MINUTE, kind=kind, cause=cause)
        pager.look(NOW + 5 * look * MINUTE)
    assert pager.reasons == ["first", "changed", "changed"]


def test_who_is_asked_something_is_told_each_time():
    pager = Pager()
    for look in range(3):
        pager.fail(NOW + 5 * look * MINUTE, cause=Cause.HELD)
        pager.look(NOW + 5 * look * MINUTE)
    assert pager.reasons == ["first", "changed", "changed"]


@pytest.mark.parametrize("wanted", [True, False])
def test_the_end_is_told_to_whoever_heard_of_it_if_the_rule_wants_that(wanted):
    pager = Pager(course(resolved=wanted))
    pager.fail(NOW)
    pager.look(NOW)
    pager.fail(NOW + MINUTE, 7)
    pager.look(NOW + 5 * MINUTE)
    pager.look(NOW + HOUR)
    assert pager.incident.state is GroupState.QUIET
    assert pager.due_at == NOW + HOUR + MINUTE
    pager.look(pager.due_at)
    assert (pager.incident.state, pager.due_at) == (GroupState.RESOLVED, None)
    if not wanted:
        assert pager.reasons == ["first"]
        return
    row = pager.told[-1][3]
    assert "Severity: info" in row.payload["body"]
    assert row.payload["title"].startswith("resolved: x failed: x × 8 #")
    assert row.payload["body"].splitlines()[:3] == [
        "Error: x",
        "Count: 8 since 2026-03-01 12:00:00 UTC, last 2026-03-01 12:01:00 UTC",
        "Resolved: nothing has failed for 1h; 8 of 8 have not healed; it failed for 1m; 7 of them were only counted till now",
    ]


def test_what_was_not_told_at_an_end_without_a_word_is_told_when_it_comes_back():
    pager = Pager(course(resolved=False))
    pager.fail(NOW)
    pager.look(NOW)
    pager.fail(NOW + 5 * MINUTE, 7)
    pager.look(NOW + 5 * MINUTE)
    pager.look(NOW + 3 * HOUR)
    pager.fail(NOW + 4 * HOUR)
    pager.look(NOW + 4 * HOUR)
    assert " × 8 #" in pager.told[-1][3].payload["title"]


def test_it_is_over_when_all_has_healed():
    pager = Pager()
    pager.fail(NOW, 3)
    pager.look(NOW)
    pager.states = Counter(healed=2, ignored=1)
    pager.look(NOW + 4 * MINUTE)
    assert pager.incident.state is GroupState.QUIET
    pager.look(NOW + 5 * MINUTE)
    assert pager.incident.state is GroupState.RESOLVED
    assert "In all: 3 = 2 healed + 1 ignored" in pager.told[-1][3].payload["body"]


def resolved_line(pager):
    assert pager.reasons[-1] == "resolved"
    return next(line for line in pager.told[-1][3].payload["body"].splitlines() if line.startswith("Resolved: "))


def test_when_a_rule_says_so_silence_alone_is_no_end():
    pager = Pager(course(quiet_for=None))
    pager.fail(NOW, 3)
    pager.look(NOW)
    for days in range(1, 30):
        pager.look(NOW + timedelta(days=days))
        assert pager.incident.state is GroupState.QUIET
        assert pager.due_at == NOW + timedelta(days=days) + 5 * MINUTE
    pager.states = Counter(healed=2, alerted=1)
    pager.look(pager.due_at)
    assert pager.incident.state is GroupState.QUIET
    pager.states = Counter(ignored=3)
    pager.look(pager.due_at)
    assert resolved_line(pager).startswith("Resolved: all that failed is ignored by now; it failed for 0s")


def test_it_is_over_when_what_failed_has_succeeded_often_enough_since():
    pager = Pager(course(success_threshold=20, quiet_for=None))
    pager.succeeded["x"] = 1000  # before it failed: that says nothing
    pager.fail(NOW, 3)
    pager.look(NOW)
    pager.succeeded["x"] += 19
    pager.look(NOW + 10 * MINUTE)
    assert pager.incident.state is GroupState.QUIET
    pager.fail(NOW + 11 * MINUTE)  # once more: it is counted anew
    pager.look(NOW + 15 * MINUTE)
    pager.succeeded["x"] += 19
    pager.look(NOW + 25 * MINUTE)
    assert pager.incident.state is GroupState.QUIET
    pager.succeeded["x"] += 1
    pager.look(NOW + 26 * MINUTE)
    assert resolved_line(pager) == (
        "Resolved: each of its functions has succeeded 20 times since; 4 of 4 have not healed; it failed for 11m; "
        "1 of them were only counted till now"
    )


def test_successes_end_nothing_unless_a_rule_says_so_nor_at_once():
    silent, eager = Pager(course(quiet_for=None)), Pager(course(success_threshold=1))
    for pager in (silent, eager):
        pager.fail(NOW)
        pager.look(NOW)
        pager.succeeded["x"] += 1000
        pager.look(NOW + 4 * MINUTE)
        assert pager.incident.state is GroupState.QUIET
        pager.look(NOW + 5 * MINUTE)
    assert (silent.incident.state, eager.incident.state) == (GroupState.QUIET, GroupState.RESOLVED)


def test_a_person_may_say_that_it_is_over_unless_it_fails_meanwhile():
    pager = Pager(course(quiet_for=None))
    pager.fail(NOW, 2)
    pager.look(NOW)
    pager.incident = replace(pager.incident, closed=Ack("ana", "the queue is mended", NOW + MINUTE))
    pager.fail(NOW + MINUTE)
    pager.look(NOW + 2 * MINUTE)
    assert pager.incident.state is GroupState.ONGOING
    pager.look(NOW + 3 * MINUTE)
    assert pager.incident.state is GroupState.QUIET, "what was said before it failed says nothing of it"
    pager.incident = replace(pager.incident, closed=Ack("ana", "the queue is mended", NOW + 4 * MINUTE))
    pager.look(NOW + 4 * MINUTE)
    assert resolved_line(pager).startswith("Resolved: ana says so: the queue is mended; 3 of 3 have not healed; ")


def test_others_hear_of_it_when_nobody_acknowledges_it_and_of_its_end():
    steps = (Escalation(15 * MINUTE, ("lead",)), Escalation(HOUR, ("boss", "lead")))
    pager = Pager(course(escalate=steps, quiet_for=3 * HOUR))
    pager.fail(NOW, 3)
    pager.look(NOW)
    while pager.due_at is not None:
        pager.look(pager.due_at)
    assert [((at - NOW) / MINUTE, why, to) for at, why, to, _ in pager.told] == [
        (0, "first", "default"),
        (15, "unanswered", "lead"),
        (60, "unanswered", "boss"),
        (180, "resolved", "default"),
        (180, "resolved", "lead"),
        (180, "resolved", "boss"),
    ]
    assert " × 3 #" in pager.told[1][3].payload["title"]
    assert len({row.key for _, _, _, row in pager.told}) == len(pager.told)


def test_whoever_acknowledges_it_stops_repeats_and_escalation_until_it_gets_worse():
    pager = Pager(course(escalate=(Escalation(15 * MINUTE, ("lead",)),)))
    pager.fail(NOW, 20)
    pager.look(NOW)
    pager.incident = replace(pager.incident, ack=Ack("ana", "on it", NOW + MINUTE))
    for look in range(1, 40):
        pager.fail(NOW + 5 * look * MINUTE)
        pager.look(NOW + 5 * look * MINUTE)
    assert pager.reasons == ["first"]
    pager.fail(NOW + 200 * MINUTE, 1000)
    pager.look(NOW + 200 * MINUTE)
    assert pager.reasons == ["first", "surged", "unanswered"]
    assert pager.incident.ack is None


# ---------------------------------------------------------------- laws

MOVES = st.lists(
    st.tuples(
        st.sampled_from(["fail", "look", "jump back", "ack"]),
        st.integers(0, 4 * 3600),
        st.integers(1, 50),
        st.sampled_from(["a", "b"]),
    ),
    max_size=60,
)


@settings(max_examples=200)
@given(MOVES, st.booleans())
def test_whenever_looked_at_every_alert_is_told_once_and_mere_counts_not_before_their_time(moves, resolved):
    pager = Pager(course(resolved=resolved))
    now, failed, elapsed = NOW, 0, 0
    when = []
    for move, seconds, count, kind in moves:
        if move == "jump back":
            now -= timedelta(seconds=seconds)
            continue
        now += timedelta(seconds=seconds)
        elapsed += seconds
        if move == "fail":
            pager.fail(now, count, kind=kind)
            failed += count
        elif move == "ack" and pager.incident.state in OPEN:
            pager.incident = replace(pager.incident, ack=Ack("ana", "", now))
        elif move == "look":
            pager.look(now)
            when += [elapsed] * (len(pager.told) - len(when))
            assert pager.due_at is None or pager.due_at > now
            assert pager.due_at is None or pager.due_at <= now + max(GROUP.group_interval, HOUR)
    told = sum(message_count(row) for _, _, _, row in pager.told)
    assert failed == told + sum(pager.incident.unsaid.values()) + pager.waiting.total()
    # A clock that is set back is no time that has passed.
    assert all(when[n] - when[n - 1] >= 3600 for n, why in enumerate(pager.reasons) if why == "repeat")


def message_count(row):
    """How many alerts a message tells for the first time."""
    body = row.payload["body"]
    if row.payload["why"] == "resolved":
        found = re.search(r"; ([\d,]+) of them were only counted till now$", body, re.MULTILINE)
        return int(found[1].replace(",", "")) if found else 0
    (line,) = [line for line in body.splitlines() if line.startswith("Count: ")]
    return int(line.split()[1].replace(",", ""))


@settings(max_examples=100)
@given(st.lists(st.integers(0, 600), min_size=1, max_size=40), st.lists(st.integers(0, 1200), max_size=12))
def test_looks_at_any_time_make_the_same_sums(arrivals, looks):
    """Where looks fall, and how often, changes when something is told, and never how much."""
    totals = []
    for extra in ([], looks):
        pager, events = Pager(), [(at, "fail") for at in arrivals] + [(at, "look") for at in extra]
        for at, what in sorted(events, key=lambda event: event[0]):
            now = NOW + timedelta(seconds=at)
            pager.fail(now) if what == "fail" else pager.look(now)
        pager.look(NOW + HOUR)
        while pager.due_at is not None:
            pager.look(pager.due_at)
        assert pager.incident.state is GroupState.RESOLVED
        totals.append((sum(message_count(row) for _, _, _, row in pager.told), pager.incident.count))
    assert totals[0] == totals[1] == (len(arrivals), len(arrivals))


@given(INCIDENTS, INSTANTS)
def test_a_clock_that_was_set_back_delays_nothing_for_longer_than_the_interval(incident, now):
    pager = Pager(incident=incident)
    pager.fail(now, 5, kind="never heard of")
    if incident.state in OPEN and incident.messages == 0:
        pager.incident = replace(incident, told_at=None)
    settle = pager.look(now)
    assert settle.due_at is not None
    assert now < settle.due_at <= now + GROUP.group_interval
    assert settle.changes.looked[0].made
