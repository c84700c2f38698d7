"""``triage reruns`` as a person meets it."""

import asyncio
import json
from datetime import timedelta

import make
import pytest
from test_orders_cli import Desk

from triage.changes import Changes, NewRow, RowKind, Settle
from triage.clock import SystemClock
from triage.reactions import lost
from triage.reruns.breaker import Breaker, BreakerState
from triage.reruns.gate import Gate, Standing
from triage.rules.model import AlertPolicy, Cause
from triage.stores.sqlite import SqliteStore

# The rule does not want to hear of refused re-runs; whoever calls one back is told nevertheless.
AGAIN = make.rules(make.rule("again", rerun=make.RERUN, alert=AlertPolicy(on=frozenset({Cause.EXHAUSTED}))))
LATER = timedelta(minutes=10)
WHERE = {"name": "my-fc-job", "service": "", "qualifier": "", "region": "", "account": ""}


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path)
    desk.add(make.envelope("1-aaaa"), rules=AGAIN)
    return desk


def act(desk, react):
    """Claim the re-run; ``react`` gives what comes of it, None: the claim is kept."""

    async def once():
        now = SystemClock().now() + LATER
        store = await SqliteStore.open(desk.folder / "triage.db")
        (row,) = await store.claim_due(now=now, lease=timedelta(hours=1), limit=1)
        if react is not None:
            assert await store.settle(row, lambda facts: react(row, facts, now), now=now)
        await store.close()

    asyncio.run(once())


def at_the_breaker(row, _facts, now):
    opened = Breaker(BreakerState.OPEN, until=now + timedelta(seconds=30), pause=timedelta(seconds=30))
    wake = NewRow("wake:my-fc-job", RowKind.WAKE, now + timedelta(seconds=30), {"function": WHERE}, sooner=True)
    changes = Changes(standings=(Standing(row.function, breaker=opened),), rows=(wake,))
    return Settle.wait(Gate.BREAKER, due_at=now + timedelta(hours=5), note="its re-runs fail", changes=changes)


def listed(desk, *args):
    return json.loads(desk("reruns", "list", "--json", *args).stdout)


def test_what_is_planned_is_listed_with_when(desk):
    (row,) = listed(desk)
    assert (row["standing"], row["attempt"], row["rule"]) == ("planned", 1, "again")
    assert "planned  my-fc-job  1 automatic  1-aaaa" in desk("reruns", "list").stdout
    assert listed(desk, "--function", "other*") == listed(desk, "--rule", "x*") == []
    assert listed(desk, "--rule", "ag*") == [row]


def test_who_waits_is_shown_with_gate_reason_and_when_it_is_looked_at_again(desk):
    act(desk, at_the_breaker)
    (row,) = listed(desk, "--gate", "breaker")
    assert (row["standing"], row["note"]) == ("waits: breaker", "its re-runs fail")
    assert row["next_at"] < row["due_at"]
    text = desk("reruns", "show", "1-a").stdout
    assert "waits: breaker" in text
    assert "breaker  open; the next probe is at" in text
    assert "1 wait for breaker or budget" in text
    told = json.loads(desk("status", "--json").stdout)
    assert (told["gates"], told["breakers"]) == ({"breaker": 1}, {"open": 1})
    assert "waiting at a gate              1" in desk("status").stdout


def test_whoever_waits_at_a_switch_has_no_next_time(desk):
    assert desk("reruns", "pause", "--function", "my-*", "--reason", "a deploy").exit_code == 0
    act(desk, lambda _row, _facts, now: Settle.wait(Gate.SWITCH, due_at=now + LATER, note="off"))
    (row,) = listed(desk)
    assert (row["standing"], row["next_at"]) == ("waits: switch", None)
    assert "Switched off: function my-*, by lee at" in desk("reruns", "list").stderr
    assert "re-runs SWITCHED OFF   function my-* since" in desk("status").stdout
    assert desk("reruns", "resume", "--function", "my-*", "--reason", "done").exit_code == 0
    assert "Nothing is switched off." in desk("switch", "show").stderr
    assert listed(desk)[0]["gate"] is None


@pytest.mark.parametrize("before", [None, at_the_breaker])
def test_a_re_run_that_is_called_back_is_told(desk, before):
    if before:
        act(desk, before)
    done = desk("reruns", "cancel", "1-aa", "--reason", "the order is paid", "--by", "kim")
    assert (done.exit_code, done.stdout) == (0, "1-aa: will not be run again; it is told\n")
    assert desk.rows("SELECT state FROM lineages") == [("alerting",)]
    assert desk.rows("SELECT cause, detail FROM alerts") == [("refused", "cancelled by kim: the order is paid")]
    assert desk.rows("SELECT by, action, reason FROM deeds") == [("kim", "cancel", "the order is paid")]
    assert listed(desk) == []
    again = desk("reruns", "cancel", "1-aaaa", "--reason", "x")
    assert again.exit_code == 1
    assert "no re-run of it is to come" in again.stderr
    assert "broken" not in desk("selfcheck", "--quick").stdout
    assert desk("rerun", "1-aaaa", "--reason", "after all").exit_code == 0


@pytest.mark.parametrize(
    ("react", "standing"),
    [(None, "submitting"), (lambda row, facts, now: lost(row, facts, note="no answer", now=now), "unknown")],
)
def test_what_may_have_been_submitted_is_not_called_back(desk, react, standing):
    act(desk, react)
    assert listed(desk)[0]["standing"] == standing
    done = desk("reruns", "cancel", "1-aaaa", "--reason", "x")
    assert done.exit_code == 1
    assert "it is being submitted, or may have been" in done.stderr
    assert listed(desk)[0]["standing"] == standing
    assert desk.rows("SELECT count(*) FROM deeds") == [(0,)]


def test_what_is_not_there_is_said(desk):
    assert desk("reruns", "show", "1-zzz").exit_code == 1
    assert desk("reruns", "list", "--gate", "door").exit_code == 2
    assert desk("reruns", "list", "--function", "other").stderr == "No re-run is to come.\n"


def test_those_that_were_given_up_are_listed_with_why(desk):
    assert desk("reruns", "list", "--given-up").stderr == "No re-run was given up.\n"
    desk.add(make.envelope("1-bbbb"), rules=AGAIN)
    assert desk("reruns", "cancel", "1-aaaa", "--reason", "not worth it", "--by", "ana").exit_code == 0
    (row,) = listed(desk, "--given-up")
    assert (row["request_id"], row["standing"], row["next_at"]) == ("1-aaaa", "given up", None)
    assert row["ended_at"] is not None
    table = desk("reruns", "list", "--given-up").stdout
    assert "given up  my-fc-job  1 automatic  1-aaaa      cancelled by ana: not worth it" in table
    assert [row["request_id"] for row in listed(desk)] == ["1-bbbb"]
