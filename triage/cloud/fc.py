"""The Function Compute API as triage needs it: submit one asynchronous invocation, and ask what became of it.

Signed by hand over one pooled session. Names, paths and fields are those of the official SDKs (FC 3.0: 2023-03-30;
FC 2.0, used when the ARN names a service: 2021-04-06).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import tenacity
from yarl import URL

from triage.clock import Clock, token
from triage.cloud.credentials import CredentialsProvider
from triage.cloud.fc_answers import (
    Action,
    AsyncConfig,
    Submitted,
    Task,
    TaskPage,
    Verdict,
    classify,
    error_of,
    read_async_config,
    read_task,
    read_task_page,
)
from triage.cloud.signing import Credentials, acs3, fc2
from triage.envelope import FunctionRef
from triage.errors import Misconfigured, OutcomeUnknown, Permanent, Temporary

FC3: Final = "2023-03-30"
FC2: Final = "2021-04-06"
MAX_ANSWER: Final = 32 << 20
"""Bytes of an answer that are read; 100 tasks with their events stay below it."""

CONFIG_LIFE: Final = timedelta(minutes=1)
"""How long a configuration for asynchronous invocations is remembered, and that there is none."""

_CONFIGS: Final = 1000
_LATEST: Final = "LATEST"
_LABEL = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_READ_TRIES = 3
_LONGEST_WAIT = timedelta(seconds=2)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Call:
    """One request before signing. ``action`` names it for FC 3.0; ``segments`` follow the function in the path."""

    action: str
    function: FunctionRef
    method: str
    segments: Sequence[str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


class FcClient:
    """Function Compute over the session given in, which stays the caller's to close.

    Every method raises `Temporary`, `Permanent` or `Misconfigured`. Only reads are repeated within a call, briefly.

    Args:
        endpoint: base URL for every region and account, such as an emulator's; empty means the vendor's hosts.
        region, account: for functions whose ARN does not say (FC 2.0) or masks them.
        timeout: for one request; half of it for getting a connection.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        credentials: CredentialsProvider,
        clock: Clock,
        endpoint: str = "",
        region: str = "",
        account: str = "",
        timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        self._session, self._credentials, self._clock = session, credentials, clock
        self._endpoint, self._region, self._account = endpoint.rstrip("/"), region, account
        self._limit = seconds = timeout.total_seconds()
        # Past the connect limit nothing was sent; past the total limit it may have been. The two must not coincide.
        self._timeout = aiohttp.ClientTimeout(total=seconds, connect=seconds / 2)
        self._skew = timedelta(0)
        self._configs: dict[FunctionRef, tuple[datetime, AsyncConfig | None]] = {}

    async def invoke_async(self, function: FunctionRef, payload: bytes, *, task_id: str) -> Submitted:
        """Submit one asynchronous invocation; never repeated here.

        Raises:
            OutcomeUnknown: FC may have taken it (time-out, connection lost, an answer that tells nothing).
        """
        headers = {"content-type": "application/octet-stream", "x-fc-invocation-type": "Async"}
        if function.service:
            headers |= {
                "x-fc-stateful-async-invocation-enable": "true",
                "x-fc-stateful-async-invocation-id": task_id,
            }
        else:
            headers["x-fc-async-task-id"] = task_id
        call = _Call("InvokeFunction", function, "POST", ("invocations",), _qualifier(function), headers, payload)
        answer, verdict = await self._ask(call, accept=(Action.ALREADY,))
        if verdict.action is Action.ALREADY:
            return Submitted(request_id="", task_id=task_id, already=True)
        if answer.status != 202:
            raise OutcomeUnknown("unexpected_answer", f"{call.action} {function.label}: HTTP {answer.status}, not 202")
        confirmed = answer.headers.get("x-fc-async-task-id") or answer.headers.get("x-fc-stateful-async-invocation-id")
        return Submitted(answer.headers.get("x-fc-request-id", ""), confirmed or task_id, already=False)

    async def get_task(self, function: FunctionRef, task_id: str) -> Task | None:
        """One task. None: FC does not know it (now; it may take some seconds after the submit), or keeps no tasks for
        this function.
        """
        call = _Call("GetAsyncTask", function, "GET", (*_tasks(function), task_id), _qualifier(function), {})
        return await self._read(call, read_task)

    async def list_tasks(
        self,
        function: FunctionRef,
        *,
        status: str = "",
        prefix: str = "",
        started_from: datetime | None = None,
        started_until: datetime | None = None,
        include_payload: bool = False,
        limit: int = 100,
        next_token: str = "",
    ) -> TaskPage:
        """Tasks of the last seven days, newest first; ``limit`` is 1 to 100."""
        wanted = {
            "status": status,
            "invocationIdPrefix" if function.service else "prefix": prefix,
            "startedTimeBegin": _milliseconds(started_from),
            "startedTimeEnd": _milliseconds(started_until),
            "includePayload": "true" if include_payload else "",
            "sortOrderByTime": "desc",
            "limit": str(limit),
            "nextToken": next_token,
        }
        query = _qualifier(function) | {name: value for name, value in wanted.items() if value}
        call = _Call("ListAsyncTasks", function, "GET", _tasks(function), query, {})
        page = await self._read(call, read_task_page)
        return page or TaskPage((), "")

    async def stop_task(self, function: FunctionRef, task_id: str) -> bool:
        """Ask FC to stop a task. False: it does not know the task."""
        stop = () if function.service else ("stop",)
        call = _Call("StopAsyncTask", function, "PUT", (*_tasks(function), task_id, *stop), _qualifier(function), {})
        _, verdict = await self._ask(call, accept=(Action.ABSENT,))
        return verdict.action is Action.OK

    async def async_config(self, function: FunctionRef) -> AsyncConfig | None:
        """The function's configuration for asynchronous invocations; None when it has none. Remembered for
        `CONFIG_LIFE`; a failure to read it is not.

        ``LATEST`` names what no qualifier names. Whether another qualifier without a configuration of its own has the
        function's is documented nowhere, so it has none here: who believed a repeat to be refused would run it twice.
        """
        known = self._configs.get(function)
        if known is not None and self._clock.steady() < known[0]:
            return known[1]
        found = await self._read_config(function)
        if found is None and function.qualifier == _LATEST:
            found = await self._read_config(replace(function, qualifier=""))
        if len(self._configs) >= _CONFIGS:  # ARNs are outside text, and could name any number
            self._configs.clear()
        self._configs[function] = (self._clock.steady() + CONFIG_LIFE, found)
        return found

    async def _read_config(self, function: FunctionRef) -> AsyncConfig | None:
        call = _Call("GetAsyncInvokeConfig", function, "GET", ("async-invoke-config",), _qualifier(function), {})
        return await self._read(call, read_async_config)

    async def _read(self, call: _Call, parse: Callable[[Mapping[str, Any]], _T]) -> _T | None:
        async def once() -> _T | None:
            answer, verdict = await self._ask(call, accept=(Action.ABSENT,))
            if verdict.action is Action.ABSENT:
                return None
            try:
                return parse(json.loads(answer.body))
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
                raise Temporary("unreadable_answer", f"{call.action}: {type(error).__name__}: {error}") from None

        return await self._repeated(once)

    async def _repeated(self, once: Callable[[], Awaitable[_T]]) -> _T:
        """Try a read a few times. What takes longer than seconds is the caller's to plan."""

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after if isinstance(error, Temporary) else None
            planned = asked or timedelta(milliseconds=100 * 2**state.attempt_number)
            return min(planned, _LONGEST_WAIT).total_seconds()

        async def sleep(seconds: float) -> None:
            await self._clock.sleep(timedelta(seconds=seconds))

        return await tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(_READ_TRIES) | tenacity.stop_after_delay(self._limit),
            retry=tenacity.retry_if_exception_type(Temporary),
            wait=wait,
            sleep=sleep,
            reraise=True,
        )(once)

    async def _ask(self, call: _Call, *, accept: Sequence[Action]) -> tuple[_Answer, Verdict]:
        """Send; cure stale credentials and a wrong clock once each; raise for every verdict but OK and ``accept``."""
        cured: set[Action] = set()
        while True:
            credentials = await self._credentials.get()
            answer = await self._send(call, credentials)
            code, message = error_of(answer.status, answer.body)
            verdict = classify(answer.status, code, answer.headers)
            if verdict.action is Action.OK or verdict.action in accept:
                return answer, verdict
            if verdict.action in (Action.REFRESH, Action.SET_CLOCK) and verdict.action not in cured:
                cured.add(verdict.action)
                if verdict.action is Action.REFRESH:
                    await self._credentials.refresh(credentials)
                else:
                    self._set_clock(answer)
                continue
            raise _error(verdict, f"{call.action} {call.function.label}: HTTP {answer.status} {code} {message}".strip())

    def _set_clock(self, answer: _Answer) -> None:
        try:
            self._skew = parsedate_to_datetime(answer.headers["date"]) - self._clock.now()
        except (KeyError, ValueError, TypeError):
            self._skew = timedelta(0)

    async def _send(self, call: _Call, credentials: Credentials) -> _Answer:
        base = self._base(call.function)
        path, query = _path(call.function, call.segments), urlencode(call.query, quote_via=quote, safe="~")
        headers = self._signed(call, host=urlsplit(base).netloc, path=path, credentials=credentials)
        url = URL(f"{base}{path}?{query}" if query else base + path, encoded=True)
        what = f"{call.action} {call.function.label}"
        try:
            async with self._session.request(
                call.method,
                url,
                data=call.body or None,
                headers=headers,
                skip_auto_headers=("content-type",),  # what is not signed must not be sent
                allow_redirects=False,
                timeout=self._timeout,
            ) as response:
                # A 202 is complete with its headers: a connection lost after them leaves no doubt.
                body = b"" if response.status == 202 else await _bounded(response)
                return _Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, body)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            raise Temporary("unreachable", f"{what}: {error}") from error
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            raise OutcomeUnknown("no_answer", f"{what}: {type(error).__name__} {error}".strip()) from error

    def _base(self, function: FunctionRef) -> str:
        if self._endpoint:
            return self._endpoint
        # An ARN is outside text: only a plain name may become part of the host that gets our signature. Published
        # examples mask the account (1034354682****); such an ARN does not say it either.
        region = function.region if _LABEL.fullmatch(function.region) else self._region
        account = function.account if _LABEL.fullmatch(function.account) else self._account
        missing = [name for name, value in (("region", region), ("account", account)) if not value]
        if missing:
            raise Misconfigured(
                "no_endpoint",
                f"the ARN of {function.label} does not say the {' and the '.join(missing)}: set it under [fc]",
            )
        return f"https://{account}.{region}.fc.aliyuncs.com"

    def _signed(self, call: _Call, *, host: str, path: str, credentials: Credentials) -> dict[str, str]:
        now = self._clock.now() + self._skew
        headers = {"host": host, **call.headers}
        if call.function.service:
            headers["date"] = format_datetime(now.astimezone(UTC), usegmt=True)
            if credentials.security_token:
                headers["x-fc-security-token"] = credentials.security_token
            unescaped = "/" + "/".join(_names(call.function, call.segments))
            headers["authorization"] = fc2(credentials, method=call.method, path=unescaped, headers=headers)
            return headers
        headers |= {
            "x-acs-action": call.action,
            "x-acs-version": FC3,
            "x-acs-date": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "x-acs-signature-nonce": token(),
            "x-acs-content-sha256": hashlib.sha256(call.body).hexdigest(),
        }
        if credentials.security_token:
            headers["x-acs-security-token"] = credentials.security_token
            headers["x-acs-accesskey-id"] = credentials.access_key_id
        headers["authorization"] = acs3(credentials, method=call.method, path=path, query=call.query, headers=headers)
        return headers


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise OutcomeUnknown("unreadable_answer", f"longer than {MAX_ANSWER} bytes")
    return bytes(body)


