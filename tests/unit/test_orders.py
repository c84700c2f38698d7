"""What becomes of an order to run something again, by where it stands."""

from dataclasses import replace
from datetime import timedelta

import make
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.changes import RowKind
from triage.decide import decide
from triage.effects import decided, hold_key
from triage.facts import Facts, Lineage
from triage.orders import Limits, Order, Ordered, Refusal, Refused, Stored, place
from triage.reactions import function_of
from triage.reruns.event import MAX_EVENT
from triage.reruns.lineage import Origin, task_id
from triage.rules.model import HoldPolicy
from triage.states import State

NOW = make.NOW
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
LIMITS = Limits(max_attempts=3, give_up_after=2 * DAY)
ORDER = Order(Origin.MANUAL, "kim", "mended", NOW + MINUTE)
ALERTED = Lineage("r1", State.ALERTED, 2, NOW - HOUR, "tell", 7)
STATES = [state for state in State if state is not State.NEW]
UNDER_WAY = (State.RERUN_PENDING, State.RERUNNING, State.UNKNOWN)


def stored(lineage=ALERTED, *, last=None, envelope=None):
    return Stored("r1", make.arrived(envelope), lineage, last)


def last_of(**rule):
    """The payload of the row that a rule has planned."""
    arrival = make.arrived()
    (row,) = decided(arrival, decide(arrival, Facts(), make.rules(make.rule(**rule)), now=NOW)).changes.rows
    return row.payload


def ask(known, order=ORDER, *, limits=LIMITS, now=NOW):
    return place(order, known, limits=limits, now=now)


@pytest.mark.parametrize("origin", [Origin.MANUAL, Origin.PLAN])
def test_an_order_is_the_next_attempt_of_its_lineage(origin):
    answer = ask(stored(), replace(ORDER, origin=origin))
    task = task_id("r1", 3)
    assert (answer.lineage.state, answer.lineage.attempt, answer.lineage.manual) == (State.RERUN_PENDING, 3, 1)
    assert (answer.lineage.version, answer.task_id, answer.arrival.envelope.request_id) == (8, task, "r1")
    (row,) = answer.changes.rows
    assert (row.key, row.kind, row.due_at, row.root) == (task, RowKind.RERUN, NOW + MINUTE, "r1")
    assert (row.payload["origin"], row.payload["attempt"], row.payload["request_id"]) == (origin, 3, "r1")
    assert [(link.key, link.attempt, link.origin) for link in answer.changes.links] == [(task, 3, origin)]
    (deed,) = answer.changes.deeds
    assert (deed.by, deed.reason, deed.root, deed.request_id) == ("kim", "mended", "r1", "r1")
    assert answer.changes.cancel == ()


def test_its_row_says_as_much_as_one_that_a_rule_planned():
    (row,) = ask(stored()).changes.rows
    assert set(row.payload) == set(last_of(rerun=make.RERUN))
    assert row.payload["origin"] == Origin.MANUAL
    assert last_of(rerun=make.RERUN)["origin"] == Origin.AUTOMATIC


def test_a_success_begins_a_lineage_with_the_order():
    answer = ask(stored(None, envelope=make.success("r1")), now=NOW + 90 * DAY, order=replace(ORDER, due_at=NOW))
    (begun,) = answer.changes.lineages
    assert (begun.root, begun.state, begun.version) == ("r1", State.RERUN_PENDING, 0)
    assert (begun.attempt, begun.manual, begun.started_at) == (1, 1, NOW + 90 * DAY)


@pytest.mark.parametrize("origin", [Origin.MANUAL, Origin.APPROVAL, Origin.PLAN])
@pytest.mark.parametrize("state", STATES)
def test_where_it_stands_decides_who_may_ask(state, origin):
    answer = ask(stored(replace(ALERTED, state=state), last=last_of(rerun=make.RERUN)), replace(ORDER, origin=origin))
    expected = None
    if state in UNDER_WAY:
        expected = Refusal.UNDER_WAY
    elif origin is Origin.APPROVAL and state is not State.HELD:
        expected = Refusal.NOT_HELD
    elif origin is Origin.PLAN and state in (State.HELD, State.HEALED):
        expected = Refusal(state.value)
    assert (answer.why if isinstance(answer, Refused) else None) == expected


