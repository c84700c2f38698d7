"""Every key of a case file: how its value is read, what it means, and its JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from triage.envelope import Destination, Outcome
from triage.facts import SPANS
from triage.reruns.breaker import BreakerState
from triage.reruns.gate import Gate
from triage.rules.alertmatch import FIELDS, OWN, read_match
from triage.rules.keys import CAUSES, DURATION_SCHEMA, SEVERITIES, Key
from triage.rules.mistakes import Gathered, Mistake, Mistakes, kind_of, wrong
from triage.rules.readers import (
    list_of,
    number,
    one_of,
    parse_duration,
    read_flag,
    read_labels,
    read_name,
    read_text,
    whole,
)

NOW: Final = "2026-01-05T12:00:00Z"
"""When a case happens that does not say: a Monday."""


def _instant(value: Any) -> datetime:
    hint = f"such as {NOW}, or 2026-01-05T09:00:00+08:00"
    try:
        at = datetime.fromisoformat(read_text()(value))
    except ValueError:
        raise wrong(f"expected a date and time, not {kind_of(value)}", hint) from None
    if at.tzinfo is None:
        raise wrong("the time does not say its zone", hint)
    return at


def _anything(value: Any) -> Any:
    return value


def _mapping(value: Any) -> Any:
    if not isinstance(value, dict):
        raise wrong(f"expected a mapping, not {kind_of(value)}")
    return value


def _list(value: Any) -> Any:
    if not isinstance(value, list) or not value:
        raise wrong(f"expected a list of cases, not {kind_of(value)}", "each begins with - name: ...")
    return value


def _silences(value: Any) -> tuple[dict[str, Any], ...]:
    found = []
    mistakes = Gathered()
    for index, each in enumerate(value if isinstance(value, list) else [value]):
        try:
            found.append(read_match(_mapping(each)))
        except Mistakes as error:
            mistakes += [Mistake(at.message, at.hint, (index, *at.path), key=at.key) for at in error.mistakes]
    if mistakes:
        raise Mistakes(mistakes)
    return tuple(found)


def _version(value: Any) -> int:
    if value != 1 or isinstance(value, bool):
        raise wrong(f"expected 1, not {kind_of(value)}", "this program reads version 1 of the format")
    return 1


def _rule_id(value: Any) -> str:
    return "" if value is None else str(read_name(value))


def _ids(value: Any) -> tuple[str, ...]:
    return tuple(list_of(read_name)(value)) if value != [] else ()


_TEXT: Final = {"type": ["string", "integer"]}
_SILENCE: Final = {
    "type": "object",
    "properties": {name: {} for name in FIELDS},
    "patternProperties": {f"^{re.escape(OWN)}.": {}},
    "additionalProperties": False,
    "minProperties": 1,
}
_WAITS: Final = (Gate.BUDGET.value, Gate.BREAKER.value)
_BREAKER: Final = tuple(state.value for state in BreakerState)
_COUNT: Final = {"type": "integer", "minimum": 0}
_LONG: Final = 1 << 16

ERROR: Final[Mapping[str, Key]] = {
    "type": Key("Class of the error the function reported.", read_text(), _TEXT),
    "message": Key("Its message.", read_text(most=_LONG), _TEXT),
}

ENVELOPE: Final[Mapping[str, Key]] = {
    "function": Key("Name of the function, or service/name (FC 2.0). Default: example.", read_text(least=1), _TEXT),
    "qualifier": Key("Version or alias.", read_text(), _TEXT),
    "region": Key("Region.", read_text(), _TEXT),
    "account": Key("Account id.", read_text(), _TEXT),
    "condition": Key("The platform's word for what happened.", read_text(), _TEXT),
    "function_error": Key("Error class the platform reports.", read_text(), _TEXT),
    "error": Key("The error the function reported.", keys=ERROR),
    "invoke_count": Key("Attempts the platform made itself.", whole(0, 1_000_000), _COUNT),
    "status_code": Key("HTTP status. Default: 200.", whole(0, 999), _COUNT),
    "payload": Key("The event: a text, or anything that becomes JSON.", _anything),
    "outcome": Key(
        "failed, succeeded or succeeded_or_stopped. Default: failed.",
        one_of(outcome.value for outcome in Outcome),
        {"enum": [outcome.value for outcome in Outcome]},
    ),
    "request_id": Key("Request id. Default: 1-case.", read_text(least=1), _TEXT),
}
"""A message in the words of ``match:``. What is left out is what a message does not say."""

LINEAGE: Final[Mapping[str, Key]] = {
    "attempt": Key("Re-runs so far; the message is the result of the last.", whole(0, 1000), _COUNT, required=True),
    "age": Key("Since the first failure. Default: 0s.", parse_duration, DURATION_SCHEMA),
    "manual": Key("How many of the re-runs a person asked for. Default: 0.", whole(0, 1000), _COUNT),
}

GROUP: Final[Mapping[str, Key]] = {
    "count": Key("Failures with this fingerprint so far.", whole(0, 1_000_000_000), _COUNT, required=True),
    "age": Key("Since the first of them. Default: as `last`.", parse_duration, DURATION_SCHEMA),
    "last": Key("Since the latest of them. Default: 0s.", parse_duration, DURATION_SCHEMA),
    **{
        f"rate_{name}": Key(
            f"Failures per minute in the last {name}. Default: 0.",
            number(0, 1_000_000),
            {"type": "number", "minimum": 0},
        )
        for name in SPANS
    },
}

RERUN: Final[Mapping[str, Key]] = {
    "attempt": Key("Which re-run it is, from 1.", whole(1, 1000), {"type": "integer", "minimum": 1}),
    "after": Key("Its delay, without jitter.", parse_duration, DURATION_SCHEMA),
    "qualifier": Key("Version or alias to run.", read_text(), _TEXT),
    "waits": Key("The gate at which it waits when it is due.", one_of(_WAITS), {"enum": list(_WAITS)}),
}

BUDGET: Final[Mapping[str, Key]] = {
    "successes": Key("Successes of its first runs that gave no re-run yet. Default: 0.", whole(0, 1_000_000), _COUNT),
    "floor": Key("Re-runs that the floor has saved up. Default: 0.", whole(0, 1_000), _COUNT),
}

GATES: Final[Mapping[str, Key]] = {
    "budget": Key("What the function has left. Without it, enough.", keys=BUDGET),
    "breaker": Key("The function's circuit breaker. Default: closed.", one_of(_BREAKER), {"enum": list(_BREAKER)}),
}
"""How the function of a re-run stands when that is due."""

ALERT: Final[Mapping[str, Key]] = {
    "to": Key(
        "All receivers, in any order.",
        list_of(read_name),
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]},
    ),
    "silenced": Key(
        "Receivers that silences keep it from, in any order; an empty list: none.",
        _ids,
        {"type": "array", "items": {"type": "string"}},
    ),
    "severity": Key("Severity.", one_of(SEVERITIES), {"enum": list(SEVERITIES)}),
    "cause": Key("Why it is told.", one_of(CAUSES), {"enum": list(CAUSES)}),
    "text": Key(
        "Parts of the message's text: one, or a list.",
        list_of(read_text(most=2000, least=1)),
        {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]},
    ),
}

EXPECT: Final[Mapping[str, Key]] = {
    "rule": Key("Id of the rule that decides; null: none does.", _rule_id, {"type": ["string", "null"]}),
    "reason": Key("Word for the decision, such as matched or attempts_exhausted.", read_name, _TEXT),
    "rerun": Key("It is run again.", keys=RERUN),
    "alert": Key("Somebody is told; a list when several alerts are raised.", _anything),
    "ignore": Key("It is ignored; the reason, or a part of it.", read_text(), _TEXT),
    "hold": Key("It waits for a person; the reason, or a part of it.", read_text(), _TEXT),
    "shadow": Key(
        "Ids of all rules in shadow mode that match, in any order; an empty list: none does.",
        _ids,
        {"type": "array", "items": {"type": "string"}},
    ),
    "nothing": Key("true: nothing is done at all.", read_flag, {"type": "boolean"}),
}

CASE: Final[Mapping[str, Key]] = {
    "name": Key("What the case shows.", read_text(least=1), _TEXT, required=True),
    "envelope": Key("The message, in the words of `match`.", keys=ENVELOPE),
    "message": Key("The message, as Function Compute sends it.", _mapping, {"type": "object"}),
    "file": Key("Name of a *.json file beside this one that holds such a message.", read_text(least=1), _TEXT),
    "destination": Key(
        "What the queue receives, for `message` and `file`: both, failure or success. Default: both.",
        one_of(each.value for each in Destination),
        {"enum": [each.value for each in Destination]},
    ),
    "source": Key("Name of the source it came from. Default: local.", read_name, _TEXT),
    "labels": Key(
        "Labels of the function, which the configuration gives it otherwise.",
        read_labels,
        {"type": "object", "additionalProperties": _TEXT},
    ),
    "lineage": Key("The message is the result of a re-run.", keys=LINEAGE),
    "group": Key("Failures like it were seen before.", keys=GROUP),
    "gates": Key("How the function stands when its re-run is due.", keys=GATES),
    "silences": Key(
        "Silences in force, each with what an alert must have, as `triage silence add --match` takes it.",
        _silences,
        {"type": "array", "items": _SILENCE, "minItems": 1},
    ),
    "now": Key(f"When it is decided. Default: {NOW}, a Monday.", _instant, {"type": "string"}),
    "expect": Key("What must come of it.", keys=EXPECT, required=True),
}

FILE: Final[Mapping[str, Key]] = {
    "version": Key("Version of this format: 1.", _version, {"const": 1}, required=True),
    "cases": Key("The cases.", _list, required=True),
}
