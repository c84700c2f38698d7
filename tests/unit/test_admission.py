"""What a re-run has to pass when it is submitted."""

from dataclasses import replace
from datetime import timedelta

import make
import pytest

from triage.admission import admitted
from triage.changes import RowFacts, Settle
from triage.decide import decide
from triage.effects import decided
from triage.facts import Facts
from triage.reruns.gate import Gate, GateFacts
from triage.reruns.switches import Scope, Switch, stopping
from triage.rules.model import Cause
from triage.states import RowState, State

NOW = make.NOW
DUE = NOW + timedelta(minutes=2)


def planned(**fields):
    """A claimed re-run row, and its lineage."""
    arrival = make.arrived(make.envelope("r1", **fields))
    rules = make.rules(make.rule("again", rerun=make.RERUN, alert=make.ALERT))
    found = decided(arrival, decide(arrival, Facts(), rules, now=NOW))
    (row,), (lineage,) = found.changes.rows, found.changes.lineages
    return replace(make.claimed(row), function=arrival.envelope.function.label), lineage.written()


def off(scope=Scope.ALL, pattern=""):
    return Switch(scope, pattern, "alice", "incident 42", NOW)


def at_the_gates(*switches, now=DUE, **payload):
    row, lineage = planned()
    row = replace(row, payload={**row.payload, **payload})
    return admitted(row, RowFacts(lineage=lineage, gates=GateFacts(switches)), now=now)


def test_where_nothing_is_in_the_way_it_goes():
    assert at_the_gates() == Settle.go()


@pytest.mark.parametrize(
    ("switch", "stops"),
    [
        (off(), True),
        (off(Scope.FILE), True),
        (off(Scope.FUNCTION, "my-fc-job"), True),
        (off(Scope.FUNCTION, "my-*"), True),
        (off(Scope.FUNCTION, "/^my/"), True),
        (off(Scope.FUNCTION, "img-*"), False),
        (off(Scope.RULE, "again"), True),
        (off(Scope.RULE, "aga*"), True),
        (off(Scope.RULE, "my-fc-job"), False),
    ],
    ids=lambda value: f"{value.scope} {value.pattern}" if isinstance(value, Switch) else "",
)
def test_a_switch_stops_what_it_names(switch, stops):
    settle = at_the_gates(off(Scope.FUNCTION, "other"), switch)
    assert (settle.gate is Gate.SWITCH) == stops
    assert settle.goes != stops


def test_a_function_in_a_service_is_named_as_in_rules():
    assert stopping([off(Scope.FUNCTION, "job")], function="media/job", rule="")
    assert stopping([off(Scope.FUNCTION, "media/*")], function="media/job", rule="")
    assert not stopping([off(Scope.FUNCTION, "media/*")], function="job", rule="")


def test_who_waits_at_a_switch_says_why_and_waits_until_it_is_on_or_too_late():
    settle = at_the_gates(off(Scope.FUNCTION, "my-*"))
    assert settle.note == "function my-* switched off by alice at 2026-03-01 12:00:00Z: incident 42"
    assert settle.due_at == NOW + make.RERUN.give_up_after
    assert settle.state is RowState.PENDING
    assert settle.changes.lineages == ()


@pytest.mark.parametrize(
    ("switches", "payload"),
    [((off(),), {}), ((), {"paused": {"note": "paused by bob: wait"}})],
    ids=["switch", "paused"],
)
def test_nothing_waits_for_ever(switches, payload):
    settle = at_the_gates(*switches, now=NOW + make.RERUN.give_up_after, **payload)
    assert settle.state is RowState.DEAD
    (moved,), (alert,) = settle.changes.lineages, settle.changes.alerts
    assert moved.state is State.ALERTING
    assert alert.cause is Cause.EXHAUSTED
    assert alert.detail.startswith("could not be submitted in time: ")


def test_a_late_one_goes_when_nothing_is_in_the_way():
    assert at_the_gates(now=NOW + make.RERUN.give_up_after).goes


def test_a_paused_one_waits_though_nothing_is_switched_off():
    assert at_the_gates(paused={"note": "paused by bob: wait"}).gate is Gate.PAUSED
