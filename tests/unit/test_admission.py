"""What a re-run has to pass when it is submitted."""

from dataclasses import replace
from datetime import timedelta

import make
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.admission import admitted, concluded, heard, throttled, woken
from triage.changes import Changes, RowKind, Settle
from triage.decide import decide
from triage.effects import decided
from triage.facts import Facts
from triage.reruns.breaker import Breaker, BreakerState
from triage.reruns.budget import Budget, left
from triage.reruns.gate import Gate, GateFacts, Heard, Safeguards, Standing
from triage.reruns.lineage import Origin
from triage.reruns.rate import BEGINNING, Pace
from triage.reruns.switches import Scope, Switch, stopping
from triage.rules.model import Cause
from triage.states import RowState, State
from triage.views import RowFacts

NOW = make.NOW
GUARDS = Safeguards()
DUE = NOW + timedelta(minutes=2)


def planned(**fields):
    """A claimed re-run row, and its lineage."""
    arrival = make.arrived(make.envelope("r1", **fields))
    rules = make.rules(make.rule("again", rerun=make.RERUN, alert=make.ALERT))
    found = decided(arrival, decide(arrival, Facts(), rules, now=NOW))
    (row,), (lineage,) = found.changes.rows, found.changes.lineages
    return replace(make.claimed(row), function=arrival.envelope.function.label), lineage.written()


def off(scope=Scope.ALL, pattern=""):
    return Switch(scope, pattern, "alice", "incident 42", NOW)


def at_the_gates(*switches, now=DUE):
    row, lineage = planned()
    return admitted(row, RowFacts(lineage=lineage, gates=GateFacts(switches)), guards=GUARDS, now=now)


def test_where_nothing_is_in_the_way_it_goes():
    assert at_the_gates().goes


@pytest.mark.parametrize(
    ("switch", "stops"),
    [
        (off(), True),
        (off(Scope.FILE), True),
        (off(Scope.FUNCTION, "my-fc-job"), True),
        (off(Scope.FUNCTION, "my-*"), True),
        (off(Scope.FUNCTION, "/^my/"), True),
        (off(Scope.FUNCTION, "img-*"), False),
        (off(Scope.RULE, "again"), True),
        (off(Scope.RULE, "aga*"), True),
        (off(Scope.RULE, "my-fc-job"), False),
    ],
    ids=lambda value: f"{value.scope} {value.pattern}" if isinstance(value, Switch) else "",
)
def test_a_switch_stops_what_it_names(switch, stops):
    settle = at_the_gates(off(Scope.FUNCTION, "other"), switch)
    assert (settle.gate is Gate.SWITCH) == stops
    assert settle.goes != stops


def test_a_function_in_a_service_is_named_as_in_rules():
    assert stopping([off(Scope.FUNCTION, "job")], function="media/job", rule="")
    assert stopping([off(Scope.FUNCTION, "media/*")], function="media/job", rule="")
    assert not stopping([off(Scope.FUNCTION, "media/*")], function="job", rule="")


def test_who_waits_at_a_switch_says_why_and_waits_until_it_is_on_or_too_late():
    settle = at_the_gates(off(Scope.FUNCTION, "my-*"))
    assert settle.note == "function my-* switched off by alice at 2026-03-01 12:00:00Z: incident 42"
    assert settle.due_at == NOW + make.RERUN.give_up_after
    assert settle.state is RowState.PENDING
    assert settle.changes.lineages == ()


def test_nothing_waits_for_ever():
    settle = at_the_gates(off(), now=NOW + make.RERUN.give_up_after)
    assert settle.state is RowState.DEAD
    (moved,), (alert,) = settle.changes.lineages, settle.changes.alerts
    assert moved.state is State.ALERTING
    assert alert.cause is Cause.EXHAUSTED
    assert alert.detail.startswith("could not be submitted in time: ")


def test_a_late_one_goes_when_nothing_is_in_the_way():
    assert at_the_gates(now=NOW + make.RERUN.give_up_after).goes


# ---------------------------------------------------------------- rate, breaker, budget

SECOND = timedelta(seconds=1)
BROKE = Budget(floor_from=DUE)
OPENED = Breaker(BreakerState.OPEN, until=DUE + 30 * SECOND, pause=30 * SECOND)


def asked(*, own=Standing("my-fc-job"), every=Standing(), waiting=0, gate=None, due=DUE, now=DUE, kind=None, **payload):
    row, lineage = planned()
    row = replace(row, gate=gate, due_at=due, kind=kind or row.kind, payload={**row.payload, **payload})
    facts = RowFacts(lineage=lineage, gates=GateFacts((), own, every, waiting))
    return (woken if kind else admitted)(row, facts, guards=GUARDS, now=now)


def standings(settle):
    return {standing.function: standing for standing in settle.changes.standings}


def test_what_goes_is_paid_for():
    settle = asked()
    own, every = standings(settle)["my-fc-job"], standings(settle)[""]
    assert left(own.budget, GUARDS.budget, now=DUE) == pytest.approx(9)
    assert own.breaker.submitted == 1
    assert own.pace.next_at == DUE + 0.1 * SECOND
    assert every.pace.next_at == DUE + 0.02 * SECOND


