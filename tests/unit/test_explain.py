"""Why a result is decided the way it is."""

from datetime import timedelta

import pytest
from make import ARN, NOW, arrived, envelope, success
from past import rule_set

from triage.effects import decided
from triage.explain import Aftermath, explain
from triage.facts import Facts, GroupFacts, Lineage
from triage.reruns.event import unfit
from triage.silence import Silence
from triage.states import State

HOUR = timedelta(hours=1)
RULES = rule_set("""
  - id: oom
    match: {condition: FunctionOOMError}
    alert: {to: default}
  - id: noisy
    match: {function: my-*}
    ignore: noise
    mode: shadow
  - id: off
    ignore: x
    mode: off
  - id: gone
    ignore: x
    expires: 2026-01-01
  - id: held
    match: {function: pay-*}
    hold: look first
    alert: {to: ops, on: [held]}
  - id: gold
    match: {payload: {tier: gold}}
    when: payload.orders > 3
    rerun: {after: 2m, max_attempts: 3}
  - id: quick
    match: {function: quick}
    when: lineage.attempt < 2 && lineage.age < duration('1h')
    rerun: {after: 1m, max_attempts: 9, give_up_after: 30m, backoff: {jitter: 0}}
    alert: {to: ops, on: [exhausted]}
  - id: known
    match: {function: known}
    ignore: nobody cares
  - id: audit
    alert: {to: audit}
    continue: true
  - id: rest
    match: {not: {function: stray}}
    rerun: {after: 1m, max_attempts: 1, backoff: {jitter: 0}}
""")


def function(name: str, **fields: object):
    return arrived(envelope(arn=ARN.replace("my-fc-job", name), **fields))


def lineage(attempt: int, *, age: timedelta = timedelta(minutes=5), manual: int = 0) -> Facts:
    return Facts(lineage=Lineage("r0", State.RERUNNING, attempt, NOW - age, "rest", 3, manual))


def verdicts(explanation) -> dict[str, str]:
    return {asked.step.rule.id: str(asked.step.verdict) for asked in explanation.asked}


def gates(explanation) -> dict[str, tuple[bool, str]]:
    return {gate.name: (gate.open, gate.text) for gate in explanation.gates}


def why(explanation, rule_id: str) -> tuple[str, str]:
    asked = next(asked for asked in explanation.asked if asked.step.rule.id == rule_id)
    return asked.alone.clause.clause, asked.alone.clause.actual


def test_every_rule_has_its_say():
    found = explain(function("my-fc-job"), Facts(), RULES, now=NOW)
    assert verdicts(found) == {
        "oom": "failed", "noisy": "shadow", "off": "off", "gone": "expired", "held": "failed", "gold": "failed",
        "quick": "failed", "known": "failed", "audit": "matched", "rest": "matched",
    }  # fmt: skip
    assert why(found, "oom") == ("condition: FunctionOOMError", "'InvocationError'")
    assert why(found, "gone") == ("expires: 2026-01-01", "2026-03-01")
    assert why(found, "gold") == ("payload.tier: gold", "None")
    assert found.decision.rule.id == "rest"


def test_a_rule_that_was_not_asked_tells_what_it_would_have_said():
    found = explain(function("my-fc-job", condition="FunctionOOMError"), Facts(), RULES, now=NOW)
    assert set(verdicts(found).values()) == {"matched", "not_asked"}
    alone = {asked.step.rule.id: str(asked.alone.verdict) for asked in found.asked}
    assert (alone["noisy"], alone["off"], alone["rest"], alone["known"]) == ("shadow", "off", "matched", "failed")


def test_a_false_expression_shows_the_values_it_met():
    found = explain(function("quick"), lineage(2, age=timedelta(minutes=90)), RULES, now=NOW)
    clause, actual = why(found, "quick")
    assert clause.startswith("when: lineage.attempt < 2")
    assert actual == "false: lineage.attempt 2, lineage.age 1:30:00"
    broken = explain(function("my-fc-job", payload='{"tier":"gold"}'), Facts(), RULES, now=NOW)
    assert verdicts(broken)["gold"] == "error"
    assert "orders" in why(broken, "gold")[1]


@pytest.mark.parametrize(
    ("name", "facts", "expected"),
    [
        ("my-fc-job", Facts(), {
            "attempts": (True, "re-run 1 of 1"),
            "deadline": (True, "due 2026-03-01 12:01:00Z, before the last moment for a re-run, 2026-03-01 18:00:00Z"),
            "alert": (False, "nobody is told yet; default will be told of exhausted, overdue, refused, unknown"),
        }),
        ("my-fc-job", lineage(1), {
            "attempts": (False, "1 of 1 re-runs are used up"),
            "alert": (True, "default told now, of exhausted"),
        }),
        ("quick", lineage(1, age=timedelta(minutes=29), manual=1), {
            "attempts": (True, "re-run 2 of 9, 1 of those before asked for by a person"),
            "deadline": (False, "due 2026-03-01 12:02:00Z, after the last moment for a re-run, 2026-03-01 12:01:00Z"),
            "alert": (True, "ops told now, of exhausted"),
        }),
        ("pay-1", Facts(), {
            "hold": (False, "a person decides: look first"),
            "alert": (True, "ops told now, of held"),
        }),
        ("known", Facts(), {"ignore": (False, "nothing is done: nobody cares")}),
    ],
    ids=["re-run", "exhausted", "too old", "held", "ignored"],
)  # fmt: skip
def test_the_gates_say_why_a_rule_has_its_way_or_not(name, facts, expected):
    found = explain(function(name), facts, RULES, now=NOW)
    assert gates(found) == expected


