"""``match:`` of a rule: data that is compiled into tiny tests, all of which must hold. The values are in `values`.

What a message does not have is an empty text, a zero, or nothing in a payload. ``any``, ``all`` and ``not`` hold
further matches; ``use`` and ``window`` mention what the file, or one that it includes, defines by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, TypeVar

from triage.envelope import Outcome
from triage.rules.mistakes import Gathered, Mistake, Mistakes, Path, did_you_mean, kind_of, wrong
from triage.rules.model import Matcher, Subject, Test
from triage.rules.regex import steps_of
from triage.rules.values import (
    Check,
    Scalar,
    any_count,
    any_text,
    any_value,
    compile_value,
    function_name,
    is_regex,
    one_word,
    part_of_text,
)
from triage.rules.windows import Window


@dataclass(frozen=True, slots=True)
class Field:
    """Something ``match:`` can look at: the name of its value, and how a scalar becomes a check."""

    name: str
    scalar: Scalar
    doc: str


FIELDS: Final[Mapping[str, Field]] = {
    "function": Field("fn", function_name, "Name of the function; with a slash, service/name (FC 2.0)."),
    "service": Field("service", any_text, "Service of an FC 2.0 function."),
    "qualifier": Field("qualifier", any_text, "Version or alias, when the message names one."),
    "region": Field("region", any_text, "Region, when the message names it."),
    "account": Field("account", any_text, "Account id, when the message names it."),
    "condition": Field("condition", any_text, "The platform's word for what happened, such as InvocationError."),
    "outcome": Field(
        "outcome",
        one_word(outcome.value for outcome in Outcome),
        "failed, succeeded or succeeded_or_stopped. A rule that mentions it is asked about successes, too.",
    ),
    "function_error": Field("function_error", any_text, "Error class the platform reports; empty for its own faults."),
    "invoke_count": Field("invoke_count", any_count, "Attempts the platform made itself."),
    "status_code": Field("status_code", any_count, "HTTP status; 200 also for a function that failed."),
    "source": Field("source", any_text, "Name of the source the message came from."),
}
"""What ``match:`` can look at, beside ``error``, ``payload`` and ``labels``."""

ERROR_FIELDS: Final[Mapping[str, Field]] = {
    "type": Field("error.type", any_text, "Class of the error the function reported."),
    "message": Field("error.message", part_of_text, "A part of the error's message, or a /regular expression/."),
}


def payload_field(path: str) -> Field:
    """A value inside the event."""
    return Field(f"payload.{path}", any_value, "")


def label_field(name: str) -> Field:
    """A label of the function."""
    return Field(f"labels.{name}", any_text, "")


GROUPS: Final[Mapping[str, str]] = {
    "error": "The error the function reported.",
    "payload": "Values inside the event, by their path with dots; only for events that are JSON objects.",
    "labels": "Labels that the configuration gives to the function.",
}
"""Keys whose values are mappings of fields."""

REFERENCES: Final[Mapping[str, str]] = {
    "window": "Name of a window that it must be in now; also a list, not, any or all.",
    "use": "Name of a condition that must hold; also a list (any of them), not, any or all.",
}
"""Keys whose values are names of something defined in the file or in one it includes."""

COMBINATIONS: Final[Mapping[str, str]] = {
    "any": "A list of matches, one of which must hold.",
    "all": "A list of matches, all of which must hold.",
    "not": "A match that must not hold.",
}
"""Keys whose values are further matches."""

KEYS: Final = (*FIELDS, *GROUPS, *REFERENCES, *COMBINATIONS)
"""Every key of ``match:``."""


@dataclass(frozen=True, slots=True)
class Names:
    """What a rule may mention by name. A condition is compiled when it is first mentioned."""

    windows: Mapping[str, Window] = field(default_factory=dict)
    conditions: Mapping[str, Callable[[], tuple[Matcher, ...]]] = field(default_factory=dict)


NO_NAMES: Final = Names()

MAX_COMPARISONS: Final = 1_000
"""Of one ``match:``, with the conditions it uses: conditions used by conditions can multiply like aliases in YAML."""

MAX_STEPS: Final = 10_000
"""Of all regular expressions in one ``match:``, which is a second for the worst of them and the longest message."""


def compile_match(value: Any, names: Names = NO_NAMES) -> tuple[Matcher, ...]:
    """Compile a ``match:``; all of the matchers must hold.

    Raises:
        Mistakes: all there are.
    """
    compiler = _Compiler(names)
    matchers = tuple(compiler.match(value, ()))
    if compiler.mistakes:
        raise Mistakes(compiler.mistakes)
    if sum(matcher.size for matcher in matchers) > MAX_COMPARISONS:
        raise wrong(f"more than {MAX_COMPARISONS} comparisons, those of the conditions it uses included")
    if (steps := sum(matcher.steps for matcher in matchers)) > MAX_STEPS:
        hint = "those of the conditions it uses included; counts such as {1,30} inside of others multiply"
        raise wrong(f"the regular expressions have {steps} steps together; at most {MAX_STEPS} are taken", hint)
    return matchers


class _Compiler:
    """Collects the mistakes; what it gives for a value with mistakes is of no use."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.mistakes = Gathered()

    def match(self, wanted: Any, path: Path) -> list[Matcher]:
        return [
            matcher
            for key, value in self.mapping(wanted, path).items()
            for matcher in self.clause(key, value, (*path, key))
        ]

    def clause(self, key: str, wanted: Any, path: Path) -> list[Matcher]:
        if key in FIELDS:
            return [self.field(FIELDS[key], key, wanted, path)]
        if key in GROUPS:
            return self.group(key, wanted, path)
        if key == "window":
            return [self.window(wanted, path)]
        if key == "use":
            return [self.use(wanted, path)]
        if key == "not":
            return [_combined("not", self.match(wanted, path), wanted)]
        if key in COMBINATIONS:
            return [_combined(key, self.several(wanted, path), wanted)]
        self.unknown(key, "match", KEYS, path)
        return []

    def field(self, field: Field, key: str, wanted: Any, path: Path) -> Matcher:
        check = self.value(wanted, field.scalar, path)
        if field.name == "fn":
            # There are few functions, and nearly every rule looks at their names.
            check = lru_cache(maxsize=256)(check)
        steps = 0 if self.mistakes else sum(map(steps_of, _regexes(wanted)))
        return Matcher(field.name, f"{key}: {_shown(wanted)}", _test(field.name, check), wanted, steps=steps)

    def group(self, key: str, wanted: Any, path: Path) -> list[Matcher]:
        found: list[Matcher] = []
        open_set = {"payload": payload_field, "labels": label_field}.get(key)
        for name, value in self.mapping(wanted, path).items():
            field = open_set(name) if open_set else ERROR_FIELDS.get(name)
            if field is None:
                self.unknown(name, f"match.{key}", ERROR_FIELDS, (*path, name))
            else:
                found.append(self.field(field, f"{key}.{name}", value, (*path, name)))
        return found

    def window(self, wanted: Any, path: Path) -> Matcher:
        def scalar(name: Any) -> Check:
            return _named(name, self.names.windows, "window").contains

        check = self.value(wanted, scalar, path)
        return Matcher("now", f"window: {_shown(wanted)}", lambda subject: check(subject["now"]), wanted)

    def use(self, wanted: Any, path: Path) -> Matcher:
        parts: list[Matcher] = []

        def scalar(name: Any) -> Check:
            condition = _named(name, self.names.conditions, "condition")()
            parts.extend(condition)
            return _every(condition)

        return Matcher("use", f"use: {_shown(wanted)}", self.value(wanted, scalar, path), wanted, tuple(parts))

    def several(self, wanted: Any, path: Path) -> list[Matcher]:
        if not isinstance(wanted, list):
            self.mistakes.append(Mistake(f"expected a list of matches, not {kind_of(wanted)}", "", path))
            return []
        if not wanted:
            hint = "leave the key out to match everything"
            self.mistakes.append(Mistake("an empty list matches nothing", hint, path))
        parts = []
        for index, each in enumerate(wanted):
            inner = self.match(each, (*path, index))
            parts.append(inner[0] if len(inner) == 1 else _combined("all", inner, each))
        return parts

    def mapping(self, wanted: Any, path: Path) -> dict[str, Any]:
        if isinstance(wanted, dict):
            return wanted
        self.mistakes.append(Mistake(f"expected a mapping, not {kind_of(wanted)}", "", path))
        return {}

    def value(self, wanted: Any, scalar: Scalar, path: Path) -> Check:
        try:
            return compile_value(wanted, scalar, path)
        except Mistakes as error:
            self.mistakes += error.mistakes
            return bool

    def unknown(self, key: str, where: str, known: Iterable[str], path: Path) -> None:
        hint = _UNKNOWN.get(key) or did_you_mean(key, known)
        self.mistakes.append(Mistake(f"unknown key {key[:60]!r} in {where}", hint, path, key=True))


