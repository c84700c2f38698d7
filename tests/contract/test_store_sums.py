"""Whatever comes in whatever order, how often, whenever it is looked at, by however many processes, on whatever clock: the
same sums, in each message, for each group and in all; and nothing that is no news before its time. On every store.
"""

import asyncio
import re
from collections import Counter
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_store import HOUR, INTERVAL, MINUTE, NOW, WAIT, arrive, ingest
from test_store_silences import PLACE, add, reaction, silence, success
from world import SHELVES

from triage.alerts.delivery import Result
from triage.changes import RowKind
from triage.orders import Limits, Order, Ordered
from triage.reactions import submitted
from triage.reruns.lineage import Origin
from triage.rules.course import Course
from triage.rules.model import AlertPolicy, HoldPolicy, Matcher, Rule, RuleSet
from triage.states import ACCOUNTED, State
from triage.stores.selfcheck import check

TWO = ("first", "second")
REPEAT = HOUR
POLICY = AlertPolicy(
    to=TWO,
    group_by=("function", "fingerprint"),
    group_wait=WAIT,
    group_interval=INTERVAL,
    course=Course(repeat_interval=REPEAT, quiet_for=3 * HOUR),
)


def only(function):
    return (Matcher("fn", f"fn: {function}", lambda subject: subject["fn"] == function),)


RULES = RuleSet(
    (
        Rule("known", PLACE, match=only("known"), ignore="it is known to fail"),
        Rule("ask", PLACE, match=only("ask"), hold=HoldPolicy("was it paid?", 2 * HOUR)),
        Rule("tell", PLACE, alert=POLICY),
    ),
    "rs-sums",
)
FUNCTIONS = ("img", "pay", "known", "ask")
FAILURE = st.tuples(st.sampled_from(FUNCTIONS), st.sampled_from(["boom", "bang"]))
STEPS = st.one_of(
    st.tuples(st.just("fail"), st.lists(FAILURE, min_size=1, max_size=4)),
    st.tuples(st.just("redeliver"), st.lists(st.integers(0, 30), min_size=1, max_size=5)),
    st.tuples(st.just("heal"), st.integers(0, 30)),
    st.tuples(st.just("silence"), st.sampled_from(["img", "*"]), st.sampled_from(["*", "first"]), st.integers(1, 60)),
    st.tuples(st.just("wait"), st.integers(0, 90)),
    st.tuples(st.just("look")),
    st.tuples(st.just("die"), st.sampled_from(["claimed", "sent"])),
    st.tuples(st.just("set_clock"), st.sampled_from([-45, -10, 300])),
)


class World:
    """A store that outlives its processes, what happens to it, and what receivers get."""

    def __init__(self, shelf, *, storm):
        self.shelf, self.storm, self.now, self.latest, self.passed = shelf, storm, NOW, NOW, timedelta(0)
        self.failed: list[tuple[str, object]] = []
        self.told: dict[tuple[str, str], dict] = {}
        self.repeated = Counter()
        self.last_told: dict[tuple[str, str], timedelta] = {}

    async def live(self, steps):
        async with AsyncExitStack() as self.process:
            await self.begin()
            for what, *given in steps:
                await getattr(self, what)(*given)
                self.latest = max(self.latest, self.now)
                await self.agree()
            await self.wait(72 * 60)
            await self.agree()

    async def begin(self):
        self.store = await self.process.enter_async_context(self.shelf.opened())
        await self.store.save_rule_set(RULES.digest, (), now=self.now)

    async def fail(self, failures):
        arrivals = [
            arrive(f"r-{len(self.failed) + number}", function=function, error=error)
            for number, (function, error) in enumerate(failures)
        ]
        self.failed += zip((function for function, _ in failures), arrivals, strict=True)
        await ingest(self.store, *arrivals, rules=RULES, now=self.now)

    async def redeliver(self, numbers):
        again = [self.failed[number][1] for number in numbers if number < len(self.failed)]
        await ingest(self.store, *again, rules=RULES, now=self.now)

    async def heal(self, number):
        """A person runs it again, with success."""
        if number >= len(self.failed) or self.failed[number][0] == "ask":
            return
        order = Order(Origin.MANUAL, "ana", "it is mended", self.now)
        (answer,) = await self.store.order([f"r-{number}"], order, limits=Limits(), now=self.now)
        if isinstance(answer, Ordered):
            (row,) = answer.changes.rows
            name = f"again-{row.key}"
            submit = partial(submitted, request_id=name, now=self.now)
            assert await self.store.settle_now(row.key, submit, now=self.now)
            await ingest(self.store, success(name), rules=RULES, now=self.now)

    async def silence(self, function, receiver, minutes):
        wanted = {"function": function} | ({} if receiver == "*" else {"receiver": receiver})
        await add(self.store, silence(at=self.now, length=minutes * MINUTE, **wanted), warn_before=timedelta(0))

    async def wait(self, minutes):
        until = self.now + minutes * MINUTE
        while (due := await self.store.next_due()) is not None and due <= until:
            self.pass_to(max(self.now, due))
            await self.act()
        self.pass_to(until)

    def pass_to(self, at):
        self.passed += at - self.now
        self.now = at

    async def look(self):
        """Every group is looked at now, however early that is."""
        for (key,) in self.rows("SELECT key FROM outbox WHERE kind = 'flush' AND settled_at IS NULL ORDER BY key"):
            await self.store.settle_now(key, lambda row, facts: self.answer(row)(facts), now=self.now)

    async def die(self, when):
        """A process claims what is due, may tell it, and dies; the next one begins."""
        for row in await self.store.claim_due(now=self.now, lease=MINUTE, limit=100):
            if row.kind is RowKind.NOTIFY and when == "sent":
                self.hear(row)
        await self.process.aclose()
        await self.begin()

    async def set_clock(self, minutes):
        """Forward, as after a suspend, in which time has passed; or back, which undoes none."""
        self.now += minutes * MINUTE
        self.passed += max(minutes, 0) * MINUTE

    async def act(self):
        for row in await self.store.claim_due(now=self.now, lease=MINUTE, limit=100):
            if row.kind is RowKind.NOTIFY:
                self.hear(row)
            assert await self.store.settle(row, self.answer(row), now=self.now)

    def answer(self, row):
        return reaction(row, self.now, Result.SENT, self.storm)

    def hear(self, row):
        """A receiver gets it. The same once more has the same words."""
        key, own = (row.payload["receiver"], row.key), dict(row.payload)
        if key in self.told:
            assert [self.told[key][name] for name in ("code", "title", "body")] == [
                own[name] for name in ("code", "title", "body")
            ]
            self.repeated[key] += 1
            return
        self.told[key] = own
        about = (own["receiver"], row.group)
        if own.get("why") == "repeat" and about in self.last_told:
            assert self.passed - self.last_told[about] >= REPEAT, "no news, and before its time"
        if row.group:
            self.last_told[about] = self.passed
        for total, parts in re.findall(r"^In all: ([\d,]+) = (.+)$", own["body"], re.MULTILINE):
            assert number(total) == sum(number(part) for part in re.findall(r"([\d,]+) [a-z]", parts))

    async def agree(self):
        """The law, in all and for each group; and what ``triage selfcheck`` says."""
        totals = await self.store.totals()
        assert totals.failures == len(self.failed)
        accounts = Counter()
        for state, count in totals.states.items():
            accounts[ACCOUNTED[State(state)]] += count
        assert accounts.total() == totals.failures
        assert accounts["ignored"] == sum(function == "known" for function, _ in self.failed) - self.mended("known")
        with self.shelf.looked_at() as connection:
            broken = {
                each.law.id: each.breaches for each in check(connection, now=self.latest, quick=True) if each.broken
            }
            assert broken == {}
            for key, counted, stored in connection.execute(_GROUPS).fetchall():
                assert counted == stored, key

    def mended(self, function):
        found = self.rows(
            f"SELECT coalesce(sum(failures), 0) FROM lineages WHERE function = '{function}' AND state = 'healed'"
        )
        return found[0][0]

    def rows(self, sql):
        with self.shelf.looked_at() as connection:
            return connection.execute(sql).fetchall()


