"""What is old goes in small steps, what is open stays, and all laws go on holding."""

import asyncio
import json
import sqlite3
from contextlib import closing
from datetime import timedelta

import make
import pytest
from past import Past, rule_set

from triage.envelope import RequestId
from triage.errors import OutcomeUnknown, StoreUnavailable, TriageError
from triage.retention import Retention
from triage.states import ACCOUNTED
from triage.stores import FailureFilter
from triage.stores.decisions import recall
from triage.stores.retention import STAGES, Cutoffs, Step
from triage.stores.selfcheck import check, view
from triage.testing import ManualClock

DAY = timedelta(days=1)
RULES = rule_set(
    """
  - id: again
    match: {function: [heals, runs, lost, waits]}
    rerun: {after: 2m, backoff: {jitter: 0}, max_attempts: 2, give_up_after: 6h}
    alert: {group_wait: 5s}
  - {id: known, match: {function: known}, ignore: it is known to fail}
  - {id: ask, match: {function: asks}, hold: {reason: was it paid?, for: 1d}}
  - {id: tell, alert: {group_by: [function], group_wait: 5s, quiet_for: 2m, resolved: false}}
"""
)


def result(function, request_id="", **fields):
    arn = f"acs:fc:cn-hangzhou:1034:functions/{function}"
    return make.body(request_id or f"1-{function}", arn=arn, payload=json.dumps(function), **fields)


def well(request_id):
    return result("fine", request_id, condition="", error=None)


async def filled(path):
    """A store with a failure in every state, and results of tasks that did well."""
    past = await Past.open(path, RULES)
    await past.receive(result("heals"), result("told"), result("known"), result("asks"), b"garbage", well("1-fine"))
    await past.receive(result("known"), result("known", condition="Other"), well("2-fine"))
    await past.pass_time(timedelta(minutes=10))
    past.functions.delay = timedelta(days=300)
    await past.receive(result("runs"))
    await past.pass_time(timedelta(minutes=2, seconds=1))
    past.functions.failures.append(OutcomeUnknown("no_answer"))
    await past.receive(result("lost"))
    await past.pass_time(timedelta(minutes=2, seconds=1))
    await past.receive(result("waits"), result("untold"))
    return past


async def swept(store, now, **ages):
    """Everything that may go by now is gone; how much there was, by stage."""
    cutoffs = Cutoffs(**{name: now - age for name, age in ages.items()})
    removed = {}
    for stage in STAGES:
        after = 0
        while after is not None:
            step = await store.retire(stage, cutoffs, after=after)
            removed[stage] = removed.get(stage, 0) + step.removed
            after = step.after
    return {stage: number for stage, number in removed.items() if number}


def broken(path, now):
    with view(path) as connection:
        return {
            verdict.law.id: [(breach.what, breach.problem) for breach in verdict.breaches]
            for verdict in check(connection, now=now)
            if verdict.broken
        }


def rows(path, sql):
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute(sql)]


def test_only_what_is_over_goes_class_by_class_and_the_sums_add_up(tmp_path):
    path = tmp_path / "triage.db"

    async def story():
        past = await filled(path)
        store, now = past.store, past.clock.now()
        before = await store.totals()
        open_ones = {name for name in before.states if ACCOUNTED[name] == "held"}
        assert {"rerun_pending", "rerunning", "unknown", "alerting", "held"} == open_ones

        assert await swept(store, now, successes=DAY, failures=DAY, decisions=DAY, quarantine=DAY) == {}
        assert await store.totals() == before

        later = now + 3 * DAY
        assert await swept(store, later, successes=DAY) == {"successes": 2}
        assert await store.failure("1-fine") is None
        assert broken(path, later) == {}

        assert await swept(store, later, failures=DAY) == {"messages": 4}  # told, known, heals and its re-run
        assert await swept(store, later, failures=DAY) == {}, "once is enough"
        assert broken(path, later) == {}
        assert await store.payload_of(RequestId("1-told")) is None
        assert await store.payload_of(RequestId("1-untold")) == b'"untold"'
        detail = await store.failure("1-told")
        assert detail.decision["rule_id"] == "tell"
        assert detail.deliveries
        with pytest.raises(TriageError, match="past \\[retention\\] failures"):
            recall(detail)
        assert await swept(store, later, quarantine=DAY) == {"quarantine": 1}
        gone = await swept(store, later, decisions=DAY)
        assert gone == {"lineages": 3, "notifications": 1, "deliveries": 1, "groups": 1, "arrivals": 9}
        assert broken(path, later) == {}
        after = await store.totals()
        assert (
            after.states.pop("removed") == before.states["alerted"] + before.states["healed"] + before.states["ignored"]
        )
        assert {name: number for name, number in before.states.items() if name in open_ones} == after.states
        assert after.failures == before.failures
        assert (after.received, after.decided, after.quarantined) == (
            before.received,
            before.decided,
            before.quarantined,
        )
        assert after.deliveries == before.deliveries
        assert {row.state for row in await store.failures(FailureFilter())} == open_ones
        assert rows(path, "SELECT count(*) FROM pragma_foreign_key_check") == [0]

        # What comes afterwards is told and counted as ever.
        await past.receive(result("told", "3-told"))
        await past.pass_time(timedelta(minutes=1))
        assert (await store.totals()).states["alerted"] >= 1
        assert broken(path, past.clock.now()) == {}
        await past.close()

    asyncio.run(story())


