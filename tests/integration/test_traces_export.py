"""Traces as a collector gets them: OTLP over HTTP, by the real exporter."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")

from aiohttp import web
from make import NOW, arrived, envelope, rule, rules
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from triage.changes import Commit
from triage.decide import decide_batch
from triage.effects import decided
from triage.facts import Snapshot
from triage.log import secrets_of
from triage.outbound import Guard
from triage.settings import load_settings
from triage.settings.traces import TracesSettings
from triage.traces import trace_id, tracing


def commit(count: int) -> Commit:
    arrivals = [arrived(envelope(f"r{number}")) for number in range(count)]
    decisions = decide_batch(arrivals, Snapshot(), rules(rule("tell")), now=NOW)
    return Commit(now=NOW, rule_set="d", decided=tuple(decided(a, d) for a, d in zip(arrivals, decisions, strict=True)))


class Collector:
    """Keeps what it is sent, and how."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.spans = []
        self.resources = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        message = ExportTraceServiceRequest.FromString(await request.read())
        self.requests.append(request)
        for each in message.resource_spans:
            self.resources.append({pair.key: pair.value.string_value for pair in each.resource.attributes})
            self.spans += [span for scope in each.scope_spans for span in scope.spans]
        return web.Response()


@asynccontextmanager
async def collecting(answer: Callable[[web.Request], Awaitable[web.Response]]):
    app = web.Application()
    app.router.add_post("/v1/traces", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    finally:
        await runner.cleanup()


def settings(endpoint: str, **fields: object) -> TracesSettings:
    return TracesSettings(endpoint=endpoint, **fields)


def test_a_collector_gets_every_span_with_headers_and_the_name_of_the_service(monkeypatch):
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")

    async def scenario() -> None:
        collector = Collector()
        async with collecting(collector.take) as url:
            given = settings(url, headers=["Authentication: token-1234", "X-Tenant:ops"])
            async with tracing(given, guard=Guard()) as traces:
                traces.batch(commit(300), began=NOW, ended=NOW)
        assert {span.trace_id for span in collector.spans} == {
            trace_id(f"r{number}").to_bytes(16) for number in range(300)
        }
        assert len(collector.spans) == 300
        request = collector.requests[0]
        assert (request.headers["Authentication"], request.headers["X-Tenant"]) == ("token-1234", "ops")
        assert request.content_type == "application/x-protobuf"
        assert {(each["service.name"], each["deployment.environment"]) for each in collector.resources} == {
            ("triage", "test")
        }

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["hangs", "refuses"])
def test_a_collector_that_gives_no_answer_delays_nothing_but_the_end_and_that_little(how: str, caplog):
    async def scenario() -> None:
        stop = asyncio.Event()

        async def hang(_request: web.Request) -> web.Response:
            await stop.wait()
            return web.Response()

        async with collecting(hang) as url:
            began = time.monotonic()
            async with tracing(
                settings(url if how == "hangs" else "http://127.0.0.1:9/v1/traces"), guard=Guard()
            ) as traces:
                for _ in range(5):
                    traces.batch(commit(200), began=NOW, ended=NOW)
                assert time.monotonic() - began < 5, "writing spans waits for nobody"
                began = time.monotonic()
            assert time.monotonic() - began < 7
            stop.set()

    asyncio.run(scenario())


def test_nothing_is_sent_to_where_the_daemon_may_not_connect(caplog):
    async def scenario() -> None:
        collector = Collector()
        strict = Guard.of(("*.example.com",))
        async with collecting(collector.take) as url, tracing(settings(url), guard=strict) as traces:
            traces.batch(commit(1), began=NOW, ended=NOW)
        assert collector.requests == []

    asyncio.run(scenario())


def test_headers_are_secret(tmp_path):
    (tmp_path / "traces__headers").write_text("Authentication: token-1234\nX-Tenant: operations\n")
    given = load_settings(None, environ={"HOME": "/h", "TRIAGE_SECRETS_DIR": str(tmp_path), "TRIAGE_TRACES__ENDPOINT": "http://c:4318/v1/traces"})  # fmt: skip
    assert [header.get_secret_value() for header in given.traces.headers] == [
        "Authentication: token-1234",
        "X-Tenant: operations",
    ]
    assert {"token-1234", "operations"} <= secrets_of(given)
    assert "token-1234" not in repr(given)
