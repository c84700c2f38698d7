"""The kill switch: it stops re-runs, all or those of some functions or rules, until a person lets them go on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from triage.rules.values import Check, any_text, function_name


class Scope(StrEnum):
    """What a switch stops."""

    ALL = "all"  # every re-run
    FILE = "file"  # every re-run, while the stop file exists
    FUNCTION = "function"  # those of the functions that its pattern names
    RULE = "rule"  # those that the rules decided whose ids its pattern names


@dataclass(frozen=True, slots=True)
class Switch:
    """Re-runs that were switched off: by whom, why and since when; and, once they are on again, the same of that.

    ``pattern`` is written as in a rule's ``match`` (a name, a glob, a regular expression between slashes); it is empty
    for what stops everything.
    """

    scope: Scope
    pattern: str
    by: str
    reason: str
    at: datetime
    on_at: datetime | None = None
    on_by: str = ""
    on_reason: str = ""

    def __str__(self) -> str:
        match self.scope:
            case Scope.FUNCTION:
                return f"function {self.pattern}"
            case Scope.RULE:
                return f"rule {self.pattern}"
            case Scope.FILE:
                return "all re-runs, by the stop file"
        return "all re-runs"


def stopping(switches: Iterable[Switch], *, function: str, rule: str) -> Switch | None:
    """The first of the switches that stops a re-run of this function, decided by this rule; None: it may go."""
    for switch in switches:
        match switch.scope:
            case Scope.FUNCTION if not function_matcher(switch.pattern)(function):
                continue
            case Scope.RULE if not rule_matcher(switch.pattern)(rule):
                continue
        return switch
    return None


@lru_cache(maxsize=256)
def function_matcher(pattern: str) -> Check:
    """Whether a function's label is meant.

    Raises:
        Mistakes: it is no pattern.
    """
    return function_name(pattern)


@lru_cache(maxsize=256)
def rule_matcher(pattern: str) -> Check:
    """Whether a rule's id is meant.

    Raises:
        Mistakes: it is no pattern.
    """
    return any_text(pattern)
