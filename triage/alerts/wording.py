"""How single values are written in messages: texts from outside flattened and cut, instants, counts. Pure."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from enum import StrEnum


class Format(StrEnum):
    """What a receiver can show."""

    TEXT = "text"
    MARKDOWN = "markdown"
    HTML = "html"


def printable(text: str, limit: int) -> str:
    """Text from outside on one line: control and format characters become spaces, white space folds, length is cut."""
    clean = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in text[: limit * 4])
    clean = " ".join(clean.split())
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def width(text: str) -> int:
    """Columns that a text takes where Latin letters take one: Chinese characters and emoji take two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def instant(at: datetime) -> str:
    """To the second, in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def times(count: int, noun: str) -> str:
    """``1 alert``, ``1,200 alerts``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
