"""A daemon that redacts: nothing of a secret is readable in the store, in alerts or on a page; re-runs are exact."""

import asyncio
import base64
import json

import make
from click.testing import CliRunner

from triage.app import build
from triage.cli import cli
from triage.clock import SystemClock
from triage.settings import load_settings
from triage.sources.local import LocalQueue
from triage.sources.queue_tables import Outgoing

MAIL, PIN = "somebody@example.com", "pin-4711-4711"
KEY = base64.b64encode(bytes(32)).decode()
CONFIG = f"""
rules = "rules.yaml"
[encryption]
keys = ["{KEY}"]
[redaction]
detectors = ["email"]
paths = ["**.pin"]
"""
RULES = """
version: 1
rules:
  - id: theirs
    when: error.message.contains(payload.user.mail)
    alert: {group_wait: 0s}
"""


async def taken_in(folder, body):
    """Run a daemon until it has told of a message; what it told."""
    settings = load_settings(
        folder / "triage.toml", environ={"HOME": str(folder), "TRIAGE_STATE_DIR": str(folder / "s")}
    )
    told = []
    async with build(settings, clock=SystemClock(), write=told.append) as app:
        stop = asyncio.Event()
        running = asyncio.create_task(app.run(stop))
        queues = await LocalQueue.open(settings.queue.path, clock=SystemClock())
        await queues.ensure("default")
        await queues.send("default", [Outgoing(body)])
        async with asyncio.timeout(20):
            while not (await app.store.totals()).deliveries.get("sent"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert await app.store.payload_of("r1") == json.loads(body)["requestPayload"].encode()
        stop.set()
        await running
        await queues.close()
    return "".join(told)


def test_what_is_redacted_is_nowhere_but_in_the_sealed_message(tmp_path, caplog):
    (tmp_path / "triage.toml").write_text(CONFIG)
    (tmp_path / "rules.yaml").write_text(RULES)
    payload = json.dumps({"user": {"mail": MAIL, "pin": PIN}}, indent=1)
    body = make.body("r1", payload=payload, error=f"no mailbox for {MAIL}")
    told = asyncio.run(taken_in(tmp_path, body))
    assert "no mailbox for [email]" in told, "the rule matched by what was there"
    assert MAIL not in told
    for file in (tmp_path / "s").glob("triage.db*"):
        assert MAIL.encode() not in file.read_bytes()
        assert PIN.encode() not in file.read_bytes()
    assert MAIL not in caplog.text

    def triage(*args, code=0):
        environ = {"TRIAGE_STATE_DIR": str(tmp_path / "s"), "HOME": str(tmp_path)}
        done = CliRunner().invoke(cli, [*args, "--config", str(tmp_path / "triage.toml")], env=environ)
        assert done.exit_code == code, done.output + repr(done.exception)
        return done.output

    for shown in (triage("failures", "show", "r1"), triage("failures", "show", "r1", "--json")):
        assert MAIL not in shown
        assert PIN not in shown
        assert "[email]" in shown
    assert PIN in triage("failures", "show", "r1", "--unredacted", "--json")
    assert MAIL not in triage("failures", "list", "--json")
    assert "theirs" in triage("rules", "explain", "r1"), "it is explained by what was there"
    assert "changed    0" in triage("rules", "backtest")
    # An order of a person writes a row with the alert that it may come to.
    triage("rerun", "r1", "--by", "a-person", "--reason", "a test")
    for file in (tmp_path / "s").glob("triage.db*"):
        assert MAIL.encode() not in file.read_bytes()


def test_what_the_gates_say_of_a_result_is_redacted_too(tmp_path):
    (tmp_path / "triage.toml").write_text(CONFIG)
    (tmp_path / "rules.yaml").write_text(f"version: 1\nrules:\n  - {{id: known, ignore: 'known, ask {MAIL}'}}\n")
    (tmp_path / "result.json").write_bytes(make.body("r1"))
    for form in ((), ("--json",)):
        args = ["rules", "explain", str(tmp_path / "result.json"), "--config", str(tmp_path / "triage.toml"), *form]
        done = CliRunner().invoke(cli, args, env={"TRIAGE_STATE_DIR": str(tmp_path / "s"), "HOME": str(tmp_path)})
        assert done.exit_code == 0, done.output
        assert "known, ask [email]" in done.output
        assert MAIL not in done.output
        assert MAIL in CliRunner().invoke(cli, [*args, "--unredacted"]).output
