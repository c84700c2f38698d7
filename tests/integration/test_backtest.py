"""Back-tests over a past that the real consumer, outbox and store have made."""

import asyncio
import json
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make import ARN, NOW, body
from past import Past, rule_set

from triage.backtest.history import Choice, History
from triage.backtest.recorded import Values
from triage.backtest.replay import Absence, Shortlist, replay
from triage.backtest.report import Report, as_json
from triage.backtest.run import Backtest, RulesUsed, run
from triage.decide import decide, decide_by
from triage.errors import Permanent, RulesInvalid, StoreUnavailable
from triage.facts import Unrecorded
from triage.rules.match import matching_of
from triage.rules.model import Mode, RuleSet
from triage.stores import decisions, records
from triage.subject import VOCABULARY, Subject

AGAIN = """
  - id: again
    match: {condition: InvocationError}
    rerun: {after: 1m, max_attempts: 2, backoff: {factor: 1, jitter: 0}}
    alert: {to: ops, on: [exhausted, refused, overdue]}
"""
TELL = """
  - id: tell
    match: {condition: InvocationError}
    alert: {to: ops}
"""
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def compare(
    path: Path,
    after: RuleSet,
    *,
    before: RuleSet | None = None,
    choice: Choice = Choice(),
    limit: int = 20,
    jobs: int = 1,
    live: frozenset[str] = frozenset(),
) -> Report:
    report = Report(limit=limit)
    used = None if before is None else RulesUsed(before.sources)
    for part in run(Backtest(path, RulesUsed(after.sources, live), used, choice, limit), jobs=jobs):
        report.merge(part.report)
    return report


Story = Callable[[Past], Awaitable[None]]


@pytest.fixture
def lived(tmp_path: Path) -> Callable[..., Path]:
    numbers = count()

    def live(rules: RuleSet, story: Story, *, outcomes: tuple[bool, ...] = (True,)) -> Path:
        path = tmp_path / f"past-{next(numbers)}.db"

        async def run_it() -> None:
            past = await Past.open(path, rules, outcomes=outcomes)
            try:
                await story(past)
            finally:
                await past.close()

        asyncio.run(run_it())
        return path

    return live


async def five_failures(past: Past) -> None:
    await past.receive(*(body(f"r{number}") for number in range(5)))
    await past.pass_time(DAY)


# --- what was decided is decided again -------------------------------------------------------------------------------

CONDITIONS = ["InvocationError", "FunctionOOMError", ""]
MATCHES = [
    "{}",
    "{function: my-fc-job}",
    '{function: "other-*"}',
    "{condition: [InvocationError, FunctionOOMError]}",
    "{error: {message: timed out}}",
    '{not: {error: {message: "/\\\\d+ MB/"}}}',
    "{payload: {user.tier: gold}}",
    "{outcome: [failed, succeeded, succeeded_or_stopped]}",
    '{function_error: "", status_code: ">= 500"}',
]
WHENS = [
    "",
    "lineage.attempt < 1",
    "lineage.age > duration('90s')",
    "group.count >= 2",
    "group.rate_5m > 0.3",
    "group.state == 'regressed' || group.state == 'quiet'",
    "payload.?user.?tier.orValue('') == 'gold'",
    "payload.user.tier == 'gold'",
    "now < timestamp('2026-03-01T12:10:00Z')",
    "lineage.manual == 0",
]
ACTIONS = [
    "rerun: {after: 1m, max_attempts: 2}",
    "rerun: {after: 5m, max_attempts: 3, give_up_after: 8m}\n    alert: {to: ops, on: [failed, exhausted, overdue]}",
    "rerun: {max_attempts: 1, expect_within: 2m}",
    "alert: {to: [ops, team], severity: critical}",
    "ignore: known",
    "hold: {reason: look first, for: 3m}\n    alert: {to: ops}",
    "alert: {to: audit}\n    continue: true",
    "rerun: {after: 2m, max_attempts: 1}\n    mode: shadow",
    "alert: {to: nobody}\n    mode: off",
    "alert: {to: gone}\n    expires: 2026-02-01",
]


@st.composite
def rule_sets(draw: st.DrawFn) -> str:
    text = ""
    for number in range(draw(st.integers(1, 5))):
        when = draw(st.sampled_from(WHENS))
        text += f"  - id: r{number}\n    match: {draw(st.sampled_from(MATCHES))}\n"
        text += f'    when: "{when}"\n' if when else ""
        text += f"    {draw(st.sampled_from(ACTIONS))}\n"
    return text


