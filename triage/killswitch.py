"""The kill switch from outside: a file that stops all re-runs while it exists, and a signal that stops them for good.

Both become switches in the store, so that they are the same for whoever looks, and hold over a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

from triage.clock import Clock
from triage.errors import StoreUnavailable
from triage.progress import LIMIT, Progress
from triage.reruns.switches import Scope, Switch
from triage.stores import Store

log = logging.getLogger(__name__)

_LOOK: Final = timedelta(milliseconds=500)
_REASON: Final = 200
"""Characters of the file's first line that are taken for the reason."""


class KillSwitch:
    """Looks for the stop file twice a second. ``changed`` is called when re-runs may go on."""

    def __init__(
        self, *, store: Store, path: Path, clock: Clock, changed: Callable[[], None], limit: timedelta = LIMIT
    ) -> None:
        self._store, self._path, self._clock, self._changed = store, path, clock, changed
        self._off: bool | None = None
        self._progress = Progress(limit)
        self.stages = {"kill switch": self._progress}

    async def run(self, stop: asyncio.Event, halt: asyncio.Event) -> None:
        """Look until ``stop``; ``halt`` switches all re-runs off, until a person switches them on."""
        while not await self._clock.wait(stop, _LOOK):
            self._progress.busy(self._clock.steady())
            try:
                await self.look()
                if halt.is_set():
                    await self._halt()
                    halt.clear()
            except StoreUnavailable as error:
                if not self._progress.error:
                    log.error("the kill switch cannot be switched while the store fails: %s", error)  # noqa: TRY400
                self._progress.tried(self._clock.steady() + _LOOK, error=str(error))
            else:
                self._progress.rest()

    async def look(self) -> None:
        """Bring the store to what the file says.

        Raises:
            StoreUnavailable: nothing was changed.
        """
        reason = await asyncio.to_thread(_read, self._path)
        off = reason is not None
        if off is self._off:
            return
        now = self._clock.now()
        if reason is not None:
            if await self._store.switch_off(Switch(Scope.FILE, "", "stop file", reason, now)):
                log.warning("all re-runs are switched off: %s", reason)
        elif await self._store.switch_on(Scope.FILE, "", by="stop file", reason=f"{self._path} is gone", now=now):
            log.warning("the stop file is gone; re-runs go on")
            self._changed()
        self._off = off

    async def _halt(self) -> None:
        switch = Switch(Scope.ALL, "", "signal", "SIGUSR1", self._clock.now())
        if await self._store.switch_off(switch):
            log.warning("all re-runs are switched off by SIGUSR1; `triage switch on` lets them go on")


def _read(path: Path) -> str | None:
    """Why the file stops everything; None when there is none. One that cannot be looked at stops, too."""
    try:
        with path.open("rb") as file:
            line = file.readline(_REASON).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{path}: {error.strerror}"
    return f"{path} exists" + (f": {line}" if line else "")
