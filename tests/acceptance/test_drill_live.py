"""A drill through a real daemon to a real receiver: from the local queue, and from SMQ as the emulator speaks it."""

import json
import subprocess
from contextlib import contextmanager

import make
import pytest
from hooks import web_hooks
from processes import TRIAGE, ask, emulating, environment, started, totals, triage

RULES = """\
version: 1
rules:
  - id: again
    match: {function: "img-*"}
    rerun: {max_attempts: 3, give_up_after: 6h, after: 2m}
    alert: {to: ops, on: [exhausted]}
  - id: noise
    match: {function: "noise-*"}
    ignore: it is noise
  - id: tell
    alert: {to: ops}
"""
SCENARIO = """\
version: 1
account: "1034"
functions:
  img-resize:
    async: {task: true, retries: 0, on_success: results, on_failure: results}
    behaviour:
      - {do: fail, type: Oops, message: "it always fails", runtime: python}
"""


@pytest.fixture
def hooks():
    with web_hooks() as server:
        yield server


@contextmanager
def daemon(folder, hooks, *args, **more):
    (folder / "rules.yaml").write_text(RULES)
    receivers = {"ops": {"urls": hooks.url("ok")}, "boss": {"urls": hooks.url("boss/ok")}}
    environ = {"TRIAGE_RULES": str(folder / "rules.yaml"), "TRIAGE_RECEIVERS": json.dumps(receivers), **more}
    with started("run", *args, state=folder / "state", **environ) as running:
        running.until_logged("running: sources")
        yield running, folder / "state", environ


def nothing_counts(state, environ):
    sums = totals(state)
    assert (sums.received, sums.failures, dict(sums.deliveries), dict(sums.outbox)) == (0, 0, {}, {})
    triage("selfcheck", state=state, **environ)


def test_it_goes_through_the_running_daemon_and_a_person_acknowledges_it(tmp_path, hooks):
    with daemon(tmp_path, hooks) as (_, state, environ):
        hops = []
        with subprocess.Popen(
            [*TRIAGE, "drill", "--function", "img-resize", "--to", "boss", "--timeout", "50s"],
            env=environment(state, **environ, PYTHONUNBUFFERED="1"),
            stdout=subprocess.PIPE,
            text=True,
        ) as drill:
            for line in drill.stdout:
                hops.append(line.split("  ")[0])
                if "for `triage alerts ack" in line:
                    code = line.split("ack ")[1].strip(" `\n")
                    triage("alerts", "ack", code, "--reason", "seen", state=state, **environ)
        assert drill.returncode == 0
        assert hops == [
            "queued", "received", "decided", "committed", "held and re-run", "flushed", "sent", "waiting", "acknowledged",
        ]  # fmt: skip
        ((path, body),) = hooks.taken
        assert (path, body["title"][:24]) == ("/boss/ok", "DRILL: img-resize failed")
        nothing_counts(state, environ)


def test_it_looks_like_a_stored_failure_and_leaves_that_alone(tmp_path, hooks):
    with daemon(tmp_path, hooks) as (running, state, environ):
        (state / "one.json").write_bytes(make.body("1-real", arn="acs:fc:cn-hangzhou:1034:functions/billing"))
        triage("queue", "send", state / "one.json", state=state, **environ)
        running.until_taken(1)
        found = ask("drill", "--like", "1-real", "--ack", state=state, **environ)
        assert found["complete"], found
        assert "rule tell" in {hop["hop"]: hop["detail"] for hop in found["hops"]}["decided"]
        assert hooks.taken[0][1]["title"].startswith("DRILL: billing failed")
        assert (totals(state).received, totals(state).failures) == (1, 1)


def test_it_says_at_which_hop_it_ended(tmp_path, hooks):
    with daemon(tmp_path, hooks) as (running, state, environ):
        told = json.loads(triage("drill", "--function", "noise-1", "--ack", "--json", state=state, code=1, **environ))
        assert told["missing"].startswith("flushed: by rule 'noise' nobody is told")
        running.stop()
        told = json.loads(triage("drill", "--timeout", "1s", "--json", state=state, code=1, **environ))
        assert told["missing"] == (
            "received: did not come within the time. "
            "Does `triage run` run, with this configuration, and read this queue?"
        )


def test_it_survives_that_the_daemon_is_killed(tmp_path, hooks):
    """Put into the queue while none runs, it is told by the next one, once."""
    with daemon(tmp_path, hooks) as (running, state, environ):
        running.kill()
    with daemon(tmp_path, hooks) as (_, state, environ):
        assert ask("drill", "--ack", state=state, **environ)["complete"]
        assert len(hooks.taken) == 1
        nothing_counts(state, environ)


def test_through_smq_with_a_real_re_run(tmp_path, hooks):
    (tmp_path / "rules.yaml").write_text(RULES)
    with emulating(tmp_path, SCENARIO) as emulation:
        receivers = {"ops": {"urls": hooks.url("ok")}}
        environ = {
            "TRIAGE_RULES": str(tmp_path / "rules.yaml"),
            "TRIAGE_RECEIVERS__OPS": json.dumps(receivers["ops"]),
            "TRIAGE_CONFIG": str(emulation.config),
        }
        state = tmp_path / "state"
        with started("run", state=state, **environ) as running:
            running.until_logged("running: sources")
            found = ask(
                "drill", "--function", "img-resize", "--rerun", "--yes", "--ack", "--timeout", "50s",
                state=state, **environ,
            )  # fmt: skip
            assert found["complete"], found
            names = [hop["hop"] for hop in found["hops"]]
            assert names[4:6] == ["re-run submitted", "re-run's result"]
            assert len(hooks.taken) == 1
            nothing_counts(state, environ)
