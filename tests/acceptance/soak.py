"""What a long run looks like: samples of a process, their slopes, and a plot of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from urllib.request import urlopen

SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#fff"/>
<text x="60" y="22" font-size="15">{title}</text>
<text x="{width}" y="22" dx="-20" text-anchor="end" fill="#666">below: minutes</text>
{panels}
</svg>
"""
WIDTH, LEFT, TALL, GAP, TOP = 900, 60, 120, 46, 60


@dataclass(frozen=True)
class Sample:
    """One look at the daemon."""

    seconds: float
    rss: float
    """MiB."""
    files: int
    """Open file descriptors."""
    lag: float
    """Seconds that the oldest message of the last answer had waited."""
    overdue: float
    """Seconds for which the oldest thing to do has been due."""
    taken: int
    """Messages received so far."""


def look(pid: int, url: str, seconds: float) -> Sample:
    """A sample now."""
    status = Path(f"/proc/{pid}/status").read_text()
    metrics = urlopen(f"{url}/metrics").read().decode()
    return Sample(
        seconds,
        int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024,
        sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
        max(_values(metrics, "triage_source_lag_seconds"), default=0.0),
        max(_values(metrics, "triage_outbox_overdue_seconds"), default=0.0),
        int(sum(_values(metrics, "triage_source_messages_total"))),
    )


def _values(metrics: str, name: str) -> list[float]:
    return [float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", metrics, re.MULTILINE)]


def slope(samples: Sequence[Sample], name: str) -> float:
    """By how much a value grows in an hour (least squares)."""
    at = [sample.seconds / 3600 for sample in samples]
    values = [float(getattr(sample, name)) for sample in samples]
    mean_at, mean = sum(at) / len(at), sum(values) / len(values)
    spread = sum((each - mean_at) ** 2 for each in at)
    return sum((each - mean_at) * (value - mean) for each, value in zip(at, values, strict=True)) / spread


def plot(samples: Sequence[Sample], title: str) -> str:
    """The samples as a picture: one curve above the other, over the minutes."""
    rates = [0.0] + [
        (after.taken - before.taken) / (after.seconds - before.seconds) for before, after in pairwise(samples)
    ]
    curves = [
        ("resident memory, MiB", [sample.rss for sample in samples]),
        ("open file descriptors", [float(sample.files) for sample in samples]),
        ("lag of the queue, s", [sample.lag for sample in samples]),
        ("longest overdue in the outbox, s", [sample.overdue for sample in samples]),
        ("messages taken a second", rates),
    ]
    at = [sample.seconds / 60 for sample in samples]
    panels = [_panel(name, at, values, TOP + row * (TALL + GAP)) for row, (name, values) in enumerate(curves)]
    height = TOP + len(curves) * (TALL + GAP)
    return SVG.format(width=WIDTH, height=height, title=title, panels="\n".join(panels))


def _panel(name: str, at: Sequence[float], values: Sequence[float], top: float) -> str:
    wide, highest, end = WIDTH - LEFT - 20, max(*values, 1e-9) * 1.1, at[-1]
    points = " ".join(
        f"{LEFT + wide * x / end:.1f},{top + TALL * (1 - y / highest):.1f}" for x, y in zip(at, values, strict=True)
    )
    ticks = [round(end * part / 6) for part in range(7)]
    below = "".join(
        f'<text x="{LEFT + wide * tick / end:.0f}" y="{top + TALL + 15}" text-anchor="middle" fill="#666">{tick}</text>'
        for tick in ticks
    )
    beside = "".join(
        f'<text x="{LEFT - 6}" y="{top + TALL * (1 - part) + 4:.0f}" text-anchor="end" fill="#666">'
        f"{highest * part:.3g}</text>"
        for part in (0, 0.5, 1)
    )
    frame = f'<rect x="{LEFT}" y="{top}" width="{wide}" height="{TALL}" fill="none" stroke="#ccc"/>'
    line = f'<polyline points="{points}" fill="none" stroke="#1f5fa8" stroke-width="1.2"/>'
    return f'<text x="{LEFT}" y="{top - 6}">{name}</text>{frame}{line}{below}{beside}'
