"""What every store promises about silences: nobody is told, everything is counted, and nothing is silent for ever."""

import asyncio
import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import STORES
from test_store import HOUR, INTERVAL, MINUTE, NOW, SECOND, WAIT, arrive, commit_of, ingest, success

from triage.alerts.delivery import Answer, Result, Retries, notified
from triage.alerts.grouping import flush
from triage.alerts.silences import SETTLED, end_now, look, row_key
from triage.alerts.storm import storm_look
from triage.changes import Changes, RowKind, Settle
from triage.reactions import unanswered
from triage.reruns.lineage import Link
from triage.rules.course import ONE_BY_ONE
from triage.rules.model import AlertPolicy, HoldPolicy, Place, RerunPolicy, Rule, RuleSet
from triage.silence import Silence
from triage.states import State

PLACE = Place("r.yaml", 1)


def telling(*receivers, group_by=("function",), labels=None, course=ONE_BY_ONE):
    policy = AlertPolicy(to=receivers, group_by=group_by, group_wait=WAIT, group_interval=INTERVAL, course=course)
    return RuleSet((Rule("tell", PLACE, alert=policy, owner="media", labels=labels or {}),), "rs-told")


TELL = telling("default")
BOTH = telling("first", "second")


def silence(*, length=HOUR, at=NOW, quiet_for=None, to=(), **match):
    return Silence(0, match or {"function": "*"}, "ana", "a deploy", at, at + length, quiet_for, to)


async def add(store, new, *, warn_before=15 * MINUTE):
    return await store.add_silence(new, warn_before=warn_before)


async def work(store, *, until, now=NOW, result=Result.SENT, storm=0):
    """Act on every row as it becomes due; returns what receivers got, as (receiver, title, body)."""
    got = []
    while (due := await store.next_due()) is not None and due <= until:
        now = max(now, due)
        for row in await store.claim_due(now=now, lease=MINUTE, limit=100):
            if row.kind is RowKind.NOTIFY:
                got.append((row.payload["receiver"], row.payload["title"], row.payload["body"]))
            assert await store.settle(row, reaction(row, now, result, storm), now=now)
    return got


def reaction(row, now, result, storm=0):
    match row.kind:
        case RowKind.FLUSH:
            return lambda facts: flush(facts, now=now, storm=storm)
        case RowKind.STORM:
            return lambda facts: storm_look(row, facts, now=now)
        case RowKind.SILENCE:
            return lambda facts: look(row, facts, now=now)
        case RowKind.NOTIFY:
            return lambda _facts: notified(row, {"0": Answer(result)}, retries=Retries(), now=now)
        case RowKind.HOLD:
            return lambda facts: unanswered(row, facts)
    return lambda _facts: Settle.done()


async def states(store):
    totals = await store.totals()
    assert sum(totals.states.values()) == totals.failures
    return totals.states


def counted(body):
    return int(re.search(r"^Count: ([\d,]+)", body, re.MULTILINE)[1].replace(",", ""))


def test_nobody_is_told_of_what_a_silence_matches_until_its_end_tells_everything(run):
    async def scenario(store):
        made = await add(store, silence(function="jo*"))
        assert made.id == 1
        await ingest(store, arrive("r-1"), arrive("r-2"), arrive("r-3", function="other"), rules=TELL)
        got = await work(store, until=NOW + MINUTE)
        assert [title.partition(" #")[0] for _, title, _ in got] == ["other failed: Oops"]
        assert await states(store) == {"silenced": 2, "alerted": 1}
        view = await store.silence(1)
        assert [(each.receiver, each.count, each.group.labels["function"]) for each in view.groups] == [
            ("default", 2, "job")
        ]
        warning, catch_up = await work(store, until=NOW + HOUR, now=NOW + MINUTE)
        assert "silence 1 ends at 2026-07-04 13:00:00 UTC: 2 alerts of 1 group not told so far" in warning[1]
        assert "silence 1 is over: 2 alerts of 1 group not told" in catch_up[1]
        assert counted(catch_up[2]) == 2
        assert "2 × job: Oops" in catch_up[2]
        assert await states(store) == {"silenced": 2, "alerted": 1}
        assert [view.silence.ended for view in await store.silences(ended=True)] == ["expired"]
        assert await store.silences() == []
        await ingest(store, arrive("r-4"), rules=TELL, now=NOW + HOUR)
        assert len(await work(store, until=NOW + HOUR + INTERVAL, now=NOW + HOUR)) == 1

    run(scenario)


def test_a_silence_that_kept_nothing_quiet_says_nothing(run):
    async def scenario(store):
        await add(store, silence(function="other", to=("boss",)))
        await ingest(store, arrive("r-1"), rules=TELL)
        assert len(await work(store, until=NOW + 2 * HOUR)) == 1
        assert await store.next_due() is None

    run(scenario)


