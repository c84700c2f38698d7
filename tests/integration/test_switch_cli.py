"""``triage switch`` as a person meets it."""

import asyncio
import json

import pytest
from click.testing import CliRunner

from triage.cli import cli
from triage.stores.sqlite import SqliteStore


@pytest.fixture
def triage(tmp_path):
    """Run a command on a store that is there."""

    async def make():
        await (await SqliteStore.open(tmp_path / "triage.db")).close()

    asyncio.run(make())

    def run(*args, code=0):
        env = {"TRIAGE_STATE_DIR": str(tmp_path), "TRIAGE_CONFIG": None, "USER": "alice"}
        result = CliRunner(env=env).invoke(cli, ["switch", *args], prog_name="triage")
        assert result.exit_code == code, result.output
        return result

    return run


def shown(triage, *args):
    switches = json.loads(triage("show", "--json", *args).stdout)
    return [(each["scope"], each["pattern"], each["by"], each["reason"], each["on_by"]) for each in switches]


def test_re_runs_are_stopped_and_go_on(triage):
    assert triage("show").stderr == "Nothing is switched off.\n"
    assert triage("off", "--reason", "incident").stdout == "all re-runs: switched off\n"
    assert triage("off", "--function", "img-*", "--reason", "only these", "--by", "bob").stdout == (
        "function img-*: switched off\n"
    )
    assert shown(triage) == [("function", "img-*", "bob", "only these", ""), ("all", "", "alice", "incident", "")]
    done = triage("on", "--reason", "over")
    assert done.stdout == "all re-runs: switched on\n"
    assert done.stderr.startswith("Still switched off:\n")
    assert "function img-*" in done.stderr
    assert triage("on", "--function", "img-*", "--reason", "over").stdout == "function img-*: switched on\n"
    assert shown(triage) == []
    assert [each[-1] for each in shown(triage, "--past", "9")] == ["alice", "alice"]
    assert "incident" in triage("show", "--past", "9").stdout


def test_what_is_so_already_is_said(triage):
    triage("off", "--rule", "again", "--reason", "x")
    assert "rule again: off already" in triage("off", "--rule", "again", "--reason", "y", code=1).stderr
    assert shown(triage) == [("rule", "again", "alice", "x", "")]
    assert "all re-runs: not switched off" in triage("on", "--reason", "y", code=1).stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--function", "/(/", "--reason", "x"), "is no pattern: not a regular expression"),
        (("--function", "a", "--rule", "b", "--reason", "x"), "exclude each other"),
        (("--reason", " "), "must say something"),
        ((), "Missing option '--reason'"),
    ],
)
def test_what_makes_no_sense_is_refused(triage, args, says):
    assert says in triage("off", *args, code=2).stderr
    assert shown(triage) == []


def test_hostile_texts_are_shown_escaped(triage):
    triage("off", "--reason", "\x1b[2Jgone")
    assert "\\x1b[2Jgone" in triage("show").stdout
