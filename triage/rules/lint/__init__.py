"""Lint: what is valid in rule files, and yet hardly meant. Pure.

What is claimed of reachability (never, shadowed, duplicate) is only claimed when it is certain.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from datetime import date
from typing import Final

from triage.rules.lint.actions import action_findings
from triage.rules.lint.care import care_findings
from triage.rules.lint.clauses import clause_findings, text_findings
from triage.rules.lint.entry import Defined, Entry, conditions_of, entries_of
from triage.rules.lint.findings import CODES, Finding
from triage.rules.lint.inhibitions import inhibition_findings
from triage.rules.lint.names import name_findings
from triage.rules.lint.reach import reach_findings
from triage.rules.model import RuleSet

__all__ = ["CODES", "Finding", "lint"]


def lint(rules: RuleSet, *, today: date, receivers: Collection[str] | None = None) -> list[Finding]:
    """Look at a loaded rule set; findings stand in the order of their places.

    A comment ``# lint: allow R020 R021`` in a rule, or above its ``- id:``, allows these in the rule; above the first
    rule of a file, in the whole file.

    Args:
        today: to compare dates with.
        receivers: those configured; None when that is not known.
    """
    entries, defined = entries_of(rules)
    conditions = list(conditions_of(defined))
    findings: list[Finding] = [*reach_findings(entries, conditions), *name_findings(entries, defined, today=today)]
    for condition in conditions:
        findings += text_findings(condition)
    for entry in entries:
        findings += clause_findings(entry)
        findings += action_findings(entry, receivers=receivers)
    findings += inhibition_findings(entries)
    findings += care_findings(entries, today=today)
    allowed = set(_allowed(entries, defined))
    found = [
        each
        for each in findings
        if (each.problem.file, each.rule_id, each.code) not in allowed
        and (each.problem.file, "", each.code) not in allowed
    ]
    return sorted(found, key=lambda each: (each.problem.file, each.problem.line, each.problem.column, each.code))


_ALLOW: Final = re.compile(r"#.*\blint:\s*allow((?:[\s,]+R\d{3})+)")


def _allowed(entries: Sequence[Entry], defined: Defined) -> Iterator[tuple[str, str, str]]:
    """(file, rule id or nothing, code) of each permission."""
    for file, document in defined.documents.items():
        rules = [entry for entry in entries if entry.document is document]
        lines = document.source.text.split("\n")
        whole = _lines_before(rules[0].rule.place.line, lines) if rules else len(lines)
        for number, line in enumerate(lines, start=1):
            if found := _ALLOW.search(line):
                of_rule = next((each.rule.id for each in rules if number <= each.last_line), None)
                rule_id = "" if number <= whole else of_rule
                if rule_id is not None:
                    yield from ((file, rule_id, code) for code in re.findall(r"R\d{3}", found[1]))


def _lines_before(first: int, lines: Sequence[str]) -> int:
    """How many lines stand before a rule and the comments above it."""
    return next((number for number in range(first - 1, 0, -1) if not lines[number - 1].lstrip().startswith("#")), 0)
