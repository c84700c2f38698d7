"""What of a group is told to a receiver, as texts. They are made once, when the group is flushed, and kept with the
notification: what is sent after a crash, and what is looked at later, is what was sent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from triage.alerts.links import DEFAULT_SITES, Sites
from triage.alerts.message import message_of
from triage.alerts.render import Format, converted, render
from triage.views import GroupView


@dataclass(frozen=True, slots=True)
class Texts:
    """A message as it is sent. ``body`` is plain text; ``forms`` has it for receivers that can show more than that."""

    title: str
    body: str
    forms: Mapping[Format, str] = field(default_factory=dict)

    @property
    def payload(self) -> dict[str, Any]:
        """The same as JSON, for the notification's row."""
        forms = {"forms": dict(self.forms)} if self.forms else {}
        return {"title": self.title, "body": self.body, **forms}


Compose = Callable[[GroupView, str, str], Texts]
"""What a receiver is told of what waits in a group: group, short code, receiver. Raises nothing."""


def built_in(
    view: GroupView,
    code: str,
    receiver: str = "",
    *,
    forms: Collection[Format] = (),
    sites: Sites = DEFAULT_SITES,
) -> Texts:
    """The built-in texts. ``forms``: those that the receiver can show."""
    del receiver  # all are told the same
    message = message_of(view, code, sites=sites)
    rich: dict[Format, str] = {form: render(message, form) for form in sorted(forms) if form is not Format.TEXT}
    return Texts(message.title, render(message, Format.TEXT), rich)


def headed(payload: Mapping[str, Any], word: str, note: str) -> dict[str, Any]:
    """The payload of a notification with a word before its title, and a note in plain text above every form."""
    more: dict[str, Any] = {"title": f"{word}: {payload['title']}", "body": f"{note}\n\n{payload['body']}"}
    if forms := payload.get("forms"):
        more["forms"] = {form: f"{converted(note, Format(form))}\n\n{text}" for form, text in forms.items()}
    return {**payload, **more}


def extended(payload: Mapping[str, Any], note: str) -> dict[str, Any]:
    """The payload of a notification with a note of ours, in plain text, below the message in every form."""
    more: dict[str, Any] = {"body": f"{payload['body']}\n\n{note}"}
    if forms := payload.get("forms"):
        more["forms"] = {form: f"{text}\n\n{converted(note, Format(form))}" for form, text in forms.items()}
    return {**payload, **more}