@pytest.mark.parametrize(
    ("known", "order", "why", "says"),
    [
        (None, ORDER, Refusal.UNKNOWN_ID, "nothing is stored"),
        (Stored("r1", None, ALERTED), ORDER, Refusal.NO_PAYLOAD, "not stored any more"),
        (stored(envelope=make.envelope(payload=None)), ORDER, Refusal.NO_PAYLOAD, "did not hold the event"),
        (
            stored(envelope=make.envelope(payload="x" * (MAX_EVENT + 1))),
            ORDER,
            Refusal.PAYLOAD_TOO_LARGE,
            "262,145 bytes",
        ),
        (stored(replace(ALERTED, attempt=3)), ORDER, Refusal.EXHAUSTED, "3 times (reruns.max_attempts)"),
        (stored(), replace(ORDER, due_at=NOW + 2 * DAY), Refusal.TOO_LATE, "2026-03-01 11:00Z"),
    ],
    ids=lambda value: value.name if isinstance(value, Refusal) else "",
)
def test_what_cannot_be_done_is_refused_with_the_reason(known, order, why, says):
    answer = ask(known, order)
    assert answer.why is why
    assert says in answer.detail


@pytest.mark.parametrize("payload", ["", "{}", "x" * MAX_EVENT])
def test_an_event_may_be_empty_or_as_long_as_the_platform_takes(payload):
    assert isinstance(ask(stored(envelope=make.envelope(payload=payload))), Ordered)


def test_what_a_rule_said_of_the_function_stays_but_its_qualifier_was_for_that_re_run():
    rerun = replace(make.RERUN, qualifier="large", idempotent=True, expect_within=2 * HOUR)
    last = last_of(rerun=rerun, alert=make.ALERT)
    (row,) = ask(stored(last=last)).changes.rows
    assert (row.payload["expect_within"], row.payload["idempotent"], row.payload["alert"]) == (
        7200,
        True,
        last["alert"],
    )
    assert function_of(row.payload).qualifier == ""
    (row,) = ask(stored(last=last), replace(ORDER, qualifier="canary")).changes.rows
    assert function_of(row.payload).qualifier == "canary"


@pytest.mark.parametrize("origin", [Origin.MANUAL, Origin.APPROVAL])
def test_a_held_one_is_run_as_the_rule_says_that_holds_it(origin):
    rerun = replace(make.RERUN, qualifier="large", idempotent=True)
    last = last_of(rerun=rerun, more={"hold": HoldPolicy("was it paid?")})
    answer = ask(stored(replace(ALERTED, state=State.HELD, attempt=0), last=last), replace(ORDER, origin=origin))
    (row,) = answer.changes.rows
    assert (function_of(row.payload).qualifier, row.payload["idempotent"]) == ("large", True)
    assert answer.changes.cancel == (hold_key("r1"),)


@given(due=st.timedeltas(timedelta(0), 3 * DAY), age=st.timedeltas(timedelta(0), 3 * DAY))
def test_nothing_is_due_or_submitted_past_the_deadline(due, age):
    answer = ask(stored(replace(ALERTED, started_at=NOW - age)), replace(ORDER, due_at=NOW + due))
    assert isinstance(answer, Ordered) == (age + due <= LIMITS.give_up_after)
    if isinstance(answer, Ordered):
        (row,) = answer.changes.rows
        give_up_at = row.payload["give_up_at"]
        assert row.due_at.isoformat() <= give_up_at <= (NOW - age + LIMITS.give_up_after).isoformat()
