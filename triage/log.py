"""The log: standard library logging, as text or JSON, with known secrets taken out of every line."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, TextIO
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from triage.repeats import CountingHandler, message_of

if TYPE_CHECKING:  # the command line needs only `printable`, and pydantic is slow to import
    from triage.settings import LogSettings, Settings

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SHORTEST = 4
"""Characters. Taking a shorter text out of every line would destroy the log and protect nobody."""
_TELLING = frozenset(
    {"cto", "emojis", "format", "method", "overflow", "redirect", "retry", "rto", "tz", "verify", "wait"}
)
"""Options of apprise addresses whose values are no secrets."""


def secrets_of(settings: Settings) -> frozenset[str]:
    """Every text that must not be seen: the keys, and the receivers' addresses with the parts that may be tokens."""
    keys = settings.credentials
    texts = {key.get_secret_value() for key in (keys.access_key_secret, keys.security_token, settings.web.token)}
    texts.update(header.get_secret_value().partition(":")[2].strip() for header in settings.traces.headers)
    texts.update(_address_parts(settings.heartbeat.url.get_secret_value()))
    for receiver in settings.receivers.values():
        for address in receiver.urls:
            texts.update(_address_parts(address.get_secret_value()))
    return frozenset(text for text in texts if len(text) >= _SHORTEST)


def _address_parts(address: str) -> Iterator[str]:
    """The address and what in it may be a token. ``slack://A/B/C`` has one in the host, others in user or path."""
    _, _, rest = address.partition("://")
    if not rest:
        return
    yield address
    yield rest
    try:
        parts = urlsplit(f"//{rest}")
        host, user, password = parts.hostname or "", parts.username, parts.password
    except ValueError:
        yield from (part for part in re.split(r"[/:@?&=#]+", rest) if len(part) >= 8)
        return
    yield from filter(None, (user, password))
    # hostname is lower-cased by the library; the token is not.
    written = re.split(r"[:/?#]", parts.netloc.rpartition("@")[2])[0]
    if "." not in host and host != "localhost":
        yield from (text for text in (host, written) if len(text) >= 8)
    yield from (part for part in parts.path.split("/") if len(part) >= 8)
    yield from (value for name, value in parse_qsl(parts.query) if name not in _TELLING)


def redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """A function that puts ``***`` in the place of each secret, also where it was escaped for a URL or for JSON."""
    forms = {
        form
        for text in secrets
        for form in (text, quote(text, safe=""), quote(text), unquote(text), json.dumps(text)[1:-1], repr(text)[1:-1])
        if len(form) >= _SHORTEST
    }
    if not forms:
        return lambda text: text
    # The longest first: a whole address before the token inside it.
    pattern = re.compile("|".join(map(re.escape, sorted(forms, key=lambda form: (-len(form), form)))))
    return lambda text: pattern.sub("***", text)


def printable(text: str) -> str:
    """Text from outside, safe for a terminal and for a log of lines: control characters are written as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def printable_json(text: str) -> str:
    """JSON text that means the same, safe for a terminal: what is not printable in its strings is escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else _escape(char) for char in text)


def _escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[index : index + 4]}" for index in range(0, len(units), 4))


def configure(
    settings: LogSettings,
    *,
    secrets: Iterable[str] = (),
    redact: Callable[[str], str] = str,
    stream: TextIO | None = None,
) -> None:
    """Send the log to ``stream`` (standard error), and nowhere else. Replaces what was configured before.

    What would go around it goes through it as well: warnings of Python, and exceptions that nobody caught.

    Args:
        secrets: texts of the configuration that are taken out.
        redact: takes out what else must not be told.
    """
    from triage.clock import monotonic  # noqa: PLC0415 - only the daemon writes a log, and this brings asyncio

    handler = CountingHandler(stream or sys.stderr, now=monotonic)
    handler.setFormatter((_Json if settings.format == "json" else _Text)())
    known = redactor(secrets)
    handler.addFilter(_Redact(lambda text: redact(known(text))))
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    # Below WARNING the first two write whole addresses with their tokens, and the others what tells nobody anything.
    for name in ("apprise", "urllib3", "watchfiles", "apscheduler"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def tell_repeats() -> None:
    """Say how often what was left out, so that the last line can be the last word."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, CountingHandler):
            handler.tell()


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is None or not issubclass(kind, Exception):
        sys.__excepthook__(kind, error or kind(), trace)
    else:
        logging.getLogger("triage").critical("a defect of triage", exc_info=(kind, error, trace))


def about(root: str, request_id: str = "") -> dict[str, str]:
    """The ``extra`` of a line about one envelope: ``lineage``, by which all lines about a task are found, and
    ``request`` where that is another one.
    """
    return {"lineage": root, "request": request_id} if request_id and request_id != root else {"lineage": root}


class _Redact(logging.Filter):
    """Takes secrets out of the message, the traceback and the extra fields. At the handler nothing goes around it."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self._redact(message_of(record)), None
        if record.exc_info:
            record.exc_text = self._redact(logging.Formatter().formatException(record.exc_info))
        if record.stack_info:
            record.stack_info = self._redact(record.stack_info)
        for name, value in _extras(record):
            if not isinstance(value, int | float | None):
                setattr(record, name, self._redact(str(value)))
        return True


def _extras(record: logging.LogRecord) -> list[tuple[str, object]]:
    return [(name, value) for name, value in vars(record).items() if name not in _OWN]


def _at(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Text(logging.Formatter):
    """``2026-01-02T03:04:05.678Z WARNING triage.consumer: message key=value``, then the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        extras = "".join(f" {name}={printable(str(value))}" for name, value in _extras(record))
        line = f"{_at(record)} {record.levelname} {record.name}: {printable(record.getMessage())}{extras}"
        return "\n".join(filter(None, (line, record.exc_text, record.stack_info)))


class _Json(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _at(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **dict(_extras(record)),
        }
        if trace := "\n".join(filter(None, (record.exc_text, record.stack_info))):
            line["exception"] = trace
        return printable_json(json.dumps(line, ensure_ascii=False))
