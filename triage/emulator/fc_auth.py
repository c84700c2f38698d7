"""Checks who sent an FC request: ACS3-HMAC-SHA256 for FC 3.0, the older signature for FC 2.0. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import parse_qsl, unquote

from triage.cloud.signing import Credentials, acs3, fc2, same
from triage.emulator.platform import Refused

SKEW: Final = timedelta(minutes=15)
"""How far off a request's date may be."""

KeyLookup = Callable[[str], Credentials | None]

_ACS3 = re.compile(r"ACS3-HMAC-SHA256 Credential=([^,\s]+),\s*SignedHeaders=([^,\s]+),\s*Signature=([0-9a-f]{64})")
_FC2 = re.compile(r"FC ([^:\s]+):(\S+)")
_REQUIRED: Final = frozenset(
    {"host", "x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce", "x-acs-content-sha256"}
)


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """What a signature covers: the request line as sent, headers with lower-case names, the body."""

    method: str
    resource: str
    headers: Mapping[str, str]
    body: bytes


def authenticate(request: SignedRequest, *, credentials: KeyLookup, now: datetime) -> None:
    """Check date, body digest and signature.

    Raises:
        Refused: with FC's status and error code.
    """
    given = request.headers.get("authorization", "")
    if match := _ACS3.fullmatch(given):
        _check_acs3(request, match[1], match[2].split(";"), given, credentials=credentials, now=now)
    elif match := _FC2.fullmatch(given):
        _check_fc2(request, match[1], given, credentials=credentials, now=now)
    else:
        raise Refused(403, "AccessDenied", "expected an Authorization header of ACS3-HMAC-SHA256 or of FC 2.0")


def _check_acs3(
    request: SignedRequest, key_id: str, signed: list[str], given: str, *, credentials: KeyLookup, now: datetime
) -> None:
    headers = request.headers
    needed = _REQUIRED | {name for name in headers if name.startswith("x-acs-") or name == "content-type"}
    if missing := sorted(needed.difference(signed) | {name for name in signed if name not in headers}):
        raise Refused(400, "MissingRequiredHeader", f"not sent or not signed: {', '.join(missing)}")
    known = _key(key_id, credentials)
    _check_date(headers["x-acs-date"], lambda text: datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z"), now)
    if headers["x-acs-content-sha256"] != hashlib.sha256(request.body).hexdigest():
        raise Refused(403, "SignatureNotMatch", "x-acs-content-sha256 is not the SHA-256 of the body")
    path, _, query = request.resource.partition("?")
    expected = acs3(
        known,
        method=request.method,
        path=path,
        query=dict(parse_qsl(query, keep_blank_values=True)),
        headers=headers,
        signed=signed,
    )
    if not same(given.replace(", ", ","), expected):
        raise Refused(
            403, "SignatureNotMatch", "the signature does not match; the secret or the way of signing is wrong"
        )
    _check_token(headers.get("x-acs-security-token", ""), known)


def _check_fc2(request: SignedRequest, key_id: str, given: str, *, credentials: KeyLookup, now: datetime) -> None:
    known = _key(key_id, credentials)
    _check_date(request.headers.get("date", ""), parsedate_to_datetime, now)
    path = unquote(request.resource.partition("?")[0])
    if not same(given, fc2(known, method=request.method, path=path, headers=request.headers)):
        raise Refused(
            403, "SignatureNotMatch", "the signature does not match; the secret or the way of signing is wrong"
        )
    _check_token(request.headers.get("x-fc-security-token", ""), known)


def _key(key_id: str, credentials: KeyLookup) -> Credentials:
    known = credentials(key_id)
    if known is None:
        raise Refused(403, "InvalidAccessKeyID", "this access key id is not known here")
    return known


def _check_date(text: str, parse: Callable[[str], datetime], now: datetime) -> None:
    try:
        at = parse(text)
    except ValueError:
        raise Refused(400, "InvalidTimeStamp.Format", f"not a date: {text[:40]!r}") from None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    if abs(now - at) > SKEW:
        raise Refused(400, "InvalidTimeStamp.Expired", "the request's date is more than 15 minutes off")


def _check_token(given: str, known: Credentials) -> None:
    if known.security_token and not same(given, known.security_token):
        raise Refused(403, "InvalidSecurityToken", "the security token is missing, wrong or expired")
