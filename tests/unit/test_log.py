"""The log: two formats, and no secret in either."""

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from triage.log import about, configure, printable, redactor, secrets_of
from triage.settings import Settings, load_settings

ADDRESSES = (
    "slack://TokenAAAAAAAAA/TokenBBBBBBBBB/TokenCCCCCCCCC/#general",
    "mailtos://robot:hun%74er2@mail.example/?to=ops@example.org",
    "json://127.0.0.1:8080/hooks/T0kenInPath?+X-Token=HeaderSecret&format=markdown",
    "lark://FeishuHookToken",
    "xml://[broken/BracketSecret",
)
SECRETS = (
    "TokenAAAAAAAAA", "TokenBBBBBBBBB", "TokenCCCCCCCCC", "hun%74er2", "T0kenInPath", "HeaderSecret", "FeishuHookToken",
    "BracketSecret", 'key"with/odd chars', "sts-token", *ADDRESSES,
)  # fmt: skip


def settings(log_format: str, level: str = "info") -> Settings:
    environ = {
        "HOME": "/home/operator",
        "TRIAGE_CREDENTIALS__ACCESS_KEY_ID": "id",
        "TRIAGE_CREDENTIALS__ACCESS_KEY_SECRET": 'key"with/odd chars',
        "TRIAGE_CREDENTIALS__SECURITY_TOKEN": "sts-token",
        "TRIAGE_RECEIVERS__OPS__URLS": json.dumps(ADDRESSES),
        "TRIAGE_LOG__FORMAT": log_format,
        "TRIAGE_LOG__LEVEL": level,
    }
    return load_settings(None, environ=environ)


def configured(given: Settings, out: io.StringIO) -> None:
    configure(given.log, secrets=secrets_of(given), stream=out)


def fail(why: str) -> None:
    raise ConnectionError(why)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before, level, hooks = root.handlers[:], root.level, (sys.excepthook, threading.excepthook)
    yield
    root.handlers[:], root.level = before, level
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(capture=False)


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_written_in_no_form_and_nowhere(log_format: str, secret: str):
    out = io.StringIO()
    configured(settings(log_format), out)
    log = logging.getLogger("triage.notify")
    log.warning("told %s of it", secret)
    log.warning("as a URL would have it: %s", quote(secret, safe=""))
    log.warning("extra", extra={"address": secret, "nested": {"inner": [secret]}})
    try:
        fail(f"cannot reach {secret}")
    except ConnectionError:
        log.exception("failed")
    logging.getLogger("apprise").warning("could not connect to %r", secret)
    written = out.getvalue()
    assert written.count("***") >= 6
    for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], repr(secret)[1:-1]):
        assert form not in written


def test_what_is_no_secret_stays():
    out = io.StringIO()
    configured(settings("text"), out)
    logging.getLogger("triage").warning("127.0.0.1 mail.example markdown /hooks/ general console:")
    assert out.getvalue().endswith("WARNING triage: 127.0.0.1 mail.example markdown /hooks/ general console:\n")


def test_without_secrets_nothing_is_replaced():
    assert redactor([])("abc") == "abc"
    assert secrets_of(load_settings(None, environ={"HOME": "/h"})) == frozenset()


def test_json_is_one_object_per_line_whatever_the_message():
    out = io.StringIO()
    configured(settings("json"), out)
    logging.getLogger("triage.x").error("two\nlines\x1b[31m", extra={"count": 3})
    try:
        fail("why")
    except ConnectionError:
        logging.getLogger("triage.x").exception("failed")
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert first | {"time": ""} == {
        "time": "",
        "level": "error",
        "logger": "triage.x",
        "message": "two\nlines\x1b[31m",
        "count": 3,
    }
    assert second["exception"].endswith("ConnectionError: why")


