"""kill -9 of a real daemon at each step of the life of an alert: no alert is lost, and one is told twice only when the
process died between its sending and the writing down of that, with the same short code.
"""

import re
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from mortal import HANG, Mortal, code_of, hearing
from processes import triage

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
RULES = """
version: 1
rules:
  - id: probe
    match: {function: probe}
    alert: {to: probe, group_wait: 0s, group_interval: 1s, repeat_interval: 0s, resolved: false}
  - id: tell
    alert:
      to: oncall
      group_by: [function, error_type]
      group_wait: 1m
      group_interval: 1m
      repeat_interval: 1h
      quiet_for: 3h
      escalate: [{after: 2h, to: boss}]
"""
WAITING = "SELECT count(*) FROM alerts WHERE flush IS NULL"
PAGE = Path(__file__).parents[2] / "docs/explanation/crashes.md"
PERSON = ("--by", "ana", "--reason", "I look at it")


@pytest.fixture
def daemon(tmp_path):
    with hearing(tmp_path / "state" / "triage.db") as ears:
        yield lambda rules=RULES, **settings: Mortal(tmp_path, ears, rules, **settings)


def documented(step, before, after):
    """What the page says of this death is what happened."""
    line = f"| {step} | {before} | {after} |"
    assert line in PAGE.read_text().splitlines(), f"docs/explanation/crashes.md does not say: {line}"


def once_more(daemon, step, title):
    """Dies when a message is heard; another life tells it again, by the same code, and settles it."""
    first = daemon.dies(title, "unanswered")
    heard = len(daemon.ears.heard)
    daemon.settled()
    again = [each for _, each in daemon.ears.heard[heard:] if re.search(title, each)]
    assert again == [first]
    documented(step, "1", "1, the same code")
    return first


@pytest.mark.timeout(300)
def test_an_incident_through_the_deaths_of_its_daemons(daemon):
    one = daemon()
    heard = one.ears.heard

    one.fail("job")
    one.lives_until(lambda: one.ask(WAITING) == [(1,)], why="did the alert wait")
    assert heard == []
    documented("its first alert waits for `group_wait`", "0", "1, see below")

    one.age(MINUTE)
    one.script(HANG)
    leased = "SELECT count(*) FROM outbox WHERE kind = 'flush' AND lease_until IS NOT NULL AND state = 'pending'"
    one.lives_until(lambda: one.ask(leased) == [(1,)], why="was the flush under way")
    one.script("DROP TRIGGER hang; DROP VIEW forever;")
    assert heard == []
    documented("the flush: in the midst of its transaction", "0", "1, see below")

    first = one.dies("job failed", "unanswered")
    documented("the message is sent, and not answered", "1", "1, the same code")
    assert one.dies("job failed", "answered") == first
    documented("it is answered, and that is not written down", "1", "1, the same code")
    one.settled()
    assert heard == [("oncall", first)] * 3
    assert one.probe() == []
    documented("it is settled", "1", "0")

    with one.life() as running:
        one.fail(*["job"] * 5)
        running.until(lambda: one.ask(WAITING) == [(5,)], why="did more wait")
    one.age(HOUR)
    repeated = once_more(one, "a repeat, with the counts since", "still: job failed")
    assert repeated.startswith("still: job failed: InvocationError × 5 #")
    one.age(HOUR)
    unanswered = once_more(one, "the escalation to the next receiver", "unanswered: job failed")
    assert heard[-1] == ("boss", unanswered)
    assert " × 6" in unanswered

    one.age(HOUR)
    over = one.dies("resolved: ", "unanswered")
    one.settled()
    assert one.probe() == []
    ends = Counter(each for each in heard if each[1].startswith("resolved: "))
    assert ends.keys() == {("oncall", over), ("boss", over)}
    assert ends.total() <= 4
    documented("the end is told to both", "1 or 2", "1 to each that had not settled, the same code")

    code = code_of(first)
    assert [code_of(each) for each in (repeated, unanswered, over)] == [f"{code}-{number}" for number in (2, 3, 4)]
    assert one.ask("SELECT state, sum(failures) FROM lineages WHERE function = 'job' GROUP BY 1") == [("alerted", 6)]


@pytest.mark.timeout(200)
def test_who_has_acknowledged_it_is_remembered(daemon):
    one = daemon()
    one.fail("job")
    one.lives_until(lambda: one.ask(WAITING) == [(1,)], why="did the alert wait")
    one.age(MINUTE)
    with one.life() as running:
        running.until(lambda: one.ask("SELECT state FROM outbox WHERE kind = 'notify'") == [("done",)])
        triage("alerts", "ack", code_of(one.ears.heard[-1][1]), *PERSON, state=one.state)
    one.age(2 * HOUR)
    assert one.probe() == [], "nobody else is told"
    assert [to for to, _ in one.ears.heard if to != "probe"] == ["oncall"]
    documented("it is acknowledged, and would escalate otherwise", "1", "0")


@pytest.mark.timeout(200)
def test_a_storm_through_the_deaths_of_its_daemons(daemon):
    one = daemon(TRIAGE_STORM__GROUPS="3")
    heard = one.ears.heard
    one.fail(*(f"s-{number}" for number in range(4)))
    one.lives_until(lambda: one.ask(WAITING) == [(4,)], why="did the alerts wait")
    one.age(MINUTE)
    looked = "SELECT count(*) FROM alert_groups WHERE incident ->> '$.storm' != ''"
    one.lives_until(lambda: one.ask(looked) == [(4,)], why="had the storm begun")
    assert heard == []
    documented("a storm has begun, and waits for its groups", "0", "1, see below")
    begun = once_more(one, "the summary of a storm", "storm of failures: 4 groups, 4 alerts")
    one.age(6 * MINUTE)
    over = once_more(one, "the end of a storm", "storm is over: 4 groups, 4 alerts")
    assert code_of(over) == f"{code_of(begun)}-2"
    assert one.probe() == []
    assert {to for to, _ in heard if to != "probe"} == {"oncall"}
    assert one.ask("SELECT state, sum(failures) FROM lineages WHERE function != 'probe' GROUP BY 1") == [("alerted", 4)]


CHANGES = """
version: 1
rules:
  - id: probe
    match: {function: probe}
    alert: {to: probe, group_wait: 0s, group_interval: 1s, repeat_interval: 0s, resolved: false}
  - {id: tell, alert: {to: oncall, group_by: [function], group_wait: 1s, group_interval: 1s, repeat_interval: 1h}}
"""


@pytest.mark.timeout(200)
def test_a_restart_with_unchanged_state_tells_nothing_and_a_change_while_down_is_told_once(daemon):
    one = daemon(CHANGES)
    heard = one.ears.heard
    one.fail("job", "job")
    told = "SELECT count(*) FROM outbox WHERE kind = 'notify' AND state = 'done'"
    one.lives_until(lambda: one.ask(told) == [(1,)], why="was it told")
    assert [title.partition(" #")[0] for _, title in heard] == ["job failed: InvocationError × 2"]
    for _ in range(2):
        assert one.probe() == []
    one.fail(*["job"] * 5, error="another one, of which nobody has heard")
    counted = "SELECT count(*) FROM lineages WHERE function = 'job' AND state = 'alerted'"
    one.lives_until(lambda: one.ask(counted) == [(7,)], why="was the change told")
    news = [title for to, title in heard if to == "oncall"][1:]
    assert [title.partition(" #")[0] for title in news] == ["also: job failed: InvocationError × 5"]
    assert code_of(news[0]) == f"{code_of(heard[0][1])}-2"
    assert one.probe() == []
    one.holds()
