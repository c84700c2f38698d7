"""What a person does about failures on the command line: run again, approve, reject."""

import asyncio
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import make
import pytest
from click.testing import CliRunner

from triage.changes import Commit
from triage.cli import cli
from triage.clock import SystemClock
from triage.decide import decide_batch
from triage.effects import decided
from triage.reruns.lineage import hold_code, task_id
from triage.rules.model import HoldPolicy
from triage.stores.sqlite import SqliteStore

HOLD = make.rules(make.rule("ask", more={"hold": HoldPolicy("was it paid?")}))
TELL = make.rules()
WHY = ("--reason", "mended")


@dataclass
class Desk:
    """The command line at a store."""

    folder: Path

    def __call__(self, *args, **environ):
        people = dict.fromkeys(("TRIAGE_BY", "SUDO_USER", "USER", "LOGNAME", "LNAME", "USERNAME"))
        env = {"TRIAGE_STATE_DIR": str(self.folder), "TRIAGE_CONFIG": None, **people, "LOGNAME": "lee", **environ}
        return CliRunner(env=env).invoke(cli, args, prog_name="triage")

    def add(self, *envelopes, rules=TELL):
        async def fill():
            now = SystemClock().now()  # the command line knows no other
            store = await SqliteStore.open(self.folder / "triage.db")
            arrivals = [make.arrived(envelope, at=now) for envelope in envelopes]
            decisions = decide_batch(arrivals, await store.load_facts(arrivals), rules, now=now)
            items = tuple(decided(a, d) for a, d in zip(arrivals, decisions, strict=True))
            await store.commit(Commit(now=now, rule_set="", decided=items))
            await store.close()

        asyncio.run(fill())

    def rows(self, sql):
        with sqlite3.connect(self.folder / "triage.db") as connection:
            return connection.execute(sql).fetchall()


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path)
    desk.add(make.envelope("1-aaaa"), make.envelope("1-abbb"), rules=HOLD)
    desk.add(make.envelope("1-cccc"), make.success("1-good"))
    return desk


# ---------------------------------------------------------------- rerun


@pytest.mark.parametrize("request_id", ["1-cccc", "1-good", "1-aaaa", "1-g"])
def test_whatever_became_of_a_task_it_is_run_again(desk, request_id):
    done = desk("rerun", request_id, "--reason", "mended", "--json")
    assert done.exit_code == 0, done.stderr
    planned = json.loads(done.stdout)
    assert planned["request_id"].startswith(request_id)
    assert (planned["attempt"], planned["origin"], planned["by"], planned["reason"]) == (1, "manual", "lee", "mended")
    kinds = desk.rows(f"SELECT kind, state FROM outbox WHERE key = '{planned['task_id']}'")
    assert kinds == [("rerun", "pending")]
    assert desk.rows("SELECT by, action, reason FROM deeds") == [("lee", "rerun", "mended")]


def test_it_says_when_and_what(desk):
    done = desk("rerun", "1-cccc", "--after", "10m", "--qualifier", "canary", "--by", "kim", "--reason", "v2 has it")
    assert done.stdout.startswith("1-cccc: will be run again not before 20")
    assert done.stdout.endswith("Z, as re-run 1, by my-fc-job:canary\n")
    assert desk("rerun", "1-good", *WHY).stdout == "1-good: will be run again now, as re-run 1, by my-fc-job\n"
    assert desk.rows("SELECT by, reason FROM deeds ORDER BY id") == [
        ("kim", "v2 has it"),
        ("lee", "mended"),
    ]


