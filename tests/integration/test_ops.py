"""The operations endpoint of a whole daemon, asked as probes and scrapers ask."""

import asyncio
import errno
import json
import re
import socket
import sqlite3
import threading
from contextlib import asynccontextmanager
from datetime import timedelta

import aiohttp
import make
import pytest
from aiohttp import web

from triage.app import build
from triage.changes import Commit, RowKind
from triage.clock import SystemClock
from triage.consumer import Consumer, Intake
from triage.decide import decide_batch
from triage.effects import decided
from triage.errors import Temporary
from triage.outbox import Outbox
from triage.progress import Progress, Receiving, stalled
from triage.rulebook import RuleBook
from triage.rulecheck import read_rule_set
from triage.rules.model import AlertPolicy
from triage.settings import WebSettings, load_settings
from triage.sources.local import LocalQueue
from triage.sources.queue_tables import Outgoing
from triage.testing import FakeFunctions, FakeSource, ManualClock, MemoryStore
from triage.web.ops import Ops, serve_ops

TOKEN = "a-token-of-some-length"
SECRET = "hunter2-hunter2"
WEB = '[web]\nlisten = "127.0.0.1:0"\n'
RULES = "version: 1\nrules:\n  - id: tell\n    alert: {to: default, group_wait: 0s}\n"
MINUTE = timedelta(minutes=1)


class Shifted(SystemClock):
    """Real time, some of which a test may skip as far as instants are concerned."""

    skipped = timedelta(0)

    def now(self):
        return super().now() + self.skipped

    def steady(self):
        return super().steady() + self.skipped


def settings(folder, more=WEB):
    (folder / "rules.yaml").write_text(RULES)
    head = f'state_dir = "state"\nrules = "rules.yaml"\n{more}'
    head += f'[credentials]\naccess_key_id = "id"\naccess_key_secret = "{SECRET}"\n'
    (folder / "triage.toml").write_text(head)
    return load_settings(folder / "triage.toml", environ={"HOME": str(folder)})


@asynccontextmanager
async def running(given, clock=None):
    """The daemon at work, and a client that asks it."""
    async with build(given, clock=clock or SystemClock(), write=lambda _: None) as app:
        stop = asyncio.Event()
        task = asyncio.create_task(app.run(stop))
        try:
            async with aiohttp.ClientSession(app.url) as client:
                yield app, client
        finally:
            stop.set()
            await asyncio.wait_for(task, 20)


async def get(client, path, method="GET", **headers):
    async with client.request(method, path, headers=headers) as answer:
        return answer.status, await answer.text()


async def until(ask, wanted):
    """What ``ask`` gives, once ``wanted`` is true of it."""
    async with asyncio.timeout(20):
        while not wanted(answer := await ask()):  # noqa: ASYNC110 - a daemon is watched as a probe does it
            await asyncio.sleep(0.02)
        return answer


async def send(folder, *bodies):
    queues = await LocalQueue.open(folder / "state" / "queue.db", clock=SystemClock())
    try:
        await queues.ensure("default")
        await queues.send("default", [Outgoing(body) for body in bodies])
    finally:
        await queues.close()


def test_a_daemon_at_work_is_well_ready_and_counted(tmp_path):
    async def scenario():
        clock = Shifted()
        await send(tmp_path, make.body("r1"), make.body("r1"), b"garbage")
        async with running(settings(tmp_path), clock) as (app, client):
            assert await get(client, "/healthz") == (200, "ok\n")
            await until(app.store.totals, lambda sums: sums.received == 3)
            clock.skipped = MINUTE  # past what is remembered of the store
            async with client.get("/metrics") as answer:
                assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
                assert answer.headers["Server"] == "triage"
                assert answer.headers["Cache-Control"] == "no-store"
                lines = (await answer.text()).splitlines()
            assert 'triage_envelopes_total{result="decided"} 1.0' in lines
            assert 'triage_envelopes_total{result="duplicates"} 1.0' in lines
            assert 'triage_envelopes_total{result="quarantined"} 1.0' in lines
            assert 'triage_source_messages_total{source="local"} 3.0' in lines
            done = {
                "triage_commit_messages_total 3.0",
                'triage_decisions_total{reason="matched",rule="tell"} 1.0',
                'triage_notifications_total{receiver="default",result="sent"} 1.0',
                'triage_source_lag_seconds{source="local"} 0.0',
                'triage_source_oldest_message_seconds{source="local"} 0.0',
            }
            await until(lambda: get(client, "/metrics"), lambda told: done <= set(told[1].splitlines()))
            status, text = await get(client, "/readyz")
            details = json.loads(text)
            assert (status, details["ready"], details["store"]["reachable"]) == (200, True, True)
            assert details["rules"]["digest"] == app.rules.current().digest
            assert details["rules"]["problems"] == []
            assert details["sources"]["local"]["ok"]
            assert details["sources"]["local"]["last_receive_at"]

    asyncio.run(scenario())


