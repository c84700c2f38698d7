"""Ends the process when a stage stands still: somebody will start it anew, and nothing is lost by that.

It looks from a thread of its own, since a blocked event loop cannot look at itself, and tells people without the store,
which may be what hangs. Nothing it does on the way to the end may keep it from the end.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from types import FrameType
from typing import Final

from triage.clock import Clock
from triage.notify import Notification, Notifier
from triage.progress import Progress, Stage, stalled

log = logging.getLogger(__name__)

EXIT_STALLED: Final = 70
"""Exit code of a process that ended because a stage stood still (``EX_SOFTWARE`` of sysexits.h)."""

_LOOKS: Final = 8
"""How often the stages are looked at within the shortest limit."""

_SLOWEST_LOOK: Final = timedelta(seconds=5)

_SUSPECT: Final = 0.5
"""Share of its limit after which a stage is told together with one that stands still."""

_FAREWELL: Final = timedelta(seconds=20)
"""Longer than a receiver's usual timeout."""

_TASKS: Final = 50
"""Tasks, and threads, whose stacks are told."""

_FRAMES: Final = 12
"""Innermost frames of a stack."""


class Watchdog:
    """Watches the stages from `start` until `stop`. Both may be called from the event loop."""

    def __init__(
        self,
        stages: Mapping[str, Progress],
        *,
        notifier: Notifier,
        to: Sequence[str],
        clock: Clock,
        end: Callable[[int], object] = os._exit,
        farewell: timedelta = _FAREWELL,
        last_resort: timedelta | None = None,
    ) -> None:
        """Watch ``stages``, which must be complete by now.

        Args:
            to: receivers that are told before the end.
            end: ends the process at once, whatever its other threads do.
            farewell: how long telling people and writing the log may take; without a word it ends then.
            last_resort: how long this thread may not get to look, because a library holds the interpreter: then the
                process ends with code 1, and the stacks of the threads on standard error. None = for ever.
        """
        self._stages, self._notifier, self._to, self._clock = dict(stages), notifier, tuple(to), clock
        self._end, self._farewell, self._last_resort = end, farewell, last_resort
        limit = min(progress.limit for progress in stages.values())
        self._interval = min(limit / _LOOKS, _SLOWEST_LOOK).total_seconds()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look, for the event loop that runs now."""
        self._loop = asyncio.get_running_loop()
        self._arm()
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        self._thread.join()
        self._disarm()

    def _arm(self) -> None:
        if self._last_resort is not None:  # a thread of faulthandler's own, which needs no interpreter
            faulthandler.dump_traceback_later(self._last_resort.total_seconds(), exit=True)

    def _disarm(self) -> None:
        if self._last_resort is not None:
            faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        before: set[str] = set()
        while not self._stopped.wait(self._interval):
            self._arm()
            now = self._clock.steady()
            still = stalled(self._stages, now)
            # A process that was stopped and goes on finds everything late; by the second look it has caught up.
            if before & {stage.name for stage in still}:
                # What stands almost as long may be the cause, such as the event loop, on which all others wait.
                self._give_up(stalled(self._stages, now, share=_SUSPECT) or still)
                return
            before = {stage.name for stage in still}

    def _give_up(self, still: Sequence[Stage]) -> None:
        self._disarm()
        what = "; ".join(map(str, still))
        # Each of these may hang on what hangs already, such as the lock of a log that nobody reads.
        steps = [
            threading.Thread(target=call, args=arguments, name=name, daemon=True)
            for name, call, arguments in (("watchdog log", self._log, (what,)), ("watchdog tell", self._tell, (what,)))
        ]
        for step in steps:
            step.start()
        until = self._clock.steady() + self._farewell
        for step in steps:
            step.join(max((until - self._clock.steady()).total_seconds(), 0))
        self._end(EXIT_STALLED)

    def _log(self, what: str) -> None:
        log.critical("stalled: %s; this process ends with code %d, to be started anew", what, EXIT_STALLED)
        for line in (*_tasks(self._loop), *_threads()):
            log.critical("%s", line)

    def _tell(self, what: str) -> None:
        title = f"[critical] triage on {socket.gethostname()} stands still and starts anew"
        body = f"{what}.\nNothing is lost: what was not finished is taken up again. The log has the stacks."

        async def send() -> None:
            notes = [Notification(receiver, title, body, "critical") for receiver in self._to]
            for note, answers in zip(notes, await asyncio.gather(*map(self._notifier.send, notes)), strict=True):
                log.info("receiver %s: %s", note.receiver, "; ".join(map(str, answers.values())))

        asyncio.run(send())


def _tasks(loop: asyncio.AbstractEventLoop) -> Iterator[str]:
    """What every task waits for, one a line."""
    try:
        tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    except RuntimeError:  # they come and go meanwhile
        return
    for task in tasks[:_TASKS]:
        # From the task's coroutine down to what it awaits; `Task.get_stack` gives the outermost frame only.
        frames: list[FrameType] = []
        awaited: object = task.get_coro()
        while (frame := getattr(awaited, "cr_frame", None)) is not None:
            frames.append(frame)
            awaited = getattr(awaited, "cr_await", None)
        yield f"task {task.get_name()}: {_stack(reversed(frames))}"
    if len(tasks) > _TASKS:
        yield f"and {len(tasks) - _TASKS} more tasks"


def _threads() -> Iterator[str]:
    """What every thread does, one a line."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in list(sys._current_frames().items())[:_TASKS]:  # noqa: SLF001 - the documented way to ask
        yield f"thread {names.get(ident, ident)}: {_stack(each for each, _ in traceback.walk_stack(frame))}"


def _stack(frames: Iterable[FrameType]) -> str:
    """The innermost frames, by file, line and name. Source lines are left out: the disk may be what hangs."""
    places = (f"{f.f_code.co_filename}:{f.f_lineno} {f.f_code.co_qualname}" for f in islice(frames, _FRAMES))
    return " < ".join(places) or "nowhere"
