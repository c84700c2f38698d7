"""Spans of time that rules can name: business hours in a time zone, and maintenance with a beginning and an end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from triage.rules.mistakes import Mistake, Mistakes, did_you_mean, kind_of, wrong
from triage.rules.readers import list_of, read_text

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MINUTES: Final = 24 * 60
_MINUTE: Final = timedelta(minutes=1)
_LOOK_AHEAD: Final = 15 * _MINUTES
"""Minutes: daylight saving may leave out an hour of a week, and then it is the next week's."""


@dataclass(frozen=True, slots=True)
class Hours:
    """Hours of days of the week, as clocks in ``zone`` show them.

    ``spans`` are minutes since midnight, the end not included; one that ends before it begins goes on the next day.
    """

    days: frozenset[int]
    spans: tuple[tuple[int, int], ...]
    zone: ZoneInfo

    def contains(self, now: datetime) -> bool:
        """Whether ``now`` is inside."""
        local = now.astimezone(self.zone)
        minute, day = local.hour * 60 + local.minute, local.weekday()
        for start, end in self.spans:
            if start < end:
                inside = start <= minute < end and day in self.days
            else:
                inside = (minute >= start and day in self.days) or (minute < end and (day - 1) % 7 in self.days)
            if inside:
                return True
        return False

    def turn(self, now: datetime) -> datetime | None:
        """When they next end, or begin if ``now`` is outside; None when that never happens."""
        inside, at = self.contains(now), now.replace(second=0, microsecond=0)
        # By the minute, as clocks in that zone show them: whatever daylight saving does that night.
        for _ in range(_LOOK_AHEAD):
            at += _MINUTE
            if self.contains(at) is not inside:
                return at
        return None


@dataclass(frozen=True, slots=True)
class Period:
    """From one instant until another, which is not included."""

    start: datetime
    end: datetime

    def contains(self, now: datetime) -> bool:
        """Whether ``now`` is inside."""
        return self.start <= now < self.end


Window = Hours | Period

NEVER: Final = Period(datetime.max.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


def window_of(values: Mapping[str, Any]) -> Window:
    """A window from the values of its keys, as read.

    Raises:
        Mistakes: they do not go together.
    """
    zone = values.get("zone", ZoneInfo("UTC"))
    hours = [key for key in ("days", "hours") if key in values]
    if "from" in values or "until" in values:
        if hours:
            raise Mistakes([Mistake(f"a period has no {hours[0]}", "name two windows", (hours[0],), key=True)])
        for key in ("from", "until"):
            if key not in values:
                raise wrong(f"the key {key!r} is missing", "a period has from and until")
        start, end = (_aware(values[key], zone) for key in ("from", "until"))
        if end <= start:
            raise wrong("the period ends before it begins", path=("until",))
        return Period(start, end)
    if not hours:
        raise wrong("the window says no time", "days and hours, or from and until")
    days = values.get("days", (frozenset(range(7)),))
    return Hours(frozenset().union(*days), values.get("hours", ((0, _MINUTES),)), zone)


def _aware(at: datetime, zone: ZoneInfo) -> datetime:
    return (at if at.tzinfo else at.replace(tzinfo=zone)).astimezone(UTC)


def _days(value: Any) -> frozenset[int]:
    text = read_text(least=1)(value)
    first, dash, last = text.partition("-")
    for name in (first, last) if dash else (first,):
        if name not in DAYS:
            raise wrong(f"{name!r} is no day", did_you_mean(name, DAYS))
    start, end = DAYS.index(first), DAYS.index(last if dash else first)
    return frozenset((start + step) % 7 for step in range((end - start) % 7 + 1))


_SPAN: Final = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)", re.ASCII)


def _span(value: Any) -> tuple[int, int]:
    found = _SPAN.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise wrong(f"expected hours, not {kind_of(value)}", 'such as "09:00-18:00", in quotes')
    start, end = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])
    if int(found[2]) > 59 or int(found[4]) > 59 or start >= _MINUTES or end > _MINUTES:
        raise wrong(f"there is no such time in {value}", "00:00 to 24:00")
    if start == end:
        raise wrong(f"{value} is no time at all", "leave `hours` out for the whole day")
    return start, end


read_days: Final = list_of(_days)
read_hours: Final = list_of(_span)


def read_zone(value: Any) -> ZoneInfo:
    """A time zone by its name in the IANA database."""
    name = read_text(least=1)(value)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise wrong(f"unknown time zone {name!r}", "such as Asia/Shanghai or UTC") from None


def read_moment(value: Any) -> datetime:
    """An instant, or a day for its beginning; without an offset it is meant in the window's zone."""
    text = read_text(least=1)(value)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise wrong(f"expected a time, not {kind_of(text)}", 'such as "2026-03-01T22:00" or "2026-03-01"') from None
