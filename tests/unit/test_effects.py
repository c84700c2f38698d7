"""What follows from a decision, and from what the far side said about an outbox row."""

from dataclasses import replace
from datetime import timedelta

import make
import pytest

from triage.changes import RowKind
from triage.decide import decide
from triage.effects import decided, quarantine_alert
from triage.envelope import Destination, FunctionRef
from triage.facts import Facts, Lineage
from triage.reactions import (
    ABSENT_AFTER,
    function_of,
    lost,
    not_found,
    postponed,
    refused,
    rejected,
    resolved,
    submitted,
    unanswered,
)
from triage.reruns.event import unfit
from triage.reruns.lineage import task_id
from triage.rules.model import AlertPolicy, Cause, HoldPolicy, Severity
from triage.states import RowState, State
from triage.views import OutboxRow, RowFacts

NOW = make.NOW
LATER = NOW + timedelta(minutes=2)
AGAIN = make.rules(make.rule("again", rerun=make.RERUN, alert=make.ALERT))


def planned(facts: Facts = Facts(), envelope=None):
    arrival = make.arrived(envelope)
    return decided(arrival, decide(arrival, facts, AGAIN, now=NOW))


def rerun_row(**changes) -> OutboxRow:
    (new,) = planned().changes.rows
    return make.claimed(new, **changes)


def lineage(state: State = State.RERUN_PENDING, attempt: int = 1) -> Lineage:
    return Lineage("r1", state, attempt, NOW, "again", 4)


def facts(state: State = State.RERUN_PENDING, attempt: int = 1) -> RowFacts:
    return RowFacts(lineage=lineage(state, attempt))


# ---------------------------------------------------------------- from a decision


def test_a_first_failure_plans_one_row_and_links_its_task_id():
    changes = planned().changes
    (row,) = changes.rows
    assert (row.key, row.kind, row.due_at, row.root) == (task_id("r1", 1), RowKind.RERUN, LATER, "r1")
    assert [(link.key, link.attempt) for link in changes.links] == [(row.key, 1)]
    assert changes.cancel == ()
    assert function_of(row.payload) == FunctionRef("my-fc-job", region="cn-hangzhou", account="1034354682")


def test_the_result_of_a_rerun_cancels_what_waited_for_it():
    changes = planned(Facts(lineage=lineage(State.RERUNNING)), make.envelope("child")).changes
    task = task_id("r1", 1)
    assert set(changes.cancel) == {task, f"expect:{task}", f"resolve:{task}"}
    assert {(link.key, link.attempt) for link in changes.links} == {("child", 1), (task_id("r1", 2), 2)}


@pytest.mark.parametrize(
    ("message", "detail"),
    [
        ({"requestPayload": None}, "the message did not hold the event that the function was called with"),
        ({"payload": "é" * 131073}, "the event has 262,146 bytes; Function Compute takes 262,144 at most"),
    ],
)
def test_the_alert_says_why_an_event_cannot_be_run_again(message, detail):
    envelope = make.envelope(**message)
    changes = planned(Facts(unfit=unfit(envelope)), envelope).changes
    assert (changes.rows, changes.links) == ((), ())
    assert [(alert.cause, alert.detail) for alert in changes.alerts] == [(Cause.REFUSED, f"not run again: {detail}")]


def test_an_ambiguous_result_asks_and_cancels_nothing():
    changes = planned(
        Facts(lineage=lineage(State.RERUNNING)), make.success("child", destination=Destination.BOTH)
    ).changes
    (row,) = changes.rows
    assert (row.kind, row.due_at) == (RowKind.RESOLVE, NOW)
    assert changes.cancel == ()


def test_a_success_outside_any_lineage_writes_no_rows():
    assert planned(envelope=make.success()).changes.rows == ()


def test_alerts_group_by_what_the_rule_says():
    def key(policy, **fields):
        arrival = make.arrived(make.envelope(**fields))
        rules = make.rules(make.rule("tell", alert=policy))
        (alert,) = decided(arrival, decide(arrival, Facts(), rules, now=NOW)).changes.alerts
        return alert.group.key

    by_function = AlertPolicy(group_by=("function",))
    assert key(by_function, error="a") == key(by_function, error="b")
    assert key(AlertPolicy(), error="boom") != key(AlertPolicy(), error="other")
    assert key(AlertPolicy(), error="took 3 s") == key(AlertPolicy(), error="took 4 s")
    assert key(AlertPolicy(to=("a",))) != key(AlertPolicy(to=("b",)))


def test_quarantined_messages_of_one_source_and_reason_make_one_group():
    def key(reason):
        return quarantine_alert(source="s", reason=reason, detail="", policy=AlertPolicy(), entry="1").group.key

    assert key("not_json") == key("not_json") != key("schema")


