"""A mistake in a value of a rule file, told relative to that value; `triage.rules.document` knows the line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

MAX_TOLD: Final = 100
"""Mistakes of one file that are told. Past that nobody reads on, and a file of nothing else would take seconds."""

Path = tuple[str | int, ...]
"""The keys and list positions that lead to a value."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with a value.

    Attributes:
        path: from the value that was read to the one that is wrong.
        key: the key at ``path`` is meant, not its value.
        offset: the character inside the text at ``path``, when that is known.
    """

    message: str
    hint: str = ""
    path: Path = ()
    key: bool = False
    offset: int | None = None


class Mistakes(Exception):
    """A value cannot be used. Raised while a rule file is read; becomes a `triage.errors.RulesInvalid`."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("; ".join(mistake.message for mistake in mistakes))


class Gathered(list[Mistake]):
    """The mistakes of one value, while it is read. The value is of no use anyway: the hundredth ends its reading.

    Raises:
        Mistakes: from ``append`` and ``+=``, when it holds `MAX_TOLD`.
    """

    def append(self, mistake: Mistake) -> None:
        super().append(mistake)
        self._enough()

    def __iadd__(self, mistakes: Iterable[Mistake]) -> Self:  # type: ignore[override,misc]  # narrower than list's
        super().extend(mistakes)
        self._enough()
        return self

    def _enough(self) -> None:
        if len(self) >= MAX_TOLD:
            raise Mistakes(self[:MAX_TOLD])


def wrong(message: str, hint: str = "", *, path: Path = ()) -> Mistakes:
    """A single mistake, to be raised."""
    return Mistakes([Mistake(message, hint, path)])


def did_you_mean(word: object, known: Iterable[str], *, listed: bool = False) -> str:
    """The hint for a misspelt word: the nearest known one, else all when they are few and not ``listed`` already."""
    options = sorted(known)
    close = (
        options if len(options) <= _COMPARED else [each for each in options if each[:1] == str(word)[:1]][:_COMPARED]
    )
    if isinstance(word, str) and len(word) > 1 and (near := difflib.get_close_matches(word[:100], close, n=1)):
        return f"did you mean {near[0]!r}?"
    return "" if listed or len(options) > 16 else f"one of {', '.join(options)}"


_COMPARED: Final = 200
"""Names that a misspelt one is compared with; each takes some ten microseconds."""


def kind_of(value: object) -> str:
    """What a value is, in words a YAML author knows."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    text = repr(value) if isinstance(value, str) else f"the number {value}"
    return text if len(text) <= 60 else text[:57] + "..."
