"""Messages as text, Markdown and HTML, from one list of lines. Pure.

Markdown has as many dialects as there are services that take it: texts from outside stand in code spans, where none of
them sees marks, links or names to call, and nothing has to be escaped.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from triage.alerts.message import Message, Run, Sample, message_of
from triage.alerts.wording import Format, instant, printable
from triage.rules.model import Severity
from triage.templating.marks import code_span, escaped, named_link
from triage.views import GroupView

__all__ = ["Format", "body", "converted", "fitting", "instant", "lines", "printable", "render", "title"]


class Kind(StrEnum):
    """What a line is."""

    QUOTE = "quote"  # what the function said
    FACT = "fact"
    ITEM = "item"  # below the fact before it
    PART = "part"  # below the item before it
    COMMAND = "command"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a message. ``code`` is a text from outside that it begins with."""

    kind: Kind
    label: str
    text: str
    code: str = ""


def title(view: GroupView, code: str) -> str:
    """The title of a message about what waits in a group."""
    return message_of(view, code).title


def body(view: GroupView) -> str:
    """The message below the title as plain text, one fact a line."""
    return render(message_of(view, ""), Format.TEXT)


def render(message: Message, form: Format) -> str:
    """The message below its title."""
    return _DRAW[form](message, list(lines(message)))


def lines(message: Message) -> Iterator[Line]:
    """The message below its title, the most telling first: a lock screen shows two lines, a watch one."""
    if message.error:
        yield Line(Kind.QUOTE, "Error", "", message.error)
    yield Line(Kind.FACT, "Count", _counted(message))
    yield from _sums(message)
    for each in message.outcomes:
        yield Line(Kind.FACT, "Outcome", f"{each.count:,} of {message.count:,} {each.ended}; {each.tried}")
    for step in message.steps:
        yield Line(Kind.COMMAND, step.label, "", step.command)
    if message.runbook:
        yield Line(Kind.LINK, "Runbook", message.runbook)
    if message.samples:
        yield Line(Kind.FACT, "Newest", "")
    for sample in message.samples:
        yield Line(Kind.ITEM, "", _sample(sample), sample.request_id)
        for run in sample.runs:
            yield Line(Kind.PART, "", _run(run), run.request_id)
    if (more := message.count - len(message.samples)) > 0 and message.samples:
        yield Line(Kind.ITEM, "", f"… and {more:,} more")
    yield Line(Kind.FACT, "Severity", message.severity)
    if message.owner or message.rule:
        yield Line(Kind.FACT, "Owner", "" if message.owner else "(nobody)", message.owner)
    if message.rule:
        yield Line(Kind.FACT, "Rule", "", message.rule)
    for link in message.links:  # last, since an address may fill half a phone
        yield Line(Kind.LINK, link.label, link.url)


def _sums(message: Message) -> Iterator[Line]:
    if message.ended:
        yield Line(Kind.FACT, "Resolved", message.ended)
    if len(message.accounts) > 1 or sum(message.accounts.values()) > message.count:
        parts = " + ".join(f"{number:,} {account}" for account, number in message.accounts.items())
        yield Line(Kind.FACT, "In all", f"{sum(message.accounts.values()):,} = {parts}")
    elif message.sums and not message.ended:
        yield Line(Kind.FACT, "Before", ", ".join(f"{number:,} {what}" for what, number in message.sums.items()))


def _counted(message: Message) -> str:
    since = f" since {instant(message.first_at)}" if message.first_at else ""
    last = message.last_at if message.last_at != message.first_at else None
    return f"{message.count:,}{since}{f', last {instant(last)}' if last else ''}"


def _sample(sample: Sample) -> str:
    tried = f", re-run {sample.attempts} time{'s' if sample.attempts > 1 else ''}" if sample.attempts else ""
    detail = f" — {sample.detail}" if sample.detail else ""
    return f" at {instant(sample.at)}{tried}{detail}"


def _run(run: Run) -> str:
    what = f"re-run {run.number}" if run.number else "first run"
    origin = f" ({run.origin})" if run.origin else ""
    at = f" at {instant(run.at)}" if run.at else ""
    return f" {what}{origin}: {run.result}{at}{f': {run.detail}' if run.detail else ''}"


