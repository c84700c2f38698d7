"""The templates of messages that rules name, or have in them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from triage.errors import Problem
from triage.rules.document import problem_at
from triage.rules.mistakes import Gathered, Mistake, Mistakes, did_you_mean, kind_of
from triage.rules.model import SourceText
from triage.rules.readers import NAME, read_text
from triage.templating.samples import check_template, form_of_file
from triage.templating.sandbox import FORMS, LONGEST_SOURCE, TemplateError

SUFFIX: Final = ".j2"

Inline = tuple[tuple[str, str], ...]
"""Forms of a message, each with its template."""


def read_template(value: Any) -> str | Inline:
    """``template`` of an alert: the name of a template beside the rules, or templates by the form of the message.

    Raises:
        Mistakes: it is none, or cannot be used for every message.
    """
    if not isinstance(value, dict):
        text = str(read_text(most=LONGEST_SOURCE, least=1)(value))
        return text if re.fullmatch(NAME, text, re.ASCII) else _inline({"text": text}, at=())
    return _inline(value)


def _inline(value: Mapping[Any, Any], *, at: tuple[str, ...] | None = None) -> Inline:
    found: list[tuple[str, str]] = []
    mistakes = Gathered()
    for form, source in value.items():
        path = (form,) if at is None else at
        if form not in FORMS:
            mistakes.append(Mistake(f"unknown key {str(form)[:60]!r}", did_you_mean(form, FORMS), path, key=True))
        elif not isinstance(source, str):
            mistakes.append(Mistake(f"expected a template, not {kind_of(source)}", "", path))
        else:
            try:
                check_template(source, form)
            except TemplateError as error:
                mistakes.append(Mistake(_said(error), _HINT, path, offset=_begin(source, error.line)))
            found.append((form, source))
    if mistakes or not found:
        raise Mistakes(mistakes or [Mistake("a template without text", f"one of {', '.join(FORMS)}")])
    return tuple(found)


_HINT: Final = "what templates can do: docs/reference/templates.md"


def _said(error: TemplateError) -> str:
    return f"the template cannot be used: {error.args[0]}"


def _begin(source: str, line: int) -> int:
    """The first character of a line that is no white space."""
    lines = source.splitlines(keepends=True)
    before = sum(map(len, lines[: max(line - 1, 0)]))
    rest = source[before:]
    return before + len(rest) - len(rest.lstrip())


def read_templates(sources: Sequence[SourceText]) -> tuple[dict[str, dict[str, str]], list[Problem]]:
    """The templates in files, by name and form, and what is wrong with them."""
    templates: dict[str, dict[str, str]] = {}
    problems: list[Problem] = []
    for source in sources:
        found = form_of_file(source.name)
        if found is None:
            hint = "NAME.txt.j2, NAME.md.j2 or NAME.html.j2"
            problems.append(Problem(source.name, 0, 0, "the name does not tell the form of its messages", hint))
            continue
        name, form = found
        templates.setdefault(name, {})[form] = source.text
        try:
            check_template(source.text, form)
        except TemplateError as error:
            problems.append(problem_at(source, _begin(source.text, error.line), _said(error), _HINT))
    return templates, problems
