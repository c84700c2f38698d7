"""How fast a full queue is drained over HTTP: the product against the barest loop of the same shape, in one run.

    python benchmarks/drain.py [--n 20000] [--rounds 3]

A queue server in memory speaks SMQ's XML on loopback. Each round fills it twice: once for a bare loop (four long polls,
batches of 16, parse, one row and one commit with ``synchronous=FULL`` per batch, batch delete) and once for
``triage run`` with 20 rules. Only the ratio within a round means anything; both are pinned to one core, the server to
the other.
"""

import argparse
import asyncio
import base64
import collections
import hashlib
import json
import os
import random
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import xml.etree.ElementTree as ET
from pathlib import Path

import aiohttp
from aiohttp import web

NS = "http://mns.aliyuncs.com/doc/v1/"
FUNCTIONS = ["my-fc-job", "video-transcode", "pdf-render", "order-sync", "ml-batch", "thumbs", "etl", "mailer"]
ERRORS = [
    "Function timed out after 60 seconds (maxMemoryUsage: 8MB)",
    "Process exited unexpectedly before completing request (duration: 132ms, maxMemoryUsage: 512.00MB)",
    "ConnectionError: upstream 10.0.3.7:5432 refused",
    "KeyError: 'orderId'",
    "ResourceThrottled: account concurrency limit",
]


def envelopes(n: int) -> list[bytes]:
    """``n`` failures of about 1 KB; one in twenty repeats an earlier one, one in a hundred is cut off."""
    draw = random.Random(7)
    bodies: list[bytes] = []
    for number in range(n):
        if number and number % 20 == 0:
            bodies.append(bodies[draw.randrange(number)])
            continue
        error = draw.choice(ERRORS)
        body = json.dumps(
            {
                "timestamp": 1728465119433 + number,
                "requestContext": {
                    "requestId": f"1-{draw.getrandbits(32):08x}-{number:08x}-{draw.getrandbits(48):012x}",
                    "functionArn": "acs:fc:cn-hangzhou:1034354682:functions/" + draw.choice(FUNCTIONS),
                    "condition": draw.choice(["InvocationError", "InvocationError", "UnhandledInvocationError"]),
                    "approximateInvokeCount": draw.randint(1, 4),
                },
                "requestPayload": json.dumps({"failure": True, "blob": "x" * 500}),
                "responseContext": {"statusCode": 200, "functionError": "InvocationError"},
                "responsePayload": json.dumps({"errorMessage": error, "errorType": error.split(":")[0]}),
            }
        ).encode()
        bodies.append(body[:-20] if number % 100 == 33 else body)
    return bodies


def rules() -> str:
    """Twenty rules of every kind, the last of which takes what is left."""
    lines = ["version: 1", "rules:"]
    for i in range(19):
        function = [f"zzz-{i}*", FUNCTIONS[i % 8], FUNCTIONS[i % 8][:3] + "*", "*"][i % 4]
        pattern = ["timed? out", "OOM|memory limit", "refused|503", "Throttled", "KeyError|ValueError"][i % 5]
        lines.append(f"  - id: rule-{i}\n    match: {{function: '{function}', error: {{message: '/(?i){pattern}/'}}}}")
        if i % 3 == 0:
            lines.append("    when: invoke_count >= 2")
        lines.append(
            [
                "    rerun: {after: 1h, max_attempts: 3, give_up_after: 12h}",
                "    alert: {to: default, group_by: [function], group_wait: 1h}",
                "    ignore: known",
            ][i % 3]
        )
    return "\n".join([*lines, "  - id: rest", "    alert: {to: default, group_wait: 1h}", ""])


# ---------------------------------------------------------------- the queue server


def server(n: int) -> web.Application:
    """One queue in memory, filled by ``POST /fill``."""
    ready: collections.deque[int] = collections.deque()
    stored = [base64.b64encode(body).decode() for body in envelopes(n)]
    digests = [hashlib.md5(text.encode()).hexdigest().upper() for text in stored]

    async def receive(request: web.Request) -> web.Response:
        if not ready:
            await asyncio.sleep(0.05)
        taken = [ready.popleft() for _ in range(min(int(request.query.get("numOfMessages", 1)), len(ready)))]
        if not taken:
            return web.Response(status=404, text=f'<Error xmlns="{NS}"><Code>MessageNotExist</Code></Error>')
        now = int(time.time() * 1000)
        items = "".join(
            f"<Message><MessageId>{i:032X}</MessageId><ReceiptHandle>h-{i}</ReceiptHandle>"
            f"<MessageBodyMD5>{digests[i]}</MessageBodyMD5><MessageBody>{stored[i]}</MessageBody>"
            f"<EnqueueTime>{now}</EnqueueTime><NextVisibleTime>{now + 30000}</NextVisibleTime>"
            f"<FirstDequeueTime>{now}</FirstDequeueTime><DequeueCount>1</DequeueCount><Priority>8</Priority></Message>"
            for i in taken
        )
        return web.Response(text=f'<Messages xmlns="{NS}">{items}</Messages>', content_type="text/xml")

    async def delete(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=204)

    async def fill(_: web.Request) -> web.Response:
        ready.extend(range(n))
        return web.Response()

    app = web.Application()
    app.add_routes(
        [
            web.get("/queues/q/messages", receive),
            web.delete("/queues/q/messages", delete),
            web.post("/fill", fill),
        ]
    )
    return app