def test_text_from_outside_cannot_forge_lines_or_colour_the_terminal():
    out = io.StringIO()
    configured(settings("text"), out)
    logging.getLogger("triage").info(
        "id %s", "x\n2026-01-01T00:00:00.000Z INFO triage: forged\x1b[2J\u202e", extra={"k": "a\rb"}
    )
    line = out.getvalue()
    assert line.count("\n") == 1
    assert line.endswith("id x\\n2026-01-01T00:00:00.000Z INFO triage: forged\\x1b[2J\\u202e k=a\\rb\n")


def test_libraries_that_log_addresses_are_kept_to_warnings_even_at_debug():
    out = io.StringIO()
    configured(settings("text", "debug"), out)
    for name in ("apprise", "urllib3", "apprise.plugins.slack"):
        logging.getLogger(name).info("loaded")
    logging.getLogger("triage").debug("seen")
    assert "loaded" not in out.getvalue()
    assert "seen" in out.getvalue()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_libraries_that_somebody_sets_to_debug_show_no_secret_either(log_format: str):
    out = io.StringIO()
    given = settings(log_format, "debug")
    configured(given, out)
    address, secret = ADDRESSES[0], SECRETS[8]
    levels = {
        name: logging.getLogger(name).level
        for name in ("apprise", "aiohttp.client", "urllib3.connectionpool", "asyncio")
    }
    try:
        for name in levels:
            library = logging.getLogger(name)
            library.setLevel(logging.DEBUG)
            library.debug("POST %s", address, stack_info=True)
            library.debug({"headers": {"Authorization": secret}})
            try:
                try:
                    fail(f"refused for {secret}")
                except ConnectionError as error:
                    error.add_note(f"while asking {address}")
                    raise RuntimeError(address) from error
            except RuntimeError:
                library.exception("Unhandled exception in %r", {address})
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    written = out.getvalue()
    assert written.count("RuntimeError: ***") == len(levels)
    for text in (address, secret, json.dumps(secret)[1:-1], *SECRETS[:3]):
        assert text not in written


def test_what_nobody_catches_is_told_in_the_log_without_secrets():
    out = io.StringIO()
    configured(settings("json"), out)
    try:
        fail(f"cannot reach {ADDRESSES[0]}")
    except ConnectionError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    thread = threading.Thread(target=fail, args=(ADDRESSES[0],))
    thread.start()
    thread.join()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn(f"{ADDRESSES[0]} is old", stacklevel=1)
    first, second, third = (json.loads(line) for line in out.getvalue().splitlines())
    assert (first["level"], first["message"]) == ("critical", "a defect of triage")
    assert first["exception"].endswith("ConnectionError: cannot reach ***")
    assert second["exception"].endswith("ConnectionError: ***")
    assert third["logger"] == "py.warnings"
    assert "Token" not in out.getvalue()


def test_lines_about_one_envelope_carry_its_lineage():
    assert about("root") == about("root", "root") == {"lineage": "root"}
    assert about("root", "child") == {"lineage": "root", "request": "child"}
    out = io.StringIO()
    configured(settings("text"), out)
    logging.getLogger("triage").info("done", extra=about("root", "child"))
    assert out.getvalue().endswith("INFO triage: done lineage=root request=child\n")


def test_what_repeats_itself_is_counted_when_the_log_ends():
    out = io.StringIO()
    configured(settings("text"), out)
    for number in range(20):
        logging.getLogger("triage").warning("%s told %d times", SECRETS[0], number, extra={"lineage": "r"})
    configured(settings("text"), io.StringIO())
    assert [line.partition("triage: ")[2] for line in out.getvalue().splitlines()] == [
        *(f"*** told {number} times lineage=r" for number in range(5)),
        "repeated 15 times in 0 s; the last: *** told 19 times",
    ]


@pytest.mark.parametrize(
    ("text", "shown"), [("plain é 漢", "plain é 漢"), ("a\tb\0", "a\\tb\\x00"), ("\ud800", "\\ud800"), ("", "")]
)
def test_printable(text: str, shown: str):
    assert printable(text) == shown
