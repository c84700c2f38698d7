"""Values as rows and back: pure, and the same for every store.

Instants are ISO-8601 text in UTC with microseconds and ``Z``: they sort as text, read well in Datasette, and SQLite's
date functions take them. Durations are seconds. JSON is text. Outside text is made storable here (`text`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from triage.changes import Decided, NewRow, Quarantined, RowKind, Settle
from triage.deed import Deed
from triage.envelope import RECONSTRUCTED, FunctionRef, Outcome
from triage.errors import Problem
from triage.facts import Arrival
from triage.reruns.gate import Gate
from triage.reruns.lineage import Link
from triage.reruns.switches import Scope, Switch
from triage.rules.model import SourceText
from triage.sealing import row_name
from triage.states import ROW_TRANSITIONS, RowEvent, RowState
from triage.stores import FailureDetail, FailureRow, KeptRules, QuarantineRow, RuleHits
from triage.views import OutboxRow, place_of

Record = tuple[Any, ...]

MESSAGE_LIMIT: Final = 4096
"""Characters of an error message kept in its column; the body holds all of it."""

ENVELOPE: Final = (
    "request_id", "function", "service", "qualifier", "region", "account", "condition", "outcome", "error_type",
    "error_message", "invoke_count", "status_code", "timestamp", "received_at", "enqueued_at", "source", "message_id",
    "fingerprint", "digest", "root", "attempt", "body",
)  # fmt: skip
"""``function`` is the label (``service/name`` for FC 2.0), ``attempt`` the re-run whose result the envelope is."""

LINK: Final = ("key", "root", "attempt", "origin")
OUTBOX: Final = ("key", "kind", "state", "due_at", "payload", "root", "group_key", "created_at", "function")
DEED: Final = ("at", "by", "action", "reason", "root", "request_id", "about")
QUARANTINE: Final = ("received_at", "source", "message_id", "reason", "place", "detail", "body")
SWITCH: Final = ("scope", "pattern", "by", "reason", "at")
SWITCH_ROW: Final = (*SWITCH, "on_at", "on_by", "on_reason")
CONFLICT: Final = ("request_id", "digest", "received_at", "source", "message_id", "body")

DRILL_OUTCOME: Final = "drill"
"""The outcome of an envelope that belongs to a drill, whatever it says: it is no failure and no success to anybody who
counts these."""

UNFINISHED: Final = tuple(state for state in RowState if (state, RowEvent.HAPPENED) in ROW_TRANSITIONS)
"""States in which an outbox row can be claimed."""

IS_OPEN: Final = f"state IN ({', '.join(f'{state.value!r}' for state in UNFINISHED)})"
"""The same in SQL, word for word as the indexes have it."""


def read(table: str, columns: Sequence[str], prefix: str = "") -> str:
    """Columns to be selected, with their own names, each with ``prefix`` before it."""
    return ", ".join(f"{body_of(table, prefix)} AS body" if name == "body" else prefix + name for name in columns)


def body_of(table: str, prefix: str = "") -> str:
    """A body in SQL, as it came."""
    return f"opened({row_name(table, lambda column: prefix + column)}, {prefix}body)"


def insert(table: str, columns: Sequence[str], conflict: str = "") -> str:
    """The statement that inserts one row."""
    marks = [f"?{number}" for number, _ in enumerate(columns, 1)]
    if "body" in columns:
        given = dict(zip(columns, marks, strict=True))
        marks[columns.index("body")] = f"sealed({row_name(table, given.__getitem__)}, {given['body']})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(marks)}) {conflict}"


_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


@lru_cache(maxsize=1024)
def instant(at: datetime) -> str:
    """An aware instant as sortable text."""
    if at.tzinfo is not UTC:
        try:
            at = at.astimezone(UTC)
        except OverflowError:  # years 1 and 9999 with an offset: an envelope may hold them
            at = at.replace(tzinfo=UTC)
    return at.isoformat(timespec="microseconds")[:-6] + "Z"


def instant_of(value: str) -> datetime:
    """Undo `instant`."""
    return datetime.fromisoformat(value)


def minute(at: datetime) -> int:
    """The minute since the epoch that an instant is in."""
    return int(at.timestamp() // 60)


def text(value: str) -> str:
    """The same text, storable: lone surrogates, which JSON can express and UTF-8 cannot, become ``?``."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def json_text(value: Any) -> str:
    """Compact JSON."""
    return text(_encode(value))