messages = st.builds(
    lambda number, name, condition, error, payload, status: body(
        f"m{number}",
        arn=ARN.replace("my-fc-job", name),
        condition=condition,
        error=error,
        payload=payload,
        status=status,
    ),
    st.integers(0, 30),
    st.sampled_from(["my-fc-job", "other-1"]),
    st.sampled_from(CONDITIONS),
    st.sampled_from(["Function timed out after 60 seconds", "used 70 MB", "x" * 5000 + "é"]),
    st.sampled_from(['{"user":{"tier":"gold"}}', '{"user":"x"}', "no json", ""]),
    st.sampled_from([200, 500]),
)
steps = st.lists(
    st.one_of(
        st.lists(messages, min_size=1, max_size=4),
        st.sampled_from([MINUTE, 7 * MINUTE, timedelta(hours=2), 2 * DAY]),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=40)
@given(st.lists(rule_sets(), min_size=1, max_size=2), steps, st.lists(st.booleans(), min_size=1, max_size=6))
def test_unchanged_rules_make_every_recorded_decision_again(texts, steps, outcomes):
    async def live(path: Path) -> int:
        first, last = rule_set(texts[0]), rule_set(texts[-1])
        past = await Past.open(path, first, outcomes=outcomes)
        for number, step in enumerate(steps):
            if number == len(steps) // 2:
                await past.use(last)
            if isinstance(step, timedelta):
                await past.pass_time(step)
            else:
                await past.receive(*step)
        await past.pass_time(DAY)
        totals = await past.store.totals()
        await past.close()
        return totals.decided

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "past.db"
        decided = asyncio.run(live(path))
        # The file's name is in the digest: the same rules under another name go all the way through the replay.
        for name in ("rules.yaml", "renamed.yaml"):
            report = compare(path, rule_set(texts[-1], name=name))
            assert (report.envelopes, report.defective, report.unkept) == (decided, 0, Counter())
            if len(texts) == 1:
                assert as_json(report)["changes"] == []
                assert report.changed == 0
                assert report.before == report.after
        # Rules written alike are not asked twice; under another name none is alike, and all are asked.
        for other in (more(texts[0]), texts[-1] + more(""), texts[0].replace("r1", "q1")):
            one, two = (compare(path, rule_set(other, name=name)) for name in ("rules.yaml", "renamed.yaml"))
            assert as_json(one) == as_json(two)
        check_reading(path, rule_set(texts[-1]))


def more(text: str) -> str:
    return (
        "  - id: first\n    match: {function: other-*}\n    ignore: x\n" * bool(text)
        + text
        + ("  - id: last\n    match: {outcome: succeeded_or_stopped}\n    alert: {to: ops}\n")
    )


def check_reading(path: Path, rules: RuleSet) -> None:
    """What is read fast is what the message itself says, and asking fewer rules gives the same decisions."""
    known = Shortlist(rules, {})
    history = History(path, Choice())
    low, high = history.span()
    for story in history.stories(low, high, last=high):
        for item in story:
            arrival, facts, now = recalled(path, item.request_id)
            assert (item.facts, item.now) == (facts, now)
            assert values(Values(item, timedelta(0))) == values(Subject(arrival, facts, now=now))
            match = matching_of(known.of(item).candidates, Values(item, timedelta(0)))
            decision = decide(arrival, facts, rules, now=now)
            assert match.errors == decision.errors
            assert (
                decide_by(match, item.facts, request_id=item.request_id, outcome=item.outcome, now=item.now) == decision
            )
    history.close()


def values(subject: Mapping[str, object]) -> dict[str, object]:
    found = {}
    for name in VOCABULARY:
        try:
            found[name] = subject[name]
        except Unrecorded:
            found[name] = Unrecorded
    return found


def recalled(path: Path, request_id: str):
    async def ask():
        from triage.stores.sqlite import SqliteStore

        store = await SqliteStore.open(path)
        try:
            return decisions.recall(await store.failure(request_id))
        finally:
            await store.close()

    return asyncio.run(ask())


def test_a_decision_that_its_rules_do_not_give_again_is_a_defect(lived):
    path = lived(rule_set(TELL), five_failures)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE decisions SET effects = '[]' WHERE request_id = 'r3'")
    report = compare(path, rule_set(TELL))
    assert report.defective == 1
    assert [defect.request_id for defect in report.defects] == ["r3"]
    assert report.defects[0].recorded.effects == "[]"
    assert as_json(report)["defects"]["first"][0]["again"]["effects"][0]["to"] == ["ops"]


@pytest.mark.parametrize("sources", [None, '[{"name":"rules.yaml","text":"version: 2"}]'], ids=["gone", "unreadable"])
def test_rules_that_are_not_kept_are_said_and_the_record_is_taken(lived, sources):
    path = lived(rule_set(TELL), five_failures)
    with sqlite3.connect(path) as db:
        if sources is None:
            db.execute("DELETE FROM rule_sets")
        else:
            db.execute("UPDATE rule_sets SET sources = ?", (sources,))
    report = compare(path, rule_set(TELL.replace("ops", "team")))
    assert report.unkept == {rule_set(TELL).digest: 5}
    assert (report.defective, report.changed) == (0, 5)


# --- what changes ----------------------------------------------------------------------------------------------------


def test_alerts_that_move_to_another_receiver(lived):
    report = compare(lived(rule_set(TELL), five_failures), rule_set(TELL.replace("ops", "[ops, team]")))
    assert report.changed == 5
    assert report.before == {("alert", "ops"): 5}
    assert report.after == {("alert", "ops"): 5, ("alert", "team"): 5}
    assert report.by_rule == {("tell", "tell"): (5, Counter({("alert", "team"): 5, ("alert", "ops"): 0}))}


def test_reruns_that_would_not_be_made_take_their_results_along(lived):
    # Each failure fails once more and then heals.
    path = lived(rule_set(AGAIN), five_failures, outcomes=(False,) * 5 + (True,))
    report = compare(path, rule_set(TELL))
    assert report.envelopes == 15
    assert report.before[("rerun", "")] == 10
    assert report.after == {("alert", "ops"): 5}
    assert (report.not_made, report.healed) == (5, 5)
    assert report.left_out == {Absence.NOT_MADE: 10}
    fewer = compare(path, rule_set(AGAIN.replace("max_attempts: 2", "max_attempts: 1")))
    assert fewer.after == {("rerun", ""): 5, ("alert", "ops"): 5}
    assert (fewer.not_made, fewer.healed, fewer.left_out) == (5, 5, {Absence.NOT_MADE: 5})


def test_a_rerun_that_was_never_made_has_no_outcome(lived):
    report = compare(lived(rule_set(TELL), five_failures), rule_set(AGAIN))
    assert report.after == {("rerun", ""): 5}
    assert report.open_ends == 5
    assert report.left_out == {}
    more = rule_set(AGAIN.replace("max_attempts: 2", "max_attempts: 3"))
    path = lived(rule_set(AGAIN.replace("max_attempts: 2", "max_attempts: 1")), five_failures, outcomes=(False,))
    assert compare(path, more).open_ends == 5


def test_a_rerun_at_another_time_moves_what_follows(lived):
    """An hour later the failure is too old for the second re-run."""
    patient = AGAIN.replace("after: 1m", "after: 50m").replace("max_attempts: 2", "max_attempts: 2, give_up_after: 1h")
    path = lived(rule_set(AGAIN), five_failures, outcomes=(False,) * 5 + (True,))
    report = compare(path, rule_set(patient), limit=100)
    assert report.after == {("rerun", ""): 5, ("alert", "ops"): 5}
    first, second = (next(c for c in report.changes if c.request_id == name) for name in ("r0", "fake-1"))
    assert json.loads(first.after.ruling.effects)[0]["due_at"] == "2026-03-01T12:50:00.000000Z"
    assert (second.after.ruling.reason, second.before.ruling.reason) == ("too_old", "matched")


def test_how_a_rerun_ended_is_told_to_whom_the_rules_after_say(lived):
    async def refused(past: Past) -> None:
        past.functions.failures = [Permanent("denied", "no such version")]
        await past.receive(body("r0"))
        await past.pass_time(DAY)

    report = compare(lived(rule_set(AGAIN), refused), rule_set(AGAIN.replace("to: ops", "to: team")))
    assert report.before == {("rerun", ""): 1, ("alert", "ops"): 1}
    assert report.after == {("rerun", ""): 1, ("alert", "team"): 1}
    assert report.changes[0].after.told_later == ("team",)
    quiet = compare(lived(rule_set(AGAIN), refused), rule_set(AGAIN.replace("refused, ", "")))
    assert quiet.after == {("rerun", ""): 1}


def test_what_is_held_and_ignored_counts(lived):
    path = lived(rule_set(TELL), five_failures)
    held = compare(path, rule_set(TELL.replace("alert: {to: ops}", "hold: look first")))
    assert held.after == {("hold", ""): 5}
    ignored = compare(path, rule_set(TELL.replace("alert: {to: ops}", "ignore: known")))
    assert ignored.after == {("ignore", ""): 5}
    assert as_json(ignored)["after"] == {"reruns": 0, "held": 0, "ignored": 5, "alerts": {}}


def test_a_shadow_rule_changes_nothing_until_it_is_taken_as_live(lived):
    shadow = "  - id: later\n    ignore: noise\n    mode: shadow\n" + TELL
    path = lived(rule_set(TELL), five_failures)
    assert compare(path, rule_set(shadow)).changed == 0
    live = compare(path, rule_set(shadow), live=frozenset({"later"}))
    assert live.after == {("ignore", ""): 5}
    assert RulesUsed(rule_set(shadow).sources, frozenset({"later"})).load().rules[0].mode is Mode.LIVE


def test_a_rate_that_was_not_recorded_is_said(lived):
    rates = "  - id: burst\n    when: group.rate_5m > 0.1\n    ignore: burst\n" + TELL
    report = compare(lived(rule_set(TELL), five_failures), rule_set(rates))
    # The first failure of a group has no rate, so nothing is missing there.
    assert (report.unrecorded, report.changed) == (4, 0)
    recorded = compare(lived(rule_set(rates), five_failures), rule_set(rates.replace("> 0.1", "> 0.9")))
    assert recorded.unrecorded == 0


def test_two_sets_can_be_compared_that_were_never_in_force(lived):
    path = lived(rule_set(TELL), five_failures)
    report = compare(path, rule_set(TELL.replace("ops", "c")), before=rule_set(TELL.replace("ops", "b")))
    assert (report.before, report.after) == ({("alert", "b"): 5}, {("alert", "c"): 5})
    assert report.defective == 0


# --- what is covered -------------------------------------------------------------------------------------------------


def test_a_choice_takes_whole_stories(lived):
    async def two_days(past: Past) -> None:
        await past.receive(body("old"), body("else", arn=ARN.replace("my-fc-job", "other")))
        await past.pass_time(DAY)
        await past.receive(body("new"))
        await past.pass_time(DAY)

    path = lived(rule_set(AGAIN), two_days, outcomes=(False,))
    since, noon = NOW + DAY / 2, NOW + timedelta(seconds=30)

    def covered(choice: Choice) -> tuple[int, int]:
        report = compare(path, rule_set(TELL), choice=choice)
        return report.stories, report.envelopes

    assert covered(Choice()) == (3, 9)
    assert covered(Choice(since=since)) == (1, 3)
    assert covered(Choice(until=noon)) == (2, 6)  # their results came after noon, and come along
    assert covered(Choice(globs=(("function", "oth*"),))) == (1, 3)
    assert covered(Choice(globs=(("function", "[!o]*"), ("request_id", "new")))) == (1, 3)
    assert covered(Choice(since=NOW + 5 * DAY)) == (0, 0)


def test_several_processes_find_what_one_finds(lived):
    async def many(past: Past) -> None:
        await past.receive(*(body(f"r{number}") for number in range(40)))
        await past.pass_time(DAY)

    path = lived(rule_set(AGAIN), many, outcomes=(False, True))
    backtest = Backtest(path, RulesUsed(rule_set(TELL).sources), limit=7)
    reports = []
    for jobs in (1, 2):
        merged = Report(limit=7)
        parts = list(run(backtest, jobs=jobs, chunk=16))
        for part in parts:
            merged.merge(part.report)
        reports.append(as_json(merged))
        assert len(parts) > 3
        assert parts[-1].done == parts[-1].total
    assert reports[0] == reports[1]
    assert len(reports[0]["changes"]) == 7


def test_an_empty_store_is_covered_by_nothing(lived):
    async def nothing(past: Past) -> None:
        pass

    report = compare(lived(rule_set(TELL), nothing), rule_set(TELL))
    assert (report.envelopes, report.changed) == (0, 0)


def test_what_cannot_be_used_is_said(tmp_path: Path, lived):
    with pytest.raises(StoreUnavailable):
        compare(tmp_path / "missing.db", rule_set(TELL))
    path = lived(rule_set(TELL), five_failures)
    with pytest.raises(RulesInvalid):
        list(run(Backtest(path, RulesUsed((records.SourceText("a.yaml", "version: 1\nrules: 5"),))), jobs=1))


def test_the_history_is_only_read(lived):
    path = lived(rule_set(TELL), five_failures)
    history = History(path, Choice())
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        history._connection.execute("DELETE FROM envelopes")
    assert replay([], []) == []
    history.close()
