"""``triage rules``: the commands that look into the past, as a person meets them."""

import asyncio
import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from make import ARN, body
from past import Past, rule_set

from triage.cli import cli, tell
from triage.errors import TriageError
from triage.rules.owners import owned
from triage.silence import Silence

TEXT = """
  - id: oom
    match: {condition: FunctionOOMError}
    alert: {to: default, severity: critical}
  - id: noisy
    match: {function: my-*}
    ignore: noise
    mode: shadow
  - id: held
    match: {function: pay-*}
    hold: ask finance
    alert: {to: default, on: [held]}
  - id: again
    match: {function: my-*}
    rerun: {after: 1m, max_attempts: 1}
  - id: rest
    alert: {}
"""
HEAD = "version: 1\nrules:\n"


def run(folder: Path, *args: str, stdin: bytes | None = None) -> Result:
    env = {"TRIAGE_STATE_DIR": str(folder), "TRIAGE_RULES": str(folder / "rules"), "TRIAGE_CONFIG": None}
    result = CliRunner(env=env).invoke(cli, ["rules", *args], prog_name="triage", input=stdin)
    if isinstance(result.exception, TriageError):
        tell(result.exception)  # as `main` would; it must be told in words
    return result


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder: one failure that was re-run in vain, one held, one alerted, one success; and their rules."""
    folder = tmp_path_factory.mktemp("state")
    (folder / "rules").mkdir()
    (folder / "rules" / "rules.yaml").write_text(HEAD + TEXT)

    async def fill() -> None:
        past = await Past.open(folder / "triage.db", rule_set(TEXT), outcomes=(False,))
        await past.receive(
            body("1-aaaa"),
            body("1-bbbb", arn=ARN.replace("my-fc", "pay")),
            body("1-cccc", condition="FunctionOOMError", error="\x1b[31mout of memory"),
            body("1-dddd", condition=""),
        )
        await past.pass_time(timedelta(hours=1))
        await past.close()

    asyncio.run(fill())
    return folder


# --- explain ---------------------------------------------------------------------------------------------------------


def test_explain_tells_of_each_rule_and_of_the_gates(state):
    result = run(state, "explain", "1-aaaa")
    assert result.exit_code == 0
    lines = {
        line.split()[1]: " ".join(line.split()[2:]) for line in result.stdout.splitlines() if "rules.yaml:" in line
    }
    assert lines == {
        "oom": "failed condition: FunctionOOMError (it is 'InvocationError')",
        "noisy": "shadow matches, and does nothing in shadow mode",
        "held": "failed function: pay-* (it is 'my-fc-job')",
        "again": "matched -",
        "rest": "not asked would match, too",
    }
    assert "attempts  open    re-run 1 of 1" in result.stdout
    assert "in shadow mode: noisy would ignore" in result.stdout
    assert f"decided then by rules {rule_set(TEXT).digest[:12]}, 2026-03-01 12:00:00Z" in result.stdout


@pytest.mark.parametrize(
    ("request_id", "expected"),
    [
        ("fake-1", "again (attempts_exhausted): alert default (exhausted)"),
        ("1-bbbb", "held: hold until 2026-03-02 12:00:00Z: ask finance, alert default (held)"),
        ("1-cc", "oom: alert default"),
        ("1-dddd", "(succeeded): nothing"),
    ],
)
def test_explain_works_for_whatever_was_decided(state, request_id, expected):
    result = run(state, "explain", request_id)
    assert result.exit_code == 0
    assert f"  {expected}\n" in result.stdout
    assert "\x1b" not in result.stdout
    story = json.loads(run(state, "explain", request_id, "--json").stdout)
    assert story["as_recorded"] is True
    assert story["decision"] == story["recorded"]


def test_explain_asks_what_if(state, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(HEAD + "  - id: calm\n    ignore: calm down\n")
    result = run(state, "explain", "1-aaaa", "--rules", str(other))
    assert result.exit_code == 0
    assert "  calm: ignore\n  recorded: again: re-run 1" in result.stdout
    assert json.loads(run(state, "explain", "1-aaaa", "--rules", str(other), "--json").stdout)["as_recorded"] is False


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder in which one silence came before what it keeps quiet, and one after it, yet before it was told."""
    folder = tmp_path_factory.mktemp("quiet")
    text = """
  - id: both
    match: {function: pay-*}
    alert: {to: [ops, default]}
  - id: tell
    alert: {to: default}
"""
    (folder / "rules").mkdir()
    (folder / "rules" / "rules.yaml").write_text(HEAD + text)

    async def fill() -> None:
        past = await Past.open(folder / "triage.db", rule_set(text))

        async def silence(by: str, reason: str, hours: int, **match: str) -> None:
            now = past.clock.now()
            new = Silence(0, match, by, reason, now, now + timedelta(hours=hours))
            await past.store.add_silence(new, warn_before=timedelta(0))

        await silence("ana", "a deploy", 1, function="my-*")
        await past.receive(
            body("1-aaaa"),
            body("1-bbbb", arn=ARN.replace("my-fc", "pay")),
            body("1-cccc", arn=ARN.replace("my-", "x-")),
        )
        await past.pass_time(timedelta(seconds=1))
        await silence("bo", "known", 2, function="x-*")
        await silence("cy", "night", 2, function="pay-*", receiver="ops")
        await past.pass_time(timedelta(minutes=30))
        await past.close()

    asyncio.run(fill())
    return folder