def _integer(value: int | None) -> int | None:
    # Envelopes may hold integers of any size, columns hold 64 bits.
    return None if value is None else max(-(1 << 63), min(value, (1 << 63) - 1))


def maybe(at: datetime | None) -> str | None:
    """The same, or NULL."""
    return None if at is None else instant(at)


def task_of(arrival: Arrival) -> str:
    """The task that a reconstructed envelope was made from; no message tells it, so it is empty for all others."""
    return arrival.message_id if arrival.envelope.digest.startswith(RECONSTRUCTED) else ""


def is_failure(decided: Decided) -> bool:
    """Whether the envelope counts as a failure; such a one always has a lineage."""
    return decided.arrival.envelope.outcome is Outcome.FAILED and decided.counts


def envelope_record(decided: Decided) -> Record:
    """Values of `ENVELOPE`."""
    arrival = decided.arrival
    envelope, lineage = arrival.envelope, decided.decision.lineage
    function, request_id = envelope.function, envelope.request_id
    return (
        request_id,
        function.label,
        function.service,
        function.qualifier,
        function.region,
        function.account,
        text(envelope.condition),
        envelope.outcome.value if decided.counts else DRILL_OUTCOME,
        text(envelope.error.type[:MESSAGE_LIMIT]),
        text(envelope.error.message[:MESSAGE_LIMIT]),
        _integer(envelope.invoke_count),
        _integer(envelope.status_code),
        maybe(envelope.timestamp),
        instant(arrival.received_at),
        maybe(arrival.enqueued_at),
        arrival.source,
        text(arrival.message_id),
        arrival.fingerprint,
        envelope.digest,
        lineage.root if lineage else None,
        next((link.attempt for link in decided.changes.links if link.key == request_id), 0),
        envelope.body,
    )


def link_record(link: Link) -> Record:
    """Values of `LINK`."""
    return (link.key, link.root, link.attempt, link.origin.value if link.origin else "")


def outbox_record(row: NewRow, *, now: datetime) -> Record:
    """Values of `OUTBOX`."""
    return (
        row.key,
        row.kind.value,
        RowState.PENDING.value,
        instant(row.due_at),
        json_text(row.payload),
        row.root or None,
        row.group or None,
        instant(now),
        FunctionRef(**row.payload["function"]).label if "function" in row.payload else "",
    )


CLAIM: Final = (
    "id", "key", "kind", "state", "due_at", "payload", "root", "group_key", "attempts", "lease_until", "function",
    "gate",
)  # fmt: skip
"""Columns of an outbox row that `claimed_row` is made of."""


def claimed_row(row: Mapping[str, Any], *, token: str) -> OutboxRow:
    """An outbox row as found, claimed under ``token``."""
    return OutboxRow(
        id=row["id"],
        key=row["key"],
        kind=RowKind(row["kind"]),
        state=RowState(row["state"]),
        due_at=instant_of(row["due_at"]),
        payload=json.loads(row["payload"]),
        root=row["root"] or "",
        group=row["group_key"] or "",
        attempts=row["attempts"] + 1,
        interrupted=row["lease_until"] is not None,
        token=token,
        function=row["function"],
        gate=Gate(row["gate"]) if row["gate"] else None,
    )


def place(row: Mapping[str, Any]) -> str:
    """The place of a row (`triage.views.place_of`), from its columns."""
    return place_of(row["kind"], row["function"], json.loads(row["payload"]) if row["kind"] == RowKind.NOTIFY else {})


def admitted_row(row: OutboxRow, outcome: Settle) -> OutboxRow:
    """A claimed row that goes, as it is stored now."""
    return replace(row, payload=row.payload if outcome.payload is None else outcome.payload, gate=Gate.PASSED)


def switch_record(switch: Switch) -> Record:
    """Values of `SWITCH`."""
    words = map(text, (switch.scope.value, switch.pattern, switch.by, switch.reason))
    return (*words, instant(switch.at))


