"""A rule, or a named condition, together with what is written of it: where, and which patterns it consists of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from triage.rules.document import Document, read_document
from triage.rules.lint.findings import Finding
from triage.rules.lint.patterns import Pattern, every, pattern
from triage.rules.matchers import COMBINATIONS, ERROR_FIELDS, FIELDS, Field, label_field, payload_field
from triage.rules.mistakes import Mistake, Path
from triage.rules.model import Rule, RuleSet


@dataclass(frozen=True, slots=True)
class Clause:
    """One pattern; ``path`` leads to where it is mentioned. ``negated`` when that is inside a ``not`` of matches."""

    path: Path
    pattern: Pattern
    negated: bool = False

    @property
    def name(self) -> str:
        """What it looks at, in the words of ``match:``."""
        return _WORDS.get(self.pattern.field.name, self.pattern.field.name.replace(".", " ", 1))


_WORDS: Final = {field.name: key for key, field in FIELDS.items()}


@dataclass(frozen=True, slots=True)
class Written:
    """A place in a file that holds patterns: ``mentioned`` are all of them, however they are combined."""

    document: Document
    path: Path
    rule_id: str
    mentioned: tuple[Clause, ...]

    def finding(self, code: str, message: str, mend: str, path: Path = ("id",)) -> Finding:
        """A finding at a path from here; where nothing is written, at the nearest that is."""
        while path and (*self.path, *path) not in self.document.values:
            path = path[:-1]
        here = path or (("id",) if self.rule_id else ())
        return Finding(code, self.document.problem(self.path, Mistake(message, mend, here)), self.rule_id)


@dataclass(frozen=True, slots=True)
class Entry(Written):
    """A rule of a file.

    Attributes:
        clauses: patterns all of which must hold.
        opaque: what else must hold, as text: only good to see that the same is asked elsewhere.
        last_line: of what is written of it.
    """

    rule: Rule
    clauses: tuple[Clause, ...]
    opaque: frozenset[str]
    last_line: int

    def patterns(self) -> dict[str, Pattern]:
        """What each value must look like, by its name. A rule that does not mention ``outcome`` sees failures only."""
        found: dict[str, list[Pattern]] = {}
        for clause in self.clauses:
            found.setdefault(clause.pattern.field.name, []).append(clause.pattern)
        if not self.rule.successes:
            found["outcome"] = [pattern(FIELDS["outcome"], "failed")]
        return {name: every(parts[0].field, parts) for name, parts in found.items()}


@dataclass(frozen=True, slots=True)
class Defined:
    """What rule files define by name, as written."""

    documents: Mapping[str, Document]

    def meaning(self, kind: str, name: str, file: str) -> tuple[Any, str]:
        """What a condition or window is that a file mentions, and the file that defines it: it has names of its own.

        (None, "") when there is none.
        """
        included = self.documents[file].root.get("include") or []
        files = [file, *(included if isinstance(included, list) else [included])]
        return next(((named[name], each) for each in files if name in (named := self.of(each, kind))), (None, ""))

    def of(self, file: str, kind: str) -> dict[str, Any]:
        """What a file itself defines: its ``conditions`` or ``windows``."""
        return self.documents[file].root.get(kind) or {}

    def settled(self, value: Any, file: str) -> Any:
        """A match with every name replaced by whose it is: another file may mean something else by it."""
        if isinstance(value, list):
            return [self.settled(each, file) for each in value]
        if not isinstance(value, dict):
            return value
        found = {}
        for key, each in value.items():
            if key in _NAMED:
                found[key] = self._owned(each, _NAMED[key], file)
            else:
                found[key] = self.settled(each, file) if key in COMBINATIONS else each
        return found

    def _owned(self, value: Any, kind: str, file: str) -> Any:
        if isinstance(value, list):
            return [self._owned(each, kind, file) for each in value]
        if isinstance(value, dict):
            return {key: self._owned(each, kind, file) for key, each in value.items()}
        return [self.meaning(kind, value, file)[1], value]


_NAMED: Final = {"use": "conditions", "window": "windows"}
MAX_CLAUSES: Final = 200
MAX_DEPTH: Final = 50
"""Of matches inside each other."""


def entries_of(rules: RuleSet) -> tuple[list[Entry], Defined]:
    """All rules of a set, in order, and what the files define."""
    by_place = {(rule.place.file, rule.place.line, rule.place.column): rule for rule in rules.rules}
    read = {source.name: read_document(source)[0] for source in rules.sources}
    defined = Defined({name: document for name, document in read.items() if document is not None})
    entries = []
    for name, document in defined.documents.items():
        last_lines = _last_lines(document)
        for index, written in enumerate(document.root.get("rules") or ()):
            path: Path = ("rules", index)
            rule = by_place[name, *document.line(path)]
            match = written.get("match", {})
            held = _Conjunction(defined, rule.id)
            held.add(match, ("match",), name)
            mentioned = tuple(_mentioned(match, ("match",)))
            clauses, opaque = tuple(held.clauses), frozenset(held.opaque)
            entries.append(Entry(document, path, rule.id, mentioned, rule, clauses, opaque, last_lines[index]))
    return entries, defined


def conditions_of(defined: Defined) -> Iterator[Written]:
    """The named conditions of all files."""
    for file, document in defined.documents.items():
        for name, match in defined.of(file, "conditions").items():
            yield Written(document, ("conditions", name), "", tuple(_mentioned(match, ())))


class _Conjunction:
    """Collects the patterns of a match all of which must hold, those of ``all`` and ``use: NAME`` too; and the rest.

    Conditions that use conditions can stand for very much: what passes the bounds is left out, and noted in the rest.
    """

    def __init__(self, defined: Defined, name: str) -> None:
        self.defined, self.name = defined, name
        self.clauses: list[Clause] = []
        self.opaque: set[str] = set()

    def add(self, match: Mapping[str, Any], path: Path, file: str, *, used: bool = False, depth: int = 0) -> None:
        """``used``: it is a condition, which stands elsewhere; its place is where it is used."""
        if depth > MAX_DEPTH or len(self.clauses) > MAX_CLAUSES:
            self.opaque.add(f"more than lint looks at: {self.name}")
            return
        self.clauses += [
            Clause(path if used else where, pattern(of, value)) for where, of, value in _fields(match, path)
        ]
        for key, value in match.items():
            here = path if used else (*path, key)
            if key == "all":
                for index, each in enumerate(value):
                    self.add(each, here if used else (*here, index), file, used=used, depth=depth + 1)
            elif key == "use" and isinstance(value, str):
                condition, home = self.defined.meaning("conditions", value, file)
                self.add(condition, here, home, used=True, depth=depth + 1)
            elif key in (*COMBINATIONS, *_NAMED):
                self.opaque.add(json.dumps(self.defined.settled({key: value}, file), sort_keys=True))


def _mentioned(match: Mapping[str, Any], path: Path, *, negated: bool = False) -> Iterator[Clause]:
    yield from (Clause(where, pattern(field, value), negated) for where, field, value in _fields(match, path))
    for key in COMBINATIONS:
        inner = match.get(key, [])
        for index, each in enumerate(inner if isinstance(inner, list) else [inner]):
            here: Path = (*path, key, index) if isinstance(inner, list) else (*path, key)
            yield from _mentioned(each, here, negated=negated or key == "not")


def _fields(match: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Field, Any]]:
    groups = {"error": ERROR_FIELDS.__getitem__, "payload": payload_field, "labels": label_field}
    for key, value in match.items():
        if key in FIELDS:
            yield (*path, key), FIELDS[key], value
        elif key in groups:
            yield from (((*path, key, name), groups[key](name), each) for name, each in value.items())


def names_used(match: Mapping[str, Any], kind: str) -> Iterator[str]:
    """Names of conditions (kind ``use``) or windows (``window``) that a match mentions."""
    if kind in match:
        yield from _texts(match[kind])
    for key in COMBINATIONS:
        inner = match.get(key, [])
        for each in inner if isinstance(inner, list) else [inner]:
            yield from names_used(each, kind)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _last_lines(document: Document) -> dict[int, int]:
    """The last line of what is written of each rule of a file, by its index."""
    ends: dict[int, int] = {}
    for path, span in document.values.items():
        if path[:1] == ("rules",) and len(path) > 1 and isinstance(path[1], int):
            ends[path[1]] = max(ends.get(path[1], 0), span.end)
    return {index: document.source.text.count("\n", 0, end) + 1 for index, end in ends.items()}