@pytest.mark.parametrize("origin", [Origin.MANUAL, Origin.APPROVAL, Origin.PLAN])
def test_what_a_person_wants_needs_no_budget_and_no_closed_breaker_but_its_turn(origin):
    settle = asked(own=Standing("my-fc-job", budget=BROKE, breaker=OPENED), origin=origin)
    assert settle.goes
    own = standings(settle)["my-fc-job"]
    assert (own.budget, own.breaker) == (BROKE, OPENED)
    assert own.pace.next_at is not None


def test_who_waits_for_the_budget_is_woken_when_the_floor_gives_one():
    settle = asked(own=Standing("my-fc-job", budget=BROKE))
    assert (settle.gate, settle.due_at) == (Gate.BUDGET, NOW + make.RERUN.give_up_after)
    (wake,) = settle.changes.rows
    assert (wake.key, wake.kind, wake.due_at, wake.sooner) == ("wake:my-fc-job", RowKind.WAKE, DUE + 6 * SECOND, True)
    assert left(standings(settle)["my-fc-job"].budget, GUARDS.budget, now=DUE) == 0


def test_a_rule_s_own_budget_counts():
    own = Standing("my-fc-job", budget=Budget(5, DUE))
    assert asked(own=own).gate is Gate.BUDGET
    assert asked(own=own, budget=0.2).goes


def test_who_waits_for_the_breaker_is_woken_when_the_pause_is_over():
    settle = asked(own=Standing("my-fc-job", breaker=OPENED))
    assert settle.gate is Gate.BREAKER
    assert "is open" in settle.note
    assert settle.changes.rows[0].due_at == DUE + 30 * SECOND


def test_failures_trip_it_when_the_next_one_asks():
    settle = asked(own=Standing("my-fc-job", breaker=Breaker(bad=10, streak=10, heard=True, counted_from=DUE)))
    assert settle.gate is Gate.BREAKER
    assert standings(settle)["my-fc-job"].breaker.state is BreakerState.OPEN


def test_a_probe_goes_and_the_next_one_waits_for_its_result():
    own = Standing("my-fc-job", breaker=replace(OPENED, until=DUE))
    probe = asked(own=own)
    assert probe.goes
    settle = asked(own=standings(probe)["my-fc-job"], now=DUE + SECOND)
    assert (settle.gate, settle.changes.rows[0].due_at) == (Gate.BREAKER, DUE + 6 * SECOND)


def test_a_breaker_that_closes_lets_its_function_begin_slowly():
    own = Standing("my-fc-job", breaker=Breaker(BreakerState.HALF_OPEN, ok=1, until=DUE + SECOND))
    settle = asked(own=own)
    assert settle.goes
    own = standings(settle)["my-fc-job"]
    assert (own.breaker.state, own.pace.since, own.pace.share) == (BreakerState.CLOSED, DUE, BEGINNING)


def test_each_gets_a_slot_of_its_own_and_goes_then():
    own, every, slots = Standing("my-fc-job"), Standing(), []
    for _ in range(30):
        settle = asked(own=own, every=every, origin=Origin.PLAN)
        own, every = standings(settle)["my-fc-job"], standings(settle).get("", every)
        slots.append(settle.due_at or DUE)
        assert settle.goes or settle.gate is Gate.FUNCTION_RATE
    assert [(slot - DUE) / SECOND for slot in slots] == pytest.approx([0] * 10 + [n / 10 for n in range(1, 21)])
    again = asked(own=own, every=every, gate=Gate.FUNCTION_RATE, due=slots[-1], now=slots[-1], slot="")
    assert again.goes, "it has waited for it"
    assert standings(again)["my-fc-job"].pace == own.pace, "and does not pay twice"


@pytest.mark.parametrize(
    ("late", "slot"), [(6 * SECOND, ""), (timedelta(0), "another pace")], ids=["passed long ago", "of another pace"]
)
def test_a_slot_that_is_void_is_replaced(late, slot):
    own = Standing("my-fc-job", pace=Pace(DUE + 60 * SECOND))
    settle = asked(own=own, gate=Gate.FUNCTION_RATE, now=DUE + late, slot=slot)
    assert settle.gate is Gate.FUNCTION_RATE
    assert settle.due_at > DUE + 50 * SECOND


def test_one_function_that_waits_long_does_not_move_the_turn_of_the_others():
    settle = asked(own=Standing("my-fc-job", pace=Pace(DUE + 3600 * SECOND)))
    assert settle.gate is Gate.FUNCTION_RATE
    assert "" not in standings(settle)


def test_all_together_have_a_rate():
    settle = asked(every=Standing(pace=Pace(DUE + 2 * SECOND)))
    assert settle.gate is Gate.RATE
    assert standings(settle)["my-fc-job"].pace.next_at == DUE + 0.1 * SECOND
    again = asked(every=standings(settle)[""], gate=Gate.RATE, due=settle.due_at, now=settle.due_at, slot="")
    assert again.goes


