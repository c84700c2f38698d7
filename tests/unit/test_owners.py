"""Whom alerts go to whose rule names no receiver, and rules that want one receiver to hear of one group."""

from datetime import timedelta

import make
import pytest

from triage.decide import decide
from triage.effects import decided
from triage.facts import Facts
from triage.rules.model import AlertPolicy, SourceText
from triage.rules.owners import by_owner, owned, owners_then
from triage.rules.source import load_rules

OWNERS = {"media": ("chat", "phone")}


def rules(*entries):
    text = "version: 1\nrules:\n" + "".join(f"  - {entry}\n" for entry in entries)
    return load_rules([SourceText("r.yaml", text)])


@pytest.mark.parametrize(
    ("entry", "to"),
    [
        ("{id: a, owner: media, alert: {}}", ("chat", "phone")),
        ("{id: a, owner: media, alert: {to: default}}", ("default",)),
        ("{id: a, owner: media, alert: {to: ops}}", ("ops",)),
        ("{id: a, owner: pay, alert: {}}", ("default",)),
        ("{id: a, alert: {}}", ("default",)),
    ],
)
def test_the_owner_is_told_where_a_rule_names_nobody(entry, to):
    (rule,) = owned(rules(entry), OWNERS).rules
    assert rule.alert.to == to


def test_the_owner_hears_of_what_a_rule_without_alert_could_not_mend():
    (rule,) = owned(rules("{id: a, owner: media, rerun: {max_attempts: 1, give_up_after: 1h}}"), OWNERS).rules
    assert rule.alert is None
    plan = decided(make.arrived(), decide(make.arrived(), Facts(), make.rules(rule), now=make.NOW)).changes.rows[0]
    assert plan.payload["alert"]["to"] == ["chat", "phone"]


def test_they_are_made_anew_only_when_rules_or_owners_change():
    both = [rules("{id: a, owner: media, alert: {}}"), OWNERS]
    current = by_owner(lambda: both[0], lambda: both[1])
    first = current()
    assert current() is first
    both[1] = {}
    assert current() is both[0]
    both[0] = rules("{id: b, alert: {}}")
    assert current() is both[0]


def told(*policies):
    """Whom each rule tells, in groups of which labels."""
    several = [
        make.rule(f"r{number}", alert=policy, more={"continues": number < len(policies) - 1})
        for number, policy in enumerate(policies)
    ]
    arrival = make.arrived()
    found = decided(arrival, decide(arrival, Facts(), make.rules(*several), now=make.NOW))
    return [(alert.group.labels["rule"], alert.group.receivers) for alert in found.changes.alerts]


def test_of_two_rules_that_tell_one_receiver_of_one_group_the_one_that_decided_does():
    policy = AlertPolicy(to=("ops", "boss"), group_wait=timedelta(0))
    assert told(policy, AlertPolicy(to=("ops",))) == [("r1", ("ops",)), ("r0", ("boss",))]
    assert told(policy, AlertPolicy(to=("boss", "ops"))) == [("r1", ("boss", "ops"))]


def test_rules_that_group_otherwise_tell_of_other_groups():
    found = told(AlertPolicy(to=("ops",)), AlertPolicy(to=("ops",), group_by=("function",)))
    assert len(found) == 2


def test_whom_an_owners_alerts_went_to_is_known_from_what_was_told():
    known = rules("{id: a, owner: media, alert: {}}", "{id: b, owner: pay, alert: {to: ops}}", "{id: c, alert: {}}")
    told = [("a", ["chat"]), ("b", ["ops"]), ("c", ["default"]), ("gone", ["x"])]
    assert owners_then(known, told) == {"media": ("chat",)}
