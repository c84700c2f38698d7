"""A rule together with what is written of it: where, and which patterns its ``match:`` consists of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from triage.rules.document import Document, read_document
from triage.rules.lint.findings import Finding
from triage.rules.lint.patterns import Pattern, every, pattern
from triage.rules.matchers import ERROR_FIELDS, FIELDS, Field, payload_field
from triage.rules.mistakes import Mistake, Path
from triage.rules.model import Rule, RuleSet


@dataclass(frozen=True, slots=True)
class Clause:
    """One pattern of ``match:``; ``path`` leads to it from the rule."""

    path: Path
    pattern: Pattern


@dataclass(frozen=True, slots=True)
class Entry:
    """A rule of a file.

    Attributes:
        clauses: its patterns.
        opaque: what else stands in its ``match:``, as text: only good to see that it is the same elsewhere.
        last_line: of what is written of it.
    """

    rule: Rule
    document: Document
    path: Path
    clauses: tuple[Clause, ...]
    opaque: frozenset[str]
    last_line: int

    def patterns(self) -> dict[str, Pattern]:
        """What each value must look like, by its name."""
        found: dict[str, list[Pattern]] = {}
        for clause in self.clauses:
            found.setdefault(clause.pattern.field.name, []).append(clause.pattern)
        return {name: every(parts[0].field, parts) for name, parts in found.items()}

    def finding(self, code: str, message: str, mend: str, path: Path = ("id",)) -> Finding:
        """A finding at a path from the rule; where nothing is written, at the nearest that is."""
        while path and (*self.path, *path) not in self.document.values:
            path = path[:-1]
        problem = self.document.problem(self.path, Mistake(message, mend, path or ("id",)))
        return Finding(code, problem, self.rule.id)


def entries_of(rules: RuleSet) -> list[Entry]:
    """All rules of a set, in order."""
    by_place = {(rule.place.file, rule.place.line, rule.place.column): rule for rule in rules.rules}
    entries = []
    for source in rules.sources:
        document, _ = read_document(source)
        if document is None or not isinstance(document.root, dict):
            continue
        last_lines = _last_lines(document)
        for index, written in enumerate(document.root.get("rules") or ()):
            path: Path = ("rules", index)
            rule = by_place[source.name, *document.line(path)]
            match = written.get("match", {})
            clauses = tuple(Clause(("match", *where), pattern(field, value)) for where, field, value in _fields(match))
            entries.append(Entry(rule, document, path, clauses, frozenset(_opaque(match)), last_lines[index]))
    return entries


def _fields(match: Mapping[str, Any]) -> Iterator[tuple[Path, Field, Any]]:
    for key, value in match.items():
        if key in FIELDS:
            yield (key,), FIELDS[key], value
        elif key == "error":
            yield from (((key, name), ERROR_FIELDS[name], each) for name, each in value.items())
        elif key == "payload":
            yield from (((key, name), payload_field(name), each) for name, each in value.items())


def _opaque(match: Mapping[str, Any]) -> Iterator[str]:
    known = (*FIELDS, "error", "payload")
    return (json.dumps([key, value], sort_keys=True) for key, value in match.items() if key not in known)


def _last_lines(document: Document) -> dict[int, int]:
    """The last line of what is written of each rule of a file, by its index."""
    ends: dict[int, int] = {}
    for path, span in document.values.items():
        if path[:1] == ("rules",) and len(path) > 1 and isinstance(path[1], int):
            ends[path[1]] = max(ends.get(path[1], 0), span.end)
    return {index: document.source.text.count("\n", 0, end) + 1 for index, end in ends.items()}