def test_head_is_answered_and_other_paths_and_methods_are_not(tmp_path):
    async def scenario():
        async with running(settings(tmp_path)) as (_, client):
            for path in ("/healthz", "/readyz", "/metrics"):
                assert await get(client, path, "HEAD") == (200, "")
                assert (await get(client, path, "POST"))[0] == 405
            for path in ("/", "/healthz/", "/metrics/x", "/%00%ff<script>"):
                status, text = await get(client, path)
                assert (status, text) == (404, "not found; there are /healthz, /readyz and /metrics\n")

    asyncio.run(scenario())


def test_a_refused_edit_of_the_rules_shows_and_leaves_the_daemon_ready(tmp_path):
    async def scenario():
        given, clock = settings(tmp_path), Shifted()
        async with running(given, clock) as (app, client):
            digest = app.rules.current().digest
            (tmp_path / "rules.yaml").write_text(RULES + f"  - id: '{SECRET}'\n    allert: {{}}\n")
            await app.rules.reload()
            clock.skipped = MINUTE
            status, text = await get(client, "/readyz")
            rules = json.loads(text)["rules"]
            assert (status, rules["digest"], rules["problems_total"]) == (200, digest, len(rules["problems"]))
            assert rules["refused_at"]
            assert "unknown key 'allert' (did you mean 'alert'?)" in rules["problems"][-1]
            assert all(
                re.match(rf"{re.escape(str(tmp_path))}/rules.yaml:\d+:\d+: \S", each) for each in rules["problems"]
            )
            assert SECRET not in text
            assert "triage_rules_refused 1.0" in (await get(client, "/metrics"))[1].splitlines()
            refused = re.search(
                r'triage_rules_reloads_total\{result="refused"\} (\d+)', (await get(client, "/metrics"))[1]
            )
            assert int(refused[1]) >= 1

    asyncio.run(scenario())


def test_a_loop_that_does_not_get_on_is_named(tmp_path):
    async def scenario():
        given, clock = settings(tmp_path), Shifted()
        async with running(given, clock) as (_, client):
            locking = sqlite3.connect(tmp_path / "state" / "triage.db", isolation_level=None)
            locking.execute("BEGIN IMMEDIATE")  # from here on nobody else can write
            await send(tmp_path, make.body("r1"))
            await until(
                lambda: get(client, "/metrics"),
                lambda answer: not re.search(r'consumer"} 0\.0$', answer[1], re.MULTILINE),
            )
            assert await get(client, "/healthz") == (200, "ok\n")
            clock.skipped = 5 * MINUTE
            _, text = await until(lambda: get(client, "/healthz"), lambda answer: answer[0] == 503)
            assert re.search(r"consumer has not got on for 30\d s", text)
            locking.execute("ROLLBACK")
            locking.close()
            clock.skipped = timedelta(0)
            assert await until(lambda: get(client, "/healthz"), lambda answer: answer[0] == 200) == (200, "ok\n")

    asyncio.run(scenario())


def test_a_source_that_fails_makes_it_unready_and_keeps_it_alive(tmp_path):
    async def refuse(_request):
        xml = f'<?xml version="1.0"?><Error xmlns="http://mns.aliyuncs.com/doc/v1/"><Code>AccessDenied</Code><Message>{SECRET} &quot;no&quot;</Message></Error>'
        return web.Response(status=403, text=xml, content_type="text/xml")

    async def scenario():
        queue = web.Application()
        queue.router.add_route("*", "/{path:.*}", refuse)
        runner = web.AppRunner(queue)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        source = f'[[sources]]\ntype = "smq"\nname = "jobs"\nendpoint = "http://{host}:{port}"\nqueue = "q"\n'
        try:
            async with running(settings(tmp_path, WEB + source)) as (_, client):
                _, text = await until(lambda: get(client, "/readyz"), lambda answer: answer[0] == 503)
                told = json.loads(text)["sources"]["jobs"]
                assert (told["ok"], told["last_receive_at"]) == (False, None)
                assert "AccessDenied" in told["last_error"]
                assert SECRET not in text
                assert await get(client, "/healthz") == (200, "ok\n")
                text = (await get(client, "/metrics"))[1]
                assert (
                    int(re.search(r'^triage_source_errors_total\{source="jobs"\} (\d+)\.0$', text, re.MULTILINE)[1]) > 0
                )
                assert "triage_source_last_receive_timestamp_seconds{" not in text
        finally:
            await runner.cleanup()

    asyncio.run(scenario())


