"""Lost result messages in a whole daemon: the emulated platform loses them, the daemon finds what became of the tasks."""

import asyncio
import json
from contextlib import asynccontextmanager

from triage.app import build
from triage.clock import SystemClock
from triage.emulator.scenario import load_scenario
from triage.emulator.server import LOOPBACK_KEY, serve
from triage.settings import load_settings
from triage.sources.local import LocalQueue
from triage.sources.queue_tables import Outgoing

RULES = """\
version: 1
rules:
  - id: found
    match: {function: ignored}
    when: source == 'lost'
    ignore: as told by FC
  - id: again
    rerun: {after: 0s, max_attempts: 3, give_up_after: 1h, expect_within: 1h}
    alert: {to: default, group_wait: 0s}
"""
RULES = RULES.replace(
    "    match: {fn: never, source: lost}\n", "    match: {function: ignored}\n    when: source == 'lost'\n"
)
SETTINGS = """\
state_dir = "state"
rules = "rules.yaml"
[[sources]]
type = "local"
queue = "results"
[[sources]]
type = "reconcile"
name = "lost"
functions = [{functions}]
interval = "200ms"
grace = "0s"
[fc]
endpoint = "{url}"
[credentials]
access_key_id = "{key.access_key_id}"
access_key_secret = "{key.access_key_secret}"
[web]
listen = "127.0.0.1:0"
"""
JOB = "async: {task: true, retries: 0, on_failure: results, on_success: results}"


@asynccontextmanager
async def world(folder, behaviour, functions=("job",)):
    """The daemon at work beside the platform: ``app``, ``far`` and what was printed."""
    (folder / "rules.yaml").write_text(RULES)
    scenario = "speed: 10000\nfunctions:\n"
    for name in ("job", "ignored"):
        scenario += f"  {name}:\n    {JOB}\n    behaviour: [{behaviour}]\n"
    queues = await LocalQueue.open(folder / "state" / "queue.db", clock=SystemClock())
    printed = []
    try:
        async with serve(load_scenario(scenario), queues=queues, clock=SystemClock()) as far:
            names = ", ".join(f'"{name}"' for name in functions)
            (folder / "triage.toml").write_text(SETTINGS.format(url=far.url, key=LOOPBACK_KEY, functions=names))
            given = load_settings(folder / "triage.toml", environ={"HOME": str(folder)})
            async with build(given, clock=SystemClock(), write=printed.append) as app:
                stop = asyncio.Event()
                task = asyncio.create_task(app.run(stop))
                try:
                    async with asyncio.timeout(60):
                        yield app, far, printed
                finally:
                    stop.set()
                    await asyncio.wait_for(task, 20)
    finally:
        await queues.close()


async def reached(app, **states):
    while True:
        sums = await app.store.totals()
        if dict(sums.states) == states:
            return sums
        await asyncio.sleep(0.02)


async def until(condition):
    """The daemon is watched from outside."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def rounds(app, number):
    """Let the source be asked some more times."""
    told = app._consumer.receiving["lost"]
    for _ in range(number):
        last = told.received_at
        await until(lambda last=last: told.received_at != last)


def test_a_lost_failure_is_found_run_again_and_healed_and_counts_once(tmp_path):
    async def scenario():
        async with world(tmp_path, "{do: fail, times: 1, lost: true}") as (app, far, printed):
            task = far.fc.submit("job", b'{"n":1}')
            await reached(app, healed=1)
            await rounds(app, 4)
            sums = await app.store.totals()
            assert (sums.received, sums.decided, sums.duplicates, sums.conflicts) == (2, 2, 0, 0)
            assert (task.destination_status, [each.event for each in far.fc.submits]) == ("Failed", [b'{"n":1}'] * 2)
            found = await app.store.failure(task.request_id)
            assert (found.envelope["source"], found.envelope["message_id"]) == ("lost", task.task_id)
            assert found.envelope["digest"].startswith("reconstructed:")
            assert json.loads(found.envelope["body"])["reconstructed"]["destinationStatus"] == "Failed"
            assert printed == []

    asyncio.run(scenario())


def test_the_lost_result_of_a_re_run_joins_its_lineage_and_nobody_waits_for_it(tmp_path):
    async def scenario():
        steps = "{do: fail, times: 1}, {do: fail, times: 1, lost: true}"
        async with world(tmp_path, steps) as (app, far, printed):
            root = far.fc.submit("job", b"{}")
            await reached(app, healed=2)
            found = await app.store.failure(root.request_id)
            assert [(row["attempt"], row["outcome"]) for row in found.lineage["members"]] == [
                (0, "failed"),
                (1, "failed"),
                (2, "succeeded_or_stopped"),
            ]
            waiting = {row["key"]: row["state"] for row in found.outbox if row["kind"] == "expect"}
            assert sorted(waiting.values()) == ["cancelled", "cancelled"]
            assert (found.lineage["alerts"], printed) == ([], [])

    asyncio.run(scenario())


def test_a_message_that_comes_after_all_is_a_duplicate_and_no_conflict(tmp_path):
    async def scenario():
        async with world(tmp_path, "{do: fail, times: 1, lost: true}") as (app, far, _):
            task = far.fc.submit("job", b"{}")
            await reached(app, healed=1)
            message = {
                "requestContext": {"requestId": task.request_id, "functionArn": far.fc.arn("job"), "condition": "Late"},
                "requestPayload": "{}",
                "responsePayload": '{"errorMessage": "in its own words"}',
            }
            for _ in range(2):
                await far.queues.send("results", [Outgoing(json.dumps(message).encode())])
            while (sums := await app.store.totals()).received < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            assert (sums.decided, sums.duplicates, sums.conflicts) == (2, 2, 0)

    asyncio.run(scenario())


def test_rules_know_the_source(tmp_path):
    async def scenario():
        async with world(tmp_path, "{do: fail, lost: true}", ["ignored"]) as (app, far, _):
            far.fc.submit("ignored", b"{}")
            await reached(app, ignored=1)

    asyncio.run(scenario())


def test_a_function_that_is_not_there_is_told_once_shows_in_readyz_and_stops_nothing(tmp_path, caplog):
    async def scenario():
        import aiohttp

        async with world(tmp_path, "{do: fail, times: 1}", ["job", "nobody"]) as (app, far, _):
            told = app._consumer.receiving["lost"]
            await until(lambda: told.failing)
            far.fc.submit("job", b"{}")
            await reached(app, healed=1)
            async with aiohttp.ClientSession(app.url) as client, client.get("/readyz") as answer:
                status, details = answer.status, (await answer.json())["sources"]
            assert (status, details["local"]["ok"], details["lost"]["ok"]) == (503, True, False)
            assert "nobody" in details["lost"]["last_error"]

    asyncio.run(scenario())
    assert len([record for record in caplog.records if "FunctionNotFound" in record.message]) == 1
