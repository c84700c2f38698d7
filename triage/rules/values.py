"""The values of ``match:``: what stands there becomes a tiny check. They run for every rule and envelope, so they are
plain.

A value is compared with a scalar (equal), a list (any of), ``{not: ...}``, ``{any: [...]}`` or ``{all: [...]}``. A text
is a glob when it has ``*`` or ``?``, a regular expression when it stands between slashes; for error messages it is a
part of the message instead of a glob.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from triage.rules.mistakes import Gathered, Mistake, Mistakes, Path, did_you_mean, kind_of, wrong
from triage.rules.regex import compile_glob, compile_regex

Check = Callable[[Any], bool]
Scalar = Callable[[Any], Check]
"""How a scalar becomes a check; raises `Mistakes`."""

OPERATORS: Final = ("not", "any", "all")


def _equals(wanted: str) -> Check:
    return lambda value: bool(value == wanted)


def function_name(wanted: Any) -> Check:
    """A function's label, ``service/name`` or ``name``; a pattern without a slash is for the name alone."""
    check = any_text(wanted)
    if isinstance(wanted, str) and "/" in wanted:
        return check
    return lambda value: check(value.rpartition("/")[2])


def any_text(wanted: Any) -> Check:
    """A whole text: equality, a glob or a regular expression."""
    wanted = _text(wanted)
    return _regex(wanted) or _glob(wanted)


def part_of_text(wanted: Any) -> Check:
    """A text that contains the wanted one, or in which a regular expression is found."""
    wanted = _text(wanted)
    if not wanted:
        return _equals("")
    return _regex(wanted) or (lambda value: wanted in value)


def any_value(wanted: Any) -> Check:
    """A value out of a payload: no text equals a number, and ``true`` equals no 1."""
    if wanted is None or isinstance(wanted, bool):
        return lambda value: value is wanted
    if isinstance(wanted, int | float):
        return lambda value: value == wanted and type(value) is not bool
    check = any_text(wanted)
    return lambda value: isinstance(value, str) and check(value)


_COMPARED: Final = re.compile(r"(==|!=|>=|<=|>|<)\s*(\d{1,18})", re.ASCII)
_OPERATORS: Final[Mapping[str, Callable[[int, int], bool]]] = {
    "==": operator.eq, "!=": operator.ne, ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip


def any_count(wanted: Any) -> Check:
    """A number: equality or a comparison."""
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        return lambda value: bool(value == wanted)
    found = _COMPARED.fullmatch(wanted.strip()) if isinstance(wanted, str) else None
    if found is None:
        raise wrong(f"expected a whole number or a comparison, not {kind_of(wanted)}", 'such as 429 or ">= 500"')
    compare, number = _OPERATORS[found[1]], int(found[2])
    # 0 means that the message does not say.
    return lambda value: value != 0 and compare(value, number)


def _text(wanted: Any) -> str:
    if isinstance(wanted, str):
        return wanted
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        return str(wanted)  # an account or a version, written without quotes
    raise wrong(f"expected a text, not {kind_of(wanted)}", "put quotes around it" if wanted is not None else "")


def _regex(wanted: str) -> Check | None:
    return compile_regex(wanted[1:-1]) if is_regex(wanted) else None


def is_regex(text: str) -> bool:
    """Whether a scalar is a /regular expression/."""
    return len(text) > 2 and text[0] == text[-1] == "/"


def _glob(wanted: str) -> Check:
    if not re.search(r"[*?]", wanted):
        return _equals(wanted)
    head, star, tail = wanted.partition("*")
    if star and not re.search(r"[*?]", head + tail):
        # One star is what people write; two comparisons are several times cheaper than a regular expression.
        least = len(head) + len(tail)
        return lambda value: len(value) >= least and value.startswith(head) and value.endswith(tail)
    return compile_glob(wanted)


def one_word(words: Iterable[str]) -> Scalar:
    """One of a few words; a glob or a regular expression matches some of them."""
    known = tuple(words)

    def scalar(wanted: Any) -> Check:
        check = any_text(wanted)
        if not any(check(word) for word in known):
            hint = did_you_mean(wanted, known)
            raise wrong(f"expected {' or '.join(known)}, not {kind_of(wanted)}", hint if "mean" in hint else "")
        return check

    return scalar


def compile_value(wanted: Any, scalar: Scalar, path: Path) -> Check:
    """Compile a value with its lists and operators; ``path`` is where it stands, for mistakes.

    Raises:
        Mistakes: all there are.
    """
    if isinstance(wanted, list):
        return _any(wanted, scalar, path)
    if isinstance(wanted, dict):
        return _operators(wanted, scalar, path)
    try:
        return scalar(wanted)
    except Mistakes as error:
        raise Mistakes([Mistake(each.message, each.hint, path) for each in error.mistakes]) from None


def _operators(wanted: Mapping[str, Any], scalar: Scalar, path: Path) -> Check:
    strange = [key for key in wanted if key not in OPERATORS]
    if strange or not wanted:
        hint = "a mapping here holds not, any or all"
        raise Mistakes([Mistake(f"unknown key {key[:60]!r}", hint, (*path, key), key=True) for key in strange]
                       or [Mistake("expected something to match, not an empty mapping", hint, path)])  # fmt: skip
    checks: list[Check] = []
    for key, value in wanted.items():
        here = (*path, key)
        if key == "not":
            checks.append(_not(compile_value(value, scalar, here)))
        elif not isinstance(value, list):
            raise Mistakes([Mistake(f"expected a list, not {kind_of(value)}", "", here)])
        elif key == "any":
            checks.append(_any(value, scalar, here))
        else:
            checks += _each(value, scalar, here)
    return checks[0] if len(checks) == 1 else lambda value: all(check(value) for check in checks)


def _not(check: Check) -> Check:
    return lambda value: not check(value)


def _any(wanted: list[Any], scalar: Scalar, path: Path) -> Check:
    return _first(_each(wanted, scalar, path))


def _first(checks: list[Check]) -> Check:
    if len(checks) == 1:
        return checks[0]

    def check_any(value: Any) -> bool:
        for check in checks:  # noqa: SIM110 - half the time of any() over a generator
            if check(value):
                return True
        return False

    return check_any


def _each(wanted: list[Any], scalar: Scalar, path: Path) -> list[Check]:
    if not wanted:
        raise Mistakes([Mistake("an empty list matches nothing", "leave the key out to match everything", path)])
    checks: list[Check] = []
    mistakes = Gathered()
    for index, item in enumerate(wanted):
        try:
            checks.append(compile_value(item, scalar, (*path, index)))
        except Mistakes as error:
            mistakes += error.mistakes
    if mistakes:
        raise Mistakes(mistakes)
    return checks
