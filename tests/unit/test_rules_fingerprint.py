"""A rule says what makes failures the same for its alerts; what is stored as their fingerprint stays the usual one."""

from dataclasses import replace

import make
import pytest

from triage.decide import decide
from triage.effects import decided
from triage.errors import RulesInvalid
from triage.facts import Facts
from triage.rules.fingerprints import NAMES, own_fingerprint
from triage.rules.model import SourceText
from triage.rules.source import load_rules

RULE = "version: 1\nrules:\n  - id: a\n"


def group(listed: str, *, labels=None, **fields):
    """The alert group of a failure under a rule with this ``fingerprint``."""
    rules = load_rules(
        [SourceText("r.yaml", f"{RULE}    alert: {{group_by: fingerprint}}\n    fingerprint: {listed}\n")]
    )
    arrival = replace(make.arrived(make.envelope(**fields)), labels=labels or {})
    result = decided(arrival, decide(arrival, Facts(), rules, now=make.NOW))
    assert result.arrival.fingerprint == make.arrived(make.envelope(**fields)).fingerprint, "what is stored"
    (alert,) = result.changes.alerts
    assert alert.group.labels["fingerprint"].startswith("v1-")
    return alert.group.key


def test_what_is_not_listed_does_not_count():
    one = group("function", error="disk full", condition="A")

    assert one == group("function", error="no such user", condition="B")
    assert one != group("function", error="disk full", condition="A", arn=make.ARN + "2")


@pytest.mark.parametrize(
    ("listed", "one", "other"),
    [
        ("qualifier", {"arn": make.ARN + "/blue"}, {"arn": make.ARN + "/green"}),
        ("[region]", {}, {"arn": make.ARN.replace("hangzhou", "shanghai")}),
        ("account", {}, {"arn": make.ARN.replace("1034354682", "7")}),
        ("[function, condition]", {"condition": "A"}, {"condition": "B"}),
        ("error.type", {"function_error": "A", "condition": "C"}, {"function_error": "B", "condition": "C"}),
        ("error.message", {"error": "disk full"}, {"error": "no such user"}),
        ("status_code", {"status": 200}, {"status": 503}),
        ("labels.team", {"labels": {"team": "a"}}, {"labels": {"team": "b"}}),
        ("payload.job.tenant", {"payload": '{"job": {"tenant": 1, "n": 1}}'}, {"payload": '{"job": {"tenant": "1"}}'}),
        ("payload.tenant", {"payload": '{"tenant": null}'}, {"payload": '{"tenant": ""}'}),
    ],
)  # fmt: skip
def test_what_is_listed_counts(listed, one, other):
    assert group(listed, **one) == group(listed, **one)
    assert group(listed, **one) != group(listed, **other)


def test_a_message_counts_without_its_variable_parts():
    assert group("error.message", error="took 3 s") == group("error.message", error="took 45 s")


@pytest.mark.parametrize("payload", ["no JSON", "[1]", '{"job": 1}', '{"other": {}}', "[" * 500 + "]" * 500])
def test_what_an_event_does_not_have_is_one_group(payload):
    assert group("payload.job.tenant", payload=payload) == group("payload.job.tenant", payload="{}")


def test_every_name_has_a_value():
    arrival = make.arrived()

    assert len({own_fingerprint(arrival, [name]) for name in NAMES}) == len(NAMES)


def test_the_plan_of_a_rerun_remembers_it():
    text = f"{RULE}    rerun: {{max_attempts: 1}}\n    fingerprint: function\n"
    arrival = make.arrived()
    result = decided(arrival, decide(arrival, Facts(), load_rules([SourceText("r.yaml", text)]), now=make.NOW))
    (row,) = result.changes.rows

    assert row.payload["alert"]["labels"]["fingerprint"] == own_fingerprint(arrival, ["function"])


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("    alert: {}\n    fingerprint: functoin\n", "5:18: failures have no 'functoin' to be told apart by (did you mean 'function'?)"),
        ("    alert: {}\n    fingerprint: [function, payload.]\n", "5:29: failures have no 'payload.' to be told apart by"),
        ("    alert: {}\n    fingerprint: []\n", "5:18: an empty list (leave the key out for its default)"),
        ("    alert: {group_by: function}\n    fingerprint: function\n", "5:5: no alert of this rule is grouped by its fingerprint"),
        ("    ignore: x\n    fingerprint: function\n", "5:5: no alert of this rule is grouped by its fingerprint"),
    ],
)  # fmt: skip
def test_mistakes_are_told(body, told):
    with pytest.raises(RulesInvalid) as caught:
        load_rules([SourceText("r.yaml", RULE + body)])

    assert str(caught.value).startswith(f"r.yaml:{told}")
