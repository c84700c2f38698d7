"""Real signals to ``triage run``: in what order it stops, what a second one does, and what one does at any time of the start."""

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from urllib.request import urlopen

import pytest
from processes import TRIAGE, ask, environment, started, totals, triage
from test_notify_socket import Manager
from workload import body

RULES = "version: 1\nrules:\n  - id: tell\n    alert: {group_wait: 0s}\n"


class Receiver:
    """An HTTP server that takes notifications, and answers each one when it is told."""

    def __init__(self):
        self.asked, self.answer, self.titles = Event(), Event(), []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                note = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.asked.set()
                receiver.answer.wait(60)
                receiver.titles.append(note["title"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args):
                pass

            def handle_one_request(self):
                try:
                    super().handle_one_request()
                except OSError:  # whoever asked is gone
                    self.close_connection = True

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"json://127.0.0.1:{self.server.server_address[1]}/"


@pytest.fixture
def receiver():
    made = Receiver()
    with made.server:
        thread = Thread(target=made.server.serve_forever, args=(0.05,))
        thread.start()
        yield made
        made.answer.set()
        made.server.shutdown()
        thread.join()


@contextmanager
def telling(tmp_path, receiver, **more):
    """A daemon that has begun to tell the receiver of a failure."""
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "one.json").write_bytes(body("first", 1))
    (tmp_path / "two.json").write_bytes(body("second", 2))
    triage("queue", "send", tmp_path / "one.json", state=tmp_path / "state")
    with started("run", state=tmp_path / "state", **{**settings(tmp_path, receiver), **more}) as running:
        assert receiver.asked.wait(30), running.log
        yield running


PATIENT = {"TRIAGE_RECEIVERS__DEFAULT__TIMEOUT": "50s", "TRIAGE_OUTBOX__LEASE": "90s"}


def settings(tmp_path, receiver):
    return {
        "TRIAGE_RULES": str(tmp_path / "rules.yaml"),
        "TRIAGE_RECEIVERS__DEFAULT__URLS": receiver.url,
        "TRIAGE_RECEIVERS__DEFAULT__TIMEOUT": "5s",
        "TRIAGE_FC__TIMEOUT": "1s",
        "TRIAGE_OUTBOX__LEASE": "6s",
        "TRIAGE_CONSUMER__GRACE": "60s",
    }


def test_it_takes_nothing_more_finishes_what_it_sends_and_closes_the_store(tmp_path, receiver):
    state, manager = tmp_path / "state", Manager(tmp_path / "notify")
    web = {"TRIAGE_WEB__LISTEN": "127.0.0.1:0", "NOTIFY_SOCKET": str(tmp_path / "notify")}
    with telling(tmp_path, receiver, **PATIENT, **web) as running:
        url = running.log.partition("operations endpoint: ")[2].partition("/healthz")[0]
        running.process.send_signal(signal.SIGTERM)
        manager.until(lambda said: said == "STOPPING=1")
        running.until_logged("stopping: what is under way is finished")
        triage("queue", "send", tmp_path / "two.json", state=state)
        assert urlopen(f"{url}/healthz").read() == b"ok\n"
        assert (state / "triage.db-wal").exists()
        assert totals(state).deliveries == {}
        receiver.answer.set()
        assert running.process.wait(30) == 0
        assert running.log.rstrip().endswith("stopped")
    manager.socket.close()
    assert not (state / "triage.db-wal").exists(), "the store was closed"
    sums = totals(state)
    assert (sums.received, sums.deliveries) == (1, {"sent": 1})
    (queue,) = ask("queue", "stats", state=state)
    assert (queue["active"], queue["leased"]) == (1, 0), "what came during the stop is left in the queue"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_second_signal_ends_it_at_once_and_nothing_is_lost(tmp_path, receiver, number):
    state = tmp_path / "state"
    with telling(tmp_path, receiver) as running:
        running.process.send_signal(signal.SIGTERM)
        running.until_logged("stopping: what is under way is finished")
        began = time.monotonic()
        while running.process.poll() is None and time.monotonic() - began < 20:
            running.process.send_signal(number)  # the first of them may still count as the other half of a doubled one
            time.sleep(0.1)
        assert running.process.wait(1) == 128 + number
        assert time.monotonic() - began < 3
    receiver.answer.set()
    with started("run", state=state, **settings(tmp_path, receiver)) as running:
        running.until(lambda: totals(state).deliveries == {"sent": 1}, why="was it told")
        assert running.stop() == 0
    assert len(set(receiver.titles)) == 1, "told again under the same code"
    assert triage("selfcheck", state=state).startswith("holds")


def test_a_doubled_signal_is_one(tmp_path, receiver):
    with telling(tmp_path, receiver, **PATIENT) as running:
        running.process.send_signal(signal.SIGTERM)
        running.process.send_signal(signal.SIGINT)
        running.until_logged("stopping: what is under way is finished")
        receiver.answer.set()
        assert running.process.wait(30) == 0
        assert running.log.rstrip().endswith("stopped")


INSTANTS = [0.0, 0.03, 0.08, 0.15, 0.25, 0.35, 0.5, 0.8]
"""Seconds after the start: the interpreter, the imports, the store."""


@pytest.mark.parametrize("after", INSTANTS)
def test_a_signal_during_the_start_ends_it(tmp_path, after):
    with started("run", state=tmp_path / "state") as running:
        time.sleep(after)
        assert running.stop() in (0, -signal.SIGTERM)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="COULD NOT RUN: needs root and unshare")
@pytest.mark.parametrize("after", INSTANTS)
def test_a_signal_during_the_start_ends_process_1_too(tmp_path, after):
    state = tmp_path / "state"
    entrypoint = ["env", "--block-signal=TERM", "--block-signal=INT", *TRIAGE, "run"]
    log = tmp_path / "log"
    with log.open("wb") as out:
        command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *entrypoint]
        process = subprocess.Popen(command, env=environment(state), cwd=tmp_path, stdout=out, stderr=out)
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not (first := children.read_text().split()) or not cmdline(first[0]).startswith(TRIAGE[0].encode()):
            assert process.poll() is None
        time.sleep(after)
        os.kill(int(first[0]), signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()


def cmdline(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()
