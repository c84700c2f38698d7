"""Message bodies that somebody might send to break what reads them; every one is to be stored or quarantined."""

from __future__ import annotations

import itertools
import json

import make

# Ends the line, clears the screen, sets the title, turns the direction of writing, and is no character at all.
CONTROL = "\r\n\x1b[2J\x1b]0;title\x07\x9b31m\u202egpj.exe\u2066\u200b\x7f\x00\ufeff\U000e0041"
SURROGATE = r"\ud800"


_serial = itertools.count(1)


def _with(**replaced: bytes) -> bytes:
    """A good body in which a value is replaced by raw JSON text."""
    text = make.body(
        f"replaced-{next(_serial)}",
        status=123456789,
        timestamp=987654321,
        payload="PAYLOAD",
        responsePayload="RESPONSE",
    )
    places = {
        "status": b"123456789",
        "timestamp": b"987654321",
        "count": b'"approximateInvokeCount": 2',
        "payload": b'"PAYLOAD"',
        "response": b'"RESPONSE"',
    }
    for name, raw in replaced.items():
        assert places[name] in text
        text = text.replace(places[name], b'"approximateInvokeCount": ' + raw if name == "count" else raw)
    return text


def _quoted(text: str) -> bytes:
    return json.dumps(text).encode()


DEEP = 100_000
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "NUL": b"\0" * 64_000,
    "brackets": b"[" * 64_000,
    "braces": b'{"a":' * 12_000,
    "deep unknown key": make.body("deep")[:-1] + b', "x": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "many empty lists": make.body("lists")[:-1] + b', "x": [' + b"[]," * 20_000 + b"1]}",
    "XML bomb": b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><Notification><Message>&b;</Message></Notification>',
    "deep XML": b"<a>" * 10_000,
    "hexadecimal": make.body("b64").hex().encode(),
    "no UTF-8": make.body("utf8").replace(b"my-fc-job", b"\xff\xfe\xc3\x28"),
    "overlong UTF-8": make.body("overlong").replace(b"my-fc-job", b"\xc0\x80"),
    "surrogate in the id": make.body("ID").replace(b'"ID"', b'"\\ud800"'),
    "surrogate in the event": _with(payload=b'"{\\"a\\":\\"\\\\ud800\\"}"'),
    "surrogate in the error": _with(response=b'"{\\"errorMessage\\":\\"\\\\ud800\\",\\"errorType\\":\\"\\\\udfff\\"}"'),
    "bare NaN": _with(status=b"NaN"),
    "bare infinity": _with(timestamp=b"-Infinity"),
    "NaN in the event": _with(payload=_quoted('{"a":NaN,"b":[Infinity,-Infinity],"c":1e999}')),
    "NaN in the error": _with(response=_quoted('{"errorMessage":NaN,"stackTrace":[Infinity]}')),
    "large status": _with(status=b"9" * 4000),
    "larger status": _with(status=b"9" * 5000),
    "negative status": _with(status=b"-" + b"9" * 30),
    "large count": _with(count=b"9" * 400),
    "negative count": _with(count=b"-1"),
    "year 9999": _with(timestamp=b"253402300799999"),
    "year 10000": _with(timestamp=b"253402300800000"),
    "year 1": _with(timestamp=b'"0001-01-01T00:00:00+23:59"'),
    "timestamp of floats": _with(timestamp=b"1e308"),
    "large number in the event": _with(payload=_quoted('{"n":' + "9" * 4000 + "}")),
    "larger number in the event": _with(payload=_quoted('{"n":' + "9" * 50_000 + "}")),
    "large number in the error": _with(response=_quoted('{"errorMessage":' + "9" * 50_000 + "}")),
    "deep event": _with(payload=_quoted("[" * 20_000 + "]" * 20_000)),
    "event of 990 levels": _with(payload=_quoted("[" * 990 + "]" * 990)),
    "deep event of objects": _with(payload=_quoted('{"a":' * 9_000 + "1" + "}" * 9_000)),
    "event of many values": _with(payload=_quoted("[" + "1," * 30_000 + "1]")),
    "event of many keys": _with(payload=_quoted(json.dumps({f"k{n}": n for n in range(4_000)}))),
    "event of one key many times": _with(payload=_quoted("{" + '"a":1,' * 9_000 + '"a":2}')),
    "event of 64 KB": _with(payload=_quoted("x" * 65_536)),
    "deep error": _with(response=_quoted('{"errorMessage":' + "[" * 20_000 + "]" * 20_000 + "}")),
    "error of 990 levels": _with(response=_quoted('{"errorMessage":' + "[" * 990 + "]" * 990 + "}")),
    "error of 990 levels with a surrogate": _with(
        response=_quoted('{"x":"' + SURROGATE + '","errorMessage":' + "[" * 980 + "]" * 980 + "}")
    ),
    "deep stack": _with(response=_quoted('{"errorType":"E","stackTrace":' + "[" * 900 + "]" * 900 + "}")),
    "stack of many frames": _with(response=_quoted(json.dumps({"errorType": "E", "stackTrace": ["at f (x:1)"] * 4_000}))),
    "error of 64 KB": _with(response=_quoted("a1-" * 21_000)),
    "error of quotes": _with(response=_quoted("'\"`" * 20_000)),
    "control characters": make.body(
        "control", arn=make.ARN.replace("my-fc-job", "f\x1b[31m\u202e"), condition=CONTROL, function_error=CONTROL, error=CONTROL
    ),
    "control characters in the id": make.body("id" + CONTROL),
    "control characters in the type": _with(response=_quoted(json.dumps({"errorType": CONTROL, "errorMessage": CONTROL, "stackTrace": [CONTROL]}))),
    "control characters in the ARN": make.body("arn", arn=CONTROL),
    "control characters in the wrapper": json.dumps({"TopicName": CONTROL, "Message": CONTROL}).encode(),
    "id of 256 characters": make.body("x" * 256),
    "id of 64 KB": make.body("x" * 65_536),
    "condition of 64 KB": make.body("condition", condition="C" * 65_536),
    "another type everywhere": json.dumps(
        {"timestamp": {}, "requestContext": [], "requestPayload": 1, "responseContext": "x", "responsePayload": None}
    ).encode(),
    "id of SQL": make.body("'; DROP TABLE envelopes; --"),
    "id of a path": make.body("../../etc/passwd"),
    "id of a template": make.body("{{ 7 * 7 }}{% for x in y %}%s{0}"),
}  # fmt: skip
