"""JSON Schema of a rule file, for editors: made from the tables that the loader reads by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from triage.rules.keys import FILE, RULE, WINDOW, Key
from triage.rules.matchers import COMBINATIONS, ERROR_FIELDS, FIELDS, GROUPS, REFERENCES

_MATCH: Final = {"$ref": "#/$defs/match"}
_MATCHES: Final = {"type": "array", "items": _MATCH, "minItems": 1}
_VALUE: Final = {"$ref": "#/$defs/matcher"}
_VALUES: Final = {"type": "array", "items": _VALUE, "minItems": 1}

_ACTIONS: Final = ("rerun", "hold", "alert")

MATCHER: Final[Mapping[str, Any]] = {
    "description": "Equal; a glob with * or ?; a /regular expression/; a list (any of them); not, any or all.",
    "anyOf": [
        {"type": ["string", "number", "boolean", "null"]},
        _VALUES,
        {
            "type": "object",
            "properties": {"not": _VALUE, "any": _VALUES, "all": _VALUES},
            "additionalProperties": False,
            "minProperties": 1,
        },
    ],
}


def rules_schema() -> dict[str, Any]:
    """The schema, draft 2020-12. It finds unknown keys and wrong types; only the loader checks expressions and ids."""
    schema = object_schema(FILE)
    rule = object_schema(RULE)
    rule["properties"]["match"] |= _MATCH
    rule["oneOf"] = [
        {"required": ["ignore"], "properties": dict.fromkeys((*_ACTIONS, "continue"), False)},
        {"properties": {"ignore": False}, "anyOf": [{"required": [name]} for name in _ACTIONS]},
    ]
    schema["properties"]["conditions"] |= {"type": "object", "additionalProperties": _MATCH}
    schema["properties"]["windows"] |= {"type": "object", "additionalProperties": object_schema(WINDOW)}
    schema["anyOf"] = [{"required": [name]} for name in ("rules", "conditions", "windows")]
    schema["properties"]["rules"] |= {"type": "array", "items": {"$ref": "#/$defs/rule"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Rule file of triage",
        **schema,
        "$defs": {"rule": rule, "match": _match(), "matcher": dict(MATCHER)},
    }


def object_schema(keys: Mapping[str, Key]) -> dict[str, Any]:
    """The schema of a mapping with these keys."""
    return {
        "type": "object",
        "properties": {
            name: {"description": key.doc, **(object_schema(key.keys) if key.keys else key.schema)}
            for name, key in keys.items()
        },
        "required": [name for name, key in keys.items() if key.required],
        "additionalProperties": False,
    }


def _match() -> dict[str, Any]:
    properties = {name: {"description": field.doc, **_VALUE} for name, field in FIELDS.items()}
    groups: dict[str, Any] = {name: {"type": "object", "additionalProperties": _VALUE} for name in GROUPS}
    groups["error"] = {
        "type": "object",
        "properties": {name: {"description": field.doc, **_VALUE} for name, field in ERROR_FIELDS.items()},
        "additionalProperties": False,
    }
    references = dict.fromkeys(REFERENCES, _VALUE)
    combinations = {"any": _MATCHES, "all": _MATCHES, "not": _MATCH}
    sections: list[tuple[Mapping[str, str], Mapping[str, Any]]] = [
        (GROUPS, groups),
        (REFERENCES, references),
        (COMBINATIONS, combinations),
    ]
    for docs, shapes in sections:
        properties |= {name: {"description": docs[name], **shape} for name, shape in shapes.items()}
    return {"type": "object", "properties": properties, "additionalProperties": False}
