"""``triage db``: copies of a store at work, put back with nothing done twice, and what is not whole."""

import asyncio
import json
import os
import sqlite3
import stat
from contextlib import closing
from datetime import timedelta

import make
import pytest
from click.testing import CliRunner
from past import Past, rule_set

from triage.cli import cli
from triage.errors import StoreUnavailable
from triage.stores import maintenance
from triage.stores.selfcheck import check, view

MINUTE = timedelta(minutes=1)
RULES = rule_set(
    "  - {id: again, rerun: {after: 5m, backoff: {jitter: 0}, max_attempts: 1, give_up_after: 6h}, alert: {group_wait: 0s}}"
)


def triage(folder, *args, code=0):
    done = CliRunner().invoke(cli, list(map(str, args)), env={"TRIAGE_STATE_DIR": str(folder), "HOME": str(folder)})
    assert done.exit_code == code, done.output + repr(done.exception)
    return done


def stored(path, sql="SELECT request_id FROM envelopes ORDER BY id"):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


async def with_failures(path, *names):
    past = await Past.open(path, RULES)
    await past.receive(*(make.body(name) for name in names))
    return past


def filled(folder, *names):
    async def fill():
        await (await with_failures(folder / "triage.db", *names)).close()

    asyncio.run(fill())
    return folder / "triage.db"


def lawful(path):
    with view(path) as connection:
        return [v.law.id for v in check(connection, now=make.NOW + timedelta(hours=1)) if v.broken] == []


def test_a_copy_is_made_while_the_store_is_written_and_is_whole(tmp_path):
    async def story():
        past = await with_failures(tmp_path / "triage.db", "r-1", "r-2")
        writing = asyncio.create_task(past.receive(*(make.body(f"w-{number}") for number in range(200))))
        wrong = await asyncio.to_thread(maintenance.backup, tmp_path / "triage.db", tmp_path / "copy.db")
        await writing
        await past.close()
        return wrong

    assert asyncio.run(story()) == []
    assert {("r-1",), ("r-2",)} <= set(stored(tmp_path / "copy.db"))
    assert lawful(tmp_path / "copy.db")
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600, "messages may be confidential"
    assert sorted(each.name for each in tmp_path.iterdir() if "copy" in each.name) == ["copy.db"]


def test_the_commands_copy_check_and_restore(tmp_path):
    store = filled(tmp_path, "r-1")
    copy = tmp_path / "copy.db"
    assert triage(tmp_path, "db", "backup", copy).stdout.endswith(" MiB, checked.\n")
    assert "File exists" in repr(triage(tmp_path, "db", "backup", copy, code=1).exception)
    assert triage(tmp_path, "db", "check", copy).stdout == f"{copy} is whole.\n"
    filled(tmp_path, "r-2")
    said = triage(tmp_path, "db", "restore", copy).stdout
    kept = next(tmp_path.glob("triage.db.before-*Z"))
    assert said == f"{store} is restored from {copy}. The store that was there is {kept}.\n"
    assert stored(store) == [("r-1",)]
    assert stored(kept) == [("r-1",), ("r-2",)]
    assert copy.exists()
    assert triage(tmp_path, "db", "migrate").stdout == "The schema is up to date.\n"
    assert triage(tmp_path, "db", "check").stdout == f"{store} is whole.\n"


def test_info_tells_schema_sizes_and_rows(tmp_path):
    filled(tmp_path, "r-1", "r-2")
    found = json.loads(triage(tmp_path, "db", "info", "--json").stdout)
    assert found["pending"] == []
    assert found["size"] == (tmp_path / "triage.db").stat().st_size
    assert found["rows"]["envelopes"] == 2
    assert found["oldest"] == found["newest"] == "2026-03-01T12:00:00.000000Z"
    said = triage(tmp_path, "db", "info").stdout
    assert f"schema        {found['schema']}\n" in said
    assert "  envelopes                       2\n" in said


