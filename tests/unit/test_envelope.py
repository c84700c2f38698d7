"""Destination messages as they really come: every form is read, and what is none says why."""

import base64
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import make
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.envelope import (
    REASONS,
    Destination,
    DestinationMessage,
    ErrorInfo,
    FunctionRef,
    Outcome,
    json_schema,
    parse_arn,
    parse_body,
    parse_error,
)
from triage.errors import InvalidEnvelope

SAMPLES = Path(__file__).parents[1] / "data" / "samples"
PLAIN = (SAMPLES / "01_fc3_timeout.json").read_bytes()


def _topic_xml(message: bytes) -> bytes:
    head = b'<?xml version="1.0"?><Notification xmlns="http://mns.aliyuncs.com/doc/v1/"><TopicName>t</TopicName>'
    return head + b"<Message>" + message.replace(b"&", b"&amp;").replace(b"<", b"&lt;") + b"</Message></Notification>"


WRAPPED = {
    "raw": PLAIN,
    "base64": base64.b64encode(PLAIN),
    "folded base64": base64.encodebytes(PLAIN),
    "byte order mark": b"\xef\xbb\xbf" + PLAIN,
    "white space": b" \r\n\t" + PLAIN + b"\n",
    "byte order mark inside base64": base64.b64encode(b"\xef\xbb\xbf" + PLAIN),
    "topic, JSON": json.dumps({"TopicName": "t", "MessageMD5": "x", "Message": PLAIN.decode()}).encode(),
    "topic, JSON around base64": json.dumps({"TopicName": "t", "Message": base64.b64encode(PLAIN).decode()}).encode(),
    "topic, XML": _topic_xml(PLAIN),
    "topic, XML around base64": _topic_xml(base64.b64encode(PLAIN)),
    "base64 around topic, JSON": base64.b64encode(json.dumps({"TopicName": "t", "Message": PLAIN.decode()}).encode()),
}


@pytest.mark.parametrize("raw", WRAPPED.values(), ids=WRAPPED.keys())
def test_every_wrapping_gives_the_same_envelope(raw):
    envelope = parse_body(raw)
    assert envelope.request_id == "1-670648a1-15197d0b-d07710222f9d"
    assert envelope.function == FunctionRef("my-fc-job", region="cn-hangzhou", account="1034354682****")
    assert envelope.error.message == "Function timed out after 60 seconds (maxMemoryUsage: 8MB)"
    assert envelope.request_payload == b'{"failure":true}'
    assert envelope.invoke_count == 2
    assert envelope.outcome is Outcome.FAILED
    assert envelope.digest == parse_body(PLAIN).digest


INVALID = {
    "empty": (b"", "empty", ""),
    "white space": (b" \n", "empty", ""),
    "text": (b"hello world", "not_base64", "byte 0"),
    "base64 of text": (base64.b64encode(b"hello"), "not_json", ""),
    "cut off": (b'{"a": 1', "not_json", "line 1, column 7"),
    "list": (b"[1]", "not_object", "$"),
    "latin-1": ('{"requestContext": "é"}'.encode("latin-1"), "not_utf8", "byte 20"),
    "lone surrogate": (make.body(payload="\ud800"), "not_json", None),
    "deep": (b'{"a":' * 5000, "not_json", None),
    "no requestContext": (b"{}", "schema", "$.requestContext"),
    "no requestId": (
        b'{"requestContext":{"functionArn":"acs:fc:::functions/f"}}',
        "schema",
        "$.requestContext.requestId",
    ),
    "empty requestId": (make.body(""), "schema", "$.requestContext.requestId"),
    "requestId with a control character": (make.body("r1\0r2"), "schema", "$.requestContext.requestId"),
    "no functionArn": (b'{"requestContext":{"requestId":"r"}}', "schema", "$.requestContext.functionArn"),
    "foreign ARN": (make.body(arn="arn:aws:lambda:::f"), "bad_arn", "$.requestContext.functionArn"),
    "timestamp": (make.body(timestamp="soon"), "schema", "$.timestamp"),
    "timestamp out of range": (make.body(timestamp=1e300), "schema", "$.timestamp"),
    "payload is no text": (make.body(payload={"a": 1}), "schema", "$.requestPayload"),
    "XML bomb": (b'<!DOCTYPE l [<!ENTITY a "aaaa">]><Notification>&a;</Notification>', "bad_wrapper", ""),
    "external entity": (b'<!DOCTYPE l SYSTEM "file:///etc/passwd"><Notification/>', "bad_wrapper", ""),
    "deep XML": (b"<a>" * 100_000, "bad_wrapper", ""),
    "other XML": (b"<html><body/></html>", "bad_wrapper", ""),
    "broken XML": (b"<Notification><Message>", "bad_wrapper", None),
    "topic around garbage": (json.dumps({"TopicName": "t", "Message": "garbage!"}).encode(), "not_base64", "byte 0"),
    "64 KB of garbage": (bytes(range(256)) * 256, "not_base64", "byte 0"),
    "too large": (b"{" * (5 << 20), "too_large", ""),
}


