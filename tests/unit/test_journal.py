"""What the log says of decisions and acts."""

import logging
from datetime import timedelta

import make
import pytest
from make import NOW, RERUN, arrived, envelope, rule, rules, success

from triage import journal
from triage.changes import Commit, Quarantined, RowKind, Settle
from triage.decide import decide_batch
from triage.effects import decided
from triage.facts import Facts, Lineage, Snapshot
from triage.rules.model import AlertPolicy
from triage.states import RowState, State
from triage.views import OutboxRow


def committed(*arrivals, rule_set=None, snapshot=None, **fields) -> Commit:
    own = rule_set or rules(rule("again", rerun=RERUN, condition="InvocationError"), rule("tell", alert=AlertPolicy()))
    decisions = decide_batch(arrivals, snapshot or Snapshot(), own, now=NOW)
    pairs = zip(arrivals, decisions, strict=True)
    return Commit(now=NOW, rule_set="d", decided=tuple(decided(a, d) for a, d in pairs if d.is_new), **fields)


def told(caplog, level: int = logging.INFO) -> list[tuple[str, str, str]]:
    """Level, message and ids of each line."""
    return [
        (
            record.levelname,
            record.getMessage(),
            " ".join(
                f"{name}={getattr(record, name)}" for name in ("lineage", "request", "code") if hasattr(record, name)
            ),
        )
        for record in caplog.records
        if record.levelno >= level
    ]


@pytest.fixture(autouse=True)
def at_info(caplog):
    caplog.set_level(logging.INFO)


def test_each_decision_that_has_consequences_is_told_with_its_lineage(caplog):
    journal.batch(
        committed(arrived(envelope("r1")), arrived(envelope("r2", condition="Other")), arrived(success("r3")))
    )
    assert told(caplog) == [
        ("INFO", "my-fc-job failed, rule again: re-run 1 at 2026-03-01T12:02:00Z", "lineage=r1"),
        ("INFO", "my-fc-job failed, rule tell: tell default (failed)", "lineage=r2"),
        ("INFO", "batch: 3 decided, 0 duplicate, 0 conflicting, 0 quarantined", ""),
    ]


def test_the_result_of_a_re_run_is_told_under_the_lineage_it_belongs_to(caplog):
    lineage = Lineage(make.envelope("root").request_id, State.RERUNNING, 2, NOW - timedelta(minutes=1), "again", 3)
    snapshot = Snapshot(lineages={"child": lineage}, attempts={"child": 2})
    journal.batch(committed(arrived(success("child")), snapshot=snapshot))
    assert told(caplog)[0] == ("INFO", "my-fc-job succeeded: healed by re-run 2", "lineage=root request=child")


def test_a_large_batch_is_told_in_a_few_lines(caplog):
    large = committed(*(arrived(envelope(f"r{number}")) for number in range(100)))
    journal.batch(large)
    lines = told(caplog)
    assert len(lines) == 16 + 2
    assert lines[-2][1] == "and 84 more decisions of this batch; the log level debug tells each"
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    journal.batch(large)
    assert len(told(caplog)) == 100 + 1
    caplog.clear()
    caplog.set_level(logging.WARNING)
    journal.batch(large)
    assert told(caplog) == []


def test_what_could_not_be_read_or_came_otherwise_is_a_warning(caplog):
    bad = Quarantined("orders", "m1", NOW, b"x", "not_json", "byte 0", "")
    journal.batch(committed(quarantined=(bad,), conflicts=(arrived(envelope("r1")),)))
    assert told(caplog, logging.WARNING) == [
        ("WARNING", "orders: message m1 quarantined: not_json byte 0", ""),
        ("WARNING", "request r1 came again with another body; both are kept", "lineage=r1"),
    ]


def row(kind: RowKind, **payload) -> OutboxRow:
    return OutboxRow(
        1,
        "k",
        kind,
        RowState.PENDING,
        NOW,
        {"attempt": 2, **payload},
        "root",
        "",
        1,
        interrupted=False,
        token="t",
        function="img",
    )


@pytest.mark.parametrize(
    ("result", "level", "message"),
    [
        ("submitted", "INFO", "re-run 2 of img: submitted as request r9"),
        ("succeeded", "INFO", "re-run 2 of img succeeded: submitted as request r9"),
        ("refused", "WARNING", "re-run 2 of img refused: submitted as request r9"),
        ("unknown", "WARNING", "re-run 2 of img unknown: submitted as request r9"),
    ],
)
def test_each_step_of_a_re_run_is_told(caplog, result: str, level: str, message: str):
    journal.act(row(RowKind.RERUN), Settle.done(note="submitted as request r9"), result)
    assert told(caplog) == [(level, message, "lineage=root")]


@pytest.mark.parametrize(
    ("settle", "level", "message"),
    [
        (Settle.done(note="sent to 1", delivery="sent"), "INFO", "alert to oncall sent: 3 failures (sent to 1)"),
        (Settle.retry(due_at=NOW, note="target 1: failed", delivery="failed"), "WARNING", "alert to oncall failed: 3 failures (target 1: failed)"),
        (Settle.dead(note="target 1: failed", delivery="dead"), "ERROR", "alert to oncall dead: 3 failures (target 1: failed)"),
    ],
    ids=["sent", "failed", "dead"],
)  # fmt: skip
def test_each_try_to_tell_is_told_with_the_code_in_the_message(caplog, settle: Settle, level: str, message: str):
    journal.act(row(RowKind.NOTIFY, receiver="oncall", title="3 failures", code="ab12cd"), settle, "")
    assert told(caplog) == [(level, message, "code=ab12cd")]


@pytest.mark.parametrize(
    ("roots", "named"), [(["r1"], "r1"), ([f"r{n}" for n in range(64)], "r0,r1,r2,r3,r4,r5,r6,r7")], ids=["one", "many"]
)
def test_an_alert_is_found_by_the_lineages_it_is_about(caplog, roots: list[str], named: str):
    settle = Settle.done(note="sent to 1", delivery="sent")
    journal.act(row(RowKind.NOTIFY, receiver="oncall", title="t", code="ab12cd"), settle, "", lineages=roots)
    assert told(caplog)[0][2] == f"lineage={named} code=ab12cd"


def test_what_has_no_effect_is_not_told(caplog):
    for kind in (RowKind.FLUSH, RowKind.WAKE, RowKind.RERUN, RowKind.HOLD, RowKind.EXPECT):
        journal.act(row(kind), Settle.done(), "")
    assert told(caplog) == []


def test_every_step_that_is_counted_has_words():
    from triage.web.metrics import RERUNS

    assert set(RERUNS.labels["result"]) == set(journal._STEPS)


def test_a_condition_that_could_not_be_evaluated_names_the_failure(caplog):
    from dataclasses import replace

    from triage.rules.model import Clause

    commit = committed(arrived(envelope("r1")))
    item = commit.decided[0]
    clause = Clause("again", "when", "no such key")
    errors = replace(item.decision, errors=(clause,), facts=Facts())
    journal.batch(replace(commit, decided=(replace(item, decision=errors),)))
    assert told(caplog)[0] == ("WARNING", "rule again: when could not be evaluated: no such key", "lineage=r1")
