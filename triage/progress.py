"""What the loops tell about themselves while they run, for whoever watches the daemon. A mark costs an assignment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(slots=True)
class Progress:
    """Since when a loop has had work without getting on with it.

    Attributes:
        limit: how long that may take before the loop counts as stalled. A try that fails and is repeated is no
            progress, so it must be longer than the loop's longest pause between two tries.
        since: None while there is nothing to do.
    """

    limit: timedelta = timedelta(minutes=2)
    since: datetime | None = None

    def busy(self, now: datetime) -> None:
        """There is work; what was waiting already goes on waiting."""
        if self.since is None:
            self.since = now

    def rest(self) -> None:
        """A piece of work is finished. What is left counts from the next `busy`."""
        self.since = None

    def waiting(self, now: datetime) -> timedelta:
        """How long work has been waiting; zero when there is none."""
        return timedelta(0) if self.since is None else max(now - self.since, timedelta(0))

    def stalled(self, now: datetime) -> bool:
        """Whether work has been waiting for longer than the limit."""
        return self.waiting(now) > self.limit


@dataclass(slots=True)
class Receiving:
    """How asking one source goes.

    Attributes:
        messages: received since the start.
        errors: receive requests that failed since the start.
        received_at: when the source last answered, with messages or without.
        failed_at: when a request last failed, and ``error`` how. Both stay when the source answers again.
        failing: whether the last request failed.
    """

    messages: int = 0
    errors: int = 0
    received_at: datetime | None = None
    failed_at: datetime | None = None
    error: str = ""
    failing: bool = False

    def received(self, messages: int, *, now: datetime) -> None:
        """The source has answered."""
        self.messages += messages
        self.received_at, self.failing = now, False

    def failed(self, error: Exception, *, now: datetime) -> None:
        """A request has failed."""
        self.errors += 1
        self.failed_at, self.error, self.failing = now, str(error), True
