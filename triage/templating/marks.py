"""Texts from outside, made harmless in Markdown. Pure."""

from __future__ import annotations

import re
from typing import Final

_MARKS: Final = re.compile(r"([\\`*_\[\]<>~&#|])")
_CALLED: Final = re.compile(r"@(?=\w)")
_UNSAFE: Final = re.compile(r"[<>()*_`\s\\|]")


def escaped(text: str) -> str:
    """Text with what Markdown gives a meaning to taken out of it, and nobody called who is called all, or here."""
    return _CALLED.sub("@\u200b", _MARKS.sub(r"\\\1", text))


def code_span(text: str) -> str:
    """Text from outside as code. Fences of several backticks are unknown to some services, so it has none."""
    return f"`{text.replace('`', chr(39))}`" if text else ""


def named_link(url: str) -> str:
    """An address as a link that shows where it leads, and not all of it: some fill half a phone."""
    host = url.partition("://")[2].partition("/")[0]
    return f"[{escaped(host)}]({bare_link(url)[1:-1]})" if host else bare_link(url)


def bare_link(url: str) -> str:
    """An address that every dialect makes a link of, and no character of which can end it."""
    return f"<{_UNSAFE.sub(lambda found: f'%{ord(found[0]):02X}', url)}>"
