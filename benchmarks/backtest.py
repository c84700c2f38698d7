"""How long a back-test takes, and where the time goes.

    python benchmarks/backtest.py [envelopes] [--dir FOLDER]

Fills a store with failures of 200 functions and the results of their re-runs, all decided by the code of the daemon
with 20 rules, then compares those rules with themselves and with a changed set. With ``--dir`` the store is kept, and
used again by the next call.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from triage.backtest.history import Choice, History
from triage.backtest.replay import Shortlist, replay
from triage.backtest.report import Report
from triage.backtest.run import CHUNK, Backtest, RulesUsed, run
from triage.changes import Commit
from triage.decide import Rerun, decide_batch
from triage.effects import decided
from triage.envelope import parse_body
from triage.facts import Arrival, arrival
from triage.rules.model import RuleSet, SourceText
from triage.rules.source import load_rules
from triage.stores.sqlite import SqliteStore

START = datetime(2026, 7, 1, tzinfo=UTC)
BATCH = 2048
_SINGLE = "\n".join(
    f"""
  - id: team-{number}
    match: {{function: "team{number}-*", condition: InvocationError, error: {{message: "{word}"}}}}
    alert: {{to: default, severity: warning}}"""
    for number, word in enumerate(["refused", "reset", "not found", "denied", "quota", "expired", "corrupt", "locked"])
)
RULES = f"""
version: 1
rules:
  - id: no-instance
    match: {{condition: FunctionResourceExhausted}}
    rerun: {{after: 2m, max_attempts: 5}}
  - id: platform-fault
    match: {{status_code: [429, ">= 500"]}}
    rerun: {{after: 1m, max_attempts: 5}}
  - id: internal-error
    match: {{condition: [FunctionServerError, InternalServerError], function_error: ""}}
    rerun: {{after: 1m, max_attempts: 3}}
  - id: thumbnails
    match: {{function: "thumb-*", error: {{message: "timed out after"}}}}
    rerun: {{after: 5m, max_attempts: 2, idempotent: true}}
  - id: nightly
    match: {{payload: {{kind: nightly}}, error: {{type: [TimeoutError, ConnectionError]}}}}
    when: lineage.attempt < 2
    rerun: {{after: 10m, max_attempts: 3}}
{_SINGLE}
  - id: burst
    match: {{function: "pay-*"}}
    when: group.count > 1000 && payload.?tenant.orValue("") == "t7"
    alert: {{severity: critical}}
  - id: known-noise
    match: {{error: {{message: '/(?i)deprecated|will be removed in \\d+/'}}}}
    ignore: told to the teams already
  - id: out-of-memory
    match: {{error: {{message: '/(?i)\\bout of memory\\b|heap out of memory/'}}}}
    alert: {{severity: critical, group_by: [function]}}
  - id: process-exited
    match: {{error: {{message: "Process exited unexpectedly"}}}}
    alert: {{group_by: [function, condition]}}
  - id: timed-out
    match: {{error: {{message: "timed out after"}}}}
    alert: {{group_by: [function, condition]}}
  - id: types
    match: {{error: {{type: [KeyError, "*.IOException", ValueError]}}, invoke_count: ">= 3"}}
    alert: {{}}
  - id: everything-else
    alert: {{}}
