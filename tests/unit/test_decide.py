"""What is decided about an envelope, given what is known."""

from dataclasses import replace
from datetime import date, timedelta

import make
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.decide import Alert, Hold, Reason, Rerun, Resolve, decide, decide_batch
from triage.envelope import RECONSTRUCTED, Destination, Outcome
from triage.facts import Facts, GroupFacts, Lineage, Snapshot
from triage.reruns.event import MAX_EVENT
from triage.reruns.lineage import task_id
from triage.rules.model import AlertPolicy, Cause, HoldPolicy, Mode
from triage.states import State

NOW = make.NOW
AGAIN = make.rules(make.rule("again", rerun=make.RERUN, alert=make.ALERT))
TELL = make.rules(make.rule("tell", alert=AlertPolicy()))


def lineage(*, attempt: int = 1, state: State = State.RERUNNING, age: timedelta = timedelta(minutes=5)) -> Lineage:
    return Lineage("root", state, attempt, NOW - age, "again", 3)


def test_same_body_again_is_a_duplicate_without_effects():
    arrival = make.arrived()
    decision = decide(arrival, Facts(seen_digest=arrival.envelope.digest), AGAIN, now=NOW)
    assert (decision.reason, decision.effects, decision.is_new) == (Reason.DUPLICATE, (), False)


def test_another_body_under_the_same_id_is_a_conflict_without_effects():
    decision = decide(make.arrived(), Facts(seen_digest="other"), AGAIN, now=NOW)
    assert (decision.reason, decision.effects, decision.is_new) == (Reason.CONFLICT, (), False)


@pytest.mark.parametrize("first", [True, False], ids=["it comes first", "it comes after the message"])
def test_a_reconstructed_envelope_and_its_message_are_the_same(first: bool):
    envelope = make.envelope()
    made = replace(make.envelope(error="in other words"), digest=RECONSTRUCTED + "0")
    seen, come = (made, envelope) if first else (envelope, made)
    decision = decide(make.arrived(come), Facts(seen_digest=seen.digest), AGAIN, now=NOW)
    assert decision.reason is Reason.DUPLICATE


def test_first_match_wins():
    rules = make.rules(
        make.rule("no", ignore="never", fn="other"),
        make.rule("yes", ignore="known", fn="my-fc-job"),
        make.rule("late", alert=AlertPolicy()),
    )
    decision = decide(make.arrived(), Facts(), rules, now=NOW)
    assert decision.rule.id == "yes"
    assert (decision.effects, decision.lineage.state) == ((), State.IGNORED)


AUDIT = make.rule("audit", alert=AlertPolicy(to=("audit",)), more={"continues": True})
ALSO_AGAIN = make.rule("also-again", rerun=make.RERUN, alert=AlertPolicy(to=("x",)), more={"continues": True})


@pytest.mark.parametrize(
    ("rules", "decides", "also", "effects", "state"),
    [
        ([AUDIT], "audit", [], [(Alert, "audit")], State.ALERTING),
        ([AUDIT, *TELL.rules], "tell", ["audit"], [(Alert, "tell"), (Alert, "audit")], State.ALERTING),
        ([AUDIT, *AGAIN.rules], "again", ["audit"], [(Rerun, None), (Alert, "audit")], State.RERUN_PENDING),
        ([AUDIT, make.rule("no", ignore="known")], "no", ["audit"], [(Alert, "audit")], State.ALERTING),
        ([*TELL.rules, AUDIT], "tell", [], [(Alert, "tell")], State.ALERTING),
        # the first re-run wins; what the second one would tell at once is told
        (
            [replace(ALSO_AGAIN, id="a", alert=None), ALSO_AGAIN, *AGAIN.rules],
            "a",
            ["also-again", "again"],
            [(Rerun, None), (Alert, "also-again")],
            State.RERUN_PENDING,
        ),
        ([make.rule("off", ignore="x", more={"mode": Mode.OFF}), *TELL.rules], "tell", [], [(Alert, "tell")], State.ALERTING),
        ([make.rule("ended", ignore="x", more={"expires": date(2026, 2, 28)}), *TELL.rules], "tell", [], [(Alert, "tell")], State.ALERTING),
        ([make.rule("last-day", ignore="x", more={"expires": date(2026, 3, 1)}), *TELL.rules], "last-day", [], [], State.IGNORED),
    ],
)  # fmt: skip
def test_which_of_several_rules_apply(rules, decides, also, effects, state):
    decision = decide(make.arrived(), Facts(), make.rules(*rules), now=NOW)
    assert (decision.rule.id, [rule.id for rule in decision.also]) == (decides, also)
    found = [(type(effect), effect.rule.id if isinstance(effect, Alert) else None) for effect in decision.effects]
    assert (found, decision.lineage.state) == (effects, state)


