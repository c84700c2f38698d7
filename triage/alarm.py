"""Tells people that the store fails, by a path that does not need it. Every other alert is a row of the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from triage.alerts.delivery import Result
from triage.clock import Clock
from triage.log import printable
from triage.notify import Notification, Notifier
from triage.progress import Progress

log = logging.getLogger(__name__)

_LOOK: Final = timedelta(seconds=5)
_AFTER: Final = timedelta(minutes=1)
"""How long it has to fail: a backup that locks the file for some seconds is nobody's business."""
_AGAIN: Final = timedelta(hours=4)
_RETRY: Final = timedelta(minutes=1)


class StoreAlarm:
    """Looks at how the tries of the stages end. What it has told is not stored: after a restart it tells anew."""

    def __init__(
        self,
        notifier: Notifier,
        *,
        to: Sequence[str],
        stages: Mapping[str, Progress],
        clock: Clock,
        redact: Callable[[str], str] = str,
    ) -> None:
        """``to`` are the receivers. A stage marks with an error only tries that failed for the sake of the store."""
        self._notifier, self._to, self._stages, self._clock, self._redact = notifier, to, stages, clock, redact
        self._since: datetime | None = None
        self._next: datetime | None = None
        self._told = False

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self._clock.sleep(_LOOK)
            await self.look()

    async def look(self) -> None:
        """Tell that the store has failed for a while, or works again; each once, or every few hours."""
        now = self._clock.now()
        error = next((stage.error for stage in self._stages.values() if stage.error), "")
        if error:
            self._since = self._since or now
            if now >= (self._next or self._since + _AFTER):
                sent = await self._send("critical", "triage takes nothing in: its store fails", self._failing(error))
                self._told = self._told or sent
                self._next = now + (_AGAIN if sent else _RETRY)
            return
        if self._told and self._since:
            await self._send("info", "triage works again", f"Its store failed from {_at(self._since)} to {_at(now)}.")
        self._since, self._next, self._told = None, None, False

    def _failing(self, error: str) -> str:
        return (
            f"Since {_at(self._since)}: {error}\n"
            "Nothing is acknowledged, so nothing is lost: what comes in waits in its queue, as do re-runs and alerts.\n"
            "It goes on by itself once the store can be written."
        )

    async def _send(self, severity: str, what: str, body: str) -> bool:
        text = "\n".join(printable(self._redact(line)) for line in body.splitlines())
        notes = [Notification(receiver, f"[{severity}] {what}", text, severity) for receiver in self._to]
        answers = await asyncio.gather(*map(self._notifier.send, notes))
        sent = any(answer.result is Result.SENT for each in answers for answer in each.values())
        if not sent:
            log.warning("no receiver was told: %s", what)
        return sent


def _at(instant: datetime | None) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S}Z" if instant else "?"
