"""What lint can find, by code. Each has its section in ``docs/reference/lint.md``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from triage.errors import Problem


class Level(StrEnum):
    """An error keeps rules from being loaded into a running daemon; a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Code:
    """One kind of finding."""

    name: str
    level: Level


CODES: Final[Mapping[str, Code]] = {
    "R001": Code("never-matches", Level.ERROR),
    "R002": Code("shadowed", Level.WARNING),
    "R003": Code("duplicate", Level.WARNING),
    "R004": Code("catch-all-first", Level.WARNING),
    "R005": Code("no-catch-all", Level.WARNING),
    "R006": Code("constant-when", Level.WARNING),
    "R007": Code("status-200", Level.WARNING),
    "R008": Code("count-as-cap", Level.WARNING),
    "R009": Code("star-in-message", Level.WARNING),
    "R010": Code("plain-regex", Level.WARNING),
    "R011": Code("misspelt-word", Level.WARNING),
    "R012": Code("untold-rerun", Level.WARNING),
    "R013": Code("long-rerun", Level.WARNING),
    "R014": Code("multiplied-retries", Level.WARNING),
    "R015": Code("unreachable-attempts", Level.WARNING),
    "R016": Code("unknown-receiver", Level.ERROR),
    "R017": Code("group-by-message", Level.WARNING),
    "R018": Code("ignores-everything", Level.WARNING),
    "R019": Code("no-owner", Level.WARNING),
    "R020": Code("no-runbook", Level.WARNING),
    "R021": Code("review-due", Level.WARNING),
    "R022": Code("expired", Level.WARNING),
    "R023": Code("unused-name", Level.WARNING),
    "R024": Code("window-over", Level.WARNING),
    "R025": Code("untold-hold", Level.WARNING),
    "R026": Code("no-such-cause", Level.ERROR),
    "R027": Code("unlike-groups", Level.ERROR),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a rule file that is valid, yet hardly meant. ``problem.hint`` says how to mend it.

    ``rule_id`` is empty for what concerns a file.
    """

    code: str
    problem: Problem
    rule_id: str = ""

    @property
    def name(self) -> str:
        """The code in words."""
        return CODES[self.code].name

    @property
    def level(self) -> Level:
        """How bad."""
        return CODES[self.code].level

    @property
    def anchor(self) -> str:
        """Of its section in ``docs/reference/lint.md``."""
        return f"{self.code.lower()}-{self.name}"
