"""Every key of a rule file: how its value is read, what it means, and its JSON Schema. ``match:`` is in `matchers`.

One table serves the loader, the schema for editors and the test that keeps the reference page complete.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from triage.rules.expression import compile_expression
from triage.rules.matchers import compile_match
from triage.rules.mistakes import Mistake, Mistakes, did_you_mean, kind_of, wrong
from triage.rules.model import Cause, Severity

Schema = Mapping[str, Any]
Read = Callable[[Any], Any]

CAUSES: Final = tuple(cause.value for cause in Cause if cause is not Cause.QUARANTINED)
SEVERITIES: Final = tuple(severity.value for severity in Severity)
GROUP_BY: Final = ("function", "condition", "error_type", "error_message", "fingerprint", "rule", "owner")
"""Labels of an alert that alerts can be grouped by."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key. It has either ``read`` (which raises `Mistakes`) or ``keys`` of its own; ``doc`` says the default."""

    doc: str
    read: Read | None = None
    schema: Schema = field(default_factory=dict)
    keys: Mapping[str, Key] | None = None
    required: bool = False


_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = r"(\d{1,9}(?:\.\d{1,3})?)\s?(ms|s|m|h|d)"
LONGEST: Final = timedelta(days=366)


def parse_duration(value: Any) -> timedelta:
    """Read ``90s``, ``5m``, ``2h``, ``1d`` or a sum of them, ``1h30m``.

    Raises:
        Mistakes: it is no such text, or longer than a year.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise wrong(f"the number {value} has no unit", f"write {value}s, {value}m, {value}h or {value}d")
    if not isinstance(value, str) or not re.fullmatch(rf"(?:{_DURATION}\s?)+", value, re.ASCII):
        raise wrong(f"expected a duration, not {kind_of(value)}", "such as 90s, 5m, 2h, 1d or 1h30m")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(_DURATION, value, re.ASCII))
    if seconds > LONGEST.total_seconds():
        raise wrong(f"{value} is longer than {LONGEST.days} days")
    return timedelta(seconds=seconds)


def _positive(value: Any) -> timedelta:
    duration = parse_duration(value)
    if not duration:
        raise wrong("expected more than nothing", "such as 90s, 5m, 2h, 1d")
    return duration


def _whole(least: int, most: int) -> Read:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise wrong(f"expected a whole number from {least} to {most}, not {kind_of(value)}")
        return value

    return read


def _number(least: float, most: float) -> Read:
    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise wrong(f"expected a number from {least:g} to {most:g}, not {kind_of(value)}")
        return float(value)

    return read


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong(f"expected true or false, not {kind_of(value)}")
    return value


def _text(*, most: int = 200, least: int = 0) -> Read:
    def read(value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # a version, written without quotes
        if not isinstance(value, str):
            raise wrong(f"expected a text, not {kind_of(value)}", "put quotes around it" if value is not None else "")
        if len(value) > most:
            raise wrong(f"the text has {len(value)} characters; at most {most} are taken")
        if len(value.strip()) < least:
            raise wrong("expected a text, not an empty one")
        return value

    return read


def _name(value: Any) -> str:
    text: str = _text()(value)
    if not re.fullmatch(_NAME, text, re.ASCII):
        raise wrong(f"{kind_of(value)} is no name", "letters, digits, '_', '-' and '.', at most 100")
    return text


_NAME: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"


def _link(value: Any) -> str:
    text: str = _text(most=2000)(value)
    # It becomes a link in a page: no javascript:.
    if text and not re.fullmatch(r"https?://\S+", text):
        raise wrong(f"{kind_of(value)} is no web address", "it starts with https:// or http://")
    return text


def _one_of(options: Iterable[str]) -> Read:
    known = tuple(options)

    def read(value: Any) -> str:
        if value not in known:
            raise wrong(f"expected {' or '.join(known)}, not {kind_of(value)}", did_you_mean(value, known, listed=True))
        return str(value)

    return read


def _list_of(item: Read, *, empty: str = "an empty list") -> Read:
    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            return (item(value),)
        if not value:
            raise wrong(empty, "leave the key out for its default")
        items: dict[Any, None] = {}
        mistakes: list[Mistake] = []
        for index, each in enumerate(value):
            try:
                items[item(each)] = None
            except Mistakes as error:
                mistakes += [Mistake(found.message, found.hint, (index, *found.path)) for found in error.mistakes]
        if mistakes:
            raise Mistakes(mistakes)
        return tuple(items)

    return read


def _labels(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise wrong(f"expected a mapping of names to texts, not {kind_of(value)}")
    labels: dict[str, str] = {}
    for name, text in value.items():
        try:
            labels[_name(name)] = _text()(text)
        except Mistakes as error:
            raise Mistakes([Mistake(each.message, each.hint, (name,)) for each in error.mistakes]) from None
    return labels


def _expression(value: Any) -> Any:
    if not isinstance(value, str):
        raise wrong(f"expected an expression, not {kind_of(value)}")
    return compile_expression(value)


def _version(value: Any) -> int:
    if value != 1 or isinstance(value, bool):
        raise wrong(f"expected 1, not {kind_of(value)}", "this program reads version 1 of the format")
    return 1


def _list(value: Any) -> Any:
    if not isinstance(value, list):
        raise wrong(f"expected a list of rules, not {kind_of(value)}", "each begins with - id: ...")
    return value


DURATION_SCHEMA: Final = {"type": "string", "pattern": rf"^(?:{_DURATION}\s?)+$"}
_TEXT_SCHEMA: Final = {"type": "string"}
_NAME_SCHEMA: Final = {"type": "string", "pattern": f"^{_NAME}$"}


def _or_list(item: Schema) -> Schema:
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]}


BACKOFF: Final[Mapping[str, Key]] = {
    "factor": Key(
        "Each further delay is this many times longer, 1 to 10. Default: 2.",
        _number(1, 10),
        {"type": "number", "minimum": 1, "maximum": 10},
    ),
    "max": Key("No delay is longer than this. Default: 1h.", _positive, DURATION_SCHEMA),
    "jitter": Key(
        "Share of a delay that is spread, 0 to 1, so that many failures do not come back at once. Default: 0.1.",
        _number(0, 1),
        {"type": "number", "minimum": 0, "maximum": 1},
    ),
}

RERUN: Final[Mapping[str, Key]] = {
    "after": Key("Delay before the first re-run. Default: 0s.", parse_duration, DURATION_SCHEMA),
    "backoff": Key("How the delays grow.", keys=BACKOFF),
    "max_attempts": Key(
        "Re-runs of one failure in all, 1 to 100, whoever asked for them. There is no unlimited re-run.",
        _whole(1, 100),
        {"type": "integer", "minimum": 1, "maximum": 100},
        required=True,
    ),
    "give_up_after": Key("No re-run is planned later than this after the first failure. Default: 6h.",
                         _positive, DURATION_SCHEMA),
    "quiet": Key("Tell nobody while a re-run may still succeed. Default: true.", _flag, {"type": "boolean"}),
    "expect_within": Key("A result must come this long after a re-run was submitted. Default: 24h.",
                         _positive, DURATION_SCHEMA),
    "idempotent": Key(
        "The function may run twice for one event. Only then a re-run is submitted again when nobody can tell whether "
        "the first try arrived. Default: false.",
        _flag,
        {"type": "boolean"},
    ),
    "qualifier": Key("Version or alias to run. Default: the one that failed.",
                     _text(), {"type": ["string", "integer"]}),
}  # fmt: skip

ALERT: Final[Mapping[str, Key]] = {
    "to": Key("Names of receivers. Default: default.", _list_of(_name), _or_list(_NAME_SCHEMA)),
    "on": Key(
        "What is told. Default: failed; in a rule with rerun, everything else.",
        _list_of(_one_of(CAUSES), empty="an empty list would tell nobody of anything"),
        _or_list({"enum": list(CAUSES)}),
    ),
    "severity": Key("info, warning or critical. Default: warning.", _one_of(SEVERITIES), {"enum": list(SEVERITIES)}),
    "group_by": Key(
        "Alerts that are equal in these labels are told together. Default: [function, fingerprint].",
        _list_of(_one_of(GROUP_BY)),
        _or_list({"enum": list(GROUP_BY)}),
    ),
    "group_wait": Key(
        "How long the first alert of a group waits for more. Default: 30s.", parse_duration, DURATION_SCHEMA
    ),
    "group_interval": Key("How long a group stays silent after it was told. Default: 5m.", _positive, DURATION_SCHEMA),
}

_ABOUT: Final[Mapping[str, Key]] = {
    "owner": Key("Who is responsible; shown in alerts.", _text(), _TEXT_SCHEMA),
    "runbook": Key("Web address of what to do; shown in alerts.", _link, {"type": "string", "format": "uri"}),
    "labels": Key(
        "Names and texts of your own, kept with the rule.",
        _labels,
        {"type": "object", "additionalProperties": {"type": ["string", "integer"]}},
    ),
}

RULE: Final[Mapping[str, Key]] = {
    "id": Key("Name of the rule, unique in all files.", _name, _NAME_SCHEMA, required=True),
    "match": Key("What the failure must look like; all of it must hold. Default: anything.", compile_match),
    "when": Key("A CEL expression that must be true, asked after `match`.", _expression, _TEXT_SCHEMA),
    "ignore": Key("Do nothing, for this reason.", _text(least=1), {"type": "string", "minLength": 1}),
    "rerun": Key("Run the task again.", keys=RERUN),
    "alert": Key("Tell somebody.", keys=ALERT),
    **_ABOUT,
}

DEFAULTS: Final[Mapping[str, Key]] = {
    **_ABOUT,
    "alert": Key(
        "For what the `alert` of a rule leaves out, and for rules with `rerun` that have no `alert`.", keys=ALERT
    ),
}

FILE: Final[Mapping[str, Key]] = {
    "version": Key("Version of this format: 1.", _version, {"const": 1}, required=True),
    "defaults": Key("For all rules of this file that do not say otherwise.", keys=DEFAULTS),
    "rules": Key("The rules; the first that matches decides.", _list, required=True),
}
