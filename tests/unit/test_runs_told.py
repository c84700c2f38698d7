"""The alert of a failure that was run again in vain names every run, in each form."""

import re
from datetime import timedelta

import make
import pytest
from markdown_it import MarkdownIt

from triage.alerts.message import message_of
from triage.alerts.render import render
from triage.alerts.wording import Format
from triage.changes import AlertGroup
from triage.effects import alert_plan
from triage.reruns.attempts import Attempt, attempts_of
from triage.rules.model import Cause
from triage.views import GroupView, WaitingAlert

NOW = make.NOW
LABELS = alert_plan(make.arrived(), None)["labels"]
GROUP = AlertGroup("k1", ("default",), "warning", LABELS, timedelta(seconds=30), timedelta(minutes=5))
LATER = NOW + timedelta(minutes=7)
RUNS = (
    Attempt(0, "", "", "1-root", None, None, "failed", NOW, "Oops: out of memory"),
    Attempt(1, "automatic", "triage-x-1", "1-child", None, NOW, "failed", LATER, "Oops: <b>still</b> broken"),
    Attempt(2, "manual", "triage-x-2", "", None, None, "refused", LATER, "no such function"),
    Attempt(3, "elsewhere", "", "1-console", None, None, "failed", LATER, "AccessKey LTAI5tHiddenHidden12345678 used"),
)


def told(*runs: Attempt, form: Format = Format.TEXT, alerts: int = 1) -> str:
    samples = tuple(WaitingAlert(f"1-{n}", Cause.EXHAUSTED, "", LATER, len(runs) - 1, runs) for n in range(alerts))
    view = GroupView(GROUP, 0, 0, NOW, LATER, {Cause.EXHAUSTED: alerts}, samples, 7)
    return render(message_of(view, "c0de"), form)


def test_every_run_has_its_origin_its_request_its_time_and_what_came_of_it():
    lines = [line for line in told(*RUNS).splitlines() if line.startswith("    ")]
    assert lines[:3] == [
        "    1-root first run: failed at 2026-03-01 12:00:00 UTC: Oops: out of memory",
        "    1-child re-run 1 (automatic): failed at 2026-03-01 12:07:00 UTC: Oops: <b>still</b> broken",
        "    triage-x-2 re-run 2 (manual): refused at 2026-03-01 12:07:00 UTC: no such function",
    ]
    assert lines[3].startswith("    1-console re-run 3 (elsewhere): failed at 2026-03-01 12:07:00 UTC: AccessKey")
    assert "LTAI5tHiddenHidden12345678" not in lines[3]


@pytest.mark.parametrize("form", [Format.MARKDOWN, Format.HTML])
def test_the_other_forms_say_the_same(form):
    page = told(*RUNS, form=form)
    shown = MarkdownIt().render(page) if form is Format.MARKDOWN else page
    assert "<b>still</b>" not in shown
    for words in ("1-root", "1-child", "re-run 1 (automatic)", "triage-x-2", "1-console", "re-run 3 (elsewhere)"):
        assert words in re.sub(r"\\([()-])", r"\1", page)


def test_of_one_failure_twenty_runs_are_told_of_several_the_first_and_the_last():
    many = tuple(Attempt(n, "automatic", "", f"1-run{n}", None, None, "failed", NOW, "") for n in range(30))
    assert re.findall(r"1-run(\d+)", told(*many)) == [str(n) for n in (0, *range(11, 30))]
    assert re.findall(r"1-run(\d+)", told(*many, alerts=2)) == ["0", "27", "28", "29"] * 2


@pytest.mark.parametrize(
    ("row", "result"),
    [
        (None, ("ended", "nothing more is kept")),
        ({"state": "pending", "note": "its turn is soon"}, ("planned", "its turn is soon")),
        ({"state": "unknown", "note": "no answer"}, ("submitting", "no answer")),
        ({"state": "dead", "note": "no such function"}, ("refused", "no such function")),
        ({"state": "cancelled", "note": ""}, ("cancelled", "")),
        ({"state": "done", "note": "submitted as request 1-child"}, ("running", "")),
    ],
)
def test_a_run_without_a_result_says_how_far_it_came(row, result):
    common = {"kind": "rerun", "key": "triage-x-1", "payload": {"attempt": 1}, "due_at": NOW.isoformat()}
    rows = [] if row is None else [{**common, "settled_at": NOW.isoformat(), **row}]
    (_, run) = attempts_of([], [{"key": "triage-x-1", "attempt": 1, "origin": "plan"}], rows, last=1)
    assert (run.number, run.origin, run.result, run.detail) == (1, "plan", *result)
    assert run.request_id == ("1-child" if result[0] == "running" else "")
