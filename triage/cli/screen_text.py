"""Lines for a terminal: how wide text is, how it is cut, coloured, and written where there is no Unicode. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple

from triage.log import printable


@dataclass(frozen=True, slots=True)
class Style:
    """What the terminal can and may do."""

    colour: bool = True
    unicode: bool = True


class Span(NamedTuple):
    """A piece of a line. ``tone`` is one of `_CODES`."""

    text: str
    tone: str = ""


Line = Sequence[Span]

_CODES: Final = {"": "", "dim": "2", "strong": "1", "good": "32", "warn": "33", "bad": "1;31", "title": "7"}


def width_of(text: str) -> int:
    """Columns that a terminal uses for it."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def shown(text: str, style: Style) -> str:
    """Text from outside, safe to write: no control characters, and nothing but ASCII where there is no Unicode."""
    text = printable(text)
    return text if style.unicode else text.encode("ascii", "replace").decode()


def cut(text: str, width: int) -> str:
    """As much of it as fits."""
    if text.isascii():
        return text[: max(width, 0)]
    used = 0
    for position, char in enumerate(text):
        used += _columns(char)
        if used > width:
            return text[:position]
    return text


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Cut and filled up to exactly so many columns; ``right``: the filling comes first."""
    text = cut(text, width)
    fill = " " * (width - width_of(text))
    return fill + text if right else text + fill


def written(line: Line, width: int, style: Style) -> str:
    """A line as it goes to the terminal. One that is cut to its width says so: half a number is another number."""
    texts = [(shown(text, style), tone) for text, tone in line]
    is_cut = sum(width_of(text) for text, _ in texts) > width
    width -= is_cut
    parts = []
    for text, tone in texts:
        fitting = cut(text, width)
        width -= width_of(fitting)
        code = _CODES[tone] if style.colour else ""
        parts.append(f"\x1b[{code}m{fitting}\x1b[0m" if code and fitting else fitting)
    if is_cut:
        parts.append("…" if style.unicode else ">")
    return "".join(parts).rstrip() if not style.colour else "".join(parts)


def bars(numbers: Iterable[int], style: Style) -> str:
    """One character per number; the tallest one is for the largest."""
    heights = "▁▂▃▄▅▆▇█" if style.unicode else ".:-=+*#@"
    numbers = list(numbers)
    top = max(numbers, default=0)
    return "".join(heights[-(-number * len(heights) // top) - 1] if number > 0 else " " for number in numbers)


def short(length: timedelta | float) -> str:
    """A length of time in four characters or so: ``0.4s``, ``12s``, ``3m``, ``2h``, ``5d``."""
    seconds = length.total_seconds() if isinstance(length, timedelta) else length
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f}s" if seconds >= 0.05 else "0s"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds:.0f}s"


def per_second(number: float) -> str:
    """``0.3/s``, ``120/s``."""
    return f"{number:.1f}/s" if number < 9.95 else f"{number:,.0f}/s"


def shares(wanted: Sequence[int], room: int) -> list[int]:
    """How many rows each gets of ``room``: in turn one more, as long as it wants one."""
    got = [0] * len(wanted)
    while room > 0 and got != list(wanted):
        for place, most in enumerate(wanted):
            if room > 0 and got[place] < most:
                got[place] += 1
                room -= 1
    return got
