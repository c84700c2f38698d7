"""Bulk re-runs from a frozen plan: its life as a table, its steps, and when it stops by itself. Pure.

A plan is made once and never changed: it names each failure that will be run again, and its hash covers all of them. It
is carried out in steps that grow (1, 2, 5, 20, 50). A step is over when each of its re-runs has a result; when too few
of them have succeeded, the plan stops and keeps the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from triage.errors import IllegalTransition
from triage.facts import Lineage
from triage.reruns.lineage import Stored, TaskId, task_id
from triage.states import State


class PlanState(StrEnum):
    """Where a plan stands."""

    DRAFT = "draft"  # being written; whoever wrote it may have died
    PLANNED = "planned"  # frozen; nothing is done yet
    RUNNING = "running"  # the daemon works on it
    PAUSED = "paused"  # a person said so
    STOPPED = "stopped"  # too few of a step's re-runs succeeded
    CANCELLED = "cancelled"  # a person said so; for good
    DONE = "done"  # every item has its result, or was skipped


class PlanEvent(StrEnum):
    """What happens to a plan."""

    FREEZE = "freeze"
    APPLY = "apply"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    STOP = "stop"  # a step went badly
    FINISH = "finish"  # nothing is left to do


AT_WORK: Final = (PlanState.RUNNING, PlanState.PAUSED, PlanState.STOPPED)
"""Applied, and not over."""

PLAN_TRANSITIONS: Final[Mapping[tuple[PlanState, PlanEvent], PlanState]] = {
    (PlanState.DRAFT, PlanEvent.FREEZE): PlanState.PLANNED,
    (PlanState.PLANNED, PlanEvent.APPLY): PlanState.RUNNING,
    (PlanState.PLANNED, PlanEvent.CANCEL): PlanState.CANCELLED,
    (PlanState.RUNNING, PlanEvent.PAUSE): PlanState.PAUSED,
    (PlanState.RUNNING, PlanEvent.CANCEL): PlanState.CANCELLED,
    (PlanState.RUNNING, PlanEvent.STOP): PlanState.STOPPED,
    (PlanState.RUNNING, PlanEvent.FINISH): PlanState.DONE,
    (PlanState.PAUSED, PlanEvent.RESUME): PlanState.RUNNING,
    (PlanState.PAUSED, PlanEvent.CANCEL): PlanState.CANCELLED,
    (PlanState.STOPPED, PlanEvent.RESUME): PlanState.RUNNING,
    (PlanState.STOPPED, PlanEvent.CANCEL): PlanState.CANCELLED,
}


def advance_plan(state: PlanState, event: PlanEvent) -> PlanState:
    """The state after ``event``.

    Raises:
        IllegalTransition: the table has no such move.
    """
    try:
        return PLAN_TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"a plan that is {state} has no transition for {event}") from None


class ItemState(StrEnum):
    """Where one failure of a plan stands."""

    EXCLUDED = "excluded"  # matched, and left out when the plan was made, with the reason
    WAITING = "waiting"  # will be run again
    ORDERED = "ordered"  # is being run again
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"  # has changed since the plan was made, with the reason


SIZES: Final = (1, 2, 5, 20, 50)
"""Items per step; the last size is that of all further steps."""

MAX_STEP: Final = 1000
"""Items of one step, at most: they are looked at, and ordered, in one transaction each time."""

THRESHOLD: Final = 80
"""Percent of a step's re-runs that have to succeed."""

MAX_AGE: Final = timedelta(hours=24)
"""A plan that was made longer ago must be made again before it is applied."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan without its items.

    Attributes:
        hash: identifies the plan and covers all that will run (`PlanHash`); of a draft something else unique.
        by: who made it, then who applied it; with the reason.
        selection: what was asked for when it was made, by the names of the options.
        qualifier: version or alias to run; empty means the one that failed.
        counts: how many items are in which state.
        step: the number of the step that is under way, from 1; 0 before the first.
        rung: which of ``sizes`` that step has; the last one from there on.
        to: receivers of the alert when it stops.
        note: why it is in the state it is in.
        functions: how many of its failures are of which function; some, when there are very many functions.
        typical: from the submit of a re-run to its result, the median of what these functions took; None when that is
            not known.
    """

    hash: str
    state: PlanState
    created_at: datetime
    by: str
    reason: str
    selection: Mapping[str, str]
    qualifier: str = ""
    counts: Mapping[ItemState, int] = field(default_factory=dict)
    threshold: int = THRESHOLD
    sizes: tuple[int, ...] = SIZES
    step: int = 0
    rung: int = 0
    to: tuple[str, ...] = ("default",)
    note: str = ""
    changed_at: datetime | None = None
    functions: Mapping[str, int] = field(default_factory=dict)
    typical: timedelta | None = None

    @property
    def short(self) -> str:
        """The hash as people see it; commands take it, too."""
        return self.hash[:12]

    @property
    def size(self) -> int:
        """Failures that will be, or were to be, run again."""
        return sum(count for state, count in self.counts.items() if state is not ItemState.EXCLUDED)

    @property
    def step_size(self) -> int:
        """Items that the step under way orders, at most."""
        return self.sizes[min(self.rung, len(self.sizes) - 1)]


@dataclass(frozen=True, slots=True)
class PlanItem:
    """One failure of a plan, as it is written when the plan is made.

    Attributes:
        request_id: the failed invocation that its lineage ends with.
        attempt: the last attempt of its lineage.
        reason: why it is excluded.
    """

    request_id: str
    root: str
    attempt: int
    reason: str = ""

    @property
    def state(self) -> ItemState:
        """What it begins with."""
        return ItemState.EXCLUDED if self.reason else ItemState.WAITING