# ---------------------------------------------------------------- from the answer to a submit


@pytest.mark.parametrize("state", [State.RERUN_PENDING, State.UNKNOWN])
@pytest.mark.parametrize("already", [True, False])
def test_an_accepted_submit_waits_for_the_result(state, already):
    settle = submitted(rerun_row(), facts(state), request_id="child", now=LATER, already=already)
    assert settle.state is RowState.DONE
    (moved,) = settle.changes.lineages
    assert (moved.state, moved.attempt) == (State.RERUNNING, 1)
    (expect,) = settle.changes.rows
    assert (expect.kind, expect.due_at) == (RowKind.EXPECT, LATER + timedelta(hours=24))
    assert [link.key for link in settle.changes.links] == ["child"]


@pytest.mark.parametrize("moved_on", [facts(State.HEALED), facts(State.RERUN_PENDING, 2), RowFacts()])
def test_a_result_that_overtook_the_answer_is_not_undone(moved_on):
    settle = submitted(rerun_row(), moved_on, request_id="child", now=LATER)
    assert (settle.state, settle.changes.lineages, settle.changes.rows) == (RowState.DONE, (), ())
    assert [link.key for link in settle.changes.links] == ["child"]


def test_no_answer_is_unknown_and_remembers_since_when():
    settle = lost(rerun_row(), facts(), note="time-out", now=LATER)
    assert settle.state is RowState.UNKNOWN
    assert settle.due_at > LATER
    assert settle.changes.lineages[0].state is State.UNKNOWN
    again = lost(claimed_again(settle), facts(State.UNKNOWN), note="time-out", now=LATER + timedelta(minutes=1))
    assert again.payload["lost_at"] == LATER.isoformat()


def claimed_again(settle, **changes) -> OutboxRow:
    return replace(rerun_row(state=RowState.UNKNOWN, attempts=2), payload=settle.payload, **changes)


def test_the_question_is_asked_again_as_soon_as_its_answer_is_certain():
    row = claimed_again(lost(rerun_row(), facts(), note="", now=LATER))
    late = lost(replace(row, attempts=9), facts(State.UNKNOWN), note="", now=LATER + timedelta(seconds=20))
    assert late.due_at == LATER + ABSENT_AFTER


def test_absent_shortly_after_the_submit_says_nothing():
    row = claimed_again(lost(rerun_row(), facts(), note="", now=LATER))
    settle = not_found(row, facts(State.UNKNOWN), tracked=True, now=LATER + timedelta(seconds=3))
    assert settle.state is RowState.UNKNOWN


@pytest.mark.parametrize(("tracked", "idempotent"), [(True, False), (False, True)])
def test_absent_later_is_submitted_again_where_that_is_safe(tracked, idempotent):
    row = claimed_again(lost(rerun_row(idempotent=idempotent), facts(), note="", now=LATER))
    settle = not_found(row, facts(State.UNKNOWN), tracked=tracked, now=LATER + ABSENT_AFTER)
    assert (settle.state, settle.due_at) == (RowState.PENDING, LATER + ABSENT_AFTER)
    assert "lost_at" not in settle.payload


def test_absent_and_untracked_is_held_for_a_person():
    row = claimed_again(lost(rerun_row(), facts(), note="", now=LATER))
    settle = not_found(row, facts(State.UNKNOWN), tracked=False, now=LATER + ABSENT_AFTER)
    assert settle.state is RowState.DEAD
    (alert,) = settle.changes.alerts
    assert (alert.cause, alert.root) == (Cause.UNKNOWN, "r1")
    assert settle.changes.lineages[0].state is State.ALERTING


@pytest.mark.parametrize("moved_on", [facts(State.HEALED), facts(State.RERUN_PENDING, 2), RowFacts()])
def test_what_has_moved_on_is_neither_asked_about_nor_submitted_again(moved_on):
    row = claimed_again(lost(rerun_row(idempotent=True), facts(), note="", now=LATER))
    asked = lost(row, moved_on, note="time-out", now=LATER + ABSENT_AFTER)
    absent = not_found(row, moved_on, tracked=True, now=LATER + ABSENT_AFTER)
    assert (asked.state, absent.state) == (RowState.DONE, RowState.DONE)


GIVE_UP = NOW + timedelta(hours=6)


def test_nobody_asks_for_ever_about_a_submit_without_an_answer():
    row = claimed_again(lost(rerun_row(), facts(), note="", now=LATER))
    assert lost(row, facts(State.UNKNOWN), note="403", now=GIVE_UP).state is RowState.UNKNOWN
    settle = lost(row, facts(State.UNKNOWN), note="403", now=GIVE_UP + timedelta(seconds=1))
    assert settle.state is RowState.DEAD
    (alert,) = settle.changes.alerts
    assert (alert.cause, alert.detail) == (Cause.UNKNOWN, "no answer to the submit; 403")
    assert settle.changes.lineages[0].state is State.ALERTING


