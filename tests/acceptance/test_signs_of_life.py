"""Signs of life and missing results, by a real daemon: pings to a real HTTP server come only while every stage gets on, and
who has not been heard of for too long is told once, and once more when it is back.
"""

import json
import sqlite3
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread

import make
import pytest
from mortal import hearing
from processes import started, triage

RULES = "version: 1\nrules:\n  - {id: known, ignore: it is known to fail}\n"


class Pinged:
    """A check that is pinged, such as that of healthchecks.io."""

    def __init__(self):
        self.count, self._more = 0, Condition()
        pinged = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                with pinged._more:
                    pinged.count += 1
                    pinged._more.notify_all()
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/ping/a-token"

    def more(self, number, *, within):
        """Whether so many more come in time."""
        with self._more:
            goal = self.count + number
            return self._more.wait_for(lambda: self.count >= goal, within)


@pytest.fixture
def pinged():
    made = Pinged()
    with made.server:
        thread = Thread(target=made.server.serve_forever, args=(0.02,))
        thread.start()
        yield made
        made.server.shutdown()
        thread.join()


@contextmanager
def daemon(folder, **settings):
    (folder / "rules.yaml").write_text(RULES)
    with started("run", state=folder / "state", TRIAGE_RULES=str(folder / "rules.yaml"), **settings) as running:
        running.until_logged("running: sources")
        yield running


def send(state, name, function="job"):
    lines = state / "bodies.jsonl"
    lines.write_bytes(make.body(name, arn=f"acs:fc:cn-hangzhou:1034:functions/{function}") + b"\n")
    triage("queue", "send", lines, state=state)


def test_signs_of_life_stop_with_a_stage_that_cannot_get_on_and_come_again_with_it(tmp_path, pinged):
    with daemon(tmp_path, TRIAGE_HEARTBEAT__URL=pinged.url, TRIAGE_HEARTBEAT__EVERY="100ms") as running:
        assert pinged.more(5, within=30)
        with closing(sqlite3.connect(tmp_path / "state/triage.db", isolation_level=None)) as lock:
            lock.execute("BEGIN IMMEDIATE")  # as somebody else does who hangs: after 10 s the daemon's own writes fail
            send(tmp_path / "state", "1-a")
            running.until_logged("no sign of life is sent: ")
            before = pinged.count
            assert not pinged.more(2, within=1), "while it cannot write, nobody hears that it lives"
            assert pinged.count <= before + 1  # one that was on its way
            lock.execute("ROLLBACK")
        assert pinged.more(5, within=30)
        assert "a-token" not in running.log
        assert running.stop() == 0
        assert not pinged.more(1, within=0.5), "nor after its end"


def test_who_is_not_heard_of_is_told_once_and_once_more_when_it_is_back(tmp_path):
    with hearing(tmp_path) as ears:
        settings = {
            "TRIAGE_ARRIVALS": json.dumps(
                [{"function": "img-*", "within": "3s", "to": ["oncall"], "severity": "critical"}]
            ),
            "TRIAGE_RECEIVERS": json.dumps({"oncall": {"urls": [ears.url("oncall")]}}),
        }

        def titles():
            return [title.partition(" #")[0] for _, title in ears.heard]

        silent = "[critical] function img-*: nothing has arrived for 3s"
        back = "[info] function img-*: messages arrive again"
        with daemon(tmp_path, **settings) as running:
            running.until(lambda: titles() == [silent], why="was it missed")
            send(tmp_path / "state", "1-other", function="other")  # that is nobody of whom it is expected
            running.until_taken(1)
            assert titles() == [silent]
            send(tmp_path / "state", "1-back", function="img-resize")
            running.until(lambda: len(ears.heard) > 1, why="was it back")
            assert titles()[:2] == [silent, back]
            running.until(lambda: len(ears.heard) > 2, why="was it missed again")
            assert titles()[2] == silent
            codes = [title.rpartition("#")[2] for _, title in ears.heard]
            assert codes[0] == codes[1] != codes[2]
            running.kill()
        with daemon(tmp_path, **settings) as running:
            send(tmp_path / "state", "2-back", function="img-resize")
            running.until(lambda: len(ears.heard) > 3, why="was it back")
            assert titles()[3] == back, "a restart neither repeats that it is missed nor takes itself for news"