def test_with_a_token_only_whether_it_lives_is_told_to_strangers(tmp_path):
    async def scenario():
        async with running(settings(tmp_path, f'{WEB}token = "{TOKEN}"\n')) as (_, client):
            assert (await get(client, "/healthz"))[0] == 200
            for path in ("/readyz", "/metrics", "/other"):
                for headers in (
                    {},
                    {"Authorization": TOKEN},
                    {"Authorization": f"Basic {TOKEN}"},
                    {"Authorization": f"Bearer {TOKEN}x"},
                    {"Authorization": f"Bearer {TOKEN[:-1]}"},
                    {"Authorization": "Bearer"},
                    {"Authorization": "Bearer \u00fc"},
                ):
                    status, text = await get(client, path, **headers)
                    assert (status, text) == (401, "a token is needed: Authorization: Bearer ...\n")
            for scheme in ("Bearer", "bearer"):
                status, text = await get(client, "/readyz", Authorization=f"{scheme} {TOKEN}")
                assert status == 200
                assert TOKEN not in text
            assert (await get(client, "/other", Authorization=f"Bearer {TOKEN}"))[0] == 404

    asyncio.run(scenario())


def test_without_listen_nothing_listens(tmp_path):
    async def scenario():
        async with build(settings(tmp_path, ""), clock=SystemClock()) as app:
            assert app.url == ""

    asyncio.run(scenario())


def test_a_port_in_use_keeps_the_daemon_from_starting_and_leaves_nothing_open(tmp_path):
    async def scenario():
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            given = settings(tmp_path, f'[web]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\n')
            with pytest.raises(OSError) as caught:
                async with build(given, clock=SystemClock()):
                    pass
        assert caught.value.errno == errno.EADDRINUSE
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())


# ---------------------------------------------------------------- the store is spared


class Counting(MemoryStore):
    asked = 0

    async def totals(self):
        self.asked += 1
        await asyncio.sleep(0)
        return await super().totals()


@asynccontextmanager
async def served(store, clock, **changes):
    given = {"stages": {}, "sources": {"s": Receiving()}, "rules": make.rules, "redact": str} | changes
    ops = Ops(store=store, clock=clock, **given)
    async with serve_ops(ops, WebSettings(listen="[::1]:0")) as url, aiohttp.ClientSession(url) as client:
        yield client


def test_the_store_is_asked_once_for_many_who_ask(tmp_path):
    async def scenario():
        store, clock = Counting(), ManualClock(make.NOW)
        async with served(store, clock) as client:
            answers = await asyncio.gather(*(get(client, path) for path in ("/metrics", "/readyz") * 10))
            assert {status for status, _ in answers} == {200}
            assert store.asked == 1
            await clock.advance(timedelta(seconds=5))
            await get(client, "/metrics")
            assert store.asked == 2
            await get(client, "/healthz")
            assert store.asked == 2

    asyncio.run(scenario())


def test_a_store_that_fails_makes_it_unready_and_leaves_the_other_metrics():
    async def scenario():
        store, clock = MemoryStore(), ManualClock(make.NOW)
        async with served(store, clock) as client:
            store.unavailable = "the disk is full"
            status, text = await get(client, "/readyz")
            assert status == 503
            assert json.loads(text)["store"] == {"reachable": False, "error": "the disk is full"}
            status, text = await get(client, "/metrics")
            assert status == 200
            assert "triage_store_up 0.0" in text.splitlines()
            assert 'triage_source_messages_total{source="s"} 0.0' in text.splitlines()
            store.unavailable = ""
            await clock.advance(timedelta(seconds=5))
            assert (await get(client, "/readyz"))[0] == 200

    asyncio.run(scenario())


# ---------------------------------------------------------------- what the loops keep


def test_the_consumer_tells_since_when_the_store_keeps_it_waiting():
    async def scenario():
        clock, store, stop = ManualClock(make.NOW), MemoryStore(), asyncio.Event()
        source = FakeSource(clock=clock)
        consumer = Consumer([Intake(source, receivers=1)], store=store, rules=make.rules, clock=clock)
        task = asyncio.create_task(consumer.run(stop))
        await clock.advance(10 * MINUTE)
        assert consumer.progress.waiting(clock.now()) == timedelta(0)
        store.unavailable = "the disk is full"
        source.put(make.body())
        await clock.advance(2 * MINUTE)
        await clock.advance(10 * MINUTE)
        assert consumer.progress.waiting(clock.now()) == 12 * MINUTE
        assert stalled(consumer.stages, clock.now()) == []  # the store answers, though with an error
        store.unavailable = ""
        await clock.advance(MINUTE)
        assert consumer.progress == Progress()
        told = consumer.receiving["fake"]
        assert (told.messages, told.failing) == (1, False)
        source.failures = [Temporary("busy", "later")]
        source.put(make.body("r2"))
        await clock.advance(timedelta(milliseconds=1))
        assert told.failing
        await clock.advance(MINUTE)
        assert (told.errors, told.error, told.failing) == (1, "busy: later", False)
        stop.set()
        await clock.advance(MINUTE)
        await task

    asyncio.run(scenario())