@pytest.mark.parametrize(
    ("request_id", "expected"),
    [
        ("1-aaaa", "silenced by silence 1 (ana: a deploy) until 2026-03-01 13:00:00Z, and told to default at its end"),
        ("1-bbbb", "silenced by silence 3 (cy: night) until 2026-03-01 14:00:01Z, and told to ops at its end"),
        ("1-cccc", "silenced by silence 2 (bo: known) until 2026-03-01 14:00:01Z, and told to default at its end"),
    ],
)
def test_explain_names_the_silence_that_kept_an_alert_quiet(quiet, request_id, expected):
    result = run(quiet, "explain", request_id)
    assert result.exit_code == 0
    assert f"  silence  closed  {expected}\n" in result.stdout
    gates = json.loads(run(quiet, "explain", request_id, "--json").stdout)["gates"]
    assert [gate["why"] for gate in gates if gate["gate"] == "silence"] == [expected]


def test_the_story_of_a_silenced_failure_names_the_silence(quiet):
    env = {"TRIAGE_STATE_DIR": str(quiet), "TRIAGE_CONFIG": None}
    told = CliRunner(env=env).invoke(cli, ["lineage", "1-cccc"]).stdout
    assert "failed (silence 2 kept it from everybody)" in told
    shown = [
        line.split() for line in CliRunner(env=env).invoke(cli, ["failures", "show", "1-cccc"]).stdout.splitlines()
    ]
    head = shown.index(["AT", "CAUSE", "REQUEST_ID", "FLUSH", "SILENCE", "DETAIL"])
    assert shown[head + 1][-2:] == ["2", "-"]
    assert "kept it" not in CliRunner(env=env).invoke(cli, ["lineage", "1-bbbb"]).stdout, "one receiver was told"


