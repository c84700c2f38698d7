"""Receivers that hang, refuse, want to be left alone, hang up or do not exist, on real sockets: each try is booked as
what it was, and the others get their messages as if there were only them.
"""

import json
import signal
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing, contextmanager
from itertools import pairwise
from statistics import median

import make
import pytest
from hooks import Hooks, web_hooks
from letters import post_office
from processes import started, triage

from triage.stores.records import instant_of

FUNCTIONS = [f"job-{number}" for number in range(12)]
RULES = "version: 1\nrules:\n  - id: tell\n    alert: {{to: [{}], group_by: [function], group_wait: 0s}}\n"
SOON = {"TRIAGE_OUTBOX__RETRY_FIRST": "200ms", "TRIAGE_OUTBOX__RETRY_MAX": "1s", "TRIAGE_OUTBOX__LEASE": "20s"}


@pytest.fixture
def hooks():
    with web_hooks() as server:
        yield server


@contextmanager
def daemon(folder, receivers, *, to=None, **more):
    """``triage run`` with these receivers, and a rule that tells all of them."""
    (folder / "rules.yaml").write_text(RULES.format(", ".join(to or receivers)))
    state = folder / "state"
    environ = {"TRIAGE_RULES": str(folder / "rules.yaml"), "TRIAGE_RECEIVERS": json.dumps(receivers), **SOON, **more}
    with started("run", state=state, **environ) as running:
        running.until_logged("running: sources")
        yield running, state


def fail(state, functions=FUNCTIONS):
    """One failure of each function: a message of its own to every receiver."""
    bodies = state / "bodies.jsonl"
    arns = [f"acs:fc:cn-hangzhou:1034:functions/{name}" for name in functions]
    bodies.write_bytes(b"".join(make.body(f"1-{number}", arn=arn) + b"\n" for number, arn in enumerate(arns)))
    triage("queue", "send", bodies, state=state)


def booked(state):
    """How often each result was booked for each receiver."""
    with closing(sqlite3.connect(state / "triage.db")) as db:
        found: dict[str, Counter[str]] = {}
        for receiver, result in db.execute("SELECT receiver, result FROM deliveries"):
            found.setdefault(receiver, Counter())[result] += 1
        return found


def latencies(state):
    """Seconds from a message's being made to what was booked of its first try, by receiver, the shortest first."""
    with closing(sqlite3.connect(state / "triage.db")) as db:
        found = defaultdict(list)
        for receiver, made, at in db.execute(
            "SELECT receiver, created_at, min(d.at) FROM deliveries d JOIN outbox o ON o.key = d.key GROUP BY d.key"
        ):
            found[receiver].append((instant_of(at) - instant_of(made)).total_seconds())
    return {receiver: sorted(taken) for receiver, taken in found.items()}


def table(alone, beside, found):
    """The rows of docs/explanation/alerts.md: pytest -s -k keep_their_latency."""
    for receiver, taken in beside.items():
        before = f"{median(alone[receiver]):.2f} s" if receiver in alone else ""
        results = ", ".join(f"{count} {result}" for result, count in sorted(found[receiver].items()))
        print(f"| `{receiver}` | {before} | {median(taken):.2f} s | {taken[-1]:.2f} s | {results} |")


def notes(state, receiver):
    with closing(sqlite3.connect(state / "triage.db")) as db:
        return {note for (note,) in db.execute("SELECT note FROM deliveries WHERE receiver = ?", (receiver,))}


def test_others_keep_their_latency_and_each_try_is_booked_as_what_it_was(tmp_path, hooks):
    good = ("hook", "ntfy", "mail")
    with Hooks() as gone:
        nowhere = gone.url("ok")
    with post_office() as post:
        receivers = {
            "hook": {"urls": [hooks.url("ok/hook")]},
            "ntfy": {"urls": [hooks.url("").replace("json://", "ntfy://") + "alerts"]},
            "mail": {"urls": [post.url]},
        }
        (alone := tmp_path / "alone").mkdir()
        with daemon(alone, receivers) as (running, state):
            fail(state)
            running.until(lambda: all(booked(state).get(name, {}).get("sent") == len(FUNCTIONS) for name in good))
            running.stop()
            alone = latencies(state)
        hooks.at.clear()
        hooks.taken.clear()
        post.taken.clear()
        receivers |= {
            "hangs": {"urls": [hooks.url("slow")], "timeout": "2s"},
            "hangs-too": {"urls": [hooks.url("slow/too", "?rto=1")], "timeout": "3s"},
            "refuses": {"urls": [nowhere]},
            "hangs-up": {"urls": [hooks.url("cut")]},
            "busy": {"urls": [hooks.url("say/429/3")]},
        }
        with daemon(tmp_path, receivers) as (running, state):
            fail(state)
            running.until(lambda: all(booked(state).get(name, {}).get("sent") == len(FUNCTIONS) for name in good))
            arrived = sorted(at for path, at in hooks.at if path == "/ok/hook")
            # apprise leaves 5.5 s between two messages to ntfy. Twelve to one that hangs would take 24 s.
            assert arrived[-1] - arrived[0] < 3
            for name in ("hangs", "hangs-too", "refuses", "hangs-up", "busy"):
                running.until(lambda name=name: sum(booked(state).get(name, {}).values()) >= 3, why=f"was {name} tried")
            running.until(lambda: sum(path == "/say/429/3" for path, _ in hooks.at) > len(FUNCTIONS))
            hooks.release.set()
            running.stop()
    found, beside = booked(state), latencies(state)
    table(alone, beside, found)
    for name in good:
        assert beside[name][-1] < alone[name][-1] + 2, "those that hang take 2 s and more of each of theirs"
    assert len(hooks.got("ok/hook")) == len(post.taken) == len(FUNCTIONS)
    for name in good:
        assert found[name] == {"sent": len(FUNCTIONS)}
    assert set(found["refuses"]) == {"failed"}
    assert set(found["busy"]) == {"failed"}
    assert set(found["hangs-up"]) <= {"unknown", "dead"}
    assert "unknown" in found["hangs"]
    assert "unknown" in found["hangs-too"]
    assert notes(state, "refuses") == {"target 1 (json): failed, no connection"}
    assert notes(state, "busy") == {"target 1 (json): failed, HTTP 429"}
    assert "target 1 (json): unknown, sent, but not answered" in notes(state, "hangs-up") | notes(state, "hangs-too")
    assert "target 1 (json): unknown, no answer within 2 s" in notes(state, "hangs")
    triage("selfcheck", state=state)