"""
CHANGED = RULES.replace("after: 1m, max_attempts: 5", "after: 1m, max_attempts: 1")

MESSAGES = [
    ("TimeoutError", "Function timed out after 60 seconds (maxMemoryUsage: 81MB)"),
    ("ConnectionError", "connection to 10.2.{n}.7:5432 refused"),
    ("KeyError", "'order-{n}'"),
    ("ValueError", "row {n}: amount is not a number"),
    ("", "Process exited unexpectedly before completing request (duration: {n}ms, maxMemoryUsage: 49MB)"),
    ("java.io.IOException", "No space left on device: /tmp/work-{n}/part"),
    ("MemoryError", "out of memory while reading /data/{n}.csv"),
    ("Warning", "parameter x{n} is deprecated and will be removed in 4"),
]
FUNCTIONS = [f"{kind}-{number}" for kind in ("thumb", "pay", *(f"team{n}" for n in range(8))) for number in range(20)]


def chance(number: int, salt: str) -> int:
    """A large number that follows from these two."""
    return int.from_bytes(hashlib.blake2b(f"{number}{salt}".encode(), digest_size=6).digest())


def failure(number: int, at: datetime, request_id: str = "", *, succeeds: bool = False) -> Arrival:
    draw = chance(number, "what")
    kind, message = MESSAGES[draw % len(MESSAGES)]
    platform = draw % 10 == 0
    condition = "" if succeeds else "FunctionResourceExhausted" if platform and draw % 20 == 0 else "InvocationError"
    body = {
        "timestamp": int(at.timestamp() * 1000),
        "requestContext": {
            "requestId": request_id or f"1-{1_728_465_000 + number // 2000:08x}-{chance(number, 'id'):012x}",
            "functionArn": f"acs:fc:cn-hangzhou:1034:functions/{FUNCTIONS[draw // 8 % len(FUNCTIONS)]}",
            "condition": condition,
            "approximateInvokeCount": 1 + draw % 4,
        },
        "requestPayload": json.dumps(
            {"number": number, "tenant": f"t{draw % 50}", "kind": "nightly" if draw % 3 else "api", "pad": "x" * 500}
        ),
        "responseContext": {"statusCode": 500 if platform and not succeeds else 200,
                            "functionError": "" if platform or succeeds else "UnhandledInvocationError"},
        "responsePayload": json.dumps({"errorMessage": message.format(n=draw % 10_000), "errorType": kind}),
    }  # fmt: skip
    envelope = parse_body(json.dumps(body).encode())
    return arrival(envelope, source="bench", message_id=f"m{number}", received_at=at, enqueued_at=at)


async def fill(path: Path, count: int, rules: RuleSet) -> None:
    """Let the daemon's code decide and store them; the results of re-runs come some batches after their failures."""
    store = await SqliteStore.open(path)
    await store.save_rule_set(rules.digest, rules.sources, now=START)
    results: list[list[tuple[int, str]]] = [[]] * 3
    made = 0
    while made < count:
        at = START + timedelta(milliseconds=made * 500)
        batch = [failure(n, at, task, succeeds=chance(n, task) % 4 > 0) for n, task in results.pop(0)]
        batch += [failure(n, at) for n in range(made, made + min(BATCH, count - made) - len(batch))]
        decisions = decide_batch(batch, await store.load_facts(batch), rules, now=at)
        pairs = [decided(a, d) for a, d in zip(batch, decisions, strict=True) if d.is_new]
        await store.commit(Commit(now=at, rule_set=rules.digest, decided=tuple(pairs)))
        results.append([(made + index, effect.task_id) for index, decision in enumerate(decisions)
                        for effect in decision.effects if isinstance(effect, Rerun)])  # fmt: skip
        made += len(batch)
    await store.close()


def backtest(path: Path, after: RuleSet, *, jobs: int) -> tuple[Report, float, float]:
    """The report, seconds that passed, and seconds of all processors together."""
    report = Report()
    begun, used = time.perf_counter(), sum(os.times()[:4])
    for part in run(Backtest(path, RulesUsed(after.sources)), jobs=jobs):
        report.merge(part.report)
    return report, time.perf_counter() - begun, sum(os.times()[:4]) - used


def parts(path: Path, rules: RuleSet, changed: RuleSet, count: int) -> Iterator[tuple[str, float]]:
    """Microseconds of processor time per envelope, on some of the history."""
    history = History(path, Choice())
    pool: dict = {}
    old, new = Shortlist(rules, pool), Shortlist(changed, pool)
    spent = dict.fromkeys(("read", "decide as recorded", "decide by the others", "compare and sum up"), 0.0)
    seen, report = 0, Report()
    gc.disable()  # as the back-test does
    _, last = history.span()
    for low in range(1, min(last, count), CHUNK):
        clock = time.process_time()
        stories = list(history.stories(low, low + CHUNK - 1, last=last))
        spent["read"] += time.process_time() - clock
        clock = time.process_time()
        before = [replay(story, [old.of(item) for item in story]) for story in stories]
        spent["decide as recorded"] += time.process_time() - clock
        clock = time.process_time()
        after = [replay(story, [new.of(item) for item in story]) for story in stories]
        spent["decide by the others"] += time.process_time() - clock
        clock = time.process_time()
        for story, one, two in zip(stories, before, after, strict=True):
            report.add(story, one, two)
        spent["compare and sum up"] += time.process_time() - clock
        seen += sum(map(len, stories))
    history.close()
    for name, seconds in spent.items():
        yield name, seconds / seen * 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("envelopes", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--dir", type=Path)
    given = parser.parse_args()
    rules = load_rules([SourceText("rules.yaml", RULES)])
    changed = load_rules([SourceText("rules.yaml", CHANGED)])
    broad = load_rules([SourceText("rules.yaml", RULES.rstrip().removesuffix("{}") + "{severity: info}\n")])
    with tempfile.TemporaryDirectory() as temporary:
        path = (given.dir or Path(temporary)) / f"backtest-{given.envelopes}.db"
        if not path.exists():
            begun = time.perf_counter()
            asyncio.run(fill(path, given.envelopes, rules))
            print(f"filled in {time.perf_counter() - begun:.0f} s, {path.stat().st_size / 1e6:.0f} MB")
        print(f"{len(rules.rules)} rules, {os.cpu_count()} processors")
        for name, after in (("same rules", rules), ("one rule changed", changed), ("last rule changed", broad)):
            for jobs in (1, 2):
                report, seconds, used = backtest(path, after, jobs=jobs)
                found = f"{report.envelopes} envelopes, {report.changed} changed, {report.defective} defects"
                print(f"{name:20} {jobs} jobs {seconds:6.1f} s ({used:6.1f} s of processors)  {found}")
        for name, micros in parts(path, rules, changed, 100_000):
            print(f"{name:22} {micros:6.1f} us of one processor per envelope")


if __name__ == "__main__":
    main()