def test_explain_asks_what_a_silence_would_say_of_other_rules_and_of_a_message_in_a_file(quiet, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(HEAD + "  - id: calm\n    alert: {to: [oncall]}\n")
    result = run(quiet, "explain", "1-aaaa", "--rules", str(other))
    assert (
        "silenced by silence 1 (ana: a deploy) until 2026-03-01 13:00:00Z, and told to oncall at its end"
        in result.stdout
    )
    (tmp_path / "message.json").write_bytes(body("new"))
    assert "silence" not in run(quiet, "explain", str(tmp_path / "message.json")).stdout, "it is over"


OWNED = """
  - {id: media, owner: media, match: {function: my-*}, alert: {}}
  - {id: rest, alert: {to: default}, owner: ops}
"""
OWNERS = """
[receivers.chat]
urls = ["console:"]
[receivers.phone]
urls = ["console:"]
[owners]
media = ["%s"]
"""


@pytest.mark.parametrize(("now", "later"), [("chat", "chat"), ("phone", "chat")])
def test_explain_and_the_backtest_know_whom_owners_alerts_went_to(tmp_path, now, later):
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rules.yaml").write_text(HEAD + OWNED)
    config = tmp_path / "triage.toml"
    config.write_text(OWNERS % now)

    async def fill() -> None:
        past = await Past.open(tmp_path / "triage.db", owned(rule_set(OWNED), {"media": ("chat",)}))
        await past.receive(body("1-aaaa"), body("1-bbbb", arn=ARN.replace("my-fc", "pay")))
        await past.close()

    asyncio.run(fill())
    told = run(tmp_path, "explain", "1-aaaa", "--config", str(config))
    assert told.exit_code == 0, told.output
    assert f"owner media: alerts go to {later}, as [owners] says" in told.stdout
    assert f"{later} told now" in told.stdout
    assert "owner ops: alerts go to default, by the rule" in run(tmp_path, "explain", "1-bbbb").stdout
    found = json.loads(run(tmp_path, "explain", "1-aaaa", "--json", "--config", str(config)).stdout)
    assert (found["owner"], found["receivers"], found["as_recorded"]) == ("media", ["chat"], True)

    other = tmp_path / "other.yaml"
    other.write_text(HEAD + OWNED.replace("default", "phone"))
    changed = run(tmp_path, "backtest", "--rules", str(other), "--config", str(config))
    assert changed.exit_code == 0, changed.output
    assert "DEFECT" not in changed.output
    assert "changed    1" in changed.stdout
    assert re.search(r"  rest +rest +1 +-1 alerts to default, \+1 alerts to phone +ops\n", changed.stdout)


def test_explain_takes_a_message_that_was_never_received(state, tmp_path):
    (tmp_path / "message.json").write_bytes(body("new", arn=ARN.replace("my-fc", "pay")))
    for result in (
        run(state, "explain", str(tmp_path / "message.json")),
        run(state, "explain", "-", stdin=(tmp_path / "message.json").read_bytes()),
    ):
        assert result.exit_code == 0
        assert "held: hold until" in result.stdout
    (tmp_path / "bad.json").write_text("{}")
    assert str(run(state, "explain", str(tmp_path / "bad.json")).exception).startswith("schema at $.requestContext")


def test_explain_gives_a_message_in_a_file_the_labels_of_its_function(state, tmp_path):
    (tmp_path / "triage.toml").write_text(
        f'state_dir = "{state}"\nrules = "rules.yaml"\n[[labels]]\nfunction = "my-*"\nset = {{team = "media"}}\n'
    )
    (tmp_path / "rules.yaml").write_text(HEAD + "  - id: media\n    match: {labels: {team: media}}\n    alert: {}\n")
    (tmp_path / "message.json").write_bytes(body("new"))
    result = CliRunner().invoke(
        cli, ["rules", "explain", str(tmp_path / "message.json"), "--config", str(tmp_path / "triage.toml")]
    )
    assert "  media: alert default\n" in result.stdout


def test_explain_says_what_it_does_not_find(state):
    result = run(state, "explain", "nope")
    assert result.exit_code == 1
    assert "no file and no single stored result is named 'nope'" in result.stderr


def test_explain_and_backtest_report_a_decision_that_cannot_be_repeated(state, tmp_path):
    (tmp_path / "triage.db").write_bytes((state / "triage.db").read_bytes())
    with sqlite3.connect(tmp_path / "triage.db") as db:
        db.execute("UPDATE decisions SET reason = 'no_rule', rule_id = '' WHERE request_id = '1-cccc'")
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rules.yaml").write_text(HEAD + TEXT)
    explained = run(tmp_path, "explain", "1-cccc")
    assert explained.exit_code == 1
    assert "DEFECT" in explained.stderr
    tested = run(tmp_path, "backtest")
    assert tested.exit_code == 1
    assert "DEFECT: 1 decision was not given again" in tested.stderr
    assert "1-cccc  recorded (no_rule): alert default, now oom: alert default" in tested.stderr
    assert json.loads(run(tmp_path, "backtest", "--json").stdout)["defects"]["decisions"] == 1


# --- backtest --------------------------------------------------------------------------------------------------------


def test_backtest_of_unchanged_rules_changes_nothing(state):
    result = run(state, "backtest")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "covered    5 results of 4 invocations, 2026-03-01 12:00:00Z to 2026-03-01 12:01:10Z, decided by 1 rule set",
        "unchanged  5",
        "changed    0",
    ]


