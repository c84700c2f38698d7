"""The apprise adapter: receivers by name, each a list of targets, with a result per target.

A target's URL is the operator's secret. It is never built from a rule or an envelope and never appears in a result.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, Protocol

from triage.errors import ConfigInvalid, Problem

log = logging.getLogger(__name__)

CONSOLE: Final = "console:"
"""Pseudo URL of the standard output."""


class Result(StrEnum):
    """How one target took a notification. ``TIMEOUT``: it may still arrive."""

    SENT = "sent"
    FAILED = "failed"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Notification:
    """What is delivered to one receiver."""

    receiver: str
    title: str
    body: str
    severity: str


@dataclass(frozen=True, slots=True)
class ReceiverConfig:
    """The targets of a receiver (apprise URLs, or ``console:``), and how long each may take."""

    urls: tuple[str, ...]
    timeout: timedelta = timedelta(seconds=15)


class Notifier(Protocol):
    """Delivers notifications; the outbox decides about retries."""

    async def send(self, note: Notification, *, skip: frozenset[int] = frozenset()) -> Mapping[int, Result]:
        """Deliver to every target of the receiver except those in ``skip`` (by position); the result of each.

        An empty answer means that the receiver is not configured.
        """
        ...


class AppriseNotifier:
    """Delivers through apprise. Build it with `AppriseNotifier.load`, off the event loop: it reads 170 schemas."""

    def __init__(
        self, targets: Mapping[str, Sequence[Any]], timeouts: Mapping[str, timedelta], write: Callable[[str], None]
    ) -> None:
        self._targets, self._timeouts, self._write = targets, timeouts, write

    @classmethod
    def load(
        cls, receivers: Mapping[str, ReceiverConfig], *, write: Callable[[str], None] | None = None
    ) -> AppriseNotifier:
        """Check and load every target.

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
        return cls(targets, {name: config.timeout for name, config in receivers.items()}, write or _to_stdout)

    async def send(self, note: Notification, *, skip: frozenset[int] = frozenset()) -> Mapping[int, Result]:
        targets = self._targets.get(note.receiver, ())
        wanted = [position for position in range(len(targets)) if position not in skip]
        timeout = self._timeouts.get(note.receiver, timedelta())
        results = await asyncio.gather(*(self._send_one(targets[position], note, timeout) for position in wanted))
        return dict(zip(wanted, results, strict=True))

    async def _send_one(self, target: Any, note: Notification, timeout: timedelta) -> Result:  # noqa: ASYNC109
        if target is None:
            return await self._print(note, timeout)
        from apprise import AppriseResultStatus, NotifyType  # noqa: PLC0415 - 150 ms, and only where it is used

        kind = {"info": NotifyType.INFO, "warning": NotifyType.WARNING, "critical": NotifyType.FAILURE}
        answer = await target.async_notify(
            title=note.title,
            body=note.body,
            notify_type=kind.get(note.severity, NotifyType.WARNING),
            timeout=timeout.total_seconds(),
        )
        if answer.status == AppriseResultStatus.SUCCESS:
            return Result.SENT
        timed_out = any(one.status == AppriseResultStatus.TIMEOUT for one in answer)
        return Result.TIMEOUT if timed_out else Result.FAILED

    async def _print(self, note: Notification, timeout: timedelta) -> Result:  # noqa: ASYNC109
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await asyncio.to_thread(self._write, f"{note.title}\n{note.body}\n\n")
        except TimeoutError:
            return Result.TIMEOUT  # nobody reads the other end of the pipe
        except (OSError, ValueError) as error:  # the other end of the pipe, or the stream itself, is closed
            log.warning("the console takes no notification: %s", error)
            return Result.FAILED
        return Result.SENT


def _target(receiver: str, position: int, url: str, problems: list[Problem]) -> Any:
    """One apprise object per target, so that a retry does not repeat to those that got it. None is the console."""
    if url.rstrip("/") == CONSOLE:
        return None
    from apprise import Apprise  # noqa: PLC0415 - 150 ms, and only where it is used

    target = Apprise()
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