def test_a_lineage_that_a_stranger_s_table_refers_to_stays(tmp_path):
    path = tmp_path / "triage.db"

    async def story():
        past = await filled(path)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("CREATE TABLE notes (text, about REFERENCES lineages(root))")
            connection.execute("INSERT INTO notes VALUES ('look here', '1-known')")
        await swept(past.store, past.clock.now() + 3 * DAY, decisions=DAY)
        await past.close()

    asyncio.run(story())
    assert "1-known" in rows(path, "SELECT root FROM lineages")
    assert "1-told" not in rows(path, "SELECT root FROM lineages")


def test_many_rows_go_in_small_transactions(tmp_path):
    path = tmp_path / "triage.db"

    async def story():
        past = await Past.open(path, RULES)
        for start in range(0, 2500, 250):
            await past.receive(*(well(f"{number}-fine") for number in range(start, start + 250)))
        before = past.store.transactions
        steps, after = [], 0
        cutoffs = Cutoffs(successes=past.clock.now() + DAY)
        while after is not None:
            steps.append(await past.store.retire("successes", cutoffs, after=after))
            after = steps[-1].after
        assert [step.removed for step in steps] == [1000, 1000, 500]
        assert past.store.transactions - before == 5 + 5 + 3
        await past.close()

    asyncio.run(story())
    assert rows(path, "SELECT count(*) FROM envelopes") == [0]


def test_what_moved_on_after_it_was_found_is_left_alone(tmp_path):
    path = tmp_path / "triage.db"
    from triage.stores import retention

    async def story():
        past = await filled(path)
        await past.close()
        return past.clock.now()

    cutoffs = Cutoffs(decisions=asyncio.run(story()) + 3 * DAY)
    with closing(sqlite3.connect(path)) as connection:
        found, _ = retention.step(connection, "lineages", cutoffs, after=0)
        assert len(found) == 3
        connection.execute("UPDATE lineages SET state = 'rerun_pending' WHERE root = '1-known'")
        assert retention.remove(connection, "lineages", found, cutoffs) == 2


class Steps:
    """A store that has a number of steps to offer, and tells of each asking."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    async def retire(self, stage, cutoffs, *, after):
        self.asked.append((stage, cutoffs.successes, after))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_pass_goes_through_all_stages_and_comes_again_in_an_hour(caplog):
    caplog.set_level("INFO")

    async def story():
        clock, stop = ManualClock(), asyncio.Event()
        began = clock.now()
        store = Steps(
            Step(7, 1000), Step(2, None), Step(0, None), StoreUnavailable("the disk is full"), *[Step(0, None)] * 2
        )
        loop = Retention(store, stages=("old", "older"), cutoffs=lambda: Cutoffs(successes=clock.now()), clock=clock)
        running = asyncio.create_task(loop.run(stop))
        await clock.advance(timedelta(seconds=1))
        assert store.asked == [("old", began, 0), ("old", began, 1000), ("older", began, 0)]
        assert [record.getMessage() for record in caplog.records] == ["retention: 9 old old removed"]
        assert not loop.stages["retention"].waiting(clock.steady())
        await clock.advance(timedelta(hours=1))
        assert "nothing old is removed while the store fails: the disk is full" in caplog.text
        await clock.advance(timedelta(hours=1))
        assert len(store.asked) == 6
        assert store.asked[-1][1] > began + timedelta(hours=2)
        stop.set()
        await running

    asyncio.run(story())
