"""Real processes: start them as a user does, wait for what they do (never for time), look at what they left behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from socket import SHUT_RDWR, create_connection, socket
from typing import Any, Self, TypeVar

from triage.clock import SystemClock
from triage.emulator.platform import Platform
from triage.emulator.scenario import load_scenario
from triage.emulator.server import Emulator, serve
from triage.sources.local import LocalQueue
from triage.sources.queue_tables import Outgoing, QueueAttributes
from triage.stores import Totals
from triage.stores.sqlite import SqliteStore

Value = TypeVar("Value")

ROOT = Path(__file__).parents[2]
TRIAGE = [sys.executable, "-m", "triage"]
TAKEN = re.compile(r"(\d+) (?:decided|duplicate|conflicting|quarantined)\b")
KEY_ID, SECRET = "emulator", "emulator-secret"


def environment(state: Path, **more: str) -> dict[str, str]:
    """This process's environment without settings of its own, with a state folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRIAGE_")}
    return {**kept, "PYTHONPATH": str(ROOT), "TRIAGE_STATE_DIR": str(state), **more}


def triage(*args: object, state: Path, code: int = 0, cwd: Path | None = None, **more: str) -> str:
    """Run a command to its end; what it wrote to standard output."""
    done = subprocess.run(
        [*TRIAGE, *map(str, args)],
        env=environment(state, **more),
        cwd=cwd or state.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def ask(*args: object, state: Path, **more: str) -> Any:
    """What a command says with ``--json``."""
    return json.loads(triage(*args, "--json", state=state, **more))


def stored(state: Path, question: Callable[[SqliteStore], Awaitable[Value]]) -> Value:
    """Ask the store, which is cheaper than a process for each look."""

    async def look() -> Value:
        store = await SqliteStore.open(state / "triage.db")
        try:
            return await question(store)
        finally:
            await store.close()

    return asyncio.run(look())


def totals(state: Path) -> Totals | None:
    """The sums while the daemon is at work; None before it has made its store."""
    return stored(state, lambda store: store.totals()) if (state / "triage.db").exists() else None


@dataclass
class Running:
    """A process, and the files that take its standard output and its log."""

    process: subprocess.Popen[bytes]
    out_file: Path
    log_file: Path

    @property
    def out(self) -> str:
        return self.out_file.read_text()

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def until(self, condition: Callable[[], Value], *, within: float = 30, why: str = "") -> Value:
        """What ``condition`` gives once that is true. The process must not end before."""
        began = time.monotonic()
        while not (value := condition()):
            waited = time.monotonic() - began
            assert waited < within, f"not within {within} s {why}:\n{self.log[-3000:]}"
            with suppress(subprocess.TimeoutExpired):
                # Whoever waits long can wait a little longer: a look costs what the others need.
                self.process.wait(min(max(waited / 10, 0.05), 1))
                raise AssertionError(f"ended with {self.process.returncode} before its time {why}:\n{self.log[-3000:]}")
        return value

    def until_logged(self, text: str, *, within: float = 30) -> str:
        """Wait for a text in the log; the log."""
        self.until(lambda: text in self.log, within=within, why=f"was {text!r} in the log")
        return self.log

    def until_taken(self, count: int) -> None:
        """Wait until it has told of so many messages, over all its lives; the log is cheaper to read than the store."""
        self.until(lambda: sum(map(int, TAKEN.findall(self.log))) >= count, why=f"were {count} messages taken")

    def kill(self) -> None:
        """End it without a warning, as a power cut or the kernel does."""
        self.process.kill()
        self.process.wait()

    def stop(self, number: int = signal.SIGTERM, *, within: float = 30) -> int:
        """Ask it to end; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(within)


@contextmanager
def started(*args: object, state: Path, name: str = "run", **more: str) -> Iterator[Running]:
    """A process that is killed at the end of the block if it still runs. Its log must hold no traceback."""
    state.mkdir(parents=True, exist_ok=True)
    out, log = state / f"{name}.out", state / f"{name}.log"
    with out.open("ab") as out_stream, log.open("ab") as log_stream:
        process = subprocess.Popen(
            [*TRIAGE, *map(str, args)],
            env=environment(state, **more),
            cwd=state,
            stdin=subprocess.DEVNULL,
            stdout=out_stream,
            stderr=log_stream,
        )
    running = Running(process, out, log)
    try:
        yield running
    finally:
        running.kill()
    assert "Traceback" not in running.log, running.log


@dataclass
class Emulation:
    """A running emulator, and the configuration it printed for the daemon."""

    running: Running
    url: str
    config: Path
    state: Path

    def daemon(self, state: Path, **more: str) -> Any:
        """``triage run`` against it; what is held after a crash comes again after two seconds."""
        return _daemon(self.config, state, **more)

    def fill(self, bodies: list[bytes]) -> None:
        """Put messages into its queue file, one a line."""
        lines = self.state / "messages.jsonl"
        lines.write_bytes(b"\n".join(bodies) + b"\n")
        triage("queue", "send", "--queue", "results", lines, state=self.state)

    def queue(self) -> tuple[int, int]:
        """Messages that wait, and that are leased."""
        (row,) = ask("queue", "stats", "--queue", "results", state=self.state)
        return row["active"] + row["delayed"], row["leased"]


def _daemon(config: Path, state: Path, **more: str) -> Any:
    fast = {
        "TRIAGE_OUTBOX__LEASE": "2s",
        "TRIAGE_FC__TIMEOUT": "1500ms",
        "TRIAGE_RECEIVERS__DEFAULT": '{"urls": "console:", "timeout": "1s"}',
        "TRIAGE_QUARANTINE__GROUP_WAIT": "0s",
        # What keeps re-runs from doing harm would make of a test's minute an hour.
        "TRIAGE_RERUNS__RATE": "100000",
        "TRIAGE_RERUNS__FUNCTION_RATE": "100000",
        "TRIAGE_RERUNS__SLOW_START": "0s",
        "TRIAGE_RERUNS__BUDGET_FLOOR": "1000000",
        "TRIAGE_RERUNS__BREAKER_FAILURES": "1000000",
        "TRIAGE_RERUNS__BREAKER_SHARE": "1",
    }
    return started("run", "--config", config, state=state, **{**fast, **more})


@dataclass
class EmulatedHere:
    """Function Compute and SMQ in a thread of this process, which sees all that happens in them."""

    run: Callable[[Coroutine[Any, Any, Any]], Any]
    emulator: Emulator
    config: Path

    @property
    def platform(self) -> Platform:
        return self.emulator.fc

    def daemon(self, state: Path, **more: str) -> Any:
        return _daemon(self.config, state, **more)

    def put(self, bodies: list[bytes]) -> None:
        """Put messages into its queue."""
        self.run(self.emulator.queues.send("results", [Outgoing(body) for body in bodies]))

    def waiting(self) -> int:
        """Messages in the queue, leased ones included."""
        stats = self.run(self.emulator.queues.stats("results"))
        return stats.active + stats.inactive + stats.delayed

    def events(self, function: str) -> Counter[str]:
        """How often each event was accepted."""
        return Counter(submit.event.decode() for submit in self.platform.submits if submit.function == function)


@contextmanager
def emulated_here(folder: Path, scenario: str) -> Iterator[EmulatedHere]:
    """Emulate in a thread, with a queue ``results`` that gives a message out again after two seconds."""
    loop, config = asyncio.new_event_loop(), folder / "triage.toml"
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(asked: Coroutine[Any, Any, Value]) -> Value:
        return asyncio.run_coroutine_threadsafe(asked, loop).result(30)

    stack = AsyncExitStack()
    try:
        run(_make_queue(folder / "queue.db"))
        queues = run(LocalQueue.open(folder / "queue.db", clock=SystemClock()))
        stack.push_async_callback(queues.close)
        emulator = run(stack.enter_async_context(serve(load_scenario(scenario), queues=queues, clock=SystemClock())))
        config.write_text(
            f"""
[[sources]]
type = "smq"
endpoint = "{emulator.url}"
queue = "results"
wait = "5s"
[fc]
endpoint = "{emulator.url}"
[credentials]
access_key_id = "{KEY_ID}"
access_key_secret = "{SECRET}"
"""
        )
        yield EmulatedHere(run, emulator, config)
    finally:
        run(stack.aclose())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def emulating(
    folder: Path, scenario: str, *options: object, bodies: list[bytes] | None = None, port: int = 0
) -> Iterator[Emulation]:
    """``triage emulate`` with a queue ``results`` that gives a message out again after two seconds.

    ``bodies`` are in the queue before it starts.
    """
    state = folder / "emulator"
    state.mkdir(parents=True, exist_ok=True)
    (state / "scenario.yaml").write_text(scenario)
    emulation = Emulation(None, "", folder / "triage.toml", state)  # type: ignore[arg-type]
    asyncio.run(_make_queue(state / "queue.db"))
    if bodies:
        emulation.fill(bodies)
    args = ("emulate", state / "scenario.yaml", "--port", port, "--state-dir", state, *options)
    with started(*args, state=state, name="emulate") as running:
        printed = running.until(lambda: running.out if "access_key_secret" in running.out else "")
        emulation.config.write_text(printed)
        emulation.running, emulation.url = running, re.search(r"http://\S+?:\d+", printed).group()
        yield emulation


async def _make_queue(file: Path) -> None:
    queues = await LocalQueue.open(file, clock=SystemClock())
    if not await queues.list_queues():
        await queues.create_queue("results", QueueAttributes(visibility_timeout=2))
    await queues.close()


def tasks(url: str, function: str) -> Counter[str]:
    """How often each event was accepted, as the official SDK lists the function's tasks."""
    from alibabacloud_fc20230330 import models
    from alibabacloud_fc20230330.client import Client
    from alibabacloud_tea_openapi.utils_models import Config

    client = Client(
        Config(
            access_key_id=KEY_ID,
            access_key_secret=SECRET,
            endpoint=url.removeprefix("http://"),
            protocol="http",
        )
    )
    found: Counter[str] = Counter()
    token = None
    while True:
        request = models.ListAsyncTasksRequest(limit=100, next_token=token, include_payload=True)
        page = client.list_async_tasks(function, request).body
        found.update(task.task_payload for task in page.tasks or ())
        if not (token := page.next_token):
            return found


TITLE = re.compile(
    r"^(?:\[\w+\] )?(?:more and more: )?(?P<what>.*?)(?: × (?P<times>[\d,]+)(?P<error>: .*?)?)? #(?P<code>[0-9a-f]{8,}(?:-\d+)?)$",
    re.MULTILINE,
)


def about(title: re.Match[str]) -> str:
    """What a title is about: a long one says how often before the error."""
    return f"{title['what']}{title['error'] or ''}"


def alerts(out: str) -> tuple[Mapping[str, int], int]:
    """From what the console receiver printed: alerts by what they are about, and how many notifications were
    repetitions. A repetition carries the code and the text of the first.
    """
    seen: dict[str, str] = {}
    told: Counter[str] = Counter()
    repeated = 0
    for match in TITLE.finditer(out):
        if match["code"] in seen:
            assert seen[match["code"]] == match[0]
            repeated += 1
            continue
        seen[match["code"]] = match[0]
        told[about(match)] += int((match["times"] or "1").replace(",", ""))
    return told, repeated


class Relay:
    """A TCP relay in front of an HTTP server. ``answer`` sees what comes back before the client does, and says
    whether it may pass; ``requests`` holds what was sent.
    """

    def __init__(self, url: str, answer: Callable[[bytes], bool] = lambda _: True) -> None:
        host, port = url.removeprefix("http://").split(":")
        relay, self.answer, self.requests = self, answer, bytearray()

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with create_connection((host, int(port))) as upstream:
                    forth = threading.Thread(target=relay._forth, args=(self.request, upstream))
                    forth.start()
                    relay._back(upstream, self.request)
                    forth.join()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _forth(self, client: socket, upstream: socket) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                self.requests += data
                upstream.sendall(data)
        _hang_up(upstream)

    def _back(self, upstream: socket, client: socket) -> None:
        with suppress(OSError):
            while (data := upstream.recv(1 << 16)) and self.answer(data):
                client.sendall(data)
        _hang_up(client)
        _hang_up(upstream)


def _hang_up(connection: socket) -> None:
    with suppress(OSError):
        connection.shutdown(SHUT_RDWR)
