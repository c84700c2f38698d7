"""The store: what every implementation promises. Contract suite: ``tests/contract/test_store.py``.

All instants are aware and in UTC. Every method may raise `StoreUnavailable`. Nothing here assumes SQLite: a batch is a
value, a settle is conditional on a fencing token, and the only callback (``react``) is a pure function that may be run
again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

from triage.changes import Commit, NewAlert, NewRow, Settle
from triage.drills import Drill
from triage.errors import Problem
from triage.facts import Arrival, Snapshot
from triage.orders import Limits, Order, Ordered, Refused
from triage.reruns.gate import Standing
from triage.reruns.lineage import hold_code
from triage.reruns.switches import Scope, Switch
from triage.rules.model import SourceText
from triage.silence import Silence
from triage.views import OutboxRow, RowFacts, SilenceView

Row = TypeVar("Row")
React = Callable[[RowFacts], Settle]
ReactNow = Callable[[OutboxRow, RowFacts], Settle]


@dataclass(frozen=True, slots=True)
class Totals:
    """The sums that have to add up.

    ``received == decided + duplicates + conflicts + quarantined`` and ``failures == sum(states.values())``.
    """

    received: int
    decided: int
    duplicates: int
    conflicts: int
    quarantined: int
    failures: int
    states: Mapping[str, int]
    """Failed envelopes by the state of their lineage (``states.State``); ``removed``: past their retention."""
    outbox: Mapping[str, int]
    """Outbox rows that are not finished, by kind."""
    deliveries: Mapping[str, int]
    """Notifications by result, since ever (`triage.line.DELIVERIES`)."""
    plans: Mapping[str, int] = field(default_factory=dict)
    """Plans of re-runs by state (``reruns.plan.PlanState``); drafts are none."""
    plan_items: Mapping[str, int] = field(default_factory=dict)
    """Items of plans that are applied and not over, by state (``reruns.plan.ItemState``)."""
    groups: Mapping[str, int] = field(default_factory=dict)
    """Alert groups that wait for their first look or are open, by state (``incident.GroupState``)."""
    outbox_due: Mapping[str, datetime] = field(default_factory=dict)
    """When the first of the rows that are not finished is or was due, by kind."""
    gates: Mapping[str, int] = field(default_factory=dict)
    """Outbox rows that wait at a gate, by gate (``reruns.gate.Gate``)."""
    breakers: Mapping[str, int] = field(default_factory=dict)
    """Functions whose breaker is not closed, by its state (``reruns.breaker.BreakerState``)."""
    standings: tuple[Standing, ...] = ()
    """How functions stand with their re-runs, `STANDINGS` of them at most: first those whose breaker is not closed, and
    then those that have drawn on their budget last.
    """


STANDINGS: Final = 50
"""Functions whose standing is among the totals, at most: there may be thousands."""


@dataclass(frozen=True, slots=True)
class FailureFilter:
    """Which failed envelopes to list; ``None`` and ``""`` mean any. Instants bound ``received_at``: ``since`` is
    included, ``until`` is not.
    """

    function: str = ""  # glob
    state: str = ""
    group: str = ""  # fingerprint, or a prefix of it
    text: str = ""  # substring of error message, error type or request id, any case
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 50
    open: bool = False
    """Only those whose lineage is an open end (not in ``states.CLOSED``)."""


@dataclass(frozen=True, slots=True)
class FailureRow:
    """One envelope as listed, newest first."""

    request_id: str
    received_at: datetime
    function: str
    condition: str
    outcome: str
    error_type: str
    error_message: str
    fingerprint: str
    reason: str
    rule_id: str
    state: str
    """State of its lineage; empty for a success outside any lineage."""
    root: str
    attempt: int


@dataclass(frozen=True, slots=True)
class FailureDetail:
    """One envelope with all that happened to it; mappings are plain JSON for a person or ``--json``.

    ``envelope`` holds columns and the body as text, ``decision`` reason, rule, rule set digest, facts and effects,
    ``lineage`` its root, state, attempts, members, alerts and what people did (``deeds``), ``outbox`` and
    ``deliveries`` the rows of the lineage, ``conflicts`` other bodies that came under the same request id.
    """

    row: FailureRow
    envelope: Mapping[str, Any]
    decision: Mapping[str, Any]
    lineage: Mapping[str, Any] | None
    outbox: Sequence[Mapping[str, Any]]
    deliveries: Sequence[Mapping[str, Any]]
    conflicts: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Held:
    """A failure that waits for a person. ``request_id`` is the newest of the lineage, ``until`` when that is told."""

    root: str
    request_id: str
    until: datetime
    reason: str

    @property
    def code(self) -> str:
        """The short name that people use for it."""
        return hold_code(self.root)


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """One quarantined message. ``body`` is raw, as received."""

    id: int
    received_at: datetime
    source: str
    message_id: str
    reason: str
    where: str
    detail: str
    body: bytes


@dataclass(frozen=True, slots=True)
class RulesState:
    """Which rules are in force, and what is wrong with the rule files as they are now.

    ``loaded_at`` is when the set came into force. ``problems`` is empty, and ``refused_at`` None, while the set in
    force is what the files say.
    """

    digest: str
    loaded_at: datetime
    problems: tuple[Problem, ...] = ()
    refused_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeptRules:
    """A kept rule set. ``loaded_at`` is when it first came into force, ``files`` the names of its files."""

    digest: str
    loaded_at: datetime
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RuleHits:
    """How often a rule has applied, by its id; the same id in several rule sets counts as one rule.

    Attributes:
        hits: decisions in which it applied, those included in which another rule had the last word.
        shadow_hits: decisions in which it would have applied, had it not been in shadow mode.
        disagreed: those of them in which it would have done something else than was done.
        alerts: alerts it has raised and that were due to be told since then.
        silenced: those of them that silences kept from everybody.
    """

    rule_id: str
    hits: int = 0
    last_hit: datetime | None = None
    shadow_hits: int = 0
    last_shadow_hit: datetime | None = None
    disagreed: int = 0
    alerts: int = 0
    silenced: int = 0


@dataclass(frozen=True, slots=True)
class Places:
    """So many acts of one function, or to one receiver, may be under way, lest a slow one keeps all others waiting.

    Attributes:
        share: the most of each.
        under_way: how many are, by place (`triage.views.place_of`).
        crowd: where so many are under way, only places that have none get one: several slow ones together would leave
            the others nothing, too.
    """

    share: int = 1 << 30
    under_way: Mapping[str, int] = field(default_factory=dict)
    crowd: int = 1 << 30

    @property
    def busy(self) -> list[str]:
        """Places that are full."""
        room = self._room(self.under_way)
        return [place for place, number in self.under_way.items() if number >= room]

    def _room(self, taken: Mapping[str, int]) -> int:
        return self.share if sum(taken.values()) < self.crowd else 1

    def fitting(self, rows: Iterable[Row], *, place: Callable[[Row], str]) -> list[Row]:
        """Those of some due rows for which there is room, in their order. Rows of no place always fit."""
        taken = Counter(self.under_way)
        found = []
        for row in rows:
            if not (name := place(row)) or taken[name] < self._room(taken):
                taken[name] += 1
                found.append(row)
        return found


class Store(Protocol):
    """Durable state of one triage installation."""

    async def load_facts(
        self, arrivals: Sequence[Arrival], *, rates_at: datetime | None = None, elsewhere_since: datetime | None = None
    ) -> Snapshot:
        """Read, in one go, everything deciding this batch may need to know.

        ``rates_at`` is the instant of the decision when rules mention rates of groups, which are only read then.
        A lineage is joined by request id or task id (a reconstructed envelope is known by both); or, for a result that
        overtook the answer to its own submit, by function and payload of an attempt whose submit is under way; or, with
        ``elsewhere_since``, as `triage.reruns.elsewhere` says.
        """
        ...

    async def expect_drill(self, drill: Drill) -> None:
        """Know the envelope of a drill when it comes; no other one of its name is let in."""
        ...

    async def commit(self, batch: Commit) -> None:
        """Write a batch in one transaction, durably: when this returns, it survives a loss of power.

        Raises:
            StoreConflict: an envelope's request id is stored already, or a lineage's version is not the one the
                decision was based on. Nothing was written.
        """
        ...

    async def claim_due(
        self, *, now: datetime, lease: timedelta, limit: int, places: Places = Places()
    ) -> list[OutboxRow]:
        """Take rows that are due and not under a running lease, oldest due time first; they are ours for ``lease``.

        Of a function not more than there is room for in ``places``. Fewer than ``limit`` does not mean that no more
        are due.
        """
        ...

    async def admit(self, row: OutboxRow, react: React, *, now: datetime) -> OutboxRow | None:
        """Ask ``react``, as `settle` does, whether a claimed row may be acted upon now (`Settle.go`).

        The row as it is stored then: it may, and stays ours. None: it waits or has ended, which is written, or the
        claim was lost.
        """
        ...

    async def settle(self, row: OutboxRow, react: React, *, now: datetime) -> bool:
        """Read the row's lineage and group, ask ``react`` how it goes on, write that; all in one transaction.

        ``react`` is pure and may be called more than once. False: the claim was lost, nothing was written.
        """
        ...

    async def settle_now(self, key: str, react: ReactNow, *, now: datetime) -> bool:
        """Settle an unfinished row ahead of its due time, whoever has claimed it, by what a person says of it.

        ``react`` is pure and may be called more than once. False: no unfinished row has this key.
        """
        ...

    async def order(
        self, request_ids: Sequence[str], order: Order, *, limits: Limits, now: datetime
    ) -> list[Ordered | Refused]:
        """Plan the next attempt of each, as a person wants it (`triage.orders.place`); all in one transaction.

        Any request id or task id of a lineage will do. An order that is refused changes nothing, and keeps none of the
        others from being carried out; of two for one lineage the second is refused.
        """
        ...

    async def switch_off(self, switch: Switch) -> bool:
        """Stop re-runs that were not submitted yet. False: that very switch is off already; it stays as it is."""
        ...

    async def switch_on(self, scope: Scope, pattern: str, *, by: str, reason: str, now: datetime) -> bool:
        """Let them go on: what waits at a switch becomes due. False: nothing of that name is switched off."""
        ...

    async def slow_start(self, *, now: datetime) -> None:
        """Let the rate of all re-runs together begin low, and grow."""
        ...

    async def switches(self, *, past: int = 0) -> list[Switch]:
        """What is switched off, the newest first; after it the last ``past`` that are on again."""
        ...

    async def arm(self, rows: Sequence[NewRow], *, now: datetime) -> None:
        """Write outbox rows that belong to no envelope, such as those that look after something day by day."""
        ...

    async def next_due(self, *, places: Places = Places()) -> datetime | None:
        """When the next row can be claimed (its due time, or the end of its lease); None when there is none.

        Those of functions for which there is no room in ``places`` do not count.
        """
        ...

    async def payload_of(self, request_id: str) -> bytes | None:
        """The event of a stored envelope, byte for byte; None when it is not stored, or its message did not tell it.

        Raises:
            SealBroken: its message is sealed and does not open.
        """
        ...

    async def lineages_in(self, group: str, flush: int, *, limit: int) -> list[str]:
        """Roots of some of the lineages whose alerts went into this flush of a group, in order."""
        ...

    async def known(self, request_ids: Sequence[str]) -> frozenset[str]:
        """Which of these requests have an envelope that is stored."""
        ...

    async def totals(self) -> Totals:
        """The sums, from one consistent view."""
        ...

    async def failures(self, which: FailureFilter) -> list[FailureRow]:
        """List failed envelopes, newest first; for a state as many as `Totals` counts."""
        ...

    async def failure(self, request_id: str) -> FailureDetail | None:
        """One envelope with all that happened to it. A prefix is enough if it is unique."""
        ...

    async def quarantined(self, *, limit: int) -> list[QuarantineRow]:
        """List quarantined messages, newest first."""
        ...

    async def quarantine_entry(self, entry: int) -> QuarantineRow | None:
        """One quarantined message."""
        ...

    async def save_rule_set(self, digest: str, sources: Sequence[SourceText], *, now: datetime) -> None:
        """Keep a rule set's texts under its digest, and remember that it is the last good one, and no problem."""
        ...

    async def refuse_rules(self, problems: Sequence[Problem], alert: NewAlert, *, now: datetime) -> bool:
        """Remember why the rule files cannot be used, and raise an alert; the last good set stays what it is.

        False: these very problems were remembered already, and nothing was written.
        """
        ...

    async def rules_state(self) -> RulesState | None:
        """The last good rule set with what was refused since then; None when no set was ever kept."""
        ...

    async def rule_set(self, digest: str | None = None) -> tuple[str, tuple[SourceText, ...]] | None:
        """A kept rule set by digest or a unique prefix of it; the last good one when none is given."""
        ...

    async def kept_rules(self) -> list[KeptRules]:
        """All kept rule sets, the newest first."""
        ...

    async def rule_hits(self, *, since: datetime | None = None) -> list[RuleHits]:
        """How often each rule has applied in decisions made since then, by rule id; rules that never did are absent."""
        ...

    async def add_silence(self, silence: Silence, *, warn_before: timedelta) -> Silence:
        """Put a silence into force, with the outbox row that sees to its end (`triage.alerts.silences`).

        Its ``id`` is chosen here. ``warn_before``: so long before its end that is told; zero: never.
        """
        ...

    async def silences(self, *, ended: bool = False) -> list[SilenceView]:
        """The silences that have not ended, or all, the newest first."""
        ...

    async def silence(self, number: int) -> SilenceView | None:
        """One silence with what it kept quiet."""
        ...

    async def close(self) -> None:
        """Finish what was asked for and release the files. May be called twice."""
        ...


class Desk(Protocol):
    """What only people ask, on the command line: no loop of the daemon needs it, so the test double has none of it."""

    async def held(self) -> list[Held]:
        """All failures that wait for a person, the most urgent first."""
        ...

    async def silences_since(self, at: datetime) -> list[Silence]:
        """All silences that had not ended at this instant, whatever came of them since; the oldest first."""
        ...
