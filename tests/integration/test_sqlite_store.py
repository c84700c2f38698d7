"""The SQLite store as a file and as threads: what the contract of stores does not speak of."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from triage.alerts.silences import end_now, row_key
from triage.changes import Changes, Commit, Decided, NewRow, RowKind, Settle
from triage.decide import Decision, Reason
from triage.envelope import parse_body
from triage.errors import StoreConflict, StoreUnavailable
from triage.facts import arrival
from triage.silence import Silence
from triage.stores import FailureFilter
from triage.stores.sqlite import SqliteStore

NOW = datetime(2026, 7, 4, 12, tzinfo=UTC)

# Runs in a process of its own. Commits batch after batch and tells each, once the store has promised it.
CHILD = """
import asyncio, json, sys
from datetime import UTC, datetime
from pathlib import Path
from triage.changes import Changes, Commit, Decided, NewRow, RowKind
from triage.decide import Decision, Reason
from triage.envelope import parse_body
from triage.facts import arrival
from triage.stores.sqlite import SqliteStore

NOW = datetime(2026, 7, 4, 12, tzinfo=UTC)

def decided(request_id):
    body = {"requestContext": {"requestId": request_id, "functionArn": "acs:fc:::functions/job", "condition": "E"},
            "requestPayload": "x" * 500}
    arrived = arrival(parse_body(json.dumps(body).encode()), source="s", message_id="m", received_at=NOW,
                      enqueued_at=None)
    row = NewRow("row-" + request_id, RowKind.NOTIFY, NOW)
    return Decided(arrived, Decision(Reason.SUCCEEDED), Changes(rows=(row,)), "")

async def writer(store, name, batches):
    for number in range(batches):
        ids = [f"{name}-{number}-{part}" for part in range(5)]
        await store.commit(Commit(NOW, "", decided=tuple(map(decided, ids))))
        print(*ids, flush=True)

async def main():
    path, name, batches, writers = sys.argv[1:]
    store = await SqliteStore.open(Path(path))
    await asyncio.gather(*(writer(store, f"{name}{w}", int(batches)) for w in range(int(writers))))
    await store.close()

asyncio.run(main())
"""


def child(path, name, *, batches, writers):
    command = [sys.executable, "-c", CHILD, str(path), name, str(batches), str(writers)]
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    )


@contextlib.asynccontextmanager
async def opened(path, **options):
    store = await SqliteStore.open(path, **options)
    try:
        yield store
    finally:
        await store.close()


def stored(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        ids = {row[0] for row in connection.execute("SELECT request_id FROM envelopes")}
        rows = {row[0].removeprefix("row-") for row in connection.execute("SELECT key FROM outbox")}
        decided = connection.execute("SELECT value FROM counters WHERE name = 'decided'").fetchone()
    return ids, rows, decided[0] if decided else 0


def test_processes_that_open_a_new_file_at_once_all_succeed(tmp_path):
    path = tmp_path / "triage.db"
    children = [child(path, name, batches=20, writers=1) for name in "abcd"]
    results = [process.communicate(timeout=60) for process in children]
    assert [(process.returncode, err) for process, (_, err) in zip(children, results, strict=True)] == [(0, "")] * 4
    told = {request_id for out, _ in results for request_id in out.split()}
    assert stored(path) == (told, told, 400)


@pytest.mark.parametrize("lines", [1, 7, 40])
def test_what_was_promised_survives_kill_9(tmp_path, lines):
    path = tmp_path / "triage.db"
    process = child(path, "k", batches=100_000, writers=8)
    told = set()
    for _ in range(lines):
        told |= set(process.stdout.readline().split())
    os.kill(process.pid, signal.SIGKILL)
    rest, _ = process.communicate(timeout=60)
    told |= {
        request_id for line in rest.splitlines(keepends=True) if line.endswith("\n") for request_id in line.split()
    }
    ids, rows, count = stored(path)
    assert len(told) >= 5 * lines
    assert told <= ids
    assert ids == rows, "an envelope and its outbox row come together"
    assert len(ids) == count
    assert len(ids) % 5 == 0, "a batch is there whole or not at all"

    async def reopen():
        async with opened(path) as store:
            return await store.totals()

    assert asyncio.run(reopen()).decided == count


def rows(*keys):
    """A commit with one envelope and one outbox row for each key."""
    return Commit(NOW, "", decided=tuple(map(carrier, keys)))


def carrier(key):
    body = f'{{"requestContext": {{"requestId": "of-{key}", "functionArn": "acs:fc:::functions/job"}}}}'
    arrived = arrival(parse_body(body.encode()), source="s", message_id="m", received_at=NOW, enqueued_at=None)
    return Decided(arrived, Decision(Reason.SUCCEEDED), Changes(rows=(NewRow(key, RowKind.NOTIFY, NOW),)), "")


@contextlib.asynccontextmanager
async def busy(store):
    """Keep the writer's thread at work, so that what is asked for meanwhile waits together."""
    loop, started, release = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def hold(_connection):
        loop.call_soon_threadsafe(started.set)
        assert release.wait(30)

    holding = asyncio.ensure_future(store._writer.run(hold))
    await started.wait()
    try:
        yield
        await asyncio.sleep(0)  # what was started under it has reached the queue
    finally:
        release.set()
        await holding


