"""Notifications through apprise, to targets that are served here."""

import asyncio
import io
import json
import logging
import sys
import threading
from contextlib import redirect_stdout
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from triage.clock import SystemClock
from triage.errors import ConfigInvalid
from triage.log import configure, secrets_of
from triage.notify import AppriseNotifier, Notification, ReceiverConfig, Result
from triage.progress import stalled
from triage.settings import load_settings

# apprise's own imports, on Python 3.11 and 3.12.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

NOTE = Notification(
    "ops", "[critical] my-fc-job failed × 2 #abc123", "Error: <b>_boom_</b> \\n & 100%\nCount: 2", "critical"
)
SECRET = "T0kenThatMustNotBeSeen"


class Hooks(ThreadingHTTPServer):
    """Web hooks: ``/ok`` takes everything, ``/broken`` answers 500, ``/slow`` does not answer before ``release``."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Hook)
        self.taken, self.release = [], threading.Event()

    def url(self, path, query=""):
        return f"json://127.0.0.1:{self.server_port}/{path}{query}"

    def got(self, path):
        return [body for where, body in self.taken if where == f"/{path}"]


class _Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.taken.append((self.path, body))
        if self.path.startswith("/slow"):
            self.server.release.wait(10)
        self.send_response(500 if self.path.startswith("/broken") else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def hooks():
    with Hooks() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()


def send(urls, note=NOTE, *, timeout=5.0, write=None, **options):
    receivers = {"ops": ReceiverConfig(tuple(urls), timedelta(seconds=timeout))}
    notifier = AppriseNotifier.load(receivers, write=write)
    return asyncio.run(notifier.send(note, **options))


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
    assert send(urls, timeout=1.0) == {0: Result.FAILED, 1: Result.SENT, 2: Result.TIMEOUT}
    assert len(hooks.taken) == 3, "and none is tried again here: the outbox does that"


def test_a_target_that_is_not_there_has_failed():
    with Hooks() as gone:
        url = gone.url("ok")
    assert send([url]) == {0: Result.FAILED}


def test_targets_that_took_it_are_skipped(hooks):
    urls = [hooks.url("ok/a"), hooks.url("broken"), hooks.url("ok/b")]
    assert send(urls, skip=frozenset({0, 2})) == {1: Result.FAILED}
    assert [path for path, _ in hooks.taken] == ["/broken"]


def test_a_receiver_that_is_not_configured_has_no_results():
    notifier = AppriseNotifier.load({"ops": ReceiverConfig(("console:",))}, write=lambda _: None)
    assert asyncio.run(notifier.send(Notification("nobody", "t", "b", "info"))) == {}


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

    assert asyncio.run(scenario()) == {0: Result.TIMEOUT}


def test_a_target_that_does_not_return_is_not_asked_again_until_it_does_and_harms_no_other(hooks):
    async def scenario():
        urls = (hooks.url("slow"), hooks.url("ok"))
        notifier = AppriseNotifier.load(
            {"ops": ReceiverConfig(urls, timedelta(seconds=0.2))}, limit=timedelta(seconds=1)
        )
        clock = SystemClock()
        for _ in range(20):
            assert await notifier.send(NOTE) == {0: Result.TIMEOUT, 1: Result.SENT}
        assert (len(hooks.got("slow")), len(hooks.got("ok"))) == (1, 20)
        later = clock.steady() + timedelta(seconds=2)
        assert [stage.name for stage in stalled(notifier.stages, later)] == ["notify"]
        hooks.release.set()
        async with asyncio.timeout(10):
            while stalled(notifier.stages, later):  # noqa: ASYNC110 - a thread comes to its end
                await asyncio.sleep(0.01)
        assert await notifier.send(NOTE) == {0: Result.SENT, 1: Result.SENT}

    asyncio.run(scenario())


def test_a_console_that_nobody_reads_is_no_reason_to_start_anew():
    async def scenario():
        released = threading.Event()
        receivers = {"ops": ReceiverConfig(("console:",), timedelta(seconds=0.05))}
        notifier = AppriseNotifier.load(receivers, write=lambda _: released.wait(10))
        try:
            assert await notifier.send(NOTE) == {0: Result.TIMEOUT}
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

    assert list(results.values()) == [Result.SENT, Result.FAILED, Result.TIMEOUT, Result.FAILED]
    assert "WARNING apprise" in out.getvalue(), "apprise did say something"
    assert SECRET not in out.getvalue()
