"""What a store offers for plans of re-runs beside `triage.stores.Store`: to those who make, look at and steer them.

The daemon needs none of it: a plan at work is an outbox row, and comes and goes with `triage.stores.Store.settle`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from triage.changes import Changes
from triage.facts import Arrival, GroupFacts, Lineage
from triage.reruns.plan import ItemState, Plan, PlanItem
from triage.stores import FailureFilter


@dataclass(frozen=True, slots=True)
class Candidate:
    """A failure that a plan may hold: the newest of its lineage.

    Attributes:
        root_arrival: the first one of its lineage, whose event is run again; None when it is gone.
    """

    arrival: Arrival
    root_arrival: Arrival | None
    lineage: Lineage
    group: GroupFacts | None


@dataclass(frozen=True, slots=True)
class PlanItemRow:
    """One failure of a plan as listed. ``attempt`` is the one that the plan ordered, if it has."""

    id: int
    request_id: str
    root: str
    attempt: int
    state: ItemState
    step: int
    reason: str


class Plans(Protocol):
    """Plans of re-runs: made in bounded pieces, read in bounded pieces, steered in one transaction each."""

    async def new_plan(self, draft: Plan) -> int:
        """Begin a draft; its number."""
        ...

    async def add_plan_items(self, draft: int, items: Sequence[PlanItem]) -> None:
        """Write the next items of a draft."""
        ...

    async def freeze_plan(self, draft: int, changes: Changes, *, now: datetime) -> None:
        """Make a draft the plan that ``changes.plan`` says, hash and all."""
        ...

    async def old_drafts(self, before: datetime) -> list[int]:
        """Drafts that were begun before: whoever began them has died."""
        ...

    async def discard_draft(self, draft: int) -> bool:
        """Delete a piece of a draft, at last the draft itself. False: something is left; call again."""
        ...

    async def move_plan(self, plan: str, react: Callable[[Plan], Changes], *, now: datetime) -> Plan | None:
        """Read a plan, ask ``react`` what becomes of it, write that; all in one transaction.

        ``plan`` is a hash or a unique prefix of one. ``react`` is pure, may be called more than once, and what it
        raises is raised here, with nothing written. None: there is no such plan.
        """
        ...

    async def plan(self, plan: str) -> Plan | None:
        """A plan by its hash or a unique prefix of it."""
        ...

    async def plans(self, *, limit: int) -> list[Plan]:
        """Plans, the newest first; drafts are none."""
        ...

    async def plan_items(
        self, plan: str, *, state: ItemState | None = None, after: int = 0, limit: int
    ) -> list[PlanItemRow]:
        """Items of a plan, by its whole hash, in their order, those after the one with the number ``after``."""
        ...

    async def excluded(self, plan: str) -> Mapping[str, int]:
        """How many items were excluded, or skipped later, for which reason (its first word)."""
        ...

    async def deeds_about(self, about: str) -> list[Mapping[str, Any]]:
        """What people did about something, in order."""
        ...


class Candidates(Protocol):
    """Where plans are made from: stored failures, read in pieces. Only a store in a file has enough for it."""

    async def failure_span(self) -> tuple[int, int]:
        """The numbers of the first and the last stored envelope; (1, 0) when there is none."""
        ...

    async def candidates(
        self, which: FailureFilter, *, low: int, high: int, last: int, rates_at: datetime | None
    ) -> list[Candidate]:
        """Of the envelopes ``low`` to ``high`` the failures that their lineages end with, as of envelope ``last``.

        ``rates_at``: when the rates of their groups are wanted, the instant for which.
        """
        ...

    async def typical_rerun(self, functions: Sequence[str]) -> timedelta | None:
        """The median time from the submit of a re-run to its result, of the newest of these functions; None: none is
        known.
        """
        ...
