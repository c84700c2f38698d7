"""What CI says of the locked dependencies, by what the tools it asks say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def audit(bin_: Path, vulnerabilities: str, outdated: str) -> tuple[int, list[str]]:
    """Run it with programs that give these answers; an answer that is no JSON goes to standard error."""
    for name, answer in (("pip-audit", vulnerabilities), ("python", outdated)):
        program = bin_ / name
        stream = "stdout" if answer.startswith(("{", "[")) else "stderr"
        program.write_text(
            f"#!{sys.executable}\nimport sys\nprint({answer!r}, file=sys.{stream})\nsys.exit({stream == 'stderr'})\n"
        )
        program.chmod(0o755)
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "audit", bin_], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def answer(*dependencies: dict) -> str:
    return json.dumps({"dependencies": dependencies, "fixes": []})


GOOD = {"name": "aiohttp", "version": "3.14.5", "vulns": []}
BAD = {
    "name": "apprise",
    "version": "2.2.0",
    "vulns": [{"id": "CVE-2026-1", "fix_versions": ["2.2.1"]}, {"id": "X-2", "fix_versions": []}],
}
SKIPPED = {"name": "yarl", "skip_reason": "Dependency not found on PyPI and could not be audited: yarl (1.25.1)"}


@pytest.mark.parametrize(
    ("vulnerabilities", "code", "said"),
    [
        (answer(GOOD, GOOD), 0, ["vulnerabilities: 0 known in 2 packages"]),
        (answer(GOOD, SKIPPED), 0, ["vulnerabilities: 0 known in 1 packages; of 1 nothing is known: yarl"]),
        (answer(GOOD, BAD), 1, [
            "vulnerability: apprise 2.2.0: CVE-2026-1, mended in 2.2.1",
            "vulnerability: apprise 2.2.0: X-2, not mended yet",
            "vulnerabilities: 2 known in 2 packages",
        ]),
        (answer(SKIPPED), 0, ["vulnerabilities: NOT KNOWN, the registry in use tells none, of any of 1 packages"]),
        ("Traceback\nConnectionError: no network", 0, ["vulnerabilities: NOT KNOWN, nobody could be asked: ConnectionError: no network"]),
    ],
    ids=["none", "some unknown", "some", "a registry without data", "no network"],
)  # fmt: skip
def test_vulnerabilities_fail_the_change_and_ignorance_does_not(
    tmp_path: Path, vulnerabilities: str, code: int, said: list[str]
):
    found, lines = audit(tmp_path, vulnerabilities, "[]")
    assert (found, lines[:-1]) == (code, said)
    assert lines[-1].startswith("newer versions: of 0 of ")


def test_newer_versions_are_told_of_what_production_has(tmp_path: Path):
    outdated = json.dumps([{"name": "PyYAML", "latest_version": "99"}, {"name": "pytest", "latest_version": "99"}])
    code, lines = audit(tmp_path, answer(GOOD), outdated)
    assert code == 0
    assert lines[1].startswith("newer version: pyyaml 6.")
    assert lines[1].endswith(" -> 99")
    assert lines[2].startswith("newer versions: of 1 of ")
    assert (
        audit(tmp_path, answer(GOOD), "ERROR: no index")[1][1]
        == "newer versions: NOT KNOWN, nobody could be asked: ERROR: no index"
    )


def test_without_the_tools_it_is_said_that_nothing_is_known(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "audit", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.count("NOT KNOWN, nobody could be asked") == 2
