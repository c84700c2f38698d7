"""What `triage top` reads of a store, and the command without a terminal."""

import asyncio
import json
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from answering import answering
from click.testing import CliRunner
from make import NOW, RERUN, arrived, envelope, rule, rules, success

from triage.alerts.delivery import Answer, Result, Retries, notified
from triage.alerts.grouping import flush
from triage.changes import Commit, RowKind
from triage.cli import cli
from triage.cli.screen import style_of
from triage.cli.screen_text import Style
from triage.decide import decide_batch
from triage.effects import decided
from triage.reruns.breaker import Breaker, BreakerState
from triage.reruns.gate import Standing
from triage.reruns.rate import Pace
from triage.reruns.switches import Scope, Switch
from triage.rules.model import AlertPolicy
from triage.stores import standings
from triage.stores.overview import Overview, Receiver, Waiting, overview
from triage.stores.selfcheck import view
from triage.stores.sqlite import SqliteStore

MINUTE = timedelta(minutes=1)
LATER = NOW + 5 * MINUTE


async def fill(path: Path) -> None:
    """Two groups of failures, of which one is re-run and one was told of; one receiver took it, one did not."""
    store = await SqliteStore.open(path)
    again = rule("again", rerun=RERUN, condition="InvocationError")
    tell = rule("tell", alert=AlertPolicy(to=("oncall", "mail"), group_wait=timedelta(0)))
    for number in range(8):
        at = NOW + number * MINUTE / 2
        batch = [
            arrived(envelope(f"a{number}"), at=at),
            arrived(success(f"s{number}"), at=at),
            *([arrived(envelope(f"b{number}", condition="FunctionOOMError", error="no memory"), at=at)] if number < 3 else []),
        ]  # fmt: skip
        decisions = decide_batch(batch, await store.load_facts(batch), rules(again, tell), now=at)
        pairs = zip(batch, decisions, strict=True)
        await store.commit(Commit(now=at, rule_set="digest", decided=tuple(decided(a, d) for a, d in pairs)))
    for row in await store.claim_due(now=LATER - MINUTE, lease=2 * MINUTE, limit=100):
        if row.kind is RowKind.FLUSH:
            assert await store.settle(row, lambda facts: flush(facts, now=LATER - MINUTE), now=LATER - MINUTE)
    for row in await store.claim_due(now=LATER - MINUTE, lease=2 * MINUTE, limit=100):
        if row.kind is RowKind.NOTIFY:
            result = Result.SENT if row.payload["receiver"] == "oncall" else Result.FAILED
            settle = notified(row, {"0": Answer(result)}, retries=Retries(), now=LATER - MINUTE)
            assert await store.settle(row, lambda _facts, settle=settle: settle, now=LATER - MINUTE)
    await store.switch_off(Switch(Scope.FUNCTION, "x", "anna", "why", NOW))
    await store.close()


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("state")
    asyncio.run(fill(folder / "triage.db"))
    return folder


@pytest.fixture
def found(state: Path) -> Overview:
    with view(state / "triage.db") as connection:
        return overview(connection, now=LATER)


def test_the_view_tells_what_comes_in(found: Overview):
    assert (found.totals.received, found.totals.failures) == (19, 11)
    assert sum(found.minutes) == 11
    assert found.minutes[-6:] == (4, 3, 2, 2, 0, 0)
    assert found.recent == (0.0, 11.0, 11.0, 11.0)
    assert [switch.pattern for switch in found.switches] == ["x"]


def test_results_of_the_last_minute_are_counted(state: Path):
    with view(state / "triage.db") as connection:
        assert overview(connection, now=NOW + 3 * MINUTE + MINUTE / 2).results == 6  # of three half minutes, two each
        assert overview(connection, now=LATER).results == 0


def test_the_view_tells_what_waits(found: Overview):
    waiting = {each.kind: each for each in found.outbox}
    assert waiting["rerun"] == Waiting("rerun", 8, 7, 5, 0, waiting["rerun"].first)
    assert waiting["notify"].rows == 1
    assert waiting["flush"].due == 0
    assert found.gates == {}


def test_the_busiest_groups_come_first(found: Overview):
    assert [(each.condition, each.count, each.recent[1], each.state) for each in found.groups] == [
        ("InvocationError", 8, 8.0, "new"), ("FunctionOOMError", 3, 3.0, "new"),
    ]  # fmt: skip
    assert found.groups_total == 2


