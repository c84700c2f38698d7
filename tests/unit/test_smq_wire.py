"""SMQ's XML and error codes: real answers read, hostile ones refused, every code judged as the reference says."""

import contextlib
import re
from datetime import UTC, datetime
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.sources import smq_wire
from triage.sources.smq_wire import (
    BATCH,
    NAMESPACE,
    Operation,
    UnreadableAnswer,
    Verdict,
    WireError,
    WireMessage,
    classify,
    delete_body,
    parse_error,
    parse_errors,
    parse_messages,
    parse_visibility,
    salvage_messages,
)

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "smq.md"
NUL_BODY = "a\x01b"


def message(body="{}", *, handle="h-1", identity="m-1", count=1, first=1767225600000, visible=1767225630000):
    return (
        f"<Message><MessageId>{identity}</MessageId><ReceiptHandle>{handle}</ReceiptHandle>"
        f"<MessageBody>{escape(body)}</MessageBody><MessageBodyMD5>ABC</MessageBodyMD5>"
        f"<EnqueueTime>1767225600123</EnqueueTime><NextVisibleTime>{visible}</NextVisibleTime>"
        f"<FirstDequeueTime>{first}</FirstDequeueTime><DequeueCount>{count}</DequeueCount><Priority>8</Priority></Message>"
    )


def batch(*messages, head='<?xml version="1.0" encoding="UTF-8"?>\n'):
    return f'{head}<Messages xmlns="{NAMESPACE}">\n  {"".join(messages)}</Messages>'.encode()


def test_a_batch_is_read_with_every_field():
    first, second = parse_messages(batch(message("<&>\n😀"), message(identity="m-2", count=3)))
    assert first == WireMessage(
        "m-1", "h-1", "<&>\n😀".encode(), "ABC", datetime(2026, 1, 1, 0, 0, 0, 123000, UTC), 1, lease_ms=30_000
    )
    assert (second.message_id, second.receive_count, second.lease_ms) == ("m-2", 3, 0)


def test_a_single_message_is_read_like_a_batch_of_one():
    assert parse_messages(message().encode()) == parse_messages(batch(message()))


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        (batch(), []),
        (b"<Message><Other>1</Other></Message>", [WireMessage("", "", b"")]),
        (b"<Message><MessageBody/><DequeueCount>many</DequeueCount></Message>", [WireMessage("", "", b"")]),
        (f"<Message><EnqueueTime>{'9' * 5000}</EnqueueTime></Message>".encode(), [WireMessage("", "", b"")]),
        (
            b"<Message><UserProperties><Name>MessageId</Name><MessageId>no</MessageId></UserProperties>%b</Message>"
            % b"<MessageId>yes</MessageId>",
            [WireMessage("yes", "", b"")],
        ),
        (
            b"<Message><MessageBody><![CDATA[<a>]]>&amp;b</MessageBody></Message>",
            [WireMessage("", "", b"<a>&b")],
        ),
        (
            message(first=0, visible=1767225630000).encode(),
            [WireMessage("m-1", "h-1", b"{}", "ABC", datetime(2026, 1, 1, 0, 0, 0, 123000, UTC))],
        ),
        (b'<?xml version="1.0" encoding="nonsense"?><Message/>', [WireMessage("", "", b"")]),
    ],
    ids=["none", "no field", "no number", "huge number", "properties", "CDATA", "absurd lease", "unknown encoding"],
)
def test_odd_but_legal_answers_are_read(xml, expected):
    assert parse_messages(xml) == expected


def _nested(depth):
    return b"<Message>" + b"<a>" * depth + b"</a>" * depth + b"</Message>"


BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE Messages [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(9))
    + b"]><Messages><Message><MessageBody>&j;</MessageBody></Message></Messages>"
)


@pytest.mark.parametrize(
    ("xml", "why"),
    [
        (BOMB, "DTD"),
        (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><Message><MessageBody>&x;</MessageBody></Message>', "DTD"),
        (b'<!DOCTYPE a SYSTEM "http://127.0.0.1/a.dtd"><Message/>', "DTD"),
        (b"<Message><MessageBody>&x;</MessageBody></Message>", "undefined entity"),
        (_nested(200_000), "nested deeper than 8"),
        (batch(message(NUL_BODY)), "not well-formed"),
        (b"<Message><MessageBody>&#1;</MessageBody></Message>", "reference to invalid character"),
        (b"<Message><MessageBody>\xff</MessageBody></Message>", "not well-formed"),
        (b"", "no element"),
        (b"<Message>", "no element"),
        (b"<Message/><Message/>", "junk after"),
        (b"<html><body>sign in</body></html>", "<html> where <Message>"),
        (b"<Errors><Error/></Errors>", "<Errors> where <Message>"),
        (b"<Messages><Other/></Messages>", "<Other> where <Message>"),
    ],
    ids=[
        "entity bomb", "external entity", "external DTD", "undefined entity", "200,000 deep", "control character",
        "control reference", "no UTF-8", "nothing", "cut off", "two roots", "web page", "other root",
        "other child",
    ],
)  # fmt: skip
def test_hostile_and_broken_answers_are_refused(xml, why):
    with pytest.raises(UnreadableAnswer, match=re.escape(why)):
        parse_messages(xml)


PIECES = [b"<Message>", b"</Message>", b"<Messages>", b"</Messages>", b"<Errors>", b"<Error>", b"</Error>", b"</Errors>",
          b"<MessageBody>", b"</MessageBody>", b"<DequeueCount>", b"</DequeueCount>", b"<ReceiptHandle>", b"h",
          b"</ReceiptHandle>", b"<!DOCTYPE a>", b"&amp;", b"&#0;", b"<![CDATA[", b"]]>", b"\x00", b"\xff", b"<?xml?>", b"9", b"-1"]  # fmt: skip


@given(st.binary(max_size=200) | st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join))
def test_reading_raises_nothing_but_its_own_error(xml):
    assert isinstance(parse_error(xml), WireError)
    for found in salvage_messages(xml, "why"):
        assert not found.unreadable or found.body in xml
    for parse in (parse_messages, parse_errors, parse_visibility):
        with contextlib.suppress(UnreadableAnswer):
            parse(xml)


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff")),
        max_size=5,
    )
)
def test_any_text_that_xml_can_carry_comes_back(bodies):
    assert [m.body for m in parse_messages(batch(*map(message, bodies)))] == [body.encode() for body in bodies]


