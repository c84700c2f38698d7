"""How long `triage rules explain` takes, for each kind of answer, from a large store.

    python benchmarks/explain.py [envelopes]

Fills a store as `backtest.py` does, with a rule in shadow mode, one that holds, and a silence besides. Told is the time
of the command inside a process that runs (opening the store, loading the rules of then, deciding, printing), as it
passed and on the processor, and what the whole process takes of a processor.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from backtest import RULES, START, fill
from click.testing import CliRunner

from triage.alerts.grouping import flush
from triage.changes import RowKind
from triage.cli import cli
from triage.rules.model import SourceText
from triage.rules.source import load_rules
from triage.silence import Silence
from triage.stores.sqlite import SqliteStore

MORE = """
  - id: tried
    match: {function: "thumb-*"}
    mode: shadow
    ignore: noise
  - id: money
    match: {function: "pay-1*", condition: InvocationError}
    hold: money may have moved
    alert: {on: [held]}"""
KINDS = {
    "match, the first rule": "rule_id = 'no-instance'",
    "no match but the last of 22 rules": "rule_id = 'everything-else'",
    "shadow": "shadow != '[]'",
    "held": "rule_id = 'money'",
    "silenced": "request_id IN (SELECT request_id FROM alerts WHERE silence IS NOT NULL)",
}
TIMES = 20


async def silence(path: Path, count: int) -> None:
    """Put a silence into force, and tell what waits."""
    store = await SqliteStore.open(path)
    now = START + timedelta(seconds=count)
    new = Silence(0, {"function": "team0-*"}, "ana", "a deploy", START, now + timedelta(days=1))
    await store.add_silence(new, warn_before=timedelta(0))
    while rows := await store.claim_due(now=now, lease=timedelta(days=1), limit=1000):
        for row in rows:
            if row.kind is RowKind.FLUSH:
                await store.settle(row, lambda facts: flush(facts, now=now), now=now)
    await store.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("envelopes", nargs="?", type=int, default=100_000)
    count = parser.parse_args().envelopes
    rules = load_rules([SourceText("rules.yaml", RULES.replace("\nrules:", f"\nrules:{MORE}", 1))])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "triage.db"
        asyncio.run(fill(path, count, rules))
        asyncio.run(silence(path, count))
        print(f"{count:,} envelopes, {path.stat().st_size / 1e6:.0f} MB, {len(rules.rules)} rules")
        with sqlite3.connect(path) as connection:
            found = {
                kind: connection.execute(
                    f"SELECT request_id FROM decisions WHERE {where} ORDER BY id DESC LIMIT 1"
                ).fetchone()[0]
                for kind, where in KINDS.items()
            }
        runner = CliRunner(env={"TRIAGE_STATE_DIR": folder, "TRIAGE_CONFIG": None})
        for kind, request_id in found.items():
            passed, used = [], []
            for _ in range(TIMES):
                begun, clock = time.perf_counter(), time.process_time()
                assert runner.invoke(cli, ["rules", "explain", request_id]).exit_code == 0
                passed.append(time.perf_counter() - begun)
                used.append(time.process_time() - clock)
            clock = sum(os.times()[2:4])
            command = [sys.executable, "-m", "triage", "rules", "explain", request_id]
            subprocess.run(command, check=True, capture_output=True, env={"TRIAGE_STATE_DIR": folder})
            whole = sum(os.times()[2:4]) - clock
            inside = f"{statistics.median(passed) * 1e3:5.1f} ms ({statistics.median(used) * 1e3:4.1f} of a processor)"
            print(f"{kind:34} {inside}, with the process {whole * 1e3:4.0f} of a processor")


if __name__ == "__main__":
    main()
