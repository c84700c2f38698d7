"""What a service of apprise is sent: the form of the message that it shows best, cut to what it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from triage.alerts.render import Format, converted, fitting

_MARKS: Final = 64
"""Characters that apprise may add to a title where it has to stand above the text."""


def form_of(service: Any, wanted: Format | None = None) -> Format:
    """What a service shows: ``?format=`` in its address, else what is wanted if it can, else what it likes best."""
    return Format(service.resolve_format(None if wanted is None else str(wanted)).value)


def shown(
    service: Any, title: str, body: str, forms: Mapping[str, str], wanted: Format | None = None
) -> tuple[str, Format]:
    """The text for a service, and its form. What is too long for it is cut at the end of a line, and says so.

    Args:
        body: the message as plain text.
        forms: the same in other forms.
    """
    form = form_of(service, wanted)
    text = forms.get(form) or converted(body, form)
    room = int(service.body_maxlen) - 2 * len(title) - _MARKS
    return (text if len(text) <= room else fitting(body, form, room)), form
