"""Rules change while envelopes are decided: by real files, the real watcher and the SQLite store."""

import asyncio
import logging
import shutil
import sqlite3
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import make
import pytest

from triage.clock import SystemClock
from triage.consumer import Consumer, Intake
from triage.errors import ConfigInvalid, RulesInvalid
from triage.notify import AppriseNotifier, ReceiverConfig
from triage.outbox import Outbox
from triage.rulebook import ALERT, RuleBook
from triage.rulecheck import read_rule_set
from triage.rulefiles import default_rules_dir
from triage.rules.model import SourceText
from triage.rules.source import load_rules
from triage.stores.sqlite import SqliteStore
from triage.testing import FakeFunctions, FakeSource, ManualClock, MemoryStore

RULES = """\
version: 1
rules:
  - id: {id}
    match: {{condition: InvocationError}}
    alert: {{to: {to}}}
"""


def good(rule_id="first", to="default"):
    return RULES.format(id=rule_id, to=to)


class Log(logging.Handler):
    """What the rule book logs, as it comes."""

    def __init__(self):
        super().__init__()
        self.lines = asyncio.Queue()

    def emit(self, record):
        self.lines.put_nowait(record.getMessage())

    async def until(self, *starts):
        """The lines up to one that begins as told."""
        seen = []
        async with asyncio.timeout(30):
            while not seen or not seen[-1].startswith(starts):
                seen.append(await self.lines.get())
        return seen


@pytest.fixture
def log():
    handler, logger = Log(), logging.getLogger("triage.rulebook")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    yield handler
    logger.setLevel(level)
    logger.removeHandler(handler)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "a.yaml").write_text(good())
    return folder


async def opened(rules, store, *, clock=None, receivers=("default",), read=read_rule_set):
    return await RuleBook.open(rules, receivers=receivers, store=store, clock=clock or SystemClock(), read=read)


@dataclass
class Life:
    book: RuleBook
    reload: asyncio.Event


@asynccontextmanager
async def living(book):
    """The book at work, as in the daemon."""
    stop, reload = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(book.run(stop, reload))
    try:
        yield Life(book, reload)
    finally:
        stop.set()
        await task


# ---------------------------------------------------------------- under load


class Load:
    """Envelopes without end, decided by whatever is in force."""

    def __init__(self, store, rules):
        self.clock = SystemClock()
        self.source = FakeSource(clock=self.clock)
        self.committed = asyncio.Event()
        self.sent = 0
        self.consumer = Consumer(
            [Intake(self.source, receivers=2)],
            store=store,
            rules=rules,
            clock=self.clock,
            committed=self.note_commit,
        )

    async def __aenter__(self):
        self.stop = asyncio.Event()
        self.consuming = asyncio.create_task(self.consumer.run(self.stop))
        self.sending = asyncio.create_task(self.send())
        return self

    async def __aexit__(self, *_):
        self.stop.set()
        await self.sending
        await self.consuming

    async def send(self):
        while not self.stop.is_set():
            self.source.put(*(make.body(f"load-{self.sent + number}") for number in range(20)))
            self.sent += 20
            await self.commit()

    def note_commit(self):
        self.committed.set()

    async def commit(self):
        """Wait until something was committed."""
        self.committed = asyncio.Event() if self.committed.is_set() else self.committed
        await self.committed.wait()

    async def decision(self, store, name):
        """How an envelope that comes now is decided."""
        self.source.put(make.body(name, error="Function timed out after 3 seconds"))
        while not (found := await store.failure(name)):
            await self.commit()
        return found.decision["rule_set"], found.row.rule_id


