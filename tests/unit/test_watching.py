"""Nothing has arrived for too long: told once, and once more when something comes again."""

from dataclasses import replace
from datetime import timedelta

import make
import pytest

from triage.alerts.watching import Watch, armed, watched
from triage.line import Seen
from triage.views import RowFacts

NOW, HOUR = make.NOW, timedelta(hours=1)
WATCH = Watch("function img-*", 6 * HOUR, ("ops", "boss"), "critical", lambda name: name.startswith("img-"))


def look(*seen, watch=WATCH, up_since=NOW - 100 * HOUR, now=NOW, payload=None):
    row = make.claimed(armed(WATCH, now=NOW), **(payload or {}))
    arrivals = tuple(Seen(function, source, at) for function, source, at in seen)
    return watched(row, RowFacts(arrivals=arrivals), watch=watch, up_since=up_since, now=now)


def texts(settle):
    return [(row.payload["receiver"], row.payload["severity"], row.payload["title"]) for row in settle.changes.rows]


def test_while_something_comes_it_is_looked_at_when_that_would_be_too_long_ago():
    found = look(("img-a", "smq", NOW - 2 * HOUR), ("pay", "smq", NOW), ("img-b", "smq", NOW - HOUR))
    assert (found.due_at, found.changes.rows) == (NOW + 5 * HOUR, ())


def test_silence_is_told_to_each_receiver_once():
    found = look(("img-a", "smq", NOW - 7 * HOUR), ("pay", "smq", NOW))
    (first, second) = texts(found)
    assert first[:2] == ("ops", "critical")
    assert first[2].startswith("[critical] function img-*: nothing has arrived for 6h #")
    assert second[0] == "boss"
    assert "2026-03-01 05:00:00 UTC" in found.changes.rows[0].payload["body"]
    assert look(("img-a", "smq", NOW - 7 * HOUR), payload=found.payload).changes.rows == ()


def test_it_is_told_when_something_comes_again_and_silence_after_that_is_new():
    told = look(("img-a", "smq", NOW - 7 * HOUR)).payload
    later = NOW + HOUR
    back = look(("img-a", "smq", later - timedelta(minutes=1)), now=later, payload=told)
    assert [(to, severity) for to, severity, _ in texts(back)] == [("ops", "info"), ("boss", "info")]
    assert "messages arrive again" in texts(back)[0][2]
    assert back.payload["told"] == ""
    again = look(("img-a", "smq", later), now=later + 6 * HOUR, payload=back.payload)
    assert len(texts(again)) == 2
    assert again.changes.rows[0].key != back.changes.rows[0].key


def test_time_in_which_nobody_listened_does_not_count_nor_is_a_start_a_sign_of_life():
    up = NOW - HOUR
    assert look(up_since=up).due_at == up + 6 * HOUR
    told = {"told": (NOW - 3 * HOUR).isoformat()}
    found = look(("img-a", "smq", NOW - 20 * HOUR), up_since=up, payload=told)
    assert found.changes.rows == ()
    assert found.payload["told"] == told["told"]


def test_one_that_never_came_is_told_too():
    found = look(up_since=NOW - 6 * HOUR)
    assert "No message has ever come." in found.changes.rows[0].payload["body"]


@pytest.mark.parametrize(("source", "count"), [("smq", 0), ("local", 2), ("", 0)])
def test_a_source_may_be_named_as_well_or_alone(source, count):
    watch = replace(WATCH, matches=None, source=source)
    assert len(look(("pay", "smq", NOW), ("pay", "local", NOW - 9 * HOUR), watch=watch).changes.rows) == count


def test_what_is_not_watched_any_more_is_over():
    assert look(watch=None).state == "done"
