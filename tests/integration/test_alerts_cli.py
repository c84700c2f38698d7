"""``triage alerts list|show|ack|resolve`` as a person meets it."""

import asyncio
import json
import shlex
import sqlite3
from contextlib import closing
from datetime import timedelta

import make
import pytest
from click.testing import CliRunner
from past import Past, rule_set

from triage.cli import cli
from triage.clock import SystemClock

RULES = rule_set("  - {id: tell, owner: media, alert: {group_by: [function], group_wait: 5s}}\n")


def result(name, number=0, **fields):
    arn = f"acs:fc:cn-hangzhou:1034:functions/{name}"
    return make.body(f"1-{name}-{number}", arn=arn, **fields)


@pytest.fixture
def folder(tmp_path):
    """A store with two groups, told some minutes ago; of one some more has failed since."""

    async def fill():
        past = await Past.open(tmp_path / "triage.db", RULES)
        await past.clock.advance(SystemClock().now() - past.clock.now() - timedelta(hours=1))
        await past.receive(result("pay"), result("img", error="\x1b[2J"))
        await past.pass_time(timedelta(minutes=1))
        await past.receive(*(result("img", number, error="\x1b[2J") for number in range(1, 4)))
        await past.pass_time(timedelta(minutes=6))
        await past.close()

    asyncio.run(fill())
    return tmp_path


@pytest.fixture
def triage(folder):
    def run(*args, code=0):
        env = {"TRIAGE_STATE_DIR": str(folder), "TRIAGE_CONFIG": None}
        result = CliRunner(env=env).invoke(cli, args, prog_name="triage")
        assert result.exit_code == code, result.output
        assert "\x1b" not in result.output
        return result

    return run


@pytest.fixture
def groups(triage):
    return {each["group"]["labels"]["function"]: each for each in json.loads(triage("alerts", "list", "--json").stdout)}


PERSON = ("--by", "ana", "--reason", "I look at it")


def test_groups_are_listed_and_shown_by_code_or_key(triage, groups):
    listed = triage("alerts", "list").stdout.splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [
        [groups["img"]["code"], "ongoing"],
        [groups["pay"]["code"], "quiet"],
    ]
    img = groups["img"]
    for name in (img["code"], f"#{img['code']}", f"{img['code']}-2", img["group"]["key"], img["group"]["key"][:6]):
        told = triage("alerts", "show", name).stdout
        assert "4 alerts about 4 failures" in told
        assert "1 alerted, 3 suppressed" in told
        assert "first" in told
    assert json.loads(triage("alerts", "show", img["code"], "--json").stdout)["lineages"] == 4
    sums = triage("status").stdout
    assert "alert groups" in sums
    assert "ongoing" in sums


def test_who_acknowledges_a_group_is_kept_and_shown(triage, groups):
    code = groups["img"]["code"]
    assert triage("alerts", "ack", code, *PERSON).stdout == f"{code}: acknowledged by ana\n"
    assert "ana" in triage("alerts", "list").stdout
    told = triage("alerts", "show", code).stdout
    assert "by ana at" in told
    assert "ana: acknowledge: I look at it" in told
    assert "\nAll " in f"\n{triage('selfcheck').stderr}"


def test_who_says_that_it_is_over_is_kept_and_the_next_look_tells_it(triage, groups, folder):
    code = groups["pay"]["code"]
    told = f"{code}: resolved by ana; the daemon tells those who heard of it\n"
    assert triage("alerts", "resolve", code, *PERSON).stdout == told
    assert "ana: resolve: I look at it" in triage("alerts", "show", code).stdout

    async def go_on():
        past = await Past.open(folder / "triage.db", RULES)
        await past.clock.advance(SystemClock().now() - past.clock.now())
        await past.pass_time(timedelta(seconds=10))
        await past.close()

    asyncio.run(go_on())
    (sent, *_) = json.loads(triage("alerts", "show", code, "--json").stdout)["sent"]
    assert sent["payload"]["why"] == "resolved"
    assert "Resolved: ana says so: I look at it; 1 of 1 have not healed" in sent["payload"]["body"]
    refused = triage("alerts", "resolve", code, *PERSON, code=1).stderr
    assert "nobody was told of it yet, it fails at this moment, or it is over" in refused
    assert "\nAll " in f"\n{triage('selfcheck').stderr}"