def _names(function: FunctionRef, segments: Sequence[str]) -> list[str]:
    if not function.service:
        return [FC3, "functions", function.name, *segments]
    # The invocation names its version in the path, everything else in the query.
    dotted = segments[0] == "invocations" and function.qualifier
    service = f"{function.service}.{function.qualifier}" if dotted else function.service
    return [FC2, "services", service, "functions", function.name, *segments]


def _path(function: FunctionRef, segments: Sequence[str]) -> str:
    return "/" + "/".join(quote(name, safe="~") for name in _names(function, segments))


def _qualifier(function: FunctionRef) -> dict[str, str]:
    return {"qualifier": function.qualifier} if function.qualifier else {}


def _tasks(function: FunctionRef) -> tuple[str]:
    return ("stateful-async-invocations",) if function.service else ("async-tasks",)


def _milliseconds(at: datetime | None) -> str:
    return "" if at is None else str(int(at.timestamp() * 1000))


def _error(verdict: Verdict, detail: str) -> Temporary | Permanent:
    match verdict.action:
        case Action.RETRY:
            return Temporary(verdict.reason, detail, retry_after=verdict.retry_after)
        case Action.UNKNOWN:
            return OutcomeUnknown(verdict.reason, detail, retry_after=verdict.retry_after)
        case Action.REFRESH | Action.SET_CLOCK:
            return Misconfigured(verdict.reason, detail)
        case _:
            return Permanent(verdict.reason, detail)
