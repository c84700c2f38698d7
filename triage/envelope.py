"""The destination message: what Function Compute (FC) pushes when an asynchronous invocation has ended.

The vendor's page "result callback" gives the fields and marks none as optional, yet templates, samples and two product
generations differ. So: ``requestId`` and ``functionArn`` are required, everything else may be absent, unknown keys are
kept, and whatever is not a destination message raises `InvalidEnvelope` with the reason, so that the raw bytes can be
kept aside instead of being lost.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Final, NewType

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import from_json

from triage.body import is_md5_of, md5_of, plain, topic_json, topic_xml
from triage.errors import InvalidEnvelope

RequestId = NewType("RequestId", str)

MAX_BODY: Final = 4 << 20
"""Bytes. The largest destination FC knows (RocketMQ) takes 4 MB; SMQ takes 64 KB."""

REASONS: Final = (
    "empty", "too_large", "md5_mismatch", "not_utf8", "not_base64", "not_json", "not_object", "schema", "bad_arn",
    "bad_wrapper", "unreadable",
)  # fmt: skip
"""Every ``InvalidEnvelope.reason``. ``unreadable`` comes from a source that could not even read the message."""


RECONSTRUCTED: Final = "reconstructed:"
"""How the digest begins of an envelope that nobody sent: it was made from what the provider says of a task. No message
can have such a digest."""


class Destination(StrEnum):
    """Which results a queue was configured to receive (``destinationConfig`` of the function)."""

    BOTH = "both"
    FAILURE = "failure"
    SUCCESS = "success"


class Outcome(StrEnum):
    """How the invocation ended, as far as the message tells."""

    FAILED = "failed"
    SUCCEEDED = "succeeded"
    AMBIGUOUS = "succeeded_or_stopped"
    """All fields are empty and the status is 200: FC sends that for a success and, it seems, for a stopped task."""


def _instant(value: Any) -> Any:
    """Epoch milliseconds (all current messages) or ISO-8601 text (the 2020 documentation)."""
    if isinstance(value, bool):
        raise ValueError("expected epoch milliseconds or an ISO-8601 text")  # noqa: TRY004 - pydantic wants a ValueError
    if isinstance(value, int | float):
        try:
            return datetime.fromtimestamp(value / 1000, UTC)
        except (OverflowError, OSError, ValueError):
            raise ValueError("epoch milliseconds out of range") from None
    if isinstance(value, str):
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("expected epoch milliseconds or an ISO-8601 text") from None
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    return value


Instant = Annotated[datetime | None, BeforeValidator(_instant, json_schema_input_type=int | str | None)]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class RequestContext(_Wire):
    """Which invocation this is."""

    # No control characters: SQLite's JSON functions end a text at NUL, so such an id would be stored and never found.
    requestId: Annotated[str, StringConstraints(max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")] = Field(  # noqa: N815
        description="Identity of the invocation, the idempotency key. The platform's own retries keep it."
    )
    functionArn: Annotated[str, StringConstraints(min_length=1, max_length=1024)] = Field(  # noqa: N815
        description="acs:fc:{region}:{account}:functions/{name}, or the FC 2.0 form with services/{service}; "
        "region and account may be empty."
    )
    condition: str | None = Field(default="", description="Invocation error code; an open set of words, may be empty.")
    approximateInvokeCount: Annotated[int, Field(ge=0)] | None = Field(  # noqa: N815
        default=None, description="Attempts including the platform's retries; approximate."
    )


class ResponseContext(_Wire):
    """What the platform says of the answer."""

    statusCode: int | None = Field(  # noqa: N815
        default=None,
        description="200 also for a failed function; another value means a fault of the platform.",
    )
    functionError: str | None = Field(default="", description="Error class of the function, may be empty.")  # noqa: N815


class DestinationMessage(_Wire):
    """Result of one asynchronous invocation, as Function Compute pushes it to a destination. Unknown keys are kept."""

    timestamp: Instant = Field(
        default=None, description="Epoch milliseconds or ISO-8601; what it marks is not documented."
    )
    requestContext: RequestContext  # noqa: N815
    requestPayload: str | None = Field(  # noqa: N815
        default=None,
        description="The event's text as submitted; not JSON in general. Without it the task cannot be run again.",
    )
    responseContext: ResponseContext = ResponseContext()  # noqa: N815
    responsePayload: str | None = Field(  # noqa: N815
        default="",
        description="The function's return text, or an error object as JSON text; may be anything.",
    )


@dataclass(frozen=True, slots=True)
class FunctionRef:
    """A function as its ARN names it. Empty text means: the ARN does not say."""

    name: str
    service: str = ""  # FC 2.0 only
    qualifier: str = ""  # version or alias
    region: str = ""
    account: str = ""

    @property
    def label(self) -> str:
        """``name``, or ``service/name`` for FC 2.0."""
        return f"{self.service}/{self.name}" if self.service else self.name


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """What the function said about its failure, read leniently from ``responsePayload``."""

    type: str = ""
    message: str = ""
    stack: str = ""


NO_ERROR: Final = ErrorInfo()


@dataclass(frozen=True, slots=True)
class Envelope:
    """One destination message, read and understood.

    ``request_payload`` holds the event byte for byte (UTF-8), and ``has_payload`` is False when the message does not
    say what it was, which is not the same as an empty one; ``body`` the JSON bytes of the message after any base64
    and topic wrapping came off; ``digest`` is the SHA-256 of ``body`` and tells a duplicate from a conflict.
    """

    request_id: RequestId
    function: FunctionRef
    function_arn: str
    condition: str
    invoke_count: int | None
    timestamp: datetime | None
    request_payload: bytes
    status_code: int | None
    function_error: str
    response_payload: str
    error: ErrorInfo
    outcome: Outcome
    body: bytes
    digest: str
    has_payload: bool = True


def may_be_stopped(envelope: Envelope) -> bool:
    """Whether a failure tells of no error at all: so does the message of a task that somebody has stopped."""
    return not (envelope.condition or envelope.function_error or envelope.status_code not in (None, 200))


_ARN = re.compile(
    r"acs:fc:(?P<region>[^:/]*):(?P<account>[^:/]*)[:/]"
    r"(?:services/(?P<service>[^/.:]+)(?:\.(?P<service_qualifier>[^/:]+))?/)?"
    r"functions/(?P<name>[^/:]+)(?:[/:](?P<qualifier>[^/:]+))?"
)


@lru_cache(maxsize=4096)
def parse_arn(arn: str) -> FunctionRef:
    """Read an FC 2.0 or FC 3.0 function ARN.

    Raises:
        InvalidEnvelope: reason ``bad_arn``.
    """
    found = _ARN.fullmatch(arn)
    if found is None:
        raise InvalidEnvelope(
            "bad_arn",
            where="$.requestContext.functionArn",
            detail=f"not the ARN of a function: {arn[:200]!r}",
        )
    return FunctionRef(
        name=found["name"],
        service=found["service"] or "",
        qualifier=found["qualifier"] or found["service_qualifier"] or "",
        region=found["region"],
        account=found["account"],
    )


def parse_error(response_payload: str, *, function_error: str) -> ErrorInfo:
    """Read error type, message and stack from a failed invocation's ``responsePayload``; never fails.

    Runtimes differ in the shape of ``stackTrace`` (list of lists, list of texts, object), so it is only turned into
    text. What is no JSON object is the message itself.
    """
    text = response_payload.strip()
    if not text.startswith("{"):
        return ErrorInfo(type=function_error, message=text)
    data = _lenient_json(text)
    if data is None:
        return ErrorInfo(type=function_error, message=text)
    kind = _first_text(data, "errorType", "type", "name")
    message = _first_text(data, "errorMessage", "message", "error")
    return ErrorInfo(
        type=kind or function_error,
        message=message or ("" if kind else text),
        stack=_stack(data.get("stackTrace")),
    )


_DEPTH: Final = 200
"""As deep as the fast parser reads."""


def _lenient_json(text: str) -> Any:
    try:
        return from_json(text)
    except ValueError:
        pass
    try:
        value = json.loads(text)  # slower, but takes a lone surrogate
    except (ValueError, RecursionError):
        return None
    level = [value]
    for _ in range(_DEPTH):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return value
    return None  # how deep it could be written out again would depend on who calls


def _first_text(data: Mapping[str, Any], *keys: str) -> str:
    for key in keys:
        value = data.get(key)
        if value not in (None, "", [], {}):
            return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return ""


def _stack(trace: Any, depth: int = 0) -> str:
    if trace is None:
        return ""
    if isinstance(trace, str):
        return trace
    if isinstance(trace, list) and depth < 4:
        # A list inside the list is one frame (Python); frames stand on lines of their own.
        return (", " if depth else "\n").join(_stack(item, depth + 1) for item in trace)
    return json.dumps(trace, ensure_ascii=False)


def outcome_of(message: DestinationMessage, destination: Destination) -> Outcome:
    """Tell failure from success, by the queue's role if it has one, else by the fields."""
    if destination is Destination.FAILURE:
        return Outcome.FAILED
    if destination is Destination.SUCCESS:
        return Outcome.SUCCEEDED
    response = message.responseContext
    if message.requestContext.condition or response.functionError or response.statusCode not in (None, 200):
        return Outcome.FAILED
    return Outcome.AMBIGUOUS