class Silent(FakeSource):
    """A queue that takes requests and answers none, as one behind a half-open connection."""

    silent = ()

    async def receive(self, *, limit, wait):
        if "receive" in self.silent:
            await asyncio.Event().wait()
        return await super().receive(limit=limit, wait=wait)

    async def ack(self, deliveries):
        if "ack" in self.silent:
            await asyncio.Event().wait()
        return await super().ack(deliveries)


def test_a_receive_and_an_acknowledgement_that_come_to_no_end_are_named():
    async def scenario():
        clock, stop = ManualClock(make.NOW), asyncio.Event()
        source = Silent(clock=clock)
        consumer = Consumer(
            [Intake(source, receivers=2, wait=timedelta(seconds=30))],
            store=MemoryStore(),
            rules=make.rules,
            clock=clock,
        )
        task = asyncio.create_task(consumer.run(stop))
        await clock.advance(10 * MINUTE)  # of empty polls
        assert stalled(consumer.stages, clock.now()) == []
        source.silent = ("receive", "ack")
        source.put(make.body())
        await clock.advance(2 * MINUTE)
        assert stalled(consumer.stages, clock.now()) == []
        await clock.advance(2 * MINUTE)
        still = [stage.name for stage in stalled(consumer.stages, clock.now())]
        assert still == ["receive fake #1", "receive fake #2", "ack"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())


def test_reading_the_rules_is_a_stage_and_so_is_watching_them(tmp_path):
    async def scenario():
        (tmp_path / "rules.yaml").write_text(RULES)
        clock, stop, reload = Shifted(), asyncio.Event(), asyncio.Event()
        proceed, hung = threading.Event(), threading.Event()

        def read(path, **options):
            if reload_began:
                hung.set()
                proceed.wait(20)
            return read_rule_set(path, **options)

        reload_began = []
        book = await RuleBook.open(
            tmp_path / "rules.yaml", receivers=["default"], store=MemoryStore(), clock=clock, read=read
        )
        task = asyncio.create_task(book.run(stop, reload))
        reload_began.append(True)
        reload.set()
        await asyncio.to_thread(hung.wait, 20)
        clock.skipped = 3 * MINUTE
        async with asyncio.timeout(20):  # the watch looks again at once
            while [stage.name for stage in stalled(book.stages, clock.now())] != ["rules reload"]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        proceed.set()
        async with asyncio.timeout(20):
            while stalled(book.stages, clock.now()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        stop.set()
        await asyncio.wait_for(task, 20)

    asyncio.run(scenario())


class Deaf:
    """A receiver that never answers until it is told to."""

    def __init__(self):
        self.answer = asyncio.Event()

    async def send(self, note, *, skip):
        await self.answer.wait()
        return {}


def test_the_outbox_counts_as_stalled_when_an_act_comes_to_no_end_and_not_when_the_store_fails():
    async def scenario():
        clock, store, deaf, stop = ManualClock(make.NOW), MemoryStore(), Deaf(), asyncio.Event()
        rules = make.rules(make.rule("tell", alert=AlertPolicy(group_wait=timedelta(0), group_interval=MINUTE)))
        arrivals = [make.arrived(make.envelope("r1"))]
        decisions = decide_batch(arrivals, await store.load_facts(arrivals), rules, now=make.NOW)
        new = tuple(decided(a, d) for a, d in zip(arrivals, decisions, strict=True))
        await store.commit(Commit(now=make.NOW, rule_set=rules.digest, decided=new))
        functions = FakeFunctions(clock, FakeSource(clock=clock))
        outbox = Outbox(store=store, invoker=functions, notifier=deaf, clock=clock, concurrency=1)
        task = asyncio.create_task(outbox.run(stop))
        await clock.advance(timedelta(seconds=30))
        assert (await store.totals()).outbox == {RowKind.NOTIFY: 1, RowKind.FLUSH: 1}
        assert stalled(outbox.stages, clock.now()) == []
        await clock.advance(3 * MINUTE)
        assert [stage.name for stage in stalled(outbox.stages, clock.now())] == ["outbox", "act"]
        deaf.answer.set()
        await clock.advance(10 * MINUTE)
        assert outbox.progress.waiting(clock.now()) == timedelta(0)
        store.unavailable = "the disk is full"
        await clock.advance(3 * MINUTE)
        assert outbox.progress.waiting(clock.now()) > 2 * MINUTE
        assert stalled(outbox.stages, clock.now()) == []
        store.unavailable = ""
        await clock.advance(MINUTE)
        assert not outbox.progress.stalled(clock.now())
        stop.set()
        await clock.advance(MINUTE)
        await task

    asyncio.run(scenario())
