"""Labels that alerts are grouped by, and what keeps groups quiet that are equal in them."""

from __future__ import annotations

import re
from typing import Any, Final

from triage.rules.course import Inhibition
from triage.rules.readers import NAME, Read, list_of, one_of, read_fields, read_name

GROUP_BY: Final = (
    "function", "region", "account", "condition", "error_type", "error_message", "fingerprint", "rule", "owner",
)  # fmt: skip
"""Labels of an alert that alerts can be grouped by, beside ``labels.NAME``."""

GROUP_BY_SCHEMA: Final = {"anyOf": [{"enum": list(GROUP_BY)}, {"type": "string", "pattern": rf"^labels\.{NAME}$"}]}


def read_group_label(value: Any) -> str:
    """A label that alerts can be grouped by."""
    if isinstance(value, str) and re.fullmatch(rf"labels\.{NAME}", value, re.ASCII):
        return value
    return str(one_of((*GROUP_BY, "labels.NAME"))(value))


def read_inhibition(value: Any) -> Inhibition:
    """A cause: the id of its rule, or a mapping of ``rule`` and ``equal``."""
    if not isinstance(value, dict):
        return Inhibition(read_name(value))
    readers: dict[str, Read] = {"rule": read_name, "equal": list_of(read_group_label)}
    found = read_fields(value, readers, needed={"rule": "the rule whose groups are the cause"})
    return Inhibition(found["rule"], tuple(found.get("equal", ())))