def test_calls_that_wait_together_share_a_transaction(tmp_path):
    async def scenario():
        async with opened(tmp_path / "triage.db") as store:
            before = store.transactions
            async with busy(store):
                commits = [asyncio.ensure_future(store.commit(rows(f"k-{number}"))) for number in range(300)]
            await asyncio.gather(*commits)
            return store.transactions - before, await store.totals()

    transactions, totals = asyncio.run(scenario())
    assert totals.outbox == {"notify": 300}
    assert transactions == 3, "what kept it busy, 256 commits, and the rest"


def test_a_failing_call_undoes_its_own_writes_only(tmp_path):
    async def scenario():
        async with opened(tmp_path / "triage.db") as store:
            await store.commit(rows("taken"))
            before = store.transactions
            async with busy(store):
                calls = [store.commit(commit) for commit in (rows("a"), rows("lost", "taken"), rows("b"))]
                calls.append(store._writer.run(lambda connection: connection.execute("SELECT no_such_column")))
                waiting = [asyncio.ensure_future(call) for call in calls]
            results = await asyncio.gather(*waiting, return_exceptions=True)
            transactions = store.transactions - before
            assert await store.failure("of-lost") is None, "written before the conflict was found"
            claimed = await store.claim_due(now=NOW, lease=timedelta(minutes=1), limit=9)
            return [type(result) for result in results], sorted(row.key for row in claimed), transactions

    results, keys, transactions = asyncio.run(scenario())
    assert results == [type(None), StoreConflict, type(None), StoreUnavailable]
    assert keys == ["a", "b", "taken"]
    assert transactions == 2, "what kept it busy, and the four calls"


def test_a_transaction_that_is_lost_fails_all_that_shared_it(tmp_path):
    async def scenario():
        async with opened(tmp_path / "triage.db") as store:

            def lose(connection):
                connection.execute("ROLLBACK")  # as SQLite does by itself when the disk is full
                raise sqlite3.OperationalError("database or disk is full")

            async with busy(store):
                calls = [store.commit(rows("a")), store._writer.run(lose), store.commit(rows("b"))]
                waiting = [asyncio.ensure_future(call) for call in calls]
            results = await asyncio.gather(*waiting, return_exceptions=True)
            await store.commit(rows("c"))
            return [type(result) for result in results], (await store.totals()).outbox

    results, outbox = asyncio.run(scenario())
    assert results == [StoreUnavailable] * 3
    assert outbox == {"notify": 1}, "nothing of the three; the store goes on"


def test_a_caller_that_was_cancelled_does_not_disturb_the_others(tmp_path):
    async def scenario():
        async with opened(tmp_path / "triage.db") as store:
            async with busy(store):
                tasks = [asyncio.ensure_future(store.commit(rows(f"k-{number}"))) for number in range(5)]
                await asyncio.sleep(0)
                tasks[2].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            return [type(result) for result in results], (await store.totals()).outbox

    results, outbox = asyncio.run(scenario())
    assert results == [type(None), type(None), asyncio.CancelledError, type(None), type(None)]
    assert outbox == {"notify": 5}, "what was asked for is written; its caller is just not told"


def test_no_thread_and_no_file_beside_it_is_left_after_close(tmp_path):
    async def scenario():
        before = threading.active_count()
        store = await SqliteStore.open(tmp_path / "triage.db")
        commits = [asyncio.ensure_future(store.commit(rows(f"k-{number}"))) for number in range(5)]
        await asyncio.sleep(0)
        during = threading.active_count()
        await asyncio.gather(store.close(), store.close())
        assert all(commit.done() and commit.exception() is None for commit in commits), "what was asked for is finished"
        return before, during, threading.active_count()

    before, during, after = asyncio.run(scenario())
    assert during == before + 2
    assert after == before
    assert [file.name for file in tmp_path.iterdir()] == ["triage.db"]


def test_a_failed_open_leaves_no_thread(tmp_path):
    (tmp_path / "triage.db").write_bytes(b"garbage" * 1000)

    async def scenario():
        with pytest.raises(StoreUnavailable):
            await SqliteStore.open(tmp_path / "triage.db")
        return [thread.name for thread in threading.enumerate() if "triage-store" in thread.name]

    assert asyncio.run(scenario()) == []


def garbage(path):
    path.write_bytes(b"This is no database. " * 400)


