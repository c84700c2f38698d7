"""Traces: one for each lineage, however many batches, acts, days and replicas it takes."""

import asyncio
from datetime import timedelta

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")

from make import NOW, RERUN, arrived, envelope, rule, rules, success
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from triage.changes import Commit, RowKind, Settle
from triage.decide import decide_batch
from triage.effects import decided
from triage.facts import Lineage, Snapshot
from triage.outbound import Guard
from triage.reruns.lineage import task_id
from triage.settings.traces import TracesSettings
from triage.states import RowState, State
from triage.traces import Traces, span_id, trace_id, tracing
from triage.views import OutboxRow

SECOND = timedelta(seconds=1)


def commit(*arrivals, snapshot: Snapshot | None = None) -> Commit:
    own = rules(rule("again", rerun=RERUN, condition="InvocationError"))
    decisions = decide_batch(arrivals, snapshot or Snapshot(), own, now=NOW)
    return Commit(now=NOW, rule_set="d", decided=tuple(decided(a, d) for a, d in zip(arrivals, decisions, strict=True)))


def row(kind: RowKind, key: str, root: str = "root", **payload) -> OutboxRow:
    return OutboxRow(
        1,
        key,
        kind,
        RowState.PENDING,
        NOW,
        {"attempt": 1, **payload},
        root,
        "",
        2,
        interrupted=False,
        token="t",
        function="img",
    )


class Bench:
    """Traces that are kept in memory."""

    def __init__(self, sample: float = 1.0) -> None:
        self._exporter = InMemorySpanExporter()
        self.traces = Traces(self._exporter, sample=sample)

    def act(self, given: OutboxRow, settle: Settle, result: str = "", *lineages: str) -> None:
        self.traces.act(given, settle, result, began=NOW, ended=NOW + SECOND, lineages=lineages)

    def batch(self, given: Commit) -> None:
        self.traces.batch(given, began=NOW, ended=NOW + SECOND)

    def spans(self):
        self.traces.close()
        return self._exporter.get_finished_spans()


def test_a_re_run_and_its_result_are_in_the_trace_of_the_first_failure():
    bench, task = Bench(), task_id("root", 1)
    bench.batch(commit(arrived(envelope("root"), at=NOW - 3 * SECOND)))
    bench.act(row(RowKind.RERUN, task), Settle.retry(due_at=NOW, note="throttled"), "postponed")
    bench.act(row(RowKind.RERUN, task), Settle.done(note="submitted as request child"), "submitted")
    lineage = Lineage(envelope("root").request_id, State.RERUNNING, 1, NOW, "again", 3)
    bench.batch(commit(arrived(success("child")), snapshot=Snapshot(lineages={"child": lineage})))
    first, postponed, submitted, result = bench.spans()
    assert {span.context.trace_id for span in (first, postponed, submitted, result)} == {trace_id("root")}
    assert (first.parent, first.context.span_id) == (None, span_id("root"))
    assert [span.parent.span_id for span in (postponed, submitted, result)] == [
        span_id("root"),
        span_id("root"),
        span_id(task),
    ]
    assert submitted.context.span_id == span_id(task) != postponed.context.span_id
    assert [span.name for span in (first, submitted, result)] == ["decide my-fc-job", "re-run img", "decide my-fc-job"]
    assert (first.start_time, first.end_time) == tuple(
        int(at.timestamp()) * 10**9 for at in (NOW - 3 * SECOND, NOW + SECOND)
    ), "it begins in the queue"
    assert dict(first.attributes) | {"messaging.message.id": ""} == {
        "messaging.destination.name": "local", "messaging.message.id": "", "messaging.batch.message_count": 1,
        "faas.invoked_name": "my-fc-job", "faas.invocation_id": "root", "error.type": first.attributes["error.type"],
        "triage.outcome": "failed", "triage.reason": "matched", "triage.rule": "again", "triage.attempt": 0,
    }  # fmt: skip
    assert (result.attributes["triage.reason"], result.attributes["triage.attempt"]) == ("healed", 1)


def test_each_envelope_of_a_batch_has_its_own_trace():
    bench = Bench()
    bench.batch(commit(*(arrived(envelope(f"r{number}")) for number in range(5))))
    assert [span.context.trace_id for span in bench.spans()] == [trace_id(f"r{number}") for number in range(5)]


def test_a_notification_is_seen_in_the_traces_of_what_it_tells():
    bench = Bench()
    notify = row(RowKind.NOTIFY, "notify:g:1:oncall", "", receiver="oncall", code="ab12cd", title="t")
    bench.act(notify, Settle.done(note="sent", delivery="sent"), "", "a", "b")
    own, *there = bench.spans()
    assert own.context.trace_id == trace_id("notify:g:1:oncall")
    assert [link.context.trace_id for link in own.links] == [trace_id("a"), trace_id("b")]
    assert [(span.context.trace_id, span.parent.span_id) for span in there] == [
        (trace_id("a"), span_id("a")), (trace_id("b"), span_id("b")),
    ]  # fmt: skip
    assert {span.links[0].context.span_id for span in there} == {own.context.span_id}
    assert {span.name for span in (own, *there)} == {"tell oncall"}
    assert own.attributes["triage.code"] == "ab12cd"


@pytest.mark.parametrize(
    ("given", "settle", "result", "error"),
    [
        (row(RowKind.RERUN, "t"), Settle.unknown(due_at=NOW, note="no answer", payload={}), "unknown", "no answer"),
        (row(RowKind.RERUN, "t"), Settle.done(note="submitted"), "submitted", None),
        (row(RowKind.EXPECT, "t"), Settle.dead(note="no result in time"), "overdue", "no result in time"),
        (row(RowKind.NOTIFY, "n", receiver="r"), Settle.dead(note="refused"), "", "refused"),
        (row(RowKind.NOTIFY, "n", receiver="r"), Settle.done(delivery="sent"), "", None),
    ],
    ids=["no answer", "submitted", "overdue", "given up", "sent"],
)
def test_what_went_wrong_is_an_error(given: OutboxRow, settle: Settle, result: str, error: str | None):
    bench = Bench()
    bench.act(given, settle, result)
    (span,) = bench.spans()
    assert (span.status.description, span.status.is_ok) == (error, error is None)


@pytest.mark.parametrize("kind", [RowKind.FLUSH, RowKind.WAKE, RowKind.PLAN_STEP, RowKind.RESOLVE])
def test_what_has_no_effect_has_no_span(kind: RowKind):
    bench = Bench()
    bench.act(row(kind, "k"), Settle.done())
    assert bench.spans() == ()


def test_a_lineage_is_traced_wholly_or_not_at_all():
    bench = Bench(sample=0.3)
    roots = [f"r{number}" for number in range(300)]
    bench.batch(commit(*(arrived(envelope(root)) for root in roots)))
    for root in roots:
        bench.act(row(RowKind.RERUN, f"t-{root}", root), Settle.done(note="submitted"), "submitted")
    found = [span.context.trace_id for span in bench.spans()]
    assert all(found.count(each) == 2 for each in found)
    assert 50 < len(set(found)) < 130


def test_ids_are_those_that_other_replicas_and_versions_make():
    request_id = "1-670648a1-15197d0b-d07710222f9d"
    assert f"{trace_id(request_id):032x}" == "b862a5793f137315c5eaacdd38a8ea96"
    assert f"{span_id(request_id):016x}" == "1c4ff682d8868741"


def test_without_an_endpoint_nothing_is_traced():
    async def scenario() -> None:
        async with tracing(TracesSettings(), guard=Guard()) as traces:
            assert traces is None

    asyncio.run(scenario())
