"""A daemon that is killed at a step of one's choice, and whoever hears from it: real processes, real sockets, no waiting
for time. What would take hours happens while it is dead: the store is made so much older.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from signal import SIGKILL
from threading import Thread
from typing import Any

import make
from processes import TITLE, Running, started, triage

from triage.stores.records import instant, instant_of

HANG = """
CREATE VIEW forever AS WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted) SELECT n FROM counted;
CREATE TRIGGER hang BEFORE INSERT ON outbox WHEN new.kind = 'notify' BEGIN SELECT count(*) FROM forever; END;
"""
"""The transaction that writes a notification never comes to its end."""

LEASE = timedelta(seconds=30)
"""It runs out between two lives."""

INSTANTS = ("opened_at", "last_at", "looked_at", "told_at", "first_told_at")


@dataclass
class Hearing:
    """Receivers on loopback. ``kill`` says of a title whether the sender dies of it, and when."""

    heard: list[tuple[str, str]] = field(default_factory=list)
    """(receiver, title)"""
    kill: Callable[[str], str] = lambda _title: ""
    victim: Running | None = None
    store: Path = Path()
    port: int = 0

    def url(self, receiver: str) -> str:
        return f"json://127.0.0.1:{self.port}/{receiver}"

    def told(self, handler: BaseHTTPRequestHandler) -> None:
        note = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        self.heard.append((handler.path.strip("/"), note["title"]))
        match self.kill(note["title"]):
            case "unanswered":
                self._kill()
                handler.close_connection = True
            case "answered":
                # While another one writes, nobody can settle; so the answer comes, and is never written down.
                with closing(sqlite3.connect(self.store, timeout=20, isolation_level=None)) as lock:
                    lock.execute("BEGIN IMMEDIATE")
                    self._answer(handler)
                    self._kill()
                    lock.execute("ROLLBACK")
            case _:
                self._answer(handler)

    def _kill(self) -> None:
        assert self.victim is not None
        self.victim.kill()

    @staticmethod
    def _answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        handler.wfile.flush()


@contextmanager
def hearing(store: Path) -> Iterator[Hearing]:
    ears = Hearing(store=store)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            ears.told(self)

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:  # whoever asked is dead
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        ears.port = server.server_port
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield ears
        finally:
            server.shutdown()
            thread.join()


class Mortal:
    """Lives of one daemon on one store."""

    def __init__(self, folder: Path, ears: Hearing, rules: str, **settings: str) -> None:
        (folder / "rules.yaml").write_text(rules)
        self.state, self.ears = folder / "state", ears
        self._settings = {
            "TRIAGE_RULES": str(folder / "rules.yaml"),
            "TRIAGE_RECEIVERS": json.dumps({name: {"urls": [ears.url(name)]} for name in ("oncall", "boss", "probe")}),
            "TRIAGE_OUTBOX__LEASE": f"{LEASE.seconds}s",
            "TRIAGE_FC__TIMEOUT": "10s",
            "TRIAGE_QUEUE__VISIBILITY_TIMEOUT": "2s",
            **settings,
        }
        self._lives = self._sent = 0

    @contextmanager
    def life(self) -> Iterator[Running]:
        """A process, up to its death."""
        self._lives += 1
        with started("run", state=self.state, name=f"life-{self._lives}", **self._settings) as running:
            self.ears.victim = running
            yield running
        self.ears.kill = lambda _title: ""

    def dies(self, title: str, when: str) -> str:
        """A life that ends when a message with such a title is heard; its title."""
        before = len(self.ears.heard)
        self.ears.kill = lambda heard: when if re.search(title, heard) else ""
        with self.life() as running:
            assert running.process.wait(30) == -SIGKILL
        self.dead()
        return self.ears.heard[before][1]

    def lives_until(self, condition: Callable[[], Any], *, why: str) -> None:
        """A life that is ended once the store says so."""
        with self.life() as running:
            running.until_logged("running: sources")
            running.until(condition, why=why)
        self.dead()

    def settled(self) -> None:
        """A life that is ended when everything that was to be told is told and settled."""
        self.lives_until(lambda: self.ask(SETTLED) == [(0,)], why="was all settled")

    def fail(self, *functions: str, error: str = "boom") -> None:
        """A failure of each, in the queue."""
        self.state.mkdir(exist_ok=True)
        lines = self.state / "bodies.jsonl"
        bodies = []
        for name in functions:
            self._sent += 1
            arn = f"acs:fc:cn-hangzhou:1034:functions/{name}"
            bodies.append(make.body(f"1-{name}-{self._sent}", arn=arn, error=error) + b"\n")
        lines.write_bytes(b"".join(bodies))
        triage("queue", "send", lines, state=self.state)

    def probe(self) -> list[tuple[str, str]]:
        """What is heard in a life of which nothing is expected, up to a message that came in last and was told last."""
        before = len(self.ears.heard)
        self.fail("probe")
        with self.life() as running:
            running.until(lambda: any(to == "probe" for to, _ in self.ears.heard[before:]), why="was the probe told")
            running.until(lambda: self.ask(SETTLED) == [(0,)], why="was all settled")
        return [each for each in self.ears.heard[before:] if each[0] != "probe"]

    def ask(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self.state / "triage.db", timeout=10)) as db:
            return db.execute(sql).fetchall()

    def script(self, sql: str) -> None:
        with closing(sqlite3.connect(self.state / "triage.db", timeout=10)) as db:
            db.executescript(sql)

    def age(self, by: timedelta) -> None:
        """So much time passes while nobody lives."""

        def back(at: str | None) -> str | None:
            return instant(instant_of(at) - by) if at else at

        def remembered(text: str) -> str:
            incident = json.loads(text)
            own = {name: datetime.fromisoformat(incident[name]) for name in INSTANTS if incident.get(name)}
            return json.dumps(incident | {name: (at - by).isoformat() for name, at in own.items()})

        with closing(sqlite3.connect(self.state / "triage.db")) as db, db:
            db.create_function("back", 1, back)
            db.create_function("remembered", 1, remembered)
            db.execute("UPDATE outbox SET due_at = back(due_at), lease_until = back(lease_until)")
            db.execute("UPDATE alerts SET at = back(at)")
            db.execute("UPDATE alert_groups SET looked_at = back(looked_at), incident = remembered(incident)")

    def dead(self) -> None:
        """All laws hold of what it has left behind; then the leases run out."""
        self.holds()
        self.age(LEASE)

    def holds(self) -> None:
        assert triage("selfcheck", state=self.state).startswith("holds")


SETTLED = """
    SELECT count(*) FROM outbox WHERE state IN ('pending', 'unknown')
        AND (kind = 'notify' OR due_at <= strftime('%Y-%m-%dT%H:%M:%f', 'now'))"""


def code_of(title: str) -> str:
    match = TITLE.match(title)
    assert match, title
    return match["code"]
