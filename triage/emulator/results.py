"""How an execution ends, in the vendor's words: error objects, and the destination message.

Shapes follow the pages on error handling per runtime
(https://www.alibabacloud.com/help/en/functioncompute/fc/error-handling-1-1) and on result callbacks
(https://www.alibabacloud.com/help/en/fc/user-guide/result-callback).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from triage.emulator.scenario import Crash, Exhausted, Fail, Function, Runtime, Step, Succeed, TimeOut

MAX_MESSAGE: Final = 64 << 10
"""Bytes of a queue message. A larger result never arrives."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How one attempt ended.

    Attributes:
        condition: error code of the invocation; empty for a success.
        function_error: error class of the function; empty when the function is not at fault.
        payload: what it returned, or the error object as JSON text.
        lasted: emulated duration.
        retried: the platform tries again after such an end.
        lost: nobody is told of it.
    """

    condition: str
    function_error: str
    status: int
    payload: str
    lasted: timedelta
    retried: bool
    lost: bool = False

    @property
    def failed(self) -> bool:
        """Whether it counts as a failure."""
        return bool(self.condition) or self.status != 200


STOPPED: Final = Ending("", "", 200, "", timedelta(0), retried=False)
"""A stopped task. The one published sample has all fields empty, as for a success."""


def ending(step: Step, function: Function, *, event: str, error_class: str) -> Ending:
    """End of one execution that took ``step``. ``error_class`` is the usual condition of the API's generation."""
    lasts = function.takes if step.takes is None else step.takes
    if isinstance(step, TimeOut) or lasts > function.timeout:
        message = (
            f"Function timed out after {_seconds(function.timeout)} seconds (maxMemoryUsage: {function.memory_mb}MB)"
        )
        return Ending(error_class, error_class, 200, _json({"errorMessage": message}), function.timeout, retried=True)
    match step:
        case Succeed():
            return Ending("", "", 200, event if step.returns is None else step.returns, lasts, retried=False)
        case Fail():
            condition = error_class if step.condition is None else step.condition
            payload = _json(_ERRORS[step.runtime](step.type, step.message))
            return Ending(condition, condition, step.status, payload, lasts, retried=True)
        case Crash():
            message = (
                "Process exited unexpectedly before completing request "
                f"(duration: {round(lasts.total_seconds() * 1000)}ms, maxMemoryUsage: {function.memory_mb}MB)"
            )
            return Ending(error_class, error_class, 200, _json({"errorMessage": message}), lasts, retried=True)
        case Exhausted():
            # No instance, so nothing of the function; the current page on retries says that it is not tried again.
            return Ending("FunctionResourceExhausted", "", 200, "", timedelta(0), retried=False)
        case _:
            raise TypeError(f"{step.do} is no end of an execution")


def destination_message(
    end: Ending, *, request_id: str, function_arn: str, event: str, attempts: int, at: datetime
) -> bytes:
    """The JSON that FC pushes. ``at`` is when the last attempt began, which fits the published sample best."""
    message = {
        "timestamp": int(at.timestamp() * 1000),
        "requestContext": {
            "requestId": request_id,
            "functionArn": function_arn,
            "condition": end.condition,
            "approximateInvokeCount": attempts,
        },
        "requestPayload": event,
        "responseContext": {"statusCode": end.status, "functionError": end.function_error},
        "responsePayload": end.payload,
    }
    return _json(message).encode("utf-8", "surrogatepass")


def queue_body(message: bytes, encoding: str) -> bytes:
    """The text as it stands in the queue, ``raw`` or ``base64``."""
    return base64.b64encode(message) if encoding == "base64" else message


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _seconds(duration: timedelta) -> str:
    return f"{duration.total_seconds():g}"


def _python(kind: str, message: str) -> dict[str, Any]:
    frame = ['File "/code/index.py"', "line 2", "in handler", f"raise {kind}({message!r})"]
    return {"errorMessage": message, "errorType": kind, "stackTrace": [frame]}


def _nodejs(kind: str, message: str) -> dict[str, Any]:
    frames = [f"{kind}: {message}", "    at handler (file:///code/index.mjs:2:9)"]
    return {"errorMessage": message, "errorType": kind, "stackTrace": frames}


def _java(kind: str, message: str) -> dict[str, Any]:
    cause = {"errorMessage": message, "errorType": kind, "stackTrace": ["example.App.work(App.java:21)"]}
    return {
        "errorMessage": message,
        "errorType": kind,
        "errorCause": cause,
        "stackTrace": ["example.App.handleRequest(App.java:12)"],
    }


def _go(kind: str, message: str) -> dict[str, Any]:
    frames = [{"path": "/code/main.go", "line": 14, "label": "handle"}]
    return {"errorMessage": message, "errorType": kind, "stackTrace": frames}


def _php(kind: str, message: str) -> dict[str, Any]:
    trace = {"file": "/code/index.php", "line": 3, "traceString": "#0 /var/fc/runtime/php: handler()"}
    return {"errorMessage": message, "errorType": kind, "stackTrace": trace}


_ERRORS: Final[Mapping[Runtime, Callable[[str, str], dict[str, Any]]]] = {
    Runtime.PYTHON: _python,
    Runtime.NODEJS: _nodejs,
    Runtime.JAVA: _java,
    Runtime.GO: _go,
    Runtime.PHP: _php,
}
