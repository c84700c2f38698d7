"""``triage receivers`` and ``triage alerts resend`` as a person meets them."""

import asyncio
import json
from datetime import timedelta

import make
import pytest
from click.testing import CliRunner
from hooks import web_hooks
from letters import post_office
from past import Past, rule_set

from triage.alerts.delivery import Answer, Result
from triage.cli import cli
from triage.clock import SystemClock

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
RULES = rule_set("  - {id: tell, alert: {to: [ops], group_by: [function], group_wait: 5s, resolved: false}}\n")
CONFIG = """
[receivers.ops]
urls = ["{0}"]
min_severity = "warning"
quiet_hours = "22:00-07:00"
quiet_zone = "Asia/Shanghai"
rate = "10/1h"
fallback = "deputy"

[receivers.deputy]
urls = ["console:"]
"""


SECRET = "T0kenThatMustNotBeSeen"


@pytest.fixture
def hooks():
    with web_hooks() as server:
        yield server


class Deaf:
    async def send(self, note, *, skip=frozenset()):
        return {"x": Answer(Result.FAILED, "target 1 (json)", "HTTP 500")}


@pytest.fixture
def triage(tmp_path, hooks):
    def run(*args, code=0):
        (tmp_path / "triage.toml").write_text(CONFIG.format(hooks.url(f"ok/{SECRET}")))
        env = {"TRIAGE_STATE_DIR": str(tmp_path), "TRIAGE_CONFIG": str(tmp_path / "triage.toml")}
        result = CliRunner(env=env).invoke(cli, args, prog_name="triage")
        assert result.exit_code == code, result.output
        assert SECRET not in result.output
        return result

    return run


@pytest.fixture
def dead(tmp_path):
    """A message that ``ops`` did not take for a day."""

    async def fill():
        past = await Past.open(tmp_path / "triage.db", RULES, notifier=Deaf())
        await past.clock.advance(SystemClock().now() - past.clock.now() - timedelta(hours=30))
        await past.receive(make.body("1-a"))
        await past.pass_time(timedelta(hours=25))
        await past.close()

    asyncio.run(fill())


def test_receivers_are_listed_with_what_they_want_and_how_it_went(triage, dead):
    listed = triage("receivers", "list").stdout
    assert "json://127.0.0.1:" in listed
    assert "warning and worse, quiet 22:00-07:00 Asia/Shanghai, at most 10/1h, else deputy" in listed
    assert "ops: target 1 (json): failed, HTTP 500" in listed
    rows = {row["name"]: row for row in json.loads(triage("receivers", "list", "--json").stdout)}
    assert (rows["ops"]["last"], rows["ops"]["dead"], rows["deputy"]["dead"]) == ("dead", 1, 0)


def test_a_message_that_was_given_up_is_seen_and_sent_again(triage, dead, tmp_path):
    (row,) = json.loads(triage("receivers", "dead", "--json").stdout)
    assert row["title"].endswith(f"#{row['code']}")
    assert "Count: 1" in row["body"]
    assert row["code"] in triage("receivers", "dead", "ops").stdout
    assert triage("receivers", "dead", "deputy").stderr == "No message was given up.\n"
    person = ("--by", "ana", "--reason", "mended")
    assert f"#{row['code']} to ops is sent again" in triage("alerts", "resend", f"#{row['code']}", *person).stdout
    assert triage("receivers", "dead").stderr == "No message was given up.\n"
    assert "no message was given up" in triage("alerts", "resend", "--dead", *person, code=1).stderr
    rows = {row["name"]: row for row in json.loads(triage("receivers", "list", "--json").stdout)}
    assert rows["ops"]["open"] == 1


def test_which_ones_must_be_said(triage):
    assert "Say which" in triage("alerts", "resend", "--by", "ana", "--reason", "x", code=2).output


def test_receivers_are_tried_with_a_marked_message(triage, hooks):
    shown = triage("receivers", "test", "ops").stdout
    assert "sent" in shown
    ((_, body),) = hooks.taken
    assert (body["title"], body["type"]) == ("[info] triage: a test of receiver ops", "info")
    assert "did you mean 'ops'?" in triage("receivers", "test", "opps", code=2).output


def test_one_that_does_not_take_it_is_a_failure(tmp_path, hooks):
    with post_office() as post:
        config = f'[receivers.ops]\nurls = ["{hooks.url("broken")}", "{post.url}"]\n'
        (tmp_path / "triage.toml").write_text(config)
        env = {"TRIAGE_STATE_DIR": str(tmp_path), "TRIAGE_CONFIG": str(tmp_path / "triage.toml")}
        result = CliRunner(env=env).invoke(cli, ["receivers", "test", "ops", "--json"])
    assert result.exit_code == 1
    rows = [(row["address"].partition(":")[0], row["result"], row["detail"]) for row in json.loads(result.stdout)]
    assert rows == [("json", "failed", "HTTP 500"), ("mailto", "sent", "")]
    assert len(post.taken) == 1
