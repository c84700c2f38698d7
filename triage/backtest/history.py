"""Read stories in bulk out of the store's SQLite file, beside a daemon that may be writing to it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from triage.backtest.recorded import COLUMNS, Recorded
from triage.envelope import Outcome
from triage.errors import StoreUnavailable
from triage.rules.model import SourceText
from triage.sealing import Seal
from triage.stores.records import body_of, instant, sources_of
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
        parts: list[str] = ["e.attempt = 0", "length(e.body) > 0"]  # what is past its retention has none
        parts.append("e.outcome != 'drill'")
        values: list[str] = []
        for clause, bound in (("e.received_at >= ?", self.since), ("e.received_at < ?", self.until)):
            if bound is not None:
                parts.append(clause)
                values.append(instant(bound))
        for name, pattern in self.globs:
            parts.append(f"{GLOBS[name]} GLOB ?")
            values.append(pattern.replace("[!", "[^"))  # a glob's complement, as SQLite spells it
        return " AND ".join(parts), values


_READ: Final = ", ".join(body_of("envelopes", "e.") if column == "e.body" else column for column in COLUMNS)
_ROOTS: Final = f"""
    SELECT {_READ} FROM envelopes e JOIN decisions d USING (id)
    WHERE e.id BETWEEN ? AND ? AND"""
_MEMBERS: Final = f"""
    SELECT {_READ}, e.root FROM envelopes e JOIN decisions d USING (id)
    WHERE e.attempt > 0 AND e.id <= ? AND e.root IN (SELECT value FROM json_each(?)) ORDER BY e.id"""
_LATER: Final = "SELECT request_id, cause FROM alerts WHERE root IN (SELECT value FROM json_each(?)) ORDER BY id"


_UNSEALED: Final = Seal()
_SILENCED: Final = """
    SELECT count(*) FROM alerts a CROSS JOIN envelopes e ON e.request_id = a.root JOIN decisions d ON d.id = e.id
    WHERE a.silence IS NOT NULL AND"""


class History:
    """The stored stories, for reading only. Close it."""

    def __init__(self, path: Path, choice: Choice, seal: Seal = _UNSEALED) -> None:
        """Open the file.

        Raises:
            StoreUnavailable: it cannot be opened.
            Misconfigured: ``seal`` has not all keys that are needed.
        """
        self._choice = choice
        try:
            self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
            seal.attach(self._connection)
            seal.check(self._connection)
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

    def silenced(self) -> int:
        """Alerts about these stories that silences kept from everybody."""
        where, values = self._choice.clauses()
        return int(self._one(f"{_SILENCED} {where}", *values)[0])

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
            stories = {row[0]: [Recorded(row)] for row in rows}
            failed = [request_id for request_id, (first,) in stories.items() if first.outcome is Outcome.FAILED]
            for row in self._connection.execute(_MEMBERS, (last, json.dumps(failed))):
                stories[row[-1]].append(Recorded(row))
            open_ends = [request_id for request_id, story in stories.items() if len(story) > 1 or story[0].waits]
            causes: dict[str, list[str]] = {}
            for request_id, cause in self._connection.execute(_LATER, (json.dumps(open_ends),)):
                causes.setdefault(request_id, []).append(cause)
        except sqlite3.Error as error:
            raise unavailable(error) from error
        for request_id in open_ends:
            for item in stories[request_id]:
                item.causes = causes.get(item.request_id, ())
        yield from stories.values()