def test_a_silence_asked_for_while_alerts_wait_acts_at_their_flush(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), rules=TELL)
        await add(store, silence(at=NOW + SECOND))
        assert await work(store, until=NOW + MINUTE) == []
        assert await states(store) == {"silenced": 1}

    run(scenario)


def test_one_of_two_receivers_is_told(run):
    async def scenario(store):
        await add(store, silence(receiver="first"))
        await ingest(store, arrive("r-1"), rules=BOTH)
        got = await work(store, until=NOW + MINUTE)
        assert [receiver for receiver, _, _ in got] == ["second"]
        assert await states(store) == {"alerted": 1}
        later = await work(store, until=NOW + HOUR, now=NOW + MINUTE)
        assert [receiver for receiver, _, _ in later] == ["first", "first"]

    run(scenario)


def test_of_one_group_only_the_kinds_that_match_are_silenced(run):
    async def scenario(store):
        rules = telling("default", group_by=("rule",), labels={"team": "media"})
        await add(store, silence(function="quiet"))
        loud = [arrive(f"l-{n}", function="loud") for n in range(7)]
        quiet = [arrive(f"q-{n}", function="quiet") for n in range(3)]
        await ingest(store, *loud, *quiet, rules=rules)
        ((_, title, body),) = await work(store, until=NOW + MINUTE)
        assert "loud failed: Oops × 7" in title
        assert counted(body) == 7
        assert "l-6" in body
        assert "q-" not in body
        assert await states(store) == {"silenced": 3, "alerted": 7}
        await ingest(store, arrive("l-8", function="loud"), rules=rules, now=NOW + INTERVAL)
        ((_, _, body),) = await work(store, until=NOW + 2 * INTERVAL, now=NOW + INTERVAL)
        assert "In all: 11 = 8 alerted + 3 silenced" in body
        await add(store, silence(at=NOW + 2 * INTERVAL, **{"labels.team": "media"}))
        await ingest(store, arrive("l-9", function="loud"), rules=rules, now=NOW + 2 * INTERVAL)
        assert await work(store, until=NOW + 3 * INTERVAL, now=NOW + 2 * INTERVAL) == []

    run(scenario)


def test_of_two_silences_the_one_that_ends_last_counts(run):
    async def scenario(store):
        await add(store, silence(length=HOUR))
        await add(store, silence(length=3 * HOUR))
        await ingest(store, arrive("r-1"), rules=TELL)
        await work(store, until=NOW + 2 * HOUR)
        assert [len(view.groups) for view in await store.silences(ended=True)] == [1, 0]

    run(scenario)


def test_a_person_ends_a_silence_and_is_remembered(run):
    async def scenario(store):
        await add(store, silence(to=("boss",)))
        await ingest(store, arrive("r-1"), rules=TELL)
        await work(store, until=NOW + MINUTE)

        def over(_row, facts):
            return end_now(facts, by="ben", reason="deployed", now=NOW + 2 * MINUTE)

        assert await store.settle_now(row_key(1), over, now=NOW + 2 * MINUTE)
        assert not await store.settle_now(row_key(1), over, now=NOW + 2 * MINUTE)
        got = await work(store, until=NOW + 2 * HOUR, now=NOW + 2 * MINUTE)
        assert [(receiver, counted(body)) for receiver, _, body in got] == [("default", 1), ("boss", 1)]
        assert "ended by ben: deployed" in got[0][2]

    run(scenario)


def test_a_late_flush_does_not_silence_for_a_silence_that_has_ended(run):
    async def scenario(store):
        await add(store, silence())
        await ingest(store, arrive("r-1"), rules=TELL, now=NOW + HOUR - MINUTE)
        claimed = await store.claim_due(now=NOW + HOUR, lease=HOUR, limit=9)
        by_kind = {each.kind: each for each in claimed}
        before = NOW + HOUR - SECOND  # the flush was claimed before the silence ended, and settles after
        assert await store.settle(
            by_kind[RowKind.SILENCE],
            lambda facts: look(by_kind[RowKind.SILENCE], facts, now=NOW + HOUR),
            now=NOW + HOUR,
        )
        assert await store.settle(by_kind[RowKind.FLUSH], lambda facts: flush(facts, now=before), now=NOW + HOUR)
        assert len(await work(store, until=NOW + HOUR, now=NOW + HOUR)) == 1

    run(scenario)


