"""Run a back-test over the stored history, on several processors where there is enough of it."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Final, Self

from triage.backtest.history import Choice, History
from triage.backtest.recorded import Recorded
from triage.backtest.replay import Asked, Shortlist, as_recorded, replay, shared
from triage.backtest.report import Report, alike
from triage.errors import RulesInvalid, StoreUnavailable
from triage.rules.model import Mode, RuleSet, SourceText
from triage.rules.owners import Owners, owned
from triage.rules.source import load_rules
from triage.sealing import Seal

CHUNK: Final = 4096
"""Stored envelopes that are read, and reported, at a time."""

_WORTH_IT: Final = 4
"""Parts from which on starting further processes pays."""


@dataclass(frozen=True, slots=True)
class RulesUsed:
    """A rule set as text, so that another process can load it; the rules named in ``live`` are out of shadow mode."""

    sources: tuple[SourceText, ...]
    live: frozenset[str] = frozenset()

    def load(self) -> RuleSet:
        """Load it.

        Raises:
            RulesInvalid: with everything that is wrong.
        """
        rules = load_rules(self.sources)
        if not self.live:
            return rules
        changed = (replace(rule, mode=Mode.LIVE) if rule.id in self.live else rule for rule in rules.rules)
        return RuleSet(tuple(changed), f"{rules.digest}+{','.join(sorted(self.live))}", rules.sources)


@dataclass(frozen=True, slots=True)
class Backtest:
    """What is to be compared over which history.

    Attributes:
        after: the rules to try.
        before: the rules to compare with; None: those that each stored decision was made by.
        limit: most changes that are reported one by one.
        seal: opens the stored messages.
        owners: whom alerts go to whose rule says no receiver, as it is configured now.
    """

    store: Path
    after: RulesUsed
    before: RulesUsed | None = None
    choice: Choice = field(default_factory=Choice)
    limit: int = 20
    seal: Seal = field(default_factory=Seal)
    owners: Owners = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Progress:
    """A part of the history is done: ``done`` of ``total`` numbers."""

    done: int
    total: int
    report: Report


def run(backtest: Backtest, *, jobs: int, chunk: int = CHUNK) -> Iterator[Progress]:
    """Run it; gives the report of each part, in order, to be merged.

    Args:
        jobs: processes at most; one for few envelopes.
        chunk: envelopes of one part, about.

    Raises:
        RulesInvalid: rules to compare cannot be loaded.
        StoreUnavailable: the history cannot be read.
    """
    with _Comparison(backtest) as comparison:
        low, high = comparison.history.span()
        if low <= high:
            yield Progress(0, high - low + 1, Report(silenced=comparison.history.silenced()))
        parts = [(start, min(start + chunk - 1, high), high) for start in range(low, high + 1, chunk)]
        if jobs == 1 or len(parts) < _WORTH_IT:
            reports: Iterator[Report] = map(comparison.compare, parts)
            yield from _progress(parts, reports)
            return
    # Spawned, not forked: threads of this process (the store's) may hold locks that a copy would wait for in vain.
    with ProcessPoolExecutor(jobs, get_context("spawn"), _start, (backtest,)) as pool:
        try:
            yield from _progress(parts, pool.map(_compare, parts))
        except BrokenProcessPool as error:
            raise StoreUnavailable("a process of the back-test has died (out of memory?); try --jobs 1") from error
        finally:
            pool.shutdown(cancel_futures=True)


Part = tuple[int, int, int]
"""First and last envelope a story may begin with, and the last one of all, by number."""


def _progress(parts: Sequence[Part], reports: Iterator[Report]) -> Iterator[Progress]:
    first, total = parts[0][0] if parts else 1, parts[-1][1] if parts else 0
    for (_, end, _), report in zip(parts, reports, strict=True):
        yield Progress(end - first + 1, total - first + 1, report)


class _Comparison:
    """The rule sets and the history of one process."""

    def __init__(self, backtest: Backtest) -> None:
        self.backtest = backtest
        self._pool: dict[tuple[int, ...], Asked] = {}
        self.after = Shortlist(owned(backtest.after.load(), backtest.owners), self._pool)
        self.before = self._shortlist(backtest.before.load()) if backtest.before else None
        self.history = History(backtest.store, backtest.choice, backtest.seal)
        self._kept: dict[str, Shortlist | None] = {self.after.rules.digest: self.after}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.history.close()

    def compare(self, part: Part) -> Report:
        """Replay the stories of one part."""
        report = Report(limit=self.backtest.limit)
        low, high, last = part
        gc.disable()  # no cycles are made, and looking for some in all the rows takes a third of the time
        try:
            for story in self.history.stories(low, high, last=last):
                self._compare(story, report)
        finally:
            gc.enable()
        return report

    def _compare(self, story: Sequence[Recorded], report: Report) -> None:
        after = [self.after.of(item) for item in story]
        before: list[Asked] = []
        own = True
        for item, asked in zip(story, after, strict=True):
            rules = self.before or self._recorded(item.rule_set)
            if rules is None:
                report.unkept.update(item.rule_set for item in story)
                report.add(story, list(map(as_recorded, story)), replay(story, after))
                return
            own = own and rules.rules.digest == item.rule_set
            before.append(asked if rules is self.after else rules.of(item))
        old = replay(story, before)
        if own:
            for item, again in zip(story, old, strict=True):
                # Whom owners' alerts went to then is not on record with the rules.
                if again.ruling is not None and again.ruling != item.ruling and not alike(again.ruling, item.ruling):
                    report.disagree(item, again.ruling)
        new = old
        for index, asked in enumerate(after):
            if before[index] is not asked and not before[index].settles(old[index], asked):
                new = replay(story, after)
                break
        report.add(story, old, new)

    def _shortlist(self, rules: RuleSet) -> Shortlist:
        return Shortlist(shared(owned(rules, self.backtest.owners), self.after.rules), self._pool)

    def _recorded(self, digest: str) -> Shortlist | None:
        """The rules that a stored decision was made by; None when they are not kept, or can no longer be read."""
        if digest not in self._kept:
            sources = self.history.rule_set(digest)
            try:
                self._kept[digest] = None if sources is None else self._shortlist(load_rules(sources))
            except RulesInvalid:
                self._kept[digest] = None
        return self._kept[digest]


_own: _Comparison | None = None


def _start(backtest: Backtest) -> None:
    global _own  # noqa: PLW0603 - what a process of the pool works with
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the first process tells the others
    _own = _Comparison(backtest)


def _compare(part: Part) -> Report:
    assert _own is not None  # noqa: S101
    return _own.compare(part)
