"""The decision: facts and rules in, one value out. Pure, total, deterministic.

`decide` judges one envelope, `decide_batch` a batch in which later envelopes see earlier ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from triage.drills import until_of
from triage.envelope import RECONSTRUCTED, Outcome, RequestId
from triage.facts import Arrival, Facts, Lineage, Snapshot, first_failure
from triage.reruns.backoff import next_delay, spread_of
from triage.reruns.event import Unfit
from triage.reruns.lineage import TaskId, task_id
from triage.rules.match import matching
from triage.rules.model import AlertPolicy, Cause, Clause, HoldPolicy, Match, RerunPolicy, Rule, RuleSet
from triage.states import Event, State, advance
from triage.subject import Subject


class Reason(StrEnum):
    """Why the decision is what it is: a closed set, used as label everywhere."""

    DUPLICATE = "duplicate"  # this request id with this very body is stored already
    CONFLICT = "conflict"  # this request id with another body is stored already
    MATCHED = "matched"  # a rule matched, and its action was taken
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"  # a rule would re-run, but all attempts are used up
    TOO_OLD = "too_old"  # a rule would re-run, but not before ``give_up_after`` has passed
    NO_PAYLOAD = Unfit.NO_PAYLOAD.value  # a rule would re-run, but the message does not tell the event
    PAYLOAD_TOO_LARGE = Unfit.TOO_LARGE.value  # a rule would re-run, but the platform takes no such event
    NO_RULE = "no_rule"  # no rule matched: the default receiver is told
    HEALED = "healed"  # the result of a re-run, and a success
    AMBIGUOUS = "ambiguous"  # the result of a re-run: success or stopped; the provider is asked
    LATE = "late"  # a failure of an attempt that a later one has replaced: nothing follows from it
    SUCCEEDED = "succeeded"  # a result that is no failure and belongs to no re-run


@dataclass(frozen=True, slots=True)
class Rerun:
    """Run the task again, once, not before ``due_at``."""

    task_id: TaskId
    attempt: int
    due_at: datetime
    policy: RerunPolicy


@dataclass(frozen=True, slots=True)
class Alert:
    """Tell a person. ``rule`` is the one that says so; None for what no rule has taken."""

    cause: Cause
    policy: AlertPolicy
    rule: Rule | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Resolve:
    """Ask the provider how the task of the current attempt ended, or the one that may be the next, made elsewhere."""

    task_id: TaskId
    attempt: int


@dataclass(frozen=True, slots=True)
class Hold:
    """Wait for a person's decision, and tell somebody at ``due_at`` that there was none."""

    due_at: datetime
    policy: HoldPolicy


Effect = Rerun | Alert | Resolve | Hold


