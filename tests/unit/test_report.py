"""The report of a shift as text, Markdown and HTML, and when the digest of a day is due."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import make
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.report import (
    Digest,
    Ending,
    Form,
    OpenGroup,
    Report,
    Spared,
    Spent,
    begun,
    is_due,
    looked_at,
    plain,
    rendered,
)

NOW, HOUR = make.NOW, timedelta(hours=1)
EMPTY = Report(NOW - 8 * HOUR, NOW, {})
FULL = Report(
    since=NOW - 8 * HOUR,
    until=NOW,
    states={"healed": 5, "alerted": 2, "rerun_pending": 1},
    groups=[OpenGroup("abcdef0123", "img-resize", "Oops <b>", 3, NOW - 2 * HOUR, NOW)],
    groups_total=12,
    spared=[Spared("pay", 4, 6)],
    held=[("k7x", "ask the owner")],
    spent=[Spent("pay", 6, 2, 0), Spent("mail", 1, 0, 1200)],
    stopped=["img-crop: open"],
    switched=["function x by ana: why"],
    silences=[Ending(3, NOW + HOUR, "ben", "a deploy")],
    noisy=[("tell", 9)],
    idle=["old"],
    undelivered={"ops": 2},
)


def test_everything_is_told_in_words():
    text = rendered(FULL, Form.TEXT)
    for part in (
        "8 failures from 2026-03-01 04:00:00 UTC to 2026-03-01 12:00:00 UTC",
        "2 alerted, 5 healed, 1 rerun pending",
        "3 × img-resize: Oops <b>, since 2026-03-01 10:00:00 UTC",
        "and 11 more groups",
        "4 × pay, by 6 re-runs",
        "k7x: ask the owner",
        "pay: 6 re-runs, 0 left, 2 wait for it",
        "mail: 1 re-run, 1,200 left",
        "img-crop: open",
        "3 at 2026-03-01 13:00:00 UTC, ben: a deploy",
        "tell: 9 times",
        "ops: 2",
    ):
        assert part in text
    assert FULL.title == "[info] triage: 8 failures, 4 healed unseen, 12 groups open"
    assert plain(FULL)["failures"] == 8


def test_what_there_is_nothing_of_is_left_out():
    assert rendered(EMPTY, Form.TEXT).splitlines() == [
        "Failures",
        "  0 failures from 2026-03-01 04:00:00 UTC to 2026-03-01 12:00:00 UTC",
    ]


def test_marks_of_markdown_and_html_in_what_came_from_outside_mean_nothing():
    assert "Oops \\<b\\>" in rendered(FULL, Form.MARKDOWN)
    assert "Oops &lt;b&gt;" in rendered(FULL, Form.HTML)
    assert "<b>" not in rendered(FULL, Form.HTML)


@given(st.text(max_size=300))
def test_hostile_names_stay_on_their_line(text):
    report = replace(EMPTY, groups=[OpenGroup("f", text, text, 1, NOW, NOW)], groups_total=1)
    assert len(rendered(report, Form.TEXT).splitlines()) == 5


# ---------------------------------------------------------------- the digest

BERLIN = Digest(("ops", "boss"), timedelta(hours=8), ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("now", "due"),
    [
        (datetime(2026, 3, 27, 6, 59, tzinfo=UTC), datetime(2026, 3, 27, 7, 0, tzinfo=UTC)),
        (datetime(2026, 3, 27, 7, 0, tzinfo=UTC), datetime(2026, 3, 28, 7, 0, tzinfo=UTC)),
        (datetime(2026, 3, 28, 8, 0, tzinfo=UTC), datetime(2026, 3, 29, 6, 0, tzinfo=UTC)),
        (datetime(2026, 10, 24, 8, 0, tzinfo=UTC), datetime(2026, 10, 25, 7, 0, tzinfo=UTC)),
    ],
    ids=["today", "tomorrow", "clocks go forward", "clocks go back"],
)
def test_it_is_due_by_the_clocks_of_its_zone(now, due):
    assert BERLIN.next(now=now) == due


@given(st.integers(0, 365 * 24 * 60), st.integers(0, 24 * 60 - 1))
def test_it_is_due_once_a_day(minute, at):
    digest = Digest(("ops",), timedelta(minutes=at), ZoneInfo("America/New_York"))
    first = digest.next(now=NOW + timedelta(minutes=minute))
    second = digest.next(now=first)
    assert timedelta(hours=22) < second - first < timedelta(hours=26)


def test_it_is_sent_when_it_is_due_and_not_because_the_daemon_started():
    row = make.claimed(begun(now=NOW))
    assert not is_due(row, now=NOW)
    waits = looked_at(row, BERLIN, None, now=NOW)
    assert (waits.due_at, waits.changes.rows) == (datetime(2026, 3, 2, 7, 0, tzinfo=UTC), ())
    later = make.claimed(begun(now=NOW), **waits.payload)
    assert is_due(later, now=waits.due_at)
    sent = looked_at(later, BERLIN, FULL, now=waits.due_at)
    assert [each.payload["receiver"] for each in sent.changes.rows] == ["ops", "boss"]
    assert sent.changes.rows[0].key == "notify:digest:2026-03-02:ops"
    assert sent.changes.rows[0].payload["severity"] == "info"
    assert sent.due_at == datetime(2026, 3, 3, 7, 0, tzinfo=UTC)


def test_a_digest_for_nobody_ends():
    assert looked_at(make.claimed(begun(now=NOW)), replace(BERLIN, to=()), None, now=NOW).state == "done"
