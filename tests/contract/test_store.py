"""What every store promises."""

import asyncio
import json
from collections import Counter
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import STORES

from triage.alerts.grouping import flush
from triage.changes import AlertGroup, Changes, Commit, Decided, Looked, NewAlert, NewRow, Quarantined, RowKind, Settle
from triage.decide import Decision, Reason, decide, decide_batch
from triage.effects import decided, rules_alert
from triage.envelope import RECONSTRUCTED, Destination, parse_body
from triage.errors import IllegalTransition, Problem, StoreConflict, StoreUnavailable
from triage.facts import Lineage, arrival
from triage.incident import Ack, GroupState, Incident
from triage.orders import Limits, Order, Refusal, Refused
from triage.reactions import lost, not_found, refused, rejected, submitted, unanswered
from triage.reruns.breaker import Breaker, BreakerState
from triage.reruns.budget import Budget
from triage.reruns.gate import Gate, Standing
from triage.reruns.lineage import Link, Origin, task_id
from triage.reruns.rate import BEGINNING, Pace
from triage.reruns.switches import Scope, Switch
from triage.rules.model import (
    AlertPolicy,
    Cause,
    HoldPolicy,
    Matcher,
    Mode,
    Place,
    RerunPolicy,
    Rule,
    RuleSet,
    SourceText,
)
from triage.states import ROW_TRANSITIONS, RowEvent, RowState, State
from triage.stores import STANDINGS, FailureFilter, KeptRules, Places, RuleHits, RulesState, Totals
from triage.stores.decisions import recall
from triage.testing import MemoryStore

