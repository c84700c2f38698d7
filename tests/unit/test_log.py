"""The log: two formats, and no secret in either."""

import io
import json
import logging
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from triage.log import configure, printable, redactor, secrets_of
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
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before, level


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


@pytest.mark.parametrize(
    ("text", "shown"), [("plain é 漢", "plain é 漢"), ("a\tb\0", "a\\tb\\x00"), ("\ud800", "\\ud800"), ("", "")]
)
def test_printable(text: str, shown: str):
    assert printable(text) == shown
