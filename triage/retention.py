"""The loop that lets old things go: a pass over the store every hour, in steps that hold nobody up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Final, Protocol

from triage.clock import Clock
from triage.errors import StoreUnavailable
from triage.progress import LIMIT, Progress
from triage.stores.retention import Cutoffs, Step

log = logging.getLogger(__name__)

_EVERY: Final = timedelta(hours=1)
_PAUSE: Final = timedelta(milliseconds=100)
"""Between two steps. A step takes some milliseconds, so most of the store's time is left to the others."""


class Retiring(Protocol):
    """What retention needs of a store."""

    async def retire(self, stage: str, cutoffs: Cutoffs, *, after: int) -> Step:
        """Look at some rows after number ``after``, and remove those that may go."""
        ...


class Retention:
    """Owns the passes. ``cutoffs`` says, each time it is asked, what is old by now."""

    def __init__(
        self,
        store: Retiring,
        *,
        stages: Iterable[str],
        cutoffs: Callable[[], Cutoffs],
        clock: Clock,
        limit: timedelta = LIMIT,
    ) -> None:
        self._store, self._order, self._cutoffs, self._clock = store, tuple(stages), cutoffs, clock
        self._progress = Progress(limit)
        self.stages = {"retention": self._progress}

    async def run(self, stop: asyncio.Event) -> None:
        """A pass now and then every hour, until ``stop``; a step that is under way is finished."""
        while not stop.is_set():
            try:
                await self._pass(stop)
            except StoreUnavailable as error:
                log.warning("nothing old is removed while the store fails: %s", error)
            self._progress.rest()
            await self._clock.wait(stop, _EVERY)

    async def _pass(self, stop: asyncio.Event) -> None:
        cutoffs = self._cutoffs()
        for stage in self._order:
            removed = 0
            after: int | None = 0
            while after is not None and not stop.is_set():
                self._progress.busy(self._clock.steady())
                step = await self._store.retire(stage, cutoffs, after=after)
                self._progress.rest()
                removed, after = removed + step.removed, step.after
                if after is not None:
                    await self._clock.wait(stop, _PAUSE)
            if removed:
                log.info("retention: %d old %s removed", removed, stage)