def test_a_re_run_that_was_submitted_after_the_copy_is_asked_for_and_not_repeated(tmp_path):
    """The copy says: to be submitted in five minutes. It was, and the store is then set back to the copy."""
    path, copy = tmp_path / "triage.db", tmp_path / "copy.db"

    async def story(tracked):
        past = await with_failures(path, "r-1")
        past.functions.tracked = tracked
        assert maintenance.backup(path, copy) == []
        past.functions.delay = timedelta(hours=2)
        await past.pass_time(6 * MINUTE)
        assert sum(past.functions.executions.values()) == 1
        await past.close()
        wrong, _ = maintenance.restore(copy, path, now=past.clock.now())
        assert wrong == []
        assert lawful(path)
        again = await Past.open(path, RULES)
        again.clock, again.functions, again.source, again._outbox = (
            past.clock,
            past.functions,
            past.source,
            past._outbox,
        )
        again._outbox._store = again.store
        await again.pass_time(20 * MINUTE)
        totals = await again.store.totals()
        await again.close()
        return past.functions.executions, totals.states

    executions, states = asyncio.run(story(tracked=True))
    assert list(executions.values()) == [1]
    assert states == {"rerunning": 1}

    for file in (path, copy):
        file.unlink()
    executions, states = asyncio.run(story(tracked=False))
    assert list(executions.values()) == [1], "nobody can say whether it ran, so a person has to"
    assert set(states) <= {"unknown", "alerting", "alerted"}


def test_what_is_still_to_come_does_not_keep_the_daemon_busy(tmp_path):
    path, copy = filled(tmp_path, "r-1"), tmp_path / "copy.db"
    maintenance.backup(path, copy)
    maintenance.restore(copy, path, now=make.NOW)

    async def due():
        past = await Past.open(path, RULES)
        found = await past.store.next_due()
        await past.close()
        return found

    assert asyncio.run(due()) == make.NOW + 5 * MINUTE


def test_a_store_in_use_is_not_replaced(tmp_path):
    async def story():
        past = await with_failures(tmp_path / "triage.db", "r-1")
        maintenance.backup(tmp_path / "triage.db", tmp_path / "copy.db")
        with pytest.raises(StoreUnavailable, match="is in use: stop the daemon first"):
            maintenance.restore(tmp_path / "copy.db", tmp_path / "triage.db", now=make.NOW)
        await past.receive(make.body("r-2"))
        await past.close()

    asyncio.run(story())
    assert stored(tmp_path / "triage.db") == [("r-1",), ("r-2",)]
    assert list(tmp_path.glob("*before*")) == []
    assert list(tmp_path.glob(".*part*")) == []


def damaged(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'decisions'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("lost", [False, True], ids=["the store is there", "the store is lost"])
def test_what_root_restores_belongs_to_the_user_of_the_service(tmp_path, lost):
    folder = tmp_path / "state"
    folder.mkdir()
    path = filled(folder, "r-1")
    assert maintenance.backup(path, tmp_path / "copy.db") == []
    for each in (folder, *folder.iterdir()):
        os.chown(each, 61234, 61235)
    if lost:
        path.unlink()
    maintenance.restore(tmp_path / "copy.db", path, now=make.NOW)
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (61234, 61235, 0o600)


def test_a_damaged_copy_is_not_restored_and_a_damaged_store_gives_no_copy(tmp_path):
    store, copy = filled(tmp_path, "r-1"), tmp_path / "copy.db"
    maintenance.backup(store, copy)
    damaged(copy)
    done = triage(tmp_path, "db", "restore", copy, code=1)
    assert "triage: nothing was changed" in done.output
    assert "triage: file: the database file is damaged" in done.output
    assert stored(store) == [("r-1",)]
    damaged(store)
    triage(tmp_path, "db", "check", code=1)
    done = triage(tmp_path, "db", "backup", tmp_path / "other.db", code=1)
    assert not (tmp_path / "other.db").exists()
    copy.unlink()


def test_a_damaged_store_is_replaced_and_kept(tmp_path):
    store, copy = filled(tmp_path, "r-1"), tmp_path / "copy.db"
    maintenance.backup(store, copy)
    store.write_bytes(b"not a database, whatever happened to it" * 100)
    triage(tmp_path, "db", "restore", copy)
    assert stored(store) == [("r-1",)]
    assert next(tmp_path.glob("triage.db.before-*Z")).read_bytes().startswith(b"not a database")


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, None], ids=["empty", "garbage", "another database"])
def test_what_is_no_store_is_told(content, tmp_path):
    file = tmp_path / "other.db"
    if content is None:
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE t (x)")
    else:
        file.write_bytes(content)
    for args in (("check", file), ("restore", file)):
        done = triage(tmp_path, "db", *args, code=1)
        assert isinstance(done.exception, StoreUnavailable)
    triage(tmp_path, "db", "info", code=1)
    assert not (tmp_path / "triage.db").exists()


def test_a_sum_that_does_not_add_up_is_found(tmp_path):
    store = filled(tmp_path, "r-1")
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE counters SET value = value + 1 WHERE name = 'received'")
    assert "received: counters" in triage(tmp_path, "db", "check", code=1).output
