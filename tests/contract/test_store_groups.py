"""What every store promises about alert groups from one look to the next: a restart repeats nothing, and loses nothing."""

import re
from dataclasses import replace

from test_store import HOUR, INTERVAL, MINUTE, NOW, SECOND, WAIT, arrive, ingest
from test_store_silences import PLACE, states, work

from triage.rules.course import Course, Escalation, Inhibition
from triage.rules.model import AlertPolicy, Matcher, Rule, RuleSet


def only(function):
    return (Matcher("fn", f"fn: {function}", lambda subject: subject["fn"] == function),)


def policy(**course):
    return AlertPolicy(
        group_by=("function",), group_wait=WAIT, group_interval=INTERVAL, course=Course(resolved=False, **course)
    )


CAUSE = RuleSet(
    (
        Rule("db", PLACE, match=only("db"), alert=policy(quiet_for=10 * MINUTE)),
        Rule("web", PLACE, match=only("web"), alert=policy(inhibited_by=(Inhibition("db"),))),
    ),
    "rs-cause",
)


def titles(got):
    return [title.partition(" #")[0] for _, title, _ in got]


def test_whoever_looks_again_after_a_crash_tells_the_same_and_after_that_nothing(run):
    async def scenario(store):
        await ingest(store, arrive("d-1", function="db"), rules=CAUSE)
        (claimed,) = await store.claim_due(now=NOW + WAIT, lease=SECOND, limit=10)  # and its process dies
        first = await work(store, until=NOW + MINUTE)
        assert len(first) == 1
        assert not await store.settle(claimed, lambda _facts: None, now=NOW + MINUTE)
        assert await work(store, until=NOW + 3 * HOUR) == []
        assert await store.next_due() is None

    run(scenario)


def test_what_comes_while_nobody_works_is_told_once_by_whoever_comes_next(run):
    async def scenario(store):
        await ingest(store, arrive("d-1", function="db"), rules=CAUSE)
        await work(store, until=NOW + MINUTE)
        for number in range(5):
            await ingest(store, arrive(f"d-2{number}", function="db"), rules=CAUSE, now=NOW + (2 + number) * HOUR)
        got = await work(store, until=NOW + 8 * HOUR, now=NOW + 7 * HOUR)
        assert titles(got) == ["still: db failed: Oops × 5"]
        assert await states(store) == {"alerted": 6}

    run(scenario)


BOTH = RuleSet(
    (
        Rule("web", PLACE, match=only("web-0"), alert=replace(policy(), to=("default", "boss"))),
        Rule("rest", PLACE, alert=policy()),
    ),
    "rs-storm",
)


def test_many_groups_that_begin_at_once_are_one_summary_for_each_receiver_and_one_for_the_end(run):
    async def scenario(store):
        sent = [arrive(f"w-{number}-{each}", function=f"web-{number}") for number in range(12) for each in range(5)]
        await ingest(store, *sent, rules=BOTH)
        got = await work(store, until=NOW + 4 * MINUTE, storm=10)
        assert sorted((to, title.partition(" #")[0]) for to, title, _ in got) == [
            ("boss", "storm of failures: 1 group, 5 alerts"),
            ("default", "storm of failures: 12 groups, 60 alerts"),
        ]
        (body,) = (body for to, _, body in got if to == "default")
        assert "Told by this message: 60" in body
        assert "… and 10 in 2 more groups" in body
        assert await states(store) == {"alerted": 60}
        # More of the same, and one group more: they are told when it is over.
        again = [arrive(f"w-3-{each}", function="web-3") for each in range(5, 9)]
        await ingest(store, *again, arrive("w-99", function="web-99"), rules=BOTH, now=NOW + 4 * MINUTE)
        assert await work(store, until=NOW + 6 * MINUTE, now=NOW + 4 * MINUTE, storm=10) == []
        assert await states(store) == {"alerted": 60, "suppressed": 5}
        got = await work(store, until=NOW + 10 * MINUTE, now=NOW + 6 * MINUTE, storm=10)
        assert sorted((to, title.partition(" #")[0]) for to, title, _ in got) == [
            ("boss", "storm is over: 1 group, 5 alerts"),
            ("default", "storm is over: 13 groups, 65 alerts"),
        ]
        assert await states(store) == {"alerted": 65}
        # From now on each group speaks for itself again.
        assert await work(store, until=NOW + 2 * HOUR, now=NOW + 10 * MINUTE, storm=10) == []
        later = NOW + 2 * HOUR
        await ingest(store, arrive("w-5", function="web-5"), rules=BOTH, now=later)
        assert titles(await work(store, until=later + INTERVAL, now=later, storm=10)) == ["web-5 failed again: Oops"]

    run(scenario)


