"""Identity of a re-run, and what is known of the one before it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NewType

from triage.envelope import RequestId
from triage.facts import Arrival, Lineage

TaskId = NewType("TaskId", str)


class Origin(StrEnum):
    """Who wanted one attempt of a lineage."""

    AUTOMATIC = "automatic"  # a rule
    APPROVAL = "approval"  # a person, asked by a rule that holds
    MANUAL = "manual"  # a person, for one failure or success
    PLAN = "plan"  # a person, for many at once
    ELSEWHERE = "elsewhere"  # somebody who did not ask triage, such as a user of the provider's console


def task_id(root: RequestId, attempt: int) -> TaskId:
    """The asynchronous task id of one attempt of one lineage; the same after every crash and on every replica.

    FC refuses a task id it knows with 409, which is what makes a re-run happen at most once. It takes
    ``[A-Za-z_][A-Za-z0-9_-]{0,127}``; a request id may hold anything, hence the digest.
    """
    return TaskId(f"triage-{hashlib.sha256(root.encode('utf-8', 'replace')).hexdigest()[:32]}-{attempt}")


def hold_code(root: str) -> str:
    """Eight characters by which a person names a held failure; derived, so that an alert and a list say the same.

    No letter that is mistaken for a digit, and no hyphen, which tells it from most request ids. Two of a thousand held
    failures share one with a chance of one in two million; whoever takes a code must look for that.
    """
    digest = hashlib.sha256(b"hold/" + root.encode("utf-8", "replace")).digest()
    number, more = int.from_bytes(digest[:4]), int.from_bytes(digest[4:6])
    # Alerts that are still kept have only the first six.
    first = "".join(_ALPHABET[number >> shift & 31] for shift in range(0, 30, 5))
    return first + _ALPHABET[more & 31] + _ALPHABET[more >> 5 & 31]


_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def payload_key(function: str, payload: bytes) -> str:
    """Function and payload as one short key: joins a result that overtook the answer to its own submit."""
    return hashlib.sha256(function.encode("utf-8", "replace") + b"\x1f" + payload).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store knows of a request id, read in the transaction of the order.

    Attributes:
        request_id: the stored envelope that the order is about.
        arrival: the first one of its lineage, whose event is run again; None when it is gone.
        lineage: None for a success that belongs to none.
        last: the payload of the lineage's newest re-run or hold row.
    """

    request_id: RequestId
    arrival: Arrival | None
    lineage: Lineage | None
    last: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """Another name of a lineage: the request id or the task id of one of its attempts.

    ``origin`` is told by the link that an attempt begins with, mostly that of its task id.
    """

    key: str
    root: RequestId
    attempt: int
    origin: Origin | None = None