WRONG = {
    "yaml": (
        "20-timeouts.yaml",
        ("group_by: [function, condition]", "group_by: [function, condition"),
        "",
    ),
    "key": (
        "20-timeouts.yaml",
        ('    match:\n      error: {message: "timed', '    mach:\n      error: {message: "timed'),
        "unknown key 'mach' (did you mean 'match'?)",
    ),
    "duration": (
        "10-platform.yaml",
        ("      after: 2m", "      after: 2 fortnights"),
        "",
    ),
    "expression": (
        "90-everything-else.yaml",
        ("  - id: everything-else", "  - id: everything-else\n    when: lineage.atempt < 3"),
        "atempt",
    ),
    "receiver": (
        "90-everything-else.yaml",
        ("to: default", "to: nobody"),
        "no receiver 'nobody' is configured [R016 unknown-receiver]",
    ),
    "id": (
        "30-memory.yaml",
        ("id: out-of-memory-error", "id: timed-out"),
        "a second rule 'timed-out' (the first is in 20-timeouts.yaml:",
    ),
    "case": (
        "20-timeouts.yaml",
        ("id: timed-out", "id: slow"),
        "the case 'a time-out is told at once, in the words of the platform' fails: rule is slow, expected timed-out",
    ),
}  # fmt: skip
RENAMED_IN_THE_CASE = ("rule: timed-out", "rule: slow")
"""Ways to get a shipped rule wrong: the file, what is written instead of what, and what is said of it."""


def test_wrong_edits_under_load_change_nothing_and_a_good_one_goes_live(tmp_path, log):
    folder = tmp_path / "rules"
    shutil.copytree(default_rules_dir(), folder)
    shipped = {file.name: file.read_text() for file in folder.glob("*.yaml")}

    async def main():
        store = await SqliteStore.open(tmp_path / "triage.db")
        book = await opened(folder, store)
        before = book.current()
        async with living(book), Load(store, book.current) as load:
            assert await load.decision(store, "before") == (before.digest, "timed-out")
            for name, (file, (right, wrong), said) in WRONG.items():
                assert shipped[file].count(right) >= 1
                (folder / file).write_text(shipped[file].replace(right, wrong, 1))
                told = folder / ("20-timeouts.test.yaml" if name == "case" else file)
                message = (await log.until(f"{told}:"))[-1]
                line = int(message.removeprefix(f"{told}:").partition(":")[0])
                written = told.read_text().splitlines()
                excerpt, caret = await log.lines.get(), await log.lines.get()
                assert said in message, name
                assert excerpt.strip() == written[line - 1].strip(), name
                assert caret.strip() == "^", name
                assert await load.decision(store, f"during-{name}") == (before.digest, "timed-out")
                assert book.current() is before
                state = await store.rules_state()
                assert state.digest == before.digest
                assert str(state.problems[0]).splitlines()[0] == message
                (folder / file).write_text(shipped[file])
                await log.until("rules read again")
                assert (await store.rules_state()).problems == ()
            renamed = {"20-timeouts.yaml": ("id: timed-out", "id: slow"), "20-timeouts.test.yaml": RENAMED_IN_THE_CASE}
            for file, (old, new) in renamed.items():
                (folder / file).write_text(shipped[file].replace(old, new))
            assert (await log.until("rules in force"))[-1].endswith(f"before: {before.digest[:12]}")
            assert await load.decision(store, "after") == (book.current().digest, "slow")
        await store.close()
        return before.digest, book.current().digest, load.sent

    before, after, sent = asyncio.run(main())
    with sqlite3.connect(tmp_path / "triage.db") as db:
        spans = db.execute(
            "SELECT rule_set, min(id), max(id), count(*) FROM decisions GROUP BY 1 ORDER BY 2"
        ).fetchall()
        alerts = db.execute("SELECT count(*), count(DISTINCT group_key) FROM alerts WHERE cause = 'rules_refused'")
        kept = {digest for (digest,) in db.execute("SELECT digest FROM rule_sets")}
        assert alerts.fetchone() == (len(WRONG), 1)
    db.close()
    (first, _, last_before, by_first), (second, first_after, _, by_second) = spans
    assert (first, second) == (before, after)
    assert last_before < first_after, "the set changed once, between two decisions"
    assert by_first + by_second == sent + len(WRONG) + 2
    assert kept == {before, after}


# ---------------------------------------------------------------- one reload


