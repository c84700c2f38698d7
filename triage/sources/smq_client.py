"""Signed requests to one SMQ queue: credentials renewed once, the clock corrected once, answers bounded and judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Final, Literal
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from triage.clock import Clock
from triage.cloud.credentials import CredentialsProvider
from triage.cloud.signing import Credentials, mns_v2, mns_v4
from triage.errors import Misconfigured, Temporary
from triage.sources.smq_wire import (
    BATCH,
    Operation,
    UnreadableAnswer,
    Verdict,
    WireError,
    classify,
    parse_error,
    parse_errors,
)

Signature = Literal["v2", "v4"]

MAX_ANSWER: Final = BATCH * (64 << 10) * 6 + (64 << 10)
"""Bytes: sixteen messages of 64 KiB in which every character is escaped (``&quot;``), and their other fields."""

REPLY_WITHIN: Final = timedelta(seconds=10)
"""How long after a long poll's end, or after any other request, the answer may take."""

_CONNECT_WITHIN: Final = 5.0
_METHODS: Final = {
    Operation.RECEIVE: "GET",
    Operation.DELETE: "DELETE",
    Operation.EXTEND: "PUT",
    Operation.SEND: "POST",
}
_CONTENT_TYPE: Final = "text/xml"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that needs no person and no later try: the verdict is OK, EMPTY or GONE.

    ``failed`` holds the entries of a batch delete that were refused; ``truncated``: the body was longer than read.
    """

    verdict: Verdict
    body: bytes
    failed: tuple[WireError, ...] = ()
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: bytes
    truncated: bool
    date: str
    retry_after: str


class SmqClient:
    """Requests to ``/queues/{queue}/messages`` at one endpoint, over a session that belongs to the caller."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: str,
        queue: str,
        *,
        credentials: CredentialsProvider,
        clock: Clock,
        signature: Signature,
        region: str,
        reply_within: timedelta = REPLY_WITHIN,
    ) -> None:
        if signature == "v4" and not region:
            raise Misconfigured("region", "signature v4 needs the region, such as cn-hangzhou")
        self._session, self._credentials, self._clock = session, credentials, clock
        self._root = _root(endpoint)
        self._queue, self._path = queue, f"/queues/{quote(queue, safe='')}/messages"
        self._signature, self._region, self._reply_within = signature, region, reply_within
        self._skew = timedelta(0)

    async def ask(
        self,
        operation: Operation,
        query: Mapping[str, str],
        *,
        body: bytes = b"",
        hold: timedelta = timedelta(0),
    ) -> Answer:
        """One operation, sent at most three times: again with a renewed key, again with the server's time.

        Args:
            hold: how long the server may hold the request.

        Raises:
            Temporary: network, throttling, a fault of the server.
            Misconfigured: the key, the queue, the clock or the address is wrong; says what to do.
        """
        renewed = corrected = False
        while True:
            credentials = await self._credentials.get()
            reply = await self._send(credentials, operation, query, body=body, within=hold + self._reply_within)
            if operation is Operation.DELETE and reply.status >= 400 and (failed := _failed_entries(reply.body)):
                return Answer(Verdict.GONE, reply.body, failed)
            error = WireError("") if 200 <= reply.status < 300 else parse_error(reply.body)
            verdict = classify(operation, reply.status, error.code)
            if verdict in (Verdict.OK, Verdict.EMPTY, Verdict.GONE):
                return Answer(verdict, reply.body, truncated=reply.truncated)
            if verdict is Verdict.REFRESH_CREDENTIALS and not renewed:
                renewed = True
                await self._credentials.refresh(credentials)
                if await self._credentials.get() != credentials:
                    continue
            if verdict is Verdict.FIX_CLOCK and not corrected and self._correct_clock(reply.date):
                corrected = True
                continue
            raise self._refusal(operation, verdict, reply, error)

    def _correct_clock(self, date: str) -> bool:
        # Only when the server says that our time is wrong: an answer's Date is otherwise nobody's promise.
        try:
            at = parsedate_to_datetime(date)
        except ValueError:
            return False
        self._skew = (at if at.tzinfo else at.replace(tzinfo=UTC)) - self._clock.now()
        return True

    async def _send(
        self,
        credentials: Credentials,
        operation: Operation,
        query: Mapping[str, str],
        *,
        body: bytes,
        within: timedelta,
    ) -> _Reply:
        resource = self._path
        if query:
            resource += "?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        headers = self._signed(credentials, _METHODS[operation], resource, query, has_body=bool(body))
        try:
            async with self._session.request(
                _METHODS[operation],
                URL(self._root + resource, encoded=True),  # the signature is over this very text
                data=body or None,
                headers=headers,
                skip_auto_headers=("Content-Type",),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=within.total_seconds(), sock_connect=_CONNECT_WITHIN),
            ) as response:
                text = await _read(response.content)
                return _Reply(
                    status=response.status,
                    body=text[:MAX_ANSWER],
                    truncated=len(text) > MAX_ANSWER,
                    date=response.headers.get("Date", ""),
                    retry_after=response.headers.get("Retry-After", ""),
                )
        except TimeoutError:
            raise Temporary("timeout", f"no answer from {self._root} within {within.total_seconds():g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Temporary("network", f"{self._root}: {str(error)[:300] or type(error).__name__}") from None

    def _signed(
        self, credentials: Credentials, method: str, resource: str, query: Mapping[str, str], *, has_body: bool
    ) -> dict[str, str]:
        now: datetime = self._clock.now() + self._skew
        date = format_datetime(now.astimezone(UTC), usegmt=True)
        headers = {"Date": date, "x-mns-version": "2015-06-06"}
        content_type = _CONTENT_TYPE if has_body else ""
        if has_body:
            headers["Content-Type"] = content_type
        if self._signature == "v2":
            headers["Authorization"] = mns_v2(
                credentials, method=method, resource=resource, date=date, headers=headers, content_type=content_type
            )
        else:
            headers["Authorization"] = mns_v4(
                credentials,
                region=self._region,
                at=now.strftime("%Y%m%dT%H%M%SZ"),
                method=method,
                path=self._path,
                query=query,
                headers=headers,
            )
        if credentials.security_token:
            headers["security-token"] = credentials.security_token
        return headers

    def _refusal(
        self, operation: Operation, verdict: Verdict, reply: _Reply, error: WireError
    ) -> Temporary | Misconfigured:
        said = f"{self._root} answered {reply.status}"
        if error.code:
            said += f" {error.code[:100]!r}: {error.message[:300]!r}"
        if error.request_id:
            said += f" (request id {error.request_id[:100]})"
        match verdict:
            case Verdict.RETRY if reply.status == 429 or error.code in ("TooManyRequests", "QpsLimitExceeded"):
                return Temporary("throttled", said, retry_after=_seconds(reply.retry_after))
            case Verdict.RETRY:
                return Temporary("server_error", said, retry_after=_seconds(reply.retry_after))
            case Verdict.REFRESH_CREDENTIALS:
                needs = "mns:SendMessage" if operation is Operation.SEND else "receiving and deleting"
                hint = f"check the access key, and that its RAM policy allows {needs} on this queue"
                return Misconfigured("credentials", f"{said}; {hint}")
            case Verdict.FIX_CLOCK:
                return Misconfigured("clock", f"{said}; set this machine's clock (NTP)")
            case Verdict.MISCONFIGURED if error.code:
                return Misconfigured("queue", f"{said}; create queue {self._queue!r}, or correct its name or endpoint")
            case Verdict.MISCONFIGURED:
                return Misconfigured("endpoint", f"{said}, which is no answer of SMQ; correct the endpoint")
            case _:
                return Misconfigured("refused", f"{said}; the request was malformed, please report this")


def _root(endpoint: str) -> str:
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment:
        # Not quoted: somebody may have put a key into it.
        raise Misconfigured(
            "endpoint", "the endpoint must be like https://ACCOUNT.mns.REGION.aliyuncs.com, and no more"
        )
    return f"{parts.scheme}://{parts.netloc}"


async def _read(content: aiohttp.StreamReader) -> bytes:
    """The body, as far as one byte past the limit."""
    chunks, size = [], 0
    async for chunk in content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_ANSWER:
            break
    return b"".join(chunks)


def _failed_entries(body: bytes) -> tuple[WireError, ...]:
    try:
        return tuple(parse_errors(body))
    except UnreadableAnswer:
        return ()


def _seconds(retry_after: str) -> timedelta | None:
    try:
        return timedelta(seconds=min(max(int(retry_after), 0), 3600))
    except ValueError:
        return None