# ---------------------------------------------------------------- the three forms


def _text(_message: Message, drawn: Sequence[Line]) -> str:
    return "\n".join(_text_line(each) for each in drawn)


def _text_line(line: Line) -> str:
    said = f"{line.code}{line.text}"
    if line.kind is Kind.PART:
        return f"    {said.lstrip()}"
    return f"  {said}" if line.kind is Kind.ITEM else f"{line.label}: {said}".rstrip()


def _markdown(_message: Message, drawn: Sequence[Line]) -> str:
    return "\n".join(_markdown_line(each) for each in drawn)


def _markdown_line(line: Line) -> str:
    said = f"{code_span(line.code)}{escaped(line.text)}" if line.kind is not Kind.LINK else named_link(line.text)
    match line.kind:
        case Kind.QUOTE:
            return f"> {said}\n"
        case Kind.ITEM:
            return f"    - {said}"
        case Kind.PART:
            return f"        - {said.lstrip()}"
    return f"- **{line.label}:** {said}".rstrip()


_PAGE: Final = (
    "font-family:-apple-system,'Segoe UI',Roboto,sans-serif;font-size:15px;line-height:1.5;padding-left:12px;"
    "overflow-wrap:anywhere"
)
_CODE: Final = "font-family:ui-monospace,Menlo,Consolas,monospace;font-size:13px;overflow-wrap:anywhere"
_COLOURS: Final = {Severity.CRITICAL: "#c62828", Severity.WARNING: "#ef8f00"}
_SHOWN: Final = 44
"""Characters of an address that a link shows."""


def _html(message: Message, drawn: Sequence[Line]) -> str:
    colour = _COLOURS.get(Severity(message.severity), "#5f6b7a")
    inside = "\n".join(_html_line(each) for each in drawn)
    return f'<div style="{_PAGE};border-left:4px solid {colour}">\n{inside}\n</div>'


def _html_line(line: Line) -> str:
    code = f'<code style="{_CODE}">{html.escape(line.code)}</code>' if line.code else ""
    said = f"{code}{html.escape(line.text)}"
    match line.kind:
        case Kind.QUOTE:
            return f'<p style="margin:0 0 8px"><b>{said}</b></p>'
        case Kind.ITEM:
            return f'<div style="padding-left:12px">{said}</div>'
        case Kind.PART:
            return f'<div style="padding-left:28px">{said}</div>'
        case Kind.LINK:
            said = f'<a href="{said}">{html.escape(printable(line.text, _SHOWN))}</a>'
    return f"<div><b>{html.escape(line.label)}:</b> {said}</div>"


_DRAW: Final[Mapping[Format, Callable[[Message, Sequence[Line]], str]]] = {
    Format.TEXT: _text,
    Format.MARKDOWN: _markdown,
    Format.HTML: _html,
}


# ---------------------------------------------------------------- for what takes no more than so much


def converted(text: str, form: Format) -> str:
    """Plain text in another form, line by line."""
    return "".join(_convert(each, form) for each in text.split("\n")).rstrip(_ENDS[form])


_ENDS: Final = {Format.TEXT: "\n", Format.MARKDOWN: " \n", Format.HTML: "\n"}


def _convert(line: str, form: Format) -> str:
    if form is Format.HTML:
        indent = len(line) - len(line.lstrip(" "))
        return f"{'&nbsp;' * indent}{html.escape(line[indent:])}<br>\n"
    return f"{escaped(line)}  \n" if form is Format.MARKDOWN else f"{line}\n"


def fitting(text: str, form: Format, limit: int) -> str:
    """As many lines of a plain text as have room, in another form, and that there were more."""
    whole = converted(text, form)
    if len(whole) <= limit:
        return whole
    tail = _convert("… and more: see triage failures list", form)
    kept: list[str] = []
    room = limit - len(tail)
    for each in text.split("\n"):
        line = _convert(each, form)
        if len(line) > room:
            break
        kept.append(line)
        room -= len(line)
    return f"{''.join(kept)}{tail}".rstrip(_ENDS[form])
