"""What a re-run has to pass at the moment it is submitted: a claimed row goes, or waits at a gate. Pure.

What was decided an hour ago may be wrong by now, so nothing is asked earlier. A row that waits is not claimed again
until it may go, and it never waits past its ``give_up_at``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from triage.changes import Changes, Decided, NewRow, RowKind, Settle
from triage.drills import is_drill
from triage.envelope import Outcome
from triage.reactions import ended, give_up_at
from triage.reruns import breaker, budget, rate
from triage.reruns.breaker import BreakerState
from triage.reruns.gate import Gate, GateFacts, Heard, Safeguards, Standing
from triage.reruns.lineage import Origin
from triage.reruns.switches import stopping
from triage.rules.model import Cause
from triage.states import Event, RowState
from triage.views import OutboxRow, RowFacts

_LOOK: Final = timedelta(seconds=5)
"""How often it is looked, while re-runs of a function are let go."""

_MOST: Final = 100
"""How many are let go at a look."""

_LATE: Final = timedelta(seconds=5)
"""A slot that passed longer ago than this is void: after an outage of ours the slots of an hour would be one burst."""


def admitted(row: OutboxRow, facts: RowFacts, *, guards: Safeguards, now: datetime) -> Settle:
    """Whether a re-run may be submitted now."""
    gates = facts.gates or GateFacts()
    rule = row.payload["alert"]["labels"]["rule"]
    if (switch := stopping(gates.switches, function=row.function, rule=rule)) is not None:
        note = f"{switch} switched off by {switch.by} at {switch.at:%Y-%m-%d %H:%M:%SZ}: {switch.reason}"
        return _waits(row, facts, Gate.SWITCH, note, now=now)
    own = gates.own if is_drill(row.root) else _judged(gates.own, guards, now)
    left = own.budget
    automatic = row.payload.get("origin", Origin.AUTOMATIC) == Origin.AUTOMATIC and not is_drill(row.root)
    if automatic:  # what a person wants is the person's to answer for
        if not breaker.admits(own.breaker, now=now):
            return _waits_for_breaker(row, facts, own, now=now)
        after = budget.spent(left, guards.budget, now=now, share=row.payload.get("budget"))
        if after is None:
            return _waits_for_budget(row, facts, own, guards, now=now)
        left = after
    pace, every = own.pace, gates.every.pace
    if row.gate is not Gate.RATE or not _holds(row, every, now=now):
        if row.gate is not Gate.FUNCTION_RATE or not _holds(row, pace, now=now):
            pace, slot = rate.reserve(pace, guards.function_rate, now=now)
            if slot > now:
                own = replace(own, pace=pace)
                return _waits_for_slot(row, facts, Gate.FUNCTION_RATE, slot, own, now=now)
        every, slot = rate.reserve(every, guards.rate, now=now)
        if slot > now:
            standings = (replace(own, pace=pace), replace(gates.every, pace=every))
            return _waits_for_slot(row, facts, Gate.RATE, slot, *standings, now=now)
    tried = breaker.submitted(own.breaker, guards.breaker, now=now) if automatic else own.breaker
    own = replace(own, pace=pace, budget=left, breaker=tried)
    return Settle.go(changes=Changes(standings=(own, replace(gates.every, pace=every))))


def dry(row: OutboxRow, facts: RowFacts, *, guards: Safeguards, now: datetime) -> Settle:
    """The re-run of a drill, which is not submitted: taken as failed, and told with what would hinder one."""
    would = admitted(replace(row, root=""), facts, guards=guards, now=now)
    hindered = f"a real one would wait at the gate {would.gate}: {would.note}" if would.gate else "nothing hinders one"
    return ended(row, facts, Event.REFUSED, Cause.EXHAUSTED, f"a drill: the re-run is not submitted; {hindered}")


def woken(row: OutboxRow, facts: RowFacts, *, guards: Safeguards, now: datetime) -> Settle:
    """Let go what may go of a function's re-runs that wait for its breaker or its budget, the oldest first."""
    gates = facts.gates or GateFacts()
    if not gates.waiting:
        return Settle.done(note="nothing waits")
    own = _judged(gates.own, guards, now)
    if not breaker.admits(own.breaker, now=now):
        note = f"the breaker is {own.breaker.state}"
        return Settle.retry(due_at=_probe_at(own, now), note=note, changes=Changes(standings=(own,)))
    if own.breaker.state is not BreakerState.CLOSED:
        number, due_at = 1, now + _LOOK
    elif number := min(int(budget.left(own.budget, guards.budget, now=now)), _MOST):
        due_at = now + _LOOK
    else:
        due_at = max(budget.next_at(own.budget, guards.budget, now=now), now + _LOOK)
    note = f"{gates.waiting} waited; the oldest {min(number, gates.waiting)} may go"
    return Settle.retry(due_at=due_at, note=note, changes=Changes(standings=(own,), wake=(row.function, number)))