NOW = datetime(2026, 7, 4, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
LEASE = MINUTE

WAIT, INTERVAL = timedelta(seconds=30), timedelta(minutes=5)
RERUN = RuleSet((Rule("again", Place("r.yaml", 1), rerun=RerunPolicy(max_attempts=2, give_up_after=6 * HOUR)),), "rs-1")
ALERT = RuleSet((Rule("tell", Place("r.yaml", 1), alert=AlertPolicy(group_by=("function",))),), "rs-2")


def arrive(request_id="r-1", *, function="job", payload="{}", error="boom", condition="Failed", at=NOW, **changes):
    body = {
        "timestamp": 1728465119433,
        "requestContext": {
            "requestId": request_id,
            "functionArn": f"acs:fc:cn-hangzhou:1034:functions/{function}",
            "condition": condition,
            "approximateInvokeCount": 1,
        },
        "requestPayload": payload,
        "responseContext": {"statusCode": 200, "functionError": condition},
        "responsePayload": json.dumps({"errorType": "Oops", "errorMessage": error}),
        **changes,
    }
    return take(json.dumps(body).encode(), at=at)


def take(body, *, at=NOW, destination=Destination.BOTH):
    envelope = parse_body(body, destination=destination)
    return arrival(envelope, source="queue", message_id="m-1", received_at=at, enqueued_at=at - SECOND)


def success(request_id, *, at=NOW):
    ended = arrive(request_id, condition="", at=at)
    return take(ended.envelope.body, at=at, destination=Destination.SUCCESS)


async def ingest(store, *arrivals, rules=ALERT, now=NOW, quarantined=()):
    """The consumer's walk: facts, decide, commit."""
    decisions = decide_batch(arrivals, await store.load_facts(arrivals), rules, now=now)
    pairs = list(zip(arrivals, decisions, strict=True))
    await store.commit(
        Commit(
            now=now,
            rule_set=rules.digest,
            decided=tuple(decided(a, d) for a, d in pairs if d.is_new),
            duplicates=tuple(a for a, d in pairs if d.reason is Reason.DUPLICATE),
            conflicts=tuple(a for a, d in pairs if d.reason is Reason.CONFLICT),
            quarantined=tuple(quarantined),
        )
    )
    return decisions


async def plan(store, *rows, now=NOW):
    """Store outbox rows that belong to no envelope of interest."""
    await store.commit(commit_of(arrive(f"carrier-of-{rows[0].key}"), Changes(rows=rows), now=now))


def commit_of(arrived, changes, *, lineage=None, now=NOW):
    return Commit(now, "rs-0", decided=(Decided(arrived, Decision(Reason.SUCCEEDED, lineage=lineage), changes, ""),))


def row(key, *, due=NOW, kind=RowKind.NOTIFY, payload=None, root="", group=""):
    return NewRow(key, kind, due, payload or {}, root, group)


def garbage(body=b"\xff\x00{", *, reason="not_utf8", detail="no text", at=NOW, message_id="m-9", source="queue"):
    return Quarantined(source, message_id, at, body, reason, "byte 0", detail)


async def claim(store, *, now=NOW, limit=10):
    return await store.claim_due(now=now, lease=LEASE, limit=limit)


async def claim_one(store, *, now=NOW):
    (claimed,) = await claim(store, now=now)
    return claimed


EVENTS = {
    RowEvent.WENT: Settle.go,
    RowEvent.WAITED: lambda: Settle.wait(Gate.SWITCH, due_at=NOW, note=""),
    RowEvent.POSTPONED: lambda: Settle.retry(due_at=NOW, note=""),
    RowEvent.LOST: lambda: Settle.unknown(due_at=NOW, note=""),
    RowEvent.HAPPENED: Settle.done,
    RowEvent.GIVEN_UP: lambda: Settle.dead(note=""),
    RowEvent.CANCELLED: lambda: Settle.cancelled(note=""),
}
REACHED_BY = {
    RowState.UNKNOWN: RowEvent.LOST,
    RowState.DONE: RowEvent.HAPPENED,
    RowState.DEAD: RowEvent.GIVEN_UP,
    RowState.CANCELLED: RowEvent.CANCELLED,
}


@pytest.mark.parametrize("state", RowState)
@pytest.mark.parametrize("event", RowEvent)
@pytest.mark.parametrize("by", ["its claim", "its key"])
def test_a_row_moves_as_the_table_says_or_stays_where_it_is(run, state, event, by):
    async def stands(store):
        (found,) = (item for item in (await store.failure("r-1")).outbox if item["key"] == "hold:r-1")
        return RowState(found["state"])

    async def happens(store, claimed):
        if event is RowEvent.RESTARTED:
            again = replace(row("hold:r-1", root="r-1"), anew=True)
            await plan(store, again)
        elif event is RowEvent.CANCELLED and by == "its key":
            await store.commit(commit_of(arrive("canceller"), Changes(cancel=("hold:r-1",))))
        elif by == "its key":
            await store.settle_now("hold:r-1", lambda *_: EVENTS[event](), now=NOW)
        else:
            await store.settle(claimed, lambda _: EVENTS[event](), now=NOW)

    async def scenario(store):
        await ingest(store, arrive())
        await store.commit(commit_of(arrive("carrier"), Changes(rows=(row("hold:r-1", root="r-1"),))))
        claimed = await claim_one(store)
        if state in REACHED_BY:
            await store.settle(claimed, lambda _: EVENTS[REACHED_BY[state]](), now=NOW)
        if state is RowState.UNKNOWN:
            claimed = await claim_one(store)
        assert await stands(store) is state
        with nullcontext() if (state, event) in ROW_TRANSITIONS or state in FINISHED else suppress(IllegalTransition):
            await happens(store, claimed)
        assert await stands(store) is ROW_TRANSITIONS.get((state, event), state)

    run(scenario)


FINISHED = {RowState.DONE, RowState.DEAD, RowState.CANCELLED}


async def look(store, claimed, *, now=NOW):
    """What settling sees; the row goes back as it was."""
    seen = []

    def react(facts):
        seen.append(facts)
        return Settle.retry(due_at=claimed.due_at, note="")

    assert await store.settle(claimed, react, now=now)
    return seen[-1]


def done(**given):
    return lambda _facts: Settle.done(**given)


def empty():
    return Totals(0, 0, 0, 0, 0, 0, {}, {}, {})


# --- the gates of re-runs -------------------------------------------------------------------------------------------


def off(scope=Scope.ALL, pattern="", *, at=NOW):
    return Switch(scope, pattern, "alice", "an incident", at)


async def let_on(store, scope=Scope.ALL, pattern="", *, now=NOW):
    return await store.switch_on(scope, pattern, by="bob", reason="mended", now=now)


def wait(gate=Gate.SWITCH, *, until=NOW + HOUR, **given):
    return lambda _facts: Settle.wait(gate, due_at=until, note="because", **given)


def rerun_row(key="task", *, due=NOW, function="job", service="", root=""):
    where = {"name": function, "service": service, "qualifier": "", "region": "", "account": ""}
    return row(key, due=due, kind=RowKind.RERUN, payload={"function": where}, root=root)


def test_what_is_switched_off_is_known_until_it_is_on_again(run):
    async def scenario(store):
        assert await store.switches() == []
        all_of_them, some = off(), off(Scope.FUNCTION, "img-*", at=NOW + SECOND)
        assert await store.switch_off(all_of_them)
        assert await store.switch_off(some)
        assert not await store.switch_off(replace(all_of_them, by="carol")), "it stays as it is"
        assert await store.switches() == [some, all_of_them]
        assert not await let_on(store, Scope.FUNCTION, "img"), "another pattern"
        assert not await let_on(store, Scope.RULE, "img-*"), "another scope"
        assert await let_on(store, now=NOW + MINUTE)
        assert not await let_on(store)
        assert await store.switches() == [some]
        on_again = replace(all_of_them, on_at=NOW + MINUTE, on_by="bob", on_reason="mended")
        assert await store.switches(past=5) == [some, on_again]
        again = replace(all_of_them, at=NOW + HOUR)
        assert await store.switch_off(again)
        assert await store.switches(past=5) == [again, some, on_again]

    run(scenario)


def test_a_row_that_may_go_stays_ours(run):
    async def scenario(store):
        await plan(store, rerun_row())
        claimed = await claim_one(store)
        assert await store.admit(claimed, lambda _facts: Settle.go(), now=NOW)
        assert await claim(store) == [], "it is under our lease"
        assert await store.settle(claimed, done(), now=NOW)
        assert not await store.admit(claimed, lambda _facts: Settle.go(), now=NOW), "it is over"

    run(scenario)


def test_a_row_that_waits_is_free_and_keeps_its_number_of_attempts(run):
    async def scenario(store):
        await plan(store, rerun_row())
        claimed = await claim_one(store)
        assert not await store.admit(claimed, wait(payload={**claimed.payload, "more": 1}), now=NOW)
        assert not await store.settle(claimed, done(), now=NOW), "the claim is given back"
        assert await claim(store, now=NOW + HOUR - SECOND) == []
        again = await claim_one(store, now=NOW + HOUR)
        assert (again.attempts, again.gate, again.interrupted) == (1, Gate.SWITCH, False)
        assert again.payload["more"] == 1
        assert await store.admit(again, lambda _facts: Settle.go(), now=NOW)
        assert await store.settle(again, lambda _facts: Settle.retry(due_at=NOW, note=""), now=NOW)
        assert (await claim_one(store)).gate is None

    run(scenario)


def test_nothing_is_written_when_asking_at_the_gates_fails(run):
    async def scenario(store):
        await plan(store, rerun_row())

        def defect(*_facts):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await store.settle_now("task", defect, now=NOW)
        claimed = await claim_one(store)
        with pytest.raises(ZeroDivisionError):
            await store.admit(claimed, defect, now=NOW)
        assert await store.settle(claimed, done(), now=NOW)

    run(scenario)


def test_the_gates_see_the_switches_and_the_function(run):
    async def scenario(store):
        await store.switch_off(off())
        await plan(store, rerun_row("a"), rerun_row("b", service="media"), row("c"))
        seen = {claimed.key: (claimed.function, (await look(store, claimed)).gates) for claimed in await claim(store)}
        assert {key: function for key, (function, _) in seen.items()} == {"a": "job", "b": "media/job", "c": ""}
        assert seen["a"][1].switches == (off(),)
        assert seen["c"][1] is None

    run(scenario)


def test_what_waits_at_a_switch_is_due_when_it_is_on_and_nothing_else(run):
    async def scenario(store):
        await store.switch_off(off())
        await plan(
            store, *(rerun_row(key) for key in ("at-switch", "at-breaker", "over")), rerun_row("later", due=NOW + HOUR)
        )
        for claimed in await claim(store):
            gate = Gate.BREAKER if claimed.key == "at-breaker" else Gate.SWITCH
            await store.admit(claimed, wait(gate, until=NOW + 2 * HOUR), now=NOW)
        await store.settle_now("over", lambda _row, _facts: Settle.cancelled(note=""), now=NOW)
        assert await store.next_due() == NOW + HOUR
        assert await let_on(store, now=NOW + MINUTE)
        assert [claimed.key for claimed in await claim(store, now=NOW + MINUTE)] == ["at-switch"]

    run(scenario)


def test_a_result_joins_a_submit_without_an_answer_that_waits_to_be_repeated(run):
    async def scenario(store):
        await ingest(store, arrive("r-1", payload="7"), rules=RERUN)
        for react in (
            lambda row: lambda facts: lost(row, facts, note="no answer", now=NOW),
            lambda row: lambda facts: not_found(row, facts, tracked=True, now=NOW + MINUTE),
            lambda _row: wait(Gate.BREAKER),
        ):
            claimed = await claim_one(store, now=NOW + MINUTE)
            assert await store.settle(claimed, react(claimed), now=NOW + MINUTE)
        (lineage,) = (await store.load_facts([arrive("r-2", payload="7")])).lineages.values()
        assert (lineage.root, lineage.state) == ("r-1", State.UNKNOWN)

    run(scenario)


def test_what_a_function_s_results_tell_is_added_up(run):
    async def scenario(store):
        await plan(store, rerun_row(function="job"))
        claimed = await claim_one(store)
        assert (await look(store, claimed)).gates.own == Standing("job")
        await ingest(store, arrive("r-1"), success("s-1"), success("s-2"), rules=RERUN)
        again = arrive("r-2", function="other")
        await ingest(store, again, rules=RERUN)
        links = (Link("a", "r-1", 1), Link("b", "r-1", 1), Link("c", "r-1", 1))
        await store.commit(commit_of(arrive("x", function="none", condition="Failed"), Changes(links=links)))
        await ingest(store, arrive("a"), success("b"), arrive("c"), rules=RERUN)
        claimed = await claim_one_of(store, "task")
        own = (await look(store, claimed)).gates.own
        assert (own.budget.credit, own.breaker.heard) == (2, True)
        assert (own.breaker.ok, own.breaker.bad, own.breaker.streak) == (1, 2, 1)

    run(scenario)


async def claim_one_of(store, key, *, now=NOW + HOUR):
    return next(claimed for claimed in await claim(store, now=now) if claimed.key == key)


def test_how_a_function_stands_is_kept_as_settled(run):
    async def scenario(store):
        await plan(store, rerun_row(), rerun_row("second"))
        first, second = await claim(store)
        breaker = Breaker(BreakerState.OPEN, 1, 2, 3, 4, NOW, NOW + MINUTE, MINUTE, heard=True)
        own = Standing("job", Pace(NOW, NOW - MINUTE, 0.25), Budget(7.5, NOW - HOUR), breaker)
        every = Standing("", Pace(NOW + SECOND))
        assert await store.admit(first, lambda _: Settle.go(changes=Changes(standings=(own, every))), now=NOW)
        seen = (await look(store, second)).gates
        assert (seen.own, seen.every) == (own, every)

    run(scenario)


def test_the_sums_tell_how_those_functions_stand_that_are_nearest_to_a_gate(run):
    async def scenario(store):
        await plan(store, rerun_row())
        (claimed,) = await claim(store)
        stand = [Standing(f"idle{number:02}") for number in range(STANDINGS)]
        busy = [Standing(name, budget=Budget(1, NOW - at * SECOND)) for name, at in (("busier", 1), ("busy", 2))]
        shut = Standing("shut", breaker=Breaker(BreakerState.OPEN))
        several = (Standing("", Pace(NOW)), *stand, *busy[::-1], shut)
        assert await store.admit(claimed, lambda _: Settle.go(changes=Changes(standings=several)), now=NOW)
        found = (await store.totals()).standings
        assert found == (shut, *busy, *stand[: STANDINGS - 3])

    run(scenario)


def test_the_oldest_of_those_that_wait_are_let_go(run):
    async def scenario(store):
        gates = {"a": Gate.BUDGET, "b": Gate.BREAKER, "c": Gate.BUDGET, "d": Gate.FUNCTION_RATE, "e": Gate.SWITCH}
        await plan(store, *map(rerun_row, gates), rerun_row("f", function="other"))
        for claimed in await claim(store):
            await store.admit(claimed, wait(gates.get(claimed.key, Gate.BUDGET), until=NOW + HOUR), now=NOW)
        where = {"name": "job", "service": "", "qualifier": "", "region": "", "account": ""}
        wake = NewRow("wake:job", RowKind.WAKE, NOW, {"function": where})
        await plan(store, wake)
        claimed = await claim_one(store)
        assert (await look(store, claimed)).gates.waiting == 3
        claimed = await claim_one(store)
        assert await store.settle(claimed, done(changes=Changes(wake=("job", 2))), now=NOW + SECOND)
        assert [row.key for row in await claim(store, now=NOW + SECOND)] == ["a", "b"]

    run(scenario)


def test_a_row_becomes_due_sooner_and_starts_again_when_it_was_finished(run):
    async def scenario(store):
        where = {"name": "job", "service": "", "qualifier": "", "region": "", "account": ""}

        def wake(due):
            return NewRow("wake:job", RowKind.WAKE, due, {"function": where}, sooner=True)

        await plan(store, wake(NOW + HOUR))
        for number, (due, expected) in enumerate([(NOW + 2 * HOUR, NOW + HOUR), (NOW + MINUTE, NOW + MINUTE)]):
            await store.commit(commit_of(arrive(f"x-{number}"), Changes(rows=(wake(due),))))
            assert await store.next_due() == expected
        claimed = await claim_one(store, now=NOW + MINUTE)
        await store.commit(commit_of(arrive("x-3"), Changes(rows=(wake(NOW),))))
        assert await store.settle(claimed, done(), now=NOW + MINUTE), "our claim holds"
        await store.commit(commit_of(arrive("x-4"), Changes(rows=(wake(NOW + HOUR),))))
        claimed = await claim_one(store, now=NOW + HOUR)
        assert (claimed.attempts, claimed.interrupted) == (1, False)

    run(scenario)


@pytest.mark.parametrize("scope", [Scope.ALL, Scope.RULE])
def test_after_a_stop_the_rate_begins_low(run, scope):
    async def scenario(store):
        await store.switch_off(off(scope))
        await plan(store, rerun_row(), rerun_row("other", function="other"))
        for claimed in await claim(store):
            if claimed.key == "task":
                await store.admit(claimed, wait(), now=NOW)
            else:
                await store.settle(claimed, lambda _: Settle.retry(due_at=NOW, note=""), now=NOW)
        await let_on(store, scope, now=NOW + MINUTE)
        slow, usual = Pace(None, NOW + MINUTE, BEGINNING), Pace()
        gates = {row.key: (await look(store, row)).gates for row in await claim(store, now=NOW + MINUTE)}
        assert gates["task"].own.pace == (usual if scope is Scope.ALL else slow)
        assert gates["other"].own.pace == usual
        assert gates["task"].every.pace == (slow if scope is Scope.ALL else usual)
        await store.slow_start(now=NOW + HOUR)
        claimed = await claim_one_of(store, "task")
        assert (await look(store, claimed)).gates.every.pace == Pace(None, NOW + HOUR, BEGINNING)

    run(scenario)


def test_of_one_function_only_so_many_are_taken_at_a_time(run):
    async def scenario(store):
        rows = [rerun_row(f"slow-{number}", function="slow") for number in range(5)]
        await plan(store, *rows, rerun_row("quick", function="quick"), row("told"), row("later", due=NOW + MINUTE))
        first = await store.claim_due(now=NOW, lease=LEASE, limit=4, places=Places(2))
        assert [claimed.key for claimed in first] == ["slow-0", "slow-1"]
        places = Places(2, {"slow": 2})
        second = await store.claim_due(now=NOW, lease=LEASE, limit=4, places=places)
        assert [claimed.key for claimed in second] == ["quick", "told"]
        assert await store.next_due(places=places) == NOW + MINUTE
        assert await store.next_due() == NOW
        third = await store.claim_due(now=NOW, lease=LEASE, limit=4, places=Places(2, {"slow": 1}))
        assert [claimed.key for claimed in third] == ["slow-2"]

    run(scenario)


def test_several_slow_ones_leave_places_for_those_that_have_none(run):
    async def scenario(store):
        rows = [rerun_row(f"{name}-{number}", function=name) for number in range(4) for name in ("a", "b", "c")]
        await plan(store, *rows, rerun_row("quick-0", function="quick"), rerun_row("quick-1", function="quick"))
        under_way = {"a": 2, "b": 1}
        first = await store.claim_due(now=NOW, lease=LEASE, limit=14, places=Places(2, under_way, crowd=4))
        assert [claimed.key for claimed in first] == ["b-0", "c-0", "quick-0"]
        full = Places(2, {"a": 2, "b": 2, "c": 1, "quick": 1}, crowd=4)
        assert await store.claim_due(now=NOW, lease=LEASE, limit=14, places=full) == []
        free = Places(2, {"c": 1}, crowd=4)
        third = await store.claim_due(now=NOW, lease=LEASE, limit=14, places=free)
        assert [claimed.key for claimed in third] == ["a-0", "a-1", "b-1", "quick-1"]

    run(scenario)


# --- commit ---------------------------------------------------------------------------------------------------------


def test_a_stored_envelope_is_known_by_its_digest(run):
    async def scenario(store):
        first = arrive("r-1")
        await ingest(store, first)
        snapshot = await store.load_facts([first, arrive("r-2")])
        assert snapshot.seen == {"r-1": first.envelope.digest}

    run(scenario)


def test_a_request_id_is_stored_once(run):
    async def scenario(store):
        commit = commit_of(arrive("r-1"), Changes())
        await store.commit(commit)
        with pytest.raises(StoreConflict):
            await store.commit(commit)

    run(scenario)


def conflicting_commits():
    lineage = Lineage("old", State.RERUN_PENDING, 1, NOW, "again", 0)
    moved = replace(lineage, state=State.HEALED)
    new = arrive("new")
    return {
        "request id": Commit(NOW, "", decided=(decided_of(new), decided_of(arrive("old")))),
        "lineage exists": Commit(NOW, "", decided=(decided_of(new, lineage),)),
        "lineage moved on": Commit(NOW, "", decided=(decided_of(new, replace(moved, version=2)),)),
        "lineage never was": Commit(NOW, "", decided=(decided_of(new, replace(moved, root="none", version=1)),)),
        "the second of two moves": Commit(
            NOW,
            "",
            decided=(
                decided_of(new, replace(moved, version=1)),
                decided_of(arrive("new-2"), replace(moved, version=1)),
            ),
        ),
    }


def decided_of(arrived, *lineages):
    rows = (row(f"row-of-{arrived.envelope.request_id}"),)
    group = AlertGroup("g", ("default",), "warning", {}, WAIT, INTERVAL)
    alerts = (NewAlert(group, "old", arrived.envelope.request_id, Cause.FAILED),)
    links = (Link("link", "old", 1),)
    changes = Changes(lineages, links, rows, alerts, cancel=("kept",))
    return Decided(arrived, Decision(Reason.MATCHED, lineage=next(iter(lineages), None)), changes, "")


@pytest.mark.parametrize("case", conflicting_commits())
def test_a_conflicting_commit_leaves_nothing(run, case):
    async def scenario(store):
        lineage = Lineage("old", State.RERUN_PENDING, 1, NOW, "again", 0)
        await store.commit(commit_of(arrive("old"), Changes((lineage,), rows=(row("kept", due=NOW + HOUR),))))
        before = await store.totals()
        commit = replace(conflicting_commits()[case], quarantined=(garbage(),), conflicts=(arrive("old", error="x"),))
        with pytest.raises(StoreConflict):
            await store.commit(commit)
        assert await store.totals() == before
        assert await store.failure("new") is None
        assert await store.quarantined(limit=9) == []
        assert (await store.load_facts([arrive("link")])).lineages == {}
        assert await store.next_due() == NOW + HOUR
        assert await claim(store) == []
        await store.commit(commit_of(arrive("new"), Changes((replace(lineage, version=1),))))

    run(scenario)


def test_later_results_of_a_batch_build_on_earlier_ones(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), rules=RERUN)
        task = task_id("r-1", 1)
        await store.commit(commit_of(success("other"), Changes(links=(Link("a", "r-1", 1), Link("b", "r-1", 1)))))
        await ingest(store, arrive("a"), success("b"), rules=RERUN)
        detail = await store.failure("b")
        assert (detail.row.state, detail.row.reason, detail.row.root) == ("healed", "healed", "r-1")
        assert (await store.load_facts([arrive(task)])).lineages[task].version == 3

    run(scenario)


