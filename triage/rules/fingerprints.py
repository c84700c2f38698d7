"""``fingerprint`` of a rule: what makes failures the same for its alerts, by names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from triage.facts import Arrival
from triage.fingerprint import fingerprint_of, mask
from triage.rules.mistakes import did_you_mean, kind_of, wrong
from triage.rules.readers import read_text
from triage.subject import parse_payload

_VALUES: Final[Mapping[str, Callable[[Arrival], object]]] = {
    "function": lambda arrival: arrival.envelope.function.label,
    "qualifier": lambda arrival: arrival.envelope.function.qualifier,
    "region": lambda arrival: arrival.envelope.function.region,
    "account": lambda arrival: arrival.envelope.function.account,
    "condition": lambda arrival: arrival.envelope.condition,
    "error.type": lambda arrival: arrival.envelope.error.type,
    "error.message": lambda arrival: mask(arrival.envelope.error.message),
    "status_code": lambda arrival: arrival.envelope.status_code,
    "source": lambda arrival: arrival.source,
}
NAMES: Final = tuple(_VALUES)
"""What the ``fingerprint`` of a rule may list, beside ``labels.NAME`` and ``payload.PATH``."""

_OPEN: Final = r"(?:labels|payload)\.[^.].*"
PATTERN: Final = rf"(?:{'|'.join(map(re.escape, NAMES))}|{_OPEN})"


def read_fingerprinted(value: Any) -> str:
    """One of the names.

    Raises:
        Mistakes: it is none.
    """
    name = read_text(least=1)(value)
    if re.fullmatch(PATTERN, name):
        return str(name)
    hint = did_you_mean(name, (*NAMES, "labels.NAME", "payload.PATH"))
    raise wrong(f"failures have no {kind_of(value)} to be told apart by", hint)


def own_fingerprint(arrival: Arrival, names: Sequence[str]) -> str:
    """The fingerprint of a rule that lists what counts; the message counts with its variable parts masked."""
    return fingerprint_of(f"{name}={_value(arrival, name)}" for name in names)


def _value(arrival: Arrival, name: str) -> object:
    if name in _VALUES:
        return _VALUES[name](arrival)
    root, _, path = name.partition(".")
    if root == "labels":
        return arrival.labels.get(path, "")
    value = parse_payload(arrival.envelope.request_payload)
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return json.dumps(value, sort_keys=True)
