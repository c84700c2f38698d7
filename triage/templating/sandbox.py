"""A template: compiled once, drawn within limits that do not depend on the machine.

Jinja2's own sandbox keeps templates from what Python can reach. It does not keep them from taking for ever, or all the
memory. So only what a message needs is offered: values by their names, conditions, loops over what is there, sums of
numbers and texts, a few filters. All that repeats or grows is counted as it happens (`_Limits`), before it happens
where it could be large. There are no methods, no macros, no includes, and no literals inside of literals.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any, Final

FORMS: Final = ("text", "markdown", "html")
LONGEST_SOURCE: Final = 20_000
"""Characters of a template."""
LONGEST_TEXT: Final = 16_000
"""Characters of what it makes, and of any text on the way there."""
MOST_STEPS: Final = 20_000
"""Turns of loops, each counted with the parts of its body, and filters and sums by their size: some ten ms."""
MOST_NUMBERS: Final = 1_000
"""Numbers that ``range`` gives."""
_PIECE: Final = 50
"""Characters that count as a step."""


class TemplateError(Exception):
    """A template cannot be used, or not for this message. ``line`` is the one in its source, 0 if that is not known."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line

    def __str__(self) -> str:
        return f"line {self.line}: {self.args[0]}" if self.line else str(self.args[0])


class Silent(TemplateError):
    """It says nothing of this message."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a template makes: the text, and a title if it sets one."""

    text: str
    title: str = ""


class Open(dict[str, Any]):
    """Names that are open: one that is not there is ``missing``, and no mistake."""

    def __init__(self, values: Mapping[str, Any], missing: object) -> None:
        super().__init__(values)
        self.missing = missing


class Limits:
    """Counts what one drawing does."""

    def __init__(self) -> None:
        self.left = MOST_STEPS

    def begin(self) -> None:
        """Another drawing."""
        self.left = MOST_STEPS

    def spend(self, steps: int) -> None:
        """So many steps more.

        Raises:
            TemplateError: those were too many.
        """
        self.left -= steps
        if self.left < 0:
            raise TemplateError(f"it takes too long: more than {MOST_STEPS:,} steps")

    def text(self, size: int) -> None:
        """A text of this size is about to be made.

        Raises:
            TemplateError: it would be too long.
        """
        if size > LONGEST_TEXT:
            raise TemplateError(f"it makes a text of more than {LONGEST_TEXT:,} characters")
        self.spend(1 + size // _PIECE)


class OwnTemplate:
    """A compiled template, for one form of message. `own_template` makes it."""

    def __init__(self, source: str, form: str) -> None:
        """Compile ``source``.

        Raises:
            TemplateError: it cannot be compiled, or has in it what is not offered.
        """
        from jinja2 import TemplateSyntaxError  # noqa: PLC0415 - only where somebody has a template

        from triage.templating.environment import Environment  # noqa: PLC0415

        if len(source) > LONGEST_SOURCE:
            raise TemplateError(f"it has {len(source):,} characters; at most {LONGEST_SOURCE:,} are taken")
        self._limits, self._one_at_a_time = Limits(), Lock()
        environment = Environment(form, self._limits)
        try:
            self._template = environment.from_source(source)
        except TemplateSyntaxError as error:
            raise TemplateError(str(error.message), error.lineno) from None
        except TemplateError:
            raise
        except (RecursionError, MemoryError):
            raise TemplateError("it is nested too deeply") from None
        except Exception as error:  # noqa: BLE001 - the boundary of somebody else's text: whatever it does, it is told
            raise TemplateError(f"{type(error).__name__}: {error}") from None

    def draw(self, values: Mapping[str, Any]) -> Drawn:
        """The text for these values.

        Raises:
            TemplateError: it takes too long, makes too much or nothing, or asks for what is not there.
        """
        with self._one_at_a_time:
            self._limits.begin()
            try:
                return self._draw(values)
            except TemplateError as error:
                error.line = error.line or self._line()
                raise
            except (RecursionError, MemoryError):
                raise TemplateError("it is nested too deeply", self._line()) from None
            except Exception as error:  # noqa: BLE001 - as above
                raise TemplateError(str(error) or type(error).__name__, self._line()) from None

    def _draw(self, values: Mapping[str, Any]) -> Drawn:
        context = self._template.new_context(dict(values))
        pieces: list[str] = []
        size = 0
        for piece in self._template.root_render_func(context):
            size += len(piece)
            if size > LONGEST_TEXT:
                raise TemplateError(f"it makes more than {LONGEST_TEXT:,} characters")
            pieces.append(piece)
        text = "".join(pieces).strip()
        if not text:
            raise Silent("it says nothing")
        title = context.vars.get("title", "")
        return Drawn(text, title if isinstance(title, str) else str(title)[:200])

    def _line(self) -> int:
        """Where in the template the error being handled was raised."""
        line, trace = 0, sys.exc_info()[2]
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == self._template.filename:
                line = self._template.get_corresponding_lineno(trace.tb_lineno)
            trace = trace.tb_next
        return line


@lru_cache(maxsize=256)
def own_template(source: str, form: str) -> OwnTemplate:
    """A template for a form of message, ``text``, ``markdown`` or ``html``; compiled once.

    Raises:
        TemplateError: it cannot be used.
    """
    return OwnTemplate(source, form)
