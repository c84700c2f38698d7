"""Drills through both loops: they go the way of real failures, and every sum is what it is without them; a process that
dies anywhere loses none and tells none twice unless told so; nobody gets out of the sums by calling himself a drill.
"""

import asyncio
import hashlib
import json
from dataclasses import replace
from datetime import timedelta

import make
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from world import SHELVES, World, message

from triage.cli.drill_course import sample
from triage.drills import Drill, drill_id
from triage.errors import OutcomeUnknown
from triage.reruns.gate import Standing
from triage.reruns.rate import Pace
from triage.rules.model import AlertPolicy, HoldPolicy, RerunPolicy
from triage.stores.overview import overview
from triage.stores.shift import shift
from triage.testing import Crashes, FakeFunctions, FakeSource, ManualClock

MINUTE = timedelta(minutes=1)
RERUN = RerunPolicy(max_attempts=2, give_up_after=timedelta(hours=6), after=timedelta(seconds=10), jitter=0.0)
SOON = timedelta(seconds=5)
RULES = make.rules(
    make.rule("again", rerun=RERUN, alert=AlertPolicy(on=make.QUIET, group_wait=SOON), fn="again"),
    make.rule("ask", fn="held", more={"hold": HoldPolicy("was it paid?", timedelta(hours=1))}, alert=AlertPolicy()),
    make.rule("noise", fn="noise", ignore="it is noise"),
    make.rule("tell", alert=AlertPolicy(group_wait=SOON)),
)
FUNCTIONS = ("again", "held", "noise", "tell")
LIFE = timedelta(seconds=100)


def a_drill(function="again", *, number=1, until=make.NOW + 2 * MINUTE, **wanted):
    """A drill that was ordered, and its envelope."""
    name = drill_id(until, f"{number}")
    body = sample(name, function, "", "", make.NOW)
    return Drill(name, hashlib.sha256(body).hexdigest(), "ana", make.NOW, **wanted), body


def lived(shelf, sent, crashes=None):
    """A world in which this was sent: bodies, or drills with theirs."""
    clock = ManualClock(make.NOW)
    source = FakeSource(clock=clock)
    functions = FakeFunctions(clock, source, outcomes=(False,))
    world = World(shelf, RULES, clock=clock, invoker=functions, source=source, storm=3)

    async def live():
        async with shelf.opened() as store:
            for each in sent:
                if isinstance(each, tuple):
                    await store.expect_drill(each[0])
                source.put(each[1] if isinstance(each, tuple) else each)
        if crashes is not None:
            await world.live(crashes, until=LIFE)
        await world.live(Crashes(), until=LIFE)

    asyncio.run(live())
    return world, functions


def sums(world):
    async def ask():
        async with world.shelf.opened() as store:
            return await store.totals(), await store.rule_hits()

    totals, hits = asyncio.run(ask())
    asked = {
        table: sorted(tuple(row) for row in world.ask(f"SELECT {columns} FROM {table}"))
        for table, columns in {
            "groups": "fingerprint, count, first_seen, last_seen, message",
            "counters": "name, value",
            "functions": "function, credit, ok, bad, streak, breaker, heard, succeeded",
        }.items()
    }
    asked["counters"] = [each for each in asked["counters"] if each[1]]
    never = ["", 0.0, 0, 0, 0, "closed", 0, 0]
    asked["functions"] = [each for each in asked["functions"] if list(each[1:]) != never[1:]]
    with world.shelf.looked_at() as connection:
        seen = overview(connection, now=world.clock.now())
        asked["overview"] = [seen.results, seen.minutes, seen.gates, seen.incidents, seen.groups_total]
        asked["overview"] += [
            [(each.kind, each.rows) for each in seen.outbox],
            [dict(r.results) for r in seen.receivers],
        ]
        reported = shift(connection, since=make.NOW)
        asked["report"] = [reported.states, reported.groups_total, reported.spared, reported.stopped]
    work = world.work
    asked["metrics"] = [work.messages, +work.decisions, +work.reruns, +work.notified, +work.rule_errors]
    # A real submit takes its turn in the rate, drill or not.
    standings = tuple(replace(each, pace=Pace()) for each in totals.standings)
    standings = tuple(each for each in standings if each != Standing(each.function))
    totals = replace(totals, outbox_due={}, standings=standings)
    return totals, [(each.rule_id, each.hits, each.alerts) for each in hits], asked


@pytest.mark.parametrize("kind", SHELVES)
@pytest.mark.parametrize("function", ["again", "held", "tell"])
def test_it_goes_all_the_way_and_is_told_as_what_it_is(tmp_path, kind, function):
    drill = a_drill(function, to="boss")
    world, functions = lived(SHELVES[kind](tmp_path), [drill])
    (told, *more) = world.bell.rung
    assert told.startswith("boss: DRILL: ")
    assert more == []
    assert not functions.executions
    assert world.broken_laws() == {}


@pytest.mark.parametrize("kind", SHELVES)
def test_its_re_run_is_real_when_somebody_said_so(tmp_path, kind):
    world, functions = lived(SHELVES[kind](tmp_path), [a_drill(rerun=True)])
    assert sum(functions.executions.values()) == 1, "one, whatever the rule says"
    assert [told.partition(" again ")[0] for told in world.bell.rung] == ["default: DRILL:"]
    assert sums(world)[0].received == 0
    assert world.broken_laws() == {}


