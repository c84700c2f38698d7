"""Takes personal and secret data out of what is searched, told and shown. Pure.

The message itself is kept as it came, sealed: a re-run must be byte for byte what failed, and rules decide by what was
there. Everything that is made of it (columns, groups, alerts, the log, pages) is made of the redacted text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Final

from triage.envelope import ErrorInfo
from triage.facts import Arrival

REDACTED: Final = "[redacted]"
MARKS: Final = re.compile(r"\[(?:redacted|email|card|phone|resident_id|access_key|token)\]")
"""What stands in the place of what was taken out."""


def _luhn(text: str) -> bool:
    """Whether a card number's check digit is right."""
    digits = [int(each) for each in text if each.isdigit()]
    doubled = [sum(divmod(2 * each, 10)) for each in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _resident(text: str) -> bool:
    """Whether the check character of a Chinese resident identity number is right (GB 11643)."""
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = sum(weight * int(digit) for weight, digit in zip(weights, text, strict=False))
    return "10X98765432"[total % 11] == text[-1].upper()


_Check = Callable[[str], bool]

# No pattern may take more than linear time: bounded repeats, and none inside another.
DETECTORS: Final[Mapping[str, tuple[re.Pattern[str], _Check | None]]] = {
    name: (re.compile(pattern), check)
    for name, pattern, check in (
        ("email", r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}", None),
        ("card", r"(?<![\w.+])\d(?:[ -]?\d){12,18}(?!\w)", _luhn),
        (
            "phone",
            (
                r"(?<![\w.])(?:\+86[ -]?)?1[3-9]\d[ -]?\d{4}[ -]?\d{4}(?!\w)"
                r"|(?<!\w)\+\d{1,3}[ -]?\d(?:[ -]?\d){6,12}(?!\w)"
            ),
            None,
        ),
        ("resident_id", r"(?<!\w)[1-9]\d{16}[\dXx](?!\w)", _resident),
        (
            "access_key",
            r"(?<!\w)(?:LTAI[A-Za-z0-9]{12,26}|STS\.[A-Za-z0-9]{16,64}|AKIA[A-Z0-9]{16})(?!\w)",
            None,
        ),
        (
            "token",
            (
                r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{5,4096}\.[A-Za-z0-9_-]{5,8192}\.[A-Za-z0-9_-]{0,1024}"
                r"|(?i:bearer|basic) [A-Za-z0-9._~+/-]{16,4096}=*"
                r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[A-Za-z0-9+/=\s\\]{0,16384}"
                r"(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?"
            ),
            None,
        ),
    )
}
"""What can be found in any text, by name; where there is a check, it must hold, too."""

DEPTH: Final = 100
"""Levels of an event that paths look into; what is deeper goes as a whole."""


@dataclass(frozen=True, slots=True)
class Redaction:
    """What is taken out.

    Attributes:
        paths: keys and positions, from the outside, of values inside events and answers that are JSON; ``*`` in a key
            stands for any part of it, ``**`` for any number of keys.
        detectors: names of `DETECTORS`.
    """

    paths: tuple[tuple[str, ...], ...] = ()
    detectors: tuple[str, ...] = ()

    @classmethod
    def of(cls, paths: Sequence[str], detectors: Sequence[str]) -> Redaction:
        """From paths as they are written: keys with dots between them."""
        return cls(tuple(tuple(path.split(".")) for path in paths), tuple(detectors))

    def __bool__(self) -> bool:
        return bool(self.paths or self.detectors)

    def text(self, value: str) -> str:
        """A text without what the detectors find."""
        for name in self.detectors:
            pattern, check = DETECTORS[name]
            value = pattern.sub(lambda found, name=name, check=check: _put(found, name, check), value)  # type: ignore[misc]
        return value

    def payload(self, value: str) -> str:
        """An event or answer: JSON without the values at the paths, and any text without what the detectors find."""
        if self.paths and value.lstrip()[:1] in ("{", "["):
            with suppress(ValueError, RecursionError):  # no JSON, so there are no paths in it
                value = json.dumps(self._without(json.loads(value), self.paths, 0), ensure_ascii=False)
        return self.text(value)

    def _without(self, value: Any, paths: Sequence[tuple[str, ...]], depth: int) -> Any:
        if depth > DEPTH:
            return REDACTED
        if isinstance(value, dict):
            return {key: self._at(str(key), inner, paths, depth) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._at(str(number), inner, paths, depth) for number, inner in enumerate(value)]
        return value

    def _at(self, key: str, value: Any, paths: Sequence[tuple[str, ...]], depth: int) -> Any:
        below: list[tuple[str, ...]] = []
        for path in paths:
            below += _below(path, key)
        return REDACTED if () in below else self._without(value, below, depth + 1) if below else value

    def arrival(self, arrival: Arrival) -> Arrival:
        """An envelope as it is told of: with its error redacted. Event and body stay, for the re-run."""
        if not self.detectors:
            return arrival
        error = arrival.envelope.error
        shown = ErrorInfo(*(self.text(each) for each in (error.type, error.message, error.stack)))
        return arrival if shown == error else replace(arrival, envelope=replace(arrival.envelope, error=shown))

    def body(self, body: str) -> str:
        """A stored message, to be shown: with its event and its answer redacted."""
        try:
            message = json.loads(body)
        except (ValueError, RecursionError):
            return self.text(body)
        if not isinstance(message, dict):
            return self.text(body)
        for name in ("requestPayload", "responsePayload"):
            if isinstance(message.get(name), str):
                message[name] = self.payload(message[name])
        return self.text(json.dumps(message, ensure_ascii=False))


NOTHING: Final = Redaction()


def _below(path: tuple[str, ...], key: str) -> list[tuple[str, ...]]:
    """What is left of a path inside the value at ``key``; ``()`` when it is that value; nothing when it leads away."""
    if not path:
        return []
    if path[0] == "**":  # none of the keys, this one, or this one and more
        return [*_below(path[1:], key), path]
    return [path[1:]] if fnmatchcase(key, path[0]) else []


def _put(found: re.Match[str], name: str, check: _Check | None) -> str:
    return found[0] if check is not None and not check(found[0]) else f"[{name}]"
