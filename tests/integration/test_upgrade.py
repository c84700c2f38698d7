"""A store of any earlier schema is brought up to date with all that is in it, and one of a later schema is refused."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import make
import pytest

from triage.errors import StoreUnavailable
from triage.stores import FailureFilter, maintenance
from triage.stores.migrations import known
from triage.stores.selfcheck import check, view
from triage.stores.sqlite import SqliteStore

DUMPS = sorted((Path(__file__).parents[1] / "data" / "schemas").glob("*.sql"))


def loaded(dump, path):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(dump.read_text())


def rows(path):
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}


def dumped(path):
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def test_there_is_a_store_of_the_first_schema():
    assert DUMPS[0].stem == "m001"


@pytest.mark.parametrize("dump", DUMPS, ids=[dump.stem for dump in DUMPS])
def test_a_store_of_an_earlier_schema_is_brought_up_to_date(dump, tmp_path):
    path = tmp_path / "triage.db"
    loaded(dump, path)
    before, info = rows(path), maintenance.info(path)
    assert info.schema.startswith(dump.stem)
    assert list(info.pending) == [name for name in known() if name > info.schema] == list(maintenance.pending(path))

    async def look():
        store = await SqliteStore.open(path)
        listed = await store.failures(FailureFilter())
        stories = [await store.failure(row.request_id) for row in listed]
        await store.close()
        return listed, stories

    listed, stories = asyncio.run(look())
    assert len(listed) == 8
    assert all(story.lineage for story in stories)
    assert maintenance.pending(path) == []
    after = rows(path)
    assert {name: after[name] for name in before if not name.startswith(("sqlite_", "_"))} == {
        name: count for name, count in before.items() if not name.startswith(("sqlite_", "_"))
    }
    with view(path) as connection:
        wrong = [v.law.id for v in check(connection, now=make.NOW + timedelta(hours=1)) if v.broken]
    assert wrong == []


def test_upgrading_tells_the_steps_and_has_nothing_to_do_the_next_time(tmp_path):
    path = tmp_path / "triage.db"
    loaded(DUMPS[0], path)
    assert maintenance.upgrade(path) == known()[1:]
    assert maintenance.upgrade(path) == []


@pytest.mark.parametrize(
    "act",
    [
        maintenance.info,
        maintenance.pending,
        maintenance.upgrade,
        maintenance.problems,
        lambda path: maintenance.backup(path, path.with_name("copy")),
        lambda path: maintenance.restore(path, path.with_name("other.db"), now=make.NOW),
        lambda path: asyncio.run(SqliteStore.open(path)),
    ],
    ids=["info", "pending", "upgrade", "check", "backup", "restore", "open"],
)
def test_a_store_of_a_later_schema_is_left_alone(act, tmp_path):
    path = tmp_path / "triage.db"
    loaded(DUMPS[-1], path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO _sqlite_migrations VALUES (99, 'triage', 'm099_from_the_future', '')")
    content = dumped(path)
    with pytest.raises(StoreUnavailable, match="newer version of triage \\(it has 'm099_from_the_future'\\)"):
        act(path)
    assert dumped(path) == content
    assert [each.name for each in tmp_path.iterdir() if each.suffix == ".db"] == ["triage.db"]