def test_what_is_left_of_one_that_is_over_wakes_nobody(tmp_path):
    world, functions = lived(SHELVES["sqlite"](tmp_path), [a_drill(rerun=True, until=make.NOW - MINUTE)])
    assert world.bell.rung == []
    assert not functions.executions
    assert world.broken_laws() == {}


EVENTS = st.lists(
    st.tuples(st.sampled_from(FUNCTIONS), st.sampled_from(["failure", "drill", "real drill", "twice"])), max_size=8
)


@pytest.mark.parametrize("kind", SHELVES)
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(events=EVENTS)
def test_every_sum_is_what_it_is_without_drills(tmp_path_factory, kind, events):
    real, mixed = [], []
    for number, (function, what) in enumerate(events):
        if what == "failure":
            real.append(message(function, f"1-{number}"))
            mixed.append(real[-1])
        else:
            drill = a_drill(function, number=number, rerun=what == "real drill")
            mixed.append(drill)
            mixed += [drill[1]] * (what == "twice")
    without, _ = lived(SHELVES[kind](tmp_path_factory.mktemp("without")), real)
    drilled, _ = lived(SHELVES[kind](tmp_path_factory.mktemp("with")), mixed)
    assert sums(drilled) == sums(without)
    assert drilled.broken_laws() == {}
    assert [told for told in drilled.bell.rung if "DRILL" not in told] == without.bell.rung


@pytest.mark.parametrize("kind", SHELVES)
def test_nobody_gets_out_of_the_sums_by_the_name_of_a_drill(tmp_path, kind):
    ordered, body = a_drill()
    other = json.loads(body)
    other["responsePayload"] = json.dumps({"errorMessage": "a real failure"})
    forged = json.dumps(other).encode()
    stranger = message("tell", drill_id(make.NOW + MINUTE, "never-ordered"))
    world, _ = lived(SHELVES[kind](tmp_path), [forged, stranger, (ordered, body), forged])
    totals = sums(world)[0]
    assert (totals.received, totals.decided, totals.quarantined) == (3, 0, 3)
    assert {row["reason"] for row in world.ask("SELECT reason FROM quarantine")} == {"no_drill"}
    assert sum("DRILL" in told for told in world.bell.rung) == 1, "the drill itself is none the worse"
    assert world.broken_laws() == {}


def test_a_real_failure_is_not_taken_for_the_result_of_a_drill(tmp_path):
    """One with the same event that comes while the drill's re-run is being submitted is a failure like any other."""
    drill, body = a_drill(rerun=True)
    alike = {**json.loads(body), "requestContext": {**json.loads(body)["requestContext"], "requestId": "1-real"}}
    world, _ = lived(SHELVES["sqlite"](tmp_path), [(drill, body), json.dumps(alike).encode()])
    assert {row["root"] for row in world.ask("SELECT root FROM envelopes WHERE request_id = '1-real'")} == {"1-real"}


def test_a_process_that_dies_anywhere_neither_loses_it_nor_submits_it(tmp_path):
    passed = Crashes()
    lived(SHELVES["memory"](tmp_path / "whole"), [a_drill()], passed)
    assert len(passed.points) > 10
    for point in range(1, len(passed.points) + 1):
        world, functions = lived(SHELVES["memory"](tmp_path / f"{point}"), [a_drill()], Crashes(at=point))
        where = passed.points[point - 1]
        assert {told.partition(" again ")[0] for told in world.bell.rung} == {"default: DRILL:"}, where
        assert not functions.executions, where
        assert world.broken_laws() == {}, where
        assert sums(world)[0].received == 0, where


@pytest.mark.parametrize("kind", SHELVES)
def test_a_drill_is_not_taken_for_the_result_of_a_real_re_run(tmp_path, kind):
    """Not even one with the same event, while that re-run is under way, or where its failure is open."""
    clock = ManualClock(make.NOW)
    body = message("again", "1-real", payload='{"order": "0123456789abcdef"}')
    drill, own = a_drill()
    alike = {**json.loads(body), "requestContext": json.loads(own)["requestContext"]}
    own = json.dumps(alike).encode()
    drill = replace(drill, digest=hashlib.sha256(own).hexdigest())
    source = FakeSource(clock=clock)
    lost = OutcomeUnknown("no_answer", "connection lost")
    functions = FakeFunctions(clock, source, outcomes=(False,), lost=[lost], tracked=False)
    world = World(SHELVES[kind](tmp_path), RULES, clock=clock, invoker=functions, source=source)

    async def live():
        source.put(body)
        await world.live(Crashes(), until=timedelta(seconds=12))
        async with world.shelf.opened() as store:
            assert (await store.totals()).states == {"unknown": 1}
            await store.expect_drill(drill)
        source.put(own)
        await world.live(Crashes(), until=timedelta(seconds=5))

    asyncio.run(live())
    assert {row["root"] for row in world.ask("SELECT root FROM envelopes")} == {"1-real", drill.request_id}
    assert sums(world)[0].failures == 1
    assert world.broken_laws() == {}
