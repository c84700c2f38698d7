"""Short codes of messages in the SQLite store: which are taken, and what a person means by one, or by its beginning."""

from __future__ import annotations

import sqlite3
from typing import Final

from triage.errors import AmbiguousCode
from triage.incident import LEAST_CODE, incident_code

LEAST_TYPED: Final = 4
"""Fewer characters of a code or a key name too many."""

CODE: Final = "json_extract(payload, '$.code')"
"""Of a message; spelt as in the index of the outbox."""

_MESSAGES: Final = f"FROM outbox WHERE kind = 'notify' AND {CODE}"
_AFTER: Final = "g"  # sorts behind every digit, and behind the hyphen before the number of a message
_RANGE: Final = ">= :code AND {0} < :code || '" + _AFTER + "'"
_TAKEN: Final = f"""
    SELECT code FROM alert_groups WHERE code {_RANGE.format("code")} AND key != :key
    UNION SELECT {CODE} {_MESSAGES} {_RANGE.format(CODE)} AND group_key IS NOT :key"""
_EXACT: Final = f"""
    SELECT key FROM alert_groups WHERE code IN (:name, :code)
    UNION SELECT group_key {_MESSAGES} IN (:name, :code) AND group_key IS NOT NULL
    UNION SELECT key FROM alert_groups WHERE key = :name"""
_BEGINNING: Final = f"""
    SELECT key FROM alert_groups WHERE code {_RANGE.format("code")}
    UNION SELECT group_key {_MESSAGES} {_RANGE.format(CODE)} AND group_key IS NOT NULL
    UNION SELECT key FROM alert_groups WHERE substr(key, 1, length(:name)) = :name"""
_CODES: Final = f"SELECT DISTINCT {CODE} {_MESSAGES} {_RANGE.format(CODE)} ORDER BY 1 LIMIT 20"


def taken(connection: sqlite3.Connection, key: str, number: int) -> tuple[str, ...]:
    """The codes of others that begin as the code of this incident of a group would."""
    values = {"key": key, "code": incident_code(key, number)[:LEAST_CODE]}
    return tuple(sorted({code.partition("-")[0] for (code,) in connection.execute(_TAKEN, values)}))


def groups_named(connection: sqlite3.Connection, name: str) -> list[str]:
    """The keys of the groups with this code of a message about them, or this key; if there is none, of those with a
    code or a key that begins so.
    """
    bare = plain(name)
    values = {"name": bare, "code": bare.partition("-")[0]}
    found = [key for (key,) in connection.execute(_EXACT, values)]
    if not found and len(values["code"]) >= LEAST_TYPED:
        found = [key for (key,) in connection.execute(_BEGINNING, values)]
    return sorted(found)


def message_code(connection: sqlite3.Connection, name: str) -> str:
    """The code of a message that a person means by it, or by its beginning; as it is, when there is none.

    Raises:
        AmbiguousCode: several begin so.
    """
    code = plain(name)
    if connection.execute(f"SELECT 1 {_MESSAGES} = ? LIMIT 1", (code,)).fetchone():
        return code
    found = [each for (each,) in connection.execute(_CODES, {"code": code})] if len(code) >= LEAST_TYPED else []
    if len(found) > 1:
        raise AmbiguousCode(name, found)
    return found[0] if found else code


def plain(name: str) -> str:
    """A code as it is kept, however it was copied."""
    return name.strip().removeprefix("#").lower()