def test_it_says_that_it_waits_for_what_is_switched_off(desk):
    desk("switch", "off", "--function", "my-fc-*", "--by", "ana", "--reason", "a bucket moves")
    done = desk("rerun", "1-cccc", *WHY)
    assert done.exit_code == 0
    assert done.stdout == "1-cccc: will be run again now, as re-run 1, by my-fc-job\n"
    assert done.stderr.startswith("triage: it waits until that is switched on again: function my-fc-*, by ana at 20")
    assert done.stderr.endswith("Z: a bucket moves.\n")
    desk("switch", "on", "--function", "my-fc-*", "--by", "ana", "--reason", "it has moved")
    desk("switch", "off", "--function", "other", "--by", "ana", "--reason", "another one")
    assert desk("rerun", "1-good", *WHY).stderr == ""


def test_a_second_order_is_refused_with_the_reason(desk):
    assert desk("rerun", "1-cccc", *WHY).exit_code == 0
    again = desk("rerun", "1-cccc", *WHY, "--json")
    assert again.exit_code == 1
    assert json.loads(again.stdout)["refused"] == "under_way"
    assert again.stderr == "triage: 1-cccc: not run again: re-run 1 is planned already.\n"
    by_task = desk("rerun", task_id("1-cccc", 1), *WHY)
    assert by_task.stderr.endswith("not run again: re-run 1 is planned already.\n")


@pytest.mark.parametrize(
    ("args", "environ", "says"),
    [
        (["1-"], {}, "1-: not run again: nothing is stored under this request id, or several begin so"),
        (["2-no"], {}, "2-no: not run again: nothing is stored under this request id"),
        (["1-cccc", "--after", "2d"], {"TRIAGE_RERUNS__GIVE_UP_AFTER": "1d"}, "too long before"),
    ],
)
def test_what_cannot_be_run_again_is_refused(desk, args, environ, says):
    done = desk("rerun", *args, *WHY, **environ)
    assert (done.exit_code, done.stdout) == (1, "")
    assert says in done.stderr
    assert desk.rows("SELECT count(*) FROM deeds") == [(0,)]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["1-cccc", "--after", "soon"], "expected a duration"),
        (["1-cccc", "--by", " ", *WHY], "must say something"),
        (["1-cccc", "--reason", ""], "must say something"),
        ([], "Missing argument"),
    ],
)
def test_a_wrong_order_is_a_usage_error(desk, args, says):
    done = desk("rerun", *args)
    assert done.exit_code == 2
    assert says in done.stderr


@pytest.mark.parametrize(
    ("environ", "name"),
    [({}, "lee"), ({"SUDO_USER": "sam", "LOGNAME": "root"}, "sam"), ({"TRIAGE_BY": "bot", "SUDO_USER": "sam"}, "bot")],
)
def test_who_says_so_is_the_login_name_unless_told(desk, environ, name):
    desk("rerun", "1-cccc", *WHY, **environ)
    assert desk.rows("SELECT by FROM deeds") == [(name,)]


@pytest.mark.parametrize(
    "args",
    [
        ["rerun", "1-cccc"],
        ["approve", "1-aaaa"],
        ["reject", "1-aaaa"],
        ["failures", "release", "1-aaaa", "--rerun"],
        ["reruns", "cancel", "1-aaaa"],
        ["reruns", "pause"],
        ["reruns", "resume"],
        ["switch", "off"],
        ["switch", "on"],
        ["plan", "--filter", 'fn == "my-fc-job"'],
        ["plan", "pause", "cafe"],
        ["plan", "resume", "cafe"],
        ["plan", "cancel", "cafe"],
        ["apply", "cafe"],
        ["alerts", "ack", "cafe"],
        ["alerts", "resolve", "cafe"],
        ["alerts", "resend", "--dead"],
        ["silence", "add", "--match", "function=x", "--for", "1h"],
        ["silence", "expire", "1"],
    ],
    ids=" ".join,
)
def test_a_script_that_gives_no_reason_changes_nothing(desk, args):
    before = desk.rows("SELECT (SELECT count(*) FROM deeds), (SELECT group_concat(state) FROM lineages)")
    done = desk(*args)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Missing option '--reason': say why" in done.stderr
    assert desk.rows("SELECT (SELECT count(*) FROM deeds), (SELECT group_concat(state) FROM lineages)") == before
    assert desk.rows("SELECT (SELECT count(*) FROM switches) + (SELECT count(*) FROM silences)") == [(0,)]


