"""Rules are changed while ``triage run`` runs, as a person would: with an editor, with kill -HUP, and wrongly."""

import asyncio
import json
import shutil
import signal
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from urllib.request import urlopen

from make import body
from processes import ask, started, triage

from triage.clock import SystemClock
from triage.rulefiles import default_rules_dir
from triage.sources.local import LocalQueue
from triage.sources.queue_tables import Outgoing
from triage.stores import RulesState
from triage.stores.sqlite import SqliteStore


class Daemon:
    """A daemon on the local queue, with a copy of the shipped rules."""

    def __init__(self, folder):
        self.state, self.rules = folder / "state", folder / "rules"
        shutil.copytree(default_rules_dir(), self.rules)
        self.sent = 0

    def started(self):
        return started("run", state=self.state, TRIAGE_RULES=str(self.rules))

    def decided(self, running):
        """Digest and rule by which a time-out is decided that comes now."""
        self.sent += 1
        request_id = f"timed-out-{self.sent}"
        asyncio.run(self.send(body(request_id)))
        found = running.until(lambda: self.look(lambda store: store.failure(request_id)))
        return found.decision["rule_set"], found.row.rule_id

    async def send(self, message):
        queues = await LocalQueue.open(self.state / "queue.db", clock=SystemClock())
        await queues.ensure("default")
        await queues.send("default", [Outgoing(message)])
        await queues.close()

    def look(self, question):
        """What the store says. Cheaper than a process for each look."""

        async def answer():
            store = await SqliteStore.open(self.state / "triage.db")
            try:
                return await question(store)
            finally:
                await store.close()

        return asyncio.run(answer())

    def in_force(self):
        return self.look(lambda store: store.rules_state())


def test_a_wrong_edit_changes_nothing_also_across_a_restart_and_a_good_one_goes_live(tmp_path):
    daemon = Daemon(tmp_path)
    file = daemon.rules / "20-timeouts.yaml"
    right = file.read_text()
    line = right[: right.index("- id: timed-out")].count("\n") + 1
    told = f"{file}:{line + 1}:5: unknown key 'mach' (did you mean 'match'?)"

    with daemon.started() as running:
        before = daemon.decided(running)
        assert before[1] == "timed-out"
        since = daemon.in_force().loaded_at
        assert daemon.in_force() == RulesState(before[0], since)

        file.write_text(right.replace("- id: timed-out\n    match:", "- id: timed-out\n    mach:"))
        running.until_logged(told)
        assert daemon.decided(running) == before
        rules = ask("status", state=daemon.state)["rules"]
        assert rules["digest"] == before[0]
        (problem,) = rules["problems"]
        assert (problem["file"], problem["line"], problem["column"]) == (str(file), line + 1, 5)
        assert told in triage("status", state=daemon.state)
        running.process.send_signal(signal.SIGHUP)
        running.until(lambda: running.log.count(told) == 2)
        running.kill()

    with daemon.started() as running:
        running.until(lambda: running.log.count(told) == 3)
        assert daemon.decided(running) == before

        shutil.rmtree(daemon.rules)  # a deployment that is no rename
        running.until_logged(f"{daemon.rules}: no such file or folder")
        daemon.rules.mkdir()
        (daemon.rules / "only.yaml").write_text("version: 1\nrules:\n  - {id: anything, ignore: 'a test'}\n")
        running.until_logged(f"1 rule; before: {before[0][:12]}")
        after = daemon.decided(running)
        assert after[0] != before[0]
        assert after[1] == "anything"
        assert daemon.in_force() == RulesState(after[0], daemon.in_force().loaded_at)
        assert daemon.in_force().loaded_at > since
        running.process.send_signal(signal.SIGHUP)
        running.until_logged(f"rules read again: nothing new, {after[0][:12]} stays in force")
        assert running.stop() == 0

    assert ask("status", state=daemon.state)["adds_up"]


def test_a_receivers_template_that_is_not_there_is_told_at_the_start_and_at_each_reload_until_it_is(tmp_path):
    daemon = Daemon(tmp_path)
    told = "receiver default: no template oncall stands beside the rules"
    receivers = json.dumps({"default": {"urls": ["console:"], "template": "oncall"}})
    with started("run", state=daemon.state, TRIAGE_RULES=str(daemon.rules), TRIAGE_RECEIVERS=receivers) as running:
        running.until_logged(told)
        running.until_logged("running: sources")
        running.process.send_signal(signal.SIGHUP)
        running.until(lambda: running.log.count(told) == 2)
        (daemon.rules / "oncall.txt.j2").write_text("{{ function }}: {{ error }}")
        running.process.send_signal(signal.SIGHUP)
        running.until_logged("; before: ")
        running.process.send_signal(signal.SIGHUP)
        running.until_logged("stays in force")
        assert running.stop() == 0
        assert running.log.count(told) <= 3, "the watch may have taken the template after the second look"