_UNKNOWN: Final = {
    "error.message": "write error: {message: ...}",
    "error.type": "write error: {type: ...}",
    "windows": "write window: NAME",
    "conditions": "write use: NAME",
}

_Defined = TypeVar("_Defined")


def _named(name: Any, known: Mapping[str, _Defined], kind: str) -> _Defined:
    if not isinstance(name, str):
        raise wrong(f"expected the name of a {kind}, not {kind_of(name)}")
    if name not in known:
        hint = did_you_mean(name, known) if known else f"define it under {kind}s, or include a file that does"
        raise wrong(f"unknown {kind} {name[:60]!r}", hint)
    return known[name]


def _combined(key: str, parts: Sequence[Matcher], wanted: Any) -> Matcher:
    every = _every(parts)
    test = {"any": _some(parts), "all": every, "not": lambda subject: not every(subject)}[key]
    return Matcher(key, f"{key}: {_shown(wanted)}", test, wanted, tuple(parts))


def _every(parts: Sequence[Matcher]) -> Test:
    tests = [part.test for part in parts]
    return tests[0] if len(tests) == 1 else lambda subject: all(test(subject) for test in tests)


def _some(parts: Sequence[Matcher]) -> Test:
    tests = [part.test for part in parts]
    return lambda subject: any(test(subject) for test in tests)


def _test(name: str, check: Check) -> Test:
    root, _, path = name.partition(".")
    if root == "labels":
        return lambda subject: check(subject[root].get(path, ""))
    if root != "payload":
        return lambda subject: check(subject[name])
    keys = path.split(".")

    def test(subject: Subject) -> bool:
        value = subject[root]
        for key in keys:
            value = value.get(key, _MISSING) if isinstance(value, dict) else _MISSING
        return check(value)

    return test


_MISSING: Final = object()


def _regexes(wanted: Any) -> Iterator[str]:
    if isinstance(wanted, list | dict):
        for each in wanted.values() if isinstance(wanted, dict) else wanted:
            yield from _regexes(each)
    elif isinstance(wanted, str) and is_regex(wanted):
        yield wanted[1:-1]


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:197] + "..."
