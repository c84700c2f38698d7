"""The settings of a receiver: where it is, what it wants to be told, and when."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, model_validator
from pydantic_settings import NoDecode

from triage.alerts.delivery import Fallback
from triage.alerts.render import Format
from triage.alerts.routing import Quiet, Rate, Route
from triage.rules.model import Severity
from triage.settings.group import Group
from triage.settings.hours import hours_of_week
from triage.settings.values import Address, Duration, Name, Positive, lower_case, not_empty, parse_duration, text_lines

_RATE = re.compile(r"(\d{1,4})/(.+)")


def _rate(value: str) -> str:
    if value:
        _read_rate(value)
    return value


def _read_rate(value: str) -> Rate:
    found = _RATE.fullmatch(value)
    if found is None or not 1 <= int(found[1]) <= 1000 or not (per := parse_duration(found[2])):
        raise ValueError('expected 1 to 1000 messages in a time, such as "10/1h"')
    return Rate(int(found[1]), per)


Texts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(text_lines)]


class ReceiverSettings(Group):
    """One receiver: whom rules name in ``alert.to``."""

    urls: Annotated[tuple[Address, ...], NoDecode, BeforeValidator(text_lines), AfterValidator(not_empty)]
    """Addresses in apprise's notation, all of them are told. ``console:`` prints to standard output. They carry tokens,
    so they are never shown."""
    timeout: Positive = timedelta(seconds=15)
    """Time limit of one delivery; after it the message may have arrived or not, and is tried again. ``?rto=`` in an
    address limits the wait for its answer, in seconds."""
    format: Annotated[Format | None, BeforeValidator(lower_case)] = None
    """``text``, ``markdown`` or ``html``: what is sent to those of its services that can show it. Unset = what each
    service shows best. ``?format=`` in an address counts more."""
    template: Name | Literal[""] = ""
    """Name of a template beside the rules, for messages whose rule has none of its own. Empty = the built-in text."""
    min_severity: Annotated[Literal["info", "warning", "critical"], BeforeValidator(lower_case)] = "info"
    """Least severity that it takes. What is below it, and would be told to nobody else, is told to it all the same."""
    quiet_hours: Texts = ()
    """When it is not to be disturbed, such as ``22:00-07:00``. What waits is told as one message at their end. Empty =
    never, unless ``quiet_days`` are given."""
    quiet_days: Texts = ()
    """Days of the quiet hours, such as ``mon-fri`` or ``sat``; without ``quiet_hours`` the whole days. Empty = all."""
    quiet_zone: str = "UTC"
    """Time zone of the quiet hours, such as ``Asia/Shanghai``."""
    quiet_critical: bool = True
    """Whether critical messages pass in quiet hours. ``false`` = they wait, too."""
    rate: Annotated[str, AfterValidator(_rate)] = ""
    """Most messages in a time, such as ``10/1h``. What is over it goes with the next message that may go, named and
    counted. Empty = no limit."""
    fallback: Name | Literal[""] = ""
    """Receiver that is told instead when this one could not be reached for ``fallback_after``. Empty = nobody."""
    fallback_after: Duration = timedelta(minutes=10)
    """How long it is tried alone; it is tried on after that. ``0s`` = the fallback is told after the first failure."""

    @property
    def route(self) -> Route:
        """The same, as messages go by."""
        return Route(
            floor=Severity(self.min_severity),
            quiet=self._quiet(),
            rate=_read_rate(self.rate) if self.rate else None,
            fallback=Fallback(self.fallback, self.fallback_after),
        )

    def _quiet(self) -> Quiet | None:
        hours = hours_of_week(self.quiet_hours, self.quiet_days, self.quiet_zone, prefix="quiet_")
        return Quiet(hours, self.quiet_critical) if hours is not None else None

    @model_validator(mode="after")
    def _quiet_is_time(self) -> ReceiverSettings:
        self._quiet()
        return self
