"""Which failures are the same failure: a deterministic, versioned fingerprint.

The variable parts of an error message (ids, numbers, addresses, paths, times, quoted texts) are masked; what is left,
with the error type, the function and the condition, is hashed. The version stands in front, so that a change of the
masks never silently joins or splits groups.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Final

VERSION: Final = 1

_MASKS: Final = re.compile(
    r"(?P<uuid>\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b|\b1-[0-9a-fA-F]{8}-[0-9a-fA-F]{8}-[0-9a-fA-F]{12}\b)"
    r"|(?P<url>\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+)"
    r"|(?P<time>\b\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?\b)"
    r"|(?P<quoted>'[^'\n]{1,200}'|\"[^\"\n]{1,200}\"|`[^`\n]{1,200}`)"
    r"|(?P<address>\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b)"
    r"|(?P<path>(?<![\w.])(?:/[\w.@+-]+){2,}/?)"
    r"|(?P<hex>\b0x[0-9a-fA-F]+\b|\b(?=[0-9a-fA-F]*\d)(?=[0-9a-fA-F]*[a-fA-F])[0-9a-fA-F]{8,}\b)"
    r"|(?P<number>\d+(?:[.,]\d+)*)"
)

_LIMIT: Final = 2000
"""Characters of a message that are looked at. Two failures that differ only past that are the same."""


@lru_cache(maxsize=8192)
def mask(message: str) -> str:
    """Replace the variable parts of an error message by their kind, in angle brackets, and fold white space."""
    masked = _MASKS.sub(lambda found: f"<{found.lastgroup}>", message[:_LIMIT])
    return " ".join(masked.split())


@lru_cache(maxsize=8192)
def fingerprint(*, function: str, condition: str, error_type: str, message: str) -> str:
    """``v1-`` and 16 hexadecimal digits, the same on every replica and after every restart."""
    text = "\x1f".join((function, condition, error_type, mask(message)))
    return f"v{VERSION}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:16]}"
