"""Notifications through apprise, to targets that are served here."""

import asyncio
import io
import json
import logging
import sys
import threading
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from hooks import Hooks, web_hooks
from letters import post_office

from triage.alerts.delivery import Result
from triage.clock import SystemClock
from triage.errors import ConfigInvalid
from triage.listening import Heard, listening
from triage.log import configure, secrets_of
from triage.notify import AppriseNotifier, Notification, ReceiverConfig
from triage.progress import stalled
from triage.settings import load_settings
from triage.testing import ManualClock

# apprise's own imports, on Python 3.11 and 3.12.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

NOTE = Notification(
    "ops", "[critical] my-fc-job failed × 2 #abc123", "Error: <b>_boom_</b> \\n & 100%\nCount: 2", "critical"
)
SECRET = "T0kenThatMustNotBeSeen"


@pytest.fixture
def hooks():
    with web_hooks() as server:
        yield server


def notifier(urls, *, timeout=5.0, **options):
    return AppriseNotifier.load({"ops": ReceiverConfig(tuple(urls), timedelta(seconds=timeout))}, **options)


def results(answers):
    return [answer.result for answer in answers.values()]


def send(urls, note=NOTE, *, skip=(), **options):
    """The results by the targets' places in the list."""
    ops = notifier(urls, **options)
    keys = [target.key for target in ops.targets("ops")]
    answers = asyncio.run(ops.send(note, skip=frozenset(keys[place] for place in skip)))
    return {keys.index(key): answer.result for key, answer in answers.items()}


def test_a_notification_reaches_all_targets_of_its_receiver_as_it_is_written(hooks):
    assert send([hooks.url("ok/a"), hooks.url("ok/b")]) == {0: Result.SENT, 1: Result.SENT}
    for path in ("ok/a", "ok/b"):
        (body,) = hooks.got(path)
        assert (body["title"], body["message"], body["type"]) == (NOTE.title, NOTE.body, "failure")


@pytest.mark.parametrize(
    ("severity", "kind"), [("info", "info"), ("warning", "warning"), ("critical", "failure"), ("other", "warning")]
)
def test_the_severity_is_told_in_words_of_apprise(hooks, severity, kind):
    note = Notification("ops", NOTE.title, NOTE.body, severity)
    assert send([hooks.url("ok")], note) == {0: Result.SENT}
    assert hooks.got("ok")[0]["type"] == kind


def test_each_target_has_a_result_of_its_own(hooks):
    urls = [hooks.url("broken"), hooks.url("ok"), hooks.url("slow")]
    assert send(urls, timeout=1.0) == {0: Result.FAILED, 1: Result.SENT, 2: Result.UNKNOWN}
    assert len(hooks.taken) == 3, "and none is tried again here: the outbox does that"


def test_a_target_that_is_not_there_has_failed():
    with Hooks() as gone:
        url = gone.url("ok")
    assert send([url]) == {0: Result.FAILED}


def test_targets_that_took_it_are_skipped(hooks):
    urls = [hooks.url("ok/a"), hooks.url("broken"), hooks.url("ok/b")]
    assert send(urls, skip=(0, 2)) == {1: Result.FAILED}
    assert [path for path, _ in hooks.taken] == ["/broken"]


def test_a_receiver_that_is_not_configured_has_no_results():
    notifier = AppriseNotifier.load({"ops": ReceiverConfig(("console:",))}, write=lambda _: None)
    assert asyncio.run(notifier.send(Notification("nobody", "t", "b", "info"))) == {}


def one_answer(url, **options):
    (answer,) = asyncio.run(notifier([url], **options).send(NOTE)).values()
    assert answer.target == f"target 1 ({url.partition(':')[0]})"
    return answer.result, answer.detail, answer.retry_after


@pytest.mark.parametrize(
    ("path", "detail", "after"),
    [
        ("say/404/60", "HTTP 404", None),
        ("say/429", "HTTP 429", None),
        ("say/429/17", "HTTP 429", 17),
        ("say/503/17", "HTTP 503", 17),
        ("say/429/soon", "HTTP 429", None),
        ("say/429/99999999999999999999", "HTTP 429", 24 * 3600),
        ("say/503/Sun, 01 Mar 2026 12:01:00 GMT", "HTTP 503", 60),
        ("say/503/Sun, 01 Mar 2026 11:00:00 GMT", "HTTP 503", 0),
    ],
)
def test_what_the_far_side_says_is_heard_and_when_it_wants_to_be_asked_again(hooks, path, detail, after):
    clock = ManualClock(datetime(2026, 3, 1, 12, tzinfo=UTC))
    heard = one_answer(hooks.url(quote(path)), clock=clock)
    assert heard == (Result.FAILED, detail, None if after is None else timedelta(seconds=after))


