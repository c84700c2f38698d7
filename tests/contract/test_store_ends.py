"""What every store promises about the end of an incident: by successes, by healing, by a person."""

from functools import partial

import pytest
from test_store import HOUR, INTERVAL, MINUTE, NOW, WAIT, arrive, ingest, take
from test_store_silences import PLACE, work

from triage.alerts.acks import closed
from triage.effects import alert_group
from triage.envelope import Destination
from triage.orders import Limits, Order, Ordered
from triage.reactions import submitted
from triage.reruns.lineage import Origin
from triage.rules.course import Course
from triage.rules.model import AlertPolicy, Rule, RuleSet

LASTING = Course(quiet_for=None, success_threshold=3)
POLICY = AlertPolicy(group_by=("rule",), group_wait=WAIT, group_interval=INTERVAL, course=LASTING)
RULES = RuleSet((Rule("tell", PLACE, alert=POLICY),), "rs-ends")
FLUSH = f"flush:{alert_group({'rule': 'tell'}, POLICY).key}"


def ends(got):
    lines = (line for _, _, body in got for line in body.splitlines())
    return [line for line in lines if line.startswith("Resolved: ")]


def well(request_id, function="job"):
    ended = arrive(request_id, function=function, condition="", error=None)
    return take(ended.envelope.body, destination=Destination.SUCCESS)


async def succeed(store, *functions, now):
    sent = [well(f"s-{function}-{now:%H%M}-{each}", function) for function in functions for each in range(3)]
    await ingest(store, *sent, rules=RULES, now=now)


def test_a_group_ends_when_each_function_that_failed_in_it_has_succeeded_often_enough(run):
    async def scenario(store):
        await succeed(store, "job", "other", now=NOW)  # before it fails
        await ingest(store, arrive("r-1"), arrive("r-2", function="other"), rules=RULES, now=NOW + MINUTE)
        assert ends(await work(store, until=NOW + 5 * HOUR, now=NOW + MINUTE)) == []
        await succeed(store, "job", "third", now=NOW + 5 * HOUR)
        assert ends(await work(store, until=NOW + 6 * HOUR, now=NOW + 5 * HOUR)) == []
        await succeed(store, "other", now=NOW + 6 * HOUR)
        assert ends(await work(store, until=NOW + 6 * HOUR + 10 * MINUTE, now=NOW + 6 * HOUR)) == [
            "Resolved: each of its functions has succeeded 3 times since; 2 of 2 have not healed; it failed for 0s"
        ]
        assert await store.next_due() is None

    run(scenario)


@pytest.mark.parametrize(("origin", "how"), [(Origin.MANUAL, "by hand"), (Origin.PLAN, "by a plan")])
def test_a_group_ends_when_all_has_healed_and_that_tells_how(run, origin, how):
    async def scenario(store):
        await ingest(store, arrive("r-1"), arrive("r-2"), rules=RULES)
        await work(store, until=NOW + MINUTE)
        for number in (1, 2):
            at = NOW + number * HOUR
            order = Order(origin, "ana", "it is mended", at)
            (answer,) = await store.order([f"r-{number}"], order, limits=Limits(), now=at)
            assert isinstance(answer, Ordered)
            (row,) = [row for row in await store.claim_due(now=at, lease=MINUTE, limit=9) if row.kind == "rerun"]
            react = partial(submitted, row, request_id=f"again-{number}", now=at)
            assert await store.settle(row, react, now=at)
            assert ends(await work(store, until=at + MINUTE, now=at + MINUTE)) == []
            await ingest(store, well(f"again-{number}"), rules=RULES, now=at + MINUTE)
        got = await work(store, until=at + 30 * MINUTE, now=at + MINUTE)
        assert ends(got) == [f"Resolved: all that failed has healed: 2 run again {how}; it failed for 0s"]
        assert await store.next_due() is None

    run(scenario)


def test_a_person_ends_it_but_not_while_something_waits_to_be_told(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), rules=RULES)
        await work(store, until=NOW + MINUTE)
        say = partial(closed, by="ana", reason="mended", now=NOW + HOUR)
        await ingest(store, arrive("r-2"), rules=RULES, now=NOW + HOUR)
        assert await store.settle_now(FLUSH, say, now=NOW + HOUR)
        assert ends(await work(store, until=NOW + 3 * HOUR, now=NOW + HOUR)) == []
        assert await store.settle_now(FLUSH, say, now=NOW + 3 * HOUR)
        assert ends(await work(store, until=NOW + 3 * HOUR, now=NOW + 3 * HOUR)) == [
            "Resolved: ana says so: mended; 2 of 2 have not healed; it failed for 1h; 1 of them were only counted till now"
        ]
        assert await store.next_due() is None

    run(scenario)
