"""YAML with places: plain values, and for each key and value where it stands in the text.

Values are typed by the core schema of YAML 1.2, narrowed: ``on`` and ``no`` are texts, ``0123``, ``1:30`` and
``2024-01-01`` too, and there is no NaN or infinity. Keys are always texts. The events of libyaml are walked one by one
with bounds, because its composer recurses without one: a file of nothing but ``[`` would end the process.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import yaml

from triage.errors import Problem
from triage.rules.mistakes import MAX_TOLD, Mistake, Path
from triage.rules.model import SourceText

MAX_SIZE: Final = 1 << 20
"""Characters of one file."""
MAX_DEPTH: Final = 64
MAX_NODES: Final = 50_000
"""Values of one file, each alias counted as everything it stands for."""

_EXCERPT: Final = 160
_UNPRINTABLE: Final = re.compile("[^\\t\\n\\r\\x20-\\x7e\\x85\\xa0-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
_INT: Final = re.compile(r"-?(?:0|[1-9]\d{0,17})", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?(?:\.\d+|(?:0|[1-9]\d*)\.\d*|(?:0|[1-9]\d*)(?=[eE]))(?:[eE][-+]?\d+)?", re.ASCII)
_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_TEXT_TAGS: Final = ("!", "tag:yaml.org,2002:str")


class Span(NamedTuple):
    """Where a value stands, in characters; ``style`` is empty for plain scalars, None for what is no scalar."""

    start: int
    end: int
    style: str | None


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML file: its plain value (``root``) and the places of all keys and values."""

    source: SourceText
    root: Any
    values: dict[Path, Span]
    keys: dict[Path, int]

    def value(self, path: Path) -> Any:
        """The plain value at a path."""
        return _value_at(self.root, path)

    def line(self, path: Path) -> tuple[int, int]:
        """Line and column of a value, counted from 1."""
        return _place(self.source.text, self._span(path).start)

    def problem(self, path: Path, mistake: Mistake) -> Problem:
        """The mistake, found in the value at ``path``, with its place in the file."""
        path += mistake.path
        span = self._span(path)
        index = span.start
        if mistake.key:
            index = self.keys.get(path, index)
        elif mistake.offset is not None and path in self.values and span.style is not None:
            index = _inside(self.source.text, span, _value_at(self.root, path), mistake.offset)
        return problem_at(self.source, index, mistake.message, mistake.hint)

    def _span(self, path: Path) -> Span:
        # What an alias stands for has no place of its own: the alias's counts.
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, Span(0, 0, None))


def problem_at(source: SourceText, index: int, message: str, hint: str = "") -> Problem:
    """A problem at a character of a file, with the line it stands in."""
    line, column = _place(source.text, index)
    start = index - column + 1
    end = source.text.find("\n", start, start + _EXCERPT + 42)
    excerpt = source.text[start : end if end >= 0 else start + _EXCERPT + 42].rstrip("\r")
    if column > _EXCERPT:
        excerpt = ""  # a caret that far to the right points at nothing a person can find
    elif len(excerpt) > _EXCERPT + 40:
        excerpt = excerpt[: _EXCERPT + 40] + "..."
    return Problem(source.name, line, column, _shown(message), _shown(hint), _shown(excerpt.replace("\t", " ")))


def _shown(text: str) -> str:
    # Characters that turn the direction of writing are allowed in YAML, and could make a line read as another.
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def read_document(source: SourceText) -> tuple[Document | None, list[Problem]]:
    """Read one file. No document comes back when its text is no YAML or passes a bound; problems may come with both."""
    reader = _Reader(source)
    try:
        reader.check_text()
        root = reader.document()
    except _Fatal as fatal:
        return None, [*reader.problems, fatal.problem]
    return Document(source, root, reader.values, reader.keys), reader.problems


class _Fatal(Exception):
    def __init__(self, problem: Problem) -> None:
        self.problem = problem


