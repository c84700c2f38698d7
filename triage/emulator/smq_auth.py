"""Checks who sent an SMQ request: version, date and either signature. Pure."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from triage.cloud.signing import Credentials, mns_v2, mns_v4, same
from triage.errors import Permanent

SKEW: Final = timedelta(minutes=15)
"""How far off the ``Date`` may be (https://help.aliyun.com/document_detail/27487.html)."""

_V2 = re.compile(r"MNS ([^:\s]+):(\S+)")
_V4 = re.compile(r"MNS4-HMAC-SHA256 Credential=([^/\s]+)/(\d{8})/([^/\s]+)/mns/aliyun_v4_request,\s*Signature=(\S+)")


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """What a signature covers.

    Attributes:
        resource: path and query exactly as on the request line.
        path, query: the same, decoded.
        headers: lower-case names.
    """

    method: str
    resource: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


def authenticate(
    request: SignedRequest, *, credentials: Callable[[str], Credentials | None], now: datetime
) -> Credentials:
    """Tell who signed the request.

    Raises:
        Permanent: with SMQ's error code: a header is missing or malformed, the date is too far off, the key is unknown,
            the signature or the security token is wrong.
    """
    headers = request.headers
    for name, code in (("authorization", "MissingAuthorizationHeader"), ("x-mns-version", "MissingVersionHeader")):
        if not headers.get(name):
            raise Permanent(code, f"the request has no {name} header")
    date = headers.get("x-mns-date") or headers.get("date")
    if not date:
        raise Permanent("MissingDateHeader", "the request has no date header")
    try:
        at = parsedate_to_datetime(date)
        at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise Permanent("InvalidDateHeader", "the date is not in the form of RFC 1123") from None
    if abs(now - at) > SKEW:
        raise Permanent("TimeExpired", f"the request's date is more than {SKEW // timedelta(minutes=1)} minutes off")
    key_id, given, expect = _signature(request, date, at)
    known = credentials(key_id)
    if known is None:
        raise Permanent("InvalidAccessKeyId", "this access key id is not known here")
    if not same(given, expect(known)):
        raise Permanent(
            "SignatureDoesNotMatch", "the signature does not match; the secret or the way of signing is wrong"
        )
    if known.security_token and not same(headers.get("security-token", ""), known.security_token):
        raise Permanent("AccessDenied", "the security token is missing, wrong or expired")
    return known


def _signature(request: SignedRequest, date: str, at: datetime) -> tuple[str, str, Callable[[Credentials], str]]:
    """Key id and header as given, and how to compute the header it should be."""
    given, headers = request.headers["authorization"], request.headers
    if match := _V2.fullmatch(given):
        return (
            match[1],
            given,
            lambda known: mns_v2(
                known,
                method=request.method,
                resource=request.resource,
                date=date,
                headers=headers,
                content_md5=headers.get("content-md5", ""),
                content_type=headers.get("content-type", ""),
            ),
        )
    if match := _V4.fullmatch(given):
        return (
            match[1],
            given.replace(", Signature", ",Signature"),
            lambda known: mns_v4(
                known,
                region=match[3],
                at=f"{at:%Y%m%dT%H%M%SZ}",
                method=request.method,
                path=request.path,
                query=request.query,
                headers=headers,
            ),
        )
    raise Permanent("InvalidAuthorizationHeader", "expected an MNS or MNS4-HMAC-SHA256 signature")


def check_digest(given: str, body: bytes) -> None:
    """Check ``Content-MD5``: base64 of the 16 bytes, or, as the Python and Go SDKs write it, of their hexadecimal text.

    Raises:
        Permanent: ``InvalidDigest``.
    """
    digest = hashlib.md5(body, usedforsecurity=False)
    forms = (digest.digest(), digest.hexdigest().encode(), digest.hexdigest().upper().encode())
    if given and given not in [base64.b64encode(form).decode() for form in forms]:
        raise Permanent("InvalidDigest", "Content-MD5 is not the digest of the body")
