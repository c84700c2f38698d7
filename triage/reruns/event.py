"""Whether a task can be run again with the event that its result tells. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from triage.envelope import Envelope

MAX_EVENT: Final = 256 << 10
"""Bytes. FC takes no larger event for an asynchronous invocation: 128 KiB, or up to this when the account's limit was
raised, which nobody but FC knows: https://help.aliyun.com/en/functioncompute/http-body-be-modified."""


class Unfit(StrEnum):
    """Why an event cannot be run. The platform documents no mark for one that was cut: what can be known is that there
    is none at all, and that it is longer than any that the platform takes.
    """

    NO_PAYLOAD = "no_payload"
    TOO_LARGE = "payload_too_large"


def unfit(envelope: Envelope) -> Unfit | None:
    """Why it cannot be run; None when it can."""
    if not envelope.has_payload:
        return Unfit.NO_PAYLOAD
    return Unfit.TOO_LARGE if len(envelope.request_payload) > MAX_EVENT else None


def unfit_text(envelope: Envelope) -> str:
    """The same for a person; empty when it can be run."""
    match unfit(envelope):
        case Unfit.NO_PAYLOAD:
            return "the message did not hold the event that the function was called with"
        case Unfit.TOO_LARGE:
            size = len(envelope.request_payload)
            return f"the event has {size:,} bytes; Function Compute takes {MAX_EVENT:,} at most"
    return ""