_GROUPS = """
    SELECT key, told + suppressed + silenced + (SELECT count(*) FROM alerts WHERE group_key = key AND flush IS NULL),
        (SELECT count(*) FROM alerts WHERE group_key = key) FROM alert_groups"""


def number(text):
    return int(text.replace(",", ""))


def first_told(own):
    """How many alerts a message tells that its receiver has not heard of."""
    if "alerts" in own:
        return own["alerts"]
    return number(re.search(r"^Count: ([\d,]+)", own["body"], re.MULTILINE)[1])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("shelf", SHELVES)
@pytest.mark.parametrize("storm", [0, 2], ids=["no storms", "storms"])
def test_whatever_happens_everybody_hears_of_everything_once_and_all_sums_agree(shelf, storm, tmp_path_factory):
    @settings(max_examples={"sqlite": 15, "memory": 60}[shelf], deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(STEPS, min_size=3, max_size=25))
    def law(steps):
        world = World(SHELVES[shelf](tmp_path_factory.mktemp("sums")), storm=storm)
        asyncio.run(world.live(steps))
        told = Counter()
        for (receiver, _), own in world.told.items():
            told[receiver] += first_told(own)
        loud = sum(function in ("img", "pay") for function, _ in world.failed)
        held = sum(function == "ask" for function, _ in world.failed)
        assert told == Counter({"first": loud, "second": loud, "default": held})
        assert max(world.repeated.values(), default=0) <= sum(what == "die" for what, *_ in steps)

    law()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("shelf", SHELVES)
def test_order_repetition_batches_and_looks_change_no_sum(shelf, tmp_path_factory):
    @settings(max_examples={"sqlite": 15, "memory": 40}[shelf], deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data(), st.lists(FAILURE, min_size=1, max_size=12))
    def law(data, failures):
        plain, other = [("fail", failures), ("wait", 30)], []
        for failure in data.draw(st.permutations(failures)):
            other.append(("fail", [failure]))
            other += data.draw(st.lists(_BETWEEN, max_size=2))
        sums = []
        for steps in (plain, other):
            world = World(SHELVES[shelf](tmp_path_factory.mktemp("order")), storm=0)
            asyncio.run(world.live(steps))
            told = Counter()
            for (receiver, _), own in world.told.items():
                told[receiver, own["title"].partition(" failed")[0].rpartition(": ")[2]] += first_told(own)
            sums.append((told, dict(world.rows("SELECT state, sum(failures) FROM lineages GROUP BY state"))))
        assert sums[0] == sums[1]

    law()


_BETWEEN = st.one_of(
    st.tuples(st.just("redeliver"), st.lists(st.integers(0, 12), min_size=1, max_size=3)),
    st.tuples(st.just("look")),
    st.tuples(st.just("wait"), st.integers(0, 10)),
    st.tuples(st.just("die"), st.sampled_from(["claimed", "sent"])),
)
