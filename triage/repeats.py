"""Warnings and errors that repeat themselves: the first few are written, the others counted."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TextIO

SHOWN: Final = 5
"""How often the same warning or error is written within `WINDOW`; what comes then is counted."""

WINDOW: Final = 60.0
"""Seconds."""

_KINDS: Final = 1000
"""Kinds of messages that are watched at a time; libraries may put anything into theirs."""

_REPEATED: Final = "repeated %d times in %d s; the last: %s"

_ANY: Final = re.compile(r"%[\d.]*[sdr]|[^\w%]+|%")


@dataclass(slots=True)
class _Kind:
    """Messages of one kind: when the first came, how many, and the last of those that were not written."""

    since: float
    count: int = 0
    last: logging.LogRecord | None = None


class Repeats(logging.Filter):
    """Lets through the first few of what is said again and again, and says at the end of a minute how often it was.

    Of one kind are warnings and errors of one place in the code, whatever they are about.
    """

    def __init__(
        self,
        write: Callable[[logging.LogRecord], object],
        *,
        now: Callable[[], float],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """``write`` takes a record that says how often, ``later`` calls something after so many seconds."""
        super().__init__()
        self._write, self._now, self._later = write, now, later
        self._kinds: dict[tuple[str, int, str], _Kind] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        if not logging.WARNING <= record.levelno < logging.CRITICAL or record.msg is _REPEATED:
            return True
        template = str(record.msg)
        # A template of nothing but gaps says nothing about the kind.
        kind = template if _ANY.sub("", template) else message_of(record)
        key, now = (record.name, record.levelno, kind), self._now()
        with self._lock:
            seen = self._kinds.get(key)
            over = seen is not None and now - seen.since >= WINDOW
            if seen is None or over:
                full = next(iter(self._kinds)) if len(self._kinds) >= _KINDS else None
                ended = [self._kinds.pop(each, None) for each in (key, full) if each is not None]
                self._kinds[key] = _Kind(now, 1)
            else:
                ended = []
                seen.count += 1
                if seen.count > SHOWN:
                    if seen.last is None:
                        self._later(seen.since + WINDOW - now, lambda: self._end(key, seen))
                    seen.last = record
                    return False
        for each in ended:
            self._tell(each)
        return True

    def end(self) -> None:
        """Say of all kinds how often they were left out."""
        with self._lock:
            kinds, self._kinds = list(self._kinds.values()), {}
        for each in kinds:
            self._tell(each)

    def _end(self, key: tuple[str, int, str], kind: _Kind) -> None:
        with self._lock:
            if self._kinds.get(key) is not kind:
                return  # told already
            del self._kinds[key]
        self._tell(kind)

    def _tell(self, kind: _Kind | None) -> None:
        if kind is None or (last := kind.last) is None:
            return
        args = (kind.count - SHOWN, round(self._now() - kind.since), message_of(last))
        self._write(logging.LogRecord(last.name, last.levelno, last.pathname, last.lineno, _REPEATED, args, None))


def _later(seconds: float, call: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()


class CountingHandler(logging.StreamHandler[TextIO]):
    """Writes to a stream and counts what repeats itself; at the latest when it is closed it says how often."""

    def __init__(self, stream: TextIO, *, now: Callable[[], float]) -> None:
        super().__init__(stream)
        self._repeats = Repeats(self.handle, now=now, later=_later)
        self.addFilter(self._repeats)

    def tell(self) -> None:
        """Say now how often what was left out."""
        self._repeats.end()

    def close(self) -> None:
        self.tell()
        super().close()


def message_of(record: logging.LogRecord) -> str:
    """What a record says, also where its arguments do not fit: a mistake of a library must not end what it works on."""
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - whatever an argument does when it is shown; it is told in the line itself
        return f"{record.msg} {record.args!r}" if isinstance(record.args, tuple) else str(record.msg)
