"""A storm of failures, and what people get of it: triage beside a Prometheus Alertmanager.

    python benchmarks/alert_storm.py [--failures 100000] [--groups 200] [--without-alertmanager]

triage: the real pipeline (consumer, decisions, store in an SQLite file, outbox, apprise) in this process. The failures
come evenly within a minute from a source in memory; two receivers take messages over HTTP on loopback. It goes on until
the storm is over, at most ``--end`` seconds, and then all laws of the store are checked.

Alertmanager (Debian: prometheus-alertmanager): the same failures as alerts, 64 in a request, with the same group_by,
group_wait, group_interval and receivers. It counts alerts that differ in their labels, so each has its request id.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from triage.clock import SystemClock
from triage.consumer import Consumer, Intake
from triage.notify import AppriseNotifier, ReceiverConfig
from triage.outbox import Outbox
from triage.rules.model import AlertPolicy, Place, Rule, RuleSet
from triage.stores.selfcheck import check, view
from triage.stores.sqlite import SqliteStore
from triage.testing import FakeFunctions, FakeSource

RECEIVERS = ("media-oncall", "platform")
WAIT, INTERVAL = timedelta(seconds=30), timedelta(minutes=5)
MINUTE = 60.0


class Inbox:
    """An HTTP server that takes messages, by receiver."""

    def __init__(self) -> None:
        self.taken: dict[str, list[Any]] = defaultdict(list)
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                inbox.taken[self.path.strip("/")].append(json.loads(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def body(number: int, groups: int) -> bytes:
    """The message of one failure."""
    function = f"job-{number % groups:03}"
    message = {
        "timestamp": 1728465119433,
        "requestContext": {
            "requestId": f"1-{number:08x}-15197d0b-d07710222f9d",
            "functionArn": f"acs:fc:cn-hangzhou:1034354682:functions/{function}",
            "condition": "UnhandledInvocationError",
            "approximateInvokeCount": 1,
        },
        "requestPayload": json.dumps({"object": f"uploads/{number}.jpg"}),
        "responseContext": {"statusCode": 200, "functionError": "UnhandledInvocationError"},
        "responsePayload": json.dumps({"errorMessage": "connection to the database refused", "errorType": "DbError"}),
    }
    return json.dumps(message).encode()


def rss(pid: int | str = "self") -> float:
    """Resident memory of a process, MiB."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


async def storm(failures: int, groups: int, folder: Path, inbox: Inbox, end: timedelta) -> dict[str, Any]:
    """Take in the failures within a minute, and tell of them until all is told."""
    clock = SystemClock()
    policy = AlertPolicy(to=RECEIVERS, group_by=("function",), group_wait=WAIT, group_interval=INTERVAL)
    rules = RuleSet((Rule("tell", Place("storm.yaml", 1), alert=policy, owner="media"),), "storm")
    store = await SqliteStore.open(folder / "triage.db")
    source = FakeSource(clock=clock, lease=timedelta(minutes=5))
    configs = {name: ReceiverConfig(urls=(f"json://127.0.0.1:{inbox.port}/{name}",)) for name in RECEIVERS}
    outbox = Outbox(
        store=store,
        invoker=FakeFunctions(clock, source),
        notifier=AppriseNotifier.load(configs),
        clock=clock,
        storm=20,
    )
    consumer = Consumer(
        [Intake(source, receivers=4, wait=timedelta(seconds=1))],
        store=store,
        rules=lambda: rules,
        clock=clock,
        committed=outbox.poke,
    )
    await store.save_rule_set(rules.digest, (), now=clock.now())
    stop = asyncio.Event()
    memory = [rss()]
    lags: list[float] = []
    began = time.monotonic()
    cpu = time.process_time()

    async def feed() -> None:
        sent = 0
        while sent < failures:
            due = min(int(failures * (time.monotonic() - began) / MINUTE) + 1, failures)
            source.put(*(body(number, groups) for number in range(sent, due)))
            sent = due
            await asyncio.sleep(0.1)

    async def watch() -> None:
        while not stop.is_set():
            at = time.monotonic()
            await asyncio.sleep(1)
            memory.append(rss())
            lags.append(time.monotonic() - at - 1)

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(consumer.run(stop)), tasks.create_task(outbox.run(stop))]
        watching = tasks.create_task(watch())
        await feed()
        totals = await store.totals()
        while totals.failures < failures:
            await asyncio.sleep(0.2)
            totals = await store.totals()
        taken_in = time.monotonic() - began
        at_taken = cpu, time.process_time()
        # Its end comes when nothing has failed for five minutes, and every group was looked at.
        while "storm" in totals.outbox and time.monotonic() - began < end.total_seconds():
            await asyncio.sleep(1)
            totals = await store.totals()
        await asyncio.sleep(2)  # its last message is being delivered
        stop.set()
        await asyncio.gather(*running)
        watching.cancel()
    totals = await store.totals()
    await store.close()
    with view(folder / "triage.db") as connection:
        broken = [verdict.law.id for verdict in check(connection, now=datetime.now(UTC)) if verdict.broken]
    return {
        "taken in after, s": round(taken_in, 1),
        "CPU, s": round(time.process_time() - cpu, 1),
        "CPU while it comes in, s": round(at_taken[1] - at_taken[0], 1),
        "memory before, MiB": round(memory[0]),
        "memory, largest, MiB": round(max(memory)),
        "longest pause of the loop, s": round(max(lags), 2),
        "states": dict(totals.states),
        "broken laws": broken,
    }