def newer(path):
    asyncio.run(_create(path))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO _sqlite_migrations (migration_set, name) VALUES ('triage', 'm999_from_later')")


async def _create(path):
    async with opened(path):
        pass


def directory(path):
    path.mkdir()


def parent_is_a_file(path):
    path.parent.rmdir()
    path.parent.write_text("")


def damaged(path):
    asyncio.run(_create(path))
    data = bytearray(path.read_bytes())
    data[100:4096] = b"\xff" * 3996
    path.write_bytes(data)


def somebody_elses(path):
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE envelopes (colour TEXT)")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (garbage, "not an SQLite database"),
        (newer, "newer version of triage .*m999_from_later"),
        (directory, "cannot be (created|opened)|may it be written"),
        (parent_is_a_file, "cannot be created or written"),
        (damaged, "damaged"),
        (somebody_elses, "already exists"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path, spoil, says):
    path = tmp_path / "state" / "triage.db"
    path.parent.mkdir()
    spoil(path)
    with pytest.raises(StoreUnavailable, match=says) as caught:
        asyncio.run(_create(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unwritable_directory_is_named(tmp_path):
    # A process of its own without the rights of root, which may write anywhere.
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    code = (
        "import asyncio, os, sys\nfrom pathlib import Path\nfrom triage.stores.sqlite import SqliteStore\n"
        "os.getuid() or os.setuid(65534)\n"
        "try:\n    asyncio.run(SqliteStore.open(Path(sys.argv[1])))\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    for directory in [tmp_path, *tmp_path.parents]:
        if (
            directory.stat().st_uid == os.getuid()
            and directory != Path(directory.anchor)
            and "pytest" in directory.name
        ):
            directory.chmod(0o755)
    result = subprocess.run(
        [sys.executable, "-c", code, str(locked / "triage.db")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        timeout=60,
        check=False,
    )
    assert result.stdout.startswith(
        f"StoreUnavailable {locked}/triage.db: the database cannot be created or written"
    ), result


def test_another_process_may_read_and_write_the_same_file(tmp_path):
    path = tmp_path / "triage.db"

    async def scenario():
        async with opened(path) as daemon, opened(path) as tool:
            await daemon.commit(rows("a"))
            assert (await tool.totals()).outbox == {"notify": 1}
            (claimed,) = await tool.claim_due(now=NOW, lease=timedelta(minutes=1), limit=1)
            assert await daemon.claim_due(now=NOW, lease=timedelta(minutes=1), limit=1) == []
            assert await tool.settle(claimed, lambda _facts: Settle.done(), now=NOW)
            assert (await daemon.totals()).outbox == {}
            assert await daemon.failures(FailureFilter()) == []

    asyncio.run(scenario())


def test_a_lock_that_is_held_too_long_is_an_error_and_then_passes(tmp_path):
    path = tmp_path / "triage.db"

    async def scenario():
        async with opened(path, busy=timedelta(milliseconds=50)) as store:
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(StoreUnavailable, match="another process has held the database locked"):
                    await store.commit(rows("a"))
                assert (await store.totals()).outbox == {}, "reading goes on"
                other.execute("ROLLBACK")
            await store.commit(rows("a"))
            return await store.totals()

    assert asyncio.run(scenario()).outbox == {"notify": 1}


def test_every_commit_waits_for_the_disk(tmp_path):
    async def scenario():
        async with opened(tmp_path / "triage.db") as store:

            def pragmas(connection):
                return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]

            return await store._writer.run(pragmas)

    assert asyncio.run(scenario()) == ["wal", 2]


def test_the_file_is_for_its_owner_only(tmp_path):
    asyncio.run(_create(tmp_path / "new" / "triage.db"))
    assert (tmp_path / "new" / "triage.db").stat().st_mode & 0o777 == 0o600


def test_the_reader_cannot_write(tmp_path):
    async def scenario():
        async with opened(tmp_path / "triage.db") as store:
            with pytest.raises(StoreUnavailable, match="read-only"):
                await store._reader.run(lambda connection: connection.execute("DELETE FROM envelopes"))

    asyncio.run(scenario())


def test_silences_are_known_as_long_as_they_had_not_ended(tmp_path):
    async def scenario():
        async with opened(tmp_path / "triage.db") as store:
            for hours in (1, 3, 2):
                new = Silence(0, {"function": "*"}, "ana", "a deploy", NOW, NOW + timedelta(hours=hours))
                await store.add_silence(new, warn_before=timedelta(0))
            end = lambda _row, facts: end_now(facts, by="ana", reason="done", now=NOW)  # noqa: E731
            assert await store.settle_now(row_key(2), end, now=NOW)
            return [
                [silence.id for silence in await store.silences_since(NOW + timedelta(minutes=minutes))]
                for minutes in (-1, 0, 60, 120)
            ]

    assert asyncio.run(scenario()) == [[1, 2, 3], [1, 3], [3], []]
