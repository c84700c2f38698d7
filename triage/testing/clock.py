"""Time that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Final

_TURNS: Final = 50
"""Turns of the event loop that woken tasks get before time moves on."""


class ManualClock:
    """A `triage.clock.Clock` for tests.

    Whoever sleeps is woken in the order of due times, and sees exactly its due time on the clock. Work that is carried
    by other threads needs its own synchronisation: wait for what the test expects, then advance.
    """

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = now
        self._timers: list[tuple[datetime, int, asyncio.Future[None]]] = []
        self._order = count()
        self._changed = asyncio.Event()

    def now(self) -> datetime:
        return self._now

    def steady(self) -> datetime:
        return self._now

    @property
    def timers(self) -> list[datetime]:
        """When those who sleep or wait will be woken, earliest first."""
        return sorted(due for due, _, future in self._timers if not future.done())

    async def sleep(self, duration: timedelta) -> None:
        if duration <= timedelta(0):
            await asyncio.sleep(0)
            return
        await self._timer(duration)

    async def wait(self, event: asyncio.Event, timeout: timedelta | None) -> bool:  # noqa: ASYNC109
        if event.is_set():
            return True
        if timeout is None:
            return await event.wait()
        if timeout <= timedelta(0):
            await asyncio.sleep(0)
            return event.is_set()
        timer, waiting = self._timer(timeout), asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait((timer, waiting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            waiting.cancel()
        return event.is_set()

    async def advance(self, duration: timedelta) -> None:
        """Move time forward, waking sleepers one after the other; what they start to wait for on the way counts too.

        Returns when all that was due has been woken and every task has come to rest.
        """
        until = self._now + duration
        await self._rest()
        while self._timers and self._timers[0][0] <= until:
            due, _, future = heapq.heappop(self._timers)
            self._now = max(self._now, due)
            if not future.done():
                future.set_result(None)
                await self._rest()
        self._now = until

    async def asleep(self, number: int = 1) -> None:
        """Return once ``number`` sleepers or waiters with a time-out are there."""
        while len(self.timers) < number:
            self._changed.clear()
            await self._changed.wait()

    def _timer(self, duration: timedelta) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._timers, (self._now + duration, next(self._order), future))
        self._changed.set()
        return future

    @staticmethod
    async def _rest() -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
