"""Results of re-runs that somebody made elsewhere, in every store."""

from datetime import timedelta

import make
import pytest

from triage.changes import Commit, RowKind, Settle
from triage.decide import Reason, decide_batch
from triage.effects import decided
from triage.envelope import Destination
from triage.reactions import resolved, submitted
from triage.reruns.elsewhere import PERIOD
from triage.reruns.lineage import task_id
from triage.rules.model import AlertPolicy
from triage.stores.decisions import recall

NOW, MINUTE, HOUR = make.NOW, timedelta(minutes=1), timedelta(hours=1)
AGAIN = make.rules(make.rule("again", rerun=make.RERUN, alert=make.ALERT))
TELL = make.rules(make.rule("tell", alert=AlertPolicy()))
EVENT = '{"order": "4711", "action": "ship"}'


def failure(request_id, payload=EVENT, **fields):
    return make.envelope(request_id, payload=payload, **fields)


def success(request_id, payload=EVENT, **fields):
    return make.success(request_id, payload=payload, **fields)


async def facts(store, *envelopes, at=NOW, within=HOUR):
    arrivals = [make.arrived(envelope, at=at) for envelope in envelopes]
    return arrivals, await store.load_facts(arrivals, elsewhere_since=at - within)


async def ingest(store, *envelopes, at=NOW, rules=AGAIN):
    arrivals, snapshot = await facts(store, *envelopes, at=at)
    decisions = decide_batch(arrivals, snapshot, rules, now=at)
    items = tuple(decided(a, d) for a, d in zip(arrivals, decisions, strict=True))
    await store.commit(Commit(now=at, rule_set=rules.digest, decided=items))
    return decisions


async def known(store, *, at=NOW):
    """A function that is known to run with different events, and one failure."""
    await ingest(store, *(success(f"s{number}", f"another event, {number}") for number in range(4)), at=at)
    await ingest(store, failure("r1"), at=at)


def test_the_only_open_failure_with_the_event_is_joined(run):
    async def scenario(store):
        await known(store)
        _, snapshot = await facts(store, failure("console"), success("other", "an event of its own"), at=NOW + MINUTE)
        assert (list(snapshot.lineages), snapshot.elsewhere, snapshot.apart) == (["console"], {"console"}, {})
        assert (snapshot.lineages["console"].root, snapshot.lineages["console"].attempt) == ("r1", 1)

    run(scenario)


def test_nothing_is_joined_unless_that_is_wanted(run):
    async def scenario(store):
        await known(store)
        assert (await store.load_facts([make.arrived(failure("console"))])).lineages == {}

    run(scenario)


@pytest.mark.parametrize(
    "envelope",
    [
        failure("x", '{"order": "4712", "action": "ship"}'),
        failure("x", arn=make.ARN + "-other"),
        failure("x", arn=make.ARN + "/prod"),
        failure("x", arn=make.ARN.replace("hangzhou", "beijing")),
        failure("x", requestPayload=None),
        failure("r1"),
        success("s1"),
    ],
    ids=["event", "function", "qualifier", "region", "not told", "itself", "known"],
)
def test_what_is_not_the_same_in_all_is_not_joined(run, envelope):
    async def scenario(store):
        await known(store)
        _, snapshot = await facts(store, envelope, at=NOW + MINUTE)
        assert not snapshot.elsewhere

    run(scenario)


def test_the_time_counts_from_when_something_last_happened_to_the_failure(run):
    async def scenario(store):
        await known(store)
        await ingest(store, failure("first"), at=NOW + 50 * MINUTE)
        _, snapshot = await facts(store, failure("second"), at=NOW + 100 * MINUTE)
        assert snapshot.elsewhere == {"second"}
        _, snapshot = await facts(store, failure("late"), at=NOW + 111 * MINUTE)
        assert (snapshot.elsewhere, snapshot.apart) == (set(), {})

    run(scenario)


def test_a_timer_s_equal_events_stay_apart_and_say_so(run):
    async def scenario(store):
        for number in range(6):
            envelope = failure(f"tick{number}") if number % 2 == 0 else success(f"tick{number}")
            (decision,) = await ingest(store, envelope, at=NOW + number * MINUTE)
            assert (decision.facts.lineage, decision.facts.elsewhere) == (None, False)
            assert ("may be a re-run of tick" in decision.facts.apart) is (number > 0)
            assert recall(await store.failure(f"tick{number}"))[1] == decision.facts
        assert (await store.totals()).states == {"rerun_pending": 3}

    run(scenario)


def test_a_job_that_goes_round_many_customers_stays_apart(run):
    async def scenario(store):
        for day in range(3):
            at = NOW + day * 10 * MINUTE
            await ingest(store, *(success(f"{day}-{n}", f"customer number {n}") for n in range(20)), at=at)
            if day == 0:
                await ingest(store, failure("r1", "customer number 20"), at=at)
        _, snapshot = await facts(store, success("again", "customer number 20"), at=NOW + 21 * MINUTE)
        assert not snapshot.elsewhere
        assert "come again by themselves" in snapshot.apart["again"]

    run(scenario)