def parse_body(raw: bytes, *, md5: str | None = None, destination: Destination = Destination.BOTH) -> Envelope:
    """Read one queue message body.

    The body may be raw JSON or base64 of it, with a byte order mark or white space around it, and wrapped by an SMQ
    topic (XML or JSON form). Which of these FC writes is documented nowhere, so all are detected: ``{`` is not in the
    base64 alphabet, hence the first character decides.

    Args:
        raw: the body as received, before any decoding.
        md5: ``MessageBodyMD5`` of the message, any case; checked when given. SMQ computes it over the text as stored;
            some senders compute it over the bytes before base64, so either is accepted.
        destination: the role of the queue it came from.

    Raises:
        InvalidEnvelope: with a reason of ``REASONS``, the place and the detail.
    """
    if len(raw) > MAX_BODY:
        raise InvalidEnvelope("too_large", detail=f"{len(raw)} bytes; at most {MAX_BODY} are read")
    if md5 and not is_md5_of(raw, md5):
        raise InvalidEnvelope("md5_mismatch", detail=f"MessageBodyMD5 is {md5[:64]}, the body's is {md5_of(raw)}")
    message, body = _unwrap(plain(raw))
    context, response = message.requestContext, message.responseContext
    outcome = outcome_of(message, destination)
    response_payload, function_error = message.responsePayload or "", response.functionError or ""
    failed = outcome is Outcome.FAILED
    return Envelope(
        request_id=RequestId(context.requestId),
        function=parse_arn(context.functionArn),
        function_arn=context.functionArn,
        condition=context.condition or "",
        invoke_count=context.approximateInvokeCount,
        timestamp=message.timestamp,
        request_payload=(message.requestPayload or "").encode(),
        status_code=response.statusCode,
        function_error=function_error,
        response_payload=response_payload,
        error=parse_error(response_payload, function_error=function_error) if failed else NO_ERROR,
        outcome=outcome,
        body=body,
        digest=hashlib.sha256(body).hexdigest(),
        has_payload=message.requestPayload is not None,
    )


