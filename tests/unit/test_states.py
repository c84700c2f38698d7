"""The life of a failure: every pair of state and event is either in the table or an error, and nothing is a dead end."""

import itertools

import pytest

from triage.errors import IllegalTransition
from triage.states import TRANSITIONS, WAITING, Event, State, advance


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_the_table_is_all_there_is(state, event):
    if (state, event) in TRANSITIONS:
        assert advance(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransition):
            advance(state, event)


def test_nothing_becomes_new_again():
    assert State.NEW not in TRANSITIONS.values()


@pytest.mark.parametrize("state", [state for state in State if state is not State.NEW])
def test_a_late_result_is_legal_in_every_stored_state(state):
    for event in (Event.SUCCEEDED, Event.RERUN, Event.ALERT, Event.IGNORE, Event.HOLD):
        assert (state, event) in TRANSITIONS


@pytest.mark.parametrize("state", sorted(WAITING))
def test_nothing_waits_for_ever(state):
    reachable = {target for (origin, _), target in TRANSITIONS.items() if origin is state}
    assert State.ALERTING in reachable
