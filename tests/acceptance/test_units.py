"""What this machine's systemd says of the units, without running them."""

import re
import shutil
import subprocess

import pytest
from processes import ROOT

UNITS = ("triage.service", "triage@.service")


def analyze(*arguments):
    done = subprocess.run(["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def version():
    if shutil.which("systemd-analyze") is None:
        pytest.skip("COULD NOT RUN: no systemd-analyze on this machine")
    return int(re.search(r"systemd (\d+)", analyze("--version")[1])[1])


@pytest.mark.parametrize("unit", UNITS)
def test_little_is_exposed(version, unit):
    code, said = analyze("security", "--offline=true", "--threshold=15", "--no-pager", ROOT / "systemd" / unit)
    assert code == 0, said
    print(said.splitlines()[-1])


@pytest.mark.parametrize("unit", UNITS)
def test_nothing_is_wrong_with_it(version, unit, tmp_path):
    """On a systemd before 253 with the drop-in for those."""
    text = (ROOT / "systemd" / unit).read_text().replace("/opt/triage/bin/triage", shutil.which("true"))
    (tmp_path / unit).write_text(text)
    if version < 253:
        (tmp_path / f"{unit}.d").mkdir()
        shutil.copy(ROOT / "systemd" / "before-253.conf", tmp_path / f"{unit}.d")
    code, said = analyze("verify", "--man=no", tmp_path / unit)
    unknown = [line for line in said.splitlines() if version >= 253 or "notify-reload" not in line]
    assert (code, unknown) == (0, []), said
