"""A sign of life for somebody outside, sent only while every stage gets on: its absence is the alarm."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Final

import aiohttp

from triage.alerts.delivery import Result
from triage.clock import Clock
from triage.notify import Notification, Notifier
from triage.progress import Progress, stalled

log = logging.getLogger(__name__)

_LIMIT: Final = aiohttp.ClientTimeout(total=10)

Ping = Callable[[], Awaitable[str]]
"""Gives a sign of life; what went wrong, or nothing."""


def pinging(session: aiohttp.ClientSession, url: str) -> Ping:
    """Ask an address. What it answers matters only in that it does."""

    async def ping() -> str:
        try:
            async with session.get(url, timeout=_LIMIT) as answer:
                return "" if answer.status < 400 else f"it answers with status {answer.status}"
        except TimeoutError:
            return "it does not answer"
        except aiohttp.ClientError as error:
            return type(error).__name__  # its text would show the address

    return ping


def telling(notifier: Notifier, receiver: str) -> Ping:
    """Send a receiver a message."""

    async def ping() -> str:
        name = socket.gethostname()
        note = Notification(receiver, f"[info] triage on {name} is alive", "Every stage of it gets on.", "info")
        answers = await notifier.send(note)
        wrong = [str(answer) for answer in answers.values() if answer.result is not Result.SENT]
        return "; ".join(wrong) if answers else "it is not configured"

    return ping


def pings_of(session: aiohttp.ClientSession, notifier: Notifier, *, url: str, to: Sequence[str]) -> dict[str, Ping]:
    """All signs of life that are wanted, by what they are called in the log."""
    found = {f"receiver {name}": telling(notifier, name) for name in to}
    return {"heartbeat.url": pinging(session, url), **found} if url else found


class Heartbeat:
    """Gives signs of life at even distances. What goes wrong with one is logged when it begins, and harms nothing."""

    def __init__(
        self, pings: Mapping[str, Ping], *, every: timedelta, stages: Mapping[str, Progress], clock: Clock
    ) -> None:
        """``pings`` by what they are called in the log."""
        self._pings, self._every, self._stages, self._clock = pings, every, stages, clock
        self._wrong: dict[str, str] = {}

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:  # also without any: its end would be that of the daemon
            if self._pings:
                await self.beat()
            await self._clock.sleep(self._every)

    async def beat(self) -> bool:
        """One sign of life, if there is one to give."""
        if why := self._why_not():
            if self._wrong.get("") != why:
                log.warning("no sign of life is sent: %s", why)
            self._wrong[""] = why
            return False
        self._wrong.pop("", None)
        found: Sequence[str] = await asyncio.gather(*(ping() for ping in self._pings.values()))
        for name, wrong in zip(self._pings, found, strict=True):
            if wrong and self._wrong.get(name) != wrong:
                log.warning("a sign of life did not get through to %s: %s", name, wrong)
            self._wrong[name] = wrong
        return True

    def _why_not(self) -> str:
        still = stalled(self._stages, self._clock.steady())
        errors = dict.fromkeys(stage.error for stage in self._stages.values() if stage.error)
        return "; ".join([*map(str, still), *errors])