@dataclass(frozen=True, slots=True)
class Shadow:
    """What a rule in shadow mode would have done, had it been the only one."""

    rule: Rule
    reason: Reason
    effects: tuple[Effect, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done about one envelope, and why.

    Attributes:
        rule: the rule that decides: of those that apply, the first that re-runs, holds or ignores, else the last.
        also: the other rules that apply; all but one say ``continue``. Their alerts are told, too.
        shadow: rules in shadow mode that match, with what they would have done.
        lineage: the lineage after this decision, or None for a success outside any lineage.
        errors: rules whose ``when`` could not be evaluated. Why rules did not match is not kept: deciding is pure, so
            `triage.rules.match.trace` finds it again from the stored facts and the stored rule set.
        facts: what deciding saw; stored with the decision, no part of its identity.
    """

    reason: Reason
    rule: Rule | None = None
    effects: tuple[Effect, ...] = ()
    lineage: Lineage | None = None
    errors: tuple[Clause, ...] = ()
    facts: Facts = field(default=Facts(), compare=False)
    also: tuple[Rule, ...] = ()
    shadow: tuple[Shadow, ...] = ()

    @property
    def is_new(self) -> bool:
        """Whether the envelope is to be stored as decided."""
        return self.reason not in (Reason.DUPLICATE, Reason.CONFLICT)


DEFAULT_ALERT = AlertPolicy()


def decide(arrival: Arrival, facts: Facts, rules: RuleSet, *, now: datetime) -> Decision:
    """Judge one envelope. Never raises for any input."""
    if facts.seen_digest is not None:
        same = _same(facts.seen_digest, arrival.envelope.digest)
        return Decision(Reason.DUPLICATE if same else Reason.CONFLICT, facts=facts)
    envelope = arrival.envelope
    match = match_rules(arrival, facts, rules, now=now)
    if facts.drill is not None:
        match = Match([_at_once(rule, now=now, until=until_of(facts.drill.request_id)) for rule in match.rules])
    return decide_by(match, facts, request_id=envelope.request_id, outcome=envelope.outcome, now=now)


def _same(digest: str, other: str) -> bool:
    """Whether two envelopes of one request tell the same. One that was reconstructed tells the same as any: the message
    that it stands for may come after all, and says it in other words.
    """
    return digest == other or digest.startswith(RECONSTRUCTED) or other.startswith(RECONSTRUCTED)


def match_rules(arrival: Arrival, facts: Facts, rules: RuleSet, *, now: datetime) -> Match:
    """The rules that apply to one envelope."""
    if not rules.of_successes and arrival.envelope.outcome is not Outcome.FAILED:
        return Match()
    return matching(rules, Subject(arrival, facts, now=now))


def decide_by(match: Match, facts: Facts, *, request_id: RequestId, outcome: Outcome, now: datetime) -> Decision:
    """Judge one envelope, which is no duplicate, by the rules that apply to it."""

    def verdict(rule: Rule | None, also: tuple[Rule, ...]) -> _Verdict:
        if outcome is Outcome.FAILED:
            return _failed(request_id, facts, rule, also, now=now)
        return _not_failed(request_id, outcome, facts, rule, also)

    rule, also = _deciding(match.rules)
    reason, effects, lineage = verdict(rule, also)
    shadow = tuple(Shadow(each, *verdict(each, ())[:2]) for each in match.shadow)
    return Decision(reason, rule, effects, lineage, match.errors, facts, also, shadow)


def decide_batch(arrivals: Sequence[Arrival], snapshot: Snapshot, rules: RuleSet, *, now: datetime) -> list[Decision]:
    """Judge a batch in order; each decision becomes a fact for those after it."""
    decisions = []
    for arrival in arrivals:
        decision = decide(arrival, snapshot.of(arrival), rules, now=now)
        decisions.append(decision)
        if decision.is_new:
            _learn(snapshot, arrival, decision, now=now)
    return decisions


_Verdict = tuple[Reason, tuple[Effect, ...], Lineage | None]


def _deciding(rules: Sequence[Rule]) -> tuple[Rule | None, tuple[Rule, ...]]:
    """Of the rules that apply the one that decides, and the others."""
    if len(rules) <= 1:
        return (rules[0] if rules else None), ()
    rule = next((each for each in rules if each.rerun or each.hold or each.ignore is not None), rules[-1])
    return rule, tuple(each for each in rules if each is not rule)


def _not_failed(
    request_id: RequestId, outcome: Outcome, facts: Facts, rule: Rule | None, also: tuple[Rule, ...]
) -> _Verdict:
    told = tuple(
        Alert(Cause.MATCHED, each.alert, each) for each in (rule, *also) if each is not None and each.alert is not None
    )
    lineage = facts.lineage
    if lineage is None:
        return Reason.SUCCEEDED, told, None
    if outcome is Outcome.AMBIGUOUS and facts.elsewhere:
        # Who stopped a re-run of his own has not mended anything: it belongs to the failure only once it has succeeded.
        # Without a task id of somebody's choosing it is the request id.
        return Reason.AMBIGUOUS, (Resolve(TaskId(request_id), lineage.attempt), *told), None
    if outcome is Outcome.AMBIGUOUS:
        # Success or stopped. Only a tracked task can be stopped, and a tracked task can be asked about.
        attempt = lineage.attempt if facts.attempt is None else facts.attempt
        ask = Resolve(task_id(lineage.root, attempt), attempt)
        return Reason.AMBIGUOUS, (ask, *told), lineage
    return Reason.HEALED, told, lineage.moved(advance(lineage.state, Event.SUCCEEDED))


def _failed(
    request_id: RequestId, facts: Facts, rule: Rule | None, also: tuple[Rule, ...], *, now: datetime
) -> _Verdict:
    if facts.lineage is not None and facts.is_late:
        # What becomes of the task is the business of the later attempt; one more would run beside it.
        return Reason.LATE, (), facts.lineage
    rule_id = rule.id if rule else ""
    lineage = facts.lineage or Lineage(request_id, State.NEW, 0, now, rule_id, 0)
    # It is the first run's event that is run again, and later ones may tell theirs otherwise.
    unfit = facts.unfit if facts.lineage is None else None
    reason, effects, event = _of_rule(rule, lineage, unfit, now=now)
    if also:
        more = tuple(
            Alert(Cause.FAILED, each.alert, each)
            for each in also
            if each.alert is not None and Cause.FAILED in each.alert.on
        )
        effects += more
        event = Event.ALERT if more and event is Event.IGNORE else event
    attempt = lineage.attempt + 1 if event is Event.RERUN else lineage.attempt
    return reason, effects, lineage.moved(advance(lineage.state, event), attempt=attempt, rule_id=rule_id)


_Act = tuple[Reason, tuple[Effect, ...], Event]


def _of_rule(rule: Rule | None, lineage: Lineage, unfit: Unfit | None, *, now: datetime) -> _Act:
    if rule is None:
        return _alert(Reason.NO_RULE, Cause.FAILED, None)
    if rule.ignore is not None:
        return Reason.MATCHED, (), Event.IGNORE
    if rule.rerun is not None and unfit is not None:
        return _alert(Reason(unfit.value), Cause.REFUSED, rule)
    if rule.rerun is not None:
        return _rerun(rule, rule.rerun, lineage, now=now)
    if rule.hold is not None:
        return _hold(rule, rule.hold, now=now)
    return _alert(Reason.MATCHED, Cause.FAILED, rule)


def _rerun(rule: Rule, policy: RerunPolicy, lineage: Lineage, *, now: datetime) -> _Act:
    attempt = lineage.attempt + 1
    if attempt > policy.max_attempts:
        return _alert(Reason.ATTEMPTS_EXHAUSTED, Cause.EXHAUSTED, rule)
    due_at = rerun_due(policy, lineage, now=now)
    if due_at > lineage.started_at + policy.give_up_after:
        return _alert(Reason.TOO_OLD, Cause.EXHAUSTED, rule)
    if rule.hold is not None:
        return _hold(rule, rule.hold, now=now)
    effects: tuple[Effect, ...] = (Rerun(task_id(lineage.root, attempt), attempt, due_at, policy),)
    if rule.alert is not None and Cause.FAILED in rule.alert.on:
        effects += (Alert(Cause.FAILED, rule.alert, rule),)
    return Reason.MATCHED, effects, Event.RERUN


def rerun_due(policy: RerunPolicy, lineage: Lineage, *, now: datetime) -> datetime:
    """When the next re-run of a lineage would be due."""
    attempt = lineage.attempt + 1
    return now + next_delay(
        first=policy.after,
        factor=policy.factor,
        longest=policy.max_delay,
        jitter=policy.jitter,
        attempt=attempt,
        spread=spread_of(f"{lineage.root}/{attempt}"),
    )


def _at_once(rule: Rule, *, now: datetime, until: datetime) -> Rule:
    """A rule for a drill, which does not wait: its one re-run is due now, and so is the end of a hold of which nobody
    would hear before.
    """
    rerun = rule.rerun and replace(rule.rerun, max_attempts=1, after=timedelta(0), jitter=0.0)
    told = Cause.HELD in policy_of_rule(rule).on
    hold = rule.hold and replace(rule.hold, length=max(until - now, timedelta(0)) if told else timedelta(0))
    return replace(rule, rerun=rerun, hold=hold)


def _hold(rule: Rule, policy: HoldPolicy, *, now: datetime) -> _Act:
    effects: tuple[Effect, ...] = (Hold(now + policy.length, policy),)
    if rule.alert is not None and Cause.HELD in rule.alert.on:
        effects += (Alert(Cause.HELD, rule.alert, rule),)
    return Reason.MATCHED, effects, Event.HOLD


def policy_of_rule(rule: Rule | None) -> AlertPolicy:
    """How people are told of a failure that a rule decided: as it says, else by default, to its owner if possible."""
    if rule is None or (rule.alert is None and not rule.tell):
        return DEFAULT_ALERT
    return rule.alert or replace(DEFAULT_ALERT, to=rule.tell)


def _alert(reason: Reason, cause: Cause, rule: Rule | None) -> _Act:
    policy = policy_of_rule(rule)
    if cause not in policy.on:
        return reason, (), Event.IGNORE
    return reason, (Alert(cause, policy, rule),), Event.ALERT


def _learn(snapshot: Snapshot, arrival: Arrival, decision: Decision, *, now: datetime) -> None:
    request_id: RequestId = arrival.envelope.request_id
    snapshot.seen[request_id] = arrival.envelope.digest
    if decision.lineage is not None and decision.lineage.version:
        # Other results of the same re-run may follow in this batch. A lineage that begins here has none yet, and must
        # not be searched for: a batch may hold thousands.
        root, changed = decision.lineage.root, decision.lineage.written()
        snapshot.lineages.update({member: changed for member, known in snapshot.lineages.items() if known.root == root})
    if arrival.envelope.outcome is Outcome.FAILED:
        group = snapshot.groups.get(arrival.fingerprint)
        snapshot.groups[arrival.fingerprint] = group.grown(now) if group else first_failure(now, rates=snapshot.rates)