def event_of(body: bytes) -> bytes | None:
    """The event of a stored message, byte for byte; None when the message does not tell it.

    Raises:
        InvalidEnvelope: it is no such message.
    """
    event = _unwrap(plain(body))[0].requestPayload
    return None if event is None else event.encode()


def _unwrap(body: bytes) -> tuple[DestinationMessage, bytes]:
    """Validate; on failure see whether an SMQ topic wrapped the message, and look inside, once."""
    inner: bytes | None = None
    if body.startswith(b"<"):
        inner = topic_xml(body)
    else:
        try:
            return DestinationMessage.model_validate_json(body), body
        except ValidationError as error:
            failure = error
        inner = topic_json(body)
        if inner is None:
            raise _schema_error(body, failure) from None
    inner = plain(inner)
    try:
        return DestinationMessage.model_validate_json(inner), inner
    except ValidationError as error:
        raise _schema_error(inner, error) from None


def _schema_error(body: bytes, error: ValidationError) -> InvalidEnvelope:
    first, *more = error.errors(include_url=False, include_input=False, include_context=False)
    if first["type"] == "json_invalid":
        return _json_error(body, first["msg"])
    if first["type"] in ("model_type", "model_attributes_type") and not first["loc"]:
        return InvalidEnvelope("not_object", where="$", detail="the JSON value is no object")
    where = "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    also = f" (and {len(more)} more)" if more else ""
    return InvalidEnvelope("schema", where=where, detail=first["msg"] + also)


def _json_error(body: bytes, message: str) -> InvalidEnvelope:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return InvalidEnvelope("not_utf8", where=f"byte {error.start}", detail=error.reason)
    found = re.search(r" at line (\d+) column (\d+)", message)
    where = f"line {found[1]}, column {found[2]}" if found else "$"
    return InvalidEnvelope("not_json", where=where, detail=message.removeprefix("Invalid JSON: "))


def json_schema() -> dict[str, Any]:
    """JSON Schema of the destination message, as accepted."""
    schema = DestinationMessage.model_json_schema(mode="validation")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Function Compute destination message"
    return schema
