"""What stands around a destination message: base64, a byte order mark, an SMQ topic. Which of them FC writes is
documented nowhere, so all are detected.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any
from xml.parsers import expat

from triage.errors import InvalidEnvelope


def md5_of(data: bytes) -> str:
    """MD5 as SMQ writes it: upper-case hexadecimal."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest().upper()


def is_md5_of(raw: bytes, md5: str) -> bool:
    """Whether ``md5``, in any case, belongs to the text as stored or to the bytes before base64; senders differ."""
    if md5.upper() == md5_of(raw):
        return True
    try:
        return md5.upper() == md5_of(base64.b64decode(raw))
    except binascii.Error:
        return False


def plain(raw: bytes) -> bytes:
    """Take off a byte order mark, white space and base64."""
    text = raw.removeprefix(b"\xef\xbb\xbf").strip()
    if not text:
        raise InvalidEnvelope("empty", detail="the body is empty")
    if text[:1] in b"{[<":
        return text
    try:
        # Line breaks are allowed inside (RFC 2045 folds at 76 characters); any other stranger is not.
        decoded = base64.b64decode(text.replace(b"\r", b"").replace(b"\n", b""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidEnvelope(
            "not_base64",
            where="byte 0",
            detail=f"starts with {text[:12]!r}: neither JSON nor base64 ({error})",
        ) from None
    decoded = decoded.removeprefix(b"\xef\xbb\xbf").strip()
    if decoded[:1] not in (b"{", b"<"):
        raise InvalidEnvelope("not_json", detail="base64 of something that is no JSON object")
    return decoded


def topic_json(body: bytes) -> bytes | None:
    """The ``Message`` of an SMQ topic's JSON form, or None when it is no such thing."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if isinstance(data, dict) and "TopicName" in data and isinstance(data.get("Message"), str):
        message: str = data["Message"]
        return message.encode("utf-8", "surrogatepass")
    return None


def topic_xml(body: bytes) -> bytes:
    """The ``Message`` of an SMQ topic's XML form (``<Notification>``). A DTD is refused: it is how XML bombs start."""
    parts: list[str] = []
    path: list[str] = []

    def start(name: str, _attributes: dict[str, str]) -> None:
        path.append(name.rpartition(":")[2])
        if len(path) > 8:
            raise InvalidEnvelope("bad_wrapper", detail="XML nested deeper than 8")

    def text(data: str) -> None:
        if path[1:] == ["Message"]:
            parts.append(data)

    def doctype(*_: Any) -> None:
        raise InvalidEnvelope("bad_wrapper", detail="XML with a DTD is refused")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _name: path.pop()
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(body, True)  # noqa: FBT003 - expat takes no keyword
    except expat.ExpatError as error:
        raise InvalidEnvelope(
            "bad_wrapper",
            where=f"line {error.lineno}, column {error.offset}",
            detail=expat.ErrorString(error.code),
        ) from None
    if not parts:
        raise InvalidEnvelope("bad_wrapper", detail="XML without a Message element: not an SMQ topic's form")
    return "".join(parts).encode()
