"""What each stage tells about itself while it runs, for whoever watches the daemon. A mark costs an assignment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

LIMIT: Final = timedelta(minutes=2)
"""How long a stage may stand still unless something else is configured."""


@dataclass(slots=True)
class Progress:
    """Since when a stage has had work without getting on with it, and when it last gave a sign of life.

    Work that fails and is tried again goes on waiting, yet the stage lives: a full disk is no reason to start anew.

    All instants are those of `Clock.steady`.

    Attributes:
        limit: how long the stage may stand still before it counts as stalled.
        since: None while there is nothing to do.
        next_at: when the next sign of life can be expected, if that is later than ``since``.
        error: how the last try ended, if not well.
    """

    limit: timedelta = LIMIT
    since: datetime | None = None
    next_at: datetime | None = None
    error: str = ""

    def busy(self, now: datetime) -> None:
        """There is work; what was waiting already goes on waiting. For what takes its time, such as a long poll,
        ``now`` is when that time is over.
        """
        if self.since is None:
            self.since = now

    def tried(self, again_at: datetime, *, error: str = "") -> None:
        """A try came to an end, but not to a good one; the next one begins at ``again_at``."""
        self.next_at, self.error = again_at, error

    def rest(self) -> None:
        """A piece of work is finished. What is left counts from the next `busy`."""
        self.since = self.next_at = None
        self.error = ""

    def oldest(self, began: Iterable[datetime]) -> None:
        """What is under way, by when it began, the oldest first: each piece has to come to its end."""
        self.since = next(iter(began), None)

    def waiting(self, now: datetime) -> timedelta:
        """How long work has been waiting; zero when there is none."""
        return timedelta(0) if self.since is None else max(now - self.since, timedelta(0))

    def stalled(self, now: datetime, *, share: float = 1.0) -> bool:
        """Whether there is work, and no sign of life for longer than that share of the limit."""
        return self.since is not None and now - max(self.since, self.next_at or self.since) > self.limit * share


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage that stands still, and for how long its work has been waiting."""

    name: str
    waiting: timedelta

    def __str__(self) -> str:
        return f"{self.name} has not got on for {self.waiting.total_seconds():.0f} s"


def stalled(stages: Mapping[str, Progress], now: datetime, *, share: float = 1.0) -> list[Stage]:
    """The stages that stand still, for whatever is gated on progress: pings, probes, the watchdog."""
    found = (name for name, progress in stages.items() if progress.stalled(now, share=share))
    return [Stage(name, stages[name].waiting(now)) for name in found]


@dataclass(slots=True)
class Receiving:
    """How asking one source goes.

    Attributes:
        messages: received since the start.
        errors: receive requests that failed since the start.
        received_at: when the source last answered, with messages or without.
        failed_at: when a request last failed, and ``error`` how. Both stay when the source answers again.
        failing: whether the last request failed.
        lag: how long the oldest message of the last answer had waited in its queue; zero when the answer was empty,
            None when the queue does not tell, or has not answered yet.
    """

    messages: int = 0
    errors: int = 0
    received_at: datetime | None = None
    failed_at: datetime | None = None
    error: str = ""
    failing: bool = False
    lag: timedelta | None = None

    def received(self, messages: int, *, now: datetime, oldest: datetime | None = None) -> None:
        """The source has answered. ``oldest`` is when the first of the messages was put into the queue."""
        self.messages += messages
        self.received_at, self.failing = now, False
        self.lag = None if messages and oldest is None else max(now - (oldest or now), timedelta(0))

    def failed(self, error: Exception, *, now: datetime) -> bool:
        """A request has failed. False: just as the one before it, which needs no more words."""
        news = not self.failing or self.error != str(error)
        self.errors += 1
        self.failed_at, self.error, self.failing = now, str(error), True
        return news


@dataclass(slots=True)
class Work:
    """What has been done since the start, counted for the metrics. Its keys are ids of rules, names of receivers and
    words of the code, never texts of messages.

    Attributes:
        commits: batches committed, with ``messages`` in all of them, and ``seconds`` from deciding to the commit.
        decisions: by rule ("" when none decided) and reason.
        rule_errors: clauses that could not be evaluated, by rule.
        rules_read: readings of the rule files after the start, by ``taken``, ``same`` and ``refused``.
        notified: tries to tell, by receiver and ``sent``, ``failed``, ``dead``.
        templates: messages for which a template could not be used, by its name.
        reruns: steps of re-runs: what the provider said of a submit, and what came of it.
    """

    commits: int = 0
    messages: int = 0
    seconds: float = 0.0
    decisions: Counter[tuple[str, str]] = field(default_factory=Counter)
    rule_errors: Counter[str] = field(default_factory=Counter)
    rules_read: Counter[str] = field(default_factory=Counter)
    notified: Counter[tuple[str, str]] = field(default_factory=Counter)
    reruns: Counter[str] = field(default_factory=Counter)
    templates: Counter[str] = field(default_factory=Counter)
