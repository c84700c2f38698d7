"""``triage demo``, as somebody tries it who has just installed triage."""

import re
import shlex
import subprocess

import pytest
from processes import TRIAGE, environment, triage

WORDS = (
    "The re-run of my-fc-job succeeded: the failure is healed",
    "[critical] invoice-pdf failed: KeyError",
    "The cut-off message is quarantined",
    "recognised as a duplicate",
)


def test_it_tells_the_whole_story_each_time_also_in_a_folder_that_exists(tmp_path):
    folder = tmp_path / "demo"
    folder.mkdir()
    for _ in range(2):
        told = triage("demo", "--dir", folder, state=tmp_path / "unused")
        assert [word for word in WORDS if told.count(word) != 1] == []
        sums = re.search(r"(\d+) messages received = (.*) quarantined;\s+(\d+) failures = (.*); (\d) alert", told)
        received, parts, failures, states, alerts = sums.groups()
        assert int(received) == sum(map(int, re.findall(r"\d+", parts)))
        assert (failures, states, alerts) == ("2", "1 alerted + 1 healed", "1")
        assert not (tmp_path / "unused").exists()
    # What it says to try next works as it stands, from any folder.
    environ = environment(tmp_path)
    del environ["TRIAGE_STATE_DIR"]
    commands = [line.strip() for line in told.splitlines() if re.match(r" {4}\S.* --config ", line)]
    assert len(commands) == 4
    failed = re.search(r"my-fc-job is invoked .* as request (\S+)", told).group(1)
    for command in commands:
        done = subprocess.run(
            shlex.split(command.replace("REQUEST_ID", failed)),
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout
        assert done.stderr == ""


@pytest.mark.parametrize("name", ["triage.toml", "triage.db"])
def test_it_leaves_files_alone_that_are_not_its_own(tmp_path, name):
    (tmp_path / name).write_text("mine")
    done = subprocess.run(
        [*TRIAGE, "demo", "--dir", str(tmp_path)],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: {tmp_path / name} is not from a demo; choose a folder of its own with --dir.\n"
    assert [path.name for path in tmp_path.iterdir()] == [name]
