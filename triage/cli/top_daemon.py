"""What a daemon's operations endpoint tells, read for `triage top`. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from triage.web.metrics import INFO, LAG, OLDEST, RECEIVE_ERRORS, RECEIVED, RECEIVED_AT, RERUNS, WAITING, Metric

if TYPE_CHECKING:
    from triage.cli.endpoint import Answer

PATHS: Final = ("/healthz", "/readyz", "/metrics")
"""What is asked for, in this order. The first needs no token."""


@dataclass(frozen=True, slots=True)
class Source:
    """How asking one source goes; lengths of time in seconds, None where the queue does not tell."""

    name: str
    error: str
    lag: float | None
    oldest: float | None
    messages: int
    errors: int
    received_at: datetime | None


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon as seen from outside.

    Attributes:
        address: where it was asked; empty: it listens nowhere, so nobody asked.
        well: whether every stage gets on. ``said`` is how it put that, or why there is no answer.
        problem: why the rest is not known, though it answers.
        waiting: seconds for which each stage has had work without getting on with it.
        reruns: steps of re-runs since its start, by result.
    """

    address: str = ""
    well: bool = False
    said: str = ""
    problem: str = ""
    version: str = ""
    sources: tuple[Source, ...] = ()
    waiting: Mapping[str, float] = field(default_factory=dict)
    reruns: Mapping[str, int] = field(default_factory=dict)


def daemon_of(address: str, answers: Sequence[Answer]) -> Daemon:
    """What the answers for `PATHS` come to; as many as there are."""
    health, *rest = answers
    said = health.text.partition("\n")[0] or f"status {health.status}"
    daemon = Daemon(address, well=health.status == 200, said=said)
    if len(rest) < 2:
        return Daemon(address, daemon.well, said, problem=rest[0].text if rest else "")
    ready, metrics = rest
    if metrics.status != 200:
        return Daemon(address, daemon.well, said, problem=metrics.text.partition("\n")[0] or f"status {metrics.status}")
    samples = _Samples(metrics.text)
    errors = _errors(ready.text)
    return Daemon(
        address,
        daemon.well,
        said,
        version=next((labels.get("version", "") for labels, _ in samples.all(INFO)), ""),
        sources=tuple(_source(name, samples, errors) for name in samples.by(RECEIVED)),
        waiting=samples.by(WAITING),
        reruns={name: int(number) for name, number in samples.by(RERUNS).items()},
    )


def _source(name: str, samples: _Samples, errors: Mapping[str, str]) -> Source:
    at = samples.by(RECEIVED_AT).get(name)
    return Source(
        name=name,
        error=errors.get(name, ""),
        lag=samples.by(LAG).get(name),
        oldest=samples.by(OLDEST).get(name),
        messages=int(samples.by(RECEIVED)[name]),
        errors=int(samples.by(RECEIVE_ERRORS).get(name, 0)),
        received_at=datetime.fromtimestamp(at, UTC) if at else None,
    )


def _errors(ready: str) -> dict[str, str]:
    """Why sources that fail do so."""
    try:
        sources = json.loads(ready)["sources"]
        return {name: str(each["last_error"] or "it fails") for name, each in sources.items() if not each["ok"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # something else listens there


_SAMPLE: Final = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPE: Final = re.compile(r"\\(.)")


class _Samples:
    """Samples in Prometheus' text format."""

    def __init__(self, text: str) -> None:
        self._found: dict[str, list[tuple[dict[str, str], float]]] = {}
        for name, labels, number in _SAMPLE.findall(text):
            try:
                value = float(number)
            except ValueError:
                continue
            self._found.setdefault(name, []).append((dict(_labels(labels)), value))

    def all(self, metric: Metric) -> list[tuple[dict[str, str], float]]:
        return self._found.get(metric.name, [])

    def by(self, metric: Metric) -> dict[str, float]:
        """Those of a metric with one label, by its value."""
        (label,) = metric.labels
        return {labels[label]: value for labels, value in self.all(metric) if label in labels}


def _labels(text: str) -> Iterator[tuple[str, Any]]:
    for name, value in _LABEL.findall(text):
        yield name, _ESCAPE.sub(lambda escape: "\n" if escape[1] == "n" else escape[1], value)
