"""Which results are those of re-runs that somebody made without asking triage, and what follows from them."""

from dataclasses import replace
from datetime import timedelta

import make
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.changes import NewRow, RowKind, Settle
from triage.decide import Reason, Resolve, decide, decide_batch
from triage.effects import decided
from triage.envelope import Destination
from triage.facts import Facts, Lineage, Snapshot
from triage.reactions import resolved
from triage.reruns.elsewhere import KNOWN, PERIOD, SAMPLE, Beginning, Sample, judged, may_tell, sampled
from triage.reruns.lineage import Link, Origin, payload_key, task_id
from triage.rules.model import Cause, HoldPolicy
from triage.states import CLOSED, RowState, State
from triage.views import RowFacts

NOW = make.NOW
HOUR = timedelta(hours=1)
FUNCTION = make.envelope().function
KEY = payload_key("f", b"event")
OPEN = [state for state in State if state not in CLOSED | {State.NEW}]
AGAIN = make.rules(make.rule("again", rerun=make.RERUN, alert=make.ALERT))
ASK = make.rules(make.rule("ask", more={"hold": HoldPolicy("was it paid?")}))


def lineage(state: State = State.RERUN_PENDING, attempt: int = 1) -> Lineage:
    return Lineage("r1", state, attempt, NOW - HOUR, "again", 4)


def begun(state: State = State.ALERTED, **changes: object) -> Beginning:
    return replace(Beginning(lineage(state), FUNCTION, NOW), **changes)


def different(count: int) -> Sample:
    """As many events of the function are known, KEY among them, each of which came once."""
    return Sample(NOW, {KEY[:12]: 1, **{f"event {number}": 1 for number in range(count - 1)}})


def join(*known: Beginning, sample: Sample | None = None):
    return judged(FUNCTION, KEY, known, sample or different(KNOWN), since=NOW - HOUR)


# ---------------------------------------------------------------- which


@pytest.mark.parametrize("state", OPEN)
def test_a_result_joins_the_only_open_failure_with_its_event(state):
    assert join(begun(state)) == lineage(state)


@pytest.mark.parametrize("state", sorted(CLOSED))
def test_it_joins_none_that_is_closed(state):
    assert join(begun(state)) == ""


def test_it_joins_none_when_there_is_none():
    assert join() == ""


@pytest.mark.parametrize("name", ["service", "qualifier", "region", "account"])
def test_it_joins_none_of_another_function(name):
    assert join(begun(function=replace(FUNCTION, **{name: "other"}))) == ""


def test_it_joins_none_to_which_nothing_happened_for_long():
    assert join(begun(moved_at=NOW - HOUR)) == lineage(State.ALERTED)
    assert join(begun(moved_at=NOW - HOUR - timedelta(seconds=1))) == ""


def test_it_joins_none_of_two_and_says_so():
    assert join(begun(), begun(State.HEALED)) == (
        "may be a re-run of r1 made elsewhere, but other failures began with the same event"
    )


@pytest.mark.parametrize(
    ("sample", "why"),
    [
        (different(KNOWN - 1), f"too few different events of the function are known to tell ({KNOWN - 1} of {KNOWN})"),
        (Sample(NOW, {KEY[:12]: 2, **different(40).before}), "the same event has come 2 times by itself"),
        (Sample(NOW, different(40).runs, {KEY[:12]: 1}), "the same event has come 2 times by itself"),
        (
            Sample(NOW, {**different(19).runs, "x": 9, "y": 2, "z": 3}),
            "events of the function come again by themselves (3 of 22 in a sample)",
        ),
    ],
    ids=["few", "this one", "this one, in two periods", "others"],
)
def test_it_joins_none_of_a_function_whose_events_do_not_tell_its_work_apart(sample, why):
    assert join(begun(), sample=sample) == f"may be a re-run of r1 made elsewhere, but {why}"


def test_one_event_in_ten_may_come_again():
    assert join(begun(), sample=Sample(NOW, {**different(18).runs, "x": 9, "y": 2})) == lineage(State.ALERTED)


def test_it_joins_none_of_a_function_never_heard_of():
    assert "(0 of 5)" in judged(FUNCTION, KEY, [begun()], None, since=NOW)


@pytest.mark.parametrize(
    ("fields", "may"),
    [
        ({"payload": "x" * 16}, True),
        ({"payload": "x" * 15}, False),
        ({"payload": ""}, False),
        ({"payload": "{}"}, False),
        ({"requestPayload": None}, False),
    ],
)
def test_an_event_that_says_nothing_identifies_nothing(fields, may):
    assert may_tell(make.envelope(**fields)) is may


