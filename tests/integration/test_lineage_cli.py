"""The story of one task as `triage lineage` tells it."""

import asyncio
import json
from datetime import timedelta

import make
import pytest
from click.testing import CliRunner

from triage.alerts.grouping import flush
from triage.changes import Changes, Commit, RowKind, Settle
from triage.cli import cli
from triage.decide import decide_batch
from triage.effects import decided
from triage.orders import Limits, Order
from triage.reactions import refused, submitted
from triage.reruns.lineage import Origin, hold_code, task_id
from triage.rules.model import HoldPolicy
from triage.stores.sqlite import SqliteStore

NOW, MINUTE = make.NOW, timedelta(minutes=1)
AGAIN = make.rules(make.rule("again", rerun=make.RERUN, alert=make.ALERT))
HOLD = make.rules(make.rule("ask", more={"hold": HoldPolicy("was it paid?")}))


async def ingest(store, *envelopes, rules, now):
    arrivals = [make.arrived(envelope, at=now) for envelope in envelopes]
    decisions = decide_batch(arrivals, await store.load_facts(arrivals), rules, now=now)
    items = tuple(decided(a, d) for a, d in zip(arrivals, decisions, strict=True))
    await store.commit(Commit(now=now, rule_set=rules.digest, decided=items))


async def act(store, kind, react, *, now):
    rows = await store.claim_due(now=now, lease=MINUTE, limit=9)
    (row,) = [row for row in rows if row.kind is kind]
    assert await store.settle(row, lambda facts: react(row, facts), now=now)


async def fill(store):
    """Two re-runs by a rule fail, a person is told and runs it a third time; and three others."""
    await ingest(store, make.envelope("1-root"), rules=AGAIN, now=NOW)
    for attempt, minutes in ((1, 3), (2, 10)):
        at = NOW + minutes * MINUTE
        request_id = f"1-child{attempt}"
        await act(store, RowKind.RERUN, lambda row, facts: submitted(row, facts, request_id=request_id, now=at), now=at)  # noqa: B023
        await ingest(store, make.envelope(request_id, error=f"boom {attempt}\x1b[2J"), rules=AGAIN, now=at + MINUTE)
    at = NOW + 20 * MINUTE
    await act(store, RowKind.FLUSH, lambda _row, facts: flush(facts, now=at), now=at)
    told = lambda row, _facts: Settle.done(delivery="sent", changes=Changes(told=((row.group, 1),)))  # noqa: E731
    await act(store, RowKind.NOTIFY, told, now=at + timedelta(seconds=1))
    order = Order(Origin.MANUAL, "kim", "mended", NOW + 40 * MINUTE)
    await store.order(["1-child2"], order, limits=Limits(), now=NOW + 30 * MINUTE)
    await ingest(store, make.envelope("2-held"), rules=HOLD, now=NOW)
    await ingest(store, make.envelope("3-gone", arn=make.ARN + "-x"), rules=AGAIN, now=NOW + 41 * MINUTE)
    await ingest(store, make.success("4-good"), rules=AGAIN, now=NOW)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("state")

    async def main():
        store = await SqliteStore.open(folder / "triage.db")
        await fill(store)
        await store.close()

    asyncio.run(main())

    def runner(*args):
        return CliRunner(env={"TRIAGE_STATE_DIR": str(folder), "TRIAGE_CONFIG": None}).invoke(cli, ["lineage", *args])

    return runner


@pytest.mark.parametrize("name", ["1-root", "1-child1", task_id("1-root", 3), task_id("1-root", 1)[:20], "1-"])
def test_every_name_of_a_lineage_tells_its_story(run, name):
    assert run(name).stdout.startswith("1-root  rerun_pending\n")


def test_every_attempt_has_its_origin_and_result(run):
    told = json.loads(run("1-root", "--json").stdout)
    assert [(each["number"], each["origin"], each["request_id"], each["result"]) for each in told["attempts"]] == [
        (0, "", "1-root", "failed"),
        (1, "automatic", "1-child1", "failed"),
        (2, "automatic", "1-child2", "failed"),
        (3, "manual", "", "planned"),
    ]
    assert told["attempts"][1]["submitted_at"] == "2026-03-01T12:03:00Z"
    assert told["attempts"][3]["due_at"] == "2026-03-01T12:40:00Z"