def test_wrong_rules_without_a_last_good_set_are_told_and_it_does_not_start(tmp_path):
    daemon = Daemon(tmp_path)
    (daemon.rules / "20-timeouts.yaml").write_text("version: 1\nrules: [\n")
    with daemon.started() as running:
        assert running.process.wait(30) == 3
        assert "triage: the rules cannot be used:" in running.log
        assert f"{daemon.rules}/20-timeouts.yaml:3:1: not valid YAML" in running.log


CONFIG = 'rules = "rules"\n[receivers.ops]\nurls = "console:"\n[log]\nlevel = "{level}"\n[web]\nlisten = "127.0.0.1:{port}"\n'


def test_settings_are_read_again_and_what_needs_a_restart_is_named(tmp_path):
    daemon = Daemon(tmp_path)
    config = tmp_path / "triage.toml"
    config.write_text(CONFIG.format(level="warning", port=0))
    tell = "version: 1\nrules:\n  - {id: tell, alert: {to: %s, group_wait: 0s}}\n"
    shutil.rmtree(daemon.rules)
    daemon.rules.mkdir()
    (daemon.rules / "rules.yaml").write_text(tell % "ops")
    with started("run", "--config", config, state=daemon.state) as running:
        daemon.decided(running)
        running.until(lambda: "timed-out-1" in running.out)

        # A receiver and rules that name it, in one go.
        (daemon.rules / "rules.yaml").write_text(tell % "night")
        config.write_text(CONFIG.format(level="info", port=1).replace("receivers.ops", "receivers.night"))
        running.process.send_signal(signal.SIGHUP)
        running.until_logged("settings read again; changed: receivers, log")
        running.until_logged("these settings were changed and come into force at a restart: web.listen")
        running.until_logged("rules in force: ")
        daemon.decided(running)
        running.until(lambda: "timed-out-2" in running.out)

        config.write_text("[receiver.ops]\n")
        running.process.send_signal(signal.SIGHUP)
        running.until_logged("receiver: no such setting (did you mean 'receivers'?)")
        daemon.decided(running)
        assert running.stop() == 0
    assert ask("status", state=daemon.state)["deliveries"] == {"sent": 2}


EDITS = {
    "an unknown key": (
        "20-timeouts.yaml",
        ("- id: process-exited\n    match:", "- id: process-exited\n    mach:"),
        "20-timeouts.yaml:34:5: unknown key 'mach' (did you mean 'match'?)",
    ),
    "a bracket that is never closed": (
        "20-timeouts.yaml",
        ("group_by: [function, condition]", "group_by: [function, condition"),
        "20-timeouts.yaml:31:12: not valid YAML: did not find expected ',' or ']' while parsing a flow sequence",
    ),
    "a duration without a unit": (
        "30-memory.yaml",
        ("group_wait: 10s", "group_wait: 10"),
        "30-memory.yaml:18:19: the number 10 has no unit (write 10s, 10m, 10h or 10d)",
    ),
    "a number compared with a text": (
        "30-memory.yaml",
        ("- id: out-of-memory-error\n", "- id: out-of-memory-error\n    when: 'lineage.attempt > \"one\"'\n"),
        "30-memory.yaml:22:28: > does not take (int, string)",
    ),
    "an id that another rule has": (
        "30-memory.yaml",
        ("- id: out-of-memory-error", "- id: timed-out"),
        "30-memory.yaml:21:9: a second rule 'timed-out' (the first is in 20-timeouts.yaml:26)",
    ),
    "a case that fails": (
        "20-timeouts.yaml",
        ('message: "timed out after"}\n    alert', 'message: "timed out for"}\n    alert'),
        "20-timeouts.test.yaml:5:5: the case 'a time-out is told at once, in the words of the platform' fails: rule is",
    ),
}
"""By what is wrong: the shipped file, a text in it with its wrong successor, and what must be told, place included."""

