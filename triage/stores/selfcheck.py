"""Whether the laws hold of an SQLite store: read-only, in one consistent view, beside a running daemon.

Reading never blocks the daemon, which writes to the log beside the file (WAL); while the view is held the log only
grows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from triage.clock import monotonic
from triage.envelope import RequestId
from triage.errors import StoreUnavailable
from triage.reruns.lineage import task_id
from triage.stores.law import Law
from triage.stores.laws import FILE, LAWS
from triage.stores.migrations import refuse_other_versions
from triage.stores.records import instant
from triage.stores.worker import unavailable

SHOWN: Final = 20
"""Rows that break a law, as far as they are kept; the others are counted."""

_FAR: Final = timedelta(hours=1)
"""No lease ends later than that; longer than any that can be configured."""

_BUSY: Final = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Breach:
    """A row that breaks a law: the name by which a person finds it, and what is wrong with it."""

    what: str
    problem: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found about one law.

    Attributes:
        numbers: what the law counts.
        told: the same as a line of text.
        broken: how many rows break it.
        breaches: the first `SHOWN` of them.
        seconds: what checking took.
    """

    law: Law
    numbers: Mapping[str, int]
    told: str
    broken: int
    breaches: tuple[Breach, ...]
    seconds: float


@contextmanager
def view(path: Path) -> Iterator[sqlite3.Connection]:
    """One consistent view of a store, which may be in use; nothing can be written by it.

    Raises:
        StoreUnavailable: it cannot be read, or another version of triage has made its tables.
    """
    try:
        with closing(
            sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=_BUSY.total_seconds()
            )
        ) as connection:
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("BEGIN")
            refuse_other_versions(connection)
            yield connection
    except sqlite3.Error as error:
        raise StoreUnavailable(f"{path}: {unavailable(error)}") from error


def check(connection: sqlite3.Connection, *, now: datetime, quick: bool = False) -> Iterator[Verdict]:
    """Check all laws, one after the other. A file so damaged that a law cannot be checked breaks that law.

    Args:
        quick: leave out what reads every page of the file.
    """
    connection.create_function("task_id", 2, _task_id, deterministic=True)
    values = {"far": instant(now + _FAR), "instant": "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T*Z"}
    for law in LAWS:
        if quick and law is FILE:
            continue
        began = monotonic()
        numbers: dict[str, int] = {}
        broken, breaches = 0, list[Breach]()
        try:
            cursor = connection.execute(law.numbers)
            numbers = dict(zip([column[0] for column in cursor.description], cursor.fetchone(), strict=True))
            for what, problem in connection.execute(law.broken, values):
                broken += 1
                if broken <= SHOWN:
                    breaches.append(Breach(str(what), str(problem)))
        except sqlite3.DatabaseError as error:
            broken += 1
            breaches.append(Breach("the file", f"this could not be checked: {error}"))
        told = law.told.format_map(numbers) if numbers else "not counted"
        yield Verdict(law, numbers, told, broken, tuple(breaches), monotonic() - began)


def _task_id(root: str | None, attempt: int | None) -> str | None:
    return None if root is None or attempt is None else task_id(RequestId(root), attempt)
