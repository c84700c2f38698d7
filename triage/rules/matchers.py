"""``match:`` of a rule: data that is compiled into tiny tests. They run for every rule and envelope, so they are plain.

A value is compared with a scalar (equal), a list (any of), ``{not: ...}``, ``{any: [...]}`` or ``{all: [...]}``. A text
is a glob when it has ``*`` or ``?``, a regular expression when it stands between slashes; for error messages it is a
part of the message instead of a glob. What a message does not have is an empty text, a zero, or nothing in a payload.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from triage.rules.mistakes import Mistake, Mistakes, Path, did_you_mean, kind_of, wrong
from triage.rules.model import Matcher, Subject
from triage.rules.regex import compile_glob, compile_regex

Check = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Field:
    """Something ``match:`` can look at: the name of its value, and how a scalar becomes a check."""

    name: str
    scalar: Callable[[Any], Check]
    doc: str


_MISSING: Final = object()


def _equals(wanted: str) -> Check:
    return lambda value: bool(value == wanted)


def _function(wanted: Any) -> Check:
    check = _name(wanted)
    if isinstance(wanted, str) and "/" in wanted:
        return check
    # Without a slash the pattern is for the function's own name, whatever its FC 2.0 service.
    return lambda value: check(value.rpartition("/")[2])


def _name(wanted: Any) -> Check:
    wanted = _text(wanted)
    return _regex(wanted) or _glob(wanted)


def _message(wanted: Any) -> Check:
    wanted = _text(wanted)
    if not wanted:
        return _equals("")
    return _regex(wanted) or (lambda value: wanted in value)


def _anything(wanted: Any) -> Check:
    """A value out of a payload: no text equals a number, and ``true`` equals no 1."""
    if wanted is None or isinstance(wanted, bool):
        return lambda value: value is wanted
    if isinstance(wanted, int | float):
        return lambda value: value == wanted and type(value) is not bool
    check = _name(wanted)
    return lambda value: isinstance(value, str) and check(value)


_COMPARED: Final = re.compile(r"(==|!=|>=|<=|>|<)\s*(\d{1,18})", re.ASCII)
_OPERATORS: Final[Mapping[str, Callable[[int, int], bool]]] = {
    "==": operator.eq, "!=": operator.ne, ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip


def _count(wanted: Any) -> Check:
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
    if len(wanted) > 2 and wanted[0] == wanted[-1] == "/":
        return compile_regex(wanted[1:-1])
    return None


def _glob(wanted: str) -> Check:
    if not re.search(r"[*?]", wanted):
        return _equals(wanted)
    head, star, tail = wanted.partition("*")
    if star and not re.search(r"[*?]", head + tail):
        # One star is what people write; two comparisons are several times cheaper than a regular expression.
        least = len(head) + len(tail)
        return lambda value: len(value) >= least and value.startswith(head) and value.endswith(tail)
    return compile_glob(wanted)


FIELDS: Final[Mapping[str, Field]] = {
    "function": Field("fn", _function, "Name of the function; with a slash, service/name (FC 2.0)."),
    "service": Field("service", _name, "Service of an FC 2.0 function."),
    "qualifier": Field("qualifier", _name, "Version or alias, when the message names one."),
    "region": Field("region", _name, "Region, when the message names it."),
    "account": Field("account", _name, "Account id, when the message names it."),
    "condition": Field("condition", _name, "The platform's word for what happened, such as InvocationError."),
    "function_error": Field("function_error", _name, "Error class the platform reports; empty for its own faults."),
    "invoke_count": Field("invoke_count", _count, "Attempts the platform made itself."),
    "status_code": Field("status_code", _count, "HTTP status; 200 also for a function that failed."),
    "source": Field("source", _name, "Name of the source the message came from."),
}
"""What ``match:`` can look at, beside ``error`` and ``payload``."""

ERROR_FIELDS: Final[Mapping[str, Field]] = {
    "type": Field("error.type", _name, "Class of the error the function reported."),
    "message": Field("error.message", _message, "A part of the error's message, or a /regular expression/."),
}


def payload_field(path: str) -> Field:
    """A value inside the event."""
    return Field(f"payload.{path}", _anything, "")


ERROR_DOC: Final = "The error the function reported."
PAYLOAD_DOC: Final = "Values inside the event, by their path with dots; only for events that are JSON objects."

_OPERATOR_KEYS: Final = ("not", "any", "all")


def compile_match(value: Any) -> tuple[Matcher, ...]:
    """Compile a rule's ``match:``; all of the matchers must hold.

    Raises:
        Mistakes: all there are.
    """
    mistakes: list[Mistake] = []
    matchers: list[Matcher] = []
    for key, wanted in _mapping(value, "match").items():
        try:
            if key == "error":
                matchers += _collect(_mapping(wanted, key), ERROR_FIELDS, prefix="error.", path=(key,))
            elif key == "payload":
                inside = _mapping(wanted, key)
                fields = {path: payload_field(path) for path in inside}
                matchers += _collect(inside, fields, prefix="payload.", path=(key,))
            else:
                matchers += _collect({key: wanted}, FIELDS)
        except Mistakes as error:
            mistakes += error.mistakes
    if mistakes:
        raise Mistakes(mistakes)
    return tuple(matchers)


def _collect(
    wanted: Mapping[str, Any], fields: Mapping[str, Field], *, prefix: str = "", path: Path = ()
) -> list[Matcher]:
    matchers: list[Matcher] = []
    mistakes: list[Mistake] = []
    for key, value in wanted.items():
        field = fields.get(key)
        if field is None:
            hint = _UNKNOWN.get(key) or did_you_mean(key, fields if prefix else (*fields, "error", "payload"))
            mistakes.append(
                Mistake(f"unknown key {key[:60]!r} in {prefix or 'match.'}"[:-1], hint, (*path, key), key=True)
            )
            continue
        try:
            check = _check(value, field.scalar, (*path, key))
        except Mistakes as error:
            mistakes += error.mistakes
            continue
        matchers.append(Matcher(field.name, f"{prefix}{key}: {_shown(value)}", _test(field.name, check)))
    if mistakes:
        raise Mistakes(mistakes)
    return matchers


_UNKNOWN: Final = {
    "outcome": "rules are only asked about failures",
    "error.message": "write error: {message: ...}",
    "error.type": "write error: {type: ...}",
}


def _test(name: str, check: Check) -> Callable[[Subject], bool]:
    root, _, path = name.partition(".")
    if root != "payload":
        return lambda subject: check(subject[name])
    keys = path.split(".")

    def test(subject: Subject) -> bool:
        value = subject[root]
        for key in keys:
            value = value.get(key, _MISSING) if isinstance(value, dict) else _MISSING
        return check(value)

    return test


def _check(wanted: Any, scalar: Callable[[Any], Check], path: Path) -> Check:
    if isinstance(wanted, list):
        return _any(wanted, scalar, path)
    if isinstance(wanted, dict):
        return _operators(wanted, scalar, path)
    try:
        return scalar(wanted)
    except Mistakes as error:
        raise Mistakes([Mistake(each.message, each.hint, path) for each in error.mistakes]) from None


def _operators(wanted: Mapping[str, Any], scalar: Callable[[Any], Check], path: Path) -> Check:
    strange = [key for key in wanted if key not in _OPERATOR_KEYS]
    if strange or not wanted:
        hint = "a mapping here holds not, any or all"
        raise Mistakes([Mistake(f"unknown key {key[:60]!r}", hint, (*path, key), key=True) for key in strange]
                       or [Mistake("expected something to match, not an empty mapping", hint, path)])  # fmt: skip
    checks: list[Check] = []
    for key, value in wanted.items():
        here = (*path, key)
        if key == "not":
            checks.append(_not(_check(value, scalar, here)))
        elif not isinstance(value, list):
            raise Mistakes([Mistake(f"expected a list, not {kind_of(value)}", "", here)])
        elif key == "any":
            checks.append(_any(value, scalar, here))
        else:
            checks += _each(value, scalar, here)
    return checks[0] if len(checks) == 1 else lambda value: all(check(value) for check in checks)


def _not(check: Check) -> Check:
    return lambda value: not check(value)


def _any(wanted: list[Any], scalar: Callable[[Any], Check], path: Path) -> Check:
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


def _each(wanted: list[Any], scalar: Callable[[Any], Check], path: Path) -> list[Check]:
    if not wanted:
        raise Mistakes([Mistake("an empty list matches nothing", "leave the key out to match everything", path)])
    checks: list[Check] = []
    mistakes: list[Mistake] = []
    for index, item in enumerate(wanted):
        try:
            checks.append(_check(item, scalar, (*path, index)))
        except Mistakes as error:
            mistakes += error.mistakes
    if mistakes:
        raise Mistakes(mistakes)
    return checks


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise wrong(f"expected a mapping, not {kind_of(value)}", "", path=() if name == "match" else (name,))


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:197] + "..."
