"""Answers of the Function Compute API: what each means for the one who asked, and the values in them. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final


class Action(StrEnum):
    """What to do about an answer."""

    OK = "ok"
    ALREADY = "already"  # the task id is known: an earlier submit arrived
    ABSENT = "absent"  # no such task or configuration
    RETRY = "retry"  # refused for now; nothing was done
    UNKNOWN = "unknown"  # the service failed on the way; it may have been done
    REFRESH = "refresh"  # these credentials are not accepted
    SET_CLOCK = "set_clock"  # the signature's date is too far off
    REFUSE = "refuse"  # no, and no again


@dataclass(frozen=True, slots=True)
class Verdict:
    """The action, a word for it from a closed set, and how long the service wants to be left alone, if it said so."""

    action: Action
    reason: str = ""
    retry_after: timedelta | None = None


_GONE: Final = frozenset({"", "FunctionNotFound", "ServiceNotFound", "VersionNotFound", "AliasNotFound"})
_SKEW: Final = frozenset({"InvalidTimeStamp.Expired", "InvalidTimeStamp.Format", "RequestTimeTooSkewed", "TimeExpired"})


def classify(status: int, code: str, headers: Mapping[str, str]) -> Verdict:
    """Judge an answer by HTTP status, error code (may be empty) and headers (lower-case names).

    Codes: https://help.aliyun.com/zh/functioncompute/api-fc-2023-03-30-errorcodes. A duplicate task id is told by the
    status 409 alone, since the code for it is published for FC 2.0 only.
    """
    if 200 <= status < 300:
        return Verdict(Action.OK)
    if status >= 400 and "x-acs-retry-after" in headers:
        # The official SDK takes any error that carries this header for throttling, whatever the status.
        return Verdict(Action.RETRY, "throttled", _retry_after(headers["x-acs-retry-after"]))
    if code in _SKEW:
        return Verdict(Action.SET_CLOCK, "clock_skew")
    if status in (401, 403) or code.startswith("InvalidSecurityToken"):
        return Verdict(Action.REFRESH, "access_denied")
    if status == 409:
        return (
            Verdict(Action.RETRY, "conflict") if code == "ConcurrentUpdateError" else Verdict(Action.ALREADY, "known")
        )
    if status == 404:
        return Verdict(Action.REFUSE, "not_found") if code in _GONE else Verdict(Action.ABSENT, "not_found")
    if status in (429, 503):
        return Verdict(Action.RETRY, "throttled")
    if status in (408, 499) or status >= 500:
        # An error inside the service does not say how far the request came.
        return Verdict(Action.UNKNOWN, "server_error")
    if status == 413 or code == "EntityTooLarge":
        return Verdict(Action.REFUSE, "too_large")
    return Verdict(Action.REFUSE, "bad_request" if status >= 400 else "unexpected_answer")


def _retry_after(value: str) -> timedelta | None:
    """A positive integer, milliseconds; capped, since a far side must not park us for a week."""
    if not (value.isascii() and value.isdigit() and int(value[:12]) > 0):
        return None
    return min(timedelta(milliseconds=int(value[:12])), timedelta(hours=1))


@dataclass(frozen=True, slots=True)
class Submitted:
    """An invocation that FC has taken.

    Attributes:
        request_id: of the invocation; empty when ``already``, ask `FcClient.get_task` for it then.
        task_id: as FC confirmed it.
        already: FC knew the task id, so an earlier submit of ours had arrived.
    """

    request_id: str
    task_id: str
    already: bool


@dataclass(frozen=True, slots=True)
class Task:
    """One asynchronous task. ``status`` is an open set: Enqueued, Dequeued, Running, Retrying, Succeeded, Failed,
    Stopping, Stopped, Expired, Invalid.

    Attributes:
        error: an error code, or what the function said of its error.
        payload: the event; None where the answer does not tell it.
        result: what the function returned, for a failure its error object; only where the answer tells it.
        detail: of the last event that has one.
    """

    task_id: str
    request_id: str
    status: str
    started_at: datetime | None = None
    ended_at: datetime | None = None
    retries: int = 0
    error: str = ""
    payload: str | None = None
    destination_status: str = ""
    function_arn: str = ""
    result: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TaskPage:
    """Some tasks; ``next_token`` asks for the following ones and is empty on the last page."""

    tasks: tuple[Task, ...]
    next_token: str


@dataclass(frozen=True, slots=True)
class AsyncConfig:
    """How a function treats asynchronous invocations. Destinations are ARNs, empty when none is set.

    Only with ``async_task`` are task ids kept, and only then does FC refuse one that it knows.
    """

    async_task: bool
    retries: int | None = None
    age: timedelta | None = None
    on_success: str = ""
    on_failure: str = ""


def error_of(status: int, body: bytes) -> tuple[str, str]:
    """Error code and message; the names differ between the API's generations."""
    if status < 400:
        return "", ""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(data, dict):
        return "", ""
    code = data.get("Code") or data.get("code") or data.get("ErrorCode") or data.get("errorCode") or ""
    message = data.get("Message") or data.get("message") or data.get("ErrorMessage") or data.get("errorMessage") or ""
    return str(code)[:100], str(message)[:300]


def read_task(data: Mapping[str, Any]) -> Task:
    """Read one task; FC 2.0 calls it an invocation."""
    payload = data.get("taskPayload", data.get("invocationPayload"))
    details = [str(event.get("eventDetail") or "") for event in data.get("events") or ()]
    return Task(
        task_id=str(data.get("taskId") or data["invocationId"]),
        request_id=str(data.get("requestId") or ""),
        status=str(data["status"]),
        started_at=_instant(data.get("startedTime")),
        ended_at=_instant(data.get("endTime")),
        retries=int(data.get("alreadyRetriedTimes") or 0),
        error=str(data.get("taskErrorMessage") or data.get("invocationErrorMessage") or ""),
        payload=None if payload is None else str(payload),
        destination_status=str(data.get("destinationStatus") or ""),
        function_arn=str(data.get("functionArn") or ""),
        result=str(data.get("returnPayload") or ""),
        detail=next(filter(None, reversed(details)), ""),
    )


def read_task_page(data: Mapping[str, Any]) -> TaskPage:
    """Read one page of tasks."""
    tasks = data.get("tasks") or data.get("invocations") or ()
    return TaskPage(tuple(read_task(task) for task in tasks), str(data.get("nextToken") or ""))


def read_async_config(data: Mapping[str, Any]) -> AsyncConfig:
    """Read a function's configuration for asynchronous invocations."""
    destinations = data.get("destinationConfig") or {}
    retries, age = data.get("maxAsyncRetryAttempts"), data.get("maxAsyncEventAgeInSeconds")
    return AsyncConfig(
        async_task=bool(data.get("asyncTask") or data.get("statefulInvocation")),
        retries=None if retries is None else int(retries),
        age=None if age is None else timedelta(seconds=int(age)),
        on_success=str((destinations.get("onSuccess") or {}).get("destination") or ""),
        on_failure=str((destinations.get("onFailure") or {}).get("destination") or ""),
    )


def _instant(milliseconds: Any) -> datetime | None:
    """0 means: not yet."""
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC) if milliseconds else None