def test_without_a_rule_the_default_receiver_is_told():
    nothing = rule_set("  - id: oom\n    match: {condition: FunctionOOMError}\n    alert: {}\n")
    assert gates(explain(function("my-fc-job"), Facts(), nothing, now=NOW)) == {
        "rule": (False, "no rule takes it, so the default receiver is told")
    }


def test_results_that_are_no_failures_ask_only_rules_that_mention_the_outcome():
    found = explain(arrived(success()), lineage(1), RULES, now=NOW)
    assert set(verdicts(found).values()) == {"not_asked"}
    assert gates(found) == {"result": (True, "the re-run succeeded: nothing is left to do")}
    assert explain(arrived(success()), Facts(group=GroupFacts(NOW, 1, NOW, NOW)), RULES, now=NOW).gates[0].open


def silence(number: int, *, begins: timedelta = -HOUR, ends: timedelta = HOUR, ended: timedelta | None = None, **match):
    ended_at = None if ended is None else NOW + ended
    return Silence(number, match or {"function": "*"}, "ana", "a deploy", NOW + begins, NOW + ends, ended_at=ended_at)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (Aftermath([silence(1)]), ["1 (ana: a deploy) until 2026-03-01 13:00:00Z, and told to a and b"]),
        (Aftermath([silence(1, receiver="b")]), ["1 (ana: a deploy) until 2026-03-01 13:00:00Z, and told to b"]),
        (Aftermath([silence(1, receiver="b"), silence(2, receiver="a")]), [
            "1 (ana: a deploy) until 2026-03-01 13:00:00Z, and told to b",
            "2 (ana: a deploy) until 2026-03-01 13:00:00Z, and told to a",
        ]),
        (Aftermath([silence(1, function="other")]), []),
        (Aftermath([silence(1, begins=timedelta(seconds=30))]), ["1 (ana: a deploy) until 2026-03-01 13:00:00Z, and told to a and b"]),
        (Aftermath([silence(1, begins=timedelta(minutes=2))]), []),
        (Aftermath([silence(1, ended=timedelta(seconds=10))]), []),
        (Aftermath([silence(1, ended=timedelta(minutes=9))]), ["1 (ana: a deploy) until 2026-03-01 12:09:00Z, and told to a and b"]),
    ],
    ids=["all", "one receiver", "one each", "another function", "begins while it waits", "too late", "over", "ended early"],
)  # fmt: skip
def test_silences_are_gates_once_the_group_may_be_told(after, expected):
    rules = rule_set("  - id: tell\n    alert: {to: [a, b], group_wait: 1m}\n")
    found = explain(function("my-fc-job"), Facts(), rules, now=NOW, after=after)
    told = [gate.text for gate in found.gates if gate.name == "silence"]
    assert told == [f"silenced by silence {text} at its end" for text in expected]


def test_a_silence_on_record_counts_whenever_it_came():
    rules = rule_set("  - id: tell\n    alert: {to: [a, b], group_wait: 1m}\n")
    found = explain(function("my-fc-job"), Facts(), rules, now=NOW)
    (alert,) = decided(function("my-fc-job"), found.decision).changes.alerts
    late = silence(7, begins=timedelta(minutes=4))
    found = explain(function("my-fc-job"), Facts(), rules, now=NOW, after=Aftermath([late], {alert.group.key: 7}))
    assert found.gates[-1].text.startswith(
        "silenced by silence 7 (ana: a deploy) until 2026-03-01 13:00:00Z, and told to a and b"
    )


def test_a_silence_has_no_say_in_what_is_not_told():
    found = explain(function("known"), Facts(), RULES, now=NOW, after=Aftermath([silence(1)]))
    assert list(gates(found)) == ["ignore"]


def test_a_re_run_that_waits_at_a_gate_says_why():
    task = explain(function("my-fc-job"), Facts(), RULES, now=NOW).decision.effects[0].task_id
    after = Aftermath(waits={task: ("budget", "my-fc-job has used up its budget"), "other": ("rate", "its turn")})
    found = explain(function("my-fc-job"), Facts(), RULES, now=NOW, after=after)
    assert gates(found)["budget"] == (False, "the re-run waits: my-fc-job has used up its budget")
    assert "rate" not in gates(found)


def test_an_event_that_cannot_be_run_again_is_named():
    arrival = function("other", payload="x" * 262_145)
    gates = explain(arrival, Facts(unfit=unfit(arrival.envelope)), RULES, now=NOW).gates
    (gate,) = (gate for gate in gates if gate.name == "event")
    assert (gate.open, gate.text) == (False, "the event has 262,145 bytes; Function Compute takes 262,144 at most")