@dataclass(frozen=True, slots=True)
class OrderedItem:
    """A failure that a plan has ordered as ``attempt``, with its lineage as it is now."""

    id: int
    state: ItemState
    attempt: int
    step: int
    lineage: Lineage | None


@dataclass(frozen=True, slots=True)
class WaitingItem:
    """A failure that a plan is to run again, with all that an order is judged by.

    ``attempt`` is the last one of its lineage when the plan was made.
    """

    id: int
    attempt: int
    stored: Stored | None


@dataclass(frozen=True, slots=True)
class PlanView:
    """A plan at work.

    Attributes:
        ordered: the items of the step under way, and those of earlier ones that have no result yet.
        waiting: the next ones, as many as the step still has room for (`room`).
    """

    plan: Plan
    ordered: tuple[OrderedItem, ...]
    waiting: tuple[WaitingItem, ...]

    @property
    def tasks(self) -> tuple[TaskId, ...]:
        """The task ids, which are the keys of the re-runs, of the items that have no result yet."""
        found = (item for item in self.ordered if item.state is ItemState.ORDERED)
        return tuple(task_id(item.lineage.root, item.attempt) for item in found if item.lineage is not None)


@dataclass(frozen=True, slots=True)
class ItemChange:
    """One failure of a plan that goes from one state to another; ``attempt`` and ``step`` stay unless given."""

    id: int
    before: ItemState
    after: ItemState
    reason: str = ""
    attempt: int | None = None
    step: int | None = None


@dataclass(frozen=True, slots=True)
class PlanChange:
    """A plan as it is from now on (its ``counts`` follow from the items), and those of its items that change."""

    plan: Plan
    items: tuple[ItemChange, ...] = ()


class PlanHash:
    """The hash of a plan, fed item by item in their order."""

    def __init__(self, *, created_at: datetime, qualifier: str) -> None:
        """``created_at`` keeps apart plans of the same failures: each is applied once."""
        self._hash = hashlib.sha256()
        self._add((created_at.isoformat(), qualifier))

    def add(self, request_id: str, *, root: str, attempt: int) -> None:
        """The next item: the failure, its lineage, and the attempt that it ended with."""
        self._add((request_id, root, str(attempt)))

    def _add(self, parts: Sequence[str]) -> None:
        self._hash.update("\x1f".join(parts).encode("utf-8", "replace") + b"\x1e")

    def hexdigest(self) -> str:
        """The hash over all that was added, as 64 hexadecimal digits."""
        return self._hash.hexdigest()


_UNDER_WAY: Final = frozenset({State.RERUN_PENDING, State.RERUNNING, State.UNKNOWN})


def result_of(lineage: Lineage | None, *, attempt: int) -> ItemState:
    """What came of the re-run that a plan ordered as ``attempt`` of a lineage.

    A re-run that follows by rule is another attempt: the one that was ordered has failed, unless the failure is healed
    by now. What ends otherwise (refused, overdue, unknown for good) has failed as well.
    """
    if lineage is not None and lineage.state is State.HEALED:
        return ItemState.SUCCEEDED
    if lineage is not None and lineage.attempt == attempt and lineage.state in _UNDER_WAY:
        return ItemState.ORDERED
    return ItemState.FAILED


class Verdict(StrEnum):
    """How a step stands."""

    OPEN = "open"  # results are awaited, or more may be ordered
    PASSED = "passed"
    BAD = "bad"


def judge(results: Sequence[ItemState], *, size: int, more: bool, threshold: int) -> Verdict:
    """How a step stands by the states of all items it has ordered.

    A step is bad as soon as the threshold is out of reach, not only when its last result is there.

    Args:
        results: ordered, succeeded or failed; one for each.
        size: how many it orders.
        more: whether items wait that it could still order.
        threshold: percent of them that must succeed.
    """
    total = max(size, len(results)) if more else len(results)
    best = total - results.count(ItemState.FAILED)
    if 100 * best < threshold * total:
        return Verdict.BAD
    if len(results) < total or ItemState.ORDERED in results:
        return Verdict.OPEN
    return Verdict.PASSED


def room(plan: Plan, ordered: Sequence[OrderedItem]) -> int:
    """How many items the step under way may still order: none while an earlier one, that went badly, has open ends."""
    if plan.state is not PlanState.RUNNING or any(
        item.step != plan.step and item.state is ItemState.ORDERED for item in ordered
    ):
        return 0
    return max(0, plan.step_size - sum(item.step == plan.step for item in ordered))


GUESS: Final = timedelta(minutes=1)
"""How long a re-run is taken to last when none of these functions is known."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a plan will take, if all goes well.

    Attributes:
        runs: executions.
        executes: how long they run, all in all.
        steps: how many there are.
        lasts: from the first to the last result.
        guess: how long one takes is not known, but guessed.
    """

    runs: int
    executes: timedelta
    steps: int
    lasts: timedelta
    guess: bool


def estimate(plan: Plan, *, left: int | None = None) -> Estimate:
    """What is to be expected of a plan, or of the ``left`` items that it still has to order.

    The re-runs of a step run side by side, so each step takes about as long as one of them.
    """
    size = plan.size if left is None else left
    each = GUESS if plan.typical is None else plan.typical
    steps = steps_of(size, plan.sizes[min(plan.rung, len(plan.sizes) - 1) :])
    return Estimate(size, size * each, steps, steps * each, guess=plan.typical is None)


def steps_of(size: int, sizes: Sequence[int]) -> int:
    """How many steps it takes to order ``size`` items."""
    for number, step in enumerate(sizes[:-1]):
        if size <= 0:
            return number
        size -= step
    return len(sizes) - 1 + max(0, -(-size // sizes[-1]))
