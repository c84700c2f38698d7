"""The only place that reads the clock, draws chance or makes identities. The core gets them as arguments."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Time as the loops see it. ``triage.testing.ManualClock`` is the other implementation."""

    def now(self) -> datetime:
        """The wall-clock instant, aware, in UTC."""
        ...

    def steady(self) -> datetime:
        """An instant for measuring only: it goes on evenly while the wall clock is set, or the machine sleeps."""
        ...

    async def sleep(self, duration: timedelta) -> None:
        """Return after ``duration``; at once when it is not positive."""
        ...

    async def wait(self, event: asyncio.Event, timeout: timedelta | None) -> bool:  # noqa: ASYNC109
        """Wait until ``event`` is set (True) or ``timeout`` has passed (False)."""
        ...


_START = datetime.now(UTC) - timedelta(seconds=time.monotonic())


class SystemClock:
    """Real time."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def steady(self) -> datetime:
        return _START + timedelta(seconds=time.monotonic())

    async def sleep(self, duration: timedelta) -> None:
        await asyncio.sleep(max(duration.total_seconds(), 0))

    async def wait(self, event: asyncio.Event, timeout: timedelta | None) -> bool:  # noqa: ASYNC109
        if event.is_set():
            return True
        try:
            async with asyncio.timeout(None if timeout is None else max(timeout.total_seconds(), 0)):
                await event.wait()
        except TimeoutError:
            return False
        return True


def monotonic() -> float:
    """Seconds that never jump, for measuring how long something took."""
    return time.monotonic()


def spread() -> float:
    """A draw from [0, 1) for jitter where no request id is at hand to derive one from."""
    return random.random()  # noqa: S311 - jitter, not a secret


def token() -> str:
    """A fresh identity (fencing token, nonce), 128 bits, hexadecimal."""
    return secrets.token_hex(16)
