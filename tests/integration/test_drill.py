"""``triage drill``: all the way to a real receiver, and nothing of it is left anywhere."""

import json
from datetime import datetime

import pytest
from click.testing import CliRunner
from hooks import web_hooks

from triage.cli import cli

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
HOPS = ["invoked", "received", "decided", "approved", "re-run submitted", "result received", "told", "acknowledged"]


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
    found = json.loads(run(tmp_path, config, "--to", "ops", "--json").stdout)
    assert found["complete"]
    assert [hop["hop"] for hop in found["hops"]] == HOPS
    times = [datetime.fromisoformat(hop["at"]) for hop in found["hops"]]
    assert times == sorted(times)
    ((_, body),) = hooks.taken
    assert "DRILL" in body["title"]
    assert "This is a drill" in body["message"]
    assert not (tmp_path / "state").exists(), "the real store is not even opened"


def test_a_receiver_that_does_not_take_it_is_told_with_the_reason(tmp_path, hooks):
    config = f'[receivers.ops]\nurls = ["{hooks.url("broken")}"]\n'
    result = run(tmp_path, config, "--to", "ops", "--within", "10s", code=1)
    assert "target 1 (json): failed, HTTP 500" in result.stderr
    assert "result received" in result.stdout
    assert "told" not in result.stdout


def test_a_receiver_that_is_not_configured_is_wrong_usage(tmp_path):
    assert "did you mean 'default'?" in run(tmp_path, "", "--to", "defualt", code=2).output
