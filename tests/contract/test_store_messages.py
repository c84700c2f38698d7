"""What every store promises about the messages to one receiver: not more than it wants, none lost, each counted once."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import STORES
from test_store import HOUR, LEASE, MINUTE, NOW, arrive, claim, ingest, plan, row

from triage.alerts.delivery import Answer, Result, Retries, notified
from triage.alerts.grouping import flush
from triage.alerts.routing import Quiet, Rate, Route, routed
from triage.changes import NewRow, RowKind, Settle
from triage.line import Line, Seen
from triage.reruns.gate import Gate
from triage.rules.course import ONE_BY_ONE
from triage.rules.model import AlertPolicy, Place, Rule, RuleSet, Severity
from triage.rules.windows import Hours

SENT, FAILED = Answer(Result.SENT), Answer(Result.FAILED)


def telling(*receivers):
    """Each function is a group of its own, told at once."""
    policy = AlertPolicy(
        to=receivers, group_by=("function",), group_wait=timedelta(0), group_interval=MINUTE, course=ONE_BY_ONE
    )
    return RuleSet((Rule("tell", Place("r.yaml", 1), alert=policy),), "rs-told")


TELL = telling("ops")
RETRIES = Retries(first=MINUTE, factor=1, give_up_after=3 * HOUR)


async def work(store, *, until, now=NOW, routes=None, answer=lambda _payload: SENT):
    """Act on every row as it becomes due; what was tried, as (when, payload, whether it was taken)."""
    tried = []
    while (due := await store.next_due()) is not None and due <= until:
        now = max(now, due)
        for claimed in await store.claim_due(now=now, lease=LEASE, limit=100):
            if claimed.kind is not RowKind.NOTIFY:
                assert await store.settle(claimed, lambda facts, now=now: flush(facts, now=now), now=now)
                continue
            route = (routes or {}).get(claimed.payload["receiver"], Route())
            let = await store.admit(
                claimed, lambda facts, c=claimed, r=route, now=now: routed(c, facts, route=r, now=now), now=now
            )
            if let is None:
                continue
            given = answer(let.payload)
            tried.append((now, let.payload, given is SENT))
            settle = notified(let, {"a": given}, retries=RETRIES, fallback=route.fallback, now=now)
            assert await store.settle(let, lambda _facts, settle=settle: settle, now=now)
    return tried


async def fill(store, routes):
    """One message has gone, and two wait for their turn."""
    for numbers in (range(1), range(1, 3)):
        await ingest(store, *(arrive(f"r-{number}", function=f"f{number}") for number in numbers), rules=TELL)
        await work(store, until=NOW, routes=routes)


async def told(store):
    totals = await store.totals()
    assert sum(totals.states.values()) == totals.failures
    return totals.states


def test_over_the_rate_messages_go_as_one_and_every_alert_of_them_is_told(run):
    async def scenario(store):
        for numbers in (range(2), range(2, 6)):
            await ingest(store, *(arrive(f"r-{number}", function=f"f{number}") for number in numbers), rules=TELL)
            tried = await work(store, until=NOW + HOUR - MINUTE, routes={"ops": Route(rate=Rate(2, HOUR))})
        assert tried == []
        assert (await told(store)) == {"alerted": 2, "alerting": 4}
        tried = await work(store, until=NOW + 2 * HOUR, routes={"ops": Route(rate=Rate(2, HOUR))})
        ((at, payload, _),) = tried
        assert at == NOW + HOUR
        assert payload["title"].endswith("(+ 3 messages, 3 alerts)")
        assert len(payload["along"]) == 3
        assert (await told(store)) == {"alerted": 6}
        totals = await store.totals()
        assert totals.deliveries == {"sent": 3, "along": 3}
        assert totals.outbox == {}

    run(scenario)


def test_what_was_to_go_along_waits_on_when_the_message_that_took_it_is_given_up(run):
    async def scenario(store):
        route = {"ops": Route(rate=Rate(1, HOUR))}
        await fill(store, route)
        dead = lambda payload: FAILED if "along" in payload else SENT  # noqa: E731
        tried = await work(store, until=NOW + 9 * HOUR, routes=route, answer=dead)
        assert tried[0][0] == NOW + HOUR
        assert [len(payload.get("along", ())) for _, payload, _ in tried] == [1] * (len(tried) - 1) + [0]
        assert (await told(store)) == {"alerted": 2, "alerting": 1}, "the second one has told itself"
        assert (await store.totals()).deliveries["dead"] == 1

    run(scenario)


def test_a_message_is_not_sent_by_itself_while_another_one_takes_it_along(run):
    async def scenario(store):
        route = Route(rate=Rate(1, HOUR))
        await fill(store, {"ops": route})
        later = NOW + HOUR
        first, second = [each for each in await claim(store, now=later) if each.kind is RowKind.NOTIFY]

        async def admit(claimed):
            return await store.admit(claimed, lambda facts: routed(claimed, facts, route=route, now=later), now=later)

        let = await admit(first)
        assert let.payload["along"] == [second.key]
        assert (let.gate, let.token) == (Gate.PASSED, first.token)
        assert await admit(second) is None
        settle = notified(let, {"a": SENT}, retries=RETRIES, now=later)
        assert await store.settle(let, lambda _facts: settle, now=later)
        assert [each.kind for each in await claim(store, now=later + HOUR)] == [RowKind.FLUSH] * 3
        assert (await told(store)) == {"alerted": 3}

    run(scenario)


def test_a_receiver_with_a_floor_hears_of_less_than_the_others(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), rules=telling("ops", "boss"))
        routes = {name: Route(floor=Severity.CRITICAL) for name in ("boss",)}
        tried = await work(store, until=NOW, routes=routes)
        assert [payload["receiver"] for _, payload, _ in tried] == ["ops"]
        assert (await store.totals()).deliveries == {"sent": 1, "below": 1}
        assert (await told(store)) == {"alerted": 1}

    run(scenario)


def test_what_everybody_is_too_good_for_is_told_to_one_all_the_same(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), rules=telling("ops", "boss"))
        tried = await work(store, until=NOW, routes=dict.fromkeys(("ops", "boss"), Route(floor=Severity.CRITICAL)))
        assert len(tried) == 1
        assert (await told(store)) == {"alerted": 1}

    run(scenario)


def test_messages_that_come_at_once_and_are_too_many_go_at_once_in_few(run):
    async def scenario(store):
        await ingest(store, *(arrive(f"r-{number}", function=f"f{number}") for number in range(6)), rules=TELL)
        tried = await work(store, until=NOW, routes={"ops": Route(rate=Rate(2, HOUR))})
        assert [len(payload.get("along", ())) for _, payload, _ in tried] == [4, 0]
        assert (await told(store)) == {"alerted": 6}

    run(scenario)


def test_quiet_hours_end_in_one_message(run):
    async def scenario(store):
        quiet = Quiet(Hours(frozenset(range(7)), ((12 * 60, 14 * 60),), ZoneInfo("UTC")))
        await ingest(store, *(arrive(f"r-{number}", function=f"f{number}") for number in range(5)), rules=TELL)
        tried = await work(store, until=NOW + 3 * HOUR, routes={"ops": Route(quiet=quiet)})
        assert [(at, payload["title"].partition("(")[2]) for at, payload, _ in tried] == [
            (NOW + 2 * HOUR, "+ 4 messages, 4 alerts)")
        ]
        assert (await told(store)) == {"alerted": 5}

    run(scenario)


def test_settling_a_message_sees_nothing_of_other_receivers(run):
    async def scenario(store):
        mine = {"receiver": "ops", "severity": "info", "title": "t", "body": "b", "at": NOW.isoformat()}
        await plan(store, row("a", payload=mine), row("b", payload={**mine, "receiver": "boss"}))
        first, second = await claim(store)
        assert not await store.admit(
            second, lambda _facts: Settle.wait(Gate.QUIET, due_at=NOW + HOUR, note=""), now=NOW
        )
        seen = []
        await store.settle(first, lambda facts: seen.append(facts.line) or Settle.done(delivery="sent"), now=NOW)
        assert seen == [Line()]

    run(scenario)


@given(
    data=st.data(),
    minutes=st.lists(st.integers(0, 120), min_size=1, max_size=12),
    count=st.integers(1, 3),
    per=st.integers(5, 60),
    name=st.sampled_from(sorted(STORES)),
)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_however_it_goes_nobody_gets_more_than_it_wants_and_every_alert_is_told_once(
    tmp_path_factory, *, data, minutes, count, per, name
):
    async def scenario():
        route = {"ops": Route(rate=Rate(count, per * MINUTE))}
        async with STORES[name](tmp_path_factory.mktemp("messages")) as store:
            now, tried = NOW, []

            def answer(_payload):
                return data.draw(st.sampled_from([SENT, SENT, FAILED]))

            for number, minute in enumerate(sorted(minutes)):
                at = NOW + minute * MINUTE
                tried += await work(store, until=at, now=now, routes=route, answer=answer)
                await ingest(store, arrive(f"r-{number}", function=f"f{number % 4}", at=at), rules=TELL, now=at)
                now = at
            tried += await work(store, until=NOW + 100 * HOUR, now=now, routes=route)
            assert await told(store) == {"alerted": len(minutes)}
            sent = [(at, payload) for at, payload, taken in tried if taken]
            for at, _ in sent:
                assert sum(at - per * MINUTE < other <= at for other, _ in sent) <= count
            deliveries = (await store.totals()).deliveries
            assert deliveries["sent"] == len(sent)
            assert deliveries.get("along", 0) == sum(len(payload.get("along", ())) for _, payload in sent)
            carried = Counter(key for _, payload in sent for key in payload.get("along", ()))
            assert set(carried.values()) <= {1}

    asyncio.run(scenario())


def test_when_each_function_was_last_heard_of_is_known_to_a_row_that_watches(run):
    async def scenario(store):
        await ingest(store, arrive("r-1", function="a"), arrive("r-2", function="b"), rules=TELL)
        await ingest(store, arrive("r-3", function="a"), rules=TELL, now=NOW + HOUR)
        watch = NewRow("watch:x", RowKind.WATCH, NOW + HOUR, {"watch": "x"}, sooner=True)
        await store.arm([watch], now=NOW)
        await store.arm([replace(watch, due_at=NOW)], now=NOW)
        (claimed,) = [each for each in await claim(store, now=NOW) if each.kind is RowKind.WATCH]
        seen = []
        await store.settle(
            claimed, lambda facts: seen.extend(facts.arrivals) or Settle.retry(due_at=NOW + HOUR, note=""), now=NOW
        )
        assert seen == [Seen("a", "queue", NOW + HOUR), Seen("b", "queue", NOW)]

    run(scenario)