def test_the_story_is_told_in_the_order_of_time(run):
    told = json.loads(run("1-root", "--json").stdout)["happenings"]
    assert [each["what"] for each in told] == [
        *("failed", "decided", "submitted", "failed", "decided", "submitted", "failed", "decided"),
        *("alert", "told", "ordered", "to come"),
    ]
    texts = [each["detail"] for each in told]
    assert texts[1] == "rule again (matched): re-run 1 at 2026-03-01 12:02:00Z"
    assert texts[2] == f"re-run 1, automatic, submitted as request 1-child1; task {task_id('1-root', 1)}"
    assert texts[7] == "rule again (attempts exhausted): tell default (exhausted)"
    assert texts[8:11] == ["exhausted", "default: sent", "kim: mended"]
    assert texts[11] == "re-run 3 is due"


def test_nothing_hostile_reaches_the_terminal(run):
    told = run("1-root")
    assert "boom 2\\x1b[2J" in told.stdout
    assert "\x1b" not in told.stdout
    assert told.stdout.endswith("to come\n2026-03-01 12:40:00Z             re-run 3 is due\n")


def test_what_is_held_says_by_which_name_it_is_decided(run):
    assert f"triage approve {hold_code('2-held')}" in run("2-held").stdout


def test_a_success_that_was_never_run_again_has_a_story_too(run):
    assert run("4-good").stdout.startswith("4-good  never run again\n")


@pytest.mark.parametrize("name", ["9", "", "triage-"])
def test_a_name_that_means_none_or_several_is_told(run, name):
    done = run(name)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no single lineage" in done.stderr


def test_a_re_run_that_was_refused_says_why(tmp_path):
    async def main():
        store = await SqliteStore.open(tmp_path / "triage.db")
        await ingest(store, make.envelope("1-root"), rules=AGAIN, now=NOW)
        await act(
            store, RowKind.RERUN, lambda row, facts: refused(row, facts, note="no such function"), now=NOW + 3 * MINUTE
        )
        story = await store.story("1-root")
        await store.close()
        return story

    asyncio.run(main())
    env = {"TRIAGE_STATE_DIR": str(tmp_path), "TRIAGE_CONFIG": None}
    told = json.loads(CliRunner(env=env).invoke(cli, ["lineage", "1-root", "--json"]).stdout)
    assert (told["attempts"][1]["result"], told["attempts"][1]["detail"]) == ("refused", "no such function")
    assert "re-run 1, automatic: no such function" in [each["detail"] for each in told["happenings"]]


EVENT = '{"order": "4711"}'


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A failure that somebody runs again in the console, first in vain, then with success; and a timer's two runs."""
    folder = tmp_path_factory.mktemp("elsewhere")

    async def take(store, *envelopes, minutes):
        now = NOW + minutes * MINUTE
        arrivals = [make.arrived(envelope, at=now) for envelope in envelopes]
        snapshot = await store.load_facts(arrivals, elsewhere_since=now - 60 * MINUTE)
        items = tuple(
            decided(a, d) for a, d in zip(arrivals, decide_batch(arrivals, snapshot, AGAIN, now=now), strict=True)
        )
        await store.commit(Commit(now=now, rule_set=AGAIN.digest, decided=items))

    async def main():
        store = await SqliteStore.open(folder / "triage.db")
        await take(store, *(make.success(f"0-{n}", payload=f"another event, {n}") for n in range(4)), minutes=0)
        await take(store, make.envelope("1-root", payload=EVENT), minutes=0)
        await take(store, make.envelope("2-console", payload=EVENT), minutes=1)
        await take(store, make.success("3-console", payload=EVENT), minutes=2)
        for minute in (3, 4):
            tick = make.envelope(f"4-tick{minute}", payload='{"job": "nightly"}', arn=make.ARN + "-timer")
            await take(store, tick, minutes=minute)
        await store.close()

    asyncio.run(main())
    env = {"TRIAGE_STATE_DIR": str(folder), "TRIAGE_CONFIG": None, "COLUMNS": "200"}
    return lambda *arguments: CliRunner(env=env).invoke(cli, ["lineage", *arguments])


@pytest.mark.parametrize("name", ["1-root", "2-console", "3-console"])
def test_what_was_run_again_elsewhere_is_part_of_the_story(elsewhere, name):
    told = json.loads(elsewhere(name, "--json").stdout)
    rows = [(each["origin"], each["request_id"], each["result"]) for each in told["attempts"]]
    assert rows == [
        ("", "1-root", "failed"),
        ("automatic", "", "cancelled"),
        ("elsewhere", "2-console", "failed"),
        ("elsewhere", "3-console", "succeeded"),
    ]
    assert told["state"] == "healed"
    assert "re-run 3, made elsewhere, of my-fc-job, request 3-console" in elsewhere(name).stdout


def test_what_stays_apart_says_of_which_failure_it_may_be_a_re_run(elsewhere):
    told = elsewhere("4-tick4").stdout
    assert "apart      may be a re-run of 4-tick3 made elsewhere, but too few different events of the function" in told