def test_backtest_tells_what_would_change(state, tmp_path):
    other = tmp_path / "rules.yaml"
    other.write_text(HEAD + TEXT.replace("rerun: {after: 1m, max_attempts: 1}", "alert: {}"))
    result = run(state, "backtest", "--rules", str(other))
    assert result.exit_code == 0
    assert "re-runs            1       0      -1" in result.stdout
    assert "again   again                          1          +1 alerts to default, -1 re-runs" in result.stdout
    assert "1 chain of re-runs would have ended earlier; 0 of them succeeded in the end" in result.stdout
    assert "again: re-run 1 at" in result.stdout
    assert "and 1 more; --limit shows more" in run(state, "backtest", "--rules", str(other), "--limit", "1").stdout


def test_backtest_chooses(state, tmp_path):
    def covered(*args: str) -> int:
        return json.loads(run(state, "backtest", "--json", *args).stdout)["covered"]["envelopes"]

    assert covered("--filter", "function=pay*") == 1
    assert covered("--filter", "rule=again", "--filter", "condition=Invocation*") == 2
    assert covered("--since", "2026-03-02") == 0
    assert "No stored failures in this choice" in run(state, "backtest", "--since", "2026-03-02").stderr
    wrong = run(state, "backtest", "--filter", "funktion=x")
    assert wrong.exit_code == 2
    assert "did you mean 'function'?" in wrong.stderr


def test_backtest_compares_with_a_git_revision(state, tmp_path):
    folder = tmp_path / "repo" / "rules"
    folder.mkdir(parents=True)

    def git(*args: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(folder), *identity, *args], check=True, capture_output=True)

    git("init", "-q", "-b", "main", str(folder.parent))
    (folder / "a.yaml").write_text(HEAD + "  - id: one\n    alert: {to: ops}\n")
    (folder / "a.test.yaml").write_text("no rules at all")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    (folder / "a.yaml").write_text(HEAD + "  - id: one\n    alert: {to: [ops, team]}\n")
    report = json.loads(run(state, "backtest", "--rules", str(folder), "--against", "HEAD", "--json").stdout)
    assert report["before"]["alerts"] == {"ops": 3}
    assert report["after"]["alerts"] == {"ops": 3, "team": 3}
    only = json.loads(run(state, "backtest", "--rules", str(folder / "a.yaml"), "--against", "main", "--json").stdout)
    assert only["before"]["alerts"] == {"ops": 3}
    for revision in ("nope", "--all", ""):
        wrong = run(state, "backtest", "--rules", str(folder), f"--against={revision}")
        assert "git says: Needed a single revision" in str(wrong.exception), revision
    (tmp_path / "plain.yaml").write_text(HEAD + "  - id: one\n    alert: {}\n")
    outside = run(state, "backtest", "--rules", str(tmp_path / "plain.yaml"), "--against", "HEAD")
    assert "not a git repository" in str(outside.exception)
    git("rm", "-q", "-f", "a.yaml")
    git("commit", "-q", "-m", "second")
    (folder / "a.yaml").write_text(HEAD + "  - id: one\n    alert: {}\n")
    gone = run(state, "backtest", "--rules", str(folder), "--against", "HEAD")
    assert "no rule files at" in str(gone.exception)


def test_a_terminal_sees_how_far_a_backtest_is(state):
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TRIAGE_STATE_DIR": str(state), "TRIAGE_RULES": str(state / "rules"), "TERM": "xterm"}
    command = [sys.executable, "-m", "triage", "rules", "backtest"]
    done = subprocess.run(command, stderr=theirs, stdout=subprocess.PIPE, env=environ, check=True, timeout=60)
    os.close(theirs)
    assert b"Replaying" in os.read(ours, 4096)
    assert done.stdout.startswith(b"covered    5 results")
    os.close(ours)
    quiet = subprocess.run(command, capture_output=True, env=environ, check=True, timeout=60)
    assert (quiet.stderr, quiet.stdout) == (b"", done.stdout)