def test_the_same_body_again_changes_nothing_but_the_sums(run):
    async def scenario(store):
        first = arrive("r-1")
        await ingest(store, first)
        before = await store.totals()
        await ingest(store, first, first)
        assert await store.totals() == replace(before, received=3, duplicates=2)

    run(scenario)


def test_another_body_under_the_same_id_is_kept_once_and_counted_each_time(run):
    async def scenario(store):
        original, other = arrive("r-1"), arrive("r-1", error="quite different")
        await ingest(store, original)
        await ingest(store, other)
        await ingest(store, other)
        totals, detail = await store.totals(), await store.failure("r-1")
        assert (totals.conflicts, totals.decided) == (2, 1)
        assert [kept["digest"] for kept in detail.conflicts] == [other.envelope.digest]
        assert detail.conflicts[0]["body"] == other.envelope.body.decode()
        assert detail.envelope["body"] == original.envelope.body.decode()

    run(scenario)


def test_groups_count_failures_from_the_first_on(run):
    async def scenario(store):
        await ingest(store, arrive("r-1", error="id 1"), arrive("r-2", error="id 2"))
        await ingest(store, arrive("r-3", error="id 3"), arrive("r-4", error="id 4"), now=NOW + HOUR)
        asked = arrive("r-5", error="id 5")
        group = (await store.load_facts([asked])).groups[asked.fingerprint]
        assert (group.first_seen, group.count) == (NOW, 4)
        assert (group.last_seen, group.back_since, group.recent) == (NOW + HOUR, NOW, None)

    run(scenario)


def test_rates_of_groups_come_from_the_last_hour_when_they_are_asked_for(run):
    async def scenario(store):
        for minute in (0, 1, 58, 59, 59, 60):
            await ingest(
                store, *(arrive(f"r-{minute}-{n}", error=f"id {n}") for n in range(10)), now=NOW + minute * MINUTE
            )
        await ingest(store, arrive("other", function="quite-another"), now=NOW + 60 * MINUTE)
        asked, stranger = arrive("r", error="id 1"), arrive("s", function="unheard-of")
        now = NOW + 60.5 * MINUTE
        snapshot = await store.load_facts([asked, stranger], rates_at=now)
        assert snapshot.rates
        assert stranger.fingerprint not in snapshot.groups
        # the second delivery of minute 59 brought nothing new; half of the minutes 59 and 0 is within 1 m and 60 m
        assert snapshot.groups[asked.fingerprint].recent == (15, 30, 30, 45)
        later = await store.load_facts([asked], rates_at=NOW + 3 * HOUR)
        assert later.groups[asked.fingerprint].recent == (0, 0, 0, 0)
        decisions = decide_batch([asked, arrive("r2", error="id 2")], snapshot, ALERT, now=now)
        assert decisions[1].facts.group.recent == (16, 31, 31, 46)

    run(scenario)


def test_a_group_is_back_after_a_day_of_silence(run):
    async def scenario(store):
        day = 24 * HOUR
        asked = arrive("asked")
        for n, at in enumerate((0 * day, day - SECOND, 2 * day - SECOND, 2 * day)):
            await ingest(store, arrive(f"r-{n}"), now=NOW + at)
        group = (await store.load_facts([asked])).groups[asked.fingerprint]
        assert (group.first_seen, group.back_since, group.last_seen) == (NOW, NOW + 2 * day - SECOND, NOW + 2 * day)

    run(scenario)


@pytest.mark.parametrize("message", [{"requestPayload": None}, {"payload": "x" * 300_000}])
def test_that_an_event_cannot_be_run_again_can_be_recalled(run, message):
    async def scenario(store):
        (decision,) = await ingest(store, arrive("r-1", **message), rules=RERUN)
        detail = await store.failure("r-1")
        assert recall(detail)[1] == decision.facts
        assert (detail.row.reason, detail.row.state) == (decision.facts.unfit.value, "alerting")

    run(scenario)


def test_what_deciding_saw_can_be_recalled(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"))
        again = replace(arrive("r-2"), labels={"team": "media \ud800"})
        snapshot = await store.load_facts([again], rates_at=NOW + 100 * SECOND)
        (decision,) = decide_batch([again], snapshot, ALERT, now=NOW + 100 * SECOND)
        item = decided(again, decision)
        await store.commit(Commit(NOW + 100 * SECOND, "rs-2", (item,)))
        known, facts, now = recall(await store.failure("r-2"))
        assert (facts, now) == (decision.facts, NOW + 100 * SECOND)
        assert facts.group.recent == (pytest.approx(1 / 3), 1, 1, 1)
        assert known.labels == {"team": "media ?"}

    run(scenario)


def test_reruns_that_people_asked_for_are_counted(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), rules=RERUN)
        task = task_id("r-1", 1)
        known = (await store.load_facts([arrive(task)])).lineages[task]
        assert known.manual == 0
        await store.commit(commit_of(success("s"), Changes((replace(known, attempt=2, manual=1),))))
        assert (await store.load_facts([arrive(task)])).lineages[task].manual == 1
        assert (await store.failure("r-1")).lineage["manual"] == 1

    run(scenario)


HOSTILE = {
    "lone surrogate": {"responsePayload": '{"errorMessage": "bad \\ud800 text"}'},
    "NUL": {"responsePayload": '{"errorMessage": "a\\u0000b"}'},
    "integer past 64 bits": {"responseContext": {"statusCode": 10**30, "functionError": "E"}},
    "first instant with an offset": {"timestamp": "0001-01-01T00:00:00+08:00"},
    "last instant with an offset": {"timestamp": "9999-12-31T23:59:59-08:00"},
    "a message of a megabyte": {"responsePayload": json.dumps({"errorMessage": "x" * (1 << 20)})},
    "a payload that is no JSON": {"requestPayload": '\\" \u0001 \U0001f600'},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_whatever_an_envelope_holds_can_be_stored(run, case):
    async def scenario(store):
        hostile = arrive("r-1", **HOSTILE[case])
        await ingest(store, hostile, rules=RERUN)
        await ingest(store, arrive("r-2", **HOSTILE[case]), rules=ALERT)
        assert (await store.failure("r-1")).envelope["body"].encode() == hostile.envelope.body
        assert await store.payload_of("r-1") == hostile.envelope.request_payload
        assert len(await store.failures(FailureFilter())) == 2

    run(scenario)


def test_the_payload_comes_back_byte_for_byte(run):
    async def scenario(store):
        payload = ' {"grüße":\t"\\u00e9 \U0001f680"}\r\n'
        await ingest(store, arrive("r-1", payload=payload))
        assert await store.payload_of("r-1") == payload.encode()
        assert await store.payload_of("r-2") is None

    run(scenario)


def test_an_event_that_a_message_does_not_tell_is_no_empty_event(run):
    async def scenario(store):
        await ingest(store, arrive("r-1", payload=None), arrive("r-2", payload=""))
        assert (await store.payload_of("r-1"), await store.payload_of("r-2")) == (None, b"")

    run(scenario)


def test_it_tells_which_requests_are_stored(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), success("r-2"))
        assert await store.known(["r-1", "r-2", "r-3", "'"]) == {"r-1", "r-2"}
        assert await store.known([]) == frozenset()

    run(scenario)


# --- claims ---------------------------------------------------------------------------------------------------------


