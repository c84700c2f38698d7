"""What people do, as a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deed:
    """What a person did, and why: kept for ever. ``root`` and ``request_id`` say to which failure, ``about`` to what
    else.
    """

    by: str
    action: str
    reason: str
    root: str = ""
    request_id: str = ""
    about: str = ""
