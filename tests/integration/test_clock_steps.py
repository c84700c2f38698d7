"""The real loops on a wall clock that is put forward, as after hours of suspend, and back: everybody hears of everything, once,
and of mere counts not before their time. And what goes by the clocks of a zone in the nights in which these change.
"""

import asyncio
import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import make
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import LEASE, SHELVES, World, message

from triage.alerts.delivery import Answer, Result, Retries, notified
from triage.alerts.routing import Quiet, Route, routed
from triage.changes import NewRow, RowKind
from triage.line import Line
from triage.report import Digest, Report, begun, is_due, looked_at
from triage.reruns.gate import Gate
from triage.rules.course import Course
from triage.rules.model import AlertPolicy
from triage.rules.windows import Hours
from triage.testing import Crashes, FakeFunctions, FakeSource, ManualClock
from triage.views import RowFacts

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


class SteppedClock(ManualClock):
    """Its wall clock can be set, as an administrator or a time server does; what sleeps goes by the steady one."""

    def __init__(self, now):
        super().__init__(now)
        self.offset = timedelta(0)

    def now(self):
        return super().now() + self.offset


COURSE = Course(repeat_interval=HOUR, quiet_for=6 * HOUR)
RULES = make.rules(
    make.rule("tell", alert=AlertPolicy(group_wait=5 * SECOND, group_interval=MINUTE, course=COURSE)),
)


def told(world):
    return [re.sub(r" #\w+(-\d+)?$", "", each) for each in world.bell.rung]


@pytest.mark.parametrize("shelf", SHELVES)
@pytest.mark.parametrize("back", [20 * MINUTE, 3 * HOUR, 40 * HOUR], ids=str)
@pytest.mark.parametrize("forward", [timedelta(0), 5 * HOUR], ids=str)
def test_the_loops_tell_everything_once_on_whatever_clock(shelf, back, forward, tmp_path):
    async def scenario():
        clock = SteppedClock(make.NOW)
        source = FakeSource(clock=clock, lease=LEASE)
        functions = FakeFunctions(clock, source)
        world = World(SHELVES[shelf](tmp_path), RULES, clock=clock, invoker=functions, source=source)
        sent = 0

        async def go_on(failures, length):
            nonlocal sent
            source.put(*(message("job", f"1-{sent + number}") for number in range(failures)))
            sent += failures
            await world.live(Crashes(), until=length)

        await go_on(2, MINUTE)
        (first,) = told(world)
        assert first.startswith("default: job failed")
        assert " × 2" in first
        clock.offset += forward
        await go_on(3, 2 * MINUTE)
        clock.offset -= back
        await go_on(4, 2 * MINUTE)
        before = len(world.bell.rung)
        early = [each for each in told(world) if each.startswith("default: still: ")]
        assert len(early) <= (forward >= HOUR)
        # However far it was set back: when that much time has passed again, all has been told.
        for _ in range(int((forward + back + 8 * HOUR) / HOUR)):
            clock.offset += HOUR
            await go_on(0, 5 * SECOND)
        assert told(world)[-1].startswith("default: resolved: job failed")
        assert len(set(world.bell.rung)) == len(world.bell.rung) <= before + 2
        totals = await world.totals()
        assert {state: count for state, count in totals.states.items() if count} == {"alerted": sent}
        assert world.broken_laws() == {}

    asyncio.run(scenario())


# ---------------------------------------------------------------- nights in which clocks change

ZONES = ("Europe/Berlin", "America/New_York", "Pacific/Chatham", "Australia/Lord_Howe", "Asia/Shanghai")
NIGHTS = [
    datetime(2026, month, day, tzinfo=UTC)
    for month, day in ((3, 8), (3, 29), (4, 4), (4, 5), (9, 26), (10, 3), (10, 4), (10, 25), (11, 1))
]
EMPTY = Report(make.NOW, make.NOW, {})
STEP = st.sampled_from(
    [timedelta(minutes=n) for n in (7, 30, 60, 120, 240)] + [timedelta(minutes=-n) for n in (20, 60, 150)]
)


