"""What a decision may know beside the envelope itself: values read from the store before deciding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from triage.drills import Drill, is_drill
from triage.envelope import Envelope, RequestId
from triage.fingerprint import fingerprint
from triage.reruns.event import Unfit, unfit
from triage.states import CLOSED, State


@dataclass(frozen=True, slots=True)
class Arrival:
    """An envelope, and how it came."""

    envelope: Envelope
    source: str
    message_id: str
    received_at: datetime
    enqueued_at: datetime | None
    fingerprint: str
    labels: Mapping[str, str] = field(default_factory=dict)
    """What the configuration says of its function."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """A failed invocation and its re-runs.

    Attributes:
        attempt: the last planned re-run; 0 means none yet.
        version: grows with every write; a commit based on an older one is refused (`StoreConflict`).
        manual: how many of the re-runs a person asked for.
    """

    root: RequestId
    state: State
    attempt: int
    started_at: datetime
    rule_id: str
    version: int
    manual: int = 0

    # Written out, since `dataclasses.replace` costs several times as much and these run for every envelope.

    def moved(self, state: State, *, attempt: int | None = None, rule_id: str = "") -> Lineage:
        """The same lineage in another state; without ``rule_id`` the rule stays."""
        planned = self.attempt if attempt is None else attempt
        rule_id = rule_id or self.rule_id
        return Lineage(self.root, state, planned, self.started_at, rule_id, self.version, self.manual)

    def written(self) -> Lineage:
        """The same lineage as it will be read after a write."""
        version = self.version + 1
        return Lineage(self.root, self.state, self.attempt, self.started_at, self.rule_id, version, self.manual)


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """A failure group: all failures with one fingerprint, before the one that is decided.

    Attributes:
        count: failures in all.
        back_since: the first failure after the latest silence of `SILENCE` or more; else ``first_seen``.
        recent: failures in the last `RATES` minutes; None when no rule that was asked mentions them.
    """

    first_seen: datetime
    count: int
    last_seen: datetime
    back_since: datetime
    recent: tuple[float, ...] | None = None

    def grown(self, now: datetime) -> GroupFacts:
        """The same group with one more failure, now."""
        recent = None if self.recent is None else tuple(count + 1 for count in self.recent)
        back_since = now if now - self.last_seen >= SILENCE else self.back_since
        return GroupFacts(self.first_seen, self.count + 1, max(now, self.last_seen), back_since, recent)


SILENCE: Final = timedelta(hours=24)
"""A group that is seen again after so long has regressed."""

FRESH: Final = timedelta(hours=1)
"""So long a group is new, or has regressed."""

RATES: Final = (1, 5, 15, 60)
"""Minutes over which the rates of a group are taken."""

SPANS: Final = ("1m", "5m", "15m", "1h")
"""The same, as names say it."""


def first_failure(now: datetime, *, rates: bool) -> GroupFacts:
    """The group of the first failure of its kind, for those after it."""
    return GroupFacts(now, 1, now, now, (1.0,) * len(RATES) if rates else None)


def recent_of(minutes: Mapping[int, int], now: datetime) -> tuple[float, ...]:
    """Failures in the last `RATES` minutes, from counts per minute since the epoch.

    Of the oldest minute, which a span of time only partly covers, the same part of its failures counts.
    """
    at = now.timestamp() / 60
    current = int(at)
    sums = []
    for span in RATES:
        whole = sum(count for minute, count in minutes.items() if current - span < minute <= current)
        sums.append(whole + minutes.get(current - span, 0) * (1 - at % 1))
    return tuple(sums)


def group_state(group: GroupFacts | None, now: datetime) -> str:
    """What a group is doing, from what was seen before ``now``.

    Raises:
        Unrecorded: that depends on rates, which are not known.
    """
    if group is None or now - group.first_seen < FRESH:
        return "new"
    if has_regressed(group, now):
        return "regressed"
    if now - group.last_seen >= FRESH:
        return "quiet"
    _, five, _, hour = recent_of_group(group, "group.state")
    return "escalating" if five >= 10 and five / 5 >= 3 * hour / 60 else "ongoing"


GROUP_STATES: Final = ("new", "ongoing", "escalating", "regressed", "quiet")


def has_regressed(group: GroupFacts | None, now: datetime) -> bool:
    """Whether the group came back after a `SILENCE`: with a failure now, or less than an hour ago."""
    if group is None:
        return False
    if now - group.last_seen >= SILENCE:
        return True
    return group.back_since > group.first_seen and now - group.back_since < FRESH


class Unrecorded(Exception):
    """A value that was not read when the decision was made, because no rule mentioned it then."""


def recent_of_group(group: GroupFacts, name: str) -> tuple[float, ...]:
    """Its failures in the last `RATES` minutes, which ``name`` asks for.

    Raises:
        Unrecorded: they are not known.
    """
    if group.recent is None:
        raise Unrecorded(f"{name} was not recorded with this decision")
    return group.recent


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about one envelope."""

    seen_digest: str | None = None
    """Digest of the body stored under the same request id, if there is one."""
    lineage: Lineage | None = None
    """The lineage this envelope is a re-run's result of, if it is one."""
    group: GroupFacts | None = None
    attempt: int | None = None
    """Which attempt of the lineage it is the result of, where its request id tells; else it is the latest one's."""
    unfit: Unfit | None = None
    """Why its event cannot be run again."""
    elsewhere: bool = False
    """It is the result of ``attempt``, which somebody made elsewhere; the lineage counts it already."""
    apart: str = ""
    """Of which failure it may be such a result, and why it is not taken for one."""
    drill: Drill | None = None
    """The drill that it belongs to, if it does. Not stored: what is decided for a drill is not decided again."""

    @property
    def is_late(self) -> bool:
        """Whether a later attempt was planned before this result came: it has no say any more."""
        return self.lineage is not None and self.attempt is not None and self.attempt < self.lineage.attempt