def throttled(
    settle: Settle, facts: RowFacts, *, guards: Safeguards, now: datetime, retry_after: timedelta | None
) -> Settle:
    """The far side has refused a submit because there were too many of this function: they go more slowly."""
    if facts.gates is None:
        return settle
    own = facts.gates.own
    pace = rate.throttled(own.pace, guards.function_rate, now=now, retry_after=retry_after)
    return _with(settle, replace(own, pace=pace))


def counted(settle: Settle, facts: RowFacts, *, succeeded: bool) -> Settle:
    """How a submit, or a re-run of which no result is to come, has ended, for the function's breaker."""
    if facts.gates is None or (facts.lineage is not None and is_drill(facts.lineage.root)):
        return settle
    own = facts.gates.own
    return _with(settle, replace(own, breaker=breaker.counted(own.breaker, succeeded=succeeded)))


def concluded(settle: Settle, facts: RowFacts) -> Settle:
    """The same, of a row that asked how a re-run has ended, if that is known now."""
    return counted(settle, facts, succeeded=settle.state is RowState.DONE) if settle.changes.lineages else settle


def heard(decided: Iterable[Decided]) -> list[Heard]:
    """What the results of a batch tell of each function: successes of first runs, and how re-runs have ended."""
    found: dict[str, list[int]] = {}
    for item in decided:
        if not item.counts:
            continue
        failed = item.arrival.envelope.outcome is Outcome.FAILED
        rerun = item.decision.facts.lineage is not None
        if not rerun and failed:
            continue
        function = item.arrival.envelope.function.label
        successes, ok, bad, streak = found.get(function, (0, 0, 0, 0))
        if not rerun:
            successes += 1
        elif failed:
            bad, streak = bad + 1, streak + 1
        elif item.arrival.envelope.outcome is Outcome.SUCCEEDED:
            ok, streak = ok + 1, 0
        found[function] = [successes, ok, bad, streak]
    return [Heard(function, *numbers) for function, numbers in found.items()]


def _judged(own: Standing, guards: Safeguards, now: datetime) -> Standing:
    state = breaker.judged(own.breaker, guards.breaker, now=now)
    closes = state.state is BreakerState.CLOSED and own.breaker.state is not BreakerState.CLOSED
    return replace(own, breaker=state, pace=rate.slowed(own.pace, now=now) if closes else own.pace)


def _holds(row: OutboxRow, pace: rate.Pace, *, now: datetime) -> bool:
    """Whether the slot that the row has waited for is still its own."""
    return row.payload.get("slot") == _of(pace) and now - row.due_at <= _LATE


def _of(pace: rate.Pace) -> str:
    return "" if pace.since is None else pace.since.isoformat()


def _waits_for_breaker(row: OutboxRow, facts: RowFacts, own: Standing, *, now: datetime) -> Settle:
    until = own.breaker.until or now
    what = "its re-runs fail" if own.breaker.state is BreakerState.OPEN else "a probe is under way"
    note = f"the breaker of {row.function} is {own.breaker.state}: {what}; the next probe is at {until:%H:%M:%SZ}"
    return _waits(row, facts, Gate.BREAKER, note, own, wake_at=_probe_at(own, now), now=now)


def _probe_at(own: Standing, now: datetime) -> datetime:
    """When to look at a breaker again: while a probe is under way, its result may come at any time."""
    until = own.breaker.until or now
    return min(until, now + _LOOK) if own.breaker.state is BreakerState.HALF_OPEN else until


def _waits_for_budget(row: OutboxRow, facts: RowFacts, own: Standing, guards: Safeguards, *, now: datetime) -> Settle:
    wake_at = budget.next_at(own.budget, guards.budget, now=now)
    note = f"{row.function} has used up its budget of re-runs; its successes, and time, give more"
    return _waits(row, facts, Gate.BUDGET, note, own, wake_at=wake_at, now=now)


def _waits_for_slot(
    row: OutboxRow, facts: RowFacts, gate: Gate, slot: datetime, *standings: Standing, now: datetime
) -> Settle:
    of = standings[-1].pace
    settle = _waits(row, facts, gate, f"its turn is at {slot:%H:%M:%SZ}", *standings, until=slot, now=now)
    return replace(settle, payload={**row.payload, "slot": _of(of)}) if settle.gate else settle


def _waits(
    row: OutboxRow,
    facts: RowFacts,
    gate: Gate,
    note: str,
    *standings: Standing,
    until: datetime | None = None,
    wake_at: datetime | None = None,
    now: datetime,
) -> Settle:
    last = give_up_at(row)
    if now >= last:
        return ended(row, facts, Event.REFUSED, Cause.EXHAUSTED, f"could not be submitted in time: {note}")
    rows: tuple[NewRow, ...] = ()
    if wake_at is not None:
        payload = {"function": row.payload["function"]}
        rows = (NewRow(f"wake:{row.function}", RowKind.WAKE, wake_at, payload, sooner=True),)
    changes = Changes(standings=standings, rows=rows)
    return Settle.wait(gate, due_at=min(until or last, last), note=note, changes=changes)


def _with(settle: Settle, standing: Standing) -> Settle:
    return replace(settle, changes=replace(settle.changes, standings=(standing,)))
