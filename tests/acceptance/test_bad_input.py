"""Whatever is wrong with input or surroundings is told in words on one screen; no message is lost over it."""

import base64
import os
import socket
import subprocess

import pytest
from processes import TRIAGE, ask, environment, started, stored, totals, triage
from workload import body

BOMB = b"""<?xml version="1.0"?><!DOCTYPE Notification [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><Notification><Message>&c;</Message></Notification>"""
NASTY = {
    "cut off": (body("f", 1)[:90], "not_json"),
    "garbage of 64 KB": (os.urandom(49_152).hex().encode()[:65_536], "not_"),
    "bytes that are no text": (b"\xff\xfe\x00\x01" * 1000, "not_"),
    "XML bomb": (BOMB, "wrapper"),
    "outer entity": (
        b'<!DOCTYPE n [<!ENTITY x SYSTEM "file:///etc/passwd">]><Notification><Message>&x;</Message></Notification>',
        "wrapper",
    ),
    "base64 of nothing useful": (base64.b64encode(b"\x1b[2J not json"), "not_json"),
    "deeply nested": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "not_json"),
    "another kind of JSON": (b'{"records": [1, 2, 3]}', "schema"),
    "a list": (b"[1, 2, 3]", ""),
    "a requestId that is none": (body("f", 1).replace(b"1-f-000001", b"\\u0000" * 400), "schema"),
}


def test_nasty_messages_are_quarantined_and_hold_up_nothing(tmp_path):
    state, folder = tmp_path / "state", tmp_path / "messages"
    folder.mkdir()
    for number, (text, _) in enumerate(NASTY.values()):
        (folder / f"{number:02}-nasty").write_bytes(text)
        (folder / f"{number:02}-then").write_bytes(body("fine", number))
    sent = ask("queue", "send", folder, state=state)
    assert sent["sent"] == 2 * len(NASTY)
    with started("run", state=state) as running:
        running.until(lambda: (now := totals(state)) and now.received == 2 * len(NASTY))
        assert running.stop() == 0
    sums = ask("status", state=state)
    assert (sums["adds_up"], sums["decided"], sums["quarantined"]) == (True, len(NASTY), len(NASTY))
    kept = {row.body: row for row in stored(state, lambda store: store.quarantined(limit=100))}
    assert set(kept) == {text for text, _ in NASTY.values()}
    for name, (text, reason) in NASTY.items():
        assert reason in kept[text].reason, name
        assert 0 < len(kept[text].detail) < 500, name
    listed = triage("quarantine", "list", state=state)
    assert len(listed.splitlines()) == 1 + len(NASTY)
    assert "\x1b" not in running.log
    assert "root:" not in listed + running.log


RULE = "version: 1\nrules:\n  - id: tell\n    alert: {to: default}\n"
MISTAKES = {
    "rule with mistakes": (
        'rules = "r.yaml"',
        RULE.replace("to: default", "to: default, grup_by: [function]") + "  - {id: x, when: lineage.atempt < 3}\n",
        {},
        "r.yaml:4:26",
    ),
    "rule for an unknown receiver": ('rules = "r.yaml"', RULE.replace("default", "oncall"), {}, "add [receivers.oncall]"),
    "rules that are no YAML": ('rules = "r.yaml"', "rules: [", {}, "r.yaml:"),
    "configuration with mistakes": ('[outbox]\nleese = "1m"\n[log]\nlevel = "loud"', None, {}, "t.toml:2:1"),
    "receiver that is no address": (
        '[receivers.oncall]\nurls = "nonsense://TheToken"', None, {}, "receivers.oncall.urls[0]: not a target",
    ),
    "state below a file": ("", None, {"TRIAGE_STATE_DIR": "{folder}/t.toml/x"}, "t.toml/x: Not a directory"),
    "store that is a folder": ('[store]\npath = "/"', None, {}, "the store cannot be used: /"),
    "store that is no database": ('[store]\npath = "{folder}/t.toml"', None, {}, "not an SQLite database"),
    "queue that is no database": ('[queue]\npath = "{folder}/t.toml"', None, {}, "not an SQLite database"),
    "variable that is wrong": ("", None, {"TRIAGE_SOURCES": '[{"type": "lokal"}]'}, '(type = "local", "smq" or "reconcile")'),
}  # fmt: skip
UNUSABLE_FILES = (
    "t.toml/x: Not a directory",
    "the store cannot be used: /",
    "not an SQLite database",
)


@pytest.mark.parametrize(("config", "rules", "environ", "said"), MISTAKES.values(), ids=MISTAKES)
def test_the_daemon_says_what_keeps_it_from_starting(tmp_path, config, rules, environ, said):
    # What only an edit can mend has a code of its own, upon which systemd does not try again.
    code = 1 if said in UNUSABLE_FILES else 3
    (tmp_path / "t.toml").write_text(config.replace("{folder}", str(tmp_path)))
    if rules is not None:
        (tmp_path / "r.yaml").write_text(rules)
    environ = {name: value.replace("{folder}", str(tmp_path)) for name, value in environ.items()}
    done = run("run", "--config", "t.toml", folder=tmp_path, **environ)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "TheToken" not in done.stderr
    assert len(done.stderr.splitlines()) <= 24


def test_a_configuration_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "binary.toml").write_bytes(os.urandom(8) + b"\xff")
    for name, code, said in (
        ("binary.toml", 3, "binary.toml: not UTF-8 text"),
        ("folder.toml", 2, "is a directory"),
    ):
        done = run("run", "--config", name, folder=tmp_path)
        assert (done.returncode, done.stdout) == (code, "")
        assert said in done.stderr


def test_a_service_that_is_not_there_is_told_and_asked_again(tmp_path):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, but nobody listens
        (tmp_path / "t.toml").write_text(
            f'[[sources]]\ntype = "smq"\nendpoint = "http://127.0.0.1:{nobody.getsockname()[1]}"\nqueue = "results"\n'
            '[credentials]\naccess_key_id = "id"\naccess_key_secret = "TheSecret"\n'
        )
        with started("run", "--config", tmp_path / "t.toml", state=tmp_path / "state") as running:
            log = running.until_logged("asking again in")
            assert "127.0.0.1" in log
            assert running.stop(within=10) == 0
            assert "TheSecret" not in running.log


def run(*args, folder, **environ):
    return subprocess.run(
        [*TRIAGE, *args],
        env={**environment(folder / "state"), **environ},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
