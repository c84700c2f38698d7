"""How long the SQLite store takes per envelope: facts and commit, in batches, at ``synchronous=FULL``.

    python benchmarks/store.py [envelopes per cell]

Every envelope has a body of about 1 KB and leads to an envelope, a decision, a lineage and, half and half, an alert or
a re-run row. Deciding is not measured.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from triage.changes import Commit
from triage.decide import decide_batch
from triage.effects import decided
from triage.envelope import parse_body
from triage.facts import arrival
from triage.rules.model import Matcher, Place, RerunPolicy, Rule, RuleSet
from triage.stores.sqlite import SqliteStore

NOW = datetime(2026, 7, 4, 12, tzinfo=UTC)
RULES = RuleSet(
    rules=(
        Rule(
            id="rerun-half",
            place=Place("bench.yaml", 1),
            match=(Matcher("fn", "function: even", lambda subject: subject["fn"].endswith("even")),),
            rerun=RerunPolicy(max_attempts=3, give_up_after=timedelta(hours=6)),
        ),
    ),
    digest="bench",
)


def request_id(number: int) -> str:
    """As FC 3.0 makes them: seconds in hexadecimal, then chance."""
    chance = hashlib.sha256(str(number).encode()).hexdigest()
    return f"1-{1_728_465_000 + number // 2000:08x}-{chance[:8]}-{chance[8:20]}"


def arrivals(count: int, first: int = 0) -> list:
    made = []
    for number in range(first, first + count):
        body = {
            "timestamp": 1728465119433,
            "requestContext": {
                "requestId": request_id(number),
                "functionArn": f"acs:fc:cn-hangzhou:1034:functions/job-{'even' if number % 2 == 0 else 'odd'}",
                "condition": "InvocationError",
                "approximateInvokeCount": 2,
            },
            "requestPayload": json.dumps({"number": number, "filler": "x" * 640}),
            "responseContext": {"statusCode": 200, "functionError": "InvocationError"},
            "responsePayload": json.dumps({"errorMessage": f"Function timed out after {number} seconds"}),
        }
        envelope = parse_body(json.dumps(body).encode())
        made.append(arrival(envelope, source="bench", message_id=f"m{number}", received_at=NOW, enqueued_at=NOW))
    return made


async def measure(directory: Path, size: int, count: int) -> tuple[float, float]:
    """Microseconds per envelope: wall and CPU."""
    store = await SqliteStore.open(directory / f"bench-{size}.db")
    everything = arrivals(count)
    wall = cpu = 0.0
    for start in range(0, count, size):
        batch = everything[start : start + size]
        begun, begun_cpu = time.perf_counter(), time.process_time()
        snapshot = await store.load_facts(batch)
        wall, cpu = wall + time.perf_counter() - begun, cpu + time.process_time() - begun_cpu
        decisions = decide_batch(batch, snapshot, RULES, now=NOW)
        commit = Commit(
            now=NOW,
            rule_set=RULES.digest,
            decided=tuple(decided(a, d) for a, d in zip(batch, decisions, strict=True)),
        )
        begun, begun_cpu = time.perf_counter(), time.process_time()
        await store.commit(commit)
        wall, cpu = wall + time.perf_counter() - begun, cpu + time.process_time() - begun_cpu
    await store.close()
    return wall / count * 1e6, cpu / count * 1e6


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    print(f"{'batch':>6} {'wall us':>8} {'cpu us':>8}   per envelope, {count} envelopes")
    for size in (16, 64, 256):
        with tempfile.TemporaryDirectory() as directory:
            wall, cpu = asyncio.run(measure(Path(directory), size, count))
        print(f"{size:>6} {wall:>8.1f} {cpu:>8.1f}")


if __name__ == "__main__":
    main()