def test_a_rule_in_shadow_mode_only_records_what_it_would_do():
    again = replace(AGAIN.rules[0], mode=Mode.SHADOW)
    decision = decide(make.arrived(), Facts(), make.rules(again, *TELL.rules), now=NOW)
    assert replace(decision, shadow=()) == decide(make.arrived(), Facts(), TELL, now=NOW)
    (shadow,) = decision.shadow
    assert (shadow.rule, shadow.reason) == (again, Reason.MATCHED)
    assert shadow.effects == decide(make.arrived(), Facts(), AGAIN, now=NOW).effects


HOLD = HoldPolicy("was it paid?", timedelta(hours=4))


@pytest.mark.parametrize(
    ("rule", "alerts"),
    [
        (make.rule("h", more={"hold": HOLD}), []),
        (make.rule("h", alert=make.ALERT, more={"hold": HOLD}), [Alert(Cause.HELD, make.ALERT)]),
        (make.rule("h", rerun=make.RERUN, alert=replace(make.ALERT, on=frozenset({Cause.OVERDUE})), more={"hold": HOLD}), []),
    ],
)  # fmt: skip
def test_a_held_failure_waits_for_a_person(rule, alerts):
    decision = decide(make.arrived(), Facts(), make.rules(rule), now=NOW)
    assert decision.effects == (Hold(NOW + timedelta(hours=4), HOLD), *alerts)
    assert (decision.lineage.state, decision.lineage.attempt) == (State.HELD, 0)


def test_a_rerun_that_cannot_be_is_not_held():
    rule = make.rule("h", rerun=make.RERUN, alert=make.ALERT, more={"hold": HOLD})
    decision = decide(
        make.arrived(make.envelope("child")), Facts(lineage=lineage(attempt=2)), make.rules(rule), now=NOW
    )
    assert decision.effects == (Alert(Cause.EXHAUSTED, make.ALERT),)


def test_a_rule_for_successes_tells_of_them():
    rules = make.rules(*TELL.rules, make.rule("ended", alert=make.ALERT, more={"names": frozenset({"outcome"})}))
    alone = decide(make.arrived(make.success()), Facts(), rules, now=NOW)
    assert (alone.reason, alone.rule.id, alone.lineage) == (Reason.SUCCEEDED, "ended", None)
    assert alone.effects == (Alert(Cause.MATCHED, make.ALERT),)
    healed = decide(make.arrived(make.success("child")), Facts(lineage=lineage()), rules, now=NOW)
    assert (healed.reason, healed.lineage.state, healed.effects) == (Reason.HEALED, State.HEALED, alone.effects)


def test_no_rule_tells_the_default_receiver():
    decision = decide(make.arrived(), Facts(), make.rules(), now=NOW)
    assert decision.reason is Reason.NO_RULE
    assert decision.effects == (Alert(Cause.FAILED, AlertPolicy()),)
    assert decision.lineage.state is State.ALERTING


def test_a_rerun_is_planned_quietly_with_a_deterministic_task_id():
    decision = decide(make.arrived(), Facts(), AGAIN, now=NOW)
    assert decision.effects == (Rerun(task_id("r1", 1), 1, NOW + timedelta(minutes=2), make.RERUN),)
    assert (decision.lineage.state, decision.lineage.attempt, decision.lineage.root) == (State.RERUN_PENDING, 1, "r1")
    assert decide(make.arrived(), Facts(), AGAIN, now=NOW) == decision


def test_delays_grow_from_attempt_to_attempt():
    decision = decide(make.arrived(make.envelope("child")), Facts(lineage=lineage(attempt=1)), AGAIN, now=NOW)
    (effect,) = decision.effects
    assert (effect.attempt, effect.due_at) == (2, NOW + timedelta(minutes=4))
    assert effect.task_id == task_id("root", 2)


