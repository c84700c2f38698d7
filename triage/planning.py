"""Making a plan of re-runs: which failures, and which of them not, written down in pieces and frozen under one hash.

Failures are read, judged and written a few thousand at a time, so a plan of a million takes no more memory than a small
one. Whoever makes it may die at any time: what is left is a draft, which nobody can apply and the next plan removes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from triage.clock import Clock, token
from triage.errors import PlanRefused
from triage.facts import Facts
from triage.orders import Limits, Order, payload_problem, refusal
from triage.plans import Say, planned
from triage.reruns.lineage import Origin
from triage.reruns.plan import ItemState, Plan, PlanHash, PlanItem, PlanState
from triage.rules.expression import CelExpression
from triage.stores import FailureFilter
from triage.stores.planning import Candidate, Candidates, Plans
from triage.subject import NEED_RATES, Subject

WINDOW: Final = 2000
"""Stored envelopes that are looked at in one go."""

_FUNCTIONS: Final = 1000
"""Functions that are counted one by one; an account has hundreds, and whoever writes ARNs could make up millions."""

_OTHERS: Final = "(others)"

_ABANDONED: Final = timedelta(hours=1)
"""A draft that was begun so long ago is nobody's any more: a million failures take a few minutes."""


class PlanStore(Plans, Candidates, Protocol):
    """What making a plan needs of a store."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a plan shall hold.

    Attributes:
        which: failures by their columns.
        when: an expression over the names that rules have, for what the failure is now.
        exclude: request ids, of failures or of the lineages they belong to, that a person leaves out.
        asked: the same as it was asked for, to be kept with the plan.
        limits: what people may ask for (`triage.orders`).
    """

    which: FailureFilter
    when: CelExpression | None
    exclude: frozenset[str]
    asked: Mapping[str, str]
    qualifier: str = ""
    limits: Limits = field(default_factory=Limits)


@dataclass(slots=True)
class Unjudged:
    """Failures for which the expression had no truth value; they are no part of the plan."""

    count: int = 0
    why: str = ""


async def make_plan(
    store: PlanStore,
    selection: Selection,
    say: Say,
    *,
    clock: Clock,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> tuple[Plan, Unjudged]:
    """Make a plan and freeze it.

    Args:
        progress: called now and then with how many stored envelopes were looked at, of how many.

    Raises:
        PlanRefused: nothing matches, or nothing of it can be run again.
    """
    now = clock.now()
    for old in await store.old_drafts(now - _ABANDONED):
        await _discard(store, old)
    draft = Plan(
        hash=f"draft-{token()}",
        state=PlanState.DRAFT,
        created_at=now,
        by=say.by,
        reason=say.reason,
        selection=selection.asked,
        qualifier=selection.qualifier,
    )
    number = await store.new_plan(draft)
    try:
        return await _fill(store, number, draft, selection, say, progress=progress)
    except BaseException:
        await _discard(store, number)
        raise


async def _discard(store: Plans, draft: int) -> None:
    while not await store.discard_draft(draft):
        pass


async def _fill(
    store: PlanStore,
    number: int,
    draft: Plan,
    selection: Selection,
    say: Say,
    *,
    progress: Callable[[int, int], None],
) -> tuple[Plan, Unjudged]:
    now = draft.created_at
    low, last = await store.failure_span()
    digest = PlanHash(created_at=now, qualifier=draft.qualifier)
    functions: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    unjudged = Unjudged()
    rates_at = now if selection.when is not None and NEED_RATES.intersection(selection.when.names) else None
    for start in range(low, last + 1, WINDOW):
        end = min(start + WINDOW - 1, last)
        found = await store.candidates(selection.which, low=start, high=end, last=last, rates_at=rates_at)
        chosen = [each for each in found if _matches(each, selection.when, unjudged, now=now)]
        items = [_item(each, selection, now=now) for each in chosen]
        for item in items:
            if not item.reason:
                digest.add(item.request_id, root=item.root, attempt=item.attempt)
        _count(functions, chosen, items)
        reasons.update(item.reason.partition(":")[0] for item in items if item.reason)
        await store.add_plan_items(number, items)
        progress(end - low + 1, last - low + 1)
    if not functions:
        raise PlanRefused(_nothing(reasons, unjudged))
    typical = await store.typical_rerun([name for name, _ in functions.most_common(20)])
    frozen = replace(draft, hash=digest.hexdigest(), functions=dict(functions), typical=typical)
    await store.freeze_plan(number, planned(frozen, say, now=now), now=now)
    made = await store.plan(frozen.hash)
    assert made is not None  # noqa: S101 - it was written right now, and plans are never deleted
    return made, unjudged


def _matches(candidate: Candidate, when: CelExpression | None, unjudged: Unjudged, *, now: datetime) -> bool:
    if when is None:
        return True
    facts = Facts(lineage=candidate.lineage, group=candidate.group)
    verdict = when.evaluate(Subject(candidate.arrival, facts, now=now))
    if isinstance(verdict, str):
        unjudged.count += 1
        unjudged.why = unjudged.why or verdict
        return False
    return verdict


def _item(candidate: Candidate, selection: Selection, *, now: datetime) -> PlanItem:
    lineage = candidate.lineage
    request_id = candidate.arrival.envelope.request_id
    return PlanItem(request_id, lineage.root, lineage.attempt, _excluded(candidate, selection, now=now))


def _excluded(candidate: Candidate, selection: Selection, *, now: datetime) -> str:
    """Why a failure that matches is left out; empty when it is not."""
    lineage, request_id = candidate.lineage, candidate.arrival.envelope.request_id
    if selection.exclude & {request_id, lineage.root}:
        return "excluded: by --exclude"
    order = Order(Origin.PLAN, "", "", now)
    refused = refusal(order, lineage, limits=selection.limits)
    if refused is None and candidate.root_arrival is None:
        return "no_payload: the event it ran with is not stored any more"
    if refused is None and candidate.root_arrival is not None:
        refused = payload_problem(candidate.root_arrival.envelope)
    return f"{refused.why}: {refused.detail}" if refused else ""


def _count(functions: Counter[str], chosen: Sequence[Candidate], items: Collection[PlanItem]) -> None:
    for candidate, item in zip(chosen, items, strict=True):
        if item.state is ItemState.WAITING:
            name = candidate.arrival.envelope.function.label
            functions[name if name in functions or len(functions) < _FUNCTIONS else _OTHERS] += 1


def _nothing(reasons: Counter[str], unjudged: Unjudged) -> str:
    errors = ""
    if unjudged.count:
        errors = f" The filter could not be evaluated for {unjudged.count} of them: {unjudged.why}."
    if not reasons:
        return f"no failure matches, so there is nothing to plan.{errors}"
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return f"{reasons.total()} failures match, but none of them can be run again: {why}.{errors}"
