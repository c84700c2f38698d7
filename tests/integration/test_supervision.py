"""What the service manager is told, over a real socket."""

import asyncio
import os
import socket
import threading
import time
from contextlib import contextmanager
from datetime import timedelta

import pytest

from triage.errors import Temporary
from triage.progress import Progress, Receiving
from triage.sdnotify import Supervisor
from triage.supervision import Supervision
from triage.testing import ManualClock


@contextmanager
def notify_socket(address):
    """The other end: gives what has arrived so far."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(0)

        def arrived():
            told = []
            while True:
                try:
                    told.append(manager.recv(4096).decode())
                except BlockingIOError:
                    return told

        yield arrived


def test_everything_is_one_datagram_with_the_protocol_s_words(tmp_path):
    with notify_socket(str(tmp_path / "notify")) as arrived:
        supervisor = Supervisor({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"}, pid=7)
        before = time.monotonic_ns() // 1000
        supervisor.ready()
        supervisor.reloading()
        supervisor.status("one line,\n  not two\r")
        supervisor.alive()
        supervisor.stopping()
        ready, reloading, *rest = arrived()
    assert ready == "READY=1"
    assert rest == ["STATUS=one line, not two", "WATCHDOG=1", "STOPPING=1"]
    word, stamp = reloading.split("\n")
    assert word == "RELOADING=1"
    name, _, at = stamp.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before - 1 <= int(at) <= time.monotonic_ns() // 1000


def test_an_abstract_socket_is_reached():
    name = f"triage-test-{os.getpid()}"
    with notify_socket(f"\0{name}") as arrived:
        Supervisor({"NOTIFY_SOCKET": f"@{name}"}, pid=7).ready()
        assert arrived() == ["READY=1"]


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative"])
def test_without_an_address_nobody_is_told(address):
    supervisor = Supervisor({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"}, pid=7)
    supervisor.ready()
    supervisor.alive()


@pytest.mark.parametrize(
    ("environ", "limit"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "2500000"}, timedelta(seconds=2.5)),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "7"}, timedelta(seconds=2.5)),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "me"}, None),
    ],
)
def test_pings_are_for_whom_the_watchdog_means(environ, limit, tmp_path):
    with notify_socket(str(tmp_path / "notify")) as arrived:
        supervisor = Supervisor({"NOTIFY_SOCKET": str(tmp_path / "notify"), **environ}, pid=7)
        assert supervisor.watchdog == limit
        supervisor.alive()
        assert arrived() == ([] if limit is None else ["WATCHDOG=1"])


def test_a_manager_out_of_reach_is_told_once_and_found_again(tmp_path, caplog):
    supervisor = Supervisor({"NOTIFY_SOCKET": str(tmp_path / "notify")}, pid=7)
    supervisor.ready()
    supervisor.stopping()
    assert [record.getMessage() for record in caplog.records] == [
        "the service manager cannot be told: [Errno 2] No such file or directory"
    ]
    with notify_socket(str(tmp_path / "notify")) as arrived:
        supervisor.ready()
        assert arrived() == ["READY=1"]
    supervisor.ready()
    assert len(caplog.records) == 2


def test_a_manager_that_does_not_read_blocks_nobody(tmp_path, caplog):
    with notify_socket(str(tmp_path / "notify")):
        supervisor = Supervisor({"NOTIFY_SOCKET": str(tmp_path / "notify")}, pid=7)
        for _ in range(100_000):
            supervisor.status("x" * 500)
            if caplog.records:
                break
    assert "cannot be told" in caplog.text


def test_what_is_told_once_waits_for_a_manager_that_is_busy(tmp_path, caplog):
    address = str(tmp_path / "notify")
    with notify_socket(address) as arrived:
        supervisor = Supervisor({"NOTIFY_SOCKET": address}, pid=7)
        while not caplog.records:
            supervisor.status("x" * 500)
        thread, told = threading.Thread(target=supervisor.ready), []
        thread.start()
        while thread.is_alive():
            told += arrived()
        assert "READY=1" in [*told, *arrived()]


class Watched:
    """A daemon's stages and sources, under a watchdog of nine seconds."""

    def __init__(self, address):
        self.clock = ManualClock()
        self.stage, self.source, self.rules = Progress(), Receiving(), "0123456789abcdef"
        self.mistakes = []
        self.supervision = Supervision(
            Supervisor({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "9000000"}, pid=7),
            stages={"consumer": self.stage},
            sources={"results": self.source},
            rules=lambda: self.rules,
            mistakes=lambda: self.mistakes,
            clock=self.clock,
            redact=lambda text: text.replace("hunter2", "***"),
        )


def test_it_is_pinged_for_while_every_stage_gets_on(tmp_path):
    async def story(arrived):
        watched = Watched(str(tmp_path / "notify"))
        running = asyncio.create_task(watched.supervision.run())
        await watched.clock.advance(timedelta(seconds=8))
        assert arrived().count("WATCHDOG=1") == 3  # at 0, 3 and 6 s
        watched.stage.busy(watched.clock.steady())
        told = []
        for _ in range(60):
            await watched.clock.advance(timedelta(seconds=3))
            told += arrived()  # a socket keeps ten messages
        assert 39 <= told.count("WATCHDOG=1") <= 41, "no pings after two minutes without progress"
        assert told[-1].endswith("1 problem; consumer has not got on for 178 s")
        watched.stage.rest()
        await watched.clock.advance(timedelta(seconds=3))
        assert "WATCHDOG=1" in arrived()
        running.cancel()

    with notify_socket(str(tmp_path / "notify")) as arrived:
        asyncio.run(story(arrived))


def test_the_status_tells_rate_lag_rules_and_what_is_wrong(tmp_path):
    async def story(arrived):
        watched = Watched(str(tmp_path / "notify"))
        clock, tell = watched.clock, watched.supervision.tell

        def status():
            tell()
            return arrived()[-1]

        assert status() == "STATUS=0 messages, rules 0123456789ab, all is well"
        watched.source.received(25, now=clock.now(), oldest=clock.now() - timedelta(seconds=40))
        await clock.advance(timedelta(seconds=10))
        assert status() == ("STATUS=25 messages, 2.5/s, the oldest had waited 40 s, rules 0123456789ab, all is well")
        watched.source.received(0, now=clock.now())
        assert "waited 0 s" in status()
        watched.source.failed(Temporary("connection", "refused\nhunter2"), now=clock.now())
        watched.stage.tried(clock.steady(), error="the disk is full")
        watched.rules, watched.mistakes = "f" * 64, ["the rule files are not used, mistakes: 2 (triage rules check)"]
        assert status().partition("rules ")[2] == (
            "ffffffffffff, 3 problems; the disk is full; source results: connection: refused\\n***; "
            "the rule files are not used, mistakes: 2 (triage rules check)"
        )
        watched.source.failed(Temporary("x" * 5000), now=clock.now())
        assert len(status()) < 600

    with notify_socket(str(tmp_path / "notify")) as arrived:
        asyncio.run(story(arrived))
