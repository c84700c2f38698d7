"""A daemon that hangs, with real processes: it ends by itself, says where it stood, and loses nothing by it."""

import re
import signal
import socket
import sqlite3
import threading
import time
from contextlib import contextmanager

import make
import pytest
from processes import ROOT, alerts, started, totals, triage

from triage.watchdog import EXIT_STALLED

RULES = "version: 1\nrules:\n  - id: tell\n    alert: {to: [default, ops], group_wait: 0s}\n"
LIMIT = 2
SOON = {
    "TRIAGE_WATCHDOG__LIMIT": f"{LIMIT}s",
    "TRIAGE_WATCHDOG__TO": "default",
    "TRIAGE_OUTBOX__LEASE": f"{LIMIT}s",
    "TRIAGE_FC__TIMEOUT": "1s",
    "TRIAGE_QUEUE__VISIBILITY_TIMEOUT": "2s",
}
WITHIN = 30
"""Seconds until it has ended; it takes three, and this machine may be busy."""

FREEZE = """\
import ctypes, signal, time
signal.signal(signal.SIGUSR2, lambda *_: time.sleep(3600))
"""
"""A handler of the interpreter's own runs in the middle of whatever the event loop does."""

HANG = """
CREATE VIEW forever AS WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted) SELECT n FROM counted;
CREATE TRIGGER hang BEFORE INSERT ON envelopes BEGIN SELECT count(*) FROM forever; END;
"""


@pytest.fixture
def daemon(tmp_path):
    """Starts ``triage run`` on the local queue, which begins with an empty store."""
    (tmp_path / "rules.yaml").write_text(RULES)

    def start(name="run", ops="console:", **more):
        receivers = (
            f'{{"default": {{"urls": "console:", "timeout": "1s"}}, "ops": {{"urls": "{ops}", "timeout": "1s"}}}}'
        )
        settings = {"TRIAGE_RULES": str(tmp_path / "rules.yaml"), "TRIAGE_RECEIVERS": receivers}
        return started("run", state=tmp_path / "state", name=name, **{**SOON, **settings, **more})

    return start


def send(state, *request_ids):
    bodies = state / "bodies.jsonl"
    bodies.write_bytes(b"".join(make.body(each) + b"\n" for each in request_ids))
    triage("queue", "send", bodies, state=state)


def hung(running, stage):
    """Wait for the end; what the log says of it."""
    assert running.process.wait(WITHIN) == EXIT_STALLED
    (stalled,) = re.findall("stalled: (.*); this process ends with code 70", running.log)
    assert f"{stage} has not got on for " in stalled
    assert "thread MainThread: " in running.log
    assert "stands still and starts anew" in running.out
    return running.log


def test_a_blocked_event_loop_ends_it(tmp_path, daemon):
    (tmp_path / "sitecustomize.py").write_text(FREEZE)
    state = tmp_path / "state"
    with daemon(PYTHONPATH=f"{tmp_path}:{ROOT}") as running:
        running.until_logged("running: sources")
        send(state, "r1")
        running.until_taken(1)
        running.process.send_signal(signal.SIGUSR2)
        log = hung(running, "event loop")
        assert "sitecustomize.py:2" in log
    send(state, "r2")
    with daemon(name="again") as running:
        running.until(lambda: totals(state).decided == 2, why="was the other one taken in")
        assert running.stop() == 0
    triage("selfcheck", state=state)


def test_a_library_that_holds_the_interpreter_ends_it_all_the_same(tmp_path, daemon):
    (tmp_path / "sitecustomize.py").write_text(FREEZE.replace("time.sleep", "ctypes.PyDLL(None).sleep"))
    state = tmp_path / "state"
    with daemon(PYTHONPATH=f"{tmp_path}:{ROOT}") as running:
        running.until_logged("running: sources")
        send(state, "r1")
        running.until_taken(1)
        running.process.send_signal(signal.SIGUSR2)
        assert running.process.wait(WITHIN) == 1
        assert 'sitecustomize.py", line 2' in running.log
    triage("selfcheck", state=state)


def test_a_store_that_blocks_ends_it_and_what_was_not_stored_comes_again(tmp_path, daemon):
    state = tmp_path / "state"
    with daemon() as running:
        running.until_logged("running: sources")
        with sqlite3.connect(state / "triage.db") as database:
            database.executescript(HANG)
        database.close()
        send(state, "r1", "r2")
        log = hung(running, "consumer")
        assert "thread triage-store-writer: " in log
    with sqlite3.connect(state / "triage.db") as database:
        database.executescript("DROP TRIGGER hang; DROP VIEW forever;")
    database.close()
    assert totals(state).received == 0
    with daemon(name="again") as running:
        running.until(lambda: totals(state).states.get("alerted") == 2, within=60, why="were both told")
        assert running.stop() == 0
    triage("selfcheck", state=state)


@contextmanager
def listening(talk):
    """A server that hands each connection to ``talk``, in a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer(connection):
            with connection:
                talk(connection)

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def trickle(connection):
    """Answers without end, a byte now and then, so that no read ever times out."""
    try:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Endless: ")
        while True:
            connection.sendall(b"x")
            time.sleep(0.2)
    except OSError:
        pass


def test_a_receiver_that_never_returns_ends_it_and_the_other_one_was_told(tmp_path, daemon):
    state = tmp_path / "state"
    state.mkdir()
    send(state, "r1")
    with listening(trickle) as port, daemon(ops=f"json://127.0.0.1:{port}/?rto=60") as running:
        hung(running, "notify")
        told, _ = alerts(running.out)
        assert sum(told.values()) >= 1
    assert totals(state).states == {"alerted": 1}
    with daemon(name="again") as running:
        running.until(lambda: totals(state).deliveries.get("sent", 0) >= 2, why="was the other one told, too")
        assert running.stop() == 0
    triage("selfcheck", state=state)


def test_a_queue_that_does_not_answer_is_asked_again_and_is_no_reason_to_end(tmp_path, daemon):
    key = {"TRIAGE_CREDENTIALS__ACCESS_KEY_ID": "id", "TRIAGE_CREDENTIALS__ACCESS_KEY_SECRET": "secret"}
    source = '[{{"type": "smq", "endpoint": "http://127.0.0.1:{}", "queue": "q", "wait": "0s", "receivers": 1}}]'
    silent = threading.Event()
    # A receive may take ten seconds longer than its poll, whose end the limit counts from.
    patient = {"TRIAGE_WATCHDOG__LIMIT": "14s", "TRIAGE_OUTBOX__LEASE": "14s"}
    with (
        listening(lambda _: silent.wait(60)) as port,
        daemon(TRIAGE_SOURCES=source.format(port), **patient, **key) as running,
    ):
        running.until(lambda: running.log.count("no answer from http://127.0.0.1"), within=60, why="was it told")
        assert "stalled" not in running.log
        silent.set()
        assert running.stop() == 0
