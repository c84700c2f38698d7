"""Seeded faults for the emulators: what a network and a busy service do to a client, repeatable by seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import StrEnum
from random import Random  # noqa: TID251 - seeded by the caller, so chance is an argument

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from triage.clock import Clock


class Fault(StrEnum):
    """What goes wrong with one request."""

    LOST_ANSWER = "lost_answer"
    """It is carried out, then the connection breaks."""
    SERVER_ERROR = "server_error"
    """It is not carried out; status 500."""
    THROTTLED = "throttled"
    """It is not carried out; status 429."""
    DELAY = "delay"
    """It is carried out late."""
    DUPLICATE = "duplicate"
    """A message is stored twice. Up to the operation; has no meaning for one that stores no message."""
    LATE_ANSWER = "late_answer"
    """It is carried out, and answered late."""
    GARBAGE = "garbage"
    """It is carried out; the answer is a web page, as from a proxy in between."""
    CONFLICT = "conflict"
    """It is not carried out; status 409, as if it had been carried out before."""
    LOST = "lost"
    """A result message never reaches its queue. Has a meaning for ``PushResult`` only."""


class Faults:
    """Draws faults from a seeded generator: same seed and same order of requests, same faults.

    Args:
        seed: of the generator.
        rates: probability by fault (``"throttled"``) or by operation and fault (``"SendMessage:throttled"``, which goes
            before the general one). What is left to 1 is no fault.

    Raises:
        ValueError: an unknown fault, a rate outside 0 to 1, or rates whose sum exceeds 1.
    """

    def __init__(self, seed: int, rates: Mapping[str, float]) -> None:
        self._random = Random(seed)  # noqa: S311 - repeatable, not secret
        self._rates: dict[tuple[str, Fault], float] = {}
        for key, rate in rates.items():
            operation, _, name = key.rpartition(":")
            if name not in list(Fault):
                raise ValueError(f"unknown fault {name!r}, use one of: {', '.join(Fault)}")
            if not 0 <= rate <= 1:
                raise ValueError(f"rate of {key} is {rate}, must be between 0 and 1")
            self._rates[operation, Fault(name)] = rate
        for operation in {operation for operation, _ in self._rates}:
            if (total := sum(self._rate(operation, fault) for fault in Fault)) > 1 + 1e-9:
                raise ValueError(f"rates of {operation or 'all operations'} add up to {total:g}, more than 1")

    def draw(self, operation: str) -> Fault | None:
        """Decide what happens to one request of this operation."""
        left = self._random.random()
        for fault in Fault:
            left -= self._rate(operation, fault)
            if left < 0:
                return fault
        return None

    def _rate(self, operation: str, fault: Fault) -> float:
        return self._rates.get((operation, fault), self._rates.get(("", fault), 0.0))


_FAULT = web.RequestKey("fault", Fault)


def fault_of(request: web.Request) -> Fault | None:
    """What `faults_middleware` drew for this request, for handlers that act on it (`Fault.DUPLICATE`)."""
    return request.get(_FAULT)


def faults_middleware(
    faults: Faults,
    *,
    operation: Callable[[web.Request], str],
    refuse: Callable[[web.Request, Fault], web.StreamResponse],
    clock: Clock,
    delay: timedelta = timedelta(seconds=1),
) -> Middleware:
    """Apply faults to an application, or to one handler by calling the result as ``middleware(request, handler)``.

    Args:
        operation: names the request's operation; no fault happens to one without a name.
        refuse: the service's own answer for `Fault.SERVER_ERROR`, `Fault.THROTTLED` and `Fault.CONFLICT`.
        delay: how late `Fault.DELAY` and `Fault.LATE_ANSWER` are.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        name = operation(request)
        fault = faults.draw(name) if name else None
        if fault in (Fault.SERVER_ERROR, Fault.THROTTLED, Fault.CONFLICT):
            return refuse(request, fault)
        if fault is Fault.DELAY:
            await clock.sleep(delay)
        if fault is not None:
            request[_FAULT] = fault
        response = await handler(request)
        if fault is Fault.LOST_ANSWER and request.transport is not None:
            request.transport.abort()
        if fault is Fault.LATE_ANSWER:
            await clock.sleep(delay)
        if fault is Fault.GARBAGE:
            return web.Response(text="<html><body>Welcome</body></html>", content_type="text/html")
        return response

    return middleware