def test_a_daemon_that_was_away_at_the_end_tells_when_it_is_back(run):
    async def scenario(store):
        await add(store, silence())
        await ingest(store, arrive("r-1"), rules=TELL)
        await work(store, until=NOW + MINUTE)
        await ingest(store, arrive("r-2"), rules=TELL, now=NOW + 2 * HOUR)
        got = await work(store, until=NOW + 3 * HOUR, now=NOW + 2 * HOUR)
        assert sorted(counted(body) for _, _, body in got) == [1, 1]
        assert sum("is over" in title for _, title, _ in got) == 1
        assert await states(store) == {"silenced": 1, "alerted": 1}

    run(scenario)


def test_a_silenced_failure_heals_and_the_end_says_so(run):
    async def scenario(store):
        await add(store, silence(quiet_for=HOUR, length=24 * HOUR))
        await ingest(store, arrive("r-1"), arrive("r-2"), rules=TELL)
        await work(store, until=NOW + MINUTE)
        await link(store, "again-1", "r-1")
        await ingest(store, success("again-1"), rules=TELL, now=NOW + 2 * MINUTE)
        assert await states(store) == {"silenced": 1, "healed": 1}
        assert await work(store, until=NOW + 3 * SETTLED, now=NOW + 2 * MINUTE) == []
        await link(store, "again-2", "r-2")
        await ingest(store, success("again-2"), rules=TELL, now=NOW + 3 * SETTLED)
        ((_, title, body),) = await work(store, until=NOW + 5 * SETTLED, now=NOW + 3 * SETTLED)
        assert "is over" in title
        assert "resolved: all that it kept quiet has healed" in body
        assert "Count: 2 not told; 2 of them have healed since" in body

    run(scenario)


async def link(store, request_id, root):
    """As a re-run by hand would: its result belongs to the failure."""
    carrier = success(f"carrier-{request_id}")
    await store.commit(commit_of(carrier, Changes(links=(Link(request_id, root, 1),))))


def test_until_resolved_lasts_while_it_fails_and_ends_when_it_does_not(run):
    async def scenario(store):
        await add(store, silence(quiet_for=HOUR, length=24 * HOUR), warn_before=0 * MINUTE)
        for hour in range(3):
            await ingest(store, arrive(f"r-{hour}"), rules=TELL, now=NOW + hour * 0.9 * HOUR)
            assert await work(store, until=NOW + (hour + 1) * 0.9 * HOUR, now=NOW + hour * 0.9 * HOUR) == []
        ((_, title, body),) = await work(store, until=NOW + 4 * HOUR, now=NOW + 2.7 * HOUR)
        assert "3 alerts" in title
        assert "nothing that it matches has failed any more" in body

    run(scenario)


def test_a_held_failure_is_silenced_only_when_nobody_decided(run):
    async def scenario(store):
        policy = AlertPolicy(to=("default",), group_wait=WAIT)
        rules = RuleSet((Rule("ask", PLACE, hold=HoldPolicy("look", 2 * HOUR), alert=policy),), "rs-held")
        await add(store, silence(length=3 * HOUR))
        await ingest(store, arrive("r-1"), rules=rules)
        assert await work(store, until=NOW + HOUR) == []
        assert await states(store) == {"held": 1}
        await work(store, until=NOW + 2.5 * HOUR, now=NOW + HOUR)
        assert await states(store) == {"silenced": 1}
        *_, (_, _, body) = await work(store, until=NOW + 3 * HOUR, now=NOW + 2.5 * HOUR)
        assert counted(body) == 2  # that it waits, and that nobody decided

    run(scenario)


def test_a_failure_that_somebody_else_is_told_of_counts_as_told(run):
    async def scenario(store):
        told = AlertPolicy(to=("default",), group_wait=WAIT)
        rules = RuleSet(
            (
                Rule("one", PLACE, alert=replace(told, to=("first",)), continues=True),
                Rule("two", PLACE, alert=replace(told, to=("second",), group_wait=2 * WAIT)),
            ),
            "rs-two",
        )
        await add(store, silence(rule="one"))
        await ingest(store, arrive("r-1"), rules=rules)
        await work(store, until=NOW + WAIT)
        assert await states(store) == {"silenced": 1}
        await work(store, until=NOW + 3 * WAIT, now=NOW + WAIT)
        assert await states(store) == {"alerted": 1}

    run(scenario)


def test_a_silenced_failure_that_fails_again_is_told_after_the_end(run):
    async def scenario(store):
        await add(store, silence())
        await ingest(store, arrive("r-1"), rules=TELL)
        await work(store, until=NOW + MINUTE)
        await link(store, "again", "r-1")
        await ingest(store, arrive("again"), rules=TELL, now=NOW + 2 * HOUR)
        assert await states(store) == {"alerting": 2}
        await work(store, until=NOW + 3 * HOUR, now=NOW + 2 * HOUR)
        assert await states(store) == {"alerted": 2}

    run(scenario)


