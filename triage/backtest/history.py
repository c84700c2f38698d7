"""Read stories in bulk out of the store's SQLite file, beside a daemon that may be writing to it.

What has a column is taken from it; of the body only the event and the function's error class are read, which costs a
tenth of validating it again. Where a column does not hold all of a value, the body is read as it was at first.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from pydantic_core import from_json

from triage.backtest.replay import Recorded, Ruling
from triage.envelope import Destination, Envelope, ErrorInfo, FunctionRef, Outcome, RequestId, parse_body
from triage.errors import StoreUnavailable
from triage.facts import NO_LABELS, Arrival
from triage.rules.model import Cause, SourceText
from triage.stores.decisions import facts_of
from triage.stores.records import MESSAGE_LIMIT, instant, instant_of, sources_of
from triage.stores.worker import unavailable

GLOBS: Final[Mapping[str, str]] = {
    "function": "e.function", "service": "e.service", "qualifier": "e.qualifier", "region": "e.region",
    "account": "e.account", "condition": "e.condition", "outcome": "e.outcome", "error_type": "e.error_type",
    "error_message": "e.error_message", "source": "e.source", "group": "e.fingerprint", "request_id": "e.request_id",
    "rule": "d.rule_id", "reason": "d.reason",
}  # fmt: skip
"""What stories can be chosen by, with a glob each: columns of the envelope a story begins with, and its decision."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which stories to read: when they began (``since`` is included, ``until`` is not), and globs by `GLOBS`."""

    since: datetime | None = None
    until: datetime | None = None
    globs: tuple[tuple[str, str], ...] = ()

    def clauses(self) -> tuple[str, list[str]]:
        """As SQL, to put after ``WHERE``, and its arguments."""
        parts: list[str] = ["e.attempt = 0"]
        values: list[str] = []
        for clause, bound in (("e.received_at >= ?", self.since), ("e.received_at < ?", self.until)):
            if bound is not None:
                parts.append(clause)
                values.append(instant(bound))
        for name, pattern in self.globs:
            parts.append(f"{GLOBS[name]} GLOB ?")
            values.append(pattern.replace("[!", "[^"))  # a glob's complement, as SQLite spells it
        return " AND ".join(parts), values


_COLUMNS: Final = (
    "e.request_id", "e.function", "e.service", "e.qualifier", "e.region", "e.account", "e.condition", "e.outcome",
    "e.error_type", "e.error_message", "e.invoke_count", "e.status_code", "e.received_at", "e.source", "e.message_id",
    "e.fingerprint", "d.facts", "d.rule_set", "d.reason", "d.rule_id", "d.effects",
    "d.also", "d.shadow", "e.body",
)  # fmt: skip
_ROOTS: Final = f"""
    SELECT {", ".join(_COLUMNS)} FROM envelopes e JOIN decisions d USING (id)
    WHERE e.id BETWEEN ? AND ? AND"""
_MEMBERS: Final = f"""
    SELECT e.root, {", ".join(_COLUMNS)} FROM envelopes e JOIN decisions d USING (id)
    WHERE e.attempt > 0 AND e.id <= ? AND e.root IN (SELECT value FROM json_each(?)) ORDER BY e.id"""
_LATER: Final = "SELECT request_id, cause FROM alerts WHERE root IN (SELECT value FROM json_each(?)) ORDER BY id"


