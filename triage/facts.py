"""What a decision may know beside the envelope itself: values read from the store before deciding."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from triage.envelope import Envelope, RequestId
from triage.fingerprint import fingerprint
from triage.states import State


@dataclass(frozen=True, slots=True)
class Arrival:
    """An envelope, and how it came."""

    envelope: Envelope
    source: str
    message_id: str
    received_at: datetime
    enqueued_at: datetime | None
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """A failed invocation and its re-runs. ``attempt`` is the last planned re-run; 0 means none yet.

    ``version`` grows with every write; a commit based on an older one is refused (`StoreConflict`).
    """

    root: RequestId
    state: State
    attempt: int
    started_at: datetime
    rule_id: str
    version: int

    # Written out, since `dataclasses.replace` costs several times as much and these run for every envelope.

    def moved(self, state: State, *, attempt: int | None = None) -> Lineage:
        """The same lineage in another state."""
        planned = self.attempt if attempt is None else attempt
        return Lineage(self.root, state, planned, self.started_at, self.rule_id, self.version)

    def written(self) -> Lineage:
        """The same lineage as it will be read after a write."""
        return Lineage(self.root, self.state, self.attempt, self.started_at, self.rule_id, self.version + 1)


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """A failure group: all failures with one fingerprint."""

    first_seen: datetime
    count: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about one envelope."""

    seen_digest: str | None = None
    """Digest of the body stored under the same request id, if there is one."""
    lineage: Lineage | None = None
    """The lineage this envelope is a re-run's result of, if it is one."""
    group: GroupFacts | None = None


@dataclass(slots=True)
class Snapshot:
    """The facts of one batch, as read in one go. `decide_batch` adds what the batch itself contributes."""

    seen: dict[RequestId, str] = field(default_factory=dict)
    lineages: dict[RequestId, Lineage] = field(default_factory=dict)
    """By the request id of the envelope that belongs to it, not by root."""
    groups: dict[str, GroupFacts] = field(default_factory=dict)

    def of(self, arrival: Arrival) -> Facts:
        """The facts about one envelope of the batch."""
        request_id = arrival.envelope.request_id
        return Facts(
            seen_digest=self.seen.get(request_id),
            lineage=self.lineages.get(request_id),
            group=self.groups.get(arrival.fingerprint),
        )


VOCABULARY: Final[Mapping[str, str]] = {
    "fn": "STRING",
    "service": "STRING",
    "qualifier": "STRING",
    "region": "STRING",
    "account": "STRING",
    "condition": "STRING",
    "outcome": "STRING",
    "invoke_count": "INT",
    "status_code": "INT",
    "function_error": "STRING",
    "error.type": "STRING",
    "error.message": "STRING",
    "lineage.attempt": "INT",
    "lineage.age": "DURATION",
    "group.count": "INT",
    "group.age": "DURATION",
    "source": "STRING",
    "now": "TIMESTAMP",
    "payload": "DYN",
}
"""Names a rule may mention, with their CEL types. ``fn`` because ``function`` is reserved in CEL."""

_TEXT_LIMIT: Final = 8 << 10
_LIST_LIMIT: Final = 1000
_NONE: Final = timedelta(0)


class Subject(dict[str, Any]):
    """The names of `VOCABULARY` with their values for one envelope; ``payload`` is only parsed when it is asked for.

    A dict, because rules look into it some dozen times per envelope.
    """

    __slots__ = ("_payload",)

    def __init__(self, arrival: Arrival, facts: Facts, *, now: datetime) -> None:
        envelope, lineage, group = arrival.envelope, facts.lineage, facts.group
        function, error = envelope.function, envelope.error
        self._payload = envelope.request_payload
        super().__init__(
            {
                "fn": function.label,
                "service": function.service,
                "qualifier": function.qualifier,
                "region": function.region,
                "account": function.account,
                "condition": _bounded(envelope.condition),
                "outcome": envelope.outcome.value,
                "invoke_count": envelope.invoke_count or 0,
                "status_code": envelope.status_code or 0,
                "function_error": _bounded(envelope.function_error),
                "error.type": _bounded(error.type),
                "error.message": _bounded(error.message),
                "lineage.attempt": lineage.attempt if lineage else 0,
                "lineage.age": now - lineage.started_at if lineage else _NONE,
                "group.count": group.count if group else 0,
                "group.age": now - group.first_seen if group else _NONE,
                "source": arrival.source,
                "now": now,
            }
        )

    def __missing__(self, name: str) -> Any:
        if name != "payload":
            raise KeyError(name)
        value = self[name] = parse_payload(self._payload)
        return value


def parse_payload(payload: bytes) -> Any:
    """The event as JSON for rules to look at, bounded in text and list length; None when it is no JSON."""
    try:
        return _bound(json.loads(payload))
    except (ValueError, RecursionError):
        return None


def _bounded(text: str) -> str:
    if len(text) > _TEXT_LIMIT:
        text = text[:_TEXT_LIMIT]
    # A lone surrogate, which JSON can express and UTF-8 cannot, makes the evaluator raise.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _bound(value: Any) -> Any:
    # An expression's cost grows with what it sees, and its budget counts steps, not bytes. Integers past 64 bits are
    # errors to it.
    if isinstance(value, str):
        return _bounded(value)
    if isinstance(value, list):
        return [_bound(item) for item in value[:_LIST_LIMIT]]
    if isinstance(value, dict):
        return {_bounded(key): _bound(item) for key, item in list(value.items())[:_LIST_LIMIT]}
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return float(value) if abs(value) < 1 << 1000 else None
    return value


def arrival(
    envelope: Envelope, *, source: str, message_id: str, received_at: datetime, enqueued_at: datetime | None
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
    )
