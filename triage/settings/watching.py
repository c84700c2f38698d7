"""The settings of what is told when nothing happens: heartbeat, silent functions and sources."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, SecretStr

from triage.alerts.watching import Watch
from triage.report import Digest
from triage.settings.group import Group
from triage.settings.values import Names, Positive, lower_case


def _address(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text and not text.startswith(("http://", "https://")):
        raise ValueError("expected an http:// or https:// address")
    return value


def _pattern(value: str) -> str:
    from triage.rules.mistakes import Mistakes  # noqa: PLC0415 - regular expressions are slow to import
    from triage.rules.values import function_name  # noqa: PLC0415

    if value:
        try:
            function_name(value)
        except Mistakes as error:
            raise ValueError(str(error)) from None
    return value


class HeartbeatSettings(Group):
    """The heartbeat: signs of life for somebody who raises an alarm when they stay away (a dead man's switch). They are
    only sent while every stage of the daemon gets on and its store can be written.
    """

    url: Annotated[SecretStr, AfterValidator(_address)] = SecretStr("")
    """Address that is asked with GET, such as that of a check at healthchecks.io. It may carry a token, so it is never
    shown. Empty = none."""
    to: Names = ()
    """Receivers that get a message instead, or as well."""
    every: Positive = timedelta(minutes=1)
    """From one sign of life to the next."""


class ArrivalSettings(Group):
    """Results that have to arrive. When none has for too long, somebody is told, and once more when they come again."""

    function: Annotated[str, AfterValidator(_pattern)] = ""
    """Which functions, as in ``match`` of a rule: any of them will do. Empty = all."""
    source: str = ""
    """Name of the source that they come from. Empty = any."""
    within: Positive = timedelta(hours=6)
    """How long nothing may come. Time in which the daemon did not run does not count."""
    to: Names = ("default",)
    """Receivers to tell."""
    severity: Annotated[Literal["info", "warning", "critical"], BeforeValidator(lower_case)] = "warning"
    """How bad that is."""

    @property
    def watch(self) -> Watch:
        """The same, as it is looked after."""
        from triage.rules.values import function_name  # noqa: PLC0415

        parts = [f"function {self.function}"] if self.function else []
        parts += [f"source {self.source}"] if self.source else []
        matches = function_name(self.function) if self.function else None
        return Watch(" of ".join(parts) or "all functions", self.within, self.to, self.severity, matches, self.source)


_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


def _time_of_day(value: str) -> str:
    if not _CLOCK.fullmatch(value):
        raise ValueError('expected a time of day such as "08:00"')
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"unknown time zone {value!r}, such as Asia/Shanghai or UTC") from None
    return value


class DigestSettings(Group):
    """The digest: the report of the last 24 hours (`triage report`), sent once a day."""

    to: Names = ()
    """Receivers that get it. Empty = nobody."""
    at: Annotated[str, AfterValidator(_time_of_day)] = "08:00"
    """When, as clocks in ``zone`` show it."""
    zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    """Time zone, such as ``Asia/Shanghai``."""

    @property
    def digest(self) -> Digest:
        """The same, as it is looked after."""
        hours, minutes = self.at.split(":")
        return Digest(self.to, timedelta(hours=int(hours), minutes=int(minutes)), ZoneInfo(self.zone))
