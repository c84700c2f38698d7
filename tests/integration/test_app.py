"""The whole daemon in one process: files on disk, the local queue, Function Compute on loopback."""

import asyncio
import re
import threading
from collections import Counter
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import make
import pytest
from aiohttp import web

from triage.app import build
from triage.clock import SystemClock
from triage.consumer import Consumer, Intake
from triage.errors import ConfigInvalid, Misconfigured, RulesInvalid, StoreUnavailable
from triage.sdnotify import Supervisor
from triage.settings import load_settings
from triage.sources.local import LocalQueue
from triage.sources.queue_tables import Outgoing
from triage.stores import FailureFilter
from triage.testing import FakeSource, MemoryStore

SAMPLES = Path(__file__).parents[1] / "data" / "samples"
BASE = """\
state_dir = "state"
[credentials]
access_key_id = "id"
access_key_secret = "secret"
"""
RULES = """\
version: 1
rules:
  - id: again
    match: {function: my-fc-job}
    rerun: {after: 0s, max_attempts: 3, give_up_after: 1h}
  - id: tell
    alert: {to: default, group_wait: 0s}
"""


def settings(folder, more="", rules=None):
    """Settings as a user writes them."""
    head = BASE
    if rules is not None:
        (folder / "rules.yaml").write_text(rules)
        head = f'rules = "rules.yaml"\n{head}'
    (folder / "triage.toml").write_text(head + more)
    return load_settings(folder / "triage.toml", environ={"HOME": str(folder)})


@asynccontextmanager
async def queue(folder, name="queue.db"):
    queues = await LocalQueue.open(folder / "state" / name, clock=SystemClock())
    await queues.ensure("default")
    try:
        yield queues
    finally:
        await queues.close()


async def send(folder, *bodies):
    async with queue(folder) as queues:
        await queues.send("default", [Outgoing(body) for body in bodies])


async def waiting(folder):
    async with queue(folder) as queues:
        stats = await queues.stats("default")
        return stats.active + stats.inactive + stats.delayed


@asynccontextmanager
async def running(given, write=None):
    async with build(given, clock=SystemClock(), write=write) as app:
        stop = asyncio.Event()
        task = asyncio.create_task(app.run(stop))
        try:
            yield app
        finally:
            stop.set()
            await asyncio.wait_for(task, 10)


async def totals(app, **wanted):
    """The sums, once those that are named are reached."""
    async with asyncio.timeout(20):
        while True:
            found = await app.store.totals()
            seen = {"received": found.received, "duplicates": found.duplicates, "quarantined": found.quarantined}
            seen |= dict(found.states) | {f"delivery_{name}": number for name, number in found.deliveries.items()}
            if all(seen.get(name, 0) >= number for name, number in wanted.items()):
                return found
            await asyncio.sleep(0.01)


class Functions:
    """Function Compute, as far as it takes asynchronous invocations and knows the id of a task it was given.

    Its results go to the local queue, and overtake the answers to the submits.
    """

    def __init__(self, folder):
        self.folder, self.tasks, self.payloads = folder, Counter(), []

    async def invoke(self, request):
        task = request.headers["x-fc-async-task-id"]
        payload = (await request.read()).decode()
        if self.tasks[task]:
            return web.json_response({"Code": "AsyncTaskAlreadyExists"}, status=409)
        self.tasks[task] += 1
        self.payloads.append(payload)
        request_id = f"run-{len(self.payloads)}"
        await send(self.folder, make.body(request_id, condition="", payload=payload))
        return web.Response(status=202, headers={"x-fc-request-id": request_id, "x-fc-async-task-id": task})

    async def task(self, request):
        found = {"taskId": request.match_info["task"], "requestId": "run-1", "status": "Succeeded"}
        return web.json_response(found)

    @asynccontextmanager
    async def serving(self):
        app = web.Application()
        app.router.add_post("/2023-03-30/functions/{name}/invocations", self.invoke)
        app.router.add_get("/2023-03-30/functions/{name}/async-tasks/{task}", self.task)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        try:
            yield f'[fc]\nendpoint = "http://{host}:{port}"\n'
        finally:
            await runner.cleanup()


@pytest.fixture(autouse=True)
def _nothing_is_left_running():
    before = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(5)  # it may have been told to end just now
    assert not [thread.name for thread in left if thread.is_alive()]


