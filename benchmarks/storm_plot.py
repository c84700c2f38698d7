"""The plot of a retry storm as SVG: two charts over the same time, lines named at their ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

LEFT, RIGHT, WIDTH, HEIGHT, GAP = 56, 130, 860, 210, 64
TOP = 46
COLOURS = {"grey": "#8a8a8a", "red": "#c0392b", "blue": "#1f6fb2"}


@dataclass(frozen=True)
class Line:
    """Values of equal spans of time, and how they are drawn."""

    name: str
    values: Sequence[float]
    colour: str


@dataclass(frozen=True)
class Chart:
    """One chart; ``limit`` is a level to compare with, and its name."""

    title: str
    lines: Sequence[Line]
    limit: tuple[float, str] | None = None


def plot(charts: Sequence[Chart], *, seconds: int, peak: tuple[int, int]) -> str:
    """The charts, one above the other; ``peak`` is shaded."""
    height = TOP + len(charts) * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">',
        "<style>text { font: 12px sans-serif } .title { font: bold 14px sans-serif }</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for number, chart in enumerate(charts):
        parts += _chart(chart, TOP + number * (HEIGHT + GAP), seconds=seconds, peak=peak)
    return "\n".join([*parts, "</svg>", ""])


def _chart(chart: Chart, top: float, *, seconds: int, peak: tuple[int, int]) -> Iterable[str]:
    right, bottom = WIDTH - RIGHT, top + HEIGHT
    highest = max(max(line.values) for line in chart.lines)
    step = next(each for each in (1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000) if highest / each <= 6)
    most = step * (int(highest / step) + 1)

    def x(second: float) -> float:
        return LEFT + second / seconds * (right - LEFT)

    def y(value: float) -> float:
        return bottom - value / most * HEIGHT

    begin, end = map(x, peak)
    yield f'<text x="{LEFT}" y="{top - 16}" class="title">{escape(chart.title)}</text>'
    yield f'<rect x="{begin:.1f}" y="{top}" width="{end - begin:.1f}" height="{HEIGHT}" fill="#f3ead7"/>'
    yield f'<text x="{(begin + end) / 2:.1f}" y="{top + 14}" text-anchor="middle" fill="#8a6d2f">peak</text>'
    for value in range(0, most + 1, step):
        yield f'<path d="M{LEFT} {y(value):.1f}H{right}" stroke="#e3e3e3"/>'
        yield f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value}</text>'
    for minute in range(0, seconds // 60 + 1, 3):
        anchor = "end" if minute * 60 == seconds else "middle"  # to the right of it are names
        yield f'<text x="{x(minute * 60):.1f}" y="{bottom + 18}" text-anchor="{anchor}">{minute} min</text>'
    ends = []
    if chart.limit is not None:
        level, name = chart.limit
        yield f'<path d="M{LEFT} {y(level):.1f}H{right}" stroke="#333" stroke-dasharray="5 4"/>'
        ends.append((y(level), name, "#333"))
    for line in chart.lines:
        span = seconds / len(line.values)
        points = " ".join(f"{x((at + 0.5) * span):.1f},{y(value):.1f}" for at, value in enumerate(line.values))
        colour = COLOURS[line.colour]
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>'
        ends.append((y(sum(line.values[-6:]) / 6), line.name, colour))
    yield from _names(ends, right + 8)


def _names(ends: Iterable[tuple[float, str, str]], x: float) -> Iterable[str]:
    """Names at the ends of the lines, moved apart where they would overlap."""
    free = 0.0
    for wanted, name, colour in sorted(ends):
        at = max(wanted + 4, free)
        free = at + 15
        yield f'<text x="{x}" y="{at:.1f}" fill="{colour}">{escape(name)}</text>'
