"""How a plan goes on: by what people say of it, and by the results of its re-runs. Pure.

A plan that is applied has one outbox row. Each time it is due, `plan_step` looks at what came of the items that are
ordered, and orders more when the step has room; all that is one transaction. The row lives as long as results are
awaited, also when the plan is paused, stopped or cancelled, so that each item gets its result. Of a plan that is
stopped or cancelled, what was ordered and not submitted yet, since it waits at a gate, is called back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from triage.changes import AlertGroup, Changes, NewAlert, NewRow, RowKind, Settle
from triage.deed import Deed
from triage.effects import alert_group
from triage.errors import IllegalTransition, PlanRefused, TooLate
from triage.orders import Limits, Order, Refused, place
from triage.reactions import called_back
from triage.reruns.lineage import Origin
from triage.reruns.plan import (
    AT_WORK,
    MAX_AGE,
    ItemChange,
    ItemState,
    OrderedItem,
    Plan,
    PlanChange,
    PlanEvent,
    PlanState,
    Verdict,
    WaitingItem,
    advance_plan,
    judge,
    result_of,
)
from triage.rules.course import ONE_BY_ONE
from triage.rules.model import AlertPolicy, Cause
from triage.views import OutboxRow, RowFacts

LOOK_AGAIN: Final = timedelta(seconds=2)
"""How often the results of a step are looked at."""


def about(plan: Plan) -> str:
    """What deeds about a plan are kept under."""
    return f"plan:{plan.hash}"


@dataclass(frozen=True, slots=True)
class Say:
    """Who says something of a plan, and why."""

    by: str
    reason: str


def applied(
    plan: Plan,
    say: Say,
    *,
    threshold: int,
    sizes: tuple[int, ...],
    to: tuple[str, ...],
    now: datetime,
    max_age: timedelta = MAX_AGE,
) -> Changes:
    """Begin. The daemon takes it up.

    Raises:
        PlanRefused: it was applied before, or is too old.
    """
    if plan.state is PlanState.PLANNED and now - plan.created_at > max_age:
        raise PlanRefused(
            f"plan {plan.short} was made at {plan.created_at:%Y-%m-%d %H:%M}Z, and much may have changed since: "
            "make a new one with `triage plan`"
        )
    begun = replace(plan, by=say.by, reason=say.reason, threshold=threshold, sizes=sizes, to=to, step=1, rung=0)
    return _said(begun, PlanEvent.APPLY, say, now=now, runs=True)


def paused(plan: Plan, say: Say, *, now: datetime) -> Changes:
    """Order nothing more for the time being. What is ordered gets its result.

    Raises:
        PlanRefused: it does not run.
    """
    return _said(plan, PlanEvent.PAUSE, say, now=now)


def resumed(plan: Plan, say: Say, *, now: datetime) -> Changes:
    """Go on: with the step that was paused, or, when the plan had stopped by itself, carefully with a new first one.

    Raises:
        PlanRefused: it is neither paused nor stopped.
    """
    if plan.state is PlanState.STOPPED:
        plan = replace(plan, step=plan.step + 1, rung=0)
    return _said(plan, PlanEvent.RESUME, say, now=now, runs=True)


def cancelled(plan: Plan, say: Say, *, now: datetime) -> Changes:
    """Order nothing more, for good. What is submitted gets its result; what is only ordered is called back.

    Raises:
        PlanRefused: it is over already.
    """
    return _said(plan, PlanEvent.CANCEL, say, now=now, runs=plan.state in AT_WORK)


def planned(plan: Plan, say: Say, *, now: datetime) -> Changes:
    """Freeze a draft: from here on it is what it is. ``plan`` has its hash already."""
    frozen = replace(plan, state=advance_plan(plan.state, PlanEvent.FREEZE), changed_at=now)
    return Changes(deeds=(Deed(say.by, "plan", say.reason, about=about(plan)),), plan=PlanChange(frozen))


def _said(plan: Plan, event: PlanEvent, say: Say, *, now: datetime, runs: bool = False) -> Changes:
    try:
        state = advance_plan(plan.state, event)
    except IllegalTransition:
        raise PlanRefused(f"plan {plan.short} cannot be {_PARTICIPLES[event]}: it is {plan.state}") from None
    moved = replace(plan, state=state, note=f"{_PARTICIPLES[event]} by {say.by}: {say.reason}", changed_at=now)
    row = NewRow(row_key(plan), RowKind.PLAN_STEP, now, {"plan": plan.hash}, anew=True)
    return Changes(
        rows=(row,) if runs else (),
        deeds=(Deed(say.by, f"plan {event}", say.reason, about=about(plan)),),
        plan=PlanChange(moved),
    )


_PARTICIPLES: Final = {
    PlanEvent.APPLY: "applied",
    PlanEvent.PAUSE: "paused",
    PlanEvent.RESUME: "resumed",
    PlanEvent.CANCEL: "cancelled",
}


def row_key(plan: Plan) -> str:
    """Key of the outbox row that carries out a plan."""
    return f"plan:{plan.hash}"


def plan_step(_row: OutboxRow, facts: RowFacts, *, limits: Limits, now: datetime) -> Settle:
    """Collect results; then judge the step, and order what it has room for."""
    view = facts.plan
    if view is None:
        return Settle.dead(note="the plan is gone")
    collected = [item for item in map(_collected, view.ordered) if item is not None]
    known = {change.id: change.after for change in collected}
    step = [known.get(item.id, item.state) for item in view.ordered if item.step == view.plan.step]
    open_items = [item for item in view.ordered if known.get(item.id, item.state) is ItemState.ORDERED]
    plan = replace(view.plan, changed_at=now) if collected else view.plan
    if plan.state is not PlanState.RUNNING:
        return _awaits(plan, collected, open_items, facts.ordered, now=now)
    left = plan.counts.get(ItemState.WAITING, 0)
    match judge(step, size=plan.step_size, more=left > 0, threshold=plan.threshold):
        case Verdict.BAD:
            return _stopped(plan, step, collected, open_items, facts.ordered, now=now)
        case Verdict.PASSED if left:
            note = f"step {plan.step} passed: {step.count(ItemState.SUCCEEDED)} of {len(step)} succeeded"
            grown = replace(plan, step=plan.step + 1, rung=min(plan.rung + 1, len(plan.sizes) - 1), note=note)
            return _again(grown, collected, due_at=now, now=now)
        case Verdict.PASSED if not open_items:
            finished = replace(plan, state=advance_plan(plan.state, PlanEvent.FINISH), note="nothing is left to do")
            return Settle.done(note="done", changes=_changes(finished, collected, now=now))
    return _ordered(plan, view.waiting, collected, limits=limits, now=now)


def _collected(item: OrderedItem) -> ItemChange | None:
    """The result of an item that had none, if it is there."""
    if item.state is not ItemState.ORDERED:
        return None
    result = result_of(item.lineage, attempt=item.attempt)
    return None if result is ItemState.ORDERED else ItemChange(item.id, item.state, result)


def _awaits(
    plan: Plan,
    collected: Sequence[ItemChange],
    open_items: Sequence[OrderedItem],
    reruns: Sequence[OutboxRow],
    *,
    now: datetime,
) -> Settle:
    """A plan that orders nothing more; what it has submitted still gets its results."""
    back = {} if plan.state is PlanState.PAUSED else _called_back(plan, open_items, reruns)
    items = (*collected, *(change for change, _ in back.values()))
    settle = (
        _again(plan, items, due_at=now + LOOK_AGAIN, now=now)
        if any(item.id not in back for item in open_items)
        else Settle.done(note=f"the plan is {plan.state}", changes=_changes(plan, items, now=now))
    )
    return replace(settle, changes=_merged([changes for _, changes in back.values()], settle.changes))


def _called_back(
    plan: Plan, open_items: Sequence[OrderedItem], reruns: Sequence[OutboxRow]
) -> dict[int, tuple[ItemChange, Changes]]:
    """By item what becomes of it: all that were not submitted wait again, and are told to a person."""
    rows = {row.root: row for row in reruns}
    back = {}
    for item in open_items:
        row = rows.get(item.lineage.root) if item.lineage else None
        if row is None or row.payload["attempt"] != item.attempt:
            continue
        try:
            settle = called_back(row, item.lineage, f"called back: plan {plan.short} is {plan.state}")
        except TooLate:
            continue
        # The attempt is used up: its number is in the record, and another order gets the next one.
        change = ItemChange(item.id, ItemState.ORDERED, ItemState.WAITING, attempt=item.attempt, step=0)
        back[item.id] = change, replace(settle.changes, cancel=(row.key,))
    return back


def _stopped(
    plan: Plan,
    step: Sequence[ItemState],
    collected: Sequence[ItemChange],
    open_items: Sequence[OrderedItem],
    reruns: Sequence[OutboxRow],
    *,
    now: datetime,
) -> Settle:
    failed = step.count(ItemState.FAILED)
    note = f"{failed} of {len(step)} re-runs of step {plan.step} failed; {plan.threshold} % have to succeed"
    stopped = replace(plan, state=advance_plan(plan.state, PlanEvent.STOP), note=note)
    settle = _awaits(stopped, collected, open_items, reruns, now=now)
    left = plan.counts.get(ItemState.WAITING, 0) + len(settle.changes.cancel)
    alert = NewAlert(_group(plan, note), "", plan.short, Cause.PLAN_STOPPED, f"{left} are left, and are kept")
    return replace(settle, note=note, changes=replace(settle.changes, alerts=(alert, *settle.changes.alerts)))


def _group(plan: Plan, note: str) -> AlertGroup:
    labels = {
        "function": "",
        "condition": "plan stopped",
        "error_type": "",
        "error_message": note,
        "fingerprint": f"plan/{plan.hash}",
        "rule": "",
        "owner": plan.by,
        "runbook": "",
    }
    policy = AlertPolicy(
        to=plan.to,
        group_by=("fingerprint",),
        group_wait=timedelta(0),
        group_interval=timedelta(minutes=1),
        course=ONE_BY_ONE,
    )
    return alert_group(labels, policy)


def _ordered(
    plan: Plan, waiting: Sequence[WaitingItem], collected: Sequence[ItemChange], *, limits: Limits, now: datetime
) -> Settle:
    """Order what waits; what has changed since the plan was made is skipped, with the reason."""
    order = Order(Origin.PLAN, plan.by, f"plan {plan.short}: {plan.reason}", now, plan.qualifier)
    items = list(collected)
    several: list[Changes] = []
    for item in waiting:
        skipped = _changed(item)
        answer = None if skipped else place(order, item.stored, limits=limits, now=now)
        if answer is None or isinstance(answer, Refused):
            reason = skipped if answer is None else f"{answer.why}: {answer.detail}"
            items.append(ItemChange(item.id, ItemState.WAITING, ItemState.SKIPPED, reason))
        else:
            attempt = answer.lineage.attempt
            items.append(ItemChange(item.id, ItemState.WAITING, ItemState.ORDERED, attempt=attempt, step=plan.step))
            several.append(answer.changes)
    # When all were skipped the step still has room: no need to wait before looking at the next.
    due_at = now if waiting and not several else now + LOOK_AGAIN
    settle = _again(plan, items, due_at=due_at, now=now)
    return replace(settle, changes=_merged(several, settle.changes))


def _changed(item: WaitingItem) -> str:
    """What has happened to a failure since the plan was made; empty when it is as it was."""
    lineage = item.stored.lineage if item.stored else None
    if lineage is None or lineage.attempt == item.attempt:
        return ""
    return f"changed: it has been run again meanwhile (re-run {lineage.attempt})"


def _merged(several: Sequence[Changes], last: Changes) -> Changes:
    return replace(
        last,
        lineages=tuple(lineage for changes in several for lineage in changes.lineages),
        links=tuple(link for changes in several for link in changes.links),
        rows=tuple(row for changes in several for row in changes.rows),
        alerts=tuple(alert for changes in several for alert in changes.alerts),
        cancel=tuple(key for changes in several for key in changes.cancel),
        deeds=tuple(deed for changes in several for deed in changes.deeds),
    )


def _again(plan: Plan, items: Sequence[ItemChange], *, due_at: datetime, now: datetime) -> Settle:
    return Settle.retry(due_at=due_at, note=f"step {plan.step}", changes=_changes(plan, items, now=now))


def _changes(plan: Plan, items: Sequence[ItemChange], *, now: datetime) -> Changes:
    return Changes(plan=PlanChange(replace(plan, changed_at=now), tuple(items)))
