"""When the next attempt is due."""

from __future__ import annotations

import hashlib
from datetime import timedelta


def next_delay(
    *, first: timedelta, factor: float, longest: timedelta, jitter: float, attempt: int, spread: float
) -> timedelta:
    """Delay before ``attempt`` (from 1): grows by ``factor`` each time up to ``longest``, then spread by ``jitter``.

    ``spread`` is in [0, 1); the delay ends between ``1 - jitter`` and ``1 + jitter`` times its plain length.
    """
    exponent = min(attempt - 1, 64)  # past that any factor worth having has reached the cap; floats overflow later
    seconds = min(first.total_seconds() * factor**exponent, longest.total_seconds())
    return timedelta(seconds=seconds * (1 + jitter * (2 * spread - 1)))


def spread_of(key: str) -> float:
    """A number in [0, 1) that depends on nothing but ``key``, so that a replay reaches the same instant."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "replace")).digest()[:6]) / (1 << 48)
