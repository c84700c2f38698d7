"""Function Compute's answers get lost, come late, or say nothing, in mixes that a seed draws: nothing runs twice, and what is
not known is found out or told. The client, the wire and the emulated service are real, time is not.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from random import Random

import aiohttp
import make
import pytest
from aiohttp import web
from world import LEASE, SHELVES, World, message

from triage.cloud.credentials import StaticCredentials
from triage.cloud.fc import FcClient
from triage.emulator.faults import Fault, Faults
from triage.emulator.fc import fc_routes
from triage.emulator.platform import Platform
from triage.emulator.scenario import load_scenario
from triage.emulator.server import LOOPBACK_KEY
from triage.rules.model import AlertPolicy, RerunPolicy
from triage.testing import Crashes, FakeSource, ManualClock

PATIENCE = timedelta(milliseconds=150)
"""Real time until the client gives up: the only thing here that takes any."""

SCENARIO = """
version: 1
functions:
  tracked:
    takes: 2s
    async: {task: true, retries: 0, on_success: results, on_failure: results}
    behaviour: [{do: fail, times: 1}]    # the first re-run of each event fails, the second one succeeds
  untracked:
    takes: 2s
    async: {task: false, retries: 0, on_success: results, on_failure: results}
    behaviour: [{do: fail, times: 1}]
"""
RERUN = RerunPolicy(
    max_attempts=9, give_up_after=timedelta(hours=6), after=timedelta(seconds=10), factor=1.0, jitter=0.0
)
RULES = make.rules(make.rule("again", rerun=RERUN, alert=AlertPolicy(on=make.QUIET, group_wait=timedelta(seconds=5))))
LOST = {
    Fault.LOST_ANSWER: 0.12,
    Fault.LATE_ANSWER: 0.08,
    Fault.DELAY: 0.08,
    Fault.GARBAGE: 0.08,
    Fault.SERVER_ERROR: 0.08,
}
SAID = {Fault.THROTTLED: 0.08, Fault.CONFLICT: 0.08}


class Hasty(ManualClock):
    """The time of another clock; sleeping takes none, so that a call ends before the other clock moves."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def now(self):
        return self._clock.now()

    async def sleep(self, duration: timedelta) -> None:
        await asyncio.sleep(0)


@asynccontextmanager
async def far_side(clock: ManualClock, source: FakeSource, seed: int) -> AsyncIterator[tuple[Platform, str]]:
    """Function Compute on loopback. What is late is so by 40 s: longer than an absent task is waited for."""

    async def push(_queue: str, body: bytes) -> None:
        source.put(body)

    faults = Faults(seed, {str(fault): rate for fault, rate in (LOST | SAID).items()})
    platform = Platform(load_scenario(SCENARIO), push=push, clock=clock, faults=faults)
    app = web.Application()
    known = {LOOPBACK_KEY.access_key_id: LOOPBACK_KEY}.get
    app.add_routes(fc_routes(platform, credentials=known, clock=clock, faults=faults, delay=timedelta(seconds=40)))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield platform, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
        await platform.close()


async def endure(seed: int, shelf: str, folder: Path) -> tuple[World, Platform, Counter[str]]:
    """Six failures of each function; the process dies once on the way."""
    clock = ManualClock(make.NOW)
    source = FakeSource(clock=clock, lease=LEASE)
    for number in range(6):
        for name in ("tracked", "untracked"):
            source.put(message(name, f"1-{name}-{number}", payload=f'{{"number":{number}}}'))
    async with far_side(clock, source, seed) as (platform, url), aiohttp.ClientSession() as session:
        client = FcClient(
            session, credentials=StaticCredentials(LOOPBACK_KEY), clock=Hasty(clock), endpoint=url, timeout=PATIENCE
        )
        world = World(SHELVES[shelf](folder), RULES, clock=clock, invoker=client, source=source)
        crashes = Crashes(Random(seed).randrange(1, 400))
        await world.live(crashes, until=timedelta(minutes=40))
        assert world.broken_laws() == {}, crashes.points[-1]
        await world.live(Crashes(), until=timedelta(minutes=90))
        return world, platform, Counter(dict((await world.totals()).states))


@pytest.mark.parametrize("shelf", SHELVES)
@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_answered_nothing_runs_twice_and_nothing_is_forgotten(seed, shelf, tmp_path):
    world, platform, states = asyncio.run(endure(seed, shelf, tmp_path))
    assert world.broken_laws() == {}
    submits = Counter((submit.function, submit.task_id) for submit in platform.submits)
    assert max(submits.values()) == 1
    assert set(states) <= {"healed", "alerted"}
    rows = (
        "SELECT key, state, note, json_extract(payload, '$.function.name') AS function FROM outbox WHERE kind = 'rerun'"
    )
    for row in world.ask(rows):
        function = row["function"]
        if row["state"] in ("done", "cancelled"):  # the provider said so, or the result came before it did
            assert submits[function, row["key"]] == 1, row["note"]
        else:
            # Told to a person: only where the provider cannot say whether it has taken it.
            assert (row["state"], function) == ("dead", "untracked"), row["note"]
    healed = [row["root"] for row in world.ask("SELECT root FROM lineages WHERE state = 'healed'")]
    assert {f"1-tracked-{number}" for number in range(6)} <= set(healed)
    assert world.source.waiting == []
    assert bool(world.bell.rung) == bool(states["alerted"])


def test_the_mixes_hold_every_fault():
    drawn = Counter()
    for seed in range(6):
        faults = Faults(seed, {str(fault): rate for fault, rate in (LOST | SAID).items()})
        drawn.update(faults.draw("InvokeFunction") for _ in range(40))
    assert set(drawn) == {None, *LOST, *SAID}