def test_rows_are_claimed_when_due_oldest_first_within_the_limit(run):
    async def scenario(store):
        await plan(
            store, row("c", due=NOW), row("a", due=NOW - HOUR), row("b", due=NOW - SECOND), row("d", due=NOW + SECOND)
        )
        assert [claimed.key for claimed in await claim(store, limit=2)] == ["a", "b"]
        assert [claimed.key for claimed in await claim(store)] == ["c"]
        assert await claim(store) == []
        assert [claimed.key for claimed in await claim(store, now=NOW + SECOND)] == ["d"]

    run(scenario)


def test_a_claimed_row_carries_all_that_was_planned(run):
    async def scenario(store):
        await plan(store, row("k", kind=RowKind.EXPECT, payload={"n": [1, "é"]}, root="r", group="g"))
        claimed = await claim_one(store)
        assert (claimed.kind, claimed.state, claimed.due_at) == (RowKind.EXPECT, RowState.PENDING, NOW)
        assert (claimed.payload, claimed.root, claimed.group) == ({"n": [1, "é"]}, "r", "g")
        assert (claimed.attempts, claimed.interrupted) == (1, False)

    run(scenario)


def test_a_row_with_a_known_key_is_ignored(run):
    async def scenario(store):
        await plan(store, row("k", payload={"n": 1}))
        await store.commit(commit_of(arrive("x"), Changes(rows=(row("k", payload={"n": 2}),))))
        assert (await claim_one(store)).payload == {"n": 1}

    run(scenario)


def test_a_lease_that_ran_out_is_claimed_again_and_says_so(run):
    async def scenario(store):
        await plan(store, row("k"))
        first = await claim_one(store)
        assert await claim(store, now=NOW + LEASE - SECOND) == []
        second = await claim_one(store, now=NOW + LEASE)
        assert (second.attempts, second.interrupted) == (2, True)
        assert second.token != first.token
        assert not await store.settle(first, done(), now=NOW + LEASE), "the first claim was lost"
        assert await store.settle(second, done(), now=NOW + LEASE)

    run(scenario)


def test_a_claim_that_ran_out_still_settles_while_nobody_else_has_it(run):
    async def scenario(store):
        await plan(store, row("k"))
        assert await store.settle(await claim_one(store), done(), now=NOW + HOUR)

    run(scenario)


def test_a_lost_claim_writes_nothing_and_asks_nobody(run):
    async def scenario(store):
        await plan(store, row("k"))
        lost_claim = await claim_one(store)
        await claim_one(store, now=NOW + LEASE)
        asked = []
        assert not await store.settle(lost_claim, asked.append, now=NOW + LEASE)
        assert asked == []
        assert (await store.totals()).outbox == {"notify": 1}
        assert (await store.totals()).outbox_due == {"notify": row("k").due_at}

    run(scenario)


@pytest.mark.parametrize("outcome", [Settle.done(), Settle.dead(note="no use")], ids=["done", "dead"])
def test_a_finished_row_is_never_claimed_nor_settled_again(run, outcome):
    async def scenario(store):
        await plan(store, row("k"))
        claimed = await claim_one(store)
        assert await store.settle(claimed, lambda _facts: outcome, now=NOW)
        assert not await store.settle(claimed, lambda _facts: outcome, now=NOW)
        assert await claim(store, now=NOW + 24 * HOUR) == []
        assert await store.next_due() is None
        assert (await store.totals()).outbox == {}
        assert (await store.totals()).outbox_due == {}

    run(scenario)


@pytest.mark.parametrize("again", [Settle.retry, Settle.unknown])
def test_a_row_that_goes_on_is_claimed_at_its_new_time(run, again):
    async def scenario(store):
        await plan(store, row("k", payload={"n": 1}), row("same", payload={"n": 1}))
        for claimed in await claim(store):
            payload = {"n": 2} if claimed.key == "k" else None
            outcome = again(due_at=NOW + HOUR, note="later", payload=payload)
            assert await store.settle(claimed, lambda _facts, outcome=outcome: outcome, now=NOW)
            assert not await store.settle(claimed, done(), now=NOW), "settling ends the claim"
        assert await claim(store, now=NOW + HOUR - SECOND) == []
        claimed = await claim(store, now=NOW + HOUR)
        assert {item.key: item.payload["n"] for item in claimed} == {"k": 2, "same": 1}
        state = RowState.UNKNOWN if again == Settle.unknown else RowState.PENDING
        assert {(item.state, item.attempts, item.interrupted) for item in claimed} == {(state, 2, False)}

    run(scenario)


def test_next_due_is_the_due_time_or_the_end_of_the_lease(run):
    async def scenario(store):
        assert await store.next_due() is None
        await plan(store, row("a", due=NOW), row("b", due=NOW + HOUR))
        assert await store.next_due() == NOW
        claimed = await claim_one(store)
        assert await store.next_due() == NOW + LEASE
        assert await store.settle(claimed, done(), now=NOW)
        assert await store.next_due() == NOW + HOUR

    run(scenario)


def test_a_cancelled_row_is_gone_even_under_a_claim(run):
    async def scenario(store):
        await plan(store, row("waiting"), row("claimed", due=NOW - SECOND), row("finished", due=NOW - HOUR))
        finished, claimed = await claim(store, limit=2)
        assert await store.settle(finished, done(note="kept"), now=NOW)
        cancel = ("waiting", "claimed", "finished", "never was")
        await store.commit(commit_of(arrive("x"), Changes(cancel=cancel)))
        assert not await store.settle(claimed, done(), now=NOW)
        assert await claim(store, now=NOW + HOUR) == []
        assert await store.next_due() is None

    run(scenario)


def test_a_row_is_cancelled_by_a_later_step_of_its_own_batch_only(run):
    async def scenario(store):
        batch = Commit(
            NOW,
            "",
            decided=(
                *commit_of(arrive("1"), Changes(rows=(row("a"),), cancel=("b",))).decided,
                *commit_of(arrive("2"), Changes(rows=(row("b"),), cancel=("a",))).decided,
            ),
        )
        await store.commit(batch)
        assert [claimed.key for claimed in await claim(store)] == ["b"]

    run(scenario)


# --- settling -------------------------------------------------------------------------------------------------------


def test_settling_sees_the_lineage_as_it_is_now_and_moves_it(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), rules=RERUN)
        claimed = await claim_one(store)
        seen = (await look(store, claimed)).lineage
        assert (seen.root, seen.state, seen.attempt, seen.version) == ("r-1", State.RERUN_PENDING, 1, 1)
        assert (seen.started_at, seen.rule_id) == (NOW, "again")
        again = await claim_one(store)
        assert await store.settle(again, lambda facts: submitted(again, facts, request_id="child", now=NOW), now=NOW)
        assert (await store.failure("r-1")).row.state == "rerunning"
        assert (await store.load_facts([arrive("child")])).lineages["child"].version == 2
        assert await store.next_due() == NOW + timedelta(hours=24), "the expect row"

    run(scenario)


def test_settling_on_an_outdated_lineage_is_refused_whole(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), rules=RERUN)
        claimed = await claim_one(store)
        stale = Lineage("r-1", State.RERUNNING, 1, NOW, "again", 7)
        with pytest.raises(StoreConflict):
            await store.settle(claimed, done(changes=Changes((stale,), rows=(row("k"),))), now=NOW)
        assert (await store.totals()).outbox == {"rerun": 1}
        assert await store.settle(claimed, done(), now=NOW), "the claim is still ours"

    run(scenario)


def test_what_the_reaction_raises_reaches_the_caller_and_nothing_is_written(run):
    async def scenario(store):
        await plan(store, row("k"))
        claimed = await claim_one(store)

        def react(_facts):
            raise ZeroDivisionError("a defect")

        with pytest.raises(ZeroDivisionError):
            await store.settle(claimed, react, now=NOW)
        assert await store.settle(claimed, done(), now=NOW)

    run(scenario)


def test_a_row_without_lineage_or_group_sees_neither(run):
    async def scenario(store):
        await plan(store, row("k", group="unheard of"), row("f", kind=RowKind.FLUSH, group="unheard of", root="none"))
        for claimed in await claim(store):
            facts = await look(store, claimed)
            assert (facts.lineage, facts.group) == (None, None)

    run(scenario)


# --- alerts ---------------------------------------------------------------------------------------------------------


def test_alerts_of_a_group_wait_for_one_flush(run):
    async def scenario(store):
        await ingest(store, *(arrive(f"r-{n}", error="same") for n in range(3)))
        await ingest(store, *(arrive(f"r-{n}", error="same") for n in range(3, 7)), now=NOW + SECOND)
        assert await store.next_due() == NOW + WAIT
        claimed = await claim_one(store, now=NOW + WAIT)
        view = (await look(store, claimed, now=NOW + WAIT)).group
        assert claimed.kind is RowKind.FLUSH
        assert (view.flushes, view.told, view.causes) == (0, 0, {Cause.FAILED: 7})
        assert (view.first_at, view.last_at) == (NOW, NOW + SECOND)
        assert [sample.request_id for sample in view.samples] == ["r-6", "r-5", "r-4", "r-3", "r-2"]
        assert view.group.receivers == ("default",)
        assert (view.group.group_wait, view.group.group_interval) == (WAIT, INTERVAL)
        assert view.group.labels["function"] == "job"

    run(scenario)


async def flush_once(store, *, now):
    claimed = await claim_one(store, now=now)
    assert claimed.kind is RowKind.FLUSH
    assert await store.settle(claimed, lambda facts: flush(facts, now=now), now=now)
    return claimed.group


async def deliver_all(store, *, now, outcome=None):
    for claimed in await claim(store, now=now):
        assert claimed.kind is RowKind.NOTIFY
        told = Changes(told=((claimed.group, claimed.payload["flush"]),))
        settle = outcome or Settle.done(delivery="sent", changes=told)
        assert await store.settle(claimed, lambda _facts, settle=settle: settle, now=now)


def test_what_comes_after_a_flush_belongs_to_the_next_one(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), arrive("r-2"))
        first = NOW + WAIT
        await flush_once(store, now=first)
        await deliver_all(store, now=first)
        await ingest(store, arrive("r-3"), now=first + SECOND)
        assert await store.next_due() == first + INTERVAL, "the group is not told sooner than its interval"
        claimed = await claim_one(store, now=first + INTERVAL)
        view = (await look(store, claimed, now=first + INTERVAL)).group
        assert (view.flushes, view.told, view.causes) == (1, 2, {Cause.FAILED: 1})
        assert [sample.request_id for sample in view.samples] == ["r-3"]

    run(scenario)