def test_the_daemon_runs_again_heals_tells_and_keeps_what_it_cannot_read(tmp_path):
    async def scenario():
        printed, functions = [], Functions(tmp_path)
        async with functions.serving() as fc:
            await send(tmp_path, make.body("r1"), make.body("r1"), b"garbage")
            given = settings(tmp_path, fc + "[quarantine]\nalert = false\n", RULES)
            async with running(given, printed.append) as app:
                await totals(app, received=4, healed=1)
                await send(tmp_path, make.body("r2", arn=make.ARN.replace("my-fc-job", "broken")))
                sums = await totals(app, alerted=1, delivery_sent=1)
        assert functions.payloads == ['{"failure":true}']
        assert sums.states == {"healed": 1, "alerted": 1}
        assert (sums.decided, sums.duplicates, sums.conflicts, sums.quarantined) == (3, 1, 0, 1)
        assert await waiting(tmp_path) == 0
        (alert,) = printed
        assert "broken failed: InvocationError" in alert

    asyncio.run(scenario())


def test_every_sample_is_decided_or_kept_with_a_reason_by_the_shipped_rules(tmp_path):
    bodies = [path.read_bytes() for path in sorted(SAMPLES.rglob("*")) if path.is_file() and path.suffix != ".md"]
    assert len(bodies) >= 5

    async def scenario():
        await send(tmp_path, *bodies)
        async with running(settings(tmp_path), lambda _: None) as app:
            sums = await totals(app, received=len(bodies))
            assert sums.received == sums.decided + sums.duplicates + sums.conflicts + sums.quarantined == len(bodies)
            rows = await app.store.failures(FailureFilter())
            assert rows
            assert all(row.rule_id for row in rows), "the shipped rules leave nothing unmatched"
            digest = (await app.store.failure(rows[0].request_id)).decision["rule_set"]
            assert await app.store.rule_set(digest) == await app.store.rule_set()
            assert all(row.reason for row in await app.store.quarantined(limit=99))
        assert await waiting(tmp_path) == 0

    asyncio.run(scenario())


def test_what_is_sent_after_the_stop_is_there_at_the_next_start(tmp_path):
    async def scenario():
        given = settings(tmp_path)
        async with running(given) as app:
            await send(tmp_path, make.body("r1"))
            await totals(app, received=1)
        await send(tmp_path, make.body("r1"), make.body("r2"))
        assert await waiting(tmp_path) == 2
        async with running(given) as app:
            await totals(app, received=3, duplicates=1)

    asyncio.run(scenario())


def test_several_local_queues_may_share_a_file(tmp_path):
    more = (
        '[[sources]]\ntype = "local"\nname = "a"\nqueue = "a"\n[[sources]]\ntype = "local"\nname = "b"\nqueue = "b"\n'
    )

    async def scenario():
        async with queue(tmp_path) as queues:
            for name in ("a", "b"):
                await queues.ensure(name)
                await queues.send(name, [Outgoing(make.body(name))])
        async with running(settings(tmp_path, more)) as app:
            await totals(app, received=2)
            found = {name: (await app.store.failure(name)).envelope["source"] for name in ("a", "b")}
            assert found == {"a": "a", "b": "b"}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("environ", "more", "seconds"),
    [
        ({}, "", 120),
        ({"WATCHDOG_USEC": "60000000"}, "", 30),
        ({"WATCHDOG_USEC": "60000000"}, 'limit = "9s"', 9),
        ({"WATCHDOG_USEC": "900000"}, "", 5),
    ],
    ids=["on its own", "under a supervisor", "as configured", "under a nervous supervisor"],
)
def test_a_blocked_event_loop_is_noticed_before_the_supervisor_ends_the_process(tmp_path, environ, more, seconds):
    async def scenario():
        given = settings(tmp_path, f"[watchdog]\n{more}\n")
        async with build(given, clock=SystemClock(), supervisor=Supervisor(environ, pid=1)) as app:
            assert app.stages["event loop"].limit.total_seconds() == seconds
            assert app.stages["consumer"].limit.total_seconds() == (9 if more else 120)

    asyncio.run(scenario())


# ---------------------------------------------------------------- what cannot be built


