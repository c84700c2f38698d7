"""SMQ's XML: whatever comes in is read or refused, and what is kept is given back as it was."""

from hypothesis import example, given
from hypothesis import strategies as st

from triage.emulator.smq_xml import Element, message_body, read, write
from triage.errors import Permanent
from triage.sources.queue_tables import Message
from triage.sources.smq_wire import parse_messages

TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff")
    | st.sampled_from("\t\n\r<&>]'\"")
)
LEAVES = st.builds(Element, st.sampled_from(("Name", "Value", "Type")), TEXT, st.just(()))
ELEMENTS = st.builds(
    Element, st.sampled_from(("UserProperties", "PropertyValue")), TEXT, st.lists(LEAVES, max_size=4).map(tuple)
)


@given(st.binary(max_size=300))
@example(b"")
@example(b"<a/>")
@example(b"<a>\x00</a>")
@example(b"<?xml version='1.0' encoding='ebcdic'?><a/>")
@example(b"<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>")
@example(b"<a>&undefined;</a>")
def test_any_bytes_are_read_or_refused_as_malformed(raw: bytes) -> None:
    try:
        element = read(raw)
    except Permanent as error:
        assert error.reason == "MalformedXML"  # noqa: PT017 - both outcomes are right
    else:
        assert element.name


@given(ELEMENTS)
def test_what_was_read_is_written_back_the_same(element: Element) -> None:
    assert read(write(element)) == element


@given(TEXT)
def test_bodies_survive_the_xml_of_a_received_message(body: str) -> None:
    message = Message("ID", body.encode(), "MD5", 8, 1, 30_001, 1, 1, "", "1-0")
    [parsed] = parse_messages(message_body(message))
    assert (parsed.body, parsed.receipt_handle, parsed.lease_ms) == (body.encode(), "1-0", 30_000)
