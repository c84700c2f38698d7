"""All lives there are, as tables: any event in any state leads to a legal state, or is refused by the domain's own error.

What is peculiar to one of them stands with its module: `test_states`, `test_breaker`, `test_plan`, `test_incidents`. Their
interplay over a store is tried in ``tests/integration/test_machines.py``.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage import incident
from triage.errors import IllegalTransition
from triage.reruns import breaker
from triage.reruns.plan import PLAN_TRANSITIONS, PlanEvent, PlanState, advance_plan
from triage.states import ROW_TRANSITIONS, TRANSITIONS, Event, RowEvent, RowState, State, advance, advance_row


@dataclass(frozen=True)
class Machine:
    """A table, the function that goes by it, where a life begins, and where it may end."""

    states: type[StrEnum]
    events: type[StrEnum]
    table: Mapping[tuple[StrEnum, StrEnum], StrEnum]
    advance: Callable[[StrEnum, StrEnum], StrEnum]
    begin: StrEnum
    ends: frozenset[StrEnum] = frozenset()


MACHINES = {
    "lineage": Machine(State, Event, TRANSITIONS, advance, State.NEW),
    "outbox row": Machine(RowState, RowEvent, ROW_TRANSITIONS, advance_row, RowState.PENDING),
    "breaker": Machine(
        breaker.BreakerState,
        breaker.BreakerEvent,
        breaker.TRANSITIONS,
        breaker.advance,
        breaker.BreakerState.CLOSED,
    ),
    "plan": Machine(
        PlanState,
        PlanEvent,
        PLAN_TRANSITIONS,
        advance_plan,
        PlanState.DRAFT,
        frozenset({PlanState.DONE, PlanState.CANCELLED}),
    ),
    "incident": Machine(
        incident.GroupState,
        incident.GroupEvent,
        incident.TRANSITIONS,
        incident.advance,
        incident.GroupState.WAITING,
    ),
}
each = pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)


@each
def test_the_table_is_all_there_is(machine):
    """Every pair, so that a move that somebody adds beside the table is found."""
    for state, event in itertools.product(machine.states, machine.events):
        if (state, event) in machine.table:
            assert machine.advance(state, event) is machine.table[state, event]
        else:
            with pytest.raises(IllegalTransition, match=str(state)):
                machine.advance(state, event)


@each
def test_every_state_can_be_reached_and_left_but_the_last_ones(machine):
    reached = {machine.begin}
    while more := {after for (state, _), after in machine.table.items() if state in reached} - reached:
        reached |= more
    assert reached == set(machine.states)
    assert {state for state, _ in machine.table} == set(machine.states) - machine.ends


@each
@given(data=st.data())
def test_whatever_happens_in_whatever_order_is_a_legal_state_or_the_domains_own_error(machine, data):
    state = data.draw(st.sampled_from(machine.states))
    for event in data.draw(st.lists(st.sampled_from(machine.events), max_size=20)):
        try:
            after = machine.advance(state, event)
        except IllegalTransition:
            continue
        assert after in machine.states
        assert state not in machine.ends
        state = after