def test_the_beginning_of_a_code_will_do_unless_several_begin_so(triage, groups, folder):
    img, pay = groups["img"], groups["pay"]
    for name in (img["code"][:4], f"#{img['code'][:6].upper()}", img["code"][:7]):
        assert "4 alerts about 4 failures" in triage("alerts", "show", name).stdout
    assert "img failed" in triage("alerts", "preview", img["code"][:5]).stdout
    (first,) = json.loads(triage("alerts", "show", pay["code"], "--json").stdout)["sent"]
    again = triage("alerts", "resend", pay["code"][:5], *PERSON).stdout
    assert again.startswith(f"#{pay['code']} to {first['payload']['receiver']} is sent again")

    async def clash():
        past = await Past.open(folder / "triage.db", RULES)
        await past.clock.advance(SystemClock().now() - past.clock.now())
        await past.receive(result("f-10681"), result("f-38656"))
        await past.pass_time(timedelta(seconds=30))
        await past.close()

    asyncio.run(clash())
    assert "f-10681" in triage("alerts", "show", "f291e48b").stdout  # the whole of one, though another is longer
    refused = triage("alerts", "ack", "f291", *PERSON, code=1).stderr
    assert refused.startswith("triage: f291: 2 alert groups are named so; give more of the one that is meant:\n")
    assert "f291e48b" in refused
    assert all(name in refused for name in ("f-10681", "f-38656"))
    refused = str(triage("alerts", "resend", "f291", *PERSON, code=1).exception)
    assert refused.startswith("f291: several begin so: f291e48b, f291e48b")
    assert "several begin so" in str(triage("alerts", "preview", "f291", code=1).exception)


def test_codes_of_before_keep_working(triage, groups, folder):
    old = groups["img"]["code"][:6]
    with closing(sqlite3.connect(folder / "triage.db")) as db, db:
        db.execute("UPDATE alert_groups SET code = substr(code, 1, 6), incident = json_remove(incident, '$.code')")
        db.execute("UPDATE outbox SET payload = json_set(payload, '$.code', substr(payload ->> '$.code', 1, 6))"
                   " WHERE kind = 'notify'")  # fmt: skip
        db.execute("DROP INDEX idx_outbox_code")
        db.execute("DROP INDEX idx_alert_groups_code")
        db.execute("DELETE FROM _sqlite_migrations WHERE name = 'm014_codes'")
    triage("db", "migrate")
    assert triage("alerts", "ack", old, *PERSON).stdout == f"{old}: acknowledged by ana\n"
    assert "4 alerts about 4 failures" in triage("alerts", "show", f"#{old}").stdout
    assert "ana: acknowledge" in triage("alerts", "show", old).stdout
    assert json.loads(triage("alerts", "list", "--json").stdout)[0]["code"] == old


@pytest.mark.parametrize(
    ("name", "said"), [("ffffff", "no alert group is named so"), ("", "no alert group is named so")]
)
def test_what_is_not_there_is_said(triage, name, said):
    assert said in triage("alerts", "ack", name, *PERSON, code=1).stderr
    assert said in triage("alerts", "show", name, code=1).stderr


def test_without_groups_it_says_so(tmp_path):
    async def empty():
        await (await Past.open(tmp_path / "triage.db", RULES)).close()

    asyncio.run(empty())
    env = {"TRIAGE_STATE_DIR": str(tmp_path), "TRIAGE_CONFIG": None}
    found = CliRunner(env=env).invoke(cli, ["alerts", "list"], prog_name="triage")
    assert (found.exit_code, found.stdout) == (0, "")
    assert found.stderr == "No alert group is open. --all shows the others.\n"


def test_every_command_in_a_message_works_as_it_is_pasted(triage, groups):
    """But for the person and the reason, which a terminal asks for."""
    ran = set()
    for group in groups.values():
        for sent in json.loads(triage("alerts", "show", group["code"], "--json").stdout)["sent"]:
            for line in sent["payload"]["body"].splitlines():
                label, _, command = line.partition(": triage ")
                if command:
                    person = PERSON if label == "Run again" and command.startswith("rerun") else ()
                    triage(*shlex.split(command), *person)
                    ran.add(label)
    assert ran >= {"Look", "Run again"}