@pytest.mark.parametrize(("raw", "reason", "where"), INVALID.values(), ids=INVALID.keys())
def test_what_is_no_envelope_says_why_and_where(raw, reason, where):
    with pytest.raises(InvalidEnvelope) as caught:
        parse_body(raw)
    assert caught.value.reason == reason
    assert caught.value.reason in REASONS
    assert caught.value.detail
    if where is not None:
        assert caught.value.where == where


def _reason(raw: bytes) -> str | None:
    try:
        parse_body(raw)
    except InvalidEnvelope as error:
        return error.reason
    return None


@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_read_or_refused(raw):
    assert _reason(raw) in {None, *REASONS}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(["timestamp", "requestPayload", "responseContext", "responsePayload", "requestContext", "new"]),
    JSON,
)
def test_any_value_in_any_field_is_read_or_refused(field, value):
    assert _reason(make.body(**{field: value})) in {None, *REASONS}


ARNS = {
    "acs:fc:cn-hangzhou:1034354682****:functions/my-fc-job": FunctionRef(
        "my-fc-job", region="cn-hangzhou", account="1034354682****"
    ),
    "acs:fc:cn-shanghai:1234/functions/my-func": FunctionRef("my-func", region="cn-shanghai", account="1234"),
    "acs:fc:::services/fc-job.LATEST/functions/fc-job-function": FunctionRef(
        "fc-job-function", service="fc-job", qualifier="LATEST"
    ),
    "acs:fc:::services/s/functions/f": FunctionRef("f", service="s"),
    "acs:fc:cn-hangzhou:12:functions/f/prod": FunctionRef("f", qualifier="prod", region="cn-hangzhou", account="12"),
    "acs:fc:{regionid}:{accountid}:functions/xxxx": FunctionRef("xxxx", region="{regionid}", account="{accountid}"),
}


@pytest.mark.parametrize(("arn", "expected"), ARNS.items(), ids=ARNS.keys())
def test_every_arn_form_is_read(arn, expected):
    assert parse_arn(arn) == expected


def test_labels_tell_services_apart():
    assert parse_arn("acs:fc:::services/s/functions/f").label == "s/f"
    assert parse_arn("acs:fc:::functions/f").label == "f"


@pytest.mark.parametrize(
    ("fields", "destination", "expected"),
    [
        ({}, Destination.BOTH, Outcome.FAILED),
        ({"condition": ""}, Destination.BOTH, Outcome.AMBIGUOUS),
        ({"condition": "", "status": 500}, Destination.BOTH, Outcome.FAILED),
        ({"condition": "", "function_error": "Oops"}, Destination.BOTH, Outcome.FAILED),
        ({"condition": ""}, Destination.SUCCESS, Outcome.SUCCEEDED),
        ({"condition": ""}, Destination.FAILURE, Outcome.FAILED),
    ],
)
def test_outcome_follows_the_queue_then_the_fields(fields, destination, expected):
    assert parse_body(make.body(**fields), destination=destination).outcome is expected


@pytest.mark.parametrize("value", [1728465119433, "2024-10-09T09:11:59.433Z", "2024-10-09T09:11:59.433"])
def test_timestamp_is_epoch_milliseconds_or_iso(value):
    assert parse_body(make.body(timestamp=value)).timestamp == datetime(2024, 10, 9, 9, 11, 59, 433000, UTC)


