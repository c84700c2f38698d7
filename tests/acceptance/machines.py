"""Debian systems in folders, made on the spot, with the program's dependencies at hand. For the long tests: they need
root, Debian's tools, a package index, and a few minutes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from processes import ROOT

LONG = bool(os.environ.get("TRIAGE_ACCEPTANCE_LONG"))
"""Whether the tests that take minutes, and need root, are to run."""

BUILD = ("hatchling>=1.27", "setuptools", "wheel")
"""What building needs: ours, and the one dependency that is published as source only."""


def needs(*tools: str) -> pytest.MarkDecorator:
    """Skip, saying why, unless the long tests were asked for and can run."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if not LONG:
        return pytest.mark.skip(reason="a long test: set TRIAGE_ACCEPTANCE_LONG=1")
    if os.geteuid():
        return pytest.mark.skip(reason="COULD NOT RUN: needs root")
    return pytest.mark.skipif(bool(missing), reason=f"COULD NOT RUN: not installed: {', '.join(missing)}")


def run(*command: object, **more: object) -> str:
    """Run to the end; what it printed. Fails with all it said."""
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def debian(folder: Path, suite: str, *packages: str) -> Path:
    """A minimal Debian in a folder or archive, without its documentation."""
    unread = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")]
    run("mmdebstrap", "--variant=minbase", *unread, f"--include={','.join(packages)}", suite, folder)
    return folder


def wheelhouse(folder: Path, version: str, requirements: str = "requirements.txt") -> Path:
    """Everything that is locked, as the index has it, for a version of Python; and what building needs."""
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder, "--disable-pip-version-check")
    run(*pip, "--no-deps", "--require-hashes", "-r", ROOT / requirements)
    run(*pip, *BUILD)
    own = f"cp{sys.version_info.major}{sys.version_info.minor}"
    if own != f"cp{version.replace('.', '')}":
        tagged = [each for each in folder.iterdir() if f"-{own}-" in each.name]
        names = [re.sub(r"^([^-]+)-([^-]+)-.*", r"\1==\2", each.name) for each in tagged]
        for each in tagged:
            each.unlink()
        run(*pip, "--no-deps", "--only-binary=:all:", "--python-version", version, *names)
    return folder


def checkout(folder: Path) -> Path:
    """The files of this repository as they are, without what is ignored."""
    names = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=ROOT).split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def block(file: str, name: str) -> str:
    """The commands of a page between its markers, to be followed literally."""
    text = (ROOT / file).read_text().partition(f"<!-- {name} -->\n```sh\n")[2].partition("```\n<!-- end -->")[0]
    assert text, f"{file} has no block {name!r}"
    return text


@dataclass
class Machine:
    """A booted system."""

    root: Path
    init: int

    def sh(self, script: str, *, code: int = 0, **environ: str) -> str:
        """Run a script in it, as its root; what that printed."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.init), "-m", "-u", "-i", "-p", "sh", "-euc", script],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", **environ},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, f"{script}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.sh(f"systemctl show -P {name} {unit}").strip()


@contextmanager
def booted(root: Path, *options: object) -> Iterator[Machine]:
    """Boot a system with its own systemd as process 1; it is shut down at the end of the block."""
    log = root.parent / "console.log"
    command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot", "-D", root, *options]
    with log.open("wb") as console:
        process = subprocess.Popen([str(each) for each in command], stdin=subprocess.DEVNULL, stdout=console)
    try:
        machine = Machine(root, _init_of(process, log))
        machine.sh("until [ -S /run/systemd/private ]; do sleep 0.1; done; systemctl is-system-running --wait || :")
        yield machine
        machine.sh("systemctl poweroff")
        process.wait(60)
    finally:
        process.kill()
        process.wait()


def _init_of(process: subprocess.Popen[bytes], log: Path) -> int:
    """Process 1 of the machine, as seen from here."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None:
        for child in children.read_text().split():
            with suppress(FileNotFoundError, ProcessLookupError):  # helpers come and go meanwhile
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
    raise AssertionError(f"it did not boot: {log.read_text(errors='replace')[-3000:]}")


@contextmanager
def mounted(folder: Path, *options: object) -> Iterator[Path]:
    """A file system of its own at a folder; the test is skipped where none can be mounted."""
    folder.mkdir(parents=True)
    done = subprocess.run(["mount", *map(str, options), folder], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"COULD NOT RUN: nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        run("umount", "--lazy", folder)
