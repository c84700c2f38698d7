"""``triage report`` and the digest over a real store."""

import asyncio
import json
from datetime import timedelta
from zoneinfo import ZoneInfo

import make
import pytest
from click.testing import CliRunner
from past import Past, rule_set

from triage.changes import RowKind, Settle
from triage.cli import cli
from triage.clock import SystemClock
from triage.report import Digest
from triage.reruns.gate import Safeguards
from triage.standing import Duties, arm, standing

RULES = rule_set(
    "  - {id: again, match: {function: heals}, rerun: {max_attempts: 2, give_up_after: 1h, after: 5s}}\n"
    "  - {id: never, match: {function: nobody}, alert: {}}\n"
    "  - {id: tell, alert: {group_wait: 5s, resolved: false}}\n"
)


def arn(name):
    return f"acs:fc:cn-hangzhou:1034:functions/{name}"


@pytest.fixture
def folder(tmp_path):
    async def fill():
        past = await Past.open(tmp_path / "triage.db", RULES)
        await past.clock.advance(SystemClock().now() - past.clock.now() - timedelta(hours=1))
        await past.receive(make.body("1-a", arn=arn("heals")), make.body("1-b", arn=arn("pay")))
        await past.pass_time(timedelta(minutes=5))
        await past.close()

    asyncio.run(fill())
    return tmp_path


def run(folder, *args):
    env = {"TRIAGE_STATE_DIR": str(folder), "TRIAGE_CONFIG": None}
    result = CliRunner(env=env).invoke(cli, ["report", *args], prog_name="triage")
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_shift_is_told(folder):
    text = run(folder)
    assert "2 failures from" in text
    assert "1 × pay: InvocationError" in text
    assert "1 × heals, by 1 re-run" in text
    assert "Rules that never applied\n  never" in text
    assert "tell: 1 time" in text
    assert "Budget of re-runs\n  heals: 1 re-run, 10 left\n" in text
    assert "0 failures" in run(folder, "--since", "1m")


@pytest.mark.parametrize(("form", "sign"), [("markdown", "### Failures"), ("html", "<h3>Failures</h3>")])
def test_it_has_other_forms(folder, form, sign):
    assert sign in run(folder, "--format", form)


def test_it_can_be_read_by_programs(folder):
    found = json.loads(run(folder, "--format", "json"))
    assert (found["failures"], found["groups_total"], found["idle"]) == (2, 1, ["never"])
    assert found["spared"] == [{"function": "heals", "count": 1, "attempts": 1}]


def test_the_digest_is_a_row_that_sends_it_once_a_day(folder):
    async def scenario():
        past = await Past.open(folder / "triage.db", RULES)
        try:
            await past.clock.advance(SystemClock().now() - past.clock.now())
            duties = Duties((), Digest(("ops",), timedelta(hours=8), ZoneInfo("UTC")))
            answer = standing(duties, store=past.store, clock=past.clock, allowance=Safeguards().budget)
            await arm(past.store, duties, clock=past.clock)
            sent = []
            end = past.clock.now() + timedelta(hours=24)
            while past.clock.now() < end:
                now = past.clock.now()
                rows = await past.store.claim_due(now=now, lease=timedelta(minutes=1), limit=100)
                for row in rows:
                    if row.kind is RowKind.DIGEST:
                        await past.store.settle(row, await answer(row), now=now)
                        continue
                    if row.kind is RowKind.NOTIFY:
                        sent.append(row.payload["title"])
                    await past.store.settle(row, lambda _facts: Settle.done(), now=now)
                due = await past.store.next_due()
                await past.clock.advance(max(due - now, timedelta(0)))
            return sent
        finally:
            await past.close()

    sent = asyncio.run(scenario())
    assert len(sent) == 1
    assert sent[0].startswith("[info] triage: 2 failures, 1 healed unseen, 1 groups open #")
