"""What rules may look at: names with their types, and their values for one envelope. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from triage.facts import RATES, SPANS, Arrival, Facts, group_state, has_regressed, recent_of_group
from triage.reruns.event import MAX_EVENT

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
    "lineage.automatic": "INT",
    "lineage.manual": "INT",
    "lineage.age": "DURATION",
    "group.count": "INT",
    "group.age": "DURATION",
    **{f"group.rate_{name}": "DOUBLE" for name in SPANS},
    "group.regressed": "BOOL",
    "group.state": "STRING",
    "labels": "LABELS",
    "source": "STRING",
    "now": "TIMESTAMP",
    "payload": "DYN",
}
"""Names a rule may mention, with their CEL types; ``LABELS`` are texts by text. CEL reserves ``function``."""

NEED_RATES: Final = frozenset((*(f"group.rate_{name}" for name in SPANS), "group.state"))
"""Names whose values the store only reads when a rule mentions them."""

_TEXT_LIMIT: Final = 8 << 10
_LIST_LIMIT: Final = 1000
MAX_VALUES: Final = 10_000
"""Values of an event that rules look into; comparing all of them with something takes a millisecond."""
MAX_DEPTH: Final = 64
_NONE: Final = timedelta(0)

PAYLOAD_PROBLEM: Final = "payload_problem"
"""No name for rules: under it a `Subject` keeps why its payload is None, for whoever explains a decision."""


class Subject(dict[str, Any]):
    """The names of `VOCABULARY` with their values for one envelope; what takes time is only made when it is asked for.

    A dict, because rules look into it some dozen times per envelope.
    """

    __slots__ = ("_arrival", "_facts")

    def __init__(self, arrival: Arrival, facts: Facts, *, now: datetime) -> None:
        envelope = arrival.envelope
        function, error = envelope.function, envelope.error
        self._arrival, self._facts = arrival, facts
        super().__init__(
            {
                "fn": function.label,
                "service": function.service,
                "qualifier": function.qualifier,
                "region": function.region,
                "account": function.account,
                "condition": bounded(envelope.condition),
                "outcome": envelope.outcome.value,
                "invoke_count": envelope.invoke_count or 0,
                "status_code": envelope.status_code or 0,
                "function_error": bounded(envelope.function_error),
                "error.type": bounded(error.type),
                "error.message": bounded(error.message),
                "source": arrival.source,
                "now": now,
            }
        )

    def __missing__(self, name: str) -> Any:
        value = self[name] = self._made(name)
        return value

    def _made(self, name: str) -> Any:
        if name == "payload":
            value, problem = read_payload(self._arrival.envelope.request_payload)
            if problem:
                self[PAYLOAD_PROBLEM] = problem
            return value
        if name == "labels":
            return self._arrival.labels
        return known_value(name, self._facts, now=self["now"])


def known_value(name: str, facts: Facts, *, now: datetime) -> Any:
    """The value of a name of `VOCABULARY` that begins with ``lineage`` or ``group``.

    Raises:
        Unrecorded: it is not known.
        KeyError: there is no such name.
    """
    lineage, group = facts.lineage, facts.group
    match name:
        case "lineage.attempt":
            return lineage.attempt if lineage else 0
        case "lineage.age":
            return now - lineage.started_at if lineage else _NONE
        case "lineage.automatic":
            return lineage.attempt - lineage.manual if lineage else 0
        case "lineage.manual":
            return lineage.manual if lineage else 0
        case "group.count":
            return group.count if group else 0
        case "group.age":
            return now - group.first_seen if group else _NONE
        case "group.regressed":
            return has_regressed(group, now)
        case "group.state":
            return group_state(group, now)
    if name not in NEED_RATES:
        raise KeyError(name)
    span = SPANS.index(name.removeprefix("group.rate_"))
    return recent_of_group(group, name)[span] / RATES[span] if group else 0.0


def parse_payload(payload: bytes) -> Any:
    """The event as JSON for rules to look at, bounded in text and list length; None when they cannot look into it."""
    return read_payload(payload)[0]


def read_payload(payload: bytes) -> tuple[Any, str]:
    """What `parse_payload` gives; and why that is None, for people."""
    if len(payload) > MAX_EVENT:
        return None, f"the event has {len(payload)} bytes; rules look into {MAX_EVENT} at most"
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return None, "the event is no JSON"
    if _exceeds(value):
        # Not cut, but absent: a rule would decide on what an attacker left standing.
        return None, f"the event has more than {MAX_VALUES} values, or {MAX_DEPTH} levels; rules do not look into it"
    return _bound(value), "the event is null" if value is None else ""


def _exceeds(value: Any) -> bool:
    # How deep the recursive way goes would depend on who calls, and so would the decision.
    level, count = [value], 0
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
        count += len(inner)
        if count > MAX_VALUES:
            return True
        if not inner:
            return False
        level = inner
    return True


def bounded(text: str) -> str:
    """A text as rules see it: not too long, and Unicode."""
    if len(text) > _TEXT_LIMIT:
        text = text[:_TEXT_LIMIT]
    # A lone surrogate, which JSON can express and UTF-8 cannot, makes the evaluator raise.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _bound(value: Any) -> Any:
    # An expression's cost grows with what it sees, and its budget counts steps, not bytes. Integers past 64 bits are
    # errors to it.
    if isinstance(value, str):
        return bounded(value)
    if isinstance(value, list):
        return [_bound(item) for item in value[:_LIST_LIMIT]]
    if isinstance(value, dict):
        return {bounded(key): _bound(item) for key, item in list(value.items())[:_LIST_LIMIT]}
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return float(value) if abs(value) < 1 << 1000 else None
    return value