def test_who_wants_to_be_left_alone_is_left_alone(tmp_path, hooks):
    with daemon(tmp_path, {"busy": {"urls": [hooks.url("say/503/2")]}}) as (running, state):
        fail(state, FUNCTIONS[:1])
        running.until(lambda: len(hooks.at) >= 3)
    gaps = [later - sooner for (_, sooner), (_, later) in pairwise(hooks.at)]
    assert min(gaps) >= 2, "though its own back-off begins with 200 ms"


def test_what_may_have_arrived_is_not_repeated_for_ever_and_can_be_sent_again(tmp_path, hooks):
    receivers = {
        "cut": {"urls": [hooks.url("cut")], "fallback": "deputy"},
        "deputy": {"urls": [hooks.url("ok/deputy")]},
    }
    with daemon(tmp_path, receivers, to=["cut"]) as (running, state):
        fail(state, FUNCTIONS[:1])
        running.until(lambda: booked(state).get("deputy", {}).get("sent"))
        assert booked(state)["cut"] == {"unknown": 2, "dead": 1}
        assert len(hooks.got("cut")) == 3
        (told,) = hooks.got("ok/deputy")
        assert "Meant for receiver cut, which could not be reached" in told["message"]
        assert told["title"] == hooks.got("cut")[0]["title"], "the same short code"
        code = told["title"].rpartition("#")[2]
        assert code in triage("receivers", "dead", state=state)
        triage("alerts", "resend", code, "--by", "ana", "--reason", "mended", state=state)
        running.until(lambda: len(hooks.got("cut")) > 3)


def test_of_several_addresses_only_those_that_did_not_take_it_are_told_again_in_whatever_order(tmp_path, hooks):
    first = {"ops": {"urls": [hooks.url("ok/a"), hooks.url("say/503/1")]}}
    with daemon(tmp_path, first) as (running, state):
        fail(state, FUNCTIONS[:1])
        running.until(lambda: booked(state).get("ops"))
        running.stop()
    with daemon(tmp_path, {"ops": {"urls": [hooks.url("ok/b"), hooks.url("ok/a")]}}) as (running, state):
        running.until(lambda: booked(state)["ops"]["sent"])
    assert [len(hooks.got(path)) for path in ("ok/a", "ok/b")] == [1, 1]


def test_a_rule_that_names_nobody_is_refused_at_the_start(tmp_path):
    (tmp_path / "rules.yaml").write_text(RULES.format("opps"))
    more = {"TRIAGE_RULES": str(tmp_path / "rules.yaml"), "TRIAGE_RECEIVERS__OPS__URLS": "console:"}
    with started("run", state=tmp_path / "state", **more) as running:
        assert running.process.wait(30) not in (0, None)
        assert "opps" in running.log
        assert "ops" in running.log


def test_a_receiver_that_is_taken_away_while_it_is_needed_is_an_alarm(tmp_path, hooks):
    (tmp_path / "rules.yaml").write_text(RULES.format("ops"))
    (tmp_path / "triage.toml").write_text(f'[receivers.ops]\nurls = ["{hooks.url("broken")}"]\n')
    more = {"TRIAGE_RULES": str(tmp_path / "rules.yaml"), "TRIAGE_CONFIG": str(tmp_path / "triage.toml"), **SOON}
    with started("run", state=tmp_path / "state", **more) as running:
        running.until_logged("running: sources")
        fail(tmp_path / "state", FUNCTIONS[:1])
        running.until(lambda: booked(tmp_path / "state").get("ops"))
        (tmp_path / "triage.toml").write_text('[receivers.other]\nurls = ["console:"]\n')
        running.process.send_signal(signal.SIGHUP)
        running.until(lambda: "receiver 'ops' is not configured" in running.out)
        assert "ERROR triage.outbox: a message is meant for receiver 'ops', which is not configured" in running.log
        assert "Meant for receiver ops, which could not be reached" in running.out
