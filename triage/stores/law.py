"""A law that must hold of a store, as a value, and what the SQL of several laws has in common."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from triage.states import RowState


@dataclass(frozen=True, slots=True)
class Law:
    """What must hold of a store.

    Attributes:
        id: for programs, and for the reference.
        sentence: what holds.
        numbers: SQL that gives one row; `told` is filled with its columns.
        told: the line that shows the numbers.
        broken: SQL that gives the rows that break the law: a name by which a person finds it, and what is wrong.
        mend: what to do about such rows.
    """

    id: str
    sentence: str
    numbers: str
    told: str
    broken: str
    mend: str


def texts(values: Iterable[str]) -> str:
    """A list of texts in SQL."""
    return ", ".join(f"'{value}'" for value in sorted(values))


OPEN: Final = texts({RowState.PENDING, RowState.UNKNOWN})
LOOK: Final = "`triage failures show` tells its story."
DEFECT: Final = "A defect of triage, or a change by hand: keep a copy of the file, and report it with these rows."
GONE: Final = ", ".join(
    f"coalesce((SELECT value FROM counters WHERE name = 'removed_{name}'), 0) AS {name}"
    for name in ("envelopes", "quarantined", "failures", "alerts")
)
"""What retention has removed."""
