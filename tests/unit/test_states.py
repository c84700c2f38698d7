"""The life of a failure, and that of an outbox row: nothing waits for ever, and nothing is done twice unasked.

That their tables are all there is, is shown in `test_state_machines`.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.errors import IllegalTransition
from triage.states import (
    ACCOUNTED,
    ROW_TRANSITIONS,
    TRANSITIONS,
    WAITING,
    Event,
    RowEvent,
    RowState,
    State,
    advance,
    advance_row,
)


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


def walk(start, events, advance):
    """Whatever happens, in whatever order: a legal state after each, or the error that leaves it where it was."""
    state = start
    for event in events:
        try:
            after = advance(state, event)
        except IllegalTransition:
            continue
        yield state, event, after
        state = after


@given(st.lists(st.sampled_from(Event), max_size=30))
def test_no_life_of_a_failure_ends_in_a_place_that_is_none(events):
    for _, _, after in walk(State.NEW, events, advance):
        assert after in set(State) - {State.NEW}
        assert ACCOUNTED[after]
        # Whatever happened before: a result is legal, and a person can be told.
        assert advance(after, Event.SUCCEEDED) is State.HEALED
        assert advance(advance(after, Event.ALERT), Event.DELIVERED) is State.ALERTED


@given(st.lists(st.sampled_from(RowEvent), max_size=30))
def test_what_may_have_happened_is_never_done_again_unasked(events):
    open_states = {RowState.PENDING, RowState.UNKNOWN}
    for before, event, after in walk(RowState.PENDING, events, advance_row):
        if before is RowState.UNKNOWN:
            assert event not in (RowEvent.WENT, RowEvent.WAITED, RowEvent.RESTARTED)
        if before not in open_states:
            assert event is RowEvent.RESTARTED, "what is over begins anew, or stays over"
        assert (after in open_states) == ((after, RowEvent.CANCELLED) in ROW_TRANSITIONS)
