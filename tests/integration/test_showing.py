"""The form of a message that each service is sent, by apprise, to servers that are here."""

import asyncio
import logging
from datetime import timedelta
from email import message_from_bytes
from email.policy import default

import make
import pytest
from apprise import Apprise
from bombs import BOMBS, WORDS
from hooks import web_hooks
from hypothesis import given, settings
from hypothesis import strategies as st
from letters import post_office

from triage.alerts.delivery import Result
from triage.alerts.example import example
from triage.alerts.wording import Format
from triage.composing import Composer
from triage.notify import AppriseNotifier, Notification, ReceiverConfig
from triage.rules.model import RuleSet
from triage.showing import form_of, shown

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

FORMS = {"markdown": "**bold**", "html": "<b>bold</b>"}
NOTE = Notification("ops", "a title", "plain <text> & *more*\n  second", "warning", FORMS)
DISCORD = "discord://123456789012345678/abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnop"
SLACK = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#c"
TELEGRAM = "tgram://123456789:abcdefg_hijklmnop/12315544/"


@pytest.fixture
def hooks():
    with web_hooks() as server:
        yield server


def service(url):
    (found,) = Apprise(url)
    return found


def send(urls, note=NOTE, form=None):
    notifier = AppriseNotifier.load({"ops": ReceiverConfig(tuple(urls), timedelta(seconds=5), form)})
    answers = asyncio.run(notifier.send(note))
    assert {answer.result for answer in answers.values()} == {Result.SENT}
    return notifier


def test_a_web_hook_gets_plain_text_unless_its_address_or_its_receiver_wants_something_else(hooks):
    send([hooks.url("ok/plain"), hooks.url("ok/own", "?format=html")], form=None)
    send([hooks.url("ok/wanted"), hooks.url("ok/more", "?format=html")], form=Format.MARKDOWN)
    got = {path: hooks.got(f"ok/{path}")[0]["message"] for path in ("plain", "own", "wanted", "more")}
    assert got == {"plain": NOTE.body, "own": FORMS["html"], "wanted": FORMS["markdown"], "more": FORMS["html"]}


def test_mail_is_sent_as_html_and_has_plain_text_beside_it():
    with post_office() as letters:
        notifier = send([letters.url])
        (letter,) = letters.taken
    mail = message_from_bytes(letter.content, policy=default)
    assert "<b>bold</b>" in mail.get_body(("html",)).get_content()
    assert "bold" in mail.get_body(("plain",)).get_content()
    assert notifier.forms("ops") == {Format.HTML}


def test_what_has_no_form_of_its_own_is_put_in_it(hooks):
    plain = Notification("ops", "a title", NOTE.body, "warning")
    send([hooks.url("ok/html", "?format=html"), hooks.url("ok/markdown", "?format=markdown")], plain)
    page = "plain &lt;text&gt; &amp; *more*<br>\n&nbsp;&nbsp;second<br>"
    assert hooks.got("ok/html")[0]["message"] == page
    assert hooks.got("ok/markdown")[0]["message"] == "plain \\<text\\> \\& \\*more\\*  \n  second"


@pytest.mark.parametrize(
    ("url", "form"),
    [
        ("json://localhost", Format.TEXT),
        ("mailto://u:p@example.com", Format.HTML),
        ("ntfy://localhost/topic", Format.TEXT),
        (SLACK, Format.MARKDOWN),
        (TELEGRAM, Format.HTML),
        ("json://localhost?format=markdown", Format.MARKDOWN),
    ],
)
def test_each_service_is_sent_what_it_shows_best(url, form):
    assert form_of(service(url)) is form
    assert form_of(service(url), form) is form


def test_what_a_service_cannot_show_it_is_not_sent():
    assert form_of(service("ntfy://localhost/topic"), Format.HTML) is Format.TEXT
    assert form_of(service(SLACK), Format.HTML) is Format.MARKDOWN


@pytest.mark.parametrize(
    "url", [DISCORD, TELEGRAM, "pover://abcdefghijklmnopqrstuvwxyz1234@abcdefghijklmnopqrstuvwxyz1234"]
)
def test_what_is_too_long_for_a_service_is_cut_rather_than_refused(url):
    target = service(url)
    body = "\n".join(f"line {number}: <b>& more" for number in range(2000))
    text, form = shown(target, "a title", body, {"markdown": "*" * 50_000, "html": "<p>" * 50_000, "text": body})
    assert len("a title") + len(text) < target.body_maxlen
    assert text.startswith("line 0")
    assert "and more: see triage failures list" in text
    assert form is form_of(target)


@settings(deadline=None, max_examples=60)
@given(st.lists(WORDS, max_size=40).map(" ".join) | st.sampled_from(BOMBS) | st.text(max_size=80))
def test_whatever_a_template_makes_of_it_a_message_arrives_and_can_be_read(source):
    logging.disable(logging.CRITICAL)
    try:
        composer = Composer(
            forms=lambda _: Format,
            rules=lambda: RuleSet((), "", templates={"own": {str(form): source for form in Format}}),
            templates={"ops": "own"},
        )
        texts = composer(example(make.NOW), "ab12cd34", "ops")
        note = Notification("ops", texts.title, texts.body, "warning", texts.forms)
        with web_hooks() as server:
            send([server.url("ok/a"), server.url("ok/b", "?format=markdown"), server.url("ok/c", "?format=html")], note)
            got = [server.got(f"ok/{path}")[0] for path in "abc"]
    finally:
        logging.disable(logging.NOTSET)
    assert all("ab12cd34" in each["title"] and each["message"].strip() for each in got)
