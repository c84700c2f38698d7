"""The apprise adapter: receivers by name, each a list of targets, with an answer per target.

A target's URL is the operator's secret. It is never built from a rule or an envelope and never appears in an answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from threading import Thread
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from triage.alerts.delivery import Answer, Result
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


@dataclass(frozen=True, slots=True)
class Target:
    """One address of a receiver.

    Attributes:
        key: a digest of the address, too short to find it by: it stays the same when others come and go.
        name: its place in the list and its service, for people.
        shown: the address without what may be secret.
        service: what sends; None is the console.
    """

    key: str
    name: str
    shown: str
    service: Any


class Notifier(Protocol):
    """Delivers notifications; the outbox decides about retries."""

    async def send(self, note: Notification, *, skip: frozenset[str] = frozenset()) -> Mapping[str, Answer]:
        """Deliver to every target of the receiver except those in ``skip`` (by key); the answer of each.

        None at all means that the receiver is not configured, or has no other targets.
        """
        ...


class _Hung(NamedTuple):
    """A call that was given up and has not come back: to which target, and since when, if a restart would free it."""

    target: tuple[str, str]
    since: datetime | None


class AppriseNotifier:
    """Delivers through apprise. Build it with `AppriseNotifier.load`, off the event loop: it reads 170 schemas."""

    def __init__(
        self,
        targets: Mapping[str, Sequence[Target]],
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
        self._hung: dict[Future[Answer], _Hung] = {}
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
            name: [_target(name, position, url, config.timeout, problems) for position, url in enumerate(config.urls)]
            for name, config in receivers.items()
        }
        if problems:
            raise ConfigInvalid(problems)
        timeouts = {name: config.timeout for name, config in receivers.items()}
        forms = {name: config.form for name, config in receivers.items()}
        return cls(targets, timeouts, write or _to_stdout, clock, limit, guard=guard, forms=forms)

    def targets(self, receiver: str) -> Sequence[Target]:
        """The addresses of a receiver; none when it is not configured."""
        return self._targets.get(receiver, ())

    def adopt(self, other: AppriseNotifier) -> None:
        """Take the receivers of another one from now on. What is under way ends as it began."""
        self._targets, self._timeouts, self._forms = other._targets, other._timeouts, other._forms

    def forms(self, receiver: str) -> frozenset[Format]:
        """What the targets of a receiver are sent, beside plain text."""
        services = [next(iter(target.service)) for target in self.targets(receiver) if target.service is not None]
        return frozenset(form_of(service, self._forms.get(receiver)) for service in services) - {Format.TEXT}

    async def send(self, note: Notification, *, skip: frozenset[str] = frozenset()) -> Mapping[str, Answer]:
        wanted = [target for target in self.targets(note.receiver) if target.key not in skip]
        timeout = self._timeouts.get(note.receiver, timedelta())
        answers = await asyncio.gather(*(self._send_one(target, note, timeout) for target in wanted))
        return {target.key: answer for target, answer in zip(wanted, answers, strict=True)}

    async def _send_one(self, target: Target, note: Notification, timeout: timedelta) -> Answer:  # noqa: ASYNC109
        key = (note.receiver, target.key)
        if any(hung.target == key for hung in list(self._hung.values())):
            # One thread is enough to hang in it, and this message has not been sent.
            return Answer(Result.FAILED, target.name, "an earlier call has not come back yet")
        began = self._clock.steady()
        call = _in_thread(partial(self._print if target.service is None else self._notify, target, note))
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                return await asyncio.wrap_future(call)
        except TimeoutError:
            # Whoever does not read the console will not do so after a restart either.
            self._gave_up(call, _Hung(key, None if target.service is None else began))
            return Answer(Result.UNKNOWN, target.name, f"no answer within {timeout.total_seconds():g} s")

    def _gave_up(self, call: Future[Answer], hung: _Hung) -> None:
        self._hung[call] = hung
        self._mark()
        call.add_done_callback(self._came_back)

    def _came_back(self, call: Future[Answer]) -> None:
        self._hung.pop(call, None)
        self._mark()

    def _mark(self) -> None:
        self._hanging.oldest(sorted(hung.since for hung in list(self._hung.values()) if hung.since is not None))

    def _print(self, target: Target, note: Notification) -> Answer:
        try:
            self._write(f"{note.title}\n{note.body}\n\n")
        except (OSError, ValueError) as error:  # the other end of the pipe, or the stream itself, is closed
            log.warning("the console takes no notification: %s", error)
            return Answer(Result.FAILED, target.name, "the console is closed")
        return Answer(Result.SENT, target.name)

    def _notify(self, target: Target, note: Notification) -> Answer:
        from apprise import AppriseResultStatus, NotifyType  # noqa: PLC0415 - 150 ms, and only where it is used

        from triage.listening import listening  # noqa: PLC0415

        kinds = {"info": NotifyType.INFO, "warning": NotifyType.WARNING, "critical": NotifyType.FAILURE}
        kind, wanted = kinds.get(note.severity, NotifyType.WARNING), self._forms.get(note.receiver)
        text, form = shown(next(iter(target.service)), note.title, note.body, note.forms, wanted)
        began = self._clock.steady()
        with guarding(self._guard) as refused, listening() as heard:
            answer = target.service.notify(title=note.title, body=text, notify_type=kind, body_format=str(form))
        status = answer.status
        for reason in dict.fromkeys(refused):
            log.warning("receiver %s: %s", note.receiver, reason)
        if status == AppriseResultStatus.SUCCESS:
            return Answer(Result.SENT, target.name)
        if refused:
            return Answer(Result.FAILED, target.name, "its address is not allowed")
        if status == AppriseResultStatus.NOMATCH:
            return Answer(Result.FAILED, target.name, "the address names nobody")
        if heard.status is not None:
            after = _retry_after(heard.retry_after, self._clock.now()) if heard.status in _LATER else None
            return Answer(Result.FAILED, target.name, f"HTTP {heard.status}", after)
        if heard.refused:
            return Answer(Result.FAILED, target.name, "no connection")
        # Of what does not speak HTTP only the time tells whether something ran out of it.
        if heard.lost or self._clock.steady() - began >= _patience(target.service):
            return Answer(Result.UNKNOWN, target.name, "sent, but not answered")
        return Answer(Result.FAILED, target.name, "not taken")


_LATER: Final = (429, 503)

_LONGEST: Final = timedelta(hours=24)
"""A far side that wants to be left alone for longer is asked again after that."""


def _retry_after(text: str, now: datetime) -> timedelta | None:
    """Read the header: seconds, or a date. None when it is neither."""
    if text.strip().isdecimal():
        seconds = float(text)
    else:
        try:
            at = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds()
    return min(timedelta(seconds=min(max(seconds, 0), 1e9)), _LONGEST)


def _patience(service: Any) -> timedelta:
    """How long the service waits for the far side at the least."""
    return timedelta(seconds=min(min(each.socket_connect_timeout, each.socket_read_timeout) for each in service))


def _in_thread(call: Callable[[], Answer]) -> Future[Answer]:
    """Run in a thread of its own, which nobody has to wait for: not the next call, and not the end of the process."""
    future: Future[Answer] = Future()
    future.set_running_or_notify_cancel()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - a thread's boundary: whoever waits gets it
            future.set_exception(error)

    Thread(target=work, name="notify", daemon=True).start()
    return future


def _target(receiver: str, position: int, url: str, timeout: timedelta, problems: list[Problem]) -> Target:
    """One apprise object per target, so that a retry does not repeat to those that got it."""
    key = hashlib.sha256(url.encode()).hexdigest()[:8]
    if url.rstrip("/") == CONSOLE:
        return Target(key, f"target {position + 1} (console)", CONSOLE, None)
    from apprise import Apprise, AppriseAsset  # noqa: PLC0415 - 150 ms, and only where it is used

    # In the thread that calls, not in the pool of apprise: what hangs in it starves all, and is waited for at exit.
    service = Apprise(asset=AppriseAsset(async_mode=False, service_timeout=0))
    where = f"receivers.{receiver}.urls[{position}]"
    if not service.add(url):
        problems.append(Problem(where, 0, 0, "not a target that apprise understands", "see the apprise documentation"))
    elif len(service) != 1:
        problems.append(Problem(where, 0, 0, "several targets in one text", "give each an entry of its own"))
    own: Any = next(iter(service), None)
    if own and own.socket_read_timeout == type(own).socket_read_timeout:
        # Nobody has chosen apprise's four seconds: who takes longer to answer would be told again and again.
        own.socket_read_timeout = max(own.socket_read_timeout, timeout.total_seconds())
    masked = _masked(own.url(privacy=True)) if own else ""
    return Target(key, f"target {position + 1} ({masked.partition(':')[0]})", masked, service)


def _masked(url: str) -> str:
    """An address that apprise has masked, without what it does not mask: a path may be a token, too."""
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets, or what masking made of them
        return f"{url.partition(':')[0]}://…"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{'/…' if parts.path.strip('/') or parts.query else ''}"


def _to_stdout(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))  # better a ? than no alert
    sys.stdout.flush()
