"""The apprise adapter: receivers by name, each a list of targets, with a result per target.

A target's URL is the operator's secret. It is never built from a rule or an envelope and never appears in a result.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from threading import Thread
from typing import Any, Final, NamedTuple, Protocol

from triage.alerts.render import Format
from triage.clock import Clock, SystemClock
from triage.errors import ConfigInvalid, Problem
from triage.outbound import Guard, guarding
from triage.progress import LIMIT, Progress
from triage.showing import form_of, shown

log = logging.getLogger(__name__)

CONSOLE: Final = "console:"
"""Pseudo URL of the standard output."""

_CLOCK: Final = SystemClock()
_ANYWHERE: Final = Guard()


class Result(StrEnum):
    """How one target took a notification. ``TIMEOUT``: it may still arrive."""

    SENT = "sent"
    FAILED = "failed"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Notification:
    """What is delivered to one receiver. ``body`` is plain text, ``forms`` has the same for who can show more."""

    receiver: str
    title: str
    body: str
    severity: str
    forms: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReceiverConfig:
    """The targets of a receiver (apprise URLs, or ``console:``), how long each may take, and what they are to be sent
    if they can show it; None: what each of them likes best.
    """

    urls: tuple[str, ...]
    timeout: timedelta = timedelta(seconds=15)
    form: Format | None = None


class Notifier(Protocol):
    """Delivers notifications; the outbox decides about retries."""

    async def send(self, note: Notification, *, skip: frozenset[int] = frozenset()) -> Mapping[int, Result]:
        """Deliver to every target of the receiver except those in ``skip`` (by position); the result of each.

        An empty answer means that the receiver is not configured.
        """
        ...


class _Hung(NamedTuple):
    """A call that was given up and has not come back: to which target, and since when, if a restart would free it."""

    target: tuple[str, int]
    since: datetime | None


class AppriseNotifier:
    """Delivers through apprise. Build it with `AppriseNotifier.load`, off the event loop: it reads 170 schemas."""

    def __init__(
        self,
        targets: Mapping[str, Sequence[Any]],
        timeouts: Mapping[str, timedelta],
        write: Callable[[str], None],
        clock: Clock,
        limit: timedelta,
        *,
        guard: Guard = _ANYWHERE,
        forms: Mapping[str, Format | None],
    ) -> None:
        self._guard, self._forms = guard, forms
        self._targets, self._timeouts, self._write, self._clock = targets, timeouts, write, clock
        self._hung: dict[Future[Result], _Hung] = {}
        self._hanging = Progress(limit)

    @property
    def stages(self) -> dict[str, Progress]:
        """Calls of targets that were given up and have not come back. Only a restart frees what they hold."""
        return {"notify": self._hanging}

    @classmethod
    def load(
        cls,
        receivers: Mapping[str, ReceiverConfig],
        *,
        write: Callable[[str], None] | None = None,
        clock: Clock = _CLOCK,
        limit: timedelta = LIMIT,
        guard: Guard = _ANYWHERE,
    ) -> AppriseNotifier:
        """Check and load every target. ``guard`` says where they may be.

        Raises:
            ConfigInvalid: for each URL that apprise does not understand, without showing it.
        """
        problems: list[Problem] = []
        targets = {
            name: [_target(name, position, url, problems) for position, url in enumerate(config.urls)]
            for name, config in receivers.items()
        }
        if problems:
            raise ConfigInvalid(problems)
        timeouts = {name: config.timeout for name, config in receivers.items()}
        forms = {name: config.form for name, config in receivers.items()}
        return cls(targets, timeouts, write or _to_stdout, clock, limit, guard=guard, forms=forms)

    def adopt(self, other: AppriseNotifier) -> None:
        """Take the receivers of another one from now on. What is under way ends as it began."""
        self._targets, self._timeouts, self._forms = other._targets, other._timeouts, other._forms

    def forms(self, receiver: str) -> frozenset[Format]:
        """What the targets of a receiver are sent, beside plain text."""
        services = [next(iter(target)) for target in self._targets.get(receiver, ()) if target is not None]
        return frozenset(form_of(service, self._forms.get(receiver)) for service in services) - {Format.TEXT}

    async def send(self, note: Notification, *, skip: frozenset[int] = frozenset()) -> Mapping[int, Result]:
        targets = self._targets.get(note.receiver, ())
        wanted = [position for position in range(len(targets)) if position not in skip]
        timeout = self._timeouts.get(note.receiver, timedelta())
        sends = (self._send_one((note.receiver, position), targets[position], note, timeout) for position in wanted)
        return dict(zip(wanted, await asyncio.gather(*sends), strict=True))

    async def _send_one(self, key: tuple[str, int], target: Any, note: Notification, timeout: timedelta) -> Result:  # noqa: ASYNC109
        if any(hung.target == key for hung in list(self._hung.values())):
            return Result.TIMEOUT  # one thread is enough to hang in it
        began = self._clock.steady()
        call = _in_thread(partial(self._print if target is None else partial(self._notify, target), note))
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                return await asyncio.wrap_future(call)
        except TimeoutError:
            # Whoever does not read the console will not do so after a restart either.
            self._gave_up(call, _Hung(key, None if target is None else began))
            return Result.TIMEOUT

    def _gave_up(self, call: Future[Result], hung: _Hung) -> None:
        self._hung[call] = hung
        self._mark()
        call.add_done_callback(self._came_back)

    def _came_back(self, call: Future[Result]) -> None:
        self._hung.pop(call, None)
        self._mark()

    def _mark(self) -> None:
        self._hanging.oldest(sorted(hung.since for hung in list(self._hung.values()) if hung.since is not None))

    def _print(self, note: Notification) -> Result:
        try:
            self._write(f"{note.title}\n{note.body}\n\n")
        except (OSError, ValueError) as error:  # the other end of the pipe, or the stream itself, is closed
            log.warning("the console takes no notification: %s", error)
            return Result.FAILED
        return Result.SENT

    def _notify(self, target: Any, note: Notification) -> Result:
        from apprise import AppriseResultStatus, NotifyType  # noqa: PLC0415 - 150 ms, and only where it is used

        kinds = {"info": NotifyType.INFO, "warning": NotifyType.WARNING, "critical": NotifyType.FAILURE}
        kind, wanted = kinds.get(note.severity, NotifyType.WARNING), self._forms.get(note.receiver)
        text, form = shown(next(iter(target)), note.title, note.body, note.forms, wanted)
        with guarding(self._guard) as refused:
            answer = target.notify(title=note.title, body=text, notify_type=kind, body_format=str(form))
        for reason in dict.fromkeys(refused):
            log.warning("receiver %s: %s", note.receiver, reason)
        return Result.SENT if answer.status == AppriseResultStatus.SUCCESS else Result.FAILED


def _in_thread(call: Callable[[], Result]) -> Future[Result]:
    """Run in a thread of its own, which nobody has to wait for: not the next call, and not the end of the process."""
    future: Future[Result] = Future()
    future.set_running_or_notify_cancel()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - a thread's boundary: whoever waits gets it
            future.set_exception(error)

    Thread(target=work, name="notify", daemon=True).start()
    return future


def _target(receiver: str, position: int, url: str, problems: list[Problem]) -> Any:
    """One apprise object per target, so that a retry does not repeat to those that got it. None is the console."""
    if url.rstrip("/") == CONSOLE:
        return None
    from apprise import Apprise, AppriseAsset  # noqa: PLC0415 - 150 ms, and only where it is used

    # In the thread that calls, not in the pool of apprise: what hangs in it starves all, and is waited for at exit.
    target = Apprise(asset=AppriseAsset(async_mode=False, service_timeout=0))
    where = f"receivers.{receiver}.urls[{position}]"
    if not target.add(url):
        problems.append(Problem(where, 0, 0, "not a target that apprise understands", "see the apprise documentation"))
    elif len(target) != 1:
        problems.append(Problem(where, 0, 0, "several targets in one text", "give each an entry of its own"))
    return target


def _to_stdout(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))  # better a ? than no alert
    sys.stdout.flush()