def switch_of(row: Mapping[str, Any]) -> Switch:
    """A switch from the values of `SWITCH_ROW`."""
    on_at = row["on_at"] and instant_of(row["on_at"])
    given = (row["pattern"], row["by"], row["reason"], instant_of(row["at"]))
    return Switch(Scope(row["scope"]), *given, on_at, row["on_by"], row["on_reason"])


def deed_record(deed: Deed, *, now: datetime) -> Record:
    """Values of `DEED`."""
    said = map(text, (deed.by, deed.action, deed.reason))
    return (instant(now), *said, text(deed.root) or None, text(deed.request_id), text(deed.about))


def quarantine_record(item: Quarantined) -> Record:
    """Values of `QUARANTINE`."""
    words = map(text, (item.source, item.message_id, item.reason, item.where, item.detail))
    return (instant(item.received_at), *words, item.body)


def quarantine_row(row: Mapping[str, Any]) -> QuarantineRow:
    """Undo `quarantine_record`."""
    return QuarantineRow(
        id=row["id"],
        received_at=instant_of(row["received_at"]),
        source=row["source"],
        message_id=row["message_id"],
        reason=row["reason"],
        where=row["place"],
        detail=row["detail"],
        body=row["body"],
    )


def sources_json(sources: Sequence[SourceText]) -> str:
    """The texts of a rule set."""
    return json_text([{"name": source.name, "text": source.text} for source in sources])


def sources_of(value: str) -> tuple[SourceText, ...]:
    """Undo `sources_json`."""
    return tuple(SourceText(**source) for source in json.loads(value))


_PROBLEMS: Final = 50
"""Problems of refused rule files that are kept; a file that is no YAML at all may have thousands."""


def problems_json(problems: Sequence[Problem]) -> str:
    """What is wrong with rule files."""
    return json_text([asdict(problem) for problem in problems[:_PROBLEMS]])


def problems_of(value: str) -> tuple[Problem, ...]:
    """Undo `problems_json`."""
    return tuple(Problem(**problem) for problem in json.loads(value))


def kept_rules(digest: str, loaded_at: str, sources: Sequence[SourceText]) -> KeptRules:
    """A kept rule set from its columns."""
    return KeptRules(digest, instant_of(loaded_at), tuple(source.name for source in sources))


def rule_hits(row: Mapping[str, Any]) -> RuleHits:
    """How often a rule has applied, from sums."""
    times = {name: row[name] and instant_of(row[name]) for name in ("last_hit", "last_shadow_hit")}
    return RuleHits(**{**row, **times})


def conflict_record(arrival: Arrival) -> Record:
    """Values of `CONFLICT`."""
    envelope, came = arrival.envelope, (instant(arrival.received_at), arrival.source, text(arrival.message_id))
    return (envelope.request_id, envelope.digest, *came, envelope.body)


def failure_row(envelope: Mapping[str, Any], *, reason: str, rule_id: str, state: str) -> FailureRow:
    """One envelope as listed, from its columns."""
    return FailureRow(
        request_id=envelope["request_id"],
        received_at=instant_of(envelope["received_at"]),
        function=envelope["function"],
        condition=envelope["condition"],
        outcome=envelope["outcome"],
        error_type=envelope["error_type"],
        error_message=envelope["error_message"],
        fingerprint=envelope["fingerprint"],
        reason=reason,
        rule_id=rule_id,
        state=state,
        root=envelope["root"] or "",
        attempt=envelope["attempt"],
    )


def detail(
    row: FailureRow,
    *,
    envelope: Mapping[str, Any],
    decision: Mapping[str, Any],
    lineage: Mapping[str, Any] | None,
    outbox: Sequence[Mapping[str, Any]],
    deliveries: Sequence[Mapping[str, Any]],
    conflicts: Sequence[Mapping[str, Any]],
) -> FailureDetail:
    """Put the rows about one envelope together, with JSON columns read and bodies as text."""
    return FailureDetail(
        row=row,
        envelope=_with_text_body(envelope),
        decision={**decision, **{name: json.loads(decision[name]) for name in ("facts", "effects", "also", "shadow")}},
        lineage=lineage,
        outbox=[{**item, "payload": json.loads(item["payload"])} for item in outbox],
        deliveries=deliveries,
        conflicts=[_with_text_body(item) for item in conflicts],
    )


def _with_text_body(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "body": row["body"].decode("utf-8", "replace")}
