"""The newcomer's page, followed literally: every command is run, every output is as shown."""

import os
import re
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT.joinpath("docs", "how-to", "write-a-rule.md").read_text(encoding="utf-8")
BLOCK = re.compile(
    r"(?:[Ss]ave (?:this |it )?as `(?P<file>[^`]+)`:\n\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
PATIENCE = 20.0


class Reader:
    """Somebody who types what the page says, in one shell, and waits a little where the daemon needs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: list[subprocess.Popen] = []
        program = folder / "bin" / "triage"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m triage "$@"\n')
        program.chmod(0o755)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TRIAGE_")}
        self.env = clean | {"PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def run(self, command: str, shown: list[str]) -> None:
        words = shlex.split(command)
        if words[0] == "cd":
            self.folder /= words[1]
        elif words[0] == "export":
            told = subprocess.run(
                ["bash", "-c", f"{command}; env -0"],
                cwd=self.folder,
                env=self.env,
                capture_output=True,
                text=True,
                check=True,
            )
            self.env = dict(pair.split("=", 1) for pair in told.stdout.split("\0") if "=" in pair)
        elif words[-1] == "&":
            self.jobs.append(
                subprocess.Popen(["bash", "-c", "exec " + command.removesuffix("&")], cwd=self.folder, env=self.env)
            )
        elif command == "kill %1":
            self.jobs[0].terminate()
            assert self.jobs.pop(0).wait(30) == 0, "the daemon stops in good order"
        else:
            self.see(command, shown)

    def see(self, command: str, shown: list[str]) -> None:
        until = time.monotonic() + PATIENCE
        while True:
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=self.folder,
                env=self.env,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert "Traceback" not in done.stderr
            if fits(shown, done.stdout):
                return
            # What the daemon does takes a moment; to look again is harmless, to send again is not.
            repeatable = command.startswith(("triage failures", "triage rules", "tail"))
            if not repeatable or time.monotonic() > until:
                pytest.fail(f"$ {command}\n{done.stdout}{done.stderr}\ninstead of\n" + "\n".join(shown))
            for job in self.jobs:
                with suppress(subprocess.TimeoutExpired):
                    pytest.fail(f"the daemon ended with {job.wait(0.2)}")


def fits(shown: list[str], output: str) -> bool:
    """Whether the output is as shown: ``...`` alone stands for any lines, in a line for anything; blanks fold."""
    parts = [
        r"(?:.*\n)*?" if line == "..." else re.escape(" ".join(line.split())).replace(r"\.\.\.", ".*") + "\n"
        for line in shown
    ]
    folded = "".join(" ".join(line.split()) + "\n" for line in output.splitlines())
    return re.fullmatch("".join(parts), folded) is not None


def steps(text: str):
    """(command, lines shown below it) of a console block."""
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    for number, following in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield lines[number].removeprefix("$ "), lines[number + 1 : following]


@pytest.mark.timeout(180)
def test_the_page_works_as_it_is_written(tmp_path):
    reader = Reader(tmp_path)
    done = []
    try:
        for block in BLOCK.finditer(PAGE):
            if block["kind"] != "console":
                assert block["file"], f"what is this saved as?\n{block['text']}"
                (reader.folder / block["file"]).write_text(block["text"])
                continue
            for command, shown in steps(block["text"]):
                reader.run(command, shown)
                done.append(command.split()[:3])
    finally:
        for job in reader.jobs:
            job.kill()
            job.wait()
    assert ["triage", "rules", "backtest"] in done
    assert done[-1] == ["kill", "%1"]


def test_outputs_are_compared_in_earnest():
    assert fits(["a b", "...", "c ... e"], "a  b\nx\ny\nc d e\n")
    assert not fits(["a b"], "a c\n")
    assert not fits(["a"], "a\nb\n")
    assert not fits(["a", "...", "c"], "a\nb\n")
    assert not fits([], "a\n")