def test_a_flush_takes_what_it_saw_and_the_group_adds_up_what_was_told(run):
    async def scenario(store):
        await ingest(store, *(arrive(f"r-{number}") for number in range(5)))
        for number, (expected, taken) in enumerate([(5, 2), (3, 2), (1, 1)], start=1):
            claimed = await claim_one(store, now=NOW + HOUR)
            view = (await look(store, claimed)).group
            assert (view.flushes, view.told, sum(view.causes.values())) == (number - 1, 5 - expected, expected)
            last_id, incident = view.last_id - expected + taken, Incident(1, GroupState.ONGOING, first=1)
            changes = Changes(looked=(Looked(claimed.group, number, last_id, made=True, incident=incident),))
            outcome = Settle.retry(due_at=NOW, note="", changes=changes)
            claimed = await claim_one(store, now=NOW + HOUR)
            assert await store.settle(claimed, lambda _facts, outcome=outcome: outcome, now=NOW)
        view = (await look(store, await claim_one(store, now=NOW + HOUR))).group
        assert (view.flushes, view.told, view.causes, view.samples, view.last_id) == (3, 5, {}, (), 0)
        assert (view.first_at, view.last_at) == (None, None)

    run(scenario)


def test_it_is_known_which_lineages_went_into_a_flush(run):
    async def scenario(store):
        await ingest(store, arrive("r-2"), arrive("r-1"), arrive("r-3"))
        group = await flush_once(store, now=NOW + WAIT)
        await ingest(store, arrive("r-4"), now=NOW + WAIT)
        assert await store.lineages_in(group, 1, limit=10) == ["r-1", "r-2", "r-3"]
        assert await store.lineages_in(group, 1, limit=2) == ["r-1", "r-2"]
        assert await store.lineages_in(group, 2, limit=10) == []
        assert await store.lineages_in("other", 1, limit=10) == []

    run(scenario)


def test_a_quiet_group_is_looked_at_an_interval_after_the_last_look_when_an_alert_comes(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"))
        await flush_once(store, now=NOW + WAIT)
        await deliver_all(store, now=NOW + WAIT)
        rest = NOW + WAIT + 2 * INTERVAL
        await flush_once(store, now=rest)  # nothing waits: it is quiet
        assert await store.next_due() == rest + INTERVAL
        await ingest(store, arrive("r-2"), now=rest + SECOND)
        claimed = await claim_one(store, now=rest + INTERVAL)
        assert not claimed.interrupted
        assert (await look(store, claimed)).group.causes == {Cause.FAILED: 1}

    run(scenario)


@pytest.mark.parametrize(
    ("rest", "due_after"),
    [(SECOND, INTERVAL), (INTERVAL, INTERVAL + WAIT)],
    ids=["soon: not before the interval", "long after: after the wait"],
)
def test_a_resolved_group_is_revived_by_its_next_alert(run, rest, due_after):
    async def scenario(store):
        await ingest(store, arrive("r-1"))
        await flush_once(store, now=NOW + WAIT)
        await deliver_all(store, now=NOW + WAIT)
        over = NOW + HOUR
        await flush_once(store, now=over)
        await deliver_all(store, now=over)  # that it is over
        assert await store.next_due() is None
        await ingest(store, arrive("r-2"), now=over + rest)
        assert await store.next_due() == over + due_after
        claimed = await claim_one(store, now=over + due_after)
        assert (claimed.attempts, claimed.interrupted) == (1, False)
        view = (await look(store, claimed)).group
        assert (view.causes, view.incident.state) == ({Cause.FAILED: 1}, GroupState.RESOLVED)

    run(scenario)


def test_what_is_remembered_of_a_group_comes_back_as_it_was(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), arrive("r-2"))
        claimed = await claim_one(store, now=NOW + WAIT)
        kept = Incident(
            number=3,
            state=GroupState.ESCALATING,
            opened_at=NOW,
            last_at=NOW + SECOND,
            looked_at=NOW + WAIT,
            told_at=NOW + 2 * SECOND,
            first_told_at=NOW + SECOND,
            first=1,
            count=2,
            messages=4,
            repeats=1,
            rate=2.5,
            known=("k/failed",),
            unsaid={"default": 7},
            told_to=("default", "boss"),
            escalated=1,
            ack=Ack("ana", "mine", NOW),
        )
        looked = Looked(claimed.group, 1, 2, made=False, incident=kept)
        outcome = Settle.retry(due_at=NOW, note="", changes=Changes(looked=(looked,)))
        assert await store.settle(claimed, lambda _facts: outcome, now=NOW + WAIT)
        view = (await look(store, await claim_one(store, now=NOW + WAIT))).group
        assert view.incident == kept
        assert (view.flushes, view.told, view.states) == (0, 0, {"suppressed": 2})
        assert (await store.totals()).states == {"suppressed": 2}

    run(scenario)


def test_what_was_only_counted_is_told_by_the_next_message(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"))
        for number, minute in ((2, 1), (3, 10), (4, 20)):
            await flush_once(store, now=NOW + minute * MINUTE)
            await deliver_all(store, now=NOW + minute * MINUTE)
            await ingest(store, arrive(f"r-{number}"), now=NOW + minute * MINUTE + SECOND)
        assert (await store.totals()).states == {"alerted": 1, "suppressed": 2, "alerting": 1}
        await flush_once(store, now=NOW + 61 * MINUTE)
        assert (await store.totals()).states == {"alerted": 1, "suppressed": 2, "alerting": 1}
        await deliver_all(store, now=NOW + 61 * MINUTE)
        assert (await store.totals()).states == {"alerted": 4}

    run(scenario)


def test_an_alert_that_comes_during_a_flush_is_not_lost(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"))
        claimed = await claim_one(store, now=NOW + WAIT)
        await ingest(store, arrive("r-2"), now=NOW + WAIT)
        assert await store.settle(claimed, lambda facts: flush(facts, now=NOW + WAIT), now=NOW + WAIT)
        await deliver_all(store, now=NOW + WAIT)
        assert (await store.totals()).states == {"alerted": 2}

    run(scenario)


def test_a_delivered_flush_moves_its_own_waiting_failures_only(run):
    async def scenario(store):
        await ingest(store, arrive("told"), arrive("healed"))
        await flush_once(store, now=NOW + WAIT)
        await ingest(store, arrive("later"), now=NOW + WAIT)
        healed = Lineage("healed", State.HEALED, 0, NOW, "tell", 1)
        await store.commit(commit_of(success("x"), Changes((healed,))))
        await deliver_all(store, now=NOW + WAIT)
        states = {row.request_id: row.state for row in await store.failures(FailureFilter())}
        assert states == {"told": "alerted", "healed": "healed", "later": "alerting"}
        stale = Lineage("told", State.HEALED, 0, NOW, "tell", 1)
        with pytest.raises(StoreConflict):  # being told is a move like any other
            await store.commit(commit_of(success("y"), Changes((stale,))))

    run(scenario)


def test_a_changed_policy_holds_for_the_group_from_its_next_alert_on(run):
    async def scenario(store):
        group = AlertGroup("g", ("a",), "warning", {"function": "job"}, WAIT, INTERVAL)
        changed = replace(group, severity="critical", labels={"function": "job", "owner": "us"}, group_interval=HOUR)
        for number, known in enumerate((group, changed)):
            alert = NewAlert(known, "", f"r-{number}", Cause.QUARANTINED, "why")
            unread = replace(garbage(message_id=f"m-{number}"), alert=alert)
            await store.commit(Commit(NOW + number * SECOND, "", quarantined=(unread,)))
        claimed = await claim_one(store, now=NOW + WAIT)
        view = (await look(store, claimed)).group
        assert view.group == changed
        assert [(s.request_id, s.cause, s.detail, s.attempts) for s in view.samples] == [
            ("r-1", Cause.QUARANTINED, "why", 0),
            ("r-0", Cause.QUARANTINED, "why", 0),
        ]

    run(scenario)


HOLD = RuleSet(
    (Rule("ask", Place("r.yaml", 1), hold=HoldPolicy("why", HOUR), alert=AlertPolicy(to=("boss",))),), "rs-3"
)


def says_no(row, facts):
    return rejected(row, facts, by="kim", reason="looked \ud800")


async def order(store, *request_ids, origin=Origin.MANUAL, now=NOW + MINUTE, limits=Limits(), **more):
    """Order re-runs; what was refused, by request id."""
    wanted = Order(origin, "kim", "looked \ud800", more.pop("due_at", now), **more)
    answers = await store.order(request_ids, wanted, limits=limits, now=now)
    return {name: answer.why for name, answer in zip(request_ids, answers, strict=True) if isinstance(answer, Refused)}


def test_a_held_failure_is_approved_once(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), rules=HOLD)
        assert (await store.failure("r-1")).row.state == "held"
        assert await order(store, "r-1", origin=Origin.PLAN) == {"r-1": Refusal.HELD}
        assert await order(store, "r-1", origin=Origin.APPROVAL) == {}
        assert await order(store, "r-1", origin=Origin.APPROVAL) == {"r-1": Refusal.UNDER_WAY}
        assert not await store.settle_now("hold:r-1", says_no, now=NOW + MINUTE)
        assert not await store.settle_now("hold:unheard-of", says_no, now=NOW)
        detail = await store.failure("r-1")
        assert (detail.row.state, detail.lineage["attempt"], detail.lineage["manual"]) == ("rerun_pending", 1, 1)
        deeds = [(deed["by"], deed["action"], deed["reason"], deed["request_id"]) for deed in detail.lineage["deeds"]]
        assert deeds == [("kim", "approve", "looked ?", "r-1")]
        assert detail.lineage["deeds"][0]["at"] == "2026-07-04T12:01:00.000000Z"
        assert [(row["kind"], row["state"]) for row in detail.outbox] == [("hold", "cancelled"), ("rerun", "pending")]
        assert task_id("r-1", 1) in (await store.load_facts([arrive(task_id("r-1", 1))])).lineages

    run(scenario)


def test_what_is_ignored_or_healed_is_no_open_end(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), arrive("r-2"), rules=HOLD)
        assert await store.settle_now("hold:r-1", says_no, now=NOW)
        await ingest(store, arrive("r-3"), rules=RERUN)
        await store.commit(commit_of(success("carrier"), Changes(links=(Link("c-3", "r-3", 1),))))
        assert [row.request_id for row in await store.failures(FailureFilter(open=True))] == ["r-3", "r-2"]
        await ingest(store, success("c-3"))
        assert [row.request_id for row in await store.failures(FailureFilter(open=True))] == ["r-2"]
        assert len(await store.failures(FailureFilter())) == 3

    run(scenario)


def test_a_held_failure_is_rejected_once(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), rules=HOLD)
        assert await store.settle_now("hold:r-1", says_no, now=NOW + MINUTE)
        assert not await store.settle_now("hold:r-1", says_no, now=NOW + MINUTE)
        detail = await store.failure("r-1")
        assert [(deed["by"], deed["action"], deed["reason"]) for deed in detail.lineage["deeds"]] == [
            ("kim", "reject", "looked ?")
        ]
        assert (detail.row.state, detail.outbox[0]["note"]) == ("ignored", "rejected by kim: looked ?")
        assert await order(store, "r-1", origin=Origin.APPROVAL) == {"r-1": Refusal.NOT_HELD}

    run(scenario)