# ---------------------------------------------------------------- approve, reject


@pytest.mark.parametrize("name", [hold_code("1-aaaa"), hold_code("1-aaaa").upper(), f"#{hold_code('1-aaaa')}", "1-aa"])
@pytest.mark.parametrize(("command", "state"), [("approve", "rerun_pending"), ("reject", "ignored")])
def test_a_held_failure_is_decided_by_its_code_or_request_id(desk, command, state, name):
    done = desk(command, name, "--reason", "it was not")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("1-aaaa: ")
    assert desk.rows("SELECT state FROM lineages WHERE root = '1-aaaa'") == [(state,)]
    assert desk.rows("SELECT by, action, reason, root FROM deeds") == [("lee", command, "it was not", "1-aaaa")]
    again = desk(command, name, *WHY)
    assert again.exit_code == 1
    assert desk.rows("SELECT count(*) FROM deeds") == [(1,)]


def test_the_code_is_where_the_failure_is_shown(desk):
    code = hold_code("1-aaaa")
    assert f"held {code}" in desk("failures", "list").stdout
    assert desk("failures", "show", "1-aa").stdout.splitlines()[0] == f"1-aaaa  held {code}"
    listed = {row["request_id"]: row["code"] for row in json.loads(desk("failures", "list", "--json").stdout)}
    assert listed == {"1-aaaa": code, "1-abbb": hold_code("1-abbb"), "1-cccc": ""}


def test_several_are_decided_and_each_that_cannot_be_is_told(desk):
    done = desk("failures", "release", "1-aaaa", "1-cc", "1-a", "1-ab", "--ignore", "--reason", "known")
    assert done.exit_code == 1
    assert done.stdout.splitlines() == ["1-aaaa: ignored", "1-abbb: ignored"]
    assert done.stderr.splitlines() == [
        "triage: 1-cccc: it is not held: it is alerting.",
        "triage: 1-a: no held failure has this code, and no single failure this request id.",
    ]


def test_a_code_that_names_several_decides_about_none(desk):
    """Two roots whose codes begin alike, found by trying; and a request id that is another one's code."""
    seen = {}
    first, second = next(
        (seen[code], name)
        for name in map("r{}".format, range(200_000))
        if (code := hold_code(name)[:6]) in seen or seen.setdefault(code, name) != name
    )
    desk.add(make.envelope(first), make.envelope(second), rules=HOLD)
    done = desk("approve", hold_code(first)[:6], *WHY, "--json")
    assert done.exit_code == 1
    assert f"{hold_code(first)} ({first}), {hold_code(second)} ({second}); give more of the code" in done.stderr
    assert json.loads(done.stdout)[0]["refused"].startswith("this names several")
    assert desk("approve", first, *WHY).exit_code == 0
    assert desk("reject", hold_code(second)[:7], *WHY).stdout == f"{second}: ignored\n"

    desk.add(make.envelope(hold_code("1-abbb")))
    assert "this names several" in desk("reject", hold_code("1-abbb"), *WHY).stderr


def test_open_ends_are_listed_and_all_shows_the_rest(desk):
    assert desk("reject", "1-aaaa", "1-abbb", *WHY).exit_code == 0
    listed = desk("failures", "list").stdout
    assert ("1-cccc" in listed, "1-aaaa" in listed) == (True, False)
    assert "1-aaaa" in desk("failures", "list", "--all").stdout
    assert "1-aaaa" in desk("failures", "list", "--state", "ignored").stdout
    none = desk("failures", "list", "--function", "other")
    assert none.stderr == "No open failures match. --all shows the others.\n"
    assert desk("failures", "list", "--all", "--function", "other").stderr == "No failures match.\n"
