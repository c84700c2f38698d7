"""What becomes of a notification by what its targets said, and which may go to its receiver when."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import make
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.alerts.delivery import NOBODY, Answer, Fallback, Result, Retries, notified
from triage.alerts.routing import Quiet, Rate, Route, fallback_of, quiet_until, routed
from triage.changes import NewRow, RowKind
from triage.line import DELIVERIES, Line, Waiting
from triage.reruns.gate import Gate
from triage.rules.model import Severity
from triage.rules.windows import Hours
from triage.states import RowState
from triage.views import RowFacts

NOW = make.NOW
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
SENT = Answer(Result.SENT, "target 1 (json)")
FAILED = Answer(Result.FAILED, "target 1 (json)", "HTTP 500")
LOST = Answer(Result.UNKNOWN, "target 1 (json)", "no answer within 15 s")


def row(key="notify:g:1:ops", *, gate=None, attempts=1, at=NOW, severity="warning", **payload):
    new = NewRow(
        key,
        RowKind.NOTIFY,
        NOW,
        {"receiver": "ops", "flush": 1, "at": at.isoformat(), "code": "abc123", "alerts": 2}
        | {"severity": severity, "title": "[warning] f failed × 2 #abc123", "body": "Count: 2"},
        group="g",
    )
    return replace(make.claimed(new, attempts=attempts, **payload), gate=gate)


def settle(answers, *, now=NOW, fallback=NOBODY, retries=Retries(), **options):
    return notified(row(**options), answers, retries=retries, now=now, fallback=fallback)


# ---------------------------------------------------------------- results


def test_a_far_side_that_wants_to_be_left_alone_is_left_alone():
    after = replace(FAILED, detail="HTTP 429", retry_after=timedelta(minutes=7))
    found = settle({"a": after, "b": replace(after, retry_after=MINUTE)})
    assert (found.due_at, found.delivery) == (NOW + 7 * MINUTE, "failed")
    soon = settle({"a": replace(after, retry_after=timedelta(0))}).due_at
    assert soon >= NOW + 0.8 * Retries().first, "never sooner than our own back-off"


def test_one_that_wants_to_be_left_alone_past_the_end_is_given_up():
    found = settle({"a": replace(FAILED, retry_after=25 * HOUR)})
    assert (found.state, found.note) == (RowState.DEAD, "target 1 (json): failed, HTTP 500")


def test_what_may_have_arrived_is_not_repeated_all_day():
    found, payload, notes = None, {}, []
    for attempts in range(1, 4):
        found = settle({"a": LOST}, attempts=attempts, **payload)
        payload = {name: (found.payload or {}).get(name) for name in ("sent", "unknown")}
        notes.append((found.state, found.delivery))
    assert notes == [(RowState.PENDING, "unknown")] * 2 + [(RowState.DEAD, "dead")]
    assert "it may have arrived 3 times" in found.note


def test_a_target_that_certainly_failed_goes_on_being_tried():
    found = settle({"a": LOST, "b": FAILED}, unknown=9)
    assert (found.state, found.delivery) == (RowState.PENDING, "unknown")


def test_the_fallback_is_told_once_the_receiver_has_failed_for_a_while_or_is_given_up():
    deputy = Fallback("deputy", 10 * MINUTE)
    assert settle({"a": FAILED}, fallback=deputy, now=NOW + 9 * MINUTE).changes.rows == ()
    (new,) = settle({"a": FAILED}, fallback=deputy, now=NOW + 10 * MINUTE, sent=["x"]).changes.rows
    assert (new.key, new.kind, new.group) == ("notify:g:1:ops:fallback:deputy", RowKind.NOTIFY, "g")
    assert (new.payload["receiver"], new.payload["code"], new.payload["flush"]) == ("deputy", "abc123", 1)
    assert new.payload["body"] == (
        "Count: 2\n\nMeant for receiver ops, which could not be reached: target 1 (json): failed, HTTP 500"
    )
    assert "sent" not in new.payload
    assert len(settle({"a": LOST}, fallback=deputy, unknown=2).changes.rows) == 1
    assert settle({"a": SENT}, fallback=deputy, now=NOW + HOUR).changes.rows == ()


def test_what_goes_to_the_fallback_keeps_its_forms_each_with_the_reason():
    forms = {"markdown": "- **Count:** 2", "html": "<p>2</p>"}
    (new,) = settle({"a": FAILED}, fallback=Fallback("deputy"), now=NOW + HOUR, forms=forms).changes.rows
    assert new.payload["forms"]["html"].startswith("<p>2</p>\n\nMeant for receiver ops, which could not be reached")
    assert new.payload["forms"]["markdown"].startswith("- **Count:** 2\n\nMeant for receiver ops")


def test_a_receiver_that_does_not_exist_is_answered_for_by_the_default_one_at_once():
    (new,) = settle({}, fallback=fallback_of("ops", None)).changes.rows
    assert new.payload["receiver"] == "default"
    assert "receiver 'ops' is not configured" in new.payload["body"]
    assert fallback_of("default", None) == NOBODY
    assert fallback_of("ops", Route(fallback=Fallback("x"))) == Fallback("x")


# ---------------------------------------------------------------- routes

NIGHT = Quiet(Hours(frozenset(range(7)), ((22 * 60, 7 * 60),), ZoneInfo("Asia/Shanghai")))
LATE = datetime(2026, 3, 1, 15, 30, tzinfo=UTC)  # 23:30 there


def waiting(number=1, *, severity="warning", alerts=3):
    return Waiting(f"notify:w{number}:1:ops", severity, f"[{severity}] w{number} #{number:06}", alerts, NOW)


def go(route=Route(), *, now=NOW, **options):
    line = Line(**{name: options.pop(name) for name in list(options) if name in Line.__slots__})
    return routed(row(**options), RowFacts(line=line), route=route, now=now)


def test_what_wants_nothing_special_goes():
    assert go().goes


def test_in_quiet_hours_all_but_what_is_critical_waits_for_their_end():
    found = go(Route(quiet=NIGHT), now=LATE)
    assert (found.gate, found.due_at) == (Gate.QUIET, datetime(2026, 3, 1, 23, 0, tzinfo=UTC))
    assert found.note == "quiet hours until 2026-03-01 23:00Z"
    assert go(Route(quiet=NIGHT), now=LATE, severity="critical").goes
    assert go(Route(quiet=replace(NIGHT, passes=False)), now=LATE, severity="critical").gate is Gate.QUIET
    assert go(Route(quiet=NIGHT), now=found.due_at).goes


@given(
    st.integers(0, 365 * 24 * 60),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Shanghai", "Pacific/Chatham"]),
    st.integers(0, 1439),
    st.integers(1, 1440),
    st.sets(st.integers(0, 6), min_size=1),
)
def test_quiet_hours_end_at_the_first_minute_that_is_outside_also_when_clocks_change(minute, zone, start, end, days):
    if start == end:
        return
    hours, now = Hours(frozenset(days), ((start, end),), ZoneInfo(zone)), NOW + minute * MINUTE
    until = quiet_until(Quiet(hours), "warning", now=now)
    assert (until is not None) == hours.contains(now)
    if until is not None:
        assert not hours.contains(until)
        assert hours.contains(max(now, until - MINUTE))


def test_what_is_below_the_floor_is_not_told_unless_nobody_else_is():
    route = Route(floor=Severity.CRITICAL)
    found = go(route, others=True)
    assert (found.state, found.delivery) == (RowState.DONE, "below")
    assert go(route, others=False).goes
    assert go(route, others=True, severity="critical").goes


def test_over_the_rate_it_waits_until_the_oldest_of_the_span_has_passed():
    route = Route(rate=Rate(2, HOUR))
    sent = (NOW - 10 * MINUTE, NOW - 50 * MINUTE, NOW - 90 * MINUTE)
    found = go(route, sent=sent)
    assert (found.gate, found.due_at) == (Gate.RECEIVER_RATE, NOW + 10 * MINUTE)
    assert go(route, sent=sent[:1]).goes
    assert go(route, sent=sent[:1], under_way=1).due_at == NOW + 50 * MINUTE
    assert go(route, under_way=2).gate is Gate.RECEIVER_RATE


def test_whoever_goes_takes_along_all_that_wait_and_counts_every_one():
    others = tuple(waiting(number, severity="critical" if number == 7 else "warning") for number in range(1, 31))
    found = go(Route(rate=Rate(2, HOUR)), waiting=others, gate=Gate.RECEIVER_RATE)
    assert found.goes
    assert found.payload["along"] == [each.key for each in others]
    assert found.payload["title"] == "[critical] w7 #000007 (+ 30 messages, 90 alerts)"
    assert found.payload["severity"] == "critical"
    lines = found.payload["body"].splitlines()
    assert lines[:4] == ["Count: 2", "", "Held back until now: 30 messages, 90 alerts", "  [critical] w7 #000007"]
    assert lines[-1] == "  … and 10 messages, 30 alerts"
    assert len(lines) == 3 + 20 + 1


def test_a_message_that_takes_others_along_keeps_its_forms_and_names_them_in_each():
    forms = {"markdown": "- **Count:** 2", "html": "<p>2</p>"}
    found = go(Route(rate=Rate(2, HOUR)), waiting=(waiting(1),), gate=Gate.RECEIVER_RATE, forms=forms)
    for form, text in forms.items():
        assert found.payload["forms"][form].startswith(text)
        assert "Held back until now: 1 message, 3 alerts" in found.payload["forms"][form]
        assert "000001" in found.payload["forms"][form]


def test_what_still_has_to_wait_is_not_taken_along_by_what_may_pass():
    route = Route(quiet=NIGHT)
    others = (waiting(1), waiting(2, severity="critical"))
    found = go(route, now=LATE, waiting=others, severity="critical")
    assert found.payload["along"] == [others[1].key]


def test_what_goes_with_another_message_waits_for_that_and_a_text_once_tried_stays():
    found = go(taken=frozenset({"notify:g:1:ops"}), gate=Gate.QUIET)
    assert (found.gate, found.goes) == (Gate.QUIET, False)
    tried = go(Route(rate=Rate(1, HOUR)), along=["notify:w1:1:ops"], waiting=(waiting(2),), sent=(NOW,))
    assert (tried.goes, tried.payload) == (True, None)


def test_what_went_along_is_done_with_the_one_that_took_it_and_not_before():
    assert settle({"a": FAILED}, along=["k2"]).changes.along == ()
    assert settle({"a": SENT}, along=["k2"]).changes.along == ("k2",)


@given(st.sampled_from(Result), st.integers(0, 5), st.integers(0, 30), st.booleans())
def test_every_result_is_one_of_those_that_are_kept(result, unknown, hours, taken):
    answers = {"a": Answer(result), **({"b": SENT} if taken else {})}
    found = settle(answers, now=NOW + hours * HOUR, unknown=unknown)
    assert found.delivery in DELIVERIES
    assert bool(found.changes.told) == (taken or result is Result.SENT)


@pytest.mark.parametrize("result", Result)
def test_an_answer_reads_well(result):
    assert str(Answer(result, "target 1 (json)")) == f"target 1 (json): {result}"