def test_what_is_saved_halfway_or_not_at_all_is_told_and_mended_by_the_next_save(folder, log):
    async def main():
        store = MemoryStore()
        async with living(await opened(folder, store)) as life:
            first = life.book.current()
            (folder / "a.yaml").write_text("")
            await log.until(f"{folder}/a.yaml")
            shutil.rmtree(folder)
            assert (await log.until(f"{folder}"))[-1].startswith(f"{folder}: no such file or folder")
            folder.mkdir()
            (folder / "b.yaml").write_text(good("second"))
            await log.until("rules in force")
            assert life.book.current() is not first
            assert [rule.id for rule in life.book.current().rules] == ["second"]
        assert len(store.tables.alerts) == 2

    asyncio.run(main())


def test_a_swapped_config_map_goes_live_as_a_whole(tmp_path, log):
    def publish(version, *ids):
        (tmp_path / f"..{version}").mkdir()
        for name, rule_id in zip(("a.yaml", "b.yaml"), ids, strict=True):
            (tmp_path / f"..{version}" / name).write_text(good(rule_id))
        (tmp_path / "..data_tmp").symlink_to(f"..{version}")
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")

    async def main():
        publish(1, "x", "y")
        for name in ("a.yaml", "b.yaml"):
            (tmp_path / name).symlink_to(f"..data/{name}")
        async with living(await opened(tmp_path, MemoryStore())) as life:
            publish(2, "y", "x")  # each file alone would clash with the other one of before
            assert [line for line in await log.until("rules in force") if "cannot be used" in line] == []
            assert [rule.id for rule in life.book.current().rules] == ["y", "x"]

    asyncio.run(main())


def test_asked_to_reload_it_reads_even_when_nothing_has_changed(folder, log):
    async def main():
        async with living(await opened(folder, MemoryStore())) as life:
            first = life.book.current()
            life.reload.set()
            await log.until(f"rules read again: nothing new, {first.digest[:12]}")
            assert life.book.current() is first

    asyncio.run(main())


def test_the_same_mistake_is_logged_each_time_and_told_once(folder, log):
    async def main():
        store = MemoryStore()
        book = await opened(folder, store)
        (folder / "a.yaml").write_text("version: 2\n")
        for _ in range(3):
            assert not await book.reload()
            await log.until(f"{folder}/a.yaml:1:")
        assert len(store.tables.alerts) == 1

    asyncio.run(main())


def test_what_is_wrong_reaches_the_default_receiver_in_one_message(folder, log):
    told = []
    notifier = AppriseNotifier.load({"default": ReceiverConfig(("console:",))}, write=told.append)

    async def main():
        store, clock = MemoryStore(), ManualClock(make.NOW)
        book = await opened(folder, store, clock=clock)
        for version in (2, 3):
            (folder / "a.yaml").write_text(f"version: {version}\nrules: []\n")
            assert not await book.reload()
        functions = FakeFunctions(clock, FakeSource(clock=clock))
        outbox, stop = Outbox(store=store, invoker=functions, notifier=notifier, clock=clock), asyncio.Event()
        running = asyncio.create_task(outbox.run(stop))
        await clock.advance(ALERT.group_wait)
        stop.set()
        await running
        (text,) = told
        assert text.startswith(f"rule files cannot be used × 2: {folder}/a.yaml:1:10: expected 1, not the number 3")

    asyncio.run(main())


def test_of_very_many_problems_the_first_ones_are_logged(folder, log):
    async def main():
        book = await opened(folder, MemoryStore())
        rules = "".join(f"  - {{id: r{number}, ignroe: x}}\n" for number in range(300))
        (folder / "a.yaml").write_text(f"version: 1\nrules:\n{rules}")
        assert not await book.reload()
        assert len(await log.until("and 8")) < 100

    asyncio.run(main())


def test_a_defect_of_the_loader_leaves_the_rules_in_force(folder, log):
    reads = [load_rules([SourceText("a.yaml", good())]), RecursionError("too deep")]

    def read(*_, **__):
        found = reads.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def main():
        store = MemoryStore()
        book = await opened(folder, store, read=read)
        first = book.current()
        assert not await book.reload()
        assert book.current() is first
        (problem,) = (await store.rules_state()).problems
        assert "RecursionError: too deep" in problem.message

    asyncio.run(main())