def test_a_submit_lost_at_the_last_moment_is_still_asked_about_for_a_while():
    row = claimed_again(lost(rerun_row(), facts(), note="", now=GIVE_UP))
    for minutes, state in ((1, RowState.UNKNOWN), (15, RowState.UNKNOWN), (16, RowState.DEAD)):
        now = GIVE_UP + timedelta(minutes=minutes)
        assert lost(row, facts(State.UNKNOWN), note="", now=now).state is state


@pytest.mark.parametrize(("tracked", "cause"), [(True, Cause.EXHAUSTED), (False, Cause.UNKNOWN)])
def test_absent_and_too_late_is_not_submitted_again(tracked, cause):
    row = claimed_again(lost(rerun_row(idempotent=True), facts(), note="", now=LATER))
    settle = not_found(row, facts(State.UNKNOWN), tracked=tracked, now=GIVE_UP + timedelta(seconds=1))
    assert (settle.state, [alert.cause for alert in settle.changes.alerts]) == (RowState.DEAD, [cause])


def test_a_refusal_tells_the_receivers_of_the_rule():
    settle = refused(rerun_row(), facts(), note="FunctionNotFound")
    (alert,) = settle.changes.alerts
    assert (alert.cause, alert.detail, alert.group.receivers) == (Cause.REFUSED, "FunctionNotFound", ("default",))
    same_group = decided(
        make.arrived(make.envelope("x")),
        decide(make.arrived(make.envelope("x")), Facts(lineage=lineage(attempt=2)), AGAIN, now=NOW),
    )
    assert alert.group.key == same_group.changes.alerts[0].group.key


def test_later_comes_back_with_growing_delays_until_it_is_too_late():
    first = postponed(rerun_row(attempts=9), facts(), note="429", now=LATER)
    third = postponed(rerun_row(postponed=2), facts(), note="429", now=LATER)
    assert LATER < first.due_at < third.due_at
    assert (first.payload["postponed"], third.payload["postponed"]) == (1, 3)
    asked = postponed(rerun_row(), facts(), note="429", now=LATER, retry_after=timedelta(minutes=7))
    assert asked.due_at == LATER + timedelta(minutes=7)
    late = postponed(rerun_row(), facts(), note="429", now=NOW + timedelta(hours=6))
    assert (late.state, late.changes.alerts[0].cause) == (RowState.DEAD, Cause.EXHAUSTED)


# ---------------------------------------------------------------- from the question how a task ended


def expect_row() -> OutboxRow:
    (new,) = submitted(rerun_row(), facts(), request_id="child", now=LATER).changes.rows
    return make.claimed(new)


def resolve_row() -> OutboxRow:
    (new,) = planned(
        Facts(lineage=lineage(State.RERUNNING)), make.success("child", destination=Destination.BOTH)
    ).changes.rows
    return make.claimed(new)


CASES = {
    "overdue, succeeded": (expect_row, "Succeeded", State.HEALED, None),
    "overdue, failed": (expect_row, "Failed", State.ALERTING, Cause.OVERDUE),
    "overdue, unknown task": (expect_row, None, State.ALERTING, Cause.OVERDUE),
    "ambiguous, succeeded": (resolve_row, "Succeeded", State.HEALED, None),
    "ambiguous, untracked": (resolve_row, None, State.HEALED, None),
    "ambiguous, stopped": (resolve_row, "Stopped", State.ALERTING, Cause.EXHAUSTED),
}


@pytest.mark.parametrize(("row", "status", "state", "cause"), CASES.values(), ids=CASES.keys())
def test_the_provider_says_how_it_ended(row, status, state, cause):
    settle = resolved(row(), facts(State.RERUNNING), status=status, now=LATER)
    assert settle.changes.lineages[0].state is state
    assert [alert.cause for alert in settle.changes.alerts] == ([cause] if cause else [])


@pytest.mark.parametrize("row", [expect_row, resolve_row])
def test_a_running_task_is_asked_about_again(row):
    settle = resolved(row(), facts(State.RERUNNING), status="Running", now=LATER)
    assert settle.state is RowState.PENDING
    assert settle.due_at > LATER


@pytest.mark.parametrize("status", ["Succeeded", "Stopped"])
def test_a_resolved_result_is_neither_waited_for_nor_submitted_again(status):
    task = task_id("r1", 1)
    settle = resolved(resolve_row(), facts(State.RERUNNING), status=status, now=LATER)
    assert set(settle.changes.cancel) == {f"expect:{task}", task}


