"""Readers of single values in YAML files: each takes what stands there and gives the value, or raises `Mistakes`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta
from typing import Any, Final

from triage.rules.mistakes import Gathered, Mistake, Mistakes, did_you_mean, kind_of, wrong

Read = Callable[[Any], Any]

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION: Final = r"(\d{1,9}(?:\.\d{1,3})?)\s?(ms|s|m|h|d)"
PERCENT: Final = r"\d{1,3}(?:\.\d{1,2})?\s?%"
NAME: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"
LONGEST: Final = timedelta(days=366)
NEVER: Final = "never"
"""Stands where a duration may, for none at all."""


def parse_duration(value: Any) -> timedelta:
    """Read ``90s``, ``5m``, ``2h``, ``1d`` or a sum of them, ``1h30m``.

    Raises:
        Mistakes: it is no such text, or longer than a year.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise wrong(f"the number {value} has no unit", f"write {value}s, {value}m, {value}h or {value}d")
    if not isinstance(value, str) or not re.fullmatch(rf"(?:{DURATION}\s?)+", value, re.ASCII):
        raise wrong(f"expected a duration, not {kind_of(value)}", "such as 90s, 5m, 2h, 1d or 1h30m")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(DURATION, value, re.ASCII))
    if seconds > LONGEST.total_seconds():
        raise wrong(f"{value} is longer than {LONGEST.days} days")
    return timedelta(seconds=seconds)


def show_duration(value: timedelta) -> str:
    """A duration as `parse_duration` reads it: ``1h30m``."""
    rest, text = round(value.total_seconds() * 1000), ""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def positive(value: Any) -> timedelta:
    """A duration longer than nothing."""
    duration = parse_duration(value)
    if not duration:
        raise wrong("expected more than nothing", "such as 90s, 5m, 2h, 1d")
    return duration


def positive_or_never(value: Any) -> timedelta | None:
    """A duration longer than nothing, or None for `NEVER`."""
    return None if value == NEVER else positive(value)


def read_date(value: Any) -> date:
    """A day, ``2026-03-31``."""
    try:
        if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
            return date.fromisoformat(value)
    except ValueError:
        raise wrong(f"there is no day {value}") from None
    raise wrong(f"expected a date, not {kind_of(value)}", "such as 2026-03-31")


def whole(least: int, most: int) -> Read:
    """A whole number within bounds."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise wrong(f"expected a whole number from {least} to {most}, not {kind_of(value)}")
        return value

    return read


def number(least: float, most: float) -> Read:
    """A number within bounds."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise wrong(f"expected a number from {least:g} to {most:g}, not {kind_of(value)}")
        return float(value)

    return read


def read_flag(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise wrong(f"expected true or false, not {kind_of(value)}")
    return value


def read_text(*, most: int = 200, least: int = 0) -> Read:
    """A text of ``least`` to ``most`` characters, white space around it not counted for the former."""

    def read(value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # a version, written without quotes
        if not isinstance(value, str):
            raise wrong(f"expected a text, not {kind_of(value)}", "put quotes around it" if value is not None else "")
        if len(value) > most:
            raise wrong(f"the text has {len(value)} characters; at most {most} are taken")
        if len(value.strip()) < least:
            raise wrong("expected a text, not an empty one")
        return value

    return read


def read_name(value: Any) -> str:
    """A name as rules and receivers have."""
    text: str = read_text()(value)
    if not re.fullmatch(NAME, text, re.ASCII):
        raise wrong(f"{kind_of(value)} is no name", "letters, digits, '_', '-' and '.', at most 100")
    return text


def read_link(value: Any) -> str:
    """A web address, or nothing."""
    text: str = read_text(most=2000)(value)
    # It becomes a link in a page: no javascript:.
    if text and not re.fullmatch(r"https?://\S+", text):
        raise wrong(f"{kind_of(value)} is no web address", "it starts with https:// or http://")
    return text


def one_of(options: Iterable[str]) -> Read:
    """One of a few words."""
    known = tuple(options)

    def read(value: Any) -> str:
        if value not in known:
            raise wrong(f"expected {' or '.join(known)}, not {kind_of(value)}", did_you_mean(value, known, listed=True))
        return str(value)

    return read


def read_percent(value: Any) -> float:
    """A share of more than nothing, written as ``20%``."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise wrong(f"the number {value} is no share", "write 20% for a fifth")
    if not isinstance(value, str) or not re.fullmatch(PERCENT, value, re.ASCII):
        raise wrong(f"expected a share, not {kind_of(value)}", "such as 20%")
    share = float(value.rstrip("%")) / 100
    if not 0 < share <= 1:
        raise wrong(f"{value} is not within 0.01% and 100%")
    return share


def list_of(item: Read, *, empty: str = "an empty list") -> Read:
    """A list, or a single item in place of one; what stands there twice counts once."""

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            return (item(value),)
        if not value:
            raise wrong(empty, "leave the key out for its default")
        items: dict[Any, None] = {}
        mistakes = Gathered()
        for index, each in enumerate(value):
            try:
                items[item(each)] = None
            except Mistakes as error:
                mistakes += [Mistake(found.message, found.hint, (index, *found.path)) for found in error.mistakes]
        if mistakes:
            raise Mistakes(mistakes)
        return tuple(items)

    return read


def read_labels(value: Any) -> dict[str, str]:
    """Names and texts."""
    if not isinstance(value, dict):
        raise wrong(f"expected a mapping of names to texts, not {kind_of(value)}")
    labels: dict[str, str] = {}
    for name, text in value.items():
        try:
            labels[read_name(name)] = read_text()(text)
        except Mistakes as error:
            raise Mistakes([Mistake(each.message, each.hint, (name,)) for each in error.mistakes]) from None
    return labels


def read_fields(value: Any, readers: Mapping[str, Read], *, needed: Mapping[str, str]) -> dict[str, Any]:
    """A mapping with a reader for each key; ``needed`` are those that must be there, with a hint each."""
    if not isinstance(value, dict):
        raise wrong(f"expected a mapping, not {kind_of(value)}")
    found: dict[str, Any] = {}
    mistakes = Gathered()
    for name, each in value.items():
        if name not in readers:
            mistakes.append(Mistake(f"unknown key {name[:60]!r}", did_you_mean(name, readers), (name,), key=True))
            continue
        try:
            found[name] = readers[name](each)
        except Mistakes as error:
            mistakes += [Mistake(one.message, one.hint, (name, *one.path)) for one in error.mistakes]
    mistakes += [Mistake(f"the key {name!r} is missing", hint) for name, hint in needed.items() if name not in value]
    if mistakes:
        raise Mistakes(mistakes)
    return found
