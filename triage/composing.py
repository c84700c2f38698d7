"""Writes the messages of the daemon, as its rules, receivers and settings want them at that moment.

The first of these that can be made is sent: the rule's own template, that of the receiver, the built-in text, and what
is known, by name. A template that fails is counted and logged, and the message says so; it is never lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

from triage.alerts.compose import Texts, built_in, extended
from triage.alerts.fields import bare, fields_of
from triage.alerts.links import DEFAULT_SITES, Sites
from triage.alerts.message import Message, message_of
from triage.alerts.render import Format, converted, render
from triage.alerts.wording import printable
from triage.changes import GroupView
from triage.progress import Work
from triage.rules.model import RuleSet
from triage.templating.sandbox import TemplateError, own_template

log = logging.getLogger(__name__)

_NOTHING: Final = RuleSet((), "")
_LONGEST_TITLE: Final = 160


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
        rule = next((each for each in rules.rules if each.id == rule_id), None) if rule_id else None
        wanted = rule.alert.template if rule and rule.alert else ""
        if isinstance(wanted, tuple):
            yield f"of rule {rule_id}", dict(wanted)
        for name in filter(None, (wanted if isinstance(wanted, str) else "", self._templates.get(receiver, ""))):
            yield name, rules.templates.get(name, {})


def drawn(message: Message, template: Mapping[str, str], receiver: str, forms: Collection[Format]) -> Texts:
    """A message as a template has it. Forms that it does not have are made of its plain text, or built in.

    Raises:
        TemplateError: it cannot be used for this message.
    """
    if not template:
        raise TemplateError("there is none of that name beside the rules")
    values = fields_of(message, receiver)
    titles: list[str] = []
    texts: dict[Format, str] = {}
    for form in (each for each in Format if each in template):
        if form in forms or form is Format.TEXT or Format.TEXT not in template:
            done = own_template(template[form], form).draw(values)
            texts[form] = done.text
            titles += [done.title] if done.title else []
    plain = texts.get(Format.TEXT)
    text = plain or texts.get(Format.MARKDOWN) or render(message, Format.TEXT)
    rich: dict[Format, str] = {
        form: texts.get(form) or (render(message, form) if plain is None else converted(plain, form))
        for form in forms
        if form is not Format.TEXT
    }
    return Texts(_titled(titles[0], message) if titles else message.title, text, rich)


def _titled(title: str, message: Message) -> str:
    """A title of one's own. The code is in it in any case: by that a repeat is known."""
    line = printable(title, _LONGEST_TITLE)
    return line if message.code in line else f"{line} #{message.code}"


def _noted(texts: Texts, notes: Collection[str]) -> Texts:
    payload: dict[str, Any] = texts.payload
    for note in notes:
        payload = extended(payload, note)
    forms = {Format(form): text for form, text in payload.get("forms", {}).items()}
    return Texts(texts.title, payload["body"], forms) if notes else texts