# --- the law ----------------------------------------------------------------------------------------------------------

FUNCTIONS = ("img", "pay", "log")
steps = st.one_of(
    st.tuples(st.just("fail"), st.sampled_from(FUNCTIONS), st.integers(1, 3)),
    st.tuples(st.just("wait"), st.integers(0, 40)),
    st.tuples(
        st.just("silence"),
        st.sampled_from([{"function": "img"}, {"function": "*"}, {"receiver": "first"}, {"function": ["pay", "log"]}]),
        st.integers(1, 60),
        st.sampled_from([None, 20]),
    ),
    st.tuples(st.just("end"), st.integers(1, 4)),
    st.tuples(st.just("heal"), st.integers(0, 20)),
)


class World:
    """One store that things happen to, and what receivers got."""

    def __init__(self, store, rules):
        self.store, self.rules, self.now = store, rules, NOW
        self.failed, self.healed, self.got, self.silences = [], 0, [], 0

    async def step(self, kind, *given):
        await getattr(self, kind)(*given)
        await states(self.store)

    async def fail(self, function, number):
        ids = [f"r-{len(self.failed) + n}" for n in range(number)]
        self.failed += ids
        await ingest(self.store, *(arrive(each, function=function) for each in ids), rules=self.rules, now=self.now)

    async def wait(self, minutes):
        until = self.now + minutes * MINUTE
        self.got += await work(self.store, until=until, now=self.now)
        self.now = until

    async def silence(self, match, minutes, quiet_for):
        quiet = quiet_for and quiet_for * MINUTE
        await add(self.store, silence(at=self.now, length=minutes * MINUTE, quiet_for=quiet, **match))
        self.silences += 1

    async def end(self, number):
        await self.store.settle_now(
            row_key(number), lambda _row, facts: end_now(facts, by="ben", reason="enough", now=self.now), now=self.now
        )

    async def heal(self, number):
        if number < len(self.failed):
            self.healed += 1
            await link(self.store, f"again-{self.healed}", self.failed[number])
            await ingest(self.store, success(f"again-{self.healed}"), rules=self.rules, now=self.now)


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("group_by", [("function",), ("rule",)], ids=["by function", "by rule"])
def test_every_alert_is_told_to_every_receiver_once_by_its_group_or_by_the_end_of_a_silence(
    kind, group_by, tmp_path_factory
):
    examples = {"sqlite": 15, "memory": 100}[kind]

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(steps, max_size=20))
    def check(several):
        asyncio.run(live(several))

    async def live(several):
        async with STORES[kind](tmp_path_factory.mktemp("law")) as store:
            world = World(store, telling("first", "second", group_by=group_by))
            for step in several:
                await world.step(*step)
            await world.wait(24 * 60)
            told = Counter()
            for receiver, title, body in world.got:
                if " ends at " not in title:
                    told[receiver] += counted(body)
            assert told == Counter(dict.fromkeys(("first", "second"), len(world.failed)))
            assert set(await states(store)) <= {State.ALERTED, State.SILENCED, State.HEALED}
            views = await store.silences(ended=True)
            assert len(views) == world.silences
            assert all(view.silence.ended for view in views)

    check()


def test_a_rerun_that_fails_for_good_is_silenced_too(run):
    async def scenario(store):
        rule = Rule("again", PLACE, rerun=RerunPolicy(max_attempts=1, give_up_after=6 * HOUR), alert=AlertPolicy())
        rules = RuleSet((rule,), "rs-again")
        await add(store, silence(rule="again"))
        await ingest(store, arrive("r-1"), rules=rules)
        await link(store, "child", "r-1")
        await ingest(store, arrive("child"), rules=rules)
        await work(store, until=NOW + MINUTE)
        assert await states(store) == {"silenced": 2}

    run(scenario)


def test_alerts_of_rules_are_counted_with_those_that_nobody_was_told_of(run):
    async def scenario(store):
        await add(store, silence(function="img"))
        await ingest(store, arrive("r-1", function="img"), arrive("r-2", function="pay"), rules=TELL)
        assert [(hits.alerts, hits.silenced) for hits in await store.rule_hits()] == [(0, 0)], "nothing is told yet"
        await work(store, until=NOW + 2 * WAIT)
        await ingest(store, arrive("r-3", function="img"), rules=TELL, now=NOW + 2 * WAIT)
        assert [(hits.alerts, hits.silenced) for hits in await store.rule_hits()] == [(2, 1)]
        assert [(hits.alerts, hits.silenced) for hits in await store.rule_hits(since=NOW + WAIT)] == [(0, 0)]

    run(scenario)