def counts(inbox: Inbox) -> dict[str, Any]:
    """What each receiver got, and what it says in sum."""
    found = {}
    for receiver in RECEIVERS:
        notes = inbox.taken[receiver]
        told = [int(each.replace(",", "")) for note in notes
                for each in re.findall(r"Told by this message: ([\d,]+)", note["message"])]  # fmt: skip
        found[receiver] = {
            "messages": len(notes),
            "alerts told": sum(told),
            "titles": [note["title"] for note in notes],
        }
    return found


# ---------------------------------------------------------------- Alertmanager

AM_CONFIG = """
route:
  receiver: media-oncall
  group_by: [function]
  group_wait: 30s
  group_interval: 5m
  repeat_interval: 1h
  routes:
    - {receiver: media-oncall, continue: true, matchers: ['function =~ ".*"']}
    - {receiver: platform, matchers: ['function =~ ".*"']}
receivers:
"""


@contextmanager
def alertmanager(folder: Path, inbox: Inbox) -> Iterator[tuple[int, int]]:
    """One that runs, as its port and process."""
    binary = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if binary is None:
        sys.exit("no alertmanager here: apt-get install prometheus-alertmanager, or --without-alertmanager")
    config = AM_CONFIG + "".join(
        f"  - {{name: {name}, webhook_configs: [{{url: 'http://127.0.0.1:{inbox.port}/{name}', max_alerts: 5}}]}}\n"
        for name in RECEIVERS
    )
    (folder / "am.yml").write_text(config, encoding="utf-8")
    port = 19093
    files = [f"--config.file={folder / 'am.yml'}", f"--storage.path={folder / 'am'}"]
    arguments = [*files, f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", "--log.level=error"]
    process = subprocess.Popen([binary, *arguments], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=1)
                break
            except OSError:
                time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def push(port: int, numbers: Sequence[int], groups: int) -> None:
    """Hand alerts to Alertmanager."""
    alerts = [
        {
            "labels": {
                "alertname": "DbError",
                "function": f"job-{number % groups:03}",
                "request_id": f"1-{number:08x}",
                "severity": "warning",
            },
            "annotations": {"error": "connection to the database refused", "owner": "media"},
        }
        for number in numbers
    ]
    data = json.dumps(alerts).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v2/alerts", data, {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=60).read()


def beside(failures: int, groups: int, folder: Path, end: timedelta) -> dict[str, Any]:
    """The same storm for Alertmanager."""
    inbox = Inbox()
    with alertmanager(folder, inbox) as (port, pid):
        memory = [rss(pid)]
        began = time.monotonic()
        for start in range(0, failures, 64):
            push(port, range(start, min(start + 64, failures)), groups)
            if start % 6400 == 0:
                memory.append(rss(pid))
            ahead = start / failures * MINUTE - (time.monotonic() - began)
            if ahead > 0:
                time.sleep(ahead)
        taken_in = time.monotonic() - began
        while time.monotonic() - began < end.total_seconds():
            time.sleep(1)
            memory.append(rss(pid))
        ticks = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").split()
        cpu = (int(ticks[13]) + int(ticks[14])) / os.sysconf("SC_CLK_TCK")
    sums = {}
    for receiver in RECEIVERS:
        notes = inbox.taken[receiver]
        newest: Counter[str] = Counter()
        for note in notes:
            newest[note["groupKey"]] = len(note["alerts"]) + note.get("truncatedAlerts", 0)
        sums[receiver] = {"messages": len(notes), "alerts told": newest.total()}
    return {
        "taken in after, s": round(taken_in, 1),
        "CPU, s": round(cpu, 1),
        "memory before, MiB": round(memory[0]),
        "memory, largest, MiB": round(max(memory)),
        "receivers": sums,
    }


def main() -> None:
    """Run both, print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--failures", type=int, default=100_000)
    parser.add_argument("--groups", type=int, default=200)
    parser.add_argument("--end", type=float, default=900, help="seconds that the storm may take")
    parser.add_argument("--without-alertmanager", action="store_true")
    chosen = parser.parse_args()
    end = timedelta(seconds=chosen.end)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inbox = Inbox()
        ours = asyncio.run(storm(chosen.failures, chosen.groups, folder, inbox, end))
        print(json.dumps({"triage": {**ours, "receivers": counts(inbox)}}, indent=2), flush=True)
        if not chosen.without_alertmanager:
            theirs = beside(chosen.failures, chosen.groups, folder, timedelta(seconds=400))
            print(json.dumps({"Alertmanager": theirs}, indent=2))
    print("largest resident memory of this process:", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "MiB")


if __name__ == "__main__":
    main()
