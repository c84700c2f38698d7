"""JSON Schema of a rule file, for editors: made from the tables that the loader reads by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from triage.rules.keys import FILE, RULE, Key
from triage.rules.matchers import ERROR_DOC, ERROR_FIELDS, FIELDS, PAYLOAD_DOC

_MATCH: Final = {"$ref": "#/$defs/matcher"}
_MATCH_LIST: Final = {"type": "array", "items": _MATCH, "minItems": 1}

_ACTIONS: Final = ("rerun", "hold", "alert")

MATCHER: Final[Mapping[str, Any]] = {
    "description": "Equal; a glob with * or ?; a /regular expression/; a list (any of them); not, any or all.",
    "anyOf": [
        {"type": ["string", "number", "boolean", "null"]},
        _MATCH_LIST,
        {
            "type": "object",
            "properties": {"not": _MATCH, "any": _MATCH_LIST, "all": _MATCH_LIST},
            "additionalProperties": False,
            "minProperties": 1,
        },
    ],
}


def rules_schema() -> dict[str, Any]:
    """The schema, draft 2020-12. It finds unknown keys and wrong types; only the loader checks expressions and ids."""
    schema = _object(FILE)
    rule = _object(RULE)
    rule["properties"]["match"] = {"description": RULE["match"].doc, **_match()}
    rule["oneOf"] = [
        {"required": ["ignore"], "properties": dict.fromkeys((*_ACTIONS, "continue"), False)},
        {"properties": {"ignore": False}, "anyOf": [{"required": [name]} for name in _ACTIONS]},
    ]
    schema["properties"]["rules"] |= {"type": "array", "items": {"$ref": "#/$defs/rule"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Rule file of triage",
        **schema,
        "$defs": {"rule": rule, "matcher": dict(MATCHER)},
    }


def _object(keys: Mapping[str, Key]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            name: {"description": key.doc, **(_object(key.keys) if key.keys else key.schema)}
            for name, key in keys.items()
        },
        "required": [name for name, key in keys.items() if key.required],
        "additionalProperties": False,
    }


def _match() -> dict[str, Any]:
    fields = {name: {"description": field.doc, **_MATCH} for name, field in FIELDS.items()}
    error = {name: {"description": field.doc, **_MATCH} for name, field in ERROR_FIELDS.items()}
    return {
        "type": "object",
        "properties": {
            **fields,
            "error": {
                "description": ERROR_DOC,
                "type": "object",
                "properties": error,
                "additionalProperties": False,
            },
            "payload": {"description": PAYLOAD_DOC, "type": "object", "additionalProperties": _MATCH},
        },
        "additionalProperties": False,
    }