def test_each_receiver_has_what_became_of_its_notifications(found: Overview):
    assert found.receivers == (
        Receiver("mail", {"failed": 1}, 1, LATER - MINUTE), Receiver("oncall", {"sent": 1}, 0, LATER - MINUTE),
    )  # fmt: skip


def test_incidents_are_counted_and_those_that_somebody_has_taken(state: Path, tmp_path: Path, found: Overview):
    assert (found.incidents, found.acknowledged) == ({"new": 1}, 0)
    copy = tmp_path / "triage.db"
    copy.write_bytes((state / "triage.db").read_bytes())
    ack = {"by": "anna", "reason": "on it", "at": LATER.isoformat()}
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute(
            "UPDATE alert_groups SET incident = json_set(incident, '$.ack', json(?))", (json.dumps(ack),)
        )
    with view(copy) as connection:
        assert overview(connection, now=LATER).acknowledged == 1


def test_functions_whose_re_runs_do_not_go_come_first(state: Path, tmp_path: Path):
    copy = tmp_path / "triage.db"
    copy.write_bytes((state / "triage.db").read_bytes())
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        standings.save(connection, [
            Standing("", Pace()), Standing("calm", breaker=Breaker(ok=5)), Standing("worse", breaker=Breaker(bad=5)),
            Standing("open", breaker=Breaker(BreakerState.OPEN, until=LATER)),
        ])  # fmt: skip
        connection.execute("UPDATE outbox SET gate = 'budget', function = 'waits' WHERE kind = 'rerun' AND id % 2")
    with view(copy) as connection:
        found = overview(connection, now=LATER)
    names = [
        (each.standing.function, each.waiting) for each in found.functions if each.standing.function != "my-fc-job"
    ]
    assert names == [("open", 0), ("waits", found.gates["budget"]), ("worse", 0), ("calm", 0)]
    assert found.functions[0].standing.breaker.until == LATER


def test_looking_writes_nothing(state: Path):
    with view(state / "triage.db") as connection, closing(connection.cursor()) as cursor:
        overview(connection, now=LATER)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            cursor.execute("DELETE FROM envelopes")


def top(folder: Path, *args: str, **environ: str):
    env = {"TRIAGE_STATE_DIR": str(folder), "TRIAGE_CONFIG": None, "COLUMNS": "80", "LINES": "24", **environ}
    return CliRunner(env=env).invoke(cli, ["top", *args], prog_name="triage")


def test_one_frame_is_printed(state: Path):
    result = top(state, "--once")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) <= 24
    assert lines[1] == "daemon    not asked: it listens nowhere ([web] listen)"
    assert lines[2].startswith("received  19  ")
    assert "! function x: switched off by anna, " in result.stdout
    assert "\x1b" not in result.stdout


def test_the_daemon_is_asked_where_it_listens(state: Path):
    with answering(503, "act has not got on for 200 s\n") as address:
        for result in (
            top(state, "--once", TRIAGE_WEB__LISTEN=address),
            top(state, "--once", "--url", f"http://{address}"),
        ):
            assert f"daemon    act has not got on for 200 s ({address})" in result.stdout


def test_a_store_that_cannot_be_read_is_told(tmp_path: Path):
    (tmp_path / "triage.db").write_bytes(b"no database at all, but long enough to be taken for one" * 100)
    result = top(tmp_path, "--once")
    assert result.exit_code == 1
    assert "! store: " in result.stdout


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--interval", "10ms"], 2, "at least 100ms"),
        (["--interval", "soon"], 2, "soon"),
        (["--url", "https://x"], 2, "--url is http://HOST:PORT"),
        ([], 2, "this is no terminal; --once prints one frame"),
    ],
)
def test_wrong_usage_is_told(state: Path, args: list[str], code: int, said: str):
    result = top(state, *args)
    assert (result.exit_code, said in result.stderr) == (code, True)


def test_without_a_store_there_is_nothing_to_watch(tmp_path: Path):
    result = CliRunner(env={"TRIAGE_STATE_DIR": str(tmp_path), "TRIAGE_CONFIG": None}).invoke(cli, ["top", "--once"])
    assert "there is none yet at" in str(result.exception)
    assert not (tmp_path / "triage.db").exists()


class Terminal:
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environ", "colour"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "xterm", "NO_COLOR": ""}, True),
     ({"TERM": "dumb"}, False), ({}, False)],
)  # fmt: skip
def test_colour_is_for_terminals_that_want_it(environ: dict[str, str], colour: bool):
    assert style_of({"PYTHONUTF8": "1", **environ}, Terminal()) == Style(colour=colour, unicode=True)
