"""JSON Schema of a case file, for editors: made from the tables that the loader reads by."""

from __future__ import annotations

from typing import Any

from triage.rules import case_keys
from triage.rules.schema import object_schema


def cases_schema() -> dict[str, Any]:
    """The schema, draft 2020-12."""
    schema = object_schema(case_keys.FILE)
    case = object_schema(case_keys.CASE)
    case["oneOf"] = [{"required": [form]} for form in ("envelope", "message", "file")]
    alert = object_schema(case_keys.ALERT)
    alerts = {"anyOf": [alert, {"type": "array", "items": alert, "minItems": 1}]}
    case["properties"]["expect"]["properties"]["alert"] |= alerts
    schema["properties"]["cases"] |= {"type": "array", "items": case, "minItems": 1}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Test cases of rules of triage",
        **schema,
    }
