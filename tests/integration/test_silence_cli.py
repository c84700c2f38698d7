"""``triage silence`` as a person meets it."""

import asyncio
import json
from datetime import timedelta

import make
import pytest
from click.testing import CliRunner
from past import Past, rule_set

from triage.cli import cli
from triage.clock import SystemClock

RULES = rule_set("  - {id: tell, owner: media, alert: {group_by: [function], group_wait: 5s}}\n")


@pytest.fixture
def folder(tmp_path):
    """A store with alerts of two functions, told just now."""

    async def fill():
        past = await Past.open(tmp_path / "triage.db", RULES)
        await past.clock.advance(SystemClock().now() - past.clock.now() - timedelta(hours=1))
        for name in ("img-resize", "img-crop", "pay"):
            arn = f"acs:fc:cn-hangzhou:1034:functions/{name}"
            await past.receive(make.body(f"1-{name}", arn=arn))
        await past.pass_time(timedelta(minutes=1))
        await past.close()

    asyncio.run(fill())
    return tmp_path


@pytest.fixture
def triage(folder):
    def run(*args, code=0):
        env = {"TRIAGE_STATE_DIR": str(folder), "TRIAGE_CONFIG": None}
        result = CliRunner(env=env).invoke(cli, ["silence", *args], prog_name="triage")
        assert result.exit_code == code, result.output
        return result

    return run


PERSON = ("--by", "ana", "--reason", "a deploy")


def test_a_silence_is_added_shown_and_ended(triage):
    assert triage("list").stderr == "No silence is in force.\n"
    added = triage("add", "--match", "function=img-*", "--match", "function!=img-crop", "--for", "2h", *PERSON)
    assert added.stdout.startswith("silence 1: in force until ")
    assert "img-resize" in added.stderr
    assert "img-crop" not in added.stderr
    assert "pay" not in added.stderr
    listed = triage("list").stdout
    assert "function=img-* function!=img-crop" in listed
    assert "ana" in listed
    assert "a deploy" in triage("show", "1").stdout
    assert (
        triage("expire", "1", "--by", "ben", "--reason", "done").stdout == "silence 1: ended; it kept nothing quiet\n"
    )
    assert "no silence 1 is in force" in triage("expire", "1", *PERSON, code=1).stderr
    assert triage("list").stdout == ""
    (past,) = json.loads(triage("list", "--all", "--json").stdout)
    assert past["silence"]["ended"] == "ended by ben: done"


def test_a_silence_until_resolved_is_bounded_all_the_same(triage):
    assert (
        "until resolved, at most until" in triage("add", "--match", "owner=media", "--until-resolved", *PERSON).stdout
    )
    assert "resolved, at most" in triage("list").stdout


def test_the_preview_changes_nothing(triage):
    assert "img-crop" in triage("preview", "--match", "function=img-*").stdout
    assert "Nothing that failed" in triage("preview", "--match", "function=other").stderr
    assert triage("list", "--all").stderr == "There are no silences.\n"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--match", "functoin=x", "--for", "1h"), "did you mean 'function'?"),
        (("--match", "function", "--for", "1h"), "says no value"),
        (("--match", "function=/(/", "--for", "1h"), "not a regular expression of RE2"),
        (("--match", "function=x"), "Say when it ends"),
        (("--match", "function=x", "--for", "99d"), "at most 31 days"),
        (("--match", "function=x", "--for", "1h", "--to", "defualt"), "default"),
    ],
)
def test_what_cannot_be_asked_for_is_said(triage, args, told):
    assert told in triage("add", *args, *PERSON, code=2).stderr
    assert triage("list", "--all").stdout == ""


def test_an_author_and_a_reason_are_needed(triage):
    assert "--reason" in triage("add", "--match", "function=x", "--for", "1h", "--by", "ana", code=2).stderr
    assert (
        "must say something"
        in triage("add", "--match", "function=x", "--for", "1h", "--by", " ", "--reason", "x", code=2).stderr
    )
    assert "there is no silence 7" in triage("show", "7", code=1).stderr


CONFIGURED = """
[[maintenance]]
name = "weekly"
match = {function = "img-*"}
days = ["sun"]
hours = ["02:00-04:00"]
zone = "Asia/Shanghai"
reason = "the storage is updated"

[[maintenance]]
name = "always-soon"
match = {severity = "warning", receiver = ["chat", "mail"]}
hours = ["00:00-12:00", "12:01-24:00"]
reason = "tests"
"""


def test_maintenance_that_comes_again_is_listed_and_previewed(folder, triage):
    config = folder / "triage.toml"
    config.write_text(CONFIGURED)
    listed = triage("list", "--config", str(config)).stdout
    _, head, *lines = listed.splitlines()
    assert head.split() == ["MAINTENANCE", "FROM", "UNTIL", "MATCH", "REASON"]
    assert sorted(line.split()[0] for line in lines) == ["always-soon", "weekly"]
    assert "severity=warning receiver=chat receiver=mail" in listed
    assert "the storage is updated" in listed
    found = json.loads(triage("preview", "--maintenance", "weekly", "--json", "--config", str(config)).stdout)
    assert sorted(each["labels"]["function"] for each in found) == ["img-crop", "img-resize"]
    said = triage("preview", "--maintenance", "weakly", "--config", str(config), code=2).stderr
    assert "--maintenance: none is named weakly: did you mean 'weekly'?" in said
    assert "Say what it would match" in triage("preview", code=2).stderr