@dataclass(slots=True)
class _Reader:
    source: SourceText
    values: dict[Path, Span] = field(default_factory=dict)
    keys: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)
    count: int = 0

    def check_text(self) -> None:
        text = self.source.text
        if len(text) > MAX_SIZE:
            raise self.fatal(0, f"the file has {len(text)} characters; at most {MAX_SIZE} are read")
        if strange := _UNPRINTABLE.search(text):
            raise self.fatal(strange.start(), f"the character U+{ord(strange[0]):04X} is not allowed in YAML")

    def document(self) -> Any:
        events = self.events()
        next(events)  # the stream starts
        event = next(events)
        if isinstance(event, yaml.StreamEndEvent):
            return None
        root = self.node(next(events), events, ())
        next(events)  # the document ends
        event = next(events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise self.fatal(event.start_mark.index, "a second document; a rule file holds one")
        return root

    def events(self) -> Iterator[Any]:
        try:
            yield from yaml.parse(self.source.text, Loader=yaml.CSafeLoader)
        except yaml.MarkedYAMLError as error:
            mark, begin = error.problem_mark or error.context_mark, error.context_mark
            context = f" {error.context}" if error.context else ""
            if begin is not None and ("flow" in context or "quoted" in context):
                context += f", which begins in line {begin.line + 1}"
            hint = next((hint for said, hint in _MENDS.items() if said in f"{error.problem}"), "")
            raise self.fatal(mark.index if mark else 0, f"not valid YAML: {error.problem}{context}", hint) from None
        except yaml.YAMLError as error:
            raise self.fatal(0, f"not valid YAML: {error}") from None

    def node(self, event: Any, events: Iterator[Any], path: Path) -> Any:
        start, end = event.start_mark.index, event.end_mark.index
        if len(path) > MAX_DEPTH:
            raise self.fatal(start, f"nested deeper than {MAX_DEPTH}")
        before = self.count
        self.grow(1, start)
        value: Any
        if isinstance(event, yaml.AliasEvent):
            self.values[path] = Span(start, end, None)
            return self.alias(event, start)
        if isinstance(event, yaml.ScalarEvent):
            self.values[path] = Span(start, end, event.style or "")
            value = self.scalar(event)
        else:
            self.values[path] = Span(start, start, None)
            self.refuse_tag(event)
            value = self.mapping(events, path) if isinstance(event, yaml.MappingStartEvent) else self.list(events, path)
        if event.anchor:
            self.anchors[event.anchor] = (value, self.count - before)
        return value

    def alias(self, event: Any, start: int) -> Any:
        if event.anchor not in self.anchors:
            raise self.fatal(start, f"the alias *{event.anchor} stands for nothing defined before it")
        value, size = self.anchors[event.anchor]
        self.grow(size, start)
        return value

    def scalar(self, event: Any) -> Any:
        if event.tag is not None:
            if event.tag not in _TEXT_TAGS:
                self.refuse_tag(event)
            return event.value
        return _typed(event.value) if event.implicit[0] else event.value

    def list(self, events: Iterator[Any], path: Path) -> list[Any]:
        items: list[Any] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self.node(event, events, (*path, len(items))))
        return items

    def mapping(self, events: Iterator[Any], path: Path) -> dict[str, Any]:
        pairs: dict[str, Any] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            start = event.start_mark.index
            if not isinstance(event, yaml.ScalarEvent):
                raise self.fatal(start, "a key must be a text")
            key = event.value
            where = (*path, key)
            if key in pairs:
                line, _ = _place(self.source.text, self.keys[where])
                self.report(start, f"the key {key[:60]!r} stands here twice", f"first in line {line}")
                self.node(next(events), events, (*path, key, "again"))
                continue
            self.keys[where] = start
            pairs[key] = self.node(next(events), events, where)
        return pairs

    def refuse_tag(self, event: Any) -> None:
        if event.tag is not None and event.tag != "!":
            self.report(event.start_mark.index, f"the tag {event.tag[:80]!r} is not supported", "leave it out")

    def grow(self, nodes: int, index: int) -> None:
        self.count += nodes
        if self.count > MAX_NODES:
            raise self.fatal(index, f"more than {MAX_NODES} values, with aliases counted as what they stand for")

    def report(self, index: int, message: str, hint: str = "") -> None:
        self.problems.append(problem_at(self.source, index, message, hint))
        if len(self.problems) >= MAX_TOLD:
            raise self.fatal(index, f"{MAX_TOLD} mistakes up to here; the rest is not read")

    def fatal(self, index: int, message: str, hint: str = "") -> _Fatal:
        return _Fatal(problem_at(self.source, index, message, hint))


_NOT_CLOSED: Final = "a bracket that was opened is not closed"
_MENDS: Final = {
    "found a tab character": "indent with blanks",
    "cannot start any token": "indent with blanks, not tabs; a text that begins with @, % or ` needs quotes",
    "mapping values are not allowed": "a text with a colon and a blank in it needs quotes; or the indentation is wrong",
    "did not find expected ',' or": _NOT_CLOSED + ", or a quote inside of quotes is not written twice",
    "did not find expected node content": _NOT_CLOSED,
    "unexpected end of stream": "a quote that was opened is not closed",
    "could not find expected ':'": "a colon and a blank stand between a key and its value",
    "did not find expected key": "the indentation is wrong, or a quote inside of quotes is not written twice",
}
"""What to do about what the parser says, by a part of that."""


def _typed(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        return number if math.isfinite(number) else text
    return text


def _place(text: str, index: int) -> tuple[int, int]:
    """Line and column of a character, as editors count: lines end at line feeds only, unlike in libyaml's marks."""
    index = min(index, len(text))
    return text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index)


def _value_at(root: Any, path: Path) -> Any:
    for key in path:
        root = root[key]
    return root


_PROPERTIES = re.compile(r"(?:[&!]\S*\s+)*")
_HEADER = re.compile(r"[|>][^\n]*\n")
_PIECE: Final = {
    "'": re.compile(r"''|."),
    '"': re.compile(r"\\x(?P<x>..)|\\u(?P<u>.{4})|\\U(?P<U>.{8})|(?P<blank>\\[ntrvf NLP_\n])|\\.|.", re.DOTALL),
}
_ANY: Final = re.compile(r".", re.DOTALL)


def _inside(text: str, span: Span, value: str, offset: int) -> int:
    """Where the character ``offset`` of a scalar's value stands in the file.

    Folding and indentation only ever change white space. So the n-th character that is no white space in the value is
    the n-th such piece of the source, an escape sequence being one piece.
    """
    ordinals = [index for index, char in enumerate(value) if not char.isspace()]
    wanted = bisect_right(ordinals, offset - 1)
    begin = _PROPERTIES.match(text, span.start).end()  # type: ignore[union-attr]  # it matches nothing, too
    if span.style in ("|", ">"):
        header = _HEADER.match(text, begin)
        begin = header.end() if header else begin
    elif span.style:
        begin += 1
    after = begin
    for piece in _PIECE.get(span.style or "", _ANY).finditer(text, begin, span.end):
        if _is_blank(piece):
            continue
        if wanted == 0:
            return piece.start()
        wanted -= 1
        after = piece.end()
    return min(after, span.end)


def _is_blank(piece: re.Match[str]) -> bool:
    groups = piece.groupdict()
    if digits := groups.get("x") or groups.get("u") or groups.get("U"):
        return chr(int(digits, 16)).isspace()
    return bool(groups.get("blank")) or piece[0].isspace()
