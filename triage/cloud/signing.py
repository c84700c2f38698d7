"""The request signatures in use, signed by hand: each is a few lines and has published vectors (``tests/data``).

The same functions verify requests in the emulator and in ``triage queue serve``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key, with the security token when it is a temporary one. ``repr`` hides the secrets."""

    access_key_id: str
    access_key_secret: str
    security_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.access_key_id!r}, ***)"


def mns_v2(
    credentials: Credentials,
    *,
    method: str,
    resource: str,
    date: str,
    headers: Mapping[str, str],
    content_md5: str = "",
    content_type: str = "",
) -> str:
    """``Authorization`` of an SMQ request, V2 (https://help.aliyun.com/document_detail/27487.html).

    Args:
        resource: path and query exactly as on the request line.
        date: the ``Date`` header, RFC 1123, GMT (or ``x-mns-date`` where that replaces it).
        headers: all headers; those that begin with ``x-mns-`` are signed.
    """
    signed = sorted((name.lower(), value) for name, value in headers.items() if name.lower().startswith("x-mns-"))
    text = f"{method}\n{content_md5}\n{content_type}\n{date}\n"
    text += "".join(f"{name}:{value}\n" for name, value in signed) + resource
    return f"MNS {credentials.access_key_id}:{_base64_hmac('sha1', credentials.access_key_secret, text)}"


def acs3(
    credentials: Credentials,
    *,
    method: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    signed: Iterable[str] | None = None,
) -> str:
    """``Authorization`` of an FC 3.0 request, ACS3-HMAC-SHA256.

    Args:
        path: percent-encoded, as on the request line, without the query.
        query: decoded names and values.
        headers: lower-case names; must hold ``x-acs-content-sha256``. All are signed unless ``signed`` names fewer.
    """
    names = sorted(headers if signed is None else signed)
    canonical_query = "&".join(f"{_escape(name)}={_escape(value)}" for name, value in sorted(query.items()))
    canonical = "\n".join(
        (
            method,
            path,
            canonical_query,
            "".join(f"{name}:{headers[name].strip()}\n" for name in names),
            ";".join(names),
            headers["x-acs-content-sha256"],
        )
    )
    text = "ACS3-HMAC-SHA256\n" + hashlib.sha256(canonical.encode()).hexdigest()
    signature = hmac.new(credentials.access_key_secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return (
        f"ACS3-HMAC-SHA256 Credential={credentials.access_key_id},SignedHeaders={';'.join(names)},Signature={signature}"
    )


def mns_v4(
    credentials: Credentials,
    *,
    region: str,
    at: str,
    method: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
) -> str:
    """``Authorization`` of an SMQ request, V4 (MNS4-HMAC-SHA256), which replaces the deprecated V2.

    Args:
        at: the request's ``Date`` as ``yyyymmddThhmmssZ``.
        path, query: decoded.
        headers: content-type, content-md5 and those that begin with ``x-mns-`` are signed.
    """
    pairs = sorted((_escape(name.lower()), _escape(value)) for name, value in query.items())
    signed = sorted((name.lower(), value) for name, value in headers.items())
    canonical = "\n".join(
        (
            method,
            quote(path, safe="/~"),
            "&".join(f"{name}={value}" if value else name for name, value in pairs),
            "".join(
                f"{name}:{value}\n"
                for name, value in signed
                if name in ("content-type", "content-md5") or name.startswith("x-mns-")
            ),
            "",
        )
    )
    scope = f"{at[:8]}/{region}/mns/aliyun_v4_request"
    text = f"MNS4-HMAC-SHA256\n{at}\n{scope}\n{canonical}"
    signature = _v4_signature(credentials, at[:8], region, "mns", text)
    return f"MNS4-HMAC-SHA256 Credential={credentials.access_key_id}/{scope},Signature={signature}"


def sls_v4(
    credentials: Credentials,
    *,
    region: str,
    method: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
) -> str:
    """``Authorization`` of a Simple Log Service request, V4 (SLS4-HMAC-SHA256).

    ``headers`` have lower-case names and hold ``x-log-date`` and ``x-log-content-sha256``.
    """
    names = sorted(
        name
        for name in headers
        if name in ("content-type", "host")
        or (name.startswith(("x-acs-", "x-log-")) and not name.startswith("x-log-meta-"))
    )
    canonical = "\n".join(
        (
            method,
            path,
            "&".join(f"{_escape(name)}={_escape(value)}" for name, value in sorted(query.items())),
            "".join(f"{name}:{headers[name].strip()}\n" for name in names),
            ";".join(names),
            headers["x-log-content-sha256"],
        )
    )
    at = headers["x-log-date"]
    scope = f"{at[:8]}/{region}/sls/aliyun_v4_request"
    text = f"SLS4-HMAC-SHA256\n{at}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = _v4_signature(credentials, at[:8], region, "sls", text)
    return f"SLS4-HMAC-SHA256 Credential={credentials.access_key_id}/{scope},Signature={signature}"


def fc2(credentials: Credentials, *, method: str, path: str, headers: Mapping[str, str]) -> str:
    """``Authorization`` of an FC 2.0 request. ``path`` is unescaped; ``headers`` have lower-case names."""
    signed = sorted((name, value) for name, value in headers.items() if name.startswith("x-fc-"))
    text = "\n".join(
        (method, headers.get("content-md5", ""), headers.get("content-type", ""), headers.get("date", ""), "")
    )
    text += "".join(f"{name}:{value}\n" for name, value in signed) + path
    return f"FC {credentials.access_key_id}:{_base64_hmac('sha256', credentials.access_key_secret, text)}"


def same(given: str, expected: str) -> bool:
    """Compare two signatures without telling by the time taken where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def _base64_hmac(algorithm: str, secret: str, text: str) -> str:
    return base64.b64encode(hmac.new(secret.encode(), text.encode(), algorithm).digest()).decode()


def _escape(text: str) -> str:
    return quote(text, safe="~")


def _v4_signature(credentials: Credentials, date: str, region: str, product: str, text: str) -> str:
    key = ("aliyun_v4" + credentials.access_key_secret).encode()
    for part in (date, region, product, "aliyun_v4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
