"""Writes the messages of the daemon, as its rules, receivers and settings want them at that moment.

The first of these that can be made is sent: the rule's own template, that of the receiver, the built-in text, and what
is known, by name. A template that fails is counted and logged, and the message says so; it is never lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

from triage.alerts.compose import Texts, built_in, extended
from triage.alerts.drawing import drawn, template_of
from triage.alerts.fields import bare
from triage.alerts.links import DEFAULT_SITES, Sites
from triage.alerts.message import message_of
from triage.alerts.render import Format
from triage.progress import Work
from triage.rules.model import RuleSet
from triage.templating.sandbox import TemplateError
from triage.views import GroupView

log = logging.getLogger(__name__)

_NOTHING: Final = RuleSet((), "")


class Composer:
    """A `triage.alerts.compose.Compose`. It is called in the thread that writes to the store."""

    def __init__(
        self,
        *,
        forms: Callable[[str], Collection[Format]],
        rules: Callable[[], RuleSet] = lambda: _NOTHING,
        templates: Mapping[str, str] | None = None,
        sites: Sites = DEFAULT_SITES,
        work: Work | None = None,
    ) -> None:
        """``forms`` tells what a receiver can show beside plain text; ``rules`` is the set in force, ``templates`` has
        the names of receivers' own templates.
        """
        self._forms, self._rules, self._templates, self._sites = forms, rules, templates or {}, sites
        self._work = work or Work()

    def use(self, *, sites: Sites, templates: Mapping[str, str]) -> None:
        """Write like this from now on."""
        self._sites, self._templates = sites, templates

    def check(self) -> None:
        """Log which receivers' templates are not beside the rules in force. Their messages are built in, and say so."""
        for receiver, name in self._templates.items():
            if name not in self._rules().templates:
                log.warning("receiver %s: no template %s stands beside the rules: triage config check", receiver, name)

    def __call__(self, view: GroupView, code: str, receiver: str) -> Texts:
        forms = sorted({Format.TEXT, *self._forms(receiver)})
        failed: list[str] = []
        try:
            message = message_of(view, code, sites=self._sites)
            for name, template in self._own(message.rule, receiver):
                try:
                    return _noted(drawn(message, template, receiver, forms), failed)
                except TemplateError as error:
                    failed.append(f"Template {name} could not be used for this message: {error}")
                    self._work.templates[name] += 1
                    log.warning("receiver %s: #%s: template %s: %s", receiver, code, name, error)
            return _noted(built_in(view, code, forms=forms, sites=self._sites), failed)
        except Exception:  # the last resort: whatever keeps a message from being written must not lose it
            log.exception("receiver %s: #%s: a defect of triage; it is told with what is known", receiver, code)
            title, text = bare(view, code)
            return Texts(title, text)

    def _own(self, rule_id: str, receiver: str) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Names and templates, by form, of what is to be tried."""
        rules = self._rules()
        if (of_rule := template_of(rules, rule_id)) is not None:
            yield of_rule
        if name := self._templates.get(receiver, ""):
            yield name, rules.templates.get(name, {})


def _noted(texts: Texts, notes: Collection[str]) -> Texts:
    payload: dict[str, Any] = texts.payload
    for note in notes:
        payload = extended(payload, note)
    forms = {Format(form): text for form, text in payload.get("forms", {}).items()}
    return Texts(texts.title, payload["body"], forms) if notes else texts
