"""Tells the service manager that the daemon gets on, and how. What it is told is gated on the progress of the stages: a
process that is alive and does nothing is not pinged for, and is started anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from triage.clock import Clock
from triage.log import printable
from triage.progress import Progress, Receiving, Stage, stalled
from triage.sdnotify import Supervisor

_INTERVAL: Final = timedelta(seconds=10)
"""Between two lines of status; the pings are as often, or oftener when the watchdog wants them so."""

_PINGS: Final = 3
"""Pings in the time one is good for: two may be lost or late."""

_LONGEST: Final = 500
"""Characters of a line of status."""


class Supervision:
    """Watches the stages for as long as `run` runs, which is until it is cancelled: a shutdown wants pings as well."""

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        stages: Mapping[str, Progress],
        sources: Mapping[str, Receiving],
        rules: Callable[[], str],
        mistakes: Callable[[], Iterable[str]],
        clock: Clock,
        redact: Callable[[str], str] = str,
    ) -> None:
        """``rules`` gives the digest of the set in force, ``mistakes`` what is wrong with files that a person wrote.
        ``redact`` takes secrets out of texts that came from outside.
        """
        self._supervisor, self._stages, self._sources = supervisor, stages, sources
        self._rules, self._mistakes = rules, mistakes
        self._clock, self._redact = clock, redact
        limit = supervisor.watchdog
        self._interval = _INTERVAL if limit is None else min(_INTERVAL, limit / _PINGS)
        self._counted: tuple[datetime, int] | None = None

    async def run(self) -> None:
        """Ping, and say how it goes, again and again."""
        while True:
            self.tell()
            await self._clock.sleep(self._interval)

    def tell(self) -> None:
        """Ping if every stage gets on; say how it goes in any case."""
        now = self._clock.steady()
        still = stalled(self._stages, now)
        if not still:
            self._supervisor.alive()
        self._supervisor.status(self._redact(self._line(now, still))[:_LONGEST])

    def _line(self, now: datetime, still: Sequence[Stage]) -> str:
        parts = [self._rate(now)]
        lags = [source.lag for source in self._sources.values() if source.lag is not None]
        if lags:
            parts.append(f"the oldest had waited {max(lags).total_seconds():.0f} s")
        parts.append(f"rules {self._rules()[:12]}")
        problems = [printable(text) for text in self._problems(still)]
        parts.append(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}" if problems else "all is well")
        return "; ".join([", ".join(parts), *problems])

    def _rate(self, now: datetime) -> str:
        """Messages a second since this was last asked."""
        messages = sum(source.messages for source in self._sources.values())
        before, self._counted = self._counted, (now, messages)
        passed = (now - before[0]).total_seconds() if before else 0.0
        if before is None or passed <= 0:
            return f"{messages} messages"
        return f"{messages} messages, {(messages - before[1]) / passed:.1f}/s"

    def _problems(self, still: Sequence[Stage]) -> Iterator[str]:
        yield from map(str, still)
        yield from dict.fromkeys(stage.error for stage in self._stages.values() if stage.error)
        for name, source in self._sources.items():
            if source.failing:
                yield f"source {name}: {source.error}"
        yield from self._mistakes()