def test_a_set_that_cannot_be_kept_does_not_come_into_force_before_it_can(folder, log):
    """Or a decision's digest would lead nowhere."""

    async def main():
        store, clock = MemoryStore(), ManualClock(make.NOW)
        async with living(await opened(folder, store, clock=clock)) as life:
            first = life.book.current()
            (folder / "a.yaml").write_text(good("second"))
            store.unavailable = "the disk is full"
            life.reload.set()
            await log.until("the rules stay as they are while the store fails: the disk is full")
            assert life.book.current() is first
            store.unavailable = ""
            await clock.asleep()
            while life.book.current() is first:  # the watcher sleeps by this clock, too
                await clock.advance(clock.timers[0] - clock.now() if clock.timers else make.RERUN.after)
            assert await store.rule_set() == (life.book.current().digest, life.book.current().sources)

    asyncio.run(main())


def test_the_loop_turns_while_hundreds_of_rules_are_loaded(folder):
    rules = "".join(
        f"  - id: r{number}\n    match: {{function: 'img-{number}-*'}}\n"
        f"    when: lineage.attempt < {number}\n    alert: {{}}\n"
        for number in range(500)
    )

    async def main():
        book = await opened(folder, MemoryStore())
        (folder / "a.yaml").write_text(f"version: 1\nrules:\n{rules}")
        loading = asyncio.create_task(book.reload())
        turns = 0
        while not loading.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert loading.result()
        assert len(book.current().rules) == 500
        assert turns > 10

    asyncio.run(main())


# ---------------------------------------------------------------- start


def break_file(folder):
    (folder / "a.yaml").write_text(good().replace("match", "mach"))


def remove_folder(folder):
    shutil.rmtree(folder)


def empty_folder(folder):
    (folder / "a.yaml").unlink()


@pytest.mark.parametrize("damage", [break_file, remove_folder, empty_folder], ids=lambda damage: damage.__name__)
def test_a_restart_with_bad_rules_uses_the_last_good_set_and_says_so_once(folder, log, damage):
    async def main():
        store = await SqliteStore.open(folder.parent / "triage.db")
        before = (await opened(folder, store)).current()
        damage(folder)
        for _ in range(2):
            book = await opened(folder, store)
            assert (await log.until("the rule files cannot be used"))[-1].endswith("1 rule, stays in force")
            assert (await log.until(str(folder)))[-1]
            assert book.current().digest == before.digest
            assert [rule.id for rule in book.current().rules] == ["first"]
        state = await store.rules_state()
        assert state.digest == before.digest
        assert state.problems
        folder.mkdir(exist_ok=True)
        (folder / "a.yaml").write_text(good("mended"))
        assert await book.reload()
        assert (await store.rules_state()).problems == ()
        await store.close()

    asyncio.run(main())
    with sqlite3.connect(folder.parent / "triage.db") as db:
        assert db.execute("SELECT count(*) FROM alerts WHERE cause = 'rules_refused'").fetchone() == (1,)
    db.close()


@pytest.mark.parametrize(
    ("damage", "error"), [(break_file, RulesInvalid), (remove_folder, ConfigInvalid)], ids=["broken", "missing"]
)
def test_without_a_last_good_set_bad_rules_are_a_reason_not_to_start(folder, damage, error):
    damage(folder)
    with pytest.raises(error, match="unknown key 'mach'" if error is RulesInvalid else "no such file or folder"):
        asyncio.run(opened(folder, MemoryStore()))


def test_a_last_good_set_that_names_a_lost_receiver_is_no_way_out(folder):
    """Its alerts would reach nobody."""

    async def main():
        store = MemoryStore()
        (folder / "a.yaml").write_text(good(to="oncall"))
        digest = (await opened(folder, store, receivers=("default", "oncall"))).current().digest
        break_file(folder)
        with pytest.raises(RulesInvalid) as caught:
            await opened(folder, store)
        return digest, [str(problem).splitlines()[0] for problem in caught.value.problems]

    digest, told = asyncio.run(main())
    assert told[0].startswith(f"{Path(folder)}/a.yaml:4:5: unknown key 'mach'")
    assert told[-2].startswith(f"the last good set {digest[:12]}: cannot be used in their place: mend the files")
    assert told[-1].startswith(f"the last good set {digest[:12]}: a.yaml:5:17: no receiver 'oncall'")
