"""The page for whoever was called: each of its commands, literally, on a store in which all of it has happened."""

import os
import re
import shlex
import subprocess
import sys

import pytest
from processes import ROOT, ask, started, triage
from workload import body

PAGE = (ROOT / "docs/how-to/what-to-do-when.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
RULES = """
version: 1
rules:
  - id: ask-first
    match: {function: held}
    hold: {reason: may it run twice?, for: 1h}
    rerun: {max_attempts: 1, give_up_after: 1h}
    alert: {on: [exhausted]}
  - id: tell
    alert: {group_wait: 0s}
"""


@pytest.fixture(scope="module")
def called(tmp_path_factory):
    """Run a command of the page in a shell, beside the daemon; its output."""
    folder = tmp_path_factory.mktemp("called")
    state, program = folder / "state", folder / "bin" / "triage"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m triage "$@"\n')
    program.chmod(0o755)
    (folder / "rules.yaml").write_text(RULES)
    messages = {"told.json": body("img-resize", 1), "held.json": body("held", 2), "bad.json": b"no message"}
    for name, text in messages.items():
        (folder / name).write_bytes(text)
    port = subprocess.run([sys.executable, "-c", "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"], capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
    settings = {"TRIAGE_RULES": str(folder / "rules.yaml"), "TRIAGE_WEB__LISTEN": f"127.0.0.1:{port}"}
    with started("run", state=state, **settings) as daemon:
        daemon.until_logged("running")
        triage("queue", "send", *(folder / name for name in messages), state=state)
        daemon.until_taken(3)
        daemon.until_logged("alert to default sent")
        (held,) = ask("failures", "list", "--state", "held", state=state)
        placeholders = {"REQUEST_ID": "1-img-resize-000001", "CODE": held["code"], "ENTRY": "1"}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TRIAGE_")}
        own = {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TRIAGE_STATE_DIR": str(state),
        }

        def call(command: str) -> str:
            for name, value in placeholders.items():
                command = re.sub(rf"\b{name}\b", value, command)
            done = subprocess.run(
                ["bash", "-c", command], env={**clean, **own, **settings}, cwd=folder, capture_output=True, text=True, timeout=60, check=False
            )  # fmt: skip
            assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
            return done.stdout

        yield call


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_does_what_it_says(called, command: str):
    said = called(command)
    expected = {
        "triage top --once": "gets on",
        "triage selfcheck --quick": "holds",
        "triage failures list --since 1h": "img-resize",
        "triage failures list --state held": "1-held-000002",
        "triage rules explain": "tell",
        "triage quarantine list": "not_base64",
        "triage quarantine show": "no message",
        "triage health": "ok",
        "triage lineage": "first run of img-resize",
    }
    for start, text in expected.items():
        if command.startswith(start):
            assert text in said


def test_the_page_says_nothing_of_commands_and_settings_that_are_not_there():
    from triage.cli import COMMANDS as KNOWN

    named = set(re.findall(r"`triage (\w+)", PAGE)) | {line.split()[1] for line in COMMANDS}
    assert named <= set(KNOWN)
    links = re.findall(r"\]\(([^)#]+)", PAGE)
    assert all((ROOT / "docs/how-to" / link).exists() for link in links)
    assert len(COMMANDS) > 20