def test_a_failure_is_run_again_by_order_and_its_result_joins(run):
    async def scenario(store):
        await ingest(store, arrive("r-1", payload='{"a": 1}'))
        assert await order(store, "r-1", due_at=NOW + HOUR, qualifier="canary") == {}
        assert [row for row in await claim(store, now=NOW + HOUR - SECOND) if row.kind is RowKind.RERUN] == []
        due = await claim(store, now=NOW + HOUR)
        (claimed,) = [row for row in due if row.kind is RowKind.RERUN]
        assert (claimed.key, claimed.payload["origin"], claimed.root) == (task_id("r-1", 1), "manual", "r-1")
        assert claimed.payload["function"]["qualifier"] == "canary"
        await store.settle(claimed, lambda facts: submitted(claimed, facts, request_id="c-1", now=NOW), now=NOW)
        assert await order(store, "r-1") == {"r-1": Refusal.UNDER_WAY}
        assert await order(store, "c-1") == {"c-1": Refusal.UNDER_WAY}  # a re-run's own id, before its result is here
        await ingest(store, arrive("c-1"), now=NOW + HOUR)
        assert await order(store, "c-1", now=NOW + HOUR) == {}
        detail = await store.failure("c-1")
        assert (detail.row.root, detail.lineage["attempt"], detail.lineage["manual"]) == ("r-1", 2, 2)
        assert (await store.load_facts([success("c-1")])).lineages["c-1"].manual == 2

    run(scenario)


@pytest.mark.parametrize(
    ("late", "state", "rows"),
    [(arrive, "rerunning", {"expect": "pending"}), (success, "healed", {"expect": "cancelled"})],
)
def test_a_late_result_of_an_earlier_attempt_starts_nothing_beside_the_later_one(run, late, state, rows):
    async def scenario(store):
        await ingest(store, arrive("r-1"), rules=HOLD)
        for attempt in (1, 2):
            now = NOW + attempt * MINUTE
            link = Changes(links=(Link(f"c-{attempt}", "r-1", attempt),))
            assert await order(store, "r-1", now=now) == {}
            await store.commit(commit_of(success(f"carrier-{attempt}"), link, now=now))
            (claimed,) = [row for row in await claim(store, now=now) if row.kind is RowKind.RERUN]
            if attempt == 1:  # nobody can tell what became of it, so a person orders another one
                known = (await store.load_facts([arrive("c-1")])).lineages["c-1"]
                ended = Changes((replace(known, state=State.ALERTED),), cancel=(claimed.key,))
                await store.commit(commit_of(success("given-up"), ended, now=now))
            else:
                await store.settle(claimed, lambda facts: submitted(claimed, facts, request_id="c-2", now=now), now=now)  # noqa: B023
        (decision,) = await ingest(store, late("c-1", at=NOW + HOUR), rules=RERUN, now=NOW + HOUR)
        assert decision.reason is (Reason.LATE if late is arrive else Reason.HEALED)
        detail = await store.failure("c-1")
        assert (detail.row.state, detail.row.attempt, detail.lineage["attempt"]) == (state, 1, 2)
        assert {row["kind"]: row["state"] for row in detail.outbox if row["kind"] == "expect"} == rows
        assert recall(detail)[1] == decision.facts
        totals = await store.totals()
        assert totals.failures == sum(totals.states.values())

    run(scenario)


def test_a_completed_success_is_run_again_without_becoming_a_failure(run):
    async def scenario(store):
        await ingest(store, success("s-1"))
        assert await order(store, "s-1") == {}
        totals = await store.totals()
        assert (totals.failures, totals.states) == (0, {})
        detail = await store.failure("s-1")
        assert (detail.row.state, detail.row.root, detail.row.outcome) == ("rerun_pending", "s-1", "succeeded")
        assert (detail.lineage["function"], detail.lineage["failures"]) == ("job", 0)
        assert [member["request_id"] for member in detail.lineage["members"]] == ["s-1"]
        assert await store.failures(FailureFilter()) == []
        await let_through(store, now=NOW + MINUTE)
        await ingest(store, arrive("c-1"), now=NOW + 2 * MINUTE)  # it overtakes the answer to its submit
        assert (await store.failure("c-1")).row.root == "s-1"
        totals = await store.totals()
        assert (totals.failures, totals.states) == (1, {"alerting": 1})

    run(scenario)


def test_orders_are_judged_one_after_the_other_and_a_refused_one_hinders_none(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), arrive("r-2", function="other"), arrive("r-3", requestPayload=None))
        refused = await order(store, "r-1", "r-1", "unheard-of", "r-3", "r-2")
        assert refused == {
            "r-1": Refusal.UNDER_WAY,
            "unheard-of": Refusal.UNKNOWN_ID,
            "r-3": Refusal.NO_PAYLOAD,
        }
        states = {row.request_id: row.state for row in await store.failures(FailureFilter())}
        assert states == {"r-1": "rerun_pending", "r-2": "rerun_pending", "r-3": "alerting"}
        assert await order(store, "r-2", limits=Limits(max_attempts=1)) == {"r-2": Refusal.UNDER_WAY}

    run(scenario)


def test_a_rule_s_own_re_runs_count_and_what_it_said_of_them_stays(run):
    async def scenario(store):
        policy = RerunPolicy(max_attempts=1, give_up_after=HOUR, idempotent=True, expect_within=HOUR)
        rules = RuleSet((Rule("again", Place("r.yaml", 1), rerun=policy),), "rs-4")
        await ingest(store, arrive("r-1"), rules=rules)
        (claimed,) = await claim(store)
        await store.settle(claimed, lambda facts: refused(claimed, facts, note="no"), now=NOW)
        assert await order(store, "r-1", limits=Limits(max_attempts=1)) == {"r-1": Refusal.EXHAUSTED}
        assert await order(store, "r-1") == {}
        (again,) = [row for row in await claim(store, now=NOW + MINUTE) if row.kind is RowKind.RERUN]
        assert (again.payload["attempt"], again.payload["idempotent"], again.payload["expect_within"]) == (
            2,
            True,
            3600,
        )
        assert again.payload["alert"]["labels"]["rule"] == "again"

    run(scenario)


def test_a_person_s_word_wins_over_a_claim(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), rules=HOLD)
        due = await store.claim_due(now=NOW + HOUR, lease=LEASE, limit=9)
        (claimed,) = [row for row in due if row.key == "hold:r-1"]
        assert await store.settle_now(claimed.key, says_no, now=NOW + HOUR)
        assert not await store.settle(claimed, lambda facts: unanswered(claimed, facts), now=NOW + HOUR)
        assert (await store.failure("r-1")).row.state == "ignored"

    run(scenario)


def test_what_is_held_again_waits_anew(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), rules=HOLD)
        link = Changes(links=tuple(Link(key, "r-1", 0) for key in ("again", "good", "bad")))
        await store.commit(commit_of(success("carrier"), link))
        await ingest(store, arrive("again"), rules=HOLD, now=NOW + MINUTE)
        assert [row["due_at"] for row in (await store.failure("r-1")).outbox] == ["2026-07-04T13:01:00.000000Z"]
        await ingest(store, success("good"), rules=HOLD, now=NOW + MINUTE)
        assert [row["state"] for row in (await store.failure("r-1")).outbox] == ["cancelled"]
        await ingest(store, arrive("bad"), rules=HOLD, now=NOW + 2 * MINUTE)
        detail = await store.failure("r-1")
        assert [(row["state"], row["due_at"][11:16]) for row in detail.outbox] == [("pending", "13:02")]
        assert detail.row.state == "held"
        assert await store.settle_now("hold:r-1", says_no, now=NOW)

    run(scenario)


def test_every_try_to_notify_is_kept_with_its_result(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"))
        group = await flush_once(store, now=NOW + WAIT)
        tries = [
            Settle.retry(due_at=NOW + WAIT, note="503", delivery="failed"),
            Settle.retry(due_at=NOW + WAIT, note="not tried"),
            Settle.done(delivery="sent", changes=Changes(told=((group, 1),))),
        ]
        for outcome in tries:
            await deliver_all(store, now=NOW + WAIT, outcome=outcome)
        await plan(store, row("n", payload={"receiver": "gone"}), row("r", kind=RowKind.RERUN))
        for claimed in await claim(store):
            await store.settle(claimed, lambda _facts: Settle.dead(note="no such receiver"), now=NOW)
        assert (await store.totals()).deliveries == {"failed": 1, "sent": 1, "dead": 1}
        kept = (await store.failure("r-1")).deliveries
        assert [(item["receiver"], item["result"], item["note"]) for item in kept] == [
            ("default", "failed", "503"),
            ("default", "sent", ""),
        ]

    run(scenario)


# --- lineages -------------------------------------------------------------------------------------------------------


def test_a_result_joins_its_lineage_by_request_id_or_task_id(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), rules=RERUN)
        claimed = await claim_one(store)
        await store.settle(claimed, lambda facts: submitted(claimed, facts, request_id="child", now=NOW), now=NOW)
        task = task_id("r-1", 1)
        lineages = (await store.load_facts([arrive("child"), arrive(task), arrive("stranger")])).lineages
        assert {key: lineage.root for key, lineage in lineages.items()} == {"child": "r-1", task: "r-1"}
        await ingest(store, arrive("child"), rules=RERUN)
        assert (await store.failure("child")).row.attempt == 1

    run(scenario)


def test_a_reconstructed_result_joins_by_the_task_it_was_made_from(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), rules=RERUN)
        claimed = await claim_one(store)
        await store.settle(claimed, lambda facts: submitted(claimed, facts, request_id="", now=NOW), now=NOW)
        sent = replace(arrive("not-told"), message_id=task_id("r-1", 1))
        made = replace(sent, envelope=replace(sent.envelope, digest=RECONSTRUCTED + sent.envelope.digest))
        assert (await store.load_facts([sent])).lineages == {}, "what was sent may have any message id"
        assert (await store.load_facts([made])).lineages["not-told"].root == "r-1"
        await ingest(store, made, rules=RERUN)
        shown = await store.failure("not-told")
        assert (shown.row.root, shown.row.attempt, shown.envelope["digest"]) == ("r-1", 1, made.envelope.digest)

    run(scenario)


def test_the_first_link_of_a_key_stays(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), arrive("r-2"), rules=RERUN)
        for root in ("r-1", "r-2"):
            await store.commit(commit_of(success(f"x-{root}"), Changes(links=(Link("child", root, 1),))))
        assert (await store.load_facts([arrive("child")])).lineages["child"].root == "r-1"

    run(scenario)


