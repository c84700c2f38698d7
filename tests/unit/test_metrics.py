"""The metrics as Prometheus reads them, and their reference."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.changes import RowKind
from triage.errors import Problem
from triage.progress import Progress, Receiving, Work, stalled
from triage.reruns.breaker import Breaker, BreakerState
from triage.reruns.budget import Allowance, Budget
from triage.reruns.gate import Safeguards, Standing
from triage.reruns.rate import Pace, Rate, slowed
from triage.states import State
from triage.stores import RulesState, Totals
from triage.web.metrics import METRICS, View, metrics_text

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TOTALS = Totals(
    received=10,
    decided=6,
    duplicates=2,
    conflicts=1,
    quarantined=1,
    failures=5,
    states={"alerted": 3, "healed": 2},
    outbox={"notify": 4},
    deliveries={"sent": 7, "dead": 1},
)
GOOD = RulesState("d" * 64, NOW)
SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (\S+)')
LABEL = re.compile(r'([a-z]+)="((?:[^"\\\n]|\\[\\"n])*)"')

LAGGING = {"local": Receiving(messages=1, received_at=NOW, lag=timedelta(seconds=7))}
BUSY = Work(2, 30, 0.25)
BUSY.decisions.update({("retry", "matched"): 3, ("", "no_rule"): 1})
BUSY.rule_errors["retry"] = 2
BUSY.templates["oncall"] = 6
BUSY.rules_read["refused"] = 1
BUSY.notified["oncall", "failed"] = 4
BUSY.reruns["submitted"] = 5


def view(**changes):
    given = {
        "version": "1.2.3",
        "rules": "0123456789abcdef",
        "totals": TOTALS,
        "state": GOOD,
        "sources": {"local": Receiving(messages=10, received_at=NOW)},
        "at": NOW,
        "work": Work(),
        "waiting": {"consumer": timedelta(0), "outbox": timedelta(seconds=1.5)},
    }
    return View(**given | changes)


def read(text):
    """The samples, by the grammar of the text format: metric and labels, by name, to number. Checks what surrounds them."""
    assert text.endswith("\n")
    samples, types, name = {}, {}, ""
    for line in text.removesuffix("\n").split("\n"):
        if line.startswith("# HELP "):
            name = line.split(" ")[2]
            assert name not in types, "the lines of a metric stand together"
        elif line.startswith("# TYPE "):
            assert line.split(" ")[2] == name
            types[name] = line.split(" ")[3]
        else:
            found = SAMPLE.fullmatch(line)
            assert found, line
            assert found[1] == name
            labels = tuple(
                (label, re.sub(r"\\(.)", lambda e: "\n" if e[1] == "n" else e[1], value))
                for label, value in LABEL.findall(found[2] or "")
            )
            assert (name, labels) not in samples
            samples[name, labels] = float(found[3])
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in types.items())
    return samples


def test_the_sums_of_the_store_are_told_with_every_value_of_their_labels():
    samples = read(metrics_text(view()))
    results = {labels[0][1]: n for (name, labels), n in samples.items() if name == "triage_envelopes_total"}
    assert results == {"decided": 6, "duplicates": 2, "conflicts": 1, "quarantined": 1}
    states = {labels[0][1]: n for (name, labels), n in samples.items() if name == "triage_failures"}
    assert states == {state.value: 0 for state in State if state is not State.NEW} | {"alerted": 3, "healed": 2}
    kinds = {labels[0][1]: n for (name, labels), n in samples.items() if name == "triage_outbox_rows"}
    assert kinds == {kind.value: 0 for kind in RowKind} | {"notify": 4}
    sent = {labels[0][1]: n for (name, labels), n in samples.items() if name == "triage_deliveries_total"}
    assert sent == {"sent": 7, "failed": 0, "unknown": 0, "dead": 1, "below": 0, "along": 0}


def test_what_runs_and_how_it_gets_on_is_told():
    samples = read(metrics_text(view()))
    assert samples["triage_info", (("rules", "0123456789ab"), ("version", "1.2.3"))] == 1
    assert samples["triage_store_up", ()] == 1
    assert samples["triage_rules_refused", ()] == 0
    assert samples["triage_rules_loaded_timestamp_seconds", ()] == NOW.timestamp()
    assert samples["triage_source_messages_total", (("source", "local"),)] == 10
    assert samples["triage_source_last_receive_timestamp_seconds", (("source", "local"),)] == NOW.timestamp()
    assert samples["triage_stage_waiting_seconds", (("stage", "outbox"),)] == 1.5


def test_what_was_done_since_the_start_is_told():
    due = {"notify": NOW - timedelta(seconds=90), "flush": NOW + timedelta(seconds=5)}
    held = {"local": NOW - timedelta(seconds=11)}
    totals = replace(TOTALS, outbox_due=due)
    samples = read(metrics_text(view(sources=LAGGING, work=BUSY, totals=totals, oldest=held)))
    assert samples["triage_source_oldest_message_seconds", (("source", "local"),)] == 11
    assert samples["triage_reruns_total", (("result", "submitted"),)] == 5
    assert samples["triage_reruns_total", (("result", "failed"),)] == 0
    assert samples["triage_source_lag_seconds", (("source", "local"),)] == 7
    assert samples["triage_commits_total", ()] == 2
    assert samples["triage_commit_messages_total", ()] == 30
    assert samples["triage_commit_seconds_total", ()] == 0.25
    assert samples["triage_decisions_total", (("reason", "matched"), ("rule", "retry"))] == 3
    assert samples["triage_decisions_total", (("reason", "no_rule"), ("rule", ""))] == 1
    assert samples["triage_rule_errors_total", (("rule", "retry"),)] == 2
    assert samples["triage_rules_reloads_total", (("result", "refused"),)] == 1
    assert samples["triage_rules_reloads_total", (("result", "taken"),)] == 0
    assert samples["triage_notifications_total", (("receiver", "oncall"), ("result", "failed"))] == 4
    assert samples["triage_template_failures_total", (("template", "oncall"),)] == 6
    overdue = {labels[0][1]: n for (name, labels), n in samples.items() if name == "triage_outbox_overdue_seconds"}
    assert overdue == {kind.value: 0 for kind in RowKind} | {"notify": 90}
    before = metrics_text(view(totals=replace(TOTALS, outbox_due=due), seen_at=NOW - timedelta(seconds=60)))
    assert read(before)["triage_outbox_overdue_seconds", (("kind", "notify"),)] == 30


def test_refused_rules_show():
    refused = RulesState("d", NOW, (Problem("a.yaml", 1, 1, "wrong"),), NOW)
    assert read(metrics_text(view(state=refused)))["triage_rules_refused", ()] == 1


def test_without_a_store_its_metrics_are_absent_and_the_others_are_there():
    names = {name for name, _ in read(metrics_text(view(totals=None, state=None, sources=LAGGING, work=BUSY)))}
    assert {metric.name for metric in METRICS} - names == {
        "triage_envelopes_total",
        "triage_failures",
        "triage_outbox_rows",
        "triage_outbox_overdue_seconds",
        "triage_deliveries_total",
        "triage_gate_rows",
        "triage_breakers",
        "triage_function_budget_reruns",
        "triage_function_rate_per_second",
        "triage_function_breaker",
        "triage_plans",
        "triage_alert_groups",
        "triage_plan_items",
        "triage_rules_refused",
        "triage_rules_loaded_timestamp_seconds",
    }
    assert read(metrics_text(view(totals=None)))["triage_store_up", ()] == 0


def test_what_the_code_does_not_know_makes_no_series():
    text = metrics_text(view(totals=TOTALS.__class__(*[0] * 6, {"invented": 1}, {"x": 2}, {"y": 3})))
    assert not re.search(r'"(invented|x|y)"', text)


def test_functions_tell_what_they_have_left_how_fast_they_may_go_and_how_their_breaker_stands():
    guards = Safeguards(function_rate=Rate(10, timedelta(minutes=1)), budget=Allowance(0.1, floor=6, cap=100))
    standings = (
        Standing("img", slowed(Pace(), now=NOW), Budget(40, NOW - timedelta(seconds=30)), Breaker(BreakerState.OPEN)),
        Standing("well"),
    )
    at = NOW + timedelta(seconds=30)
    samples = read(metrics_text(view(totals=replace(TOTALS, standings=standings), guards=guards, seen_at=at)))
    found = {
        function: [
            samples[f"triage_function_{name}", (("function", function),)]
            for name in ("budget_reruns", "rate_per_second", "breaker")
        ]
        for function in ("img", "well")
    }
    assert found == {"img": [6 + 4, 10 * 0.55, 2], "well": [6, 10, 0]}


@given(st.text(), st.text())
def test_no_label_value_can_break_out_of_its_quotes(version, source):
    # The format is UTF-8, in which lone surrogates cannot be written; neither version nor source can hold one.
    samples = read(metrics_text(view(version=version, sources={source: Receiving(errors=3)})))
    assert samples["triage_info", (("rules", "0123456789ab"), ("version", version))] == 1
    assert samples["triage_source_errors_total", (("source", source),)] == 3


def test_the_reference_lists_the_metrics_as_the_code_does():
    text = (Path(__file__).parents[2] / "docs/reference/metrics.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if re.match(r"\| `triage_\w+` \|", line)]
    assert rows == [f"| `{m.name}` | {m.type} | {labels(m)} | {m.help} |" for m in METRICS]
    assert set(re.findall(r"\btriage_[a-z_]+\b", text)) == {metric.name for metric in METRICS}


def labels(metric):
    return "; ".join(
        f"`{name}`" + (f": {', '.join(f'`{value}`' for value in values)}" if values else "")
        for name, values in metric.labels.items()
    )


# ---------------------------------------------------------------- progress


@pytest.mark.parametrize(
    ("marks", "at", "waiting"),
    [
        ([], 500, 0),
        ([("busy", 0)], 70, 70),
        ([("busy", 0), ("busy", 30)], 70, 70),
        ([("busy", 0), ("rest", 30)], 70, 0),
        ([("busy", 0), ("rest", 30), ("busy", 40)], 70, 30),
        ([("busy", 70)], 0, 0),
    ],
    ids=["nothing to do", "at work", "more came", "done", "the next piece", "the clock was set back"],
)
def test_work_waits_until_a_piece_of_it_is_finished(marks, at, waiting):
    progress = Progress(limit=timedelta(seconds=60))
    for mark, second in marks:
        if mark == "busy":
            progress.busy(NOW + timedelta(seconds=second))
        else:
            progress.rest()
    now = NOW + timedelta(seconds=at)
    assert progress.waiting(now) == timedelta(seconds=waiting)
    assert progress.stalled(now) == (waiting > 60)


def test_work_that_is_tried_again_goes_on_waiting_and_does_not_count_as_stalled():
    progress = Progress(limit=timedelta(seconds=60))
    progress.busy(NOW)
    for second in range(50, 500, 50):
        progress.tried(NOW + timedelta(seconds=second + 30))
        assert not progress.stalled(NOW + timedelta(seconds=second + 49))
    assert progress.waiting(NOW + timedelta(seconds=500)) == timedelta(seconds=500)
    assert not progress.stalled(NOW + timedelta(seconds=540))
    assert progress.stalled(NOW + timedelta(seconds=541))
    progress.rest()
    assert progress == Progress(limit=timedelta(seconds=60))


def test_a_long_poll_counts_from_its_end():
    progress = Progress(limit=timedelta(seconds=60))
    progress.busy(NOW + timedelta(seconds=30))
    assert progress.waiting(NOW + timedelta(seconds=30)) == timedelta(0)
    assert not progress.stalled(NOW + timedelta(seconds=90))
    assert progress.stalled(NOW + timedelta(seconds=91))


def test_the_stages_that_stand_still_are_told_with_how_long():
    stages = {name: Progress(limit=timedelta(seconds=60)) for name in ("receive a", "act", "ack")}
    assert stalled(stages, NOW) == []
    stages["receive a"].busy(NOW)
    stages["act"].oldest([NOW - timedelta(seconds=30), NOW])
    assert [str(stage) for stage in stalled(stages, NOW + timedelta(seconds=31))] == [
        "act has not got on for 61 s",
    ]
    stages["act"].oldest([])
    assert stalled(stages, NOW + timedelta(seconds=60)) == []
