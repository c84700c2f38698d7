"""Rules are changed while ``triage run`` runs, as a person would: with an editor, with kill -HUP, and wrongly."""

import asyncio
import shutil
import signal

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
        running.until_logged(f"1 rules; before: {before[0][:12]}")
        after = daemon.decided(running)
        assert after[0] != before[0]
        assert after[1] == "anything"
        assert daemon.in_force() == RulesState(after[0], daemon.in_force().loaded_at)
        assert daemon.in_force().loaded_at > since
        running.process.send_signal(signal.SIGHUP)
        running.until_logged(f"rules read again: nothing new, {after[0][:12]} stays in force")
        assert running.stop() == 0

    assert ask("status", state=daemon.state)["adds_up"]


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
