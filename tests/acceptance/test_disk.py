"""The disk of the store is full, read-only or locked: nothing is acknowledged, that is said, and it goes on by itself."""

import errno
import os
import sqlite3
import subprocess
from contextlib import closing, contextmanager

from machines import mounted
from make import body
from processes import ask, started, triage


@contextmanager
def small_disk(folder):
    """A disk of six megabytes."""
    with mounted(folder, "-t", "tmpfs", "-o", "size=6m", "tmpfs"):
        yield folder


def fill(disk):
    """Leave no byte."""
    with (disk / "filler").open("wb", buffering=0) as filler:
        size = 1 << 16
        while size:
            try:
                filler.write(b"\0" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 16


def send(folder, state, *names):
    lines = folder / f"{names[0]}.jsonl"
    lines.write_bytes(b"\n".join(body(name, payload="x" * 5000) for name in names) + b"\n")
    triage("queue", "send", lines, state=state)


def received(store):
    with closing(sqlite3.connect(store)) as connection:
        rows = connection.execute("SELECT value FROM counters WHERE name = 'received'").fetchall()
    return rows[0][0] if rows else 0


def waiting(state):
    (queue,) = ask("queue", "stats", state=state)
    return queue["active"] + queue["leased"] + queue["delayed"]


def test_a_full_disk_is_survived_and_nothing_is_lost(tmp_path):
    state, store = tmp_path / "state", tmp_path / "disk" / "triage.db"
    settings = {"TRIAGE_STORE__PATH": str(store), "TRIAGE_WEB__LISTEN": "127.0.0.1:0"}
    with small_disk(tmp_path / "disk") as disk, started("run", state=state, **settings) as running:
        running.until_logged("running: sources local")
        send(tmp_path, state, *(f"before-{number}" for number in range(20)))
        running.until(lambda: received(store) == 20)
        fill(disk)
        send(tmp_path, state, *(f"during-{number}" for number in range(300)))
        log = running.until_logged("nothing is acknowledged while the store fails: the disk is full")
        url = log.partition("operations endpoint: ")[2].partition("/healthz")[0]
        running.until(lambda: "nothing is acknowledged while the store fails" in running.log)
        assert waiting(state) + received(store) >= 320, "what is not stored is still in the queue"
        triage("health", "--url", url, state=state)  # it lives: a restart would mend nothing
        (disk / "filler").unlink()
        running.until(lambda: received(store) >= 320, within=60)
        running.until(lambda: waiting(state) == 0)
        assert running.stop() == 0
        sums = ask("status", state=state, **settings)
        assert sums["adds_up"]
        assert sums["decided"] == sums["failures"] == 320
        assert triage("db", "check", state=state, **settings) == f"{store} is whole.\n"
        triage("selfcheck", state=state, **settings)


def test_on_a_full_disk_it_does_not_start_and_says_why(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        fill(disk)
        with started("run", state=tmp_path / "state", TRIAGE_STORE__PATH=str(disk / "triage.db")) as running:
            assert running.process.wait(30) == 1
            assert "triage: the store cannot be used:" in running.log
            assert "the disk is full" in running.log


def test_on_a_read_only_disk_it_does_not_start_and_says_why(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with started("run", state=tmp_path / "state", TRIAGE_STORE__PATH=str(disk / "triage.db")) as running:
            assert running.process.wait(30) == 1
            assert "the database cannot be created or written: Read-only file system" in running.log


def test_a_store_that_somebody_locks_is_waited_for(tmp_path):
    state = tmp_path / "state"
    with started("run", state=state) as running:
        running.until_logged("running: sources local")
        with closing(sqlite3.connect(state / "triage.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            send(tmp_path, state, "one", "two")
            running.until_logged("another process has held the database locked for too long", within=40)
            assert waiting(state) == 2
            other.execute("ROLLBACK")
        running.until(lambda: received(state / "triage.db") == 2, within=40)
        assert running.stop() == 0


def test_a_store_that_is_damaged_under_it_is_told_and_put_back_from_a_copy(tmp_path):
    state, copy = tmp_path / "state", tmp_path / "copy.db"
    store = state / "triage.db"
    with started("run", state=state) as running:
        running.until_logged("running: sources local")
        send(tmp_path, state, *(f"before-{number}" for number in range(20)))
        running.until(lambda: received(store) == 20)
        assert running.stop() == 0
    triage("db", "backup", copy, state=state)
    with started("run", state=state) as running:
        running.until_logged("running: sources local")
        with closing(sqlite3.connect(store)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with store.open("r+b") as file:
            file.seek(4096)
            file.write(os.urandom(store.stat().st_size - 4096))
        send(tmp_path, state, "after-1", "after-2")
        running.until_logged("the database file is damaged: restore it from a backup")
        assert waiting(state) == 2
        running.kill()
    triage("db", "restore", copy, state=state)
    with started("run", state=state) as running:
        running.until(lambda: received(store) == 22, within=60)
        assert running.stop() == 0
    triage("selfcheck", state=state)