# ---------------------------------------------------------------- the bare loop


async def bare(url: str, folder: Path, n: int) -> None:
    """Drain with nothing around it."""
    db = sqlite3.connect(folder / "bare.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE seen (id TEXT PRIMARY KEY, error TEXT) WITHOUT ROWID")
    done = 0

    async def poll(http: aiohttp.ClientSession) -> None:
        nonlocal done
        while done < n:
            async with http.get(f"{url}/queues/q/messages?numOfMessages=16&waitseconds=1") as answer:
                raw = await answer.read()
                if answer.status == 404:
                    continue
            rows, handles = [], []
            for item in ET.fromstring(raw):
                handles.append(item.findtext(f"{{{NS}}}ReceiptHandle"))
                try:
                    body = json.loads(base64.b64decode(item.findtext(f"{{{NS}}}MessageBody") or ""))
                    rows.append((body["requestContext"]["requestId"], json.loads(body["responsePayload"])["errorType"]))
                except ValueError:
                    pass
            db.execute("BEGIN")
            db.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?)", rows)
            db.execute("COMMIT")
            document = "".join(f"<ReceiptHandle>{handle}</ReceiptHandle>" for handle in handles)
            async with http.delete(
                f"{url}/queues/q/messages", data=f"<ReceiptHandles>{document}</ReceiptHandles>"
            ) as a:
                await a.read()
            done += len(handles)

    async with aiohttp.ClientSession() as http:
        await asyncio.gather(*(poll(http) for _ in range(4)))


# ---------------------------------------------------------------- the measurement


def start(core: int, *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, preexec_fn=lambda: os.sched_setaffinity(0, {core}))  # noqa: PLW1509


def fill(url: str) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{url}/fill", method="POST"), timeout=10).close()


def measure_bare(url: str, folder: Path, n: int) -> float:
    fill(url)
    process = start(1, sys.executable, __file__, "--bare", url, str(folder), "--n", str(n))
    db = until(
        lambda: (
            sqlite3.connect(f"file:{folder / 'bare.db'}?mode=ro", uri=True)
            .execute("SELECT 1 FROM seen LIMIT 1")
            .fetchone()
        )
    )
    began = time.perf_counter()
    process.wait()
    assert db
    return n / (time.perf_counter() - began)


def measure_product(url: str, folder: Path, n: int) -> float:
    (folder / "rules.yaml").write_text(rules())
    (folder / "triage.toml").write_text(
        f'state_dir = "{folder}"\nrules = "rules.yaml"\n[[sources]]\ntype = "smq"\nendpoint = "{url}"\nqueue = "q"\n'
        'wait = "1s"\n[credentials]\naccess_key_id = "a"\naccess_key_secret = "secret"\n[log]\nlevel = "error"\n'
        "[quarantine]\nalert = false\n"
    )
    fill(url)
    process = start(1, sys.executable, "-m", "triage", "run", "--config", str(folder / "triage.toml"))
    try:

        def received() -> int:
            reader = sqlite3.connect(f"file:{folder / 'triage.db'}?mode=ro", uri=True)
            row = reader.execute("SELECT value FROM counters WHERE name = 'received'").fetchone()
            return row[0] if row else 0

        first = until(received)
        began = time.perf_counter()
        until(lambda: received() >= n)
        return (n - first) / (time.perf_counter() - began)
    finally:
        process.terminate()
        process.wait()


def until(ready):
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            if value := ready():
                return value
        except sqlite3.Error:
            pass
        time.sleep(0.01)
    raise TimeoutError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--bare", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        web.run_app(server(options.n), host="127.0.0.1", port=0, access_log=None)
        return
    if options.bare:
        asyncio.run(bare(options.bare[0], Path(options.bare[1]), options.n))
        return
    os.sched_setaffinity(0, {0})
    queue = subprocess.Popen(
        [sys.executable, "-u", __file__, "--serve", "--n", str(options.n)], stdout=subprocess.PIPE, text=True
    )
    assert queue.stdout
    url = re.search(r"http://127\.0\.0\.1:\d+", queue.stdout.readline()).group()  # type: ignore[union-attr]
    ratios = []
    try:
        for number in range(options.rounds):
            with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
                reference = measure_bare(url, Path(first), options.n)
                product = measure_product(url, Path(second), options.n)
            ratios.append(product / reference)
            print(f"round {number + 1}: bare loop {reference:6.0f}/s, triage {product:6.0f}/s, ratio {ratios[-1]:.2f}")
        print(f"median ratio {statistics.median(ratios):.2f} [{min(ratios):.2f} .. {max(ratios):.2f}]")
    finally:
        queue.terminate()


if __name__ == "__main__":
    main()
