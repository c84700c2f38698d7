"""What every store promises about causes and their symptoms: what is kept quiet is counted, and told when they end."""

from dataclasses import replace

from test_store import HOUR, INTERVAL, MINUTE, NOW, WAIT, arrive, ingest
from test_store_groups import only, titles
from test_store_silences import PLACE, states, work

from triage.rules.course import Course, Inhibition
from triage.rules.model import AlertPolicy, Rule, RuleSet

DAY = 24 * HOUR


def policy(*group_by, inhibited_by=(), **course):
    return AlertPolicy(
        group_by=group_by or ("function",),
        group_wait=WAIT,
        group_interval=INTERVAL,
        course=Course(resolved=False, inhibited_by=inhibited_by, **course),
    )


def rules(name, **symptom):
    return RuleSet(
        (
            Rule("db", PLACE, match=only("db"), alert=policy(quiet_for=10 * MINUTE)),
            Rule("other", PLACE, match=only("other"), alert=policy(quiet_for=30 * MINUTE)),
            Rule("web", PLACE, alert=policy(**symptom)),
        ),
        name,
    )


PLAIN = rules("rs-plain", inhibited_by=(Inhibition("db"),))


def test_what_a_cause_keeps_quiet_is_counted_and_told_once_to_each_receiver_when_it_ends(run):
    async def scenario(store):
        web = replace(PLAIN.rules[2], alert=replace(PLAIN.rules[2].alert, to=("default", "boss")))
        both = RuleSet((*PLAIN.rules[:2], web), "rs-both")
        sent = [arrive(f"{name}-{number}", function=name) for name in ("web-a", "web-b") for number in range(3)]
        await ingest(store, arrive("d-1", function="db"), *sent, arrive("b-9", function="web-b"), rules=both)
        assert titles(await work(store, until=NOW + MINUTE)) == ["db failed: Oops"]
        assert await states(store) == {"alerted": 1, "suppressed": 7}

        got = await work(store, until=NOW + 15 * MINUTE, now=NOW + MINUTE)

        over = "db is over: it kept 7 alerts of 2 groups quiet"
        assert sorted((to, title.partition(" #")[0]) for to, title, _ in got) == [("boss", over), ("default", over)]
        assert "Told by this message: 7 in 2 groups" in got[0][2]
        assert "4 × web-b: Oops" in got[0][2]
        assert await states(store) == {"alerted": 8}
        # What fails from now on is told by itself, and the end of what nobody has heard of alone is no news.
        later = NOW + 20 * MINUTE
        await ingest(store, arrive("w-2", function="web-a"), rules=both, now=later)
        assert titles(await work(store, until=later + INTERVAL, now=later)) == ["web-a failed: Oops"] * 2
        assert await work(store, until=NOW + DAY, now=later + INTERVAL) == []
        assert await states(store) == {"alerted": 9}
        assert await store.next_due() is None

    run(scenario)


def test_a_cause_keeps_only_those_quiet_that_are_equal_to_it(run):
    async def scenario(store):
        by_team = rules("rs-equal", inhibited_by=(Inhibition("db", ("labels.team", "region")),))
        teams = ({"team": "a"}, {"team": "b"}, {})
        sent = [
            replace(arrive(f"w-{index}", function=f"web-{index}"), labels=labels) for index, labels in enumerate(teams)
        ]
        cause = replace(arrive("d-1", function="db"), labels={"team": "a"})
        await ingest(store, cause, *sent, rules=by_team)
        assert sorted(titles(await work(store, until=NOW + MINUTE))) == [
            "db failed: Oops",
            "web-1 failed: Oops",
            "web-2 failed: Oops",
        ]
        assert await states(store) == {"alerted": 3, "suppressed": 1}

    run(scenario)


def test_a_label_that_neither_has_is_equal(run):
    async def scenario(store):
        by_team = rules("rs-none", inhibited_by=(Inhibition("db", ("labels.team",)),))
        await ingest(store, arrive("d-1", function="db"), arrive("w-1", function="web"), rules=by_team)
        assert titles(await work(store, until=NOW + MINUTE)) == ["db failed: Oops"]

    run(scenario)


def test_what_has_a_second_cause_waits_for_the_end_of_that(run):
    async def scenario(store):
        two = rules("rs-two", inhibited_by=(Inhibition("db"), Inhibition("other")))
        await ingest(store, *(arrive(f"{name}-1", function=name) for name in ("db", "other", "web")), rules=two)
        assert len(await work(store, until=NOW + 20 * MINUTE)) == 2
        assert await states(store) == {"alerted": 2, "suppressed": 1}
        got = await work(store, until=NOW + 40 * MINUTE, now=NOW + 20 * MINUTE)
        assert titles(got) == ["other is over: it kept 1 alert of 1 group quiet"]
        assert await states(store) == {"alerted": 3}

    run(scenario)


def test_a_symptom_that_was_over_long_before_its_cause_is_told_with_it(run):
    async def scenario(store):
        await ingest(store, arrive("d-1", function="db"), arrive("w-1", function="web"), rules=PLAIN)
        got = []
        for minutes in range(5, 180, 5):  # the cause goes on
            now = NOW + minutes * MINUTE
            await ingest(store, arrive(f"d-{minutes}", function="db"), rules=PLAIN, now=now)
            got += await work(store, until=now + INTERVAL, now=now)
        assert not [title for title in titles(got) if "web" in title]
        got = await work(store, until=NOW + 4 * HOUR, now=NOW + 3 * HOUR)
        assert titles(got) == ["db is over: it kept 1 alert of 1 group quiet"]

    run(scenario)


def test_a_cause_without_an_end_hides_nothing_for_longer_than_a_day(run):
    async def scenario(store):
        # Two that name each other: by rules that were changed between their failures.
        first = RuleSet((Rule("a", PLACE, match=only("a"), alert=policy(inhibited_by=(Inhibition("b"),))),), "rs-a")
        second = RuleSet((Rule("b", PLACE, match=only("b"), alert=policy(inhibited_by=(Inhibition("a"),))),), "rs-b")
        await ingest(store, arrive("a-1", function="a"), rules=first)
        await ingest(store, arrive("b-1", function="b"), rules=second)
        assert await work(store, until=NOW + DAY) == []
        got = await work(store, until=NOW + 2 * DAY, now=NOW + DAY)
        assert sorted(titles(got)) == ["a is over: it kept 1 alert of 1 group quiet", "resolved: a failed: Oops"]
        assert await states(store) == {"alerted": 2}

    run(scenario)
