"""Messages as templates have them: a rule's own, or a receiver's. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from triage.alerts.compose import Texts
from triage.alerts.fields import fields_of
from triage.alerts.message import Message
from triage.alerts.render import Format, converted, render
from triage.alerts.wording import printable
from triage.rules.model import RuleSet
from triage.templating.sandbox import TemplateError, own_template

_LONGEST_TITLE: Final = 160


def template_of(rules: RuleSet, rule_id: str) -> tuple[str, Mapping[str, str]] | None:
    """The name and the forms of the template that a rule wants for its alerts; None when it wants none."""
    rule = next((each for each in rules.rules if each.id == rule_id), None) if rule_id else None
    wanted = rule.alert.template if rule and rule.alert else ""
    if isinstance(wanted, tuple):
        return f"of rule {rule_id}", dict(wanted)
    return (wanted, rules.templates.get(wanted, {})) if wanted else None


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