def test_backtest_needs_a_store(tmp_path):
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rules.yaml").write_text(HEAD + TEXT)
    assert "there is none yet" in str(run(tmp_path, "backtest").exception)


# --- promote ---------------------------------------------------------------------------------------------------------


def test_promote_tells_what_a_shadow_rule_would_have_done(state):
    result = run(state, "promote", "noisy")
    assert result.exit_code == 0
    place = state / "rules" / "rules.yaml"
    assert result.stdout.startswith(f"If noisy ({place}:7), now shadow, had been live:\n\ncovered    5 results")
    assert "again   noisy                          1          +1 ignored, -1 re-runs" in result.stdout
    assert result.stdout.endswith(f"to make it live, take `mode: shadow` out of it: {place}:7\n")
    report = json.loads(run(state, "promote", "noisy", "--json").stdout)
    assert (report["rule"], report["mode"], report["changed"]) == ("noisy", "shadow", 2)
    assert report["after"] == {"reruns": 0, "held": 1, "ignored": 1, "alerts": {"default": 2}}


@pytest.mark.parametrize(
    ("rule_id", "expected"),
    [
        ("nosy", "did you mean 'noisy'?"),
        ("x", "not live: noisy"),
        ("again", "the rule 'again' is live already"),
    ],
)
def test_promote_wants_a_rule_that_is_not_live(state, rule_id, expected):
    result = run(state, "promote", rule_id)
    assert result.exit_code == 1
    assert expected in result.stderr


def test_a_back_test_says_that_silences_are_not_in_it(quiet):
    assert "  - 2 alerts were kept from everybody by silences; all alerts count" in run(quiet, "backtest").stdout
    assert json.loads(run(quiet, "backtest", "--json").stdout)["not_known"]["alerts_silenced"] == 2
    other = run(quiet, "backtest", "--json", "--filter", "function=x-*")
    assert json.loads(other.stdout)["not_known"]["alerts_silenced"] == 1


# --- stats -----------------------------------------------------------------------------------------------------------


def test_stats_count_hits_shadows_and_what_never_happened(state):
    result = run(state, "stats")
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()[:6]] == [
        ["RULE", "FILE", "MODE", "HITS", "LAST", "HIT", "ALERTS", "SILENCED", "IN", "SHADOW", "DISAGREED"],
        ["oom", "rules.yaml", "live", "1", "2026-03-01", "12:00:00Z", "1", "-", "-", "-"],
        ["noisy", "rules.yaml", "shadow", "0", "2026-03-01", "12:01:10Z", "-", "-", "2", "2"],
        ["held", "rules.yaml", "live", "1", "2026-03-01", "12:00:00Z", "1", "-", "-", "-"],
        ["again", "rules.yaml", "live", "2", "2026-03-01", "12:01:10Z", "1", "-", "-", "-"],
        ["rest", "rules.yaml", "live", "0", "never", "-", "-", "-", "-"],
    ]
    assert result.stdout.endswith("never hit: rest\n")
    since = json.loads(run(state, "stats", "--since", "2026-03-01T12:01:00", "--json").stdout)
    assert {row["rule"]: row["hits"] for row in since["rules"]} == {
        "oom": 0, "noisy": 0, "held": 0, "again": 1, "rest": 0,
    }  # fmt: skip


def test_stats_know_rules_that_are_gone_off_or_expired(state, tmp_path):
    async def change() -> None:
        past = await Past.open(tmp_path / "triage.db", rule_set("  - id: old\n    alert: {}\n"))
        await past.receive(body("1-aaaa"))
        await past.use(
            rule_set(
                "  - id: off\n    alert: {}\n    mode: off\n  - id: late\n    alert: {}\n    expires: 2026-01-01\n"
            )
        )
        await past.close()

    asyncio.run(change())
    rows = json.loads(run(tmp_path, "stats", "--json").stdout)["rules"]
    assert [(row["rule"], row["mode"], row["hits"]) for row in rows] == [
        ("off", "off", 0), ("late", "expired", 0), ("old", "gone", 1),
    ]  # fmt: skip
    assert "never hit" not in run(tmp_path, "stats").stdout


