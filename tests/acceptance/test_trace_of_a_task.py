"""The trace of a task that is run again, of a real daemon."""

import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from processes import emulating
from workload import RULES, SCENARIO, body

from triage.traces import span_id, trace_id


def test_a_task_is_one_trace_from_its_message_to_its_healing_and_an_alert_is_in_the_trace_of_what_failed(tmp_path):
    spans = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            spans.extend(span for each in message.resource_spans for scope in each.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    (tmp_path / "rules.yaml").write_text(RULES)
    bodies = [body("again", 1), body("told", 2)]
    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = Thread(target=collector.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with emulating(tmp_path, SCENARIO, bodies=bodies) as emulation:
                settings = {
                    "TRIAGE_RULES": str(tmp_path / "rules.yaml"),
                    "TRIAGE_TRACES__ENDPOINT": f"http://127.0.0.1:{collector.server_port}/v1/traces",
                }
                with emulation.daemon(tmp_path / "state", **settings) as running:
                    running.until_logged("re-run 1 of again succeeded")
                    log = running.until_logged("alert to default sent")
                    assert running.stop() == 0, "what is left is sent at the end"
        finally:
            collector.shutdown()
            thread.join()
    again, told = "1-again-000001", "1-told-000002"
    assert [f"lineage={told}" in line for line in log.splitlines() if "alert to default sent" in line] == [True]
    tree = {span.name: span for span in spans if span.trace_id == trace_id(again).to_bytes(16)}
    first = next(span for span in spans if span.span_id == span_id(again).to_bytes(8))
    assert not first.parent_span_id
    submit = tree["re-run again"]
    assert submit.parent_span_id == first.span_id
    result = next(span for span in spans if span.parent_span_id == submit.span_id)
    assert {pair.key: pair.value.string_value for pair in result.attributes}["triage.reason"] == "ambiguous"
    healed = tree["result of re-run again"]
    assert {pair.key: pair.value.string_value for pair in healed.attributes}["triage.result"] == "succeeded"
    assert {each.trace_id for each in (result, submit, healed)} == {first.trace_id}
    assert first.end_time_unix_nano <= submit.end_time_unix_nano <= healed.end_time_unix_nano <= time.time_ns()
    alert = {span.name: span for span in spans if span.trace_id == trace_id(told).to_bytes(16)}
    assert set(alert) == {"decide told", "tell default"}
    assert alert["tell default"].parent_span_id == alert["decide told"].span_id