@pytest.mark.parametrize("status", ["Succeeded", "Stopped"])
def test_nobody_need_decide_any_more_about_what_a_late_answer_ends(status):
    settle = resolved(resolve_row(), facts(State.HELD), status=status, now=LATER)
    assert "hold:r1" in settle.changes.cancel


@pytest.mark.parametrize("now_facts", [facts(State.RERUNNING, 2), facts(State.HEALED), RowFacts()])
def test_a_deadline_of_an_answered_attempt_does_nothing(now_facts):
    settle = resolved(expect_row(), now_facts, status="Failed", now=LATER)
    assert (settle.state, settle.changes.lineages, settle.changes.alerts) == (RowState.DONE, (), ())


# ---------------------------------------------------------------- what is held


HELD = HoldPolicy("was it paid?", timedelta(hours=4))


def hold_row(**rule) -> OutboxRow:
    rules = make.rules(make.rule("ask", more={"hold": HELD}, **rule))
    arrival = make.arrived()
    changes = decided(arrival, decide(arrival, Facts(), rules, now=NOW)).changes
    (new,) = changes.rows
    assert (new.kind, new.key, new.due_at, new.anew) == (RowKind.HOLD, "hold:r1", NOW + timedelta(hours=4), True)
    return make.claimed(new)


def test_a_person_may_leave_it():
    settle = rejected(hold_row(), facts(State.HELD, 0), by="kim", reason="paid")
    assert (settle.state, settle.note) == (RowState.DONE, "rejected by kim: paid")
    assert (settle.changes.lineages[0].state, settle.changes.rows) == (State.IGNORED, ())
    (deed,) = settle.changes.deeds
    assert (deed.by, deed.action, deed.reason, deed.root) == ("kim", "reject", "paid", "r1")


@pytest.mark.parametrize("moved_on", [facts(State.HEALED, 0), facts(State.RERUN_PENDING, 1), RowFacts()])
def test_what_is_no_longer_held_is_left_alone(moved_on):
    row = hold_row()
    for settle in (rejected(row, moved_on, by="kim", reason="x"), unanswered(row, moved_on)):
        assert settle.state is RowState.DEAD
        assert settle.changes.lineages == settle.changes.rows == settle.changes.alerts == settle.changes.deeds == ()


@pytest.mark.parametrize(
    "alert",
    [None, AlertPolicy(to=("boss",), severity=Severity.CRITICAL, on=frozenset({Cause.EXHAUSTED}))],
)
def test_that_nobody_decided_is_always_told(alert):
    settle = unanswered(hold_row(alert=alert), facts(State.HELD, 0))
    (told,) = settle.changes.alerts
    assert (told.cause, told.detail) == (Cause.HELD, "nobody decided in time: was it paid?")
    assert told.group.receivers == (alert.to if alert else ("default",))
    assert settle.changes.lineages[0].state is State.ALERTING


def test_what_leaves_the_state_held_needs_no_decision_any_more():
    held = Facts(lineage=lineage(State.HELD, 0))
    assert "hold:r1" in planned(held, make.success("child")).changes.cancel
    assert "hold:r1" in planned(held, make.envelope("child")).changes.cancel
    rules = make.rules(make.rule("ask", more={"hold": HELD}))
    arrival = make.arrived(make.envelope("child"))
    assert decided(arrival, decide(arrival, held, rules, now=NOW)).changes.cancel == ()


def test_alerts_of_several_rules_go_to_their_own_groups():
    audit = make.rule("audit", alert=AlertPolicy(to=("audit",)), more={"continues": True, "owner": "auditors"})
    rules = make.rules(audit, make.rule("tell", alert=AlertPolicy(), more={"owner": "us"}))
    arrival = make.arrived()
    alerts = decided(arrival, decide(arrival, Facts(), rules, now=NOW)).changes.alerts
    told = [(alert.group.receivers, alert.group.labels["rule"], alert.group.labels["owner"]) for alert in alerts]
    assert told == [(("default",), "tell", "us"), (("audit",), "audit", "auditors")]


def test_a_success_that_a_rule_wants_to_tell_raises_an_alert_of_no_failure():
    rules = make.rules(make.rule("ended", alert=AlertPolicy(), more={"names": frozenset({"outcome"})}))
    arrival = make.arrived(make.success("s"))
    changes = decided(arrival, decide(arrival, Facts(), rules, now=NOW)).changes
    assert [(alert.cause, alert.root, alert.request_id) for alert in changes.alerts] == [(Cause.MATCHED, "", "s")]
    healing = decided(arrival, decide(arrival, Facts(lineage=lineage(State.RERUNNING)), rules, now=NOW)).changes
    assert [(alert.cause, alert.root) for alert in healing.alerts] == [(Cause.MATCHED, "r1")]
