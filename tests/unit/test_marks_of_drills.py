"""The mark of a drill, and what it changes in a decision and in what follows from it."""

from dataclasses import replace
from datetime import timedelta

import make
import pytest

from triage.admission import dry
from triage.alerts.compose import headed
from triage.alerts.routing import Rate, Route, routed
from triage.changes import NewRow, RowKind
from triage.decide import decide
from triage.drills import Drill, drill_id, is_drill, is_over, until_of
from triage.effects import decided
from triage.facts import Facts, Lineage, Snapshot
from triage.line import Line, Waiting
from triage.orders import Limits, Order, Refusal, refusal
from triage.reruns.gate import Gate, GateFacts, Safeguards
from triage.reruns.lineage import Origin
from triage.reruns.switches import Scope, Switch
from triage.rules.model import ABOUT_FAILURES, AlertPolicy, Cause, HoldPolicy
from triage.states import RowState, State
from triage.views import RowFacts

SOON = make.NOW + timedelta(minutes=2)
NAME = drill_id(SOON, "1")
ARRIVAL = make.arrived(make.envelope(NAME))
DRILL = Drill(NAME, ARRIVAL.envelope.digest, "ana", make.NOW)


def test_the_name_tells_that_it_is_one_and_until_when():
    assert is_drill(NAME)
    assert until_of(NAME) == SOON
    assert [is_over(NAME, at) for at in (make.NOW, SOON - timedelta(seconds=1), SOON)] == [False, False, True]
    assert not is_over("1-real", make.NOW)
    assert is_over("triage-drill-whenever", make.NOW)


def test_only_the_very_envelope_that_was_ordered_is_one():
    snapshot = Snapshot(drills={NAME: DRILL})
    other = make.arrived(make.envelope(NAME, error="something else"))
    assert snapshot.of(ARRIVAL).drill == DRILL
    assert snapshot.of(other).drill is None
    assert Snapshot(drills={"fake-1": DRILL}).of(make.arrived(make.envelope("fake-1"))).drill == DRILL, "its re-run's"


def of_drill(rule, drill=DRILL):
    decision = decide(ARRIVAL, Facts(drill=drill), make.rules(*rule), now=make.NOW)
    return decision, decided(ARRIVAL, decision)


def test_it_does_not_wait_for_its_re_run_which_is_a_dry_one():
    _, written = of_drill([make.rule(rerun=make.RERUN, alert=make.ALERT)])
    (row,) = written.changes.rows
    assert (row.due_at, row.payload["dry"]) == (make.NOW, True)
    assert not written.counts
    _, written = of_drill([make.rule(rerun=make.RERUN)], replace(DRILL, rerun=True))
    assert "dry" not in written.changes.rows[0].payload


@pytest.mark.parametrize(("on", "due"), [(ABOUT_FAILURES, SOON), (frozenset({Cause.EXHAUSTED}), make.NOW)])
def test_a_hold_ends_at_once_when_nobody_hears_of_it_before(on, due):
    hold = {"hold": HoldPolicy("paid?", timedelta(hours=9))}
    _, written = of_drill([make.rule(alert=AlertPolicy(on=on), more=hold)])
    assert [row.due_at for row in written.changes.rows] == [due]


@pytest.mark.parametrize("rule", [[], [make.rule(alert=AlertPolicy(to=("ops",)))]], ids=["no rule", "a rule"])
def test_it_has_an_alert_group_of_its_own_that_is_told_at_once(rule):
    _, real = of_drill(rule, None)
    _, first = of_drill(rule, replace(DRILL, to="boss"))
    (usual,), (group,) = ([alert.group for alert in each.changes.alerts] for each in (real, first))
    assert not is_drill(usual.key)
    assert is_drill(group.key)
    assert (group.receivers, group.group_wait, group.labels["drill"]) == (("boss",), timedelta(0), NAME)


def rerun_row(**payload):
    _, written = of_drill([make.rule(rerun=make.RERUN, alert=make.ALERT)])
    return make.claimed(written.changes.rows[0], **payload), written.changes.lineages[0].written()


@pytest.mark.parametrize(
    ("switches", "said"),
    [((), "nothing hinders one"), ((Switch(Scope.ALL, "", "ann", "a deploy", make.NOW),), "wait at the gate switch")],
)
def test_a_dry_re_run_says_what_would_hinder_a_real_one(switches, said):
    row, lineage = rerun_row()
    facts = RowFacts(lineage, gates=GateFacts(switches=switches))
    settle = dry(row, facts, guards=Safeguards(), now=make.NOW)
    assert settle.state is RowState.DEAD
    assert said in settle.note
    assert settle.changes.standings == ()
    (alert,) = settle.changes.alerts
    assert (alert.cause, is_drill(alert.group.key)) == (Cause.EXHAUSTED, True)
    assert settle.changes.lineages[0].state is State.ALERTING


def message_row(group):
    payload = {"receiver": "ops", "title": "t", "body": "b", "severity": "critical", "at": make.NOW.isoformat()}
    return make.claimed(NewRow(f"notify:{group}:1:ops", RowKind.NOTIFY, make.NOW, {**payload, "flush": 1}, group=group))


def test_a_message_goes_alone_or_not_at_all():
    line = Line(sent=(make.NOW,), waiting=(Waiting("notify:other", "info", "other", 1, make.NOW),))
    rate = Route(rate=Rate(1, timedelta(hours=1)))
    full = routed(message_row(f"{NAME}x"), RowFacts(line=line), route=rate, now=make.NOW)
    assert (full.state, full.gate) == (RowState.DEAD, None)
    assert "no more than 1 messages" in full.note
    free = routed(message_row(f"{NAME}x"), RowFacts(line=replace(line, sent=())), route=rate, now=make.NOW)
    assert free.goes
    assert free.payload is None
    real = routed(message_row("abc"), RowFacts(line=line), route=rate, now=make.NOW)
    assert real.gate is Gate.RECEIVER_RATE


def test_every_form_of_a_message_says_it_first():
    texts = {"title": "job failed", "body": "b", "forms": {"html": "<p>b</p>", "markdown": "*b*"}}
    told = headed(texts, "DRILL", "an exercise <now>")
    assert told["title"] == "DRILL: job failed"
    assert told["body"].startswith("an exercise")
    assert told["forms"]["html"].index("an exercise &lt;now&gt;") < told["forms"]["html"].index("<p>b</p>")
    assert told["forms"]["markdown"].index("an exercise") < told["forms"]["markdown"].index("*b*")


def test_it_cannot_be_run_again_by_hand():
    lineage = Lineage(NAME, State.ALERTED, 0, make.NOW, "", 1)
    answer = refusal(Order(Origin.MANUAL, "ana", "why not", make.NOW), lineage, limits=Limits())
    assert answer.why is Refusal.DRILL
