"""Hours of the week as settings give them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from triage.rules.windows import Hours

_MONDAY: Final = datetime(2026, 1, 5, tzinfo=UTC)


def hours_of_week(hours: Sequence[str], days: Sequence[str], zone: str, *, prefix: str = "") -> Hours | None:
    """Hours of days of the week, as clocks in a zone show them; None when neither hours nor days are given.

    Raises:
        ValueError: one cannot be read, or they have no end. ``prefix`` is that of their keys.
    """
    from triage.rules.mistakes import Mistakes  # noqa: PLC0415 - regular expressions are slow to import
    from triage.rules.windows import Hours, read_days, read_hours, read_zone, window_of  # noqa: PLC0415

    values = {}
    for key, text, read in (
        ("hours", list(hours), read_hours),
        ("days", list(days), read_days),
        ("zone", zone, read_zone),
    ):
        if text:
            try:
                values[key] = read(text)
            except Mistakes as error:
                raise ValueError(f"{prefix}{key}: {error}") from None
    if not (hours or days):
        return None
    window = window_of(values)
    assert isinstance(window, Hours)  # noqa: S101 - it has no `from`
    if window.contains(_MONDAY) and window.turn(_MONDAY) is None:
        raise ValueError(f"{prefix}hours: they have no end; what waits would never be told")
    return window
