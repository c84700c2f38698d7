"""Kinds of values that settings have, and what is wrong with those that are none."""

from __future__ import annotations

import ipaddress
import json
import re
from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, SecretStr
from pydantic_settings import NoDecode

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_FUNCTION = re.compile(
    r"(?:(?P<service>[A-Za-z0-9_-]{1,128})/)?(?P<name>[A-Za-z0-9_-]{1,128})(?:@(?P<qualifier>[A-Za-z0-9_-]{1,128}))?"
)
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhdw]))+")


def parse_duration(value: Any) -> timedelta:
    """Read ``"90s"``, ``"5m"``, ``"1h30m"``, ``"2d"``, or a number of seconds.

    Raises:
        ValueError: it is none of these, or negative, or longer than a timedelta can be.
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        text = value.strip()
        if _DURATION.fullmatch(text):
            parts = re.findall(r"([\d.]+)([a-z]+)", text)
            value = sum(float(number) * _UNITS[unit] for number, unit in parts)
        elif re.fullmatch(r"\d+(?:\.\d+)?", text):
            value = float(text)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 3e9:
        return timedelta(seconds=value)
    raise ValueError('expected a duration such as "90s", "5m", "2h", "1d" or a number of seconds')


def show_duration(value: timedelta) -> str:
    """Write a duration as `parse_duration` reads it: ``1h30m``."""
    rest = round(value.total_seconds() * 1000)
    text = ""
    for unit, size in (("d", 86400000), ("h", 3600000), ("m", 60000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected an http:// or https:// address")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("an address takes no user name, query or fragment; keys belong under [credentials]")
    return value.rstrip("/")


def optional_url(value: str) -> str:
    """A web address, or nothing."""
    return _url(value) if value else ""


def text_lines(value: Any) -> Any:
    """One text, or one per line (a secret file), or JSON (an environment variable)."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("expected a JSON list of texts") from None
    return [line.strip() for line in value.splitlines() if line.strip()]


def listen_address(value: str) -> str:
    """Check an address to listen on; empty is none."""
    if value:
        try:
            host_and_port(value)
        except ValueError:
            raise ValueError('expected an IP address or localhost and a port, such as "127.0.0.1:8020"') from None
    return value


def host_and_port(value: str) -> tuple[str, int]:
    """Host and port. Names but ``localhost`` are refused: whether one is loopback would depend on who resolves it."""
    parts = urlsplit(f"//{value}")
    host, port = parts.hostname, parts.port
    if not host or port is None or parts.netloc != value or "@" in value:
        raise ValueError(value)
    if host != "localhost":
        ipaddress.ip_address(host)
    return host, port


def bearer_token(value: SecretStr) -> SecretStr:
    """Refuse a token that is too short, or that a header cannot carry."""
    text = value.get_secret_value()
    if text and not re.fullmatch(r"[A-Za-z0-9._~+/-]{16,}=*", text):
        raise ValueError("expected at least 16 letters, digits or '.', '_', '~', '+', '/', '-'")
    return value


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", value):
        raise ValueError("a name is 1 to 128 letters, digits, '_', '-' or '.', and begins with a letter or digit")
    return value


def smq_queue_name(value: str) -> str:
    """Check the name of an SMQ queue."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,119}", value):
        raise ValueError("a queue's name is 1 to 120 letters, digits or '-', and begins with a letter or digit")
    return value


def function_name(value: str) -> str:
    """Check the name of a function, as `read_function` reads it."""
    if not _FUNCTION.fullmatch(value):
        raise ValueError("expected NAME, SERVICE/NAME, or either with @QUALIFIER")
    return value


def read_function(value: str) -> dict[str, str]:
    """Service (may be empty), name and qualifier (may be empty) of a configured function."""
    found = _FUNCTION.fullmatch(value)
    return {} if found is None else {key: text or "" for key, text in found.groupdict().items()}


def _positive(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("must be longer than 0s")
    return value


def long_poll(value: timedelta) -> timedelta:
    """Refuse a wait that the service does not offer."""
    if value > timedelta(seconds=30):
        raise ValueError("must be at most 30s")
    return value


def not_empty(value: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse an empty list."""
    if not value:
        raise ValueError("needs at least one")
    return value


def lower_case(value: Any) -> Any:
    """Take a word in any case."""
    return value.lower() if isinstance(value, str) else value


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration, json_schema_input_type=str | float),
    PlainSerializer(show_duration),
]
Positive = Annotated[Duration, AfterValidator(_positive)]
Url = Annotated[str, AfterValidator(_url)]
Name = Annotated[str, AfterValidator(_name)]
Address = Annotated[SecretStr, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], NoDecode, BeforeValidator(text_lines)]
