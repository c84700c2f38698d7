"""Where a key stands in a TOML file. `tomllib` does not say, so its lines are scanned: enough to point at a mistake."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Path = tuple[str | int, ...]

_BARE = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_KEY = rf"{_BARE}(?:\s*\.\s*{_BARE})*"
_TABLE = re.compile(rf"\s*(\[\[?)\s*({_KEY})\s*\]")
_ASSIGNMENT = re.compile(rf"\s*({_KEY})\s*=")
_SECRET = re.compile(r"secret|token|password|urls|headers|://|@", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """Line and column of a key, counted from 1."""

    line: int
    column: int


def key_places(text: str) -> dict[Path, KeyPlace]:
    """Find the keys and table headers of a TOML text. Keys inside inline tables are not found; their table's key is."""
    places: dict[Path, KeyPlace] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    for number, line, inside in _lines(text):
        if inside:
            continue
        if header := _TABLE.match(line):
            table = _split(header[2])
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                places.setdefault(table, KeyPlace(number, header.start(2) + 1))
            table = _indexed(table, counts)
            places.setdefault(table, KeyPlace(number, header.start(2) + 1))
        elif assignment := _ASSIGNMENT.match(line):
            places.setdefault(table + _split(assignment[1]), KeyPlace(number, assignment.start(1) + 1))
    return places


def _lines(text: str) -> Iterator[tuple[int, str, bool]]:
    """Number and text of each line, and whether it begins inside a text of several lines."""
    opened = ""
    for number, line in enumerate(text.splitlines(), start=1):
        yield number, line, bool(opened)
        if opened:
            opened = "" if opened in line else opened
        else:
            opened = next((quotes for quotes in ('"""', "'''") if line.count(quotes) % 2), "")


def find(places: dict[Path, KeyPlace], path: Sequence[str | int]) -> KeyPlace | None:
    """The place of a key, or of the nearest thing around it that was found."""
    for end in range(len(path), 0, -1):
        if place := places.get(tuple(path[:end])):
            return place
    return None


def excerpt(text: str, line: int) -> str:
    """One line of the file to show to a person; values that may be secret are replaced."""
    shown, inside = next(((found, inside) for number, found, inside in _lines(text) if number == line), ("", False))
    shown = shown.rstrip()
    if inside or not shown:
        return shown and "***"
    key, equals, value = shown.partition("=")
    if equals and key.strip() == "endpoint" and "@" not in value:
        return shown
    if equals:
        return f"{key}= ***" if _SECRET.search(shown) else shown
    # Without a key this is a table's header, a comment or part of a longer value, which may be anything.
    return shown if shown.lstrip().startswith(("[", "#")) and not _SECRET.search(shown) else "***"


def _split(key: str) -> Path:
    return tuple(part.strip("\"'") for part in re.findall(_BARE, key))


def _indexed(table: Path, counts: dict[Path, int]) -> Path:
    """``sources`` -> ``sources, 1`` when it is the second ``[[sources]]``."""
    path: Path = ()
    for end in range(1, len(table) + 1):
        path += (table[end - 1],)
        if table[:end] in counts:
            path += (counts[table[:end]],)
    return path