def test_one_unreadable_message_leaves_the_others_readable():
    xml = batch(message(handle="a"), message(NUL_BODY, handle="b", identity="bad"), message(handle="c"))
    first, bad, last = salvage_messages(xml, "not well-formed")
    assert [first.receipt_handle, bad.receipt_handle, last.receipt_handle] == ["a", "b", "c"]
    assert (first.unreadable, last.unreadable) == ("", "")
    assert bad.message_id == "bad"
    assert bad.unreadable.startswith("not well-formed")
    assert NUL_BODY.encode() in bad.body


@pytest.mark.parametrize(
    ("xml", "handles"),
    [
        (message(NUL_BODY, handle="h-1").encode(), ["h-1"]),
        (message(NUL_BODY, handle="a&amp;b").encode(), ["a&b"]),
        (message(NUL_BODY, handle="\x02").encode(), [""]),
        (
            message(NUL_BODY + "</MessageBody><ReceiptHandle>x</ReceiptHandle>")
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .encode(),
            [""],
        ),
        (batch(message(handle="a"), message(handle="b"))[: -len("</Message></Messages>")], ["a", ""]),
        (b"<html>sign in</html>", []),
        (b"", []),
    ],
    ids=["single", "escaped", "unprintable handle", "two handles", "cut off", "web page", "nothing"],
)
def test_a_handle_is_salvaged_where_it_is_certain(xml, handles):
    assert [m.receipt_handle for m in salvage_messages(xml, "why")] == handles


def test_no_more_pieces_are_salvaged_than_a_batch_has():
    assert len(salvage_messages(b"<Message>" * 100_000, "why")) == BATCH


def test_errors_are_read():
    assert parse_error(
        f'<?xml version="1.0"?><Error xmlns="{NAMESPACE}"><Code>QueueNotExist</Code><Message>no such queue</Message>'
        "<RequestId>r</RequestId><HostId>http://h</HostId></Error>".encode()
    ) == WireError("QueueNotExist", "no such queue", "r")
    assert parse_error(b"<html/>") == parse_error(b"") == WireError("")


def test_entries_of_a_partly_failed_delete_are_read():
    entry = "<Error><ErrorCode>MessageNotExist</ErrorCode><ErrorMessage>gone</ErrorMessage><ReceiptHandle>{}</ReceiptHandle></Error>"
    xml = f'<Errors xmlns="{NAMESPACE}">{entry.format("a&amp;b")}{entry.format("c")}</Errors>'.encode()
    assert [(e.code, e.receipt_handle) for e in parse_errors(xml)] == [
        ("MessageNotExist", "a&b"),
        ("MessageNotExist", "c"),
    ]
    assert parse_errors(b"<Error><Code>AccessDenied</Code></Error>") == []


def test_the_new_handle_is_read():
    xml = b"<ChangeVisibility><ReceiptHandle>new</ReceiptHandle><NextVisibleTime>1</NextVisibleTime></ChangeVisibility>"
    assert parse_visibility(xml) == "new"
    with pytest.raises(UnreadableAnswer, match="no ReceiptHandle"):
        parse_visibility(b"<ChangeVisibility/>")


def test_delete_body_is_escaped():
    assert (
        delete_body(["a&b", "c"])
        == (
            f'<?xml version="1.0" encoding="utf-8"?><ReceiptHandles xmlns="{NAMESPACE}">'
            "<ReceiptHandle>a&amp;b</ReceiptHandle><ReceiptHandle>c</ReceiptHandle></ReceiptHandles>"
        ).encode()
    )


def _reference():
    """The reference's table of errors, row by row."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in REFERENCE.read_text().splitlines()]
    for row in rows:
        if len(row) == 6 and row[0].isdecimal():
            yield int(row[0]), row[1], dict(zip(Operation, map(Verdict, row[2:]), strict=True))


@pytest.mark.parametrize(("status", "code", "verdicts"), list(_reference()), ids=lambda value: str(value)[:40])
def test_answers_mean_what_the_reference_says(status, code, verdicts):
    unknown = code == "(any other)"
    for operation, verdict in verdicts.items():
        for name in ("", "SomethingNew") if unknown else (code,):
            assert classify(operation, status, name) is verdict


def test_the_reference_names_every_code_and_meaning():
    named = {code for _, code, _ in _reference()} - {"(any other)"}
    assert named == {*smq_wire._CODES, *smq_wire._HANDLE_CODES}
    assert set(re.findall(r"^\| `(\w+)` \|", REFERENCE.read_text(), re.MULTILINE)) == set(Verdict)


@given(st.sampled_from(Operation), st.integers(100, 999), st.text(max_size=30))
def test_every_answer_has_a_meaning(operation, status, code):
    assert classify(operation, status, code) in Verdict