def test_a_receiver_that_is_not_configured_is_told_with_its_place(tmp_path):
    rules = RULES + "  - id: page\n    alert: {to: [default, oncall]}\n"

    async def scenario():
        async with build(settings(tmp_path, rules=rules), clock=SystemClock()):
            pass

    with pytest.raises(RulesInvalid) as caught:
        asyncio.run(scenario())
    (problem,) = caught.value.problems
    assert (Path(problem.file).name, problem.line, problem.column) == ("rules.yaml", 9, 17)
    assert problem.message == "no receiver 'oncall' is configured [R016 unknown-receiver]"
    assert "add [receivers.oncall]" in problem.hint


def open_files(folder):
    """What of a folder this process holds open; Linux tells."""
    with suppress(FileNotFoundError):
        paths = [path.resolve() for path in Path("/proc/self/fd").iterdir()]
        return [path for path in paths if folder in path.parents]
    return []


LOCAL = '[[sources]]\ntype = "local"\n'
BAD_SMQ = LOCAL + '[[sources]]\ntype = "smq"\nendpoint = "http://127.0.0.1/path"\nqueue = "q"\n'


@pytest.mark.parametrize(
    ("more", "spoil", "error"),
    [
        (BAD_SMQ, lambda state: None, Misconfigured),
        (LOCAL, lambda state: (state / "triage.db").mkdir(), StoreUnavailable),
        (LOCAL, lambda state: (state / "queue.db").write_text("no database at all" * 99), StoreUnavailable),
        (LOCAL, lambda state: (state / "triage.db").write_text("no database at all" * 99), StoreUnavailable),
        ('[receivers.x]\nurls = ["console:", "nosuch://x"]\n', lambda state: None, ConfigInvalid),
    ],
    ids=["second source", "store is a folder", "queue is no database", "store is no database", "receiver"],
)
@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
def test_what_cannot_be_built_leaves_nothing_open(tmp_path, more, spoil, error):
    (tmp_path / "state").mkdir()
    spoil(tmp_path / "state")

    async def scenario():
        with pytest.raises(error):
            async with build(settings(tmp_path, more), clock=SystemClock()):
                pass
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert open_files(tmp_path) == []

    asyncio.run(scenario())


def test_an_error_inside_the_block_closes_everything_as_well(tmp_path):
    async def scenario():
        async with build(settings(tmp_path), clock=SystemClock()):
            raise KeyError("the caller's own")

    with pytest.raises(KeyError):
        asyncio.run(scenario())


# ---------------------------------------------------------------- the end of a loop


def test_a_loop_that_fails_ends_the_daemon_and_is_not_passed_over(tmp_path):
    class Defective(FakeSource):
        async def receive(self, *, limit, wait):
            raise KeyError("a defect")

    async def scenario():
        async with build(settings(tmp_path), clock=SystemClock()) as app:
            app._consumer = Consumer(
                [Intake(Defective(clock=SystemClock()))],
                store=app.store,
                rules=make.rules,
                clock=SystemClock(),
            )
            await asyncio.wait_for(app.run(asyncio.Event()), 10)

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(scenario())
    assert caught.group_contains(KeyError)


def test_what_is_not_finished_within_the_grace_period_is_left_to_the_next_start(tmp_path, caplog):
    class Stuck(MemoryStore):
        def __init__(self):
            super().__init__()
            self.asked = asyncio.Event()

        async def commit(self, batch):
            self.asked.set()
            await asyncio.Event().wait()

    async def scenario():
        given = settings(tmp_path, '[consumer]\ngrace = "20ms"\n')
        async with build(given, clock=SystemClock()) as app:
            source, store, stop = FakeSource(clock=SystemClock()), Stuck(), asyncio.Event()
            app._consumer = Consumer([Intake(source, receivers=1)], store=store, rules=make.rules, clock=SystemClock())
            ids = source.put(make.body())
            task = asyncio.create_task(app.run(stop))
            await asyncio.wait_for(store.asked.wait(), 10)
            stop.set()
            await asyncio.wait_for(task, 10)
            assert (source.waiting, source.acks) == (ids, 0)

    asyncio.run(scenario())
    assert re.search(r"not finished within the grace period: .*\bconsumer\b", caplog.text)


def test_cancelling_the_daemon_takes_its_loops_down(tmp_path):
    async def scenario():
        async with build(settings(tmp_path), clock=SystemClock()) as app:
            task = asyncio.create_task(app.run(asyncio.Event()))
            await send(tmp_path, make.body())
            await totals(app, received=1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
            names = {other.get_name() for other in asyncio.all_tasks()}
            assert not names & {"consumer", "outbox"}

    asyncio.run(scenario())