class History:
    """The stored stories, for reading only. Close it."""

    def __init__(self, path: Path, choice: Choice) -> None:
        """Open the file.

        Raises:
            StoreUnavailable: it cannot be opened.
        """
        self._choice = choice
        try:
            self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{path}: {unavailable(error)}") from error

    def close(self) -> None:
        """Release the file."""
        self._connection.close()

    def span(self) -> tuple[int, int]:
        """The first and the last envelope to read, by number; (1, 0) when there is none."""
        ends = "SELECT coalesce(min(id), 1), coalesce(max(id), 0) FROM envelopes"
        low, high = self._one(ends)
        if high and self._choice.since:
            low = self._one("SELECT min(id) FROM envelopes WHERE received_at >= ?", instant(self._choice.since))[0]
        return (1, 0) if low is None else (low, high)

    def rule_set(self, digest: str) -> tuple[SourceText, ...] | None:
        """The texts of a kept rule set."""
        row = self._one("SELECT sources FROM rule_sets WHERE digest = ?", digest)
        return sources_of(row[0]) if row else None

    def _one(self, sql: str, *values: object) -> Any:
        try:
            with closing(self._connection.execute(sql, values)) as cursor:
                return cursor.fetchone()
        except sqlite3.Error as error:
            raise unavailable(error) from error

    def stories(self, low: int, high: int, *, last: int) -> Iterator[list[Recorded]]:
        """Stories that begin with the envelopes ``low`` to ``high``, with their results up to number ``last``.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        where, values = self._choice.clauses()
        try:
            rows = self._connection.execute(f"{_ROOTS} {where} ORDER BY e.id", (low, high, *values)).fetchall()
            roots = json.dumps([row[0] for row in rows if row[7] == "failed"])
            members: dict[str, list[tuple[Any, ...]]] = {}
            for root, *row in self._connection.execute(_MEMBERS, (last, roots)):
                members.setdefault(root, []).append(tuple(row))
            open_ends = [row[0] for row in rows if _waits(row) or row[0] in members]
            later: dict[str, list[str]] = {}
            for request_id, cause in self._connection.execute(_LATER, (json.dumps(open_ends),)):
                later.setdefault(request_id, []).append(cause)
        except sqlite3.Error as error:
            raise unavailable(error) from error
        for row in rows:
            yield [self._recorded(each, later.get(each[0], ())) for each in (row, *members.get(row[0], ()))]

    def _recorded(self, row: Sequence[Any], causes: Sequence[str]) -> Recorded:
        *_, facts, rule_set, reason, rule_id, effects, also, shadow, _ = row
        known = from_json(facts)
        saw, now = facts_of(known)
        decided = from_json(effects) if causes or '"rerun"' in effects else ()
        return Recorded(
            self._arrival(row, known.get("labels", NO_LABELS)),
            saw,
            now,
            rule_set,
            Ruling(reason, rule_id, effects, also, shadow),
            _planned(decided) if decided else None,
            _later(causes, decided) if causes else (),
        )

    def _arrival(self, row: Sequence[Any], labels: Mapping[str, str]) -> Arrival:
        (request_id, function, service, qualifier, region, account, condition, outcome, error_type, message,
         invoke_count, status_code, received_at, source, message_id, fingerprint, *_, body) = row  # fmt: skip
        if _cut(message) or _cut(error_type) or _large(invoke_count) or _large(status_code):
            envelope = self._whole(request_id, outcome)
        else:
            event, function_error = _inside(body)
            envelope = Envelope(
                request_id=RequestId(request_id),
                function=_function(function, service, qualifier, region, account),
                function_arn="",
                condition=condition,
                invoke_count=invoke_count,
                timestamp=None,
                request_payload=event,
                status_code=status_code,
                function_error=function_error,
                response_payload="",
                error=ErrorInfo(error_type, message),
                outcome=_OUTCOMES[outcome],
                body=b"",
                digest="",
            )
        return Arrival(
            envelope=envelope,
            source=source,
            message_id=message_id,
            received_at=instant_of(received_at),
            enqueued_at=None,
            fingerprint=fingerprint,
            labels=labels,
        )

    def _whole(self, request_id: str, outcome: str) -> Envelope:
        (body,) = self._one("SELECT body FROM envelopes WHERE request_id = ?", request_id)
        return parse_body(body, destination=_ROLES.get(outcome, Destination.BOTH))


_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}
_ROLES: Final = {"failed": Destination.FAILURE, "succeeded": Destination.SUCCESS}


def _waits(row: Sequence[Any]) -> bool:
    """Whether something was decided that may have raised an alert later."""
    effects: str = row[-4]
    return '"rerun"' in effects or '"hold"' in effects or '"resolve"' in effects


def _planned(decided: Sequence[Mapping[str, Any]]) -> tuple[int, datetime] | None:
    for effect in decided:
        if effect["kind"] == "rerun":
            return effect["attempt"], instant_of(effect["due_at"])
    return None


def _later(causes: Sequence[str], decided: Sequence[Mapping[str, Any]]) -> tuple[Cause, ...]:
    """Of all alerts about an envelope the causes of those that were not part of its decision."""
    rest = Counter(causes) - Counter(each["cause"] for each in decided if each["kind"] == "alert")
    return tuple(Cause(cause) for cause in rest.elements())


@lru_cache(maxsize=4096)
def _function(label: str, service: str, qualifier: str, region: str, account: str) -> FunctionRef:
    return FunctionRef(label.removeprefix(f"{service}/") if service else label, service, qualifier, region, account)


def _inside(body: bytes) -> tuple[bytes, str]:
    """The event and the function's error class, as `triage.envelope.parse_body` reads them."""
    message = from_json(body)
    event = message.get("requestPayload") or ""
    return event.encode(), (message.get("responseContext") or {}).get("functionError") or ""


def _cut(value: str) -> bool:
    return len(value) >= MESSAGE_LIMIT


def _large(value: int | None) -> bool:
    """Whether the column may hold less than the message said: integers there have 64 bits."""
    return value is not None and abs(value) >= 1 << 62