# ---------------------------------------------------------------- periodic work


def key(number: int) -> str:
    return payload_key("f", str(number).encode())


def test_a_periodic_job_never_joins_however_many_events_it_goes_round():
    """From its second round on; a job with less than five events never, from the first moment on."""
    for size in (1, 2, KNOWN - 1):
        sample = None
        for _ in range(3):
            for number in range(size):
                sample = sampled(sample, [key(number)], now=NOW) or sample
                assert isinstance(judged(FUNCTION, key(number), [begun()], sample, since=NOW), str)
    for size in (KNOWN, 100, 5000):
        sample = None
        for _ in range(2):
            sample = sampled(sample, map(key, range(size)), now=NOW) or sample
        assert all(isinstance(judged(FUNCTION, key(n), [begun()], sample, since=NOW), str) for n in range(size))


def test_a_function_whose_events_are_all_different_joins():
    sample = sampled(None, map(key, range(5000)), now=NOW)
    assert len(sample.runs) == SAMPLE
    assert judged(FUNCTION, key(4711), [begun()], sample, since=NOW) == lineage(State.ALERTED)


def test_a_function_that_becomes_periodic_is_known_after_two_periods():
    sample = sampled(None, map(key, range(5000)), now=NOW)
    for day in range(15):
        for _ in range(3):
            sample = sampled(sample, map(key, range(6000, 6006)), now=NOW + day * timedelta(days=1)) or sample
    assert "by itself" in judged(FUNCTION, key(6001), [begun()], sample, since=NOW)


@given(st.lists(st.integers(0, 200), max_size=300), st.integers(1, 50))
def test_a_sample_does_not_depend_on_batches_and_counts_exactly(numbers, size):
    keys = [key(number) for number in numbers]
    at_once = sampled(None, keys, now=NOW) or Sample(NOW)
    in_parts = Sample(NOW)
    for start in range(0, len(keys), size):
        in_parts = sampled(in_parts, keys[start : start + size], now=NOW) or in_parts
    assert at_once == in_parts
    assert len(at_once.runs) == min(SAMPLE, len(set(keys)))
    assert all(count == sum(each.startswith(short) for each in keys) for short, count in at_once.runs.items())


def test_nothing_is_to_be_written_when_nothing_has_changed():
    full = sampled(None, map(key, range(5000)), now=NOW)
    dull = next(key(n) for n in range(5000) if key(n)[:12] > max(full.runs))
    assert sampled(full, [dull], now=NOW) is None
    assert sampled(full, [], now=NOW + PERIOD) == Sample(NOW + PERIOD, {}, full.runs)


# ---------------------------------------------------------------- what follows


def result(envelope, known: Lineage, rules=AGAIN):
    arrival = make.arrived(envelope)
    snapshot = Snapshot(lineages={"console": known}, elsewhere={"console"})
    decision = decide(arrival, snapshot.of(arrival), rules, now=NOW)
    return decision, decided(arrival, decision).changes


def test_its_success_heals_and_calls_back_what_was_to_come():
    decision, changes = result(make.success("console"), lineage())
    assert (decision.reason, decision.lineage) == (
        Reason.HEALED,
        replace(lineage(), state=State.HEALED, attempt=2),
    )
    assert changes.links == (Link("console", "r1", 2, Origin.ELSEWHERE),)
    assert {task_id("r1", 1), f"expect:{task_id('r1', 1)}", f"resolve:{task_id('r1', 1)}"} <= set(changes.cancel)


def test_its_failure_counts_as_an_attempt_under_the_same_cap():
    decision, changes = result(make.envelope("console"), lineage(attempt=0, state=State.ALERTED))
    assert (decision.reason, decision.lineage.attempt, decision.lineage.state) == (
        Reason.MATCHED,
        2,
        State.RERUN_PENDING,
    )
    assert [row.key for row in changes.rows] == [task_id("r1", 2)]
    assert changes.links == (
        Link(task_id("r1", 2), "r1", 2, Origin.AUTOMATIC),
        Link("console", "r1", 1, Origin.ELSEWHERE),
    )
    decision, changes = result(make.envelope("console"), lineage())
    assert (decision.reason, decision.lineage.attempt) == (Reason.ATTEMPTS_EXHAUSTED, 2)
    assert task_id("r1", 1) in changes.cancel
    assert [alert.cause for alert in changes.alerts] == [Cause.EXHAUSTED]


