"""Maintenance that comes again: when it begins and ends, whatever clocks do, and that each time has one silence."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import NOW
from pydantic import ValidationError

from triage.alerts.maintenance import Maintenance, armed, maintained, next_span
from triage.changes import RowKind
from triage.rules.windows import Hours
from triage.settings import MaintenanceSettings
from triage.states import RowState
from triage.views import OutboxRow

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
SUNDAY = frozenset({6})
ZONES = ("UTC", "Asia/Shanghai", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")


def maintenance(zone="Asia/Shanghai", *, days=SUNDAY, span=(120, 240)):
    return Maintenance("weekly", {"function": "img-*"}, Hours(days, (span,), ZoneInfo(zone)), "updates", ("ops",))


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "now", "start", "end"),
    [
        # 2026-03-01 is a Sunday; Shanghai is eight hours ahead, always.
        ("Asia/Shanghai", "2026-02-28T12:00", "2026-02-28T18:00", "2026-02-28T20:00"),
        ("Asia/Shanghai", "2026-02-28T20:00", "2026-03-07T18:00", "2026-03-07T20:00"),
        # On 2026-03-29 clocks in Berlin go from 02:00 to 03:00: an hour of it is left.
        ("Europe/Berlin", "2026-03-28T12:00", "2026-03-29T01:00", "2026-03-29T02:00"),
        # On 2026-10-25 they go from 03:00 back to 02:00: it takes three hours.
        ("Europe/Berlin", "2026-10-24T12:00", "2026-10-25T00:00", "2026-10-25T03:00"),
    ],
)
def test_it_comes_when_clocks_in_its_zone_say_so(zone, now, start, end):
    assert next_span(maintenance(zone), now=at(now)) == (at(start), at(end))


def test_an_hour_that_clocks_leave_out_comes_a_week_later():
    short = maintenance("Europe/Berlin", span=(130, 170))  # 02:10 to 02:50
    assert next_span(short, now=at("2026-03-28T12:00")).start == at("2026-04-05T00:10")


@given(
    st.sampled_from(ZONES),
    st.sets(st.integers(0, 6), min_size=1),
    st.integers(0, 1439),
    st.integers(1, 1439),
    st.integers(0, 2 * 366 * 24 * 60),
)
def test_the_next_time_begins_and_ends_at_turns_of_its_hours(zone, days, start, length, when):
    own = maintenance(zone, days=frozenset(days), span=(start, (start + length) % 1440))
    now = datetime(2026, 1, 1, tzinfo=UTC) + when * MINUTE
    begin, end = next_span(own, now=now)
    assert now <= begin < end
    assert own.hours.contains(begin)
    assert own.hours.contains(end - MINUTE)
    assert not own.hours.contains(end)
    assert begin == now or not own.hours.contains(begin - MINUTE)


def row(payload, now):
    return OutboxRow(
        id=1,
        key="maintenance:weekly",
        kind=RowKind.MAINTENANCE,
        state=RowState.PENDING,
        due_at=now,
        payload=payload,
        root="",
        group="",
        attempts=1,
        interrupted=False,
        token="token",
    )


def test_each_time_has_one_silence_also_when_the_daemon_starts_anew():
    own, now = maintenance(), at("2026-02-28T12:00")
    payload = armed(own, now=now).payload
    waits = maintained(row(payload, now), own, now=now)
    assert (waits.due_at, waits.changes.begun) == (at("2026-02-28T18:00"), ())

    begins = maintained(row(payload, now), own, now=at("2026-02-28T18:00"))
    (silence,) = begins.changes.begun
    assert (silence.by, silence.reason, silence.to) == ("maintenance weekly", "updates", ("ops",))
    assert (silence.created_at, silence.ends_at) == (at("2026-02-28T18:00"), at("2026-02-28T20:00"))
    assert begins.due_at == silence.ends_at

    again = maintained(row(begins.payload, now), own, now=at("2026-02-28T19:00"))
    assert (again.due_at, again.changes.begun) == (silence.ends_at, ())
    after = maintained(row(begins.payload, now), own, now=at("2026-02-28T20:00"))
    assert (after.due_at, after.changes.begun) == (at("2026-03-07T18:00"), ())


def test_a_daemon_that_starts_in_the_middle_begins_with_the_rest():
    own, now = maintenance(), at("2026-02-28T19:30")
    (silence,) = maintained(row(armed(own, now=now).payload, now), own, now=now).changes.begun
    assert (silence.created_at, silence.ends_at) == (now, at("2026-02-28T20:00"))


def test_what_is_not_configured_any_more_does_not_come_again():
    assert maintained(row({"maintenance": "weekly", "until": ""}, NOW), None, now=NOW).due_at is None


GOOD = {"name": "weekly", "match": {"function": "img-*"}, "hours": ["02:00-04:00"], "reason": "updates"}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"hours": ["2-4"]}, "hours: expected hours"),
        ({"hours": ["00:00-24:00"]}, "hours: they have no end"),
        ({"hours": []}, "hours"),
        ({"days": ["sonday"]}, "days: 'sonday' is no day"),
        ({"zone": "Asia/Shangai"}, "zone: unknown time zone 'Asia/Shangai'"),
        ({"match": {}}, "a silence for everything"),
        ({"match": {"fuction": "a"}}, "an alert has no label 'fuction' (did you mean 'function'?)"),
        ({"reason": ""}, "at least 1 character"),
    ],
)
def test_what_cannot_be_meant_is_refused(more, told):
    with pytest.raises(ValidationError) as caught:
        MaintenanceSettings(**GOOD | more)
    assert told in str(caught.value)


def test_what_is_configured_is_what_is_looked_after():
    made = MaintenanceSettings(**GOOD, days=("sun",), zone="Asia/Shanghai", to=("ops",)).maintenance
    assert made == maintenance()