def test_ntfy_is_heard_too(hooks):
    url = hooks.url("").replace("json://", "ntfy://") + "alerts"
    assert one_answer(url) == (Result.SENT, "", None)
    assert hooks.taken[0][1]["topic"] == "alerts"


def test_what_left_and_was_not_answered_may_have_arrived(hooks):
    assert one_answer(hooks.url("cut")) == (Result.UNKNOWN, "sent, but not answered", None)
    assert one_answer(hooks.url("slow", "?rto=0.2")) == (Result.UNKNOWN, "sent, but not answered", None)


def test_an_answer_is_waited_for_as_long_as_the_receiver_says_unless_the_address_says_otherwise():
    urls = ("json://127.0.0.1/", "json://127.0.0.1/?rto=2")
    targets = notifier(urls, timeout=30).targets("ops")
    assert [next(iter(target.service)).socket_read_timeout for target in targets] == [30, 2]


def test_what_found_no_connection_has_not_arrived():
    with Hooks() as gone:
        url = gone.url("ok")
    assert one_answer(url) == (Result.FAILED, "no connection", None)


def test_nothing_is_heard_of_requests_that_others_make(hooks):
    with listening() as heard:
        thread = threading.Thread(target=send, args=([hooks.url("broken")],))
        thread.start()
        thread.join()
    assert heard == Heard()
    assert send([hooks.url("ok")]) == {0: Result.SENT}


def test_a_target_is_known_by_its_address_wherever_it_stands(hooks):
    urls = [hooks.url("a/" + SECRET), hooks.url("b"), "console:"]
    one, two = notifier(urls).targets("ops"), notifier(urls[::-1]).targets("ops")
    assert [target.key for target in one] == [target.key for target in reversed(two)]
    shown = [target.shown for target in one]
    assert shown == [f"json://127.0.0.1:{hooks.server_port}/…"] * 2 + ["console:"]


# ---------------------------------------------------------------- mail


@pytest.fixture
def post():
    with post_office() as letters:
        yield letters


def test_mail_is_sent_and_refusals_are_told_from_silence(post):
    def answer(title, query=""):
        note = Notification("ops", title, "body", "warning")
        (answer,) = asyncio.run(notifier([post.url + query]).send(note)).values()
        return answer.result, answer.detail

    assert answer("an alert") == (Result.SENT, "")
    assert b"Subject: an alert" in post.taken[0].content
    assert answer("refused") == (Result.FAILED, "not taken")
    assert answer("slowly", "&cto=0.3&rto=0.3") == (Result.UNKNOWN, "sent, but not answered")


# ---------------------------------------------------------------- the console


def test_the_console_prints_title_and_text(hooks):
    written = []
    assert send(["console:", hooks.url("ok")], write=written.append) == {0: Result.SENT, 1: Result.SENT}
    assert written == [f"{NOTE.title}\n{NOTE.body}\n\n"]


def test_the_console_is_the_standard_output():
    with redirect_stdout(io.StringIO()) as out:
        assert send(["console:"]) == {0: Result.SENT}
    assert out.getvalue() == f"{NOTE.title}\n{NOTE.body}\n\n"


def test_a_console_that_lacks_a_character_still_shows_the_alert():
    raw = io.BytesIO()
    with redirect_stdout(io.TextIOWrapper(raw, encoding="ascii")):
        assert send(["console:"]) == {0: Result.SENT}
        sys.stdout.flush()
        assert b"my-fc-job failed ? 2 #abc123" in raw.getvalue()


@pytest.mark.parametrize("error", [BrokenPipeError("nobody reads"), ValueError("I/O operation on closed file")])
def test_a_console_that_is_gone_has_failed_and_harms_no_other_target(hooks, error, caplog):
    def write(text):
        raise error

    assert send(["console:", hooks.url("ok")], write=write) == {0: Result.FAILED, 1: Result.SENT}
    assert f"the console takes no notification: {error}" in caplog.text


