"""``triage run`` as systemd runs it, with a notify socket of our own in the place of systemd's."""

import signal
import socket
import time

import pytest
from processes import started

RULES = "version: 1\nrules:\n  - {id: everything, ignore: 'a test'}\n"


class Manager:
    """Systemd's end of the socket."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.told = []

    def until(self, wanted, *, within=30):
        """Receive until a message that ``wanted`` likes; that one."""
        deadline = time.monotonic() + within
        while True:
            self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            self.told.append(self.socket.recv(4096).decode())
            if wanted(self.told[-1]):
                return self.told[-1]


@pytest.fixture
def manager(tmp_path):
    made = Manager(tmp_path / "notify")
    yield made
    made.socket.close()


def test_start_work_reload_and_stop_are_told_in_order(tmp_path, manager):
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "900000", "TRIAGE_RULES": str(rules)}
    with started("run", state=tmp_path / "state", **environ) as running:
        manager.until(lambda said: said == "READY=1")
        assert manager.told == ["READY=1"], "nothing is told before it can work"
        manager.until(lambda said: said == "WATCHDOG=1")
        first = manager.until(lambda said: said.startswith("STATUS="))
        assert first.endswith("all is well")

        rules.write_text(RULES.replace("everything", "all-of-it"))
        before = time.monotonic_ns() // 1000
        running.process.send_signal(signal.SIGHUP)
        stamp = manager.until(lambda said: said.startswith("RELOADING=1")).partition("\nMONOTONIC_USEC=")[2]
        assert before <= int(stamp) <= time.monotonic_ns() // 1000
        manager.until(lambda said: said == "READY=1")
        status = [said for said in manager.told if said.startswith("STATUS=")][-1]
        assert status.partition("rules ")[2][:12] != first.partition("rules ")[2][:12]

        rules.write_text("version: 1\nrules: [\n")
        running.process.send_signal(signal.SIGHUP)
        manager.until(lambda said: said.startswith("RELOADING=1"))
        manager.until(lambda said: said == "READY=1")
        last = [said for said in manager.told if said.startswith("STATUS=")][-1]
        assert last.endswith("1 problem; the rule files are not used, mistakes: 1 (triage rules check)")

        running.process.send_signal(signal.SIGTERM)
        manager.until(lambda said: said == "STOPPING=1")
        assert running.process.wait(30) == 0


def test_a_process_that_does_not_move_is_not_pinged_for_and_its_end_leaves_its_stacks(tmp_path, manager):
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "900000"}
    with started("run", state=tmp_path / "state", **environ) as running:
        manager.until(lambda said: said == "WATCHDOG=1")
        running.process.send_signal(signal.SIGSTOP)
        with pytest.raises(TimeoutError):  # once what was sent before has been read
            manager.until(lambda said: said == "nothing more", within=2)
        # What systemd then does.
        running.process.send_signal(signal.SIGABRT)
        running.process.send_signal(signal.SIGCONT)
        assert running.process.wait(30) == -signal.SIGABRT
        assert "Fatal Python error: Aborted" in running.log
        assert "triage/stores/worker.py" in running.log  # a thread that was running tells only part of its stack
