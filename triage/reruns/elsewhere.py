"""Whether a result is that of a re-run which somebody made without asking triage, in the provider's console say. Pure.

Nothing in the message tells: it is a first run by all that is known, of the same function with the same event as a
failure that is still open. So may be the next run of a periodic job. It is joined to the failure only if

* the function, its qualifier, region and account are those of the first run, and the event is the same, byte for byte;
* the event is told, and is at least `LEAST` bytes long: ``{}`` tells no work from another;
* exactly one failure ever began with this event, as far as is kept; it is open, and something happened to it within
  ``reruns.elsewhere_within``;
* the function's events tell its work apart: of a sample of them at least `KNOWN` are different, at most one in
  `REPEATED` has come again by itself, and this one has not. What is not known is taken for a repetition.

Anything else stays a failure, or success, of its own, and says of which failure it may be a re-run, and why it is
apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from triage.envelope import Envelope, FunctionRef
from triage.facts import Lineage
from triage.states import CLOSED

LEAST: Final = 16
"""Bytes of the shortest event that may identify work."""

KNOWN: Final = 5
REPEATED: Final = 10

SAMPLE: Final = 64
"""Events that are remembered of a function: those with the lowest digests, a choice by chance that lasts."""

PERIOD: Final = timedelta(days=7)
"""After so long a sample is begun anew. It and the one before it count, so a weekly job is seen twice."""

_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class Sample:
    """Some of the events that a function ran with, and how often each came: results of re-runs do not count.

    Attributes:
        runs: by the first characters of the event's key (`triage.reruns.lineage.payload_key`), since ``since``.
        before: the same of the period before.
    """

    since: datetime
    runs: Mapping[str, int] = field(default_factory=dict)
    before: Mapping[str, int] = field(default_factory=dict)


def sampled(known: Sample | None, keys: Iterable[str], *, now: datetime) -> Sample | None:
    """The sample after first runs with these events; None when that is the same."""
    since, runs, before = (known.since, dict(known.runs), known.before) if known else (now, {}, {})
    if now - since >= PERIOD:
        since, runs, before = now, {}, runs
    for key in keys:
        short = key[:_DIGITS]
        if short in runs:
            runs[short] += 1
        elif len(runs) < SAMPLE:
            runs[short] = 1
        elif short < (highest := max(runs)):
            del runs[highest]
            runs[short] = 1
    after = Sample(since, runs, before)
    return None if after == known else after


@dataclass(frozen=True, slots=True)
class Beginning:
    """A failure that began with the event in question: its first run, and when something last happened to it."""

    lineage: Lineage
    function: FunctionRef
    moved_at: datetime


def may_tell(envelope: Envelope) -> bool:
    """Whether its event may identify the work at all."""
    return envelope.has_payload and len(envelope.request_payload) >= LEAST


def judged(
    function: FunctionRef, key: str, begun: Sequence[Beginning], sample: Sample | None, *, since: datetime
) -> Lineage | str:
    """The failure that a result with the event ``key`` belongs to; else why it stays apart, empty when none is near.

    Args:
        begun: failures that began with this event, the newest two.
        since: what happened before is too long ago.
    """
    if not begun or begun[0].lineage.state in CLOSED or begun[0].moved_at < since or begun[0].function != function:
        return ""
    why = "other failures began with the same event" if len(begun) > 1 else _repeats(key[:_DIGITS], sample)
    if why:
        return f"may be a re-run of {begun[0].lineage.root} made elsewhere, but {why}"
    return begun[0].lineage


def _repeats(key: str, sample: Sample | None) -> str:
    seen = Counter(sample.before if sample else {})
    seen.update(sample.runs if sample else {})
    if seen[key] > 1:
        return f"the same event has come {seen[key]} times by itself"
    if len(seen) < KNOWN:
        return f"too few different events of the function are known to tell ({len(seen)} of {KNOWN})"
    again = sum(count > 1 for count in seen.values())
    if again * REPEATED > len(seen):
        return f"events of the function come again by themselves ({again} of {len(seen)} in a sample)"
    return ""