def test_a_refusal_slows_its_function():
    facts = RowFacts(gates=GateFacts(own=Standing("my-fc-job")))
    later = Settle.retry(due_at=DUE, note="")
    settle = throttled(later, facts, guards=GUARDS, now=DUE, retry_after=9 * SECOND)
    assert standings(settle)["my-fc-job"].pace == Pace(None, DUE + 9 * SECOND, 0.5)


@pytest.mark.parametrize(
    ("own", "waiting", "number", "after"),
    [
        (Standing("f", budget=BROKE), 5, 0, 6),
        (Standing("f"), 500, 10, 5),
        (Standing("f", budget=Budget(1e6)), 500, 100, 5),
        (Standing("f", breaker=OPENED), 5, None, 30),
        (Standing("f", breaker=replace(OPENED, until=DUE)), 5, 1, 5),
        (Standing("f", breaker=replace(OPENED, state=BreakerState.HALF_OPEN)), 5, None, 5),
        (Standing("f", breaker=replace(OPENED, state=BreakerState.HALF_OPEN, ok=1)), 5, 10, 5),
        (Standing("f"), 0, None, None),
    ],
    ids=["no budget", "the floor", "plenty", "open", "a probe", "a probe is under way", "the probe succeeded", "none waits"],
)  # fmt: skip
def test_so_many_are_let_go(own, waiting, number, after):
    settle = asked(own=own, waiting=waiting, kind=RowKind.WAKE)
    assert settle.changes.wake == (None if number is None else ("my-fc-job", number))
    assert settle.due_at == (None if after is None else DUE + after * SECOND)
    assert settle.state is (RowState.DONE if after is None else RowState.PENDING)


@pytest.mark.parametrize(
    ("settle", "ok", "bad"),
    [
        (Settle.done(changes=Changes(lineages=(planned()[1],))), 1, 0),
        (Settle.dead(note="", changes=Changes(lineages=(planned()[1],))), 0, 1),
        (Settle.done(note="no longer the current attempt"), 0, 0),
        (Settle.retry(due_at=DUE, note="still running"), 0, 0),
    ],
    ids=["succeeded", "overdue", "nothing", "not yet"],
)
def test_what_is_found_out_about_a_re_run_counts(settle, ok, bad):
    told = concluded(settle, RowFacts(gates=GateFacts(own=Standing("f"))))
    own = standings(told).get("f", Standing("f"))
    assert (own.breaker.ok, own.breaker.bad) == (ok, bad)


def test_a_batch_is_summed_up_by_function():
    rules = make.rules(make.rule("again", rerun=make.RERUN, alert=make.ALERT))
    _, lineage = planned()
    arn = make.ARN.replace("my-fc-job", "other")
    results = [
        (make.success("s1"), None), (make.success("s2"), None), (make.envelope("f1"), None),
        (make.envelope("a"), lineage), (make.success("b"), lineage), (make.envelope("c"), lineage),
        (make.envelope("d"), lineage), (make.envelope("e", condition=""), lineage),
        (make.success("o", arn=arn), None), (make.envelope("p", arn=arn), None),
    ]  # fmt: skip
    batch = []
    for envelope, before in results:
        arrival = make.arrived(envelope)
        batch.append(decided(arrival, decide(arrival, Facts(lineage=before), rules, now=NOW)))
    assert heard(batch) == [Heard("my-fc-job", successes=2, ok=1, bad=3, streak=2), Heard("other", successes=1)]


PARTS = st.builds(
    Standing,
    st.just("my-fc-job"),
    st.builds(
        Pace,
        st.none() | st.sampled_from([DUE - SECOND, DUE, DUE + 60 * SECOND]),
        st.none() | st.sampled_from([DUE - SECOND, DUE + 9 * SECOND]),
        st.floats(0.05, 1),
    ),
    st.builds(Budget, st.floats(0, 1e7), st.none() | st.sampled_from([DUE - 9 * SECOND, DUE, DUE + SECOND])),
    st.builds(
        Breaker,
        st.sampled_from(BreakerState),
        st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30),
        st.none() | st.just(DUE), st.none() | st.sampled_from([DUE, DUE + 30 * SECOND]), st.just(30 * SECOND), st.booleans(),
    ),
)  # fmt: skip


@given(
    PARTS,
    PARTS.map(lambda standing: replace(standing, function="")),
    st.sampled_from([None, *Gate]),
    st.sampled_from([*Origin]),
    st.sampled_from([None, RowKind.WAKE]),
    st.integers(0, 30000),
)
def test_whatever_stands_a_row_goes_waits_or_ends(own, every, gate, origin, kind, seconds):  # noqa: PLR0917
    now = DUE + seconds * SECOND
    settle = asked(own=own, every=every, gate=gate, origin=origin, kind=kind, waiting=1, now=now, slot="")
    assert settle == asked(own=own, every=every, gate=gate, origin=origin, kind=kind, waiting=1, now=now, slot="")
    if kind is None and not settle.goes:
        assert (settle.state is RowState.DEAD) == (now >= NOW + make.RERUN.give_up_after)
        assert settle.state is RowState.DEAD or now < settle.due_at <= NOW + make.RERUN.give_up_after
    for standing in settle.changes.standings:
        assert left(standing.budget, GUARDS.budget, now=now) >= 0
