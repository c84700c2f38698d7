"""Plans on the command line: what is told before anything runs, and what is refused with words."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from make import arrived, envelope, rule, rules

from triage.changes import Commit
from triage.cli import cli
from triage.clock import SystemClock
from triage.decide import decide_batch
from triage.effects import decided
from triage.rules.model import AlertPolicy
from triage.stores.sqlite import SqliteStore


def run(folder: Path, *args: str) -> Result:
    env = {"TRIAGE_STATE_DIR": str(folder), "TRIAGE_CONFIG": None, "TRIAGE_BY": "ann"}
    return CliRunner(env=env).invoke(cli, list(args), prog_name="triage")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Thirty failures that were told just now."""

    async def fill() -> None:
        store = await SqliteStore.open(tmp_path / "triage.db")
        now = SystemClock().now()
        several = [arrived(envelope(f"1-{number:02}", error="\x1b[31mno memory"), at=now) for number in range(30)]
        chosen = rules(rule("tell", alert=AlertPolicy()))
        decisions = decide_batch(several, await store.load_facts(several), chosen, now=now)
        pairs = zip(several, decisions, strict=True)
        await store.commit(Commit(now=now, rule_set="rs", decided=tuple(decided(a, d) for a, d in pairs)))
        await store.close()

    asyncio.run(fill())
    return tmp_path


def make(state: Path, *options: str) -> str:
    result = run(state, "plan", "--filter", 'fn == "my-fc-job"', "--reason", "mended", "--json", *options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["hash"]


def test_a_plan_is_told_whole_before_anything_runs(state: Path):
    result = run(state, "plan", "--filter", 'fn == "my-fc-job"', "--reason", "mended", "--exclude", "1-07")
    assert result.exit_code == 0
    out = result.stdout
    assert "  runs again  29: my-fc-job 29" in out
    assert "  leaves out  1 excluded" in out
    assert "29 executions" in out
    assert "a guess" in out
    assert out.count(" waiting ") == 19
    assert "... and 10 more: triage plan show " in out
    every = run(state, "plan", "show", out.split()[1], "--items").stdout
    assert every.count(" waiting ") == 29
    assert "excluded: by --exclude" in every
    assert run(state, "status").stdout.count("plan") == 0, "nothing is at work"


def test_a_plan_is_applied_paused_resumed_and_cancelled_by_its_hash(state: Path):
    plan = make(state)
    said = ("--reason", "mended")
    applied = run(state, "apply", plan[:10], *said, "--threshold", "95%", "--steps", "3,9")
    assert applied.stdout.startswith(f"plan {plan[:12]} is running: 30 waiting\n")
    shown = json.loads(run(state, "plan", "show", plan[:10], "--json").stdout)
    assert (shown["state"], shown["threshold"], shown["sizes"]) == ("running", 95, [3, 9])
    assert "plans at work" in run(state, "status").stdout
    for verb, then in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        assert f"plan {plan[:12]} is {then}" in run(state, "plan", verb, plan, *said).stdout
    deeds = json.loads(run(state, "plan", "show", plan, "--json").stdout)["deeds"]
    assert [deed["action"] for deed in deeds] == ["plan", "plan apply", "plan pause", "plan resume", "plan cancel"]
    assert {deed["by"] for deed in deeds} == {"ann"}
    listed = run(state, "plan", "list").stdout.splitlines()
    assert len(listed) == 2
    assert "cancelled" in listed[1]


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["plan"], 2, "say which failures"),
        (["plan", "--filter", "  ", "--function", "*"], 2, "say which failures"),
        (["plan", "--filter", "1 < 2"], 2, "looks at nothing"),
        (["plan", "--filter", 'error.mesage == "x"'], 2, "did you mean 'error.message'?"),
        (["plan", "--filter", "fn =="], 2, "ends too early"),
        (["plan", "--group", "v1-nothing", "--reason", "x"], 1, "no failure matches"),
        (["plan", "show", "cafe"], 1, "no single plan has the hash 'cafe'"),
        (["plan", "pause", "cafe", "--reason", "x"], 1, "no single plan"),
        (["apply", "cafe", "--reason", " "], 2, "must say something"),
        (["apply", "cafe", "--reason", "x", "--threshold", "0%"], 2, "no percentage from 1% to 100%"),
        (["apply", "cafe", "--reason", "x", "--steps", "5,2"], 2, "must not shrink"),
        (["apply", "cafe", "--reason", "x", "--steps", "1,many"], 2, "no list of sizes"),
        (["apply", "cafe", "--reason", "x", "--to", "boss"], 2, "there is no receiver 'boss'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_done_is_told_in_words(state: Path, args: list[str], code: int, told: str):
    result = run(state, *args)
    output = result.output + str(result.exception or "")
    assert told in output
    assert result.exit_code == code


def test_a_plan_is_applied_once(state: Path):
    plan = make(state)
    assert run(state, "apply", plan, "--reason", "x").exit_code == 0
    again = run(state, "apply", plan, "--reason", "x")
    assert again.exit_code == 1
    assert f"plan {plan[:12]} cannot be applied: it is running" in str(again.exception)


def test_no_plans_are_told_so(state: Path):
    assert "There are no plans" in run(state, "plan", "list").stderr
