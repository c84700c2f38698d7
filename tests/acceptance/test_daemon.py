"""``triage run`` as a service: without any configuration, asked to stop, telling people over HTTP."""

import json
import signal
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from processes import ask, emulating, started, totals, triage
from workload import RULES, SCENARIO, Workload, body

SAMPLES = Path(__file__).parents[1] / "data" / "samples"


def test_without_configuration_every_sample_is_decided_or_quarantined(tmp_path):
    state = tmp_path / "state"
    files = sorted(path for path in SAMPLES.rglob("*") if path.is_file())
    with started("run", state=state) as running:
        running.until_logged("running: sources local")
        sent = ask("queue", "send", SAMPLES, state=state)
        assert sent["sent"] == len(files)
        running.until(lambda: (now := totals(state)) and now.received == len(files))
        (queue,) = running.until(
            lambda: [q for q in ask("queue", "stats", state=state) if q["active"] + q["leased"] == 0]
        )
        assert queue["queue"] == "default"
        assert running.stop() == 0
    sums = ask("status", state=state)
    assert sums["adds_up"]
    kept = ask("quarantine", "list", state=state)
    assert {entry["reason"] for entry in kept} == {"not_json", "not_base64", "schema"}
    assert all(entry["detail"] for entry in kept)
    assert sums["quarantined"] == len(kept) == len(sent["warned"])
    # Two of the samples are templates with the same placeholder for a requestId.
    assert (sums["decided"], sums["duplicates"], sums["conflicts"]) == (3, 0, 1)
    failures = {row["request_id"]: row for row in ask("failures", "list", state=state)}
    assert sums["failures"] == len(failures) == sum(sums["states"].values())
    assert {row["rule_id"] for row in failures.values()} == {"timed-out", "no-instance"}
    shown = ask("failures", "show", "xxx", state=state)
    both = {shown["envelope"]["body"], *(other["body"] for other in shown["conflicts"])}
    templates = [SAMPLES / "02_fc3_doc_template_resource_exhausted.json", SAMPLES / "03_fc2_doc_template_resource_exhausted.json"]  # fmt: skip
    assert both == {template.read_text().strip() for template in templates}


@pytest.mark.parametrize(("number", "grace"), [(signal.SIGTERM, "20s"), (signal.SIGINT, "0s")])
def test_asked_to_stop_it_finishes_what_it_holds_and_leaves_the_rest_in_the_queue(tmp_path, number, grace):
    load, state = Workload(600), tmp_path / "state"
    (tmp_path / "rules.yaml").write_text(RULES)
    settings = {"TRIAGE_RULES": str(tmp_path / "rules.yaml"), "TRIAGE_CONSUMER__GRACE": grace}
    # Some re-runs take a second to be accepted.
    with emulating(tmp_path, SCENARIO, "--fault", "InvokeFunction:delay=0.1", bodies=load.bodies) as emulation:
        with emulation.daemon(state, **settings) as running:
            running.until_taken(100)
            began = time.monotonic()
            assert running.stop(number) == 0
            assert time.monotonic() - began < 15
            assert running.log.rstrip().endswith("stopped")
        sums, (waiting, leased) = ask("status", state=state), emulation.queue()
        assert sums["adds_up"]
        assert waiting + leased > 0, "it was to be stopped in the middle"
        # Everything is in the store or in the queue; what is in both was decided and could not be acknowledged.
        assert sums["received"] + waiting + leased >= load.size
        if grace == "20s":
            assert "not finished within the grace period" not in running.log
            with emulation.daemon(state, **settings) as running:
                running.until(lambda: load.is_done(state), why="was the rest done")
                assert load.check(emulation, running, state, disturbed=True) == 0
                assert running.stop() == 0


@pytest.fixture
def receiver():
    """An HTTP server that takes notifications; it fails as often as ``failing`` says."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            note = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.tried += 1
            if server.failing:
                server.failing -= 1
                self.send_error(500)
                return
            server.taken.append(note)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.taken, server.tried, server.failing = [], 0, 0
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_an_alert_reaches_its_receiver_once_though_that_fails_at_first(tmp_path, receiver):
    state = tmp_path / "state"
    receiver.failing = 2
    (tmp_path / "rules.yaml").write_text(
        "version: 1\nrules:\n  - id: tell\n    owner: media-team\n"
        "    alert: {to: oncall, severity: critical, group_by: [function], group_wait: 0s}\n"
    )
    address = f"json://127.0.0.1:{receiver.server_address[1]}/hooks/SecretHookToken"
    settings = {
        "TRIAGE_RULES": str(tmp_path / "rules.yaml"),
        "TRIAGE_RECEIVERS__ONCALL__URLS": address,
        "TRIAGE_OUTBOX__RETRY_FIRST": "100ms",
    }
    (tmp_path / "one.json").write_bytes(body("thumbnails", 1))
    triage("queue", "send", tmp_path / "one.json", state=state)
    with started("run", state=state, **settings) as running:
        running.until(lambda: (now := totals(state)) and now.states.get("alerted"))
        assert running.stop() == 0
    assert receiver.tried == 3
    (note,) = receiver.taken
    assert note["title"].startswith("[critical] thumbnails failed: InvocationError #")
    assert note["type"] == "failure"
    assert "Owner: media-team\nRule: tell" in note["message"]
    story = triage("failures", "show", "1-thumbnails", state=state, **settings)
    deliveries = story.partition("\ndeliveries\n")[2].splitlines()[1:]
    assert [line.split()[3] for line in deliveries] == ["failed", "failed", "sent"]
    assert all(line.split()[2] == "oncall" for line in deliveries)
    assert ask("status", state=state)["deliveries"] == {"sent": 1, "failed": 2}
    assert "SecretHookToken" not in running.log + running.out + story
