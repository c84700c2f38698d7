"""A stored result of an invocation as a back-test sees it: its columns, and the rest when something asks for it. Pure.

Most rules look at columns only, and reading the event, the message or what deciding saw costs more than deciding.
Where a column does not hold all of a value, the message is read as it was at first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from triage.decide import Decision
from triage.envelope import Destination, Outcome, RequestId, parse_body
from triage.facts import NO_LABELS, Arrival, Facts
from triage.redaction import MARKS
from triage.rules.model import KIND, Cause
from triage.stores.decisions import also_json, effects_json, facts_of, shadow_json
from triage.stores.records import MESSAGE_LIMIT, instant_of
from triage.subject import Subject, bounded, known_value, parse_payload


class Ruling(NamedTuple):
    """What was decided, as it is stored: JSON texts. Equal rulings are the very same decision."""

    reason: str
    rule_id: str
    effects: str
    also: str = "[]"
    shadow: str = "[]"

    @classmethod
    def of(cls, decision: Decision) -> Ruling:
        """How a decision is stored."""
        rule = decision.rule
        return cls(
            decision.reason.value,
            rule.id if rule else "",
            effects_json(decision.effects, rule),
            also_json(decision.also),
            shadow_json(decision.shadow),
        )

    def does_as(self, other: Ruling) -> bool:
        """Whether the same is done for the same reason. Rules in shadow mode do nothing, so they are not compared."""
        return self[:4] == other[:4]


_KIND_COLUMNS: Final = (
    "e.function", "e.service", "e.qualifier", "e.region", "e.account", "e.condition", "e.outcome", "e.error_type",
    "e.status_code", "e.source",
)  # fmt: skip
COLUMNS: Final = (
    "e.request_id", "e.received_at", *_KIND_COLUMNS, "e.error_message", "e.invoke_count",
    "d.rule_set", "d.reason", "d.rule_id", "d.effects", "d.also", "d.shadow", "d.facts", "e.body",
)  # fmt: skip
"""What is read: ``e`` is the envelope, ``d`` its decision."""

_REQUEST_ID, _RECEIVED_AT, _CONDITION, _OUTCOME, _TYPE, _STATUS, _SOURCE, _MESSAGE, _COUNT = map(
    COLUMNS.index,
    ("e.request_id", "e.received_at", "e.condition", "e.outcome", "e.error_type", "e.status_code", "e.source",
     "e.error_message", "e.invoke_count"),
)  # fmt: skip
_RULE_SET, _EFFECTS, _FACTS, _BODY = map(COLUMNS.index, ("d.rule_set", "d.effects", "d.facts", "e.body"))
_KIND: Final = slice(2, 2 + len(_KIND_COLUMNS))
_RULING: Final = slice(_RULE_SET + 1, _RULE_SET + 1 + len(Ruling._fields))
_AT: Final[Mapping[str, int]] = {
    **{name: _KIND.start + index for index, name in enumerate(KIND)}, "error.message": _MESSAGE, "invoke_count": _COUNT,
}  # fmt: skip
"""Where the values of names are that have a column."""
_MOST: Final = 1 << 62

_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}
_ROLES: Final = {"failed": Destination.FAILURE, "succeeded": Destination.SUCCESS}


class Recorded:
    """A stored result, what its decision saw, when it was made and by which rules (a digest), and what it was."""

    # Plain attributes rather than properties: each is asked for several times, a million times over.
    __slots__ = ("_facts", "_message", "causes", "effects", "is_cut", "outcome", "request_id", "row", "rule_set")

    def __init__(self, row: tuple[Any, ...], causes: Sequence[str] = ()) -> None:
        """``row``: values of `COLUMNS`; ``causes``: of the alerts about it."""
        self.row, self.causes = row, causes
        self.request_id: RequestId = row[_REQUEST_ID]
        self.outcome = _OUTCOMES[row[_OUTCOME]]
        self.rule_set: str = row[_RULE_SET]
        """Digest of the rules it was decided by."""
        self.effects: str = row[_EFFECTS]
        """What was decided to do, as stored."""
        self.is_cut = (
            len(row[_MESSAGE]) >= MESSAGE_LIMIT
            or len(row[_TYPE]) >= MESSAGE_LIMIT
            or len(row[_CONDITION]) >= MESSAGE_LIMIT
            or ("[" in row[_MESSAGE] and MARKS.search(row[_MESSAGE]) is not None)
            or _is_large(row[_STATUS])
            or _is_large(row[_COUNT])
        )
        """Whether a column may hold less than the message said, or something else."""
        self._facts: tuple[Facts, datetime, Mapping[str, str]] | None = None
        self._message: Mapping[str, Any] | None = None

    @property
    def received_at(self) -> str:
        """When it came, as stored; sorts like the instants."""
        at: str = self.row[_RECEIVED_AT]
        return at

    @property
    def function(self) -> str:
        """Label of the function."""
        label: str = self.row[_KIND.start]
        return label

    @property
    def ruling(self) -> Ruling:
        """What was decided."""
        return Ruling._make(self.row[_RULING])

    @property
    def kind(self) -> tuple[Any, ...] | None:
        """What decides its values under `triage.rules.model.KIND`; None where the columns do not."""
        return None if self.is_cut else self.row[_KIND]

    @property
    def planned(self) -> tuple[int, datetime] | None:
        """The re-run that was decided, as attempt and due time."""
        if '"rerun"' in self.effects:  # reading them costs more than most decisions
            for effect in from_json(self.effects):
                if effect["kind"] == "rerun":
                    return effect["attempt"], instant_of(effect["due_at"])
        return None

    @property
    def later(self) -> tuple[Cause, ...]:
        """Causes of alerts that were raised afterwards, because of how its re-run or hold ended."""
        if not self.causes:
            return ()
        at_once = (each["cause"] for each in from_json(self.effects) if each["kind"] == "alert")
        rest = Counter(self.causes) - Counter(at_once)
        return tuple(Cause(cause) for cause in rest.elements())

    @property
    def waits(self) -> bool:
        """Whether something was decided that may have raised an alert later."""
        return '"rerun"' in self.effects or '"hold"' in self.effects or '"resolve"' in self.effects

    @property
    def now(self) -> datetime:
        """When it was decided."""
        return self._seen()[1]

    @property
    def facts(self) -> Facts:
        """What deciding saw beside the message."""
        return self._seen()[0]

    @property
    def labels(self) -> Mapping[str, str]:
        """What the configuration said of the function."""
        return self._seen()[2]

    @property
    def event(self) -> bytes:
        """The event, as `triage.envelope.parse_body` reads it."""
        event: str = self._said().get("requestPayload") or ""
        return event.encode()

    @property
    def function_error(self) -> str:
        """The error class that the platform reported."""
        error: str = (self._said().get("responseContext") or {}).get("functionError") or ""
        return error

    def arrival(self) -> Arrival:
        """All of it, read as it was at first."""
        role = _ROLES.get(self.row[_OUTCOME], Destination.BOTH)
        return Arrival(
            parse_body(self.row[_BODY], destination=role),
            source=self.row[_SOURCE],
            message_id="",
            received_at=instant_of(self.received_at),
            enqueued_at=None,
            fingerprint="",
            labels=self.labels,
        )

    def _seen(self) -> tuple[Facts, datetime, Mapping[str, str]]:
        if self._facts is None:
            known = from_json(self.row[_FACTS])
            self._facts = (*facts_of(known), known.get("labels", NO_LABELS))
        return self._facts

    def _said(self) -> Mapping[str, Any]:
        if self._message is None:
            self._message = from_json(self.row[_BODY])
        return self._message


def _is_large(value: int | None) -> bool:
    """Whether the column may hold less than the message said: integers there have 64 bits."""
    return value is not None and not -_MOST < value < _MOST


class Values(dict[str, Any]):
    """What rules may look at, as `triage.subject.Subject` has it, when the result is decided ``shift`` later."""

    __slots__ = ("_item", "_shift")

    def __init__(self, item: Recorded, shift: timedelta) -> None:
        self._item, self._shift = item, shift
        if not item.is_cut:
            self["error.message"] = item.row[_MESSAGE]  # what most rules ask for

    def __missing__(self, name: str) -> Any:
        value = self[name] = self._made(name)
        return value

    def _made(self, name: str) -> Any:
        item = self._item
        if name in _AT:
            if item.is_cut:
                return Subject(item.arrival(), Facts(), now=item.now)[name]
            value = item.row[_AT[name]]
            return 0 if value is None else value
        match name:
            case "now":
                return item.now + self._shift
            case "payload":
                return parse_payload(item.event)
            case "function_error":
                return bounded(item.function_error)
            case "labels":
                return item.labels
        return known_value(name, item.facts, now=self["now"])
