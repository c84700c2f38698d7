"""A store whose messages are sealed: nothing of them in the file, everything works, and keys can be changed."""

import asyncio
import base64
import json
import sqlite3
from contextlib import closing
from datetime import timedelta

import make
import pytest
from click.testing import CliRunner
from past import Past, rule_set

from triage.cli import cli
from triage.errors import Misconfigured, StoreUnavailable
from triage.sealing import TABLES, Seal
from triage.stores import maintenance
from triage.stores.sqlite import SqliteStore

OLD, NEW = bytes(range(32)), bytes(32)
SECRET = "a-word-that-nobody-may-read"
RULES = rule_set(
    "  - {id: again, rerun: {after: 5m, backoff: {jitter: 0}, max_attempts: 1, give_up_after: 6h}, alert: {group_wait: 0s}}"
)


def body(name):
    return make.body(name, payload=f'{{"to": "{SECRET}",  "n": 1}}')


async def fill(path, seal, *names):
    """Failures, each of which comes twice with different bodies, and something that cannot be read."""
    past = await Past.open(path, RULES, seal=seal)
    await past.receive(*map(body, names))
    await past.receive(*(make.body(name, payload=f"other {SECRET}") for name in names))
    await past.receive(f"{{{SECRET}".encode())
    return past


def in_the_files(folder):
    return [path.name for path in folder.iterdir() if SECRET.encode() in path.read_bytes()]


def test_no_message_is_readable_in_the_file_and_a_re_run_is_byte_for_byte(tmp_path):
    async def scenario():
        past = await fill(tmp_path / "triage.db", Seal((OLD,)), "r-1")
        assert in_the_files(tmp_path) == []
        await past.pass_time(timedelta(minutes=6))
        event = f'{{"to": "{SECRET}",  "n": 1}}'.encode()
        assert past.functions.executions.total() == 1
        assert await past.store.payload_of("fake-1") == event, "as the result of the re-run tells it"
        found = await past.store.failure("r-1")
        assert json.loads(found.envelope["body"])["requestPayload"] == event.decode()
        assert SECRET in found.conflicts[0]["body"]
        (kept,) = await past.store.quarantined(limit=10)
        assert SECRET.encode() in kept.body
        assert (await past.store.quarantine_entry(kept.id)).body == kept.body
        await past.close()
        assert in_the_files(tmp_path) == []

    asyncio.run(scenario())


def test_without_a_key_that_is_needed_it_is_not_opened(tmp_path):
    async def scenario():
        path = tmp_path / "triage.db"
        await (await fill(path, Seal((OLD,)), "r-1")).close()
        for seal in (Seal(), Seal((NEW,))):
            with pytest.raises(Misconfigured, match=f"sealed with the key {Seal((OLD,)).names[0]}"):
                await SqliteStore.open(path, seal=seal)
        store = await SqliteStore.open(path, seal=Seal((NEW, OLD)))
        assert SECRET in (await store.failure("r-1")).envelope["body"]
        await store.close()

    asyncio.run(scenario())


def test_a_body_that_was_changed_is_a_store_that_fails(tmp_path):
    async def scenario():
        path = tmp_path / "triage.db"
        await (await fill(path, Seal((OLD,)), "r-1")).close()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE envelopes SET body = CAST(body || x'00' AS BLOB)")
            connection.commit()
        store = await SqliteStore.open(path, seal=Seal((OLD,)))
        with pytest.raises(StoreUnavailable):
            await store.payload_of("r-1")
        await store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("before", [Seal(), Seal((OLD,))], ids=["not sealed", "another key"])
def test_everything_is_sealed_anew_beside_a_daemon_and_the_old_key_can_go(tmp_path, before):
    async def scenario():
        path, both = tmp_path / "triage.db", Seal((NEW, *before.keys))
        await (await fill(path, before, *(f"r-{number}" for number in range(450)))).close()
        past = await fill(path, both, "during-1")
        steps = await asyncio.to_thread(lambda: list(maintenance.rekey(path, both)))
        assert sum(steps) == 450 + 450 + 1
        assert max(steps) <= 200
        assert list(await asyncio.to_thread(lambda: list(maintenance.rekey(path, both)))) == []
        await past.receive(body("after-1"))
        await past.close()
        assert in_the_files(tmp_path) == []
        store = await SqliteStore.open(path, seal=Seal((NEW,)))
        for name in ("r-0", "r-449", "during-1", "after-1"):
            assert await store.payload_of(name) == f'{{"to": "{SECRET}",  "n": 1}}'.encode()
        await store.close()
        with closing(sqlite3.connect(path)) as connection:
            for table in TABLES:
                assert connection.execute(f"SELECT count(*) FROM {table} WHERE body GLOB '*word*'").fetchone() == (0,)

    asyncio.run(scenario())


def test_commands_read_a_sealed_store_with_the_key_and_say_what_is_missing_without(tmp_path):
    asyncio.run(_closed(tmp_path / "triage.db", Seal((OLD,))))
    key = base64.b64encode(OLD).decode()

    def triage(*args, code=0, **environ):
        given = {"TRIAGE_STATE_DIR": str(tmp_path), "HOME": str(tmp_path), **environ}
        done = CliRunner().invoke(cli, list(map(str, args)), env=given)
        assert done.exit_code == code, done.output + repr(done.exception)
        return done

    with_key = {"TRIAGE_ENCRYPTION__KEYS": key}
    assert SECRET in triage("failures", "show", "r-1", **with_key).output
    explained = triage("rules", "explain", "r-1", **with_key)
    assert explained.exit_code == 0
    (tmp_path / "rules.yaml").write_text("version: 1\nrules:\n  - {id: other, ignore: 'a test'}\n")
    assert "1" in triage("rules", "backtest", "--rules", tmp_path / "rules.yaml", **with_key).output
    for command in (
        ("failures", "show", "r-1"),
        ("status",),
        ("rules", "backtest", "--rules", tmp_path / "rules.yaml"),
    ):
        told = triage(*command, code=1)
        assert "add what is missing to encryption.keys" in str(told.exception)
    assert "encryption.keys is empty" in str(triage("db", "rekey", code=1).exception)
    other = base64.b64encode(NEW).decode()
    said = triage("db", "rekey", TRIAGE_ENCRYPTION__KEYS=f"{other}\n{key}")
    assert said.output == f"messages sealed with the key {Seal((NEW,)).names[0]}: 3; no other key is needed any more.\n"
    assert SECRET in triage("failures", "show", "r-1", TRIAGE_ENCRYPTION__KEYS=other).output
    for told in (triage("config", "show", **with_key), triage("config", "show", "--json", **with_key)):
        assert key not in told.output


async def _closed(path, seal):
    await (await fill(path, seal, "r-1")).close()