async def let_through(store, *, now=NOW):
    """Claim re-runs and let them pass the gates."""
    for claimed in await claim(store, now=now):
        assert await store.admit(claimed, lambda _facts: Settle.go(), now=now)


async def rerun_let_through(store):
    await let_through(store)


async def rerun_claimed(store):
    await claim_one(store)


async def rerun_kept_waiting(store):
    claimed = await claim_one(store)
    at_switch = Settle.wait(Gate.SWITCH, due_at=NOW + SECOND, note="off")
    assert not await store.admit(claimed, lambda _facts: at_switch, now=NOW)


async def rerun_without_answer(store):
    claimed = await claim_one(store)
    await store.settle(claimed, lambda facts: lost(claimed, facts, note="timed out", now=NOW), now=NOW)


async def rerun_postponed(store):
    claimed = await claim_one(store)
    assert await store.admit(claimed, lambda _facts: Settle.go(), now=NOW)
    await store.settle(claimed, lambda _facts: Settle.retry(due_at=NOW + SECOND, note="429"), now=NOW)


async def rerun_refused(store):
    claimed = await claim_one(store)
    await store.settle(claimed, lambda facts: refused(claimed, facts, note="404"), now=NOW)


async def rerun_planned(_store):
    pass


@pytest.mark.parametrize(
    ("step", "asked", "joins"),
    [
        (rerun_let_through, {}, True),
        (rerun_without_answer, {}, True),
        (rerun_planned, {}, False),
        (rerun_claimed, {}, False),
        (rerun_kept_waiting, {}, False),
        (rerun_postponed, {}, False),
        (rerun_refused, {}, False),
        (rerun_let_through, {"payload": "[]"}, False),
        (rerun_let_through, {"function": "other"}, False),
    ],
    ids=[
        "under way",
        "no answer",
        "not tried",
        "not let through",
        "at a gate",
        "told to wait",
        "refused",
        "other payload",
        "other function",
    ],
)
def test_a_result_that_overtook_the_answer_joins_by_function_and_payload(run, step, asked, joins):
    async def scenario(store):
        await ingest(store, arrive("r-1"), rules=RERUN)
        await step(store)
        lineages = (await store.load_facts([arrive("child", **asked)])).lineages
        assert list(lineages) == (["child"] if joins else [])

    run(scenario)


def test_a_submit_under_way_draws_no_result_of_another(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), rules=RERUN)
        await let_through(store)
        await ingest(store, arrive("r-2", payload="[2]"), rules=RERUN)
        assert list((await store.load_facts([arrive("a"), arrive("b", payload="[2]")])).lineages) == ["a"]

    run(scenario)


def test_two_overtaking_results_join_two_lineages(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), arrive("r-2"), rules=RERUN)
        await let_through(store)
        facts = await store.load_facts([arrive("a"), arrive("b"), arrive("c"), arrive("r-1")])
        assert sorted(lineage.root for lineage in facts.lineages.values()) == ["r-1", "r-2"]
        assert list(facts.lineages) == ["a", "b"]

    run(scenario)


# --- lists ----------------------------------------------------------------------------------------------------------


def test_an_empty_store_is_empty(run):
    async def scenario(store):
        assert await store.totals() == empty()
        assert await store.failures(FailureFilter()) == []
        assert await store.failure("r-1") is None
        assert await store.quarantined(limit=5) == []
        assert await store.quarantine_entry(1) is None
        assert await store.rule_set() is None
        assert await claim(store) == []

    run(scenario)


@pytest.mark.parametrize(
    ("which", "found"),
    [
        (FailureFilter(), ["e", "d", "c", "b", "a"]),
        (FailureFilter(limit=2), ["e", "d"]),
        (FailureFilter(function="img-*"), ["c", "a"]),
        (FailureFilter(function="img-[!r]*"), ["c"]),
        (FailureFilter(function="img"), []),
        (FailureFilter(state="rerun_pending"), ["e"]),
        (FailureFilter(open=True), ["e", "d", "c", "b", "a"]),
        (FailureFilter(open=True, text="timed out"), ["b", "a"]),
        (FailureFilter(state="alerting", function="mail"), ["d", "b"]),
        (FailureFilter(text="TIMED out"), ["b", "a"]),
        (FailureFilter(text="100%_"), ["c"]),
        (FailureFilter(text="oops"), ["e", "d", "c", "b", "a"]),
        (FailureFilter(text="~"), []),
        (FailureFilter(text="1_0"), []),
        (FailureFilter(text="t%t"), []),
        (FailureFilter(since=NOW + MINUTE, until=NOW + 3 * MINUTE), ["c", "b"]),
        (FailureFilter(group=arrive(function="mail", error="timed out").fingerprint), ["b"]),
        (FailureFilter(group=arrive(function="mail", error="timed out").fingerprint[:9]), ["b"]),
        (FailureFilter(group="v1-", text="refused"), ["e", "d"]),
    ],
)
def test_failures_are_listed_newest_first_by_filter(run, which, found):
    async def scenario(store):
        kept = [
            ("a", "img-resize", "timed out"),
            ("b", "mail", "timed out"),
            ("c", "img-x", "100%_"),
            ("d", "mail", "refused"),
        ]
        for number, (name, function, error) in enumerate(kept):
            at = NOW + number * MINUTE
            await ingest(store, arrive(name, function=function, error=error, at=at), now=at)
        await ingest(store, arrive("e", function="job", error="refused", at=at), rules=RERUN, now=at)
        await ingest(store, success("no failure", at=at), now=at)
        assert [row.request_id for row in await store.failures(which)] == found

    run(scenario)


def test_a_listed_failure_says_what_was_decided(run):
    async def scenario(store):
        await ingest(store, arrive("r-1", error="id 7"))
        (listed,) = await store.failures(FailureFilter())
        assert (listed.function, listed.condition, listed.outcome) == ("job", "Failed", "failed")
        assert (listed.error_type, listed.error_message) == ("Oops", "id 7")
        assert (listed.reason, listed.rule_id, listed.state) == ("matched", "tell", "alerting")
        assert (listed.root, listed.attempt, listed.received_at) == ("r-1", 0, NOW)

    run(scenario)


@pytest.mark.parametrize(
    ("asked", "found"),
    [("abc-1", "abc-1"), ("abc-2", "abc-22"), ("abc", None), ("abc-3", None), ("%", None), ("", None)],
    ids=["whole, though a prefix of another", "unique prefix", "ambiguous", "unknown", "no pattern", "nothing"],
)
def test_a_unique_prefix_finds_an_envelope(run, asked, found):
    async def scenario(store):
        await ingest(store, arrive("abc-1"), arrive("abc-11"), arrive("abc-22"))
        detail = await store.failure(asked)
        assert (detail and detail.row.request_id) == found

    run(scenario)


def test_a_failure_is_shown_with_all_that_happened_to_it(run):
    async def scenario(store):
        await ingest(store, arrive("r-1"), rules=RERUN)
        claimed = await claim_one(store)
        await store.settle(claimed, lambda facts: submitted(claimed, facts, request_id="child", now=NOW), now=NOW)
        await ingest(store, arrive("child", error="again"), now=NOW + SECOND)
        detail = await store.failure("r-1")
        assert detail.row.state == "alerting"
        assert set(detail.envelope) == {
            *("request_id", "function", "service", "qualifier", "region", "account", "condition", "outcome"),
            *("error_type", "error_message", "invoke_count", "status_code", "timestamp", "received_at", "enqueued_at"),
            *("source", "message_id", "fingerprint", "digest", "root", "attempt", "body"),
        }
        assert detail.envelope["received_at"] == "2026-07-04T12:00:00.000000Z"
        assert set(detail.decision) == {
            *("request_id", "decided_at", "reason", "rule_id", "rule_set", "facts", "effects", "also", "shadow")
        }
        assert detail.decision["rule_set"] == "rs-1"
        assert [effect["kind"] for effect in detail.decision["effects"]] == ["rerun"]
        assert set(detail.lineage) == {
            *(
                "root",
                "state",
                "attempt",
                "started_at",
                "updated_at",
                "rule_id",
                "version",
                "failures",
                "manual",
                "function",
            ),
            *("payload_key", "members", "deeds", "alerts"),
        }
        members = [(m["request_id"], m["attempt"], m["outcome"]) for m in detail.lineage["members"]]
        assert members == [("r-1", 0, "failed"), ("child", 1, "failed")]
        assert [(a["request_id"], a["cause"], a["flush"]) for a in detail.lineage["alerts"]] == [
            ("child", "failed", None)
        ]
        rows = {(item["kind"], item["state"]) for item in detail.outbox}
        assert rows == {("rerun", "done"), ("expect", "cancelled")}
        assert set(detail.outbox[0]) == {
            *("id", "key", "kind", "state", "due_at", "payload", "root", "group_key", "attempts", "token"),
            *("lease_until", "note", "created_at", "settled_at", "function", "gate"),
        }
        assert detail.outbox[0]["payload"]["request_id"] == "r-1"
        assert json.loads(json.dumps(detail.lineage)) == detail.lineage, "plain JSON"

    run(scenario)


def test_a_success_outside_any_lineage_is_shown_but_is_no_failure(run):
    async def scenario(store):
        await ingest(store, success("s-1"))
        detail = await store.failure("s-1")
        assert (detail.row.state, detail.row.root, detail.lineage, detail.outbox) == ("", "", None, [])
        assert await store.failures(FailureFilter()) == []
        assert (await store.totals()).failures == 0

    run(scenario)


def test_a_stored_decision_can_be_made_again(run):
    async def scenario(store):
        await ingest(store, arrive("r-0", error="id 1"), rules=RERUN)
        await store.commit(commit_of(success("x"), Changes(links=(Link("child", "r-0", 1), Link("good", "r-0", 1)))))
        made = {}
        for arrived in (arrive("r-1", error="id 2"), arrive("child", error="id 3"), success("good"), success("s")):
            (made[arrived.envelope.request_id],) = await ingest(store, arrived, rules=RERUN, now=NOW + MINUTE)
        for request_id, decision in made.items():
            again, facts, now = recall(await store.failure(request_id))
            assert decide(again, facts, RERUN, now=now) == decision
            assert (facts, now) == (decision.facts, NOW + MINUTE)

    run(scenario)


def test_quarantined_messages_are_kept_raw(run):
    async def scenario(store):
        first = garbage(bytes(range(256)))
        second = garbage(b"", reason="empty", detail="lone \ud800", at=NOW + SECOND, message_id="m-10")
        await ingest(store, quarantined=[first])
        await ingest(store, quarantined=[second])
        newest, oldest = await store.quarantined(limit=5)
        assert (oldest.body, oldest.received_at, oldest.reason) == (first.body, NOW, "not_utf8")
        assert (oldest.source, oldest.message_id, oldest.where, oldest.detail) == ("queue", "m-9", "byte 0", "no text")
        assert (newest.body, newest.reason) == (b"", "empty")
        assert await store.quarantined(limit=1) == [newest]
        assert await store.quarantine_entry(oldest.id) == oldest
        assert (await store.totals()).quarantined == 2

    run(scenario)


