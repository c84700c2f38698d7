"""What an alert must have, to be one that a silence is about: labels with values as in ``match`` of a rule. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from triage.rules.mistakes import Gathered, Mistake, Mistakes, did_you_mean, wrong
from triage.rules.model import Severity
from triage.rules.values import Check, Scalar, any_text, compile_value, function_name, one_word

FIELDS: Final[Mapping[str, Scalar]] = {
    "function": function_name,
    "condition": any_text,
    "error_type": any_text,
    "fingerprint": any_text,
    "rule": any_text,
    "owner": any_text,
    "severity": one_word(severity.value for severity in Severity),
    "receiver": any_text,
}
"""Labels of an alert that a silence can look at, beside ``labels.NAME``, those of the function and of the rule."""

OWN: Final = "labels."
"""Begins the names of labels that the configuration gives to a function, or a rule file to a rule."""


def read_match(written: Mapping[str, Any]) -> dict[str, Any]:
    """Check what an alert must have: names of labels with values as in ``match`` of a rule. All of them must hold.

    Raises:
        Mistakes: all there are.
    """
    mistakes = Gathered()
    if not written:
        raise wrong("a silence for everything", "name a label at least, such as function, with the value *")
    for name, wanted in written.items():
        try:
            compile_value(wanted, _scalar(name), (name,))
        except Mistakes as error:
            mistakes += error.mistakes
    if mistakes:
        raise Mistakes(mistakes)
    return dict(written)


def parse_match(clauses: Iterable[str]) -> dict[str, Any]:
    """Read ``LABEL=VALUE`` and ``LABEL!=VALUE``: of one label any value is enough, and none of those that are not.

    Raises:
        Mistakes: all there are.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for clause in clauses:
        name, sign, value = clause.partition("=")
        if not sign:
            raise wrong(f"{clause[:60]!r} says no value", "write LABEL=VALUE, such as function=img-*")
        operator = "not" if name.endswith("!") else "any"
        found.setdefault(name.removesuffix("!").strip(), {}).setdefault(operator, []).append(value)
    return read_match(found)


def _scalar(name: str) -> Scalar:
    if name.startswith(OWN) and name != OWN:
        return any_text
    if name not in FIELDS:
        hint = _UNKNOWN.get(name) or did_you_mean(name, FIELDS)
        raise Mistakes([Mistake(f"an alert has no label {name[:60]!r}", hint, (name,), key=True)])
    return FIELDS[name]


_UNKNOWN: Final = {
    "error": "write error_type",
    "type": "write error_type",
    "error.type": "write error_type",
    "error_message": "silence the fingerprint, which is made of the message, too",
    "message": "silence the fingerprint, which is made of the message, too",
    "labels": "write labels.NAME",
    "to": "write receiver",
    "group": "write fingerprint",
}


@lru_cache(maxsize=1024)
def _checks(match: str) -> tuple[tuple[str, Check], ...]:
    return tuple((name, compile_value(wanted, _scalar(name), (name,))) for name, wanted in json.loads(match).items())


def matches(match: Mapping[str, Any], labels: Mapping[str, str], *, severity: str, receiver: str) -> bool:
    """Whether an alert with these labels is one that a silence is about."""
    subject = {**labels, "severity": severity, "receiver": receiver}
    return all(check(subject.get(name, "")) for name, check in _checks(json.dumps(match)))