def test_stats_know_rules_whose_every_alert_was_silenced(quiet):
    stats = run(quiet, "stats")
    assert stats.stdout.endswith("\nalways silenced: tell\n")
    counted = {row["rule"]: (row["alerts"], row["silenced"]) for row in _stats(quiet)}
    assert counted == {"both": (1, 0), "tell": (2, 2)}


def _stats(folder: Path) -> list[dict]:
    return json.loads(run(folder, "stats", "--json").stdout)["rules"]


# --- show ------------------------------------------------------------------------------------------------------------


def test_show_prints_what_is_in_force_and_what_was(state, tmp_path):
    async def change() -> None:
        past = await Past.open(tmp_path / "triage.db", rule_set("  - id: old\n    alert: {}\n"))
        await past.pass_time(timedelta(hours=1))
        await past.use(rule_set("  - id: new\n    alert: {}"))
        await past.close()

    asyncio.run(change())
    old, new = rule_set("  - id: old\n    alert: {}\n"), rule_set("  - id: new\n    alert: {}")
    shown = run(tmp_path, "show")
    assert shown.stdout == new.sources[0].text + "\n"
    assert shown.stderr == f"rules {new.digest}, in force\n"
    assert run(tmp_path, "show", old.digest[:8]).stdout == old.sources[0].text
    listed = [line.split() for line in run(tmp_path, "show", "--list").stdout.splitlines()[1:]]
    assert listed == [
        [new.digest[:12], "2026-03-01", "13:00:00Z", "yes", "rules.yaml"],
        [old.digest[:12], "2026-03-01", "12:00:00Z", "-", "rules.yaml"],
    ]
    assert [kept["in_force"] for kept in json.loads(run(tmp_path, "show", "--list", "--json").stdout)] == [True, False]
    assert json.loads(run(tmp_path, "show", "--json").stdout)["files"][0]["name"] == "rules.yaml"
    missing = run(tmp_path, "show", "zz")
    assert missing.exit_code == 1
    assert "no single rule set begins with 'zz'" in missing.stderr
    assert run(tmp_path, "show", "zz", "--list").exit_code == 2


# --- suggest ---------------------------------------------------------------------------------------------------------


def test_suggest_drafts_a_rule_that_passes_its_case_and_tells_what_it_would_change(state, tmp_path):
    group = json.loads(run(state, "explain", "1-cccc", "--json").stdout)["fingerprint"]
    result = run(state, "suggest", group[:9])
    assert result.exit_code == 0
    name = "00-my-fc-job-of-memory"
    assert f"# ---- {name}.yaml\n" in result.stdout
    assert f"{name[3:]} takes 1 of the 1 results of the group, and none of other groups" in result.stdout
    assert "\x1b" not in result.stdout
    draft = json.loads(run(state, "suggest", group, "--json").stdout)
    assert draft["takes"] == {"of_the_group": 1, "in_all": 1}
    assert [(pair["before"], pair["after"], pair["decisions"]) for pair in draft["by_rule"]] == [
        ("oom", "my-fc-job-of-memory", 1)
    ]
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / draft["file"]).write_text(draft["rules"])
    (folder / draft["file"].replace(".yaml", ".test.yaml")).write_text(draft["cases"])
    assert run(state, "test", str(folder)).exit_code == 0
    assert run(state, "check", str(folder)).exit_code == 0


def test_suggest_wants_one_group(state):
    missing = run(state, "suggest", "v9-\x1b")
    assert missing.exit_code == 1
    assert "no failure is in a group" in missing.stderr
    assert "\x1b" not in missing.stderr
    several = run(state, "suggest", "v")
    assert several.exit_code == 1
    assert "begins the names of several groups: v" in several.stderr
