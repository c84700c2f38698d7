"""What redaction takes out of texts, events and envelopes, and what it leaves."""

import json
import time

import make
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.envelope import parse_body
from triage.errors import ConfigInvalid
from triage.redaction import DETECTORS, NOTHING, REDACTED, Redaction
from triage.settings import load_settings

ALL = Redaction.of((), tuple(DETECTORS))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("mail to Some.One+tag@sub.example.co.uk failed", "mail to [email] failed"),
        ("card 4111 1111 1111 1111 declined", "card [card] declined"),
        ("card 4111-1111-1111-1112 has a wrong digit", "card 4111-1111-1111-1112 has a wrong digit"),
        ("call 13812345678, or +86 138-1234-5678", "call [phone], or [phone]"),
        ("call +49 30 1234567", "call [phone]"),
        ("id 11010519491231002X of", "id [resident_id] of"),
        ("id 110105194912310021 of", "id 110105194912310021 of"),
        ("key LTAI5tExampleExample1234", "key [access_key]"),
        ("Authorization: Bearer abcdefghijklmnop0123", "Authorization: [token]"),
        ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl!", "jwt [token]!"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "[token]"),
        ("request 1-674adf1c-1c2d3e4f-0123456789ab took 1732000000123 ms", None),
        ("acs:fc:cn-hangzhou:1034354682000000:functions/job", None),
        ("2026-03-01T12:00:00.123456Z: order 12345678 of table t_2024 not found", None),
        ("user@localhost", None),
    ],
)
def test_detectors_find_what_looks_like_it_and_leave_the_rest(text, left):
    assert ALL.text(text) == (text if left is None else left)
    assert NOTHING.text(text) == text


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("user.email", {"user": {"email": REDACTED, "name": "n"}, "items": [{"pin": 1}, {"pin": 2}]}),
        ("user", {"user": REDACTED, "items": [{"pin": 1}, {"pin": 2}]}),
        ("items.*.pin", {"user": {"email": "e", "name": "n"}, "items": [{"pin": REDACTED}, {"pin": REDACTED}]}),
        ("items.1.pin", {"user": {"email": "e", "name": "n"}, "items": [{"pin": 1}, {"pin": REDACTED}]}),
        ("**.pin", {"user": {"email": "e", "name": "n"}, "items": [{"pin": REDACTED}, {"pin": REDACTED}]}),
        ("**.user", {"user": REDACTED, "items": [{"pin": 1}, {"pin": 2}]}),
        ("*.e*", {"user": {"email": REDACTED, "name": "n"}, "items": [{"pin": 1}, {"pin": 2}]}),
        ("user.phone", {"user": {"email": "e", "name": "n"}, "items": [{"pin": 1}, {"pin": 2}]}),
    ],
)
def test_paths_name_values_inside_an_event(path, left):
    event = {"user": {"email": "e", "name": "n"}, "items": [{"pin": 1}, {"pin": 2}]}
    assert json.loads(Redaction.of((path,), ()).payload(json.dumps(event))) == left


@given(st.text() | st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)).map(json.dumps))  # fmt: skip
def test_any_event_can_be_redacted_and_twice_is_once(event):
    both = Redaction.of(("**.password", "a.*"), tuple(DETECTORS))
    once = both.payload(event)
    assert both.payload(once) == once


@given(st.recursive(st.integers(), lambda inner: st.dictionaries(st.sampled_from(["a", "b", "secret"]), inner)))
def test_no_value_at_a_path_is_left_at_whatever_depth(event):
    def leaks(value):
        return isinstance(value, dict) and any(v != REDACTED if k == "secret" else leaks(v) for k, v in value.items())

    assert not leaks(json.loads(Redaction.of(("**.secret",), ()).payload(json.dumps({"x": event})))["x"])


def test_what_is_nested_too_deep_goes_as_a_whole():
    event = "[" * 500 + '{"secret": 1}' + "]" * 500
    assert "secret" not in Redaction.of(("**.secret",), ()).payload(event)


@pytest.mark.parametrize(
    "piece", ["eyJ", "eyJaaaaa.", "1 ", "a@", "a.", "+1 ", "Bearer ", "-----BEGIN PRIVATE KEY-----", "4111 ", "LTAI"]
)
def test_hostile_texts_take_no_longer_than_their_length(piece):
    text = (piece * 70_000)[:65536]
    began = time.process_time()
    ALL.text(text)
    assert time.process_time() - began < 0.5


def test_of_an_envelope_the_error_is_redacted_and_the_event_and_the_body_are_not():
    body = make.body("r1", payload='{"mail": "a@example.com"}', error="no such user a@example.com")
    arrival = make.arrived(parse_body(body))
    shown = ALL.arrival(arrival)
    assert shown.envelope.error.message == "no such user [email]"
    assert shown.envelope.request_payload == b'{"mail": "a@example.com"}'
    assert (shown.envelope.body, shown.envelope.digest) == (arrival.envelope.body, arrival.envelope.digest)
    assert shown.fingerprint == arrival.fingerprint
    assert NOTHING.arrival(arrival) is arrival
    page = json.loads(Redaction.of(("mail",), ("email",)).body(body.decode()))
    assert json.loads(page["requestPayload"]) == {"mail": REDACTED}
    assert "a@example.com" not in json.dumps(page)


@pytest.mark.parametrize(
    ("given_", "told"),
    [
        ('detectors = ["mail"]', "'mail' is no detector; there are email, card"),
        ('paths = ["a..b"]', "'a..b' is no path"),
        ('paths = ["a.**"]', "'a.**' is no path"),
        ('detectors = ["email"]', "redaction: needs encryption.keys"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, given_, told):
    (tmp_path / "triage.toml").write_text(f"[redaction]\n{given_}\n")
    with pytest.raises(ConfigInvalid) as error:
        load_settings(tmp_path / "triage.toml", environ={"HOME": str(tmp_path)})
    assert told.removeprefix("redaction: ") in str(error.value)