def test_a_rule_that_is_not_quiet_tells_at_once_too():
    loud = make.rules(make.rule("loud", rerun=make.RERUN, alert=AlertPolicy()))
    kinds = [type(effect) for effect in decide(make.arrived(), Facts(), loud, now=NOW).effects]
    assert kinds == [Rerun, Alert]


@pytest.mark.parametrize(
    ("known", "reason"),
    [(lineage(attempt=2), Reason.ATTEMPTS_EXHAUSTED), (lineage(age=timedelta(hours=6)), Reason.TOO_OLD)],
)
def test_when_no_attempt_or_time_is_left_a_person_is_told(known, reason):
    decision = decide(make.arrived(make.envelope("child")), Facts(lineage=known), AGAIN, now=NOW)
    assert decision.reason is reason
    assert decision.effects == (Alert(Cause.EXHAUSTED, make.ALERT),)
    assert decision.lineage.state is State.ALERTING


@pytest.mark.parametrize(
    ("message", "reason"),
    [({"requestPayload": None}, Reason.NO_PAYLOAD), ({"payload": "x" * (MAX_EVENT + 1)}, Reason.PAYLOAD_TOO_LARGE)],
)
@pytest.mark.parametrize("hold", [None, HoldPolicy("sure?", timedelta(hours=1))])
def test_an_event_that_cannot_be_run_again_is_refused_at_once(message, reason, hold):
    arrival = make.arrived(make.envelope("r1", **message))
    rules = make.rules(make.rule("again", rerun=make.RERUN, alert=make.ALERT, more={"hold": hold}))
    decision = decide(arrival, Snapshot().of(arrival), rules, now=NOW)
    assert (decision.reason, decision.lineage.state) == (reason, State.ALERTING)
    assert decision.effects == (Alert(Cause.REFUSED, make.ALERT),)


def test_what_a_later_result_tells_of_its_event_does_not_count():
    arrival = make.arrived(make.envelope("child", requestPayload=None))
    snapshot = Snapshot(lineages={"child": lineage()})
    assert decide(arrival, snapshot.of(arrival), AGAIN, now=NOW).reason is Reason.MATCHED


def test_a_cause_the_rule_does_not_want_to_hear_of_is_not_told():
    silent = make.rules(make.rule("silent", rerun=make.RERUN, alert=replace(make.ALERT, on=frozenset({Cause.UNKNOWN}))))
    decision = decide(make.arrived(make.envelope("child")), Facts(lineage=lineage(attempt=2)), silent, now=NOW)
    assert (decision.effects, decision.lineage.state) == ((), State.IGNORED)


def test_success_of_a_rerun_heals_the_lineage():
    decision = decide(make.arrived(make.success("child")), Facts(lineage=lineage()), AGAIN, now=NOW)
    assert (decision.reason, decision.effects, decision.lineage.state) == (Reason.HEALED, (), State.HEALED)


def test_an_ambiguous_result_of_a_rerun_is_asked_about():
    ambiguous = make.success("child", destination=Destination.BOTH)
    decision = decide(make.arrived(ambiguous), Facts(lineage=lineage()), AGAIN, now=NOW)
    assert decision.effects == (Resolve(task_id("root", 1), 1),)
    assert decision.lineage.state is State.RERUNNING


@pytest.mark.parametrize("destination", [Destination.SUCCESS, Destination.BOTH])
def test_a_success_outside_any_lineage_has_no_effects(destination):
    decision = decide(make.arrived(make.success(destination=destination)), Facts(), TELL, now=NOW)
    assert (decision.reason, decision.effects, decision.lineage) == (Reason.SUCCEEDED, (), None)


def test_an_expression_that_cannot_be_evaluated_is_no_match_and_is_reported():
    class Broken:
        text = "payload.x > 1"

        def evaluate(self, subject):
            return "no such key"

    rules = make.rules(make.rule("broken", ignore="x", when=Broken()), make.rule("tell", alert=AlertPolicy()))
    decision = decide(make.arrived(), Facts(), rules, now=NOW)
    assert decision.rule.id == "tell"
    assert [(clause.rule_id, clause.actual) for clause in decision.errors] == [("broken", "no such key")]