def test_a_quarantined_message_that_comes_again_is_a_duplicate(run):
    async def scenario(store):
        group = AlertGroup("g", ("a",), "warning", {}, WAIT, INTERVAL)
        first = replace(garbage(), alert=NewAlert(group, "", "m-9", Cause.QUARANTINED))
        await ingest(store, quarantined=[first, first])
        await ingest(
            store, quarantined=[first, garbage(source="other"), garbage(message_id=""), garbage(message_id="")]
        )
        totals = await store.totals()
        assert (totals.received, totals.quarantined, totals.duplicates) == (6, 4, 2)
        assert len(await store.quarantined(limit=9)) == 4
        claimed = await claim_one(store, now=NOW + WAIT)
        assert (await look(store, claimed)).group.causes == {Cause.QUARANTINED: 1}

    run(scenario)


def test_rule_sets_are_kept_and_the_last_good_one_is_remembered(run):
    async def scenario(store):
        first, second = (SourceText("a.yaml", "rules: []\n"),), (SourceText("b.yaml", "# é"), SourceText("c.yaml", ""))
        await store.save_rule_set("aa11", first, now=NOW)
        await store.save_rule_set("aa22", second, now=NOW)
        assert await store.rule_set() == ("aa22", second)
        assert await store.rule_set("aa1") == ("aa11", first)
        assert await store.rule_set("aa") is None, "ambiguous"
        assert await store.rule_set("b") is None
        await store.save_rule_set("aa11", first, now=NOW + HOUR)
        assert await store.rule_set() == ("aa11", first)
        assert await store.rules_state() == RulesState("aa11", NOW + HOUR)
        await store.save_rule_set("aa11", first, now=NOW + 2 * HOUR)
        assert await store.rules_state() == RulesState("aa11", NOW + HOUR), "it has been in force since then"

    run(scenario)


def test_refused_rules_are_remembered_and_told_once_until_a_set_is_good(run):
    wrong = (Problem("a.yaml", 3, 5, "unknown key 'mach'", "did you mean 'match'?", "    mach: \ud800"),)
    kept = (replace(wrong[0], excerpt="    mach: ?"),)

    async def refuse(store, problems, *, now):
        return await store.refuse_rules(problems, rules_alert(problems, policy=AlertPolicy()), now=now)

    async def scenario(store):
        assert await store.rules_state() is None
        await store.save_rule_set("aa11", (), now=NOW)
        assert await refuse(store, wrong, now=NOW + SECOND)
        assert not await refuse(store, wrong, now=NOW + 2 * SECOND), "known"
        assert await store.rules_state() == RulesState("aa11", NOW, kept, NOW + SECOND)
        assert await refuse(store, (Problem("b.yaml", 0, 0, "cannot be read"),), now=NOW + 3 * SECOND)
        assert await store.rule_set() == ("aa11", ()), "the last good one stays"
        (told,) = (await look(store, await claim_one(store, now=NOW + MINUTE))).group.causes.items()
        assert told == (Cause.RULES_REFUSED, 2)
        await store.save_rule_set("aa11", (), now=NOW + HOUR)
        assert await store.rules_state() == RulesState("aa11", NOW), "back to what was in force"
        assert await refuse(store, wrong, now=NOW + HOUR), "a new mistake, though the same"

    run(scenario)


def test_of_thousands_of_problems_some_are_remembered(run):
    async def scenario(store):
        await store.save_rule_set("aa11", (), now=NOW)
        problems = [Problem("a.yaml", line, 1, "wrong") for line in range(1, 5000)]
        assert await store.refuse_rules(problems, rules_alert(problems, policy=AlertPolicy()), now=NOW)
        state = await store.rules_state()
        assert list(state.problems) == problems[: len(state.problems)]
        assert 20 <= len(state.problems) <= 100

    run(scenario)


def test_a_closed_store_says_so(run):
    async def scenario(store):
        await store.close()
        await store.close()
        for call in (store.totals(), store.load_facts([]), claim(store)):
            with pytest.raises(StoreUnavailable, match="closed"):
                await call

    run(scenario)


# --- sums -----------------------------------------------------------------------------------------------------------

STEPS = st.one_of(
    st.tuples(st.just("fail"), st.integers(0, 5), st.sampled_from(["x", "y"]), st.sampled_from([RERUN, ALERT, HOLD])),
    st.tuples(st.just("result"), st.integers(0, 5), st.booleans(), st.sampled_from([RERUN, ALERT, HOLD])),
    st.tuples(st.just("order"), st.integers(0, 5), st.sampled_from([Origin.MANUAL, Origin.APPROVAL, Origin.PLAN])),
    st.tuples(st.just("reject"), st.integers(0, 5)),
    st.tuples(st.just("succeed"), st.integers(0, 5)),
    st.tuples(st.just("garbage"), st.integers(1, 3)),
    st.tuples(st.just("act"), st.sampled_from(["yes", "no", "later", "lost", "crash"])),
    st.tuples(st.just("pass"), st.sampled_from([MINUTE, HOUR])),
)


def reaction(claimed, answer, now):
    """What the outbox would say to ``answer`` for this kind of row."""
    if answer == "later":
        return lambda _facts: Settle.retry(due_at=now + MINUTE, note="later", delivery="failed")
    if claimed.kind is RowKind.FLUSH:
        return lambda facts: flush(facts, now=now)
    if claimed.kind is RowKind.HOLD:
        return lambda facts: unanswered(claimed, facts)
    if claimed.kind is RowKind.NOTIFY:
        told = Changes(told=((claimed.group, claimed.payload["flush"]),))
        return done(delivery="sent", changes=told) if answer == "yes" else lambda _facts: Settle.dead(note="gone")
    if claimed.kind is not RowKind.RERUN:
        return done()
    if answer == "yes":
        return lambda facts: submitted(claimed, facts, request_id=f"of-{claimed.key}", now=now)
    if answer == "lost":
        return lambda facts: lost(claimed, facts, note="", now=now)
    return lambda facts: refused(claimed, facts, note="")


async def play(store, steps):
    """Carry out random steps, as the two loops would; returns what a person could see at the end."""
    now = NOW
    for step in steps:
        match step:
            case "fail", number, error, rules:
                await ingest(
                    store, arrive(f"r-{number}", error=error, payload=f"{number % 2}", at=now), rules=rules, now=now
                )
            case "result", number, good, rules:
                request_id = f"of-{task_id(f'r-{number}', 1)}"
                ended = success(request_id, at=now) if good else arrive(request_id, at=now)
                await ingest(store, ended, rules=rules, now=now)
            case "succeed", number:
                await ingest(store, success(f"r-{number}", at=now), now=now)
            case "garbage", number:
                await ingest(store, quarantined=[garbage(message_id=f"m-{n}") for n in range(number)], now=now)
            case "act", answer:
                for claimed in await store.claim_due(now=now, lease=LEASE, limit=3):
                    if answer != "crash":
                        assert await store.settle(claimed, reaction(claimed, answer, now), now=now)
            case "order", number, origin:
                await order(store, f"r-{number}", f"of-{task_id(f'r-{number}', 1)}", origin=origin, now=now)
            case "reject", number:
                await store.settle_now(f"hold:r-{number}", says_no, now=now)
            case "pass", duration:
                now += duration
    listed = await store.failures(FailureFilter(limit=1000))
    return await store.totals(), [(row.request_id, row.state, row.root, row.attempt, row.reason) for row in listed]


@pytest.mark.parametrize("opened", STORES.values(), ids=STORES)
@settings(max_examples=60)
@given(steps=st.lists(STEPS, max_size=30))
def test_the_sums_add_up_and_every_store_agrees(tmp_path_factory, opened, steps):
    async def scenario():
        expected = await play(MemoryStore(), steps)
        async with opened(tmp_path_factory.mktemp("store")) as store:
            totals, listed = await play(store, steps)
            for request_id, state, *_ in listed:  # what is held has its row, and only that
                rows = [row for row in (await store.failure(request_id)).outbox if row["kind"] == "hold"]
                assert (state == "held") == any(row["state"] == "pending" for row in rows)
        assert (totals, listed) == expected
        assert totals.received == totals.decided + totals.duplicates + totals.conflicts + totals.quarantined
        assert totals.failures == sum(totals.states.values()) == len(listed)
        assert totals.states == Counter(state for _, state, *_ in listed)

    asyncio.run(scenario())


def test_kept_rule_sets_are_listed_the_newest_first(run):
    async def scenario(store):
        assert await store.kept_rules() == []
        for number, digest in enumerate(("bb", "aa", "cc")):
            await store.save_rule_set(digest, (SourceText(f"{digest}.yaml", ""),), now=NOW + (number // 2) * HOUR)
        await store.save_rule_set("bb", (), now=NOW + 5 * HOUR)  # kept already: it says when it first came into force
        assert await store.kept_rules() == [
            KeptRules("cc", NOW + HOUR, ("cc.yaml",)), KeptRules("aa", NOW, ("aa.yaml",)), KeptRules("bb", NOW, ("bb.yaml",)),
        ]  # fmt: skip

    run(scenario)


def test_hits_of_rules_are_counted_with_those_that_continue_or_only_watch(run):
    """A rule in shadow mode disagrees where it would have done something else than was done."""
    place, on_alert = Place("r.yaml", 1), AlertPolicy(group_by=("function",))
    only = Matcher("fn", "function: job", lambda subject: subject["fn"] == "job")
    rules = RuleSet(
        (
            Rule("calm", place, ignore="calm", mode=Mode.SHADOW),
            Rule("same", place, alert=AlertPolicy(to=on_alert.to), mode=Mode.SHADOW),
            Rule("audit", place, match=(only,), alert=AlertPolicy(to=("audit",)), continues=True),
            Rule("tell", place, alert=on_alert),
        ),
        "rs-3",
    )

    async def scenario(store):
        assert await store.rule_hits() == []
        await ingest(store, arrive("r-1"), rules=rules)
        await ingest(store, arrive("r-2", function="other"), success("r-3"), rules=rules, now=NOW + HOUR)
        assert await store.rule_hits() == [
            RuleHits("audit", hits=1, last_hit=NOW),
            RuleHits("calm", shadow_hits=2, last_shadow_hit=NOW + HOUR, disagreed=2),
            RuleHits("same", shadow_hits=2, last_shadow_hit=NOW + HOUR, disagreed=1),
            RuleHits("tell", hits=2, last_hit=NOW + HOUR),
        ]
        assert [hits.rule_id for hits in await store.rule_hits(since=NOW + HOUR)] == ["calm", "same", "tell"]
        assert await store.rule_hits(since=NOW + 2 * HOUR) == []

    run(scenario)