@dataclass(slots=True)
class Snapshot:
    """The facts of one batch, as read in one go. `decide_batch` adds what the batch itself contributes."""

    seen: dict[RequestId, str] = field(default_factory=dict)
    lineages: dict[RequestId, Lineage] = field(default_factory=dict)
    """By the request id of the envelope that belongs to it, not by root."""
    attempts: dict[RequestId, int] = field(default_factory=dict)
    """By the same, where that tells it."""
    elsewhere: set[RequestId] = field(default_factory=set)
    """Those that belong to theirs as the next attempt, which somebody made elsewhere."""
    apart: dict[RequestId, str] = field(default_factory=dict)
    """Those that may, with the reason why they do not."""
    groups: dict[str, GroupFacts] = field(default_factory=dict)
    rates: bool = False
    """Whether rates of groups were read."""
    drills: dict[RequestId, Drill] = field(default_factory=dict)
    """By the request id of the envelope that belongs to it."""

    def of(self, arrival: Arrival) -> Facts:
        """The facts about one envelope of the batch."""
        request_id = arrival.envelope.request_id
        lineage, attempt = self.lineages.get(request_id), self.attempts.get(request_id)
        elsewhere = request_id in self.elsewhere
        if elsewhere and lineage is not None:
            if lineage.state in CLOSED:  # one before it in the batch has ended it
                lineage, elsewhere = None, False
            else:
                attempt = lineage.attempt + 1
                lineage = lineage.moved(lineage.state, attempt=attempt)
        return Facts(
            seen_digest=self.seen.get(request_id),
            lineage=lineage,
            group=self.groups.get(arrival.fingerprint),
            attempt=attempt,
            unfit=unfit(arrival.envelope),
            elsewhere=elsewhere,
            apart=self.apart.get(request_id, ""),
            drill=self.drill_of(arrival) if self.drills else None,
        )

    def drill_of(self, arrival: Arrival) -> Drill | None:
        """The drill that an envelope belongs to: it is the very one that was ordered, or the result of its re-run."""
        request_id, digest = arrival.envelope.request_id, arrival.envelope.digest
        drill = self.drills.get(request_id)
        return None if drill is None or (drill.request_id == request_id and drill.digest != digest) else drill

    def drill_roots(self, arrivals: Iterable[Arrival]) -> dict[RequestId, RequestId]:
        """Which envelopes may belong to which drill, by their names, for the store to look for it."""
        found = {}
        for arrival in arrivals:
            request_id = arrival.envelope.request_id
            lineage = self.lineages.get(request_id)
            if is_drill(root := request_id if lineage is None else lineage.root):
                found[request_id] = root
        return found


NO_LABELS: Final[Mapping[str, str]] = {}


def arrival(
    envelope: Envelope,
    *,
    source: str,
    message_id: str,
    received_at: datetime,
    enqueued_at: datetime | None,
    labels: Mapping[str, str] = NO_LABELS,
) -> Arrival:
    """Put an envelope together with how it came."""
    return Arrival(
        envelope=envelope,
        source=source,
        message_id=message_id,
        received_at=received_at,
        enqueued_at=enqueued_at,
        fingerprint=fingerprint(
            function=envelope.function.label,
            condition=envelope.condition,
            error_type=envelope.error.type,
            message=envelope.error.message,
            stack=envelope.error.stack,
            status_code=envelope.status_code,
        ),
        labels=labels,
    )