STEADY = "acs:fc:cn-hangzhou:1034354682:functions/steady"
NEW_RULE = """\
  - id: steady
    match: {function: steady, error: {message: "timed out after"}}
    alert: {group_by: [function]}
    runbook: https://example.org/steady

  - id: timed-out
"""


@contextmanager
def load(daemon):
    """Messages all the time until the end of the block; gives the list of those that were sent."""
    sent, over = [], threading.Event()

    async def send():
        queues = await LocalQueue.open(daemon.state / "queue.db", clock=SystemClock())
        await queues.ensure("default")
        while not over.wait(0.02):  # a pace; nothing waits for it
            more = [f"steady-{len(sent) + number}" for number in range(4)]
            await queues.send("default", [Outgoing(body(request_id, arn=STEADY)) for request_id in more])
            sent.extend(more)
        await queues.close()

    with ThreadPoolExecutor(1) as thread:
        sending = thread.submit(asyncio.run, send())
        try:
            yield sent
        finally:
            over.set()
            sending.result()


def test_six_wrong_edits_under_load_change_nothing_and_a_good_one_is_live_within_two_seconds(tmp_path):
    daemon = Daemon(tmp_path)
    right = {name: (daemon.rules / name).read_text() for name, _, _ in EDITS.values()}
    with started(
        "run", state=daemon.state, TRIAGE_RULES=str(daemon.rules), TRIAGE_WEB__LISTEN="127.0.0.1:0"
    ) as running:
        running.until_logged("/healthz, ")
        url = running.log.split("operations endpoint: ")[1].split("/healthz")[0]

        def readyz():
            with urlopen(f"{url}/readyz") as answer:  # an error if it is not ready
                return json.load(answer)["rules"]

        with load(daemon) as sent:

            def decided():
                """Wait for a decision about a message that was sent from now on."""
                newest = len(sent)
                running.until(lambda: len(sent) > newest)
                running.until(lambda: daemon.look(lambda store: store.failure(sent[newest])))

            decided()
            before = daemon.in_force().digest
            for wrong, (name, (old, new), message) in EDITS.items():
                for each, text in right.items():
                    (daemon.rules / each).write_text(text)
                file, told = daemon.rules / name, f"{daemon.rules}/{message}"
                assert right[name].count(old), wrong
                file.write_text(right[name].replace(old, new, 1))
                running.until(lambda told=told: told in "".join(map(str, daemon.in_force().problems)), why=wrong)
                decided()
                assert told in running.log
                assert told in triage("status", state=daemon.state)
                assert readyz()["digest"] == daemon.in_force().digest == before
            # What the endpoint says of the store may be some seconds old.
            running.until(lambda: told in "".join(readyz()["problems"]))

            file = daemon.rules / "20-timeouts.yaml"
            changed_at = datetime.now(UTC)
            file.write_text(right[file.name].replace("  - id: timed-out\n", NEW_RULE, 1))
            running.until(lambda: daemon.in_force().digest != before)
            decided()
            after = daemon.in_force()
            assert not after.problems
        found = running.until(lambda: rows(daemon, DECIDED) if count(daemon) == len(sent) else None)
        assert running.stop() == 0

    assert sorted(request_id for request_id, *_ in found) == sorted(sent)
    assert [digest for _, digest, _, _ in found] == sorted(
        (digest for _, digest, _, _ in found), key=(before, after.digest).index
    )
    assert {(digest, rule) for _, digest, rule, _ in found} == {(before, "timed-out"), (after.digest, "steady")}
    first = next(at for _, digest, _, at in found if digest == after.digest)
    assert datetime.fromisoformat(first) - changed_at < timedelta(seconds=2)
    alerts = rows(daemon, "SELECT group_key, request_id, detail FROM alerts WHERE cause = 'rules_refused' ORDER BY id")
    assert len({group for group, *_ in alerts}) == 1
    told = [f"{place}: {detail}" for _, place, detail in alerts]
    for line, (_, _, message) in zip(told, EDITS.values(), strict=True):
        assert line.startswith(f"{daemon.rules}/{message}")


DECIDED = "SELECT request_id, rule_set, rule_id, decided_at FROM decisions ORDER BY id"


def count(daemon):
    return rows(daemon, "SELECT count(*) FROM decisions")[0][0]


def rows(daemon, query):
    with closing(sqlite3.connect(f"file:{daemon.state}/triage.db?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()