def test_a_console_nobody_reads_takes_no_longer_than_allowed():
    async def scenario():
        released = threading.Event()
        receivers = {"ops": ReceiverConfig(("console:",), timedelta(seconds=0.05))}
        notifier = AppriseNotifier.load(receivers, write=lambda _: released.wait(10))
        try:
            return await notifier.send(NOTE)
        finally:
            released.set()

    assert results(asyncio.run(scenario())) == [Result.UNKNOWN]


def test_a_target_that_does_not_return_is_not_asked_again_until_it_does_and_harms_no_other(hooks):
    async def scenario():
        urls = (hooks.url("slow"), hooks.url("ok"))
        notifier = AppriseNotifier.load(
            {"ops": ReceiverConfig(urls, timedelta(seconds=0.2))}, limit=timedelta(seconds=1)
        )
        clock = SystemClock()
        for again in range(20):
            assert results(await notifier.send(NOTE)) == [Result.UNKNOWN if not again else Result.FAILED, Result.SENT]
        assert (len(hooks.got("slow")), len(hooks.got("ok"))) == (1, 20)
        later = clock.steady() + timedelta(seconds=2)
        assert [stage.name for stage in stalled(notifier.stages, later)] == ["notify"]
        hooks.release.set()
        async with asyncio.timeout(10):
            while stalled(notifier.stages, later):  # noqa: ASYNC110 - a thread comes to its end
                await asyncio.sleep(0.01)
        assert results(await notifier.send(NOTE)) == [Result.SENT, Result.SENT]

    asyncio.run(scenario())


def test_a_console_that_nobody_reads_is_no_reason_to_start_anew():
    async def scenario():
        released = threading.Event()
        receivers = {"ops": ReceiverConfig(("console:",), timedelta(seconds=0.05))}
        notifier = AppriseNotifier.load(receivers, write=lambda _: released.wait(10))
        try:
            assert results(await notifier.send(NOTE)) == [Result.UNKNOWN]
            assert stalled(notifier.stages, SystemClock().steady() + timedelta(hours=1)) == []
        finally:
            released.set()

    asyncio.run(scenario())


# ---------------------------------------------------------------- addresses


def test_every_wrong_address_is_told_by_its_place_and_never_shown(hooks):
    receivers = {
        "ops": ReceiverConfig((hooks.url("ok"), f"nosuch://{SECRET}/x")),
        "chat": ReceiverConfig((f"slack://{SECRET}", f"{hooks.url(SECRET)},{hooks.url(SECRET)}")),
    }
    with pytest.raises(ConfigInvalid) as caught:
        AppriseNotifier.load(receivers)
    assert [(problem.file, problem.message) for problem in caught.value.problems] == [
        ("receivers.chat.urls[0]", "not a target that apprise understands"),
        ("receivers.chat.urls[1]", "several targets in one text"),
        ("receivers.ops.urls[1]", "not a target that apprise understands"),
    ]
    assert SECRET not in str(caught.value)
    assert hooks.taken == []


@pytest.fixture
def logging_as_it_was():
    loggers = [logging.getLogger(name) for name in (None, "apprise", "urllib3")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.mark.usefixtures("logging_as_it_was")
def test_no_secret_is_in_the_log_whatever_happens(hooks):
    with Hooks() as gone:
        unreachable = gone.url(SECRET, "?+X-Token=" + SECRET)
    urls = [
        hooks.url("ok/" + SECRET),
        hooks.url("broken/" + SECRET, "?+X-Token=" + SECRET),
        hooks.url("slow/" + SECRET).replace("json://", f"json://robot:{SECRET}@"),
        unreachable,
    ]
    wrong = [f"slack://{SECRET}", f"nosuch://{SECRET}/x", SECRET]
    environ = {
        "HOME": "/home/operator",
        "TRIAGE_RECEIVERS__OPS__URLS": json.dumps(urls),
        "TRIAGE_RECEIVERS__WRONG__URLS": json.dumps(wrong),
        "TRIAGE_LOG__LEVEL": "debug",
    }
    settings, out = load_settings(None, environ=environ), io.StringIO()
    configure(settings.log, secrets=secrets_of(settings), stream=out)

    results = send(urls, timeout=1.0)
    with pytest.raises(ConfigInvalid):
        AppriseNotifier.load({"wrong": ReceiverConfig(tuple(wrong))})

    assert list(results.values()) == [Result.SENT, Result.FAILED, Result.UNKNOWN, Result.FAILED]
    assert "WARNING apprise" in out.getvalue(), "apprise did say something"
    assert SECRET not in out.getvalue()
