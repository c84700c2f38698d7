"""``triage queue serve`` as a process: official clients can use it, it stops cleanly, mistakes are told in a line."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from mns.account import Account
from mns.mns_exception import MNSExceptionBase, MNSServerException
from mns.queue import Message

TRIAGE = [sys.executable, "-m", "triage", "queue"]


def environment(state: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRIAGE_")}
    root = Path(__file__).parents[2]
    return {**kept, "PYTHONPATH": str(root), "TRIAGE_STATE_DIR": str(state), **more}


@contextmanager
def serving(state: Path, **more: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """The process, its address and the lines it printed."""
    process = subprocess.Popen(
        [*TRIAGE, "serve", "--port", "0"],
        env=environment(state, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        assert lines[0].startswith("Serving "), process.stderr and process.stderr.read()
        yield process, lines[0].split()[-1], lines
    finally:
        process.kill()
        process.communicate()


def test_official_client_sends_and_the_command_line_sees_it(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, url, lines):
        file = tmp_path / "queue-secret"
        secret = file.read_text().strip()
        assert file.stat().st_mode & 0o777 == 0o600
        assert len(secret) == 32
        assert str(file) in lines[1]
        assert secret not in "".join(lines)
        account = Account(url, "local", secret)
        sent = account.get_queue("default").send_message(Message("hello"))
        account.mns_client.close_connection()
        seen = subprocess.run([*TRIAGE, "peek"], env=environment(tmp_path), capture_output=True, text=True, check=True)
        assert sent.message_id in seen.stdout
        other = Account(url, "local", "not-" + secret)
        with pytest.raises(MNSServerException, match="SignatureDoesNotMatch"):
            other.get_queue("default").send_message(Message("hello"))
        other.mns_client.close_connection()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    with serving(tmp_path):
        assert file.read_text().strip() == secret


def test_sigterm_ends_it_though_a_client_waits(tmp_path: Path) -> None:
    with serving(tmp_path, TRIAGE_QUEUE_SECRET="from-outside") as (process, url, lines):
        assert not (tmp_path / "queue-secret").exists()
        assert "from-outside" not in "".join(lines)
        account = Account(url, "local", "from-outside")
        errors = []

        def wait() -> None:
            try:
                account.get_queue("default").receive_message(30)
            except MNSExceptionBase as error:
                errors.append(error)

        client = Thread(target=wait)
        client.start()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        client.join(10)
        assert len(errors) == 1
        account.mns_client.close_connection()


def test_port_in_use_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*TRIAGE, "serve", "--port", port], env=environment(tmp_path), capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert port in done.stderr
    assert "choose another port" in done.stderr


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["send", "--raw"]])
def test_wrong_queue_file_is_told_in_one_line(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "queue.db").write_text("this is no database\n" * 100)
    done = subprocess.run(
        [*TRIAGE, *command], env=environment(tmp_path), input="x", capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "not an SQLite database" in done.stderr
