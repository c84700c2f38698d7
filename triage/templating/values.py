"""What becomes of values in a message: texts that are harmless in its form. Imported only with a template. Pure."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import Final

from jinja2 import Undefined
from markupsafe import Markup

from triage.templating.marks import bare_link, code_span, escaped
from triage.templating.sandbox import TemplateError


class Marked(str):
    """Markdown, made by a filter: nothing in it is escaped any more."""

    __slots__ = ()


def plain_text(value: object) -> str:
    """A value as text: no list, and nothing of which only the program knows what it is."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float | Undefined):
        return str(value)  # of what is not there: says so
    raise TemplateError("a list or a mapping is no text: pick a value, or use a loop")


def in_markdown(value: object) -> str:
    """With its marks taken out, unless a filter has made them."""
    return value if isinstance(value, Marked) else escaped(plain_text(value))


def as_code(form: str) -> Callable[[object], str]:
    """The filter ``code``: a text from outside as code."""
    made: Mapping[str, Callable[[object], str]] = {
        "text": plain_text,
        "markdown": lambda value: Marked(code_span(" ".join(plain_text(value).split()))),
        "html": lambda value: Markup(f"<code>{html.escape(plain_text(value))}</code>"),  # noqa: S704 - escaped
    }
    return made[form]


def as_link(form: str) -> Callable[[object], str]:
    """The filter ``link``: a web address as a link. What is none stays a text."""

    def link(value: object) -> str:
        url = plain_text(value)
        if form == "text" or not url.startswith(("https://", "http://")):
            return url
        if form == "markdown":
            return Marked(bare_link(url))
        safe = html.escape(url)
        return Markup(f'<a href="{safe}">{safe}</a>')  # noqa: S704 - escaped

    return link


def in_html(value: object) -> str:
    """Jinja2 escapes it, unless a filter has made it."""
    return value if isinstance(value, Markup) else plain_text(value)


IN_FORM: Final[Mapping[str, Callable[[object], str]]] = {
    "text": plain_text, "markdown": in_markdown, "html": in_html,
}  # fmt: skip
"""What becomes of a value where a template shows it, by the form of the message."""