def test_later_envelopes_of_a_batch_see_earlier_ones():
    first, again = make.arrived(make.envelope("a")), make.arrived(make.envelope("a"))
    other, changed = make.arrived(make.envelope("b")), make.arrived(make.envelope("a", payload="2"))
    snapshot = Snapshot()
    decisions = decide_batch([first, again, other, changed], snapshot, AGAIN, now=NOW)
    assert [d.reason for d in decisions] == [Reason.MATCHED, Reason.DUPLICATE, Reason.MATCHED, Reason.CONFLICT]
    assert snapshot.groups[first.fingerprint] == GroupFacts(NOW, 2, NOW, NOW)


def test_two_results_of_one_lineage_in_one_batch_build_on_each_other():
    snapshot = Snapshot(lineages={"c1": lineage(attempt=1), "c2": lineage(attempt=1)})
    batch = [make.arrived(make.envelope("c1")), make.arrived(make.envelope("c2"))]
    first, second = decide_batch(batch, snapshot, AGAIN, now=NOW)
    assert (first.lineage.attempt, first.lineage.version) == (2, 3)
    assert (second.reason, second.lineage.version) == (Reason.ATTEMPTS_EXHAUSTED, 4)


FACTS = st.builds(
    Facts,
    seen_digest=st.none() | st.text(max_size=3),
    lineage=st.none()
    | st.builds(
        Lineage,
        root=st.text(max_size=5),
        state=st.sampled_from([state for state in State if state is not State.NEW]),
        attempt=st.integers(0, 200),
        started_at=st.timedeltas(timedelta(0), timedelta(days=400)).map(lambda age: NOW - age),
        rule_id=st.text(max_size=3),
        version=st.integers(1, 9),
    ),
    group=st.none()
    | st.builds(
        GroupFacts,
        first_seen=st.just(NOW),
        count=st.integers(0, 10**6),
        last_seen=st.just(NOW),
        back_since=st.just(NOW),
    ),
)
ENVELOPES = st.builds(
    make.envelope,
    st.text("abc", min_size=1, max_size=5),
    condition=st.sampled_from(["", "InvocationError", "x"]),
    status=st.sampled_from([200, 500]),
    error=st.text(max_size=20),
    destination=st.sampled_from(Destination),
)


RULES = st.lists(
    st.builds(
        lambda number, action, **more: make.rule(f"r{number}", **action, more=more),
        st.integers(0, 99),
        st.sampled_from(
            [
                {"ignore": "known"},
                {"alert": AlertPolicy()},
                {"alert": make.ALERT},
                {"rerun": make.RERUN},
                {"rerun": make.RERUN, "alert": AlertPolicy()},
                {"fn": "other", "alert": AlertPolicy()},
            ]
        ),
        hold=st.sampled_from([None, None, HoldPolicy("why")]),
        mode=st.sampled_from(Mode),
        continues=st.booleans(),
        expires=st.sampled_from([None, None, NOW.date(), NOW.date() - timedelta(days=1)]),
        names=st.sampled_from([frozenset(), frozenset({"outcome"})]),
    ),
    max_size=5,
).map(lambda rules: make.rules(*rules))


@given(ENVELOPES, FACTS, RULES)
def test_deciding_is_total_and_deterministic(envelope, facts, rules):
    arrival = make.arrived(envelope)
    decision = decide(arrival, facts, rules, now=NOW)
    assert decision == decide(arrival, facts, rules, now=NOW)
    assert decision.lineage is None or decision.lineage.state is not State.NEW
    planned = [effect for effect in decision.effects if isinstance(effect, Rerun | Hold)]
    assert len(planned) <= 1
    if decision.lineage is not None and decision.is_new and envelope.outcome is Outcome.FAILED:
        told = any(isinstance(effect, Alert) for effect in decision.effects)
        waits = {State.RERUN_PENDING: Rerun, State.HELD: Hold}.get(decision.lineage.state)
        assert [type(effect) for effect in planned] == ([waits] if waits else [])
        assert waits or decision.lineage.state is (State.ALERTING if told else State.IGNORED)


@given(ENVELOPES, FACTS, RULES)
def test_rules_in_shadow_mode_change_nothing(envelope, facts, rules):
    arrival = make.arrived(envelope)
    decision = decide(arrival, facts, rules, now=NOW)
    without = make.rules(*(rule for rule in rules.rules if rule.mode is not Mode.SHADOW))
    assert replace(decision, shadow=()) == decide(arrival, facts, without, now=NOW)
