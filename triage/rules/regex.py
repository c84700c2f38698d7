"""Regular expressions in linear time (RE2), compiled once. The only module that knows the library."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import re2

from triage.rules.mistakes import wrong

MAX_PATTERN: Final = 2_000
"""Characters."""
MAX_STEPS: Final = 2_500
"""Instructions a pattern compiles to. Where its states do not fit into memory, a search takes some 20 ns for each of
them and character: linear, yet seconds for a text of 8 KB when counts inside of counts make thousands."""


def _options() -> re2.Options:
    options = re2.Options()
    options.log_errors = False  # else it writes to the process's stderr
    options.max_mem = 1 << 20
    options.never_capture = True
    return options


_OPTIONS: Final = _options()


@lru_cache(maxsize=4096)
def steps_of(pattern: str) -> int:
    """How many instructions a pattern that `compile_regex` takes compiles to; what a search costs grows with it."""
    return int(re2.compile(pattern, _OPTIONS).programsize)


@lru_cache(maxsize=4096)
def compile_regex(pattern: str) -> Callable[[str], bool]:
    """A test that searches a text for the pattern; ``^`` and ``$`` anchor it. A text that is no Unicode has no match.

    Raises:
        Mistakes: RE2 refuses the pattern (look-around and back references are not in its language).
    """
    if len(pattern) > MAX_PATTERN:
        raise wrong(f"the regular expression has {len(pattern)} characters; at most {MAX_PATTERN} are taken")
    try:
        compiled = re2.compile(pattern, _OPTIONS)
    except re2.error as error:
        detail = error.args[0].decode("utf-8", "replace") if error.args else ""
        raise wrong(f"not a regular expression of RE2: {detail}", _hint(detail)) from None
    except UnicodeEncodeError:
        raise wrong("not a regular expression: a lone surrogate") from None
    if compiled.programsize > MAX_STEPS:
        hint = "counts such as {1,30} inside of others multiply, and classes such as \\pL are large"
        raise wrong(f"the regular expression has {compiled.programsize} steps; at most {MAX_STEPS} are taken", hint)
    search = compiled.search

    def found(text: str) -> bool:
        try:
            # Given bytes, the binding need not map offsets back to characters: half the time.
            return search(text.encode()) is not None
        except UnicodeEncodeError:
            return False

    return found


def compile_glob(pattern: str) -> Callable[[str], bool]:
    """A test of a whole text: ``*`` stands for any characters, ``?`` for one, everything else for itself.

    Raises:
        Mistakes: the pattern is too long, or no Unicode.
    """
    try:
        literals = [re2.escape(piece) for piece in re.split(r"([*?])", pattern)]
    except UnicodeEncodeError:
        raise wrong("a lone surrogate") from None
    return compile_regex("(?s)^" + "".join({r"\*": ".*", r"\?": "."}.get(each, each) for each in literals) + "$")


def _hint(detail: str) -> str:
    if "invalid perl operator" in detail:
        return "RE2 has no look-ahead and no look-behind"
    if "invalid escape sequence" in detail:
        return "RE2 has no back references; in double quotes YAML reads the backslash first"
    return ""