@settings(max_examples=300)
@given(
    st.sampled_from(NIGHTS),
    st.sampled_from(ZONES),
    st.integers(0, 1439),
    st.lists(STEP, max_size=40),
    st.integers(0, 3),
)
def test_no_day_has_two_digests_and_none_that_was_lived_through_has_none(night, zone, minute, steps, restarts):
    digest = Digest(("ops",), timedelta(minutes=minute), ZoneInfo(zone))
    now, kept = night - timedelta(days=1), {}
    row, due_at, payload = begun(now=now), now, {}
    lived = set()
    for number, step in enumerate([*steps, *[timedelta(minutes=30)] * 200]):
        if restarts and number % 11 == restarts:
            due_at = min(due_at, now)  # as `arm` does at a start
        if now >= due_at:
            claimed = make.claimed(row, **payload)
            settle = looked_at(claimed, digest, EMPTY if is_due(claimed, now=now) else None, now=now)
            for each in settle.changes.rows:
                kept.setdefault(each.key, []).append(now)  # a key that is there already is not written again
            due_at, payload = settle.due_at, dict(settle.payload)
            assert due_at > now
        now += step
        if number > len(steps) + 60:
            lived.add(f"notify:digest:{now.astimezone(digest.zone):%Y-%m-%d}:ops")
    today = f"notify:digest:{now.astimezone(digest.zone):%Y-%m-%d}:ops"
    assert lived - {today} <= kept.keys()
    # Only where the clock was set back is one made again, under its old key: the store keeps the first.
    assert max(map(len, kept.values()), default=0) <= 1 + sum(step < timedelta(0) for step in steps) + bool(restarts)


BERLIN = ZoneInfo("Europe/Berlin")
TWO_TO_THREE = Route(quiet=Quiet(Hours(frozenset(range(7)), ((120, 180),), BERLIN)))


@pytest.mark.parametrize(
    ("now", "until"),
    [
        (datetime(2026, 3, 28, 1, 30, tzinfo=UTC), datetime(2026, 3, 28, 2, 0, tzinfo=UTC)),
        (datetime(2026, 3, 29, 0, 59, tzinfo=UTC), None),  # 01:59; the next minute is 03:00
        (datetime(2026, 3, 29, 1, 0, tzinfo=UTC), None),
        (
            datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
            datetime(2026, 10, 25, 2, 0, tzinfo=UTC),
        ),  # 02:30 for the first time
        (datetime(2026, 10, 25, 1, 30, tzinfo=UTC), datetime(2026, 10, 25, 2, 0, tzinfo=UTC)),  # and for the second
    ],
    ids=["any night", "before the hour that is left out", "after it", "the first time", "the second time"],
)
def test_quiet_hours_in_the_night_in_which_clocks_change(now, until):
    row = make.claimed(
        NewRow("notify:k:1:ops", RowKind.NOTIFY, now, {"receiver": "ops", "severity": "warning", "title": "t"})
    )
    settle = routed(row, RowFacts(line=Line()), route=TWO_TO_THREE, now=now)
    if until is None:
        assert settle.goes
    else:
        assert (settle.gate, settle.due_at) == (Gate.QUIET, until)
        assert routed(replace(row, gate=Gate.QUIET), RowFacts(line=Line()), route=TWO_TO_THREE, now=until).goes


@pytest.mark.parametrize("day", [1, 27, 28], ids=["winter", "the day before", "the night"])
def test_a_maintenance_window_is_what_clocks_there_show(day):
    night = Hours(frozenset({6}), ((120, 180),), BERLIN)  # Sundays, 02:00 to 03:00
    start = datetime(2026, 3, day, 20, tzinfo=UTC)
    inside = [minute for minute in range(12 * 60) if night.contains(start + timedelta(minutes=minute))]
    sunday = (start + timedelta(hours=6)).astimezone(BERLIN).weekday() == 6
    assert len(inside) == (60 if sunday and day != 28 else 0)
    twice = datetime(2026, 10, 24, 20, tzinfo=UTC)
    assert sum(night.contains(twice + timedelta(minutes=minute)) for minute in range(12 * 60)) == 120


def test_a_message_that_waits_for_the_end_of_quiet_hours_goes_once_also_when_clocks_go_back():
    at, sent = datetime(2026, 10, 24, 23, 30, tzinfo=UTC), Counter()
    row = make.claimed(
        NewRow("notify:k:1:ops", RowKind.NOTIFY, at, {"receiver": "ops", "severity": "warning", "title": "t"})
    )
    quiet = Route(quiet=Quiet(Hours(frozenset(range(7)), ((60, 150),), BERLIN)))
    for _ in range(10):
        settle = routed(row, RowFacts(line=Line()), route=quiet, now=at)
        if not settle.goes:
            at, row = settle.due_at, replace(row, gate=settle.gate)
            continue
        sent[at] += 1
        assert notified(row, {"0": Answer(Result.SENT)}, retries=Retries(), now=at).state == "done"
        break
    assert list(sent.values()) == [1]
    local = at.astimezone(BERLIN)
    assert (local.hour, local.minute) in ((2, 30), (3, 0))
