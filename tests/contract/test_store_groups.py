"""What every store promises about alert groups from one look to the next: a restart repeats nothing, and loses nothing."""

from test_store import HOUR, INTERVAL, MINUTE, NOW, SECOND, WAIT, arrive, ingest
from test_store_silences import PLACE, states, work

from triage.rules.course import Course
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
        Rule("web", PLACE, match=only("web"), alert=policy(inhibited_by=("db",))),
    ),
    "rs-cause",
)


def titles(got):
    return [title.partition(" #")[0] for _, title, _ in got]


def test_while_a_cause_is_open_what_follows_from_it_is_only_counted(run):
    async def scenario(store):
        await ingest(store, arrive("d-1", function="db"), arrive("w-1", function="web"), rules=CAUSE)
        assert titles(await work(store, until=NOW + MINUTE)) == ["db failed: Oops"]
        assert await states(store) == {"alerted": 1, "suppressed": 1}
        # It is over, and what seemed to follow from it goes on.
        assert await work(store, until=NOW + 11 * MINUTE, now=NOW + MINUTE) == []
        later = NOW + 20 * MINUTE
        await ingest(store, arrive("w-2", function="web"), rules=CAUSE, now=later)
        assert titles(await work(store, until=later + INTERVAL, now=later)) == ["web failed: Oops × 2"]
        assert await states(store) == {"alerted": 3}

    run(scenario)


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
