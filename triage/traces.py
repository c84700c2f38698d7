"""OpenTelemetry traces, made after the fact: what was decided or done becomes spans with the times it took.

A lineage is one trace, and its id follows from the lineage's root. So do the ids of the spans that others hang on: that
of a message from its request id, that of a submitted re-run from its task id. Nothing is carried through the store, and
all replicas agree. The libraries are only imported when traces are on (the extra ``otel``).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from triage import __version__, clock
from triage.changes import Commit, Decided, RowKind, Settle
from triage.errors import Misconfigured
from triage.outbound import Guard, guarding
from triage.reruns.lineage import task_id
from triage.settings.traces import TracesSettings
from triage.states import RowState
from triage.views import OutboxRow

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

LINEAGES: Final = 64
"""Most lineages in whose traces a notification is told of; there may be hundred thousands."""

_TIMEOUT: Final = timedelta(seconds=5)
"""For one request to the collector, and for what is left at the end."""

_QUEUE: Final = 8192
"""Spans that wait for a collector that is slow or out of reach; what is more is dropped, never waited for."""

_BAD: Final = frozenset({"unknown", "refused", "given_up", "overdue", "failed", "dead"})


def trace_id(root: str) -> int:
    """The trace of a lineage."""
    return int.from_bytes(hashlib.sha256(f"trace {root}".encode()).digest()[:16])


def span_id(key: str) -> int:
    """The span of the message with this request id, or of the submit of this task id."""
    return int.from_bytes(hashlib.sha256(f"span {key}".encode()).digest()[:8])


@dataclass(frozen=True, slots=True)
class Span:
    """One span. ``parent`` and ``key`` are request or task ids; without a ``key`` its id is drawn."""

    name: str
    root: str
    began: datetime
    ended: datetime
    attributes: Mapping[str, str | int]
    parent: str = ""
    key: str = ""
    error: str = ""
    kind: str = "INTERNAL"
    links: tuple[tuple[str, str], ...] = ()
    """Spans in other traces, by root and key."""


def spans_of_batch(commit: Commit, *, began: datetime, ended: datetime) -> Iterable[Span]:
    """A span for each envelope: from its queue, or from ``began``, until the batch was committed. Pure."""
    for item in commit.decided:
        yield _span_of(item, began, ended, len(commit.decided))


def _span_of(item: Decided, began: datetime, ended: datetime, batch: int) -> Span:
    arrival, decision = item.arrival, item.decision
    envelope, lineage = arrival.envelope, decision.lineage
    request_id = envelope.request_id
    root = lineage.root if lineage else request_id
    attempt = next((link.attempt for link in item.changes.links if link.key == request_id), 0)
    if not attempt and lineage and root != request_id:
        attempt = decision.facts.attempt or lineage.attempt
    return Span(
        name=f"decide {envelope.function.label}",
        root=root,
        began=min(arrival.enqueued_at or began, began),
        ended=ended,
        key=request_id,
        parent=task_id(lineage.root, attempt) if lineage and attempt else "",
        kind="CONSUMER",
        attributes={
            "messaging.destination.name": arrival.source,
            "messaging.message.id": arrival.message_id,
            "messaging.batch.message_count": batch,
            "faas.invoked_name": envelope.function.label,
            "faas.invocation_id": request_id,
            "error.type": envelope.error.type or envelope.condition,
            "triage.outcome": envelope.outcome.value,
            "triage.reason": decision.reason.value,
            "triage.rule": decision.rule.id if decision.rule else "",
            "triage.attempt": attempt,
        },
    )


def spans_of_act(
    row: OutboxRow, settle: Settle, result: str, *, began: datetime, ended: datetime, lineages: Sequence[str] = ()
) -> Iterable[Span]:
    """A span for each step of a re-run, and each try to tell somebody. Pure.

    Args:
        result: the step that a re-run has taken (`triage.outbox.rerun_result`); empty: none.
        lineages: roots of those that a notification is about. It has a trace of its own and one span in each of theirs.
    """
    times: dict[str, Any] = {"began": began, "ended": ended}
    if result:
        function, attempt = row.function, row.payload["attempt"]
        submits = row.kind is RowKind.RERUN
        yield Span(
            name=f"{'re-run' if submits else 'result of re-run'} {function}",
            root=row.root,
            parent=row.root,
            key=row.key if result == "submitted" else "",
            kind="PRODUCER" if submits else "CLIENT",
            error=settle.note if result in _BAD else "",
            attributes={"faas.invoked_name": function, "triage.attempt": attempt, "triage.result": result},
            **times,
        )
    elif row.kind is RowKind.NOTIFY:
        delivery = "dead" if settle.state is RowState.DEAD else settle.delivery
        payload = row.payload
        own = Span(
            name=f"tell {payload['receiver']}",
            root=row.key,
            key=f"{row.key}/{row.attempts}",
            error=settle.note if delivery in _BAD else "",
            kind="CLIENT",
            attributes={
                "triage.receiver": payload["receiver"],
                "triage.result": delivery,
                "triage.code": str(payload.get("code", "")),
                "triage.attempt": row.attempts,
            },
            **times,
        )
        yield replace(own, links=tuple((root, root) for root in lineages))
        for root in lineages:
            yield replace(own, root=root, parent=root, key="", links=((own.root, own.key),))


@asynccontextmanager
async def tracing(settings: TracesSettings, *, guard: Guard) -> AsyncIterator[Traces | None]:
    """Traces to the configured collector until the block is left; None when there is none.

    Raises:
        Misconfigured: the extra ``otel`` is not installed.
    """
    if not settings.endpoint:
        yield None
        return
    try:
        exporter = await asyncio.to_thread(_exporter, settings, guard)
        traces = Traces(exporter, sample=settings.sample)
    except ImportError as error:
        raise Misconfigured(
            f"traces.endpoint is set, which needs the extra otel: pip install 'triage[otel]' ({error})"
        ) from error
    try:
        yield traces
    finally:
        await asyncio.to_thread(traces.close)


class Traces:
    """Writes spans to an exporter, in a thread of its own. Nothing here waits for a collector, but for `close`."""

    def __init__(self, exporter: SpanExporter, *, sample: float = 1.0) -> None:
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.id_generator import IdGenerator  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import TraceIdRatioBased  # noqa: PLC0415

        class Ids(IdGenerator):
            """Gives the ids that were set for the next span."""

            trace = span = 0

            def generate_trace_id(self) -> int:
                return self.trace

            def generate_span_id(self) -> int:
                return self.span or int(clock.token()[:16], 16)

        self._ids = Ids()
        named = Resource.create()  # OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES
        if str(named.attributes[SERVICE_NAME]).startswith("unknown_service"):
            named = named.merge(Resource({SERVICE_NAME: "triage"}))
        self._provider = TracerProvider(
            # By the trace id alone, so that spans of different days, or replicas, are kept or left out together.
            sampler=TraceIdRatioBased(sample),
            resource=named.merge(Resource({SERVICE_VERSION: __version__})),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=_QUEUE))
        self._tracer = self._provider.get_tracer("triage", __version__)

    def batch(self, commit: Commit, *, began: datetime, ended: datetime) -> None:
        """What was decided about a batch that is committed."""
        self._write(spans_of_batch(commit, began=began, ended=ended))

    def act(
        self, row: OutboxRow, settle: Settle, result: str, *, began: datetime, ended: datetime, lineages: Sequence[str]
    ) -> None:
        """What came of an act that is settled, as `spans_of_act` takes it."""
        self._write(spans_of_act(row, settle, result, began=began, ended=ended, lineages=lineages))

    def close(self) -> None:
        """Send what is left, within a few seconds."""
        ending = Thread(target=self._provider.shutdown, name="traces", daemon=True)
        ending.start()
        ending.join(_TIMEOUT.total_seconds())

    def _write(self, spans: Iterable[Span]) -> None:
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.context import Context  # noqa: PLC0415

        sampled = trace.TraceFlags(trace.TraceFlags.SAMPLED)

        def named(root: str, key: str) -> trace.SpanContext:
            return trace.SpanContext(trace_id(root), span_id(key), is_remote=True, trace_flags=sampled)

        for span in spans:
            # A parent tells the trace; without one it is the id that is drawn next.
            parent = trace.NonRecordingSpan(named(span.root, span.parent)) if span.parent else None
            self._ids.trace, self._ids.span = trace_id(span.root), span_id(span.key) if span.key else 0
            written = self._tracer.start_span(
                span.name,
                context=trace.set_span_in_context(parent, Context()) if parent else Context(),
                kind=trace.SpanKind[span.kind],
                attributes=span.attributes,
                links=[trace.Link(named(*link)) for link in span.links],
                start_time=_nanoseconds(span.began),
            )
            if span.error:
                written.set_status(trace.Status(trace.StatusCode.ERROR, span.error))
            written.end(_nanoseconds(max(span.began, span.ended)))


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1e6) * 1000


def _exporter(settings: TracesSettings, guard: Guard) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    class Guarded(OTLPSpanExporter):
        """Connects to where the daemon may connect only."""

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            with guarding(guard):
                return super().export(spans)

    pairs = (header.get_secret_value().partition(":") for header in settings.headers)
    headers = {name.strip(): value.strip() for name, _, value in pairs}
    return Guarded(settings.endpoint, headers=headers or None, timeout=_TIMEOUT.total_seconds())
