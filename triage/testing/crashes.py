"""The process dies at a point of one's choice: every point at which the loops wait for something outside of them.

A daemon changes the world by calls that it awaits: of its store, its queue, Function Compute, a receiver. Dying between
two such calls is the same as dying right after the first, so the points before and after every call are all there are.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from triage.testing.clock import ManualClock

_LOOKS: Final = frozenset({"next_due", "claim_due", "receive"})
"""Calls that are made again and again while there is nothing to do."""


_NOTHING: Final = timedelta(0)


class Crash(BaseException):
    """The process dies here. No handler of errors may live through it."""


@dataclass(slots=True)
class Crashes:
    """Counts and names the points at which a process can die, and lets it die at one of them.

    A loop that finds nothing to do passes the same points again and again; they are counted once until something has
    happened, since the world is the same at each of them.

    Attributes:
        at: the number of the point, from 1, at which it dies; 0 for never.
        points: the names of the points passed so far (a window).
        died: whether it has died; whatever is called then dies, too.
    """

    at: int = 0
    points: list[str] = field(default_factory=list)
    died: bool = False
    _passed: set[str] = field(default_factory=set)
    _under_way: int = 0
    _quiet: asyncio.Event = field(default_factory=asyncio.Event)

    def wrap(self, seam: Any, *, waits: Collection[str] = ()) -> Any:
        """The same object, with a point before and after each of its asynchronous calls.

        Args:
            waits: calls that may take as long as the test's clock stands still.
        """
        return _Wrapped(seam, self, frozenset(waits))

    async def rest(self, clock: ManualClock) -> None:
        """Return once every call that was made has come back, and everybody waits for time to pass."""
        await clock.advance(_NOTHING)
        while self._under_way:
            self._quiet.clear()
            await self._quiet.wait()
            await clock.advance(_NOTHING)

    async def _call(self, name: str, call: Callable[[], Awaitable[Any]], *, waits: bool) -> Any:
        self._point(f"before {name}")
        self._under_way += not waits
        try:
            result = await call()
        finally:
            self._under_way -= not waits
            if not self._under_way:
                self._quiet.set()
        method = name.rpartition(".")[2]
        if method not in _LOOKS or (result and method != "next_due"):
            self._passed.clear()
        self._point(f"after {name}")
        return result

    def _point(self, name: str) -> None:
        if not self.died and name not in self._passed:
            self._passed.add(name)
            self.points.append(name)
            self.died = len(self.points) == self.at
        if self.died:
            raise Crash(self.points[-1])


class _Wrapped:
    def __init__(self, seam: Any, crashes: Crashes, waits: frozenset[str]) -> None:
        self._seam, self._crashes, self._waits = seam, crashes, waits

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._seam, name)
        if not inspect.iscoroutinefunction(value):
            return value
        label = f"{type(self._seam).__name__}.{name}"

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._crashes._call(label, lambda: value(*args, **kwargs), waits=name in self._waits)  # noqa: SLF001

        return call
