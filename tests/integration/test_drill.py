"""``triage drill`` in a daemon of its own: all the way to a real receiver, and nothing of it is left anywhere."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from hooks import web_hooks

from triage.cli import cli

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


@pytest.fixture
def hooks():
    with web_hooks() as server:
        yield server


def run(folder, config, *args, code=0):
    (folder / "triage.toml").write_text(config)
    env = {"TRIAGE_STATE_DIR": str(folder / "state"), "TRIAGE_CONFIG": str(folder / "triage.toml")}
    result = CliRunner(env=env).invoke(cli, ["drill", *args], prog_name="triage")
    assert result.exit_code == code, result.output
    return result


def test_it_goes_all_the_way_and_leaves_nothing_behind(tmp_path, hooks):
    config = f'[receivers.ops]\nurls = ["{hooks.url("ok")}"]\n'
    found = json.loads(run(tmp_path, config, "--isolated", "--to", "ops", "--ack", "--json").stdout)
    assert found["complete"]
    hops = {hop["hop"]: datetime.fromisoformat(hop["at"]) for hop in found["hops"]}
    assert {"queued", "received", "decided", "committed", "flushed", "sent", "acknowledged"} <= hops.keys()
    assert hops["queued"] <= hops["received"] <= hops["flushed"] <= hops["sent"] <= hops["acknowledged"]
    ((_, body),) = hooks.taken
    assert body["title"].startswith("DRILL: ")
    assert "Nothing has failed" in body["message"]
    assert not (tmp_path / "state").exists(), "the real store is not even opened"


def test_a_receiver_that_does_not_take_it_is_told_with_the_reason(tmp_path, hooks):
    config = f'[receivers.ops]\nurls = ["{hooks.url("broken")}"]\n'
    result = run(tmp_path, config, "--isolated", "--to", "ops", "--ack", "--timeout", "5s", code=1)
    assert "sent: did not come within the time. ops: failed, target 1 (json): failed, HTTP 500" in result.stderr
    assert "flushed" in result.stdout


def test_quiet_hours_are_not_waited_for(tmp_path, hooks):
    config = (
        f'[receivers.ops]\nurls = ["{hooks.url("ok")}"]\n'
        'quiet_hours = ["00:00-12:00", "12:00-24:00"]\nquiet_days = ["mon-fri"]\n'
    )
    config = config if datetime.now(UTC).weekday() < 5 else config.replace("mon-fri", "sat-sun")
    result = run(tmp_path, config, "--isolated", "--to", "ops", "--ack", "--timeout", "10s", code=1)
    assert "sent: ops: quiet hours until" in result.stderr
    assert not hooks.taken


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--to", "defualt"), "did you mean 'default'?"),
        (("--rerun",), "confirm it with --yes"),
        (("--isolated", "--like", "1-x"), "leave out --like"),
    ],
    ids=["unknown receiver", "unconfirmed re-run", "isolated"],
)
def test_wrong_usage(tmp_path, args, said):
    assert said in run(tmp_path, "", *args, code=2).output


def test_without_a_store_it_says_what_is_missing(tmp_path):
    (tmp_path / "triage.toml").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "triage", "drill", "--config", str(tmp_path / "triage.toml")],
        env={**os.environ, "TRIAGE_STATE_DIR": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Has `triage run` run with these settings?" in done.stderr
