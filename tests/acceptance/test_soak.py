"""A constant load for half an hour, while the network and both services misbehave by a seed: nothing grows.

The plot in ``docs/explanation/soak.svg`` is one that this test has written.
"""

import asyncio
import csv
import os
import time
from collections import Counter
from dataclasses import astuple, fields
from pathlib import Path

import pytest
from machines import LONG
from processes import TITLE, about, emulating, tasks, triage
from soak import Sample, look, plot, slope
from workload import RULES, SCENARIO, Workload

from triage.clock import SystemClock
from triage.sources.local import LocalQueue
from triage.sources.queue_tables import Outgoing

SECONDS = int(os.environ.get("TRIAGE_ACCEPTANCE_SOAK", "1800"))
RATE = 20
"""Messages a second; of any forty, ten make another one, the result of a re-run."""
EVERY = 5
"""Seconds between two samples."""
FAULTS = {
    "lost_answer": 0.02,
    "server_error": 0.02,
    "throttled": 0.02,
    "delay": 0.05,
    "duplicate": 0.02,
    "ListAsyncTasks:lost_answer": 0,
    "ListAsyncTasks:server_error": 0,
    "ListAsyncTasks:throttled": 0,
}


@pytest.mark.skipif(not LONG, reason="a long test: set TRIAGE_ACCEPTANCE_LONG=1")
@pytest.mark.timeout(SECONDS + 600)
def test_nothing_grows_under_a_constant_load_with_faults(tmp_path):
    load, state = Workload(SECONDS * RATE), tmp_path / "state"
    (tmp_path / "rules.yaml").write_text(RULES)
    options = [option for name, rate in FAULTS.items() for option in ("--fault", f"{name}={rate}")]
    settings = {"TRIAGE_RULES": str(tmp_path / "rules.yaml"), "TRIAGE_WEB__LISTEN": "127.0.0.1:0"}
    with (
        emulating(tmp_path, SCENARIO, *options, "--seed", 7) as emulation,
        emulation.daemon(state, **settings) as running,
    ):
        url = running.until_logged("operations endpoint").partition("operations endpoint: ")[2].partition("/healthz")[0]
        samples = asyncio.run(feed(load, emulation.state / "queue.db", running.process.pid, url))
        keep(samples, Path(os.environ.get("TRIAGE_ACCEPTANCE_SOAK_DIR", tmp_path)))
        running.until(lambda: load.is_done(state), within=180, why="was all done")
        assert running.until(lambda: emulation.queue() == (0, 0))
        assert tasks(emulation.url, "again") == load.reruns, "each once"
        assert running.stop() == 0
    assert triage("selfcheck", state=state).startswith("holds")
    # Thousands of notifications: two may have the same short code, but not all of the line.
    told = Counter[str]()
    for title in {match[0]: match for match in TITLE.finditer(running.out)}.values():
        told[about(title)] += int((title["times"] or "1").replace(",", ""))
    assert {what: told[what] for what in load.told} == load.told
    warm = samples[len(samples) // 2 :]
    grows = {name: slope(warm, name) for name in ("rss", "files", "lag", "overdue")}
    print(f"\n{len(samples)} samples; growth in an hour, second half: {grows}")
    assert grows["rss"] < 0.1 * warm[0].rss, "MiB an hour"
    assert abs(grows["files"]) < 2
    assert grows["lag"] < 2
    assert grows["overdue"] < 2
    assert warm[-1].taken - warm[0].taken >= 0.98 * RATE * (warm[-1].seconds - warm[0].seconds)


async def feed(load, path, pid, url):
    """Send so many each second, and look now and then."""
    queues, samples, began = await LocalQueue.open(path, clock=SystemClock()), [], time.monotonic()
    try:
        for second in range(SECONDS):
            await asyncio.sleep(max(began + second - time.monotonic(), 0))
            await queues.send("results", [Outgoing(body) for body in load.bodies[second * RATE : (second + 1) * RATE]])
            if second % EVERY == 0:
                samples.append(await asyncio.to_thread(look, pid, url, time.monotonic() - began))
    finally:
        await queues.close()
    return samples


def keep(samples, folder):
    """Leave the samples and their plot where they can be looked at, however the test ends."""
    with (folder / "soak.csv").open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow([field.name for field in fields(Sample)])
        table.writerows(astuple(sample) for sample in samples)
    title = f"triage under {RATE} messages a second with faults, {SECONDS // 60} minutes"
    (folder / "soak.svg").write_text(plot(samples, title), encoding="utf-8")
