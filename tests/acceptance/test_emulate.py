"""``triage emulate`` as a process."""

import re
import signal
import socket
import subprocess
import sys
import tomllib

import pytest

from triage.settings import load_settings


def start(*args, cwd):
    return subprocess.Popen(
        [sys.executable, "-m", "triage", "emulate", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_a_ready_configuration_and_ends_on_a_signal(tmp_path, number):
    with start("--port", 0, "--state-dir", tmp_path / "state", "--fault", "delay=0.1", cwd=tmp_path) as process:
        told = ""
        while "access_key_secret" not in told:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            told += line
        config = tmp_path / "triage.toml"
        config.write_text(told)
        url = tomllib.loads(told)["fc"]["endpoint"]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        settings = load_settings(config, environ={})
        assert [source.endpoint for source in settings.sources] == [url]
        assert settings.credentials.access_key_secret.get_secret_value() == "emulator-secret"
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, "")
        assert (tmp_path / "state" / "queue.db").exists()


def test_a_given_secret_is_not_shown(tmp_path):
    with start("--port", 0, "--access-key-secret", "hunter2", cwd=tmp_path) as process:
        told = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "http://127.0.0.1" in told
        assert "hunter2" not in told + rest + errors


@pytest.mark.parametrize(
    ("args", "text", "code", "words"),
    [
        (["s.yaml"], "speed: fast", 1, "s.yaml:1:8: speed"),
        (["s.yaml"], None, 1, "s.yaml: No such file"),
        (["s.yaml"], b"\xff", 1, "not UTF-8"),
        (["--fault", "nonsense=1"], None, 2, "unknown fault"),
        (["--fault", "delay"], None, 2, "expected a name and a rate"),
        (["--state-dir", "/proc/nowhere"], None, 1, "/proc/nowhere"),
    ],
    ids=["mistake", "missing", "binary", "fault", "rate", "state"],
)
def test_mistakes_are_told_in_words(tmp_path, args, text, code, words):
    if text is not None:
        (tmp_path / "s.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with start("--port", 0, *args, cwd=tmp_path) as process:
        out, errors = process.communicate(timeout=20)
    assert (process.returncode, out) == (code, "")
    assert words in errors
    assert "Traceback" not in errors


def test_a_port_in_use_is_told(tmp_path):
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        start("--port", taken.getsockname()[1], cwd=tmp_path) as process,
    ):
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "choose another port" in errors
    assert "Traceback" not in errors