def test_fewer_groups_are_no_storm_and_a_limit_of_none_never_makes_one(run):
    async def scenario(store):
        await ingest(store, *(arrive(f"w-{number}", function=f"web-{number}") for number in range(9)), rules=BOTH)
        assert len(await work(store, until=NOW + 4 * MINUTE, storm=10)) == 10  # one of them has two receivers
        later = NOW + HOUR
        await ingest(
            store, *(arrive(f"x-{number}", function=f"x-{number}") for number in range(30)), rules=BOTH, now=later
        )
        assert len(await work(store, until=later + MINUTE, now=later, storm=0)) == 30

    run(scenario)


def test_a_storm_that_goes_on_is_told_at_growing_intervals(run):
    async def scenario(store):
        got = []
        for minute in range(0, 60, 4):
            now = NOW + minute * MINUTE
            count = 4 if minute else 10
            new = [arrive(f"w-{minute}-{each}", function=f"web-{minute}-{each}") for each in range(count)]
            await ingest(store, *new, rules=BOTH, now=now)
            got += await work(store, until=now + 4 * MINUTE - SECOND, now=now, storm=10)
        assert len(got) == 3
        got += await work(store, until=NOW + 2 * HOUR, now=NOW + HOUR, storm=10)
        assert "storm is over: 66 groups, 66 alerts" in got[-1][1]
        told = [int(re.search(r"Told by this message: ([\d,]+)", body)[1].replace(",", "")) for _, _, body in got]
        assert sum(told) == 66
        assert await states(store) == {"alerted": 66}

    run(scenario)


def test_a_code_that_another_group_has_is_lengthened_and_stays_so(run):
    async def scenario(store):
        rules = RuleSet((Rule("tell", PLACE, alert=policy()),), "rs-clash")
        # The digests of their groups begin with the same eight digits.
        await ingest(store, arrive("a-1", function="f-10681"), rules=rules)
        assert [title for _, title, _ in await work(store, until=NOW + MINUTE)] == ["f-10681 failed: Oops #f291e48b"]
        later = NOW + 2 * MINUTE
        await ingest(store, arrive("b-1", function="f-38656"), rules=rules, now=later)
        (told,) = await work(store, until=later + MINUTE, now=later)
        code = told[1].rpartition("#")[2]
        assert code.startswith("f291e48b")
        assert len(code) == 9
        assert "triage failures show b-1" in told[2]
        more = NOW + 5 * HOUR
        await ingest(store, arrive("b-2", function="f-38656"), rules=rules, now=more)
        assert re.search(rf"#{code}-\d$", (await work(store, until=more + INTERVAL, now=more))[-1][1])

    run(scenario)


def escalating(name, *to):
    return Rule(name, PLACE, match=only(name), alert=policy(escalate=(Escalation(20 * MINUTE, to),)))


NIGHT = RuleSet(
    (escalating("web-0", "boss"), escalating("web-1", "boss", "default"), Rule("rest", PLACE, alert=policy())),
    "rs-night",
)


def test_what_nobody_acknowledges_in_a_storm_escalates_in_one_message(run):
    async def scenario(store):
        got = []
        for minute in range(0, 40, 4):  # it goes on
            now = NOW + minute * MINUTE
            sent = [arrive(f"w-{minute}-{each}", function=f"web-{each}") for each in range(12)]
            await ingest(store, *sent, rules=NIGHT, now=now)
            got += await work(store, until=now + 4 * MINUTE, now=now, storm=10)
        boss = [(title.partition(" #")[0], body) for to, title, body in got if to == "boss"]
        (first, body), *summaries = boss
        assert first == "unanswered: storm of failures: 2 groups, 12 alerts"
        assert "Nobody has acknowledged 2 groups" in body
        got = await work(store, until=NOW + 2 * HOUR, now=NOW + 40 * MINUTE, storm=10)
        (over,) = [body for to, title, body in got if to == "boss"]
        # What it hears of from now on is what it has not heard of yet.
        told = [int(re.search(r"Told by this message: (\d+)", text)[1]) for _, text in summaries]
        told.append(int(re.search(r"Told by this message: (\d+)", over)[1]))
        assert sum(told) == 2 * 10 - 12
        assert await states(store) == {"alerted": 120}
        assert await work(store, until=NOW + 5 * HOUR, now=NOW + 2 * HOUR, storm=10) == []

    run(scenario)
