"""Identity of a re-run."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import NewType

from triage.envelope import RequestId

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


def payload_key(function: str, payload: bytes) -> str:
    """Function and payload as one short key: joins a result that overtook the answer to its own submit."""
    return hashlib.sha256(function.encode("utf-8", "replace") + b"\x1f" + payload).hexdigest()[:32]
