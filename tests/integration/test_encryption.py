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
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from past import Past, rule_set

from triage.cli import cli
from triage.errors import Misconfigured, SealBroken
from triage.sealing import BOUND_TO, Seal
from triage.stores import FailureFilter, maintenance
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


def test_a_body_that_was_changed_does_not_open(tmp_path):
    async def scenario():
        path = tmp_path / "triage.db"
        await (await fill(path, Seal((OLD,)), "r-1")).close()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE envelopes SET body = CAST(body || x'00' AS BLOB)")
            connection.commit()
        store = await SqliteStore.open(path, seal=Seal((OLD,)))
        with pytest.raises(SealBroken):
            await store.payload_of("r-1")
        await store.close()

    asyncio.run(scenario())


def swap(path, table):
    """Exchange the first two bodies of a table."""
    with closing(sqlite3.connect(path)) as connection:
        (one, first), (two, second) = connection.execute(f"SELECT id, body FROM {table} ORDER BY id LIMIT 2").fetchall()
        connection.executemany(f"UPDATE {table} SET body = ? WHERE id = ?", [(second, one), (first, two)])
        connection.commit()


def test_bodies_that_were_exchanged_do_not_open_and_what_was_to_run_again_is_told(tmp_path):
    async def scenario():
        path = tmp_path / "triage.db"
        past = await fill(path, Seal((OLD,)), "r-1", "r-2", "r-3")
        await past.receive(f"[{SECRET}".encode())
        for table in BOUND_TO:
            swap(path, table)
        await past.pass_time(timedelta(minutes=6))
        assert past.functions.executions.total() == 1, "the one whose message is its own"
        found = await past.store.failures(FailureFilter(limit=10))
        assert {row.request_id: row.state for row in found if row.outcome == "failed"} == {
            "r-1": "alerted", "r-2": "alerted", "r-3": "healed"
        }  # fmt: skip
        for look in (past.store.failure("r-1"), past.store.quarantined(limit=2)):
            with pytest.raises(SealBroken):
                await look
        with pytest.raises(SealBroken, match="the stored message of envelopes r-1 does not open"):
            list(maintenance.rekey(path, Seal((NEW, OLD))))
        await past.close()

    asyncio.run(scenario())


def first_version(key, body):
    """A body as the first version sealed it, bound to no row."""
    nonce, name = bytes(12), bytes.fromhex(Seal((key,)).names[0])
    return b"\0sealed\0" + name + nonce + AESGCM(key).encrypt(nonce, body, b"\0sealed\0")


def test_what_the_first_version_has_sealed_is_read_and_bound_by_rekey(tmp_path):
    async def scenario():
        path, seal = tmp_path / "triage.db", Seal((OLD,))
        past = await fill(path, seal, "r-1", "r-2")
        with closing(sqlite3.connect(path)) as connection:
            for name in ("r-1", "r-2"):
                of_old = first_version(OLD, body(name))
                connection.execute("UPDATE envelopes SET body = ? WHERE request_id = ?", (of_old, name))
            connection.commit()
        assert SECRET.encode() in await past.store.payload_of("r-1")
        assert sum(await asyncio.to_thread(lambda: list(maintenance.rekey(path, seal)))) == 2
        assert SECRET.encode() in await past.store.payload_of("r-1")
        swap(path, "envelopes")
        with pytest.raises(SealBroken):
            await past.store.payload_of("r-1")
        await past.close()

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
            for table in BOUND_TO:
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
