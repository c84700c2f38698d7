"""The settings of maintenance that comes again."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from triage.alerts.maintenance import Maintenance
from triage.settings.group import Group
from triage.settings.hours import hours_of_week
from triage.settings.receivers import Texts
from triage.settings.values import Name, Names, not_empty


def _match(value: dict[str, Any]) -> dict[str, Any]:
    from triage.rules.alertmatch import read_match  # noqa: PLC0415 - regular expressions are slow to import
    from triage.rules.mistakes import Mistakes  # noqa: PLC0415

    try:
        return read_match(value)
    except Mistakes as error:
        told = (f"{each.message} ({each.hint})" if each.hint else each.message for each in error.mistakes)
        raise ValueError("; ".join(told)) from None


class MaintenanceSettings(Group):
    """Maintenance that comes again. In its hours what matches is silenced, and told in one message at their end."""

    name: Name
    """What it is called: its silences are by ``maintenance NAME``."""
    match: Annotated[dict[str, Any], AfterValidator(_match)]
    """What an alert must have, by label, such as ``{function = "img-*"}``; labels and values as in ``triage silence``,
    a list for any of several."""
    hours: Annotated[Texts, AfterValidator(not_empty)]
    """When, such as ``02:00-04:00``, or ``22:00-06:00``, which ends the next day. ``00:00-24:00`` = the whole day."""
    days: Texts = ()
    """Days of the week, such as ``sun`` or ``mon-fri``. Empty = all."""
    zone: str = "UTC"
    """Time zone of hours and days, such as ``Asia/Shanghai``: as its clocks show them, also when these are changed."""
    reason: Annotated[str, Field(min_length=1)]
    """Why; kept with each silence."""
    to: Names = ()
    """Receivers that hear of its end, beside those that alerts were kept from."""

    @property
    def maintenance(self) -> Maintenance:
        """The same, as it is looked after."""
        hours = hours_of_week(self.hours, self.days, self.zone)
        assert hours is not None  # noqa: S101 - they are not empty
        return Maintenance(self.name, self.match, hours, self.reason, self.to)

    @model_validator(mode="after")
    def _has_hours(self) -> MaintenanceSettings:
        assert self.maintenance  # noqa: S101 - raises what is wrong
        return self