def test_two_failures_with_one_event_are_joined_by_nothing(run):
    async def scenario(store):
        await known(store)
        await ingest(store, failure("r2", arn=make.ARN + "/prod"), at=NOW + MINUTE)
        _, snapshot = await facts(store, success("console", arn=make.ARN + "/prod"), at=NOW + 2 * MINUTE)
        assert not snapshot.elsewhere
        assert snapshot.apart == {
            "console": "may be a re-run of r2 made elsewhere, but other failures began with the same event"
        }

    run(scenario)


def test_its_success_heals_and_belongs_to_the_lineage(run):
    async def scenario(store):
        await known(store)
        (decision,) = await ingest(store, success("console"), at=NOW + MINUTE)
        assert decision.reason is Reason.HEALED
        detail = await store.failure("r1")
        assert (detail.row.state, detail.lineage["attempt"], detail.lineage["failures"]) == ("healed", 2, 1)
        assert [row["state"] for row in detail.outbox] == ["cancelled"]
        assert [(row["request_id"], row["attempt"]) for row in detail.lineage["members"]] == [("r1", 0), ("console", 2)]
        assert await store.claim_due(now=NOW + HOUR, lease=MINUTE, limit=9) == []
        assert recall(await store.failure("console"))[1] == decision.facts

    run(scenario)


def test_our_own_re_run_that_was_under_way_then_is_late(run):
    async def scenario(store):
        await known(store)
        await ingest(store, success("console"), at=NOW + MINUTE)
        (decision,) = await ingest(store, failure(task_id("r1", 1)), at=NOW + 2 * MINUTE)
        assert decision.reason is Reason.LATE
        assert (await store.totals()).states == {"healed": 2}

    run(scenario)


def test_its_failures_use_up_the_attempts(run):
    async def scenario(store):
        await known(store)
        (one,) = await ingest(store, failure("console"), at=NOW + MINUTE)
        assert one.reason is Reason.ATTEMPTS_EXHAUSTED
        (two,) = await ingest(store, failure("console-2"), at=NOW + 2 * MINUTE)
        assert (two.reason, two.lineage.attempt) == (Reason.ATTEMPTS_EXHAUSTED, 3)
        totals = await store.totals()
        assert (totals.failures, totals.states) == (3, {"alerting": 3})

    run(scenario)


@pytest.mark.parametrize(("status", "state"), [("Succeeded", "healed"), ("Stopped", "alerting")])
def test_a_success_that_may_have_been_stopped_joins_once_the_provider_has_said_so(run, status, state):
    async def scenario(store):
        await known(store)
        await ingest(store, failure("r2", "an event of its own"), rules=TELL)
        at = NOW + MINUTE
        (decision,) = await ingest(store, success("c", "an event of its own", destination=Destination.BOTH), at=at)
        assert (decision.reason, decision.lineage) == (Reason.AMBIGUOUS, None)
        assert (await store.failure("r2")).row.state == "alerting"
        rows = await store.claim_due(now=at, lease=MINUTE, limit=9)
        (row,) = (row for row in rows if row.kind is RowKind.RESOLVE)
        assert await store.settle(row, lambda facts: resolved(row, facts, status=status, now=at), now=at)
        detail = await store.failure("r2")
        assert detail.row.state == state
        members = [(row["request_id"], row["attempt"]) for row in detail.lineage["members"]]
        assert members == [("r2", 0), ("c", 1)][: 1 + (state == "healed")]
        assert recall(await store.failure("c"))[1] == decision.facts

    run(scenario)


def test_what_is_remembered_of_events_is_renewed_and_survives_two_periods(run):
    async def scenario(store):
        await known(store)
        later = NOW + 2 * PERIOD
        await ingest(store, success("x", "something else now"), at=later)
        await ingest(store, success("y", "something else now"), at=later + PERIOD)
        await ingest(store, failure("r9", "a failure much later"), at=later + PERIOD)
        _, snapshot = await facts(store, success("z", "a failure much later"), at=later + PERIOD + MINUTE)
        assert "too few different events" in snapshot.apart["z"]

    run(scenario)


def test_a_look_at_the_alert_sees_every_run(run):
    async def scenario(store):
        await known(store)
        (row,) = await store.claim_due(now=NOW + HOUR, lease=MINUTE, limit=9)
        at = NOW + HOUR
        await store.settle(row, lambda facts: submitted(row, facts, request_id="child", now=at), now=at)
        await ingest(store, failure("child", error="still broken"), at=at + MINUTE)
        await ingest(store, failure("console"), at=at + 2 * MINUTE)
        rows = await store.claim_due(now=at + HOUR, lease=MINUTE, limit=9)
        (look,) = (row for row in rows if row.kind is RowKind.FLUSH)
        seen = []

        def react(facts):
            seen.extend(facts.group.samples)
            return Settle.done()

        assert await store.settle(look, react, now=at + HOUR)
        (sample,) = seen
        told = [(each.number, each.origin, each.request_id, each.result, each.result_at) for each in sample.runs]
        assert told == [
            (0, "", "r1", "failed", NOW),
            (1, "automatic", "child", "failed", at + MINUTE),
            (2, "automatic", "", "cancelled", None),
            (3, "elsewhere", "console", "failed", at + 2 * MINUTE),
        ]
        assert (sample.attempts, "still broken" in sample.runs[1].detail) == (3, True)

    run(scenario)