@pytest.mark.parametrize("envelope", [make.success("console"), make.envelope("console")], ids=["success", "failure"])
def test_a_person_is_not_asked_any_more_about_what_was_held(envelope):
    _, changes = result(envelope, lineage(State.HELD, attempt=0))
    assert "hold:r1" in changes.cancel


def test_what_is_held_again_has_one_hold():
    decision, changes = result(make.envelope("console"), lineage(State.HELD, attempt=0), ASK)
    assert (decision.lineage.state, [row.key for row in changes.rows]) == (State.HELD, ["hold:r1"])
    assert "hold:r1" not in changes.cancel


def test_several_in_one_batch_are_one_attempt_each_and_nothing_joins_what_is_over():
    arrivals = [make.arrived(make.envelope("a")), make.arrived(make.success("b")), make.arrived(make.envelope("c"))]
    snapshot = Snapshot(lineages=dict.fromkeys("abc", lineage(attempt=0)), elsewhere={"a", "b", "c"})
    one, two, three = decide_batch(arrivals, snapshot, AGAIN, now=NOW)
    assert (one.facts.attempt, one.lineage.attempt) == (1, 2), "and the re-run that follows it is the second"
    assert (two.facts.attempt, two.lineage.state) == (3, State.HEALED)
    assert (three.facts, three.lineage.root) == (Facts(group=three.facts.group), "c")


# ---------------------------------------------------------------- a success, or stopped


def asked(state: State = State.RERUN_PENDING) -> NewRow:
    decision, changes = result(make.success("console", destination=Destination.BOTH), lineage(state))
    assert (decision.reason, decision.lineage) == (Reason.AMBIGUOUS, None)
    assert decision.effects == (Resolve("console", 2),)
    assert (changes.lineages, changes.links, changes.cancel) == ((), (), ())
    (row,) = changes.rows
    assert (row.key, row.kind, row.root) == ("resolve:console", RowKind.RESOLVE, "r1")
    return row


def answer(status: str | None, now_at: Lineage | None, state: State = State.RERUN_PENDING, **known: object) -> Settle:
    row = make.claimed(asked(state), attempts=known.pop("attempts", 1))
    return resolved(row, RowFacts(lineage=now_at), status=status, now=NOW, **known)


@pytest.mark.parametrize("status", ["Succeeded", None])
@pytest.mark.parametrize("state", [state for state in OPEN if state is not State.UNKNOWN])
def test_once_it_is_known_to_have_succeeded_it_heals(status, state):
    settle = answer(status, lineage(state, attempt=3))
    assert (settle.state, settle.note) == (RowState.DONE, "re-run 4, made elsewhere, has succeeded")
    (healed,) = settle.changes.lineages
    assert (healed.state, healed.attempt) == (State.HEALED, 4)
    assert settle.changes.links == (Link("console", "r1", 4, Origin.ELSEWHERE),)
    assert task_id("r1", 3) in settle.changes.cancel
    assert ("hold:r1" in settle.changes.cancel) is (state is State.HELD)


@pytest.mark.parametrize(("status", "says"), [("Stopped", "Stopped"), ("Failed", "Failed"), ("Expired", "Expired")])
def test_one_that_was_stopped_ends_nothing(status, says):
    settle = answer(status, lineage())
    assert (settle.state, settle.changes) == (RowState.DONE, type(settle.changes)())
    assert says in settle.note


def test_it_is_asked_again_while_it_runs_or_our_own_submit_is_asked_about():
    assert answer("Running", lineage()).state is RowState.PENDING
    assert answer("Succeeded", lineage(State.UNKNOWN)).state is RowState.PENDING


@pytest.mark.parametrize("known", [None, lineage(State.HEALED), lineage(State.IGNORED)])
def test_it_does_not_join_what_is_over_meanwhile(known):
    settle = answer("Succeeded", known)
    assert (settle.state, settle.changes) == (RowState.DONE, type(settle.changes)())


@pytest.mark.parametrize(("attempts", "state"), [(1, RowState.PENDING), (5, RowState.PENDING), (6, RowState.DONE)])
def test_a_task_that_is_kept_under_another_id_is_looked_for_a_while_and_then_left_apart(attempts, state):
    settle = answer(None, lineage(), tracked=True, attempts=attempts)
    assert (settle.state, settle.changes) == (state, type(settle.changes)())
