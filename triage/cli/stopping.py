"""The signals that stop the daemon: the first lets it finish, a second one ends it at once."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from datetime import datetime, timedelta
from types import FrameType
from typing import Final

from triage.clock import Clock

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_DOUBLED: Final = timedelta(milliseconds=250)
"""Whoever passes signals on (``timeout``, a shell) often sends one twice; a person is not that quick."""


class Stopping:
    """Catches the signals from `catch` on, for as long as the process lives.

    Python's own handlers, not those of the event loop: they also run when the loop is blocked, and before there is one.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first: datetime | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def catch(self) -> None:
        """Catch them from now on, also those that were sent before and are blocked: process 1 gets no signal that it
        has no handler for, so whoever starts it as such keeps them blocked until here.
        """
        for number in SIGNALS:
            signal.signal(number, self._asked)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def into(self, stop: asyncio.Event) -> None:
        """Set ``stop``, which belongs to the loop that runs now, instead of ending on the spot."""
        self._stop, self._loop = stop, asyncio.get_running_loop()

    def _asked(self, number: int, _frame: FrameType | None) -> None:
        now = self._clock.steady()
        if self._first is None:
            self._first = now
            if self._loop is None or self._stop is None:
                raise SystemExit(0)  # nothing has begun
            with suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._stop.set)
        elif now - self._first >= _DOUBLED:
            os._exit(128 + number)