def test_only_identity_and_function_are_required():
    envelope = parse_body(b'{"requestContext":{"requestId":"r","functionArn":"acs:fc:::functions/f"},"future":[1]}')
    assert (envelope.condition, envelope.invoke_count, envelope.timestamp, envelope.request_payload) == (
        "",
        None,
        None,
        b"",
    )


def test_unknown_keys_are_kept():
    message = DestinationMessage.model_validate_json(make.body(future={"a": [1]}))
    assert message.model_extra == {"future": {"a": [1]}}


@pytest.mark.parametrize("payload", ['{"a": 1 }', "", "not json", "中文 \U0001f600", "\x00\x1f", '{"n": 1e400}'])
def test_request_payload_is_kept_byte_for_byte(payload):
    assert parse_body(make.body(payload=payload)).request_payload == payload.encode()


@pytest.mark.parametrize("of", [PLAIN, base64.b64encode(PLAIN)], ids=["as stored", "before base64"])
def test_md5_of_the_stored_text_or_of_the_decoded_body_is_accepted(of):
    md5 = hashlib.md5(of, usedforsecurity=False).hexdigest()
    parse_body(base64.b64encode(PLAIN), md5=md5.upper())
    parse_body(base64.b64encode(PLAIN), md5=md5.lower())


def test_wrong_md5_is_refused():
    with pytest.raises(InvalidEnvelope, match="md5_mismatch"):
        parse_body(PLAIN, md5="0" * 32)


ERRORS = {
    "python": (
        (SAMPLES / "payloads" / "python_exception.json").read_text(),
        ErrorInfo(
            "Exception",
            "something is wrong",
            "File \"/code/index.py\", line 2, in my_handler, raise Exception('something is wrong')",
        ),
    ),
    "node": (
        (SAMPLES / "payloads" / "nodejs_exception.json").read_text(),
        ErrorInfo("Error", "oops", "Error: oops\n    at handler (file:///code/index.mjs:2:9)"),
    ),
    "node callback": (
        (SAMPLES / "payloads" / "nodejs_callback_string.json").read_text(),
        ErrorInfo("E", "something is wrong"),
    ),
    "timeout": (
        (SAMPLES / "payloads" / "timeout.json").read_text(),
        ErrorInfo("E", "Function timed out after 60 seconds (maxMemoryUsage: 8MB)"),
    ),
    "go": (
        '{"errorMessage":"boom","errorType":"errorString","stackTrace":[{"path":"main.go","line":7,"label":"main"}]}',
        ErrorInfo("errorString", "boom", '{"path": "main.go", "line": 7, "label": "main"}'),
    ),
    "php": (
        '{"errorMessage":"boom","errorType":"Exception","stackTrace":{"file":"/code/index.php","line":3}}',
        ErrorInfo("Exception", "boom", '{"file": "/code/index.php", "line": 3}'),
    ),
    "message is an object": ('{"errorMessage":{"code":7}}', ErrorInfo("E", '{"code": 7}')),
    "no text at all": ('{"code":7}', ErrorInfo("E", '{"code":7}')),
    "type only": ('{"errorType":"T"}', ErrorInfo("T", "")),
    "plain text": ("it broke", ErrorInfo("E", "it broke")),
    "broken JSON": ('{"errorMessage', ErrorInfo("E", '{"errorMessage')),
    "deep": ('{"a":' * 100_000, ErrorInfo("E", '{"a":' * 100_000)),
    "empty": ("", ErrorInfo("E", "")),
}


@pytest.mark.parametrize(("text", "expected"), ERRORS.values(), ids=ERRORS.keys())
def test_errors_of_every_runtime_are_read(text, expected):
    assert parse_error(text, function_error="E") == expected


@given(st.text() | JSON.map(json.dumps))
def test_reading_an_error_never_fails(text):
    assert isinstance(parse_error(text, function_error=""), ErrorInfo)


def test_schema_requires_what_the_parser_requires():
    schema = json_schema()
    assert schema["required"] == ["requestContext"]
    assert schema["$defs"]["RequestContext"]["required"] == ["requestId", "functionArn"]
