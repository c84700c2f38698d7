"""The decision: facts and rules in, one value out. Pure, total, deterministic.

`decide` judges one envelope, `decide_batch` a batch in which later envelopes see earlier ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from triage.envelope import Outcome, RequestId
from triage.facts import Arrival, Facts, GroupFacts, Lineage, Snapshot, Subject
from triage.reruns.backoff import next_delay, spread_of
from triage.reruns.lineage import TaskId, task_id
from triage.rules.match import first_match
from triage.rules.model import AlertPolicy, Cause, Clause, RerunPolicy, Rule, RuleSet
from triage.states import Event, State, advance


class Reason(StrEnum):
    """Why the decision is what it is: a closed set, used as label everywhere."""

    DUPLICATE = "duplicate"  # this request id with this very body is stored already
    CONFLICT = "conflict"  # this request id with another body is stored already
    MATCHED = "matched"  # a rule matched, and its action was taken
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"  # a rule would re-run, but all attempts are used up
    TOO_OLD = "too_old"  # a rule would re-run, but not before ``give_up_after`` has passed
    NO_RULE = "no_rule"  # no rule matched: the default receiver is told
    HEALED = "healed"  # the result of a re-run, and a success
    AMBIGUOUS = "ambiguous"  # the result of a re-run: success or stopped; the provider is asked
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
    """Tell a person."""

    cause: Cause
    policy: AlertPolicy


@dataclass(frozen=True, slots=True)
class Resolve:
    """Ask the provider how the task of the current attempt ended."""

    task_id: TaskId
    attempt: int


Effect = Rerun | Alert | Resolve


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done about one envelope, and why.

    Attributes:
        lineage: the lineage after this decision, or None for a success outside any lineage.
        errors: rules whose ``when`` could not be evaluated. Why rules did not match is not kept: deciding is pure, so
            `triage.rules.match.trace` finds it again from the stored facts and the stored rule set.
        facts: what deciding saw; stored with the decision, no part of its identity.
    """

    reason: Reason
    rule: Rule | None = None
    effects: tuple[Effect, ...] = ()
    lineage: Lineage | None = None
    errors: Sequence[Clause] = ()
    facts: Facts = field(default=Facts(), compare=False)

    @property
    def is_new(self) -> bool:
        """Whether the envelope is to be stored as decided."""
        return self.reason not in (Reason.DUPLICATE, Reason.CONFLICT)


DEFAULT_ALERT = AlertPolicy()


def decide(arrival: Arrival, facts: Facts, rules: RuleSet, *, now: datetime) -> Decision:
    """Judge one envelope. Never raises for any input."""
    envelope = arrival.envelope
    if facts.seen_digest is not None:
        same = facts.seen_digest == envelope.digest
        return Decision(Reason.DUPLICATE if same else Reason.CONFLICT, facts=facts)
    if envelope.outcome is not Outcome.FAILED:
        reason, effects, lineage = _not_failed(envelope.outcome, facts.lineage)
        return Decision(reason, None, effects, lineage, (), facts)
    match = first_match(rules, Subject(arrival, facts, now=now))
    reason, effects, lineage = _failed(arrival, facts, match.rule, now=now)
    return Decision(reason, match.rule, effects, lineage, match.errors, facts)


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


def _not_failed(outcome: Outcome, lineage: Lineage | None) -> _Verdict:
    if lineage is None:
        return Reason.SUCCEEDED, (), None
    if outcome is Outcome.AMBIGUOUS:
        # Success or stopped. Only a tracked task can be stopped, and a tracked task can be asked about.
        ask = Resolve(task_id(lineage.root, lineage.attempt), lineage.attempt)
        return Reason.AMBIGUOUS, (ask,), lineage
    return Reason.HEALED, (), lineage.moved(advance(lineage.state, Event.SUCCEEDED))


def _failed(arrival: Arrival, facts: Facts, rule: Rule | None, *, now: datetime) -> _Verdict:
    rule_id = rule.id if rule else ""
    if facts.lineage is None:
        lineage = Lineage(arrival.envelope.request_id, State.NEW, 0, now, rule_id, 0)
    else:
        lineage = replace(facts.lineage, rule_id=rule_id or facts.lineage.rule_id)
    if rule is None:
        return _alert(Reason.NO_RULE, lineage, Cause.FAILED, DEFAULT_ALERT)
    if rule.ignore is not None:
        return Reason.MATCHED, (), lineage.moved(advance(lineage.state, Event.IGNORE))
    if rule.rerun is None:
        return _alert(Reason.MATCHED, lineage, Cause.FAILED, rule.alert or DEFAULT_ALERT)
    return _rerun(rule, rule.rerun, lineage, now=now)


def _rerun(rule: Rule, policy: RerunPolicy, lineage: Lineage, *, now: datetime) -> _Verdict:
    attempt = lineage.attempt + 1
    if attempt > policy.max_attempts:
        return _alert(Reason.ATTEMPTS_EXHAUSTED, lineage, Cause.EXHAUSTED, rule.alert or DEFAULT_ALERT)
    due_at = now + next_delay(
        first=policy.after,
        factor=policy.factor,
        longest=policy.max_delay,
        jitter=policy.jitter,
        attempt=attempt,
        spread=spread_of(f"{lineage.root}/{attempt}"),
    )
    if due_at > lineage.started_at + policy.give_up_after:
        return _alert(Reason.TOO_OLD, lineage, Cause.EXHAUSTED, rule.alert or DEFAULT_ALERT)
    effects: tuple[Effect, ...] = (Rerun(task_id(lineage.root, attempt), attempt, due_at, policy),)
    if rule.alert is not None and Cause.FAILED in rule.alert.on:
        effects += (Alert(Cause.FAILED, rule.alert),)
    return Reason.MATCHED, effects, lineage.moved(advance(lineage.state, Event.RERUN), attempt=attempt)


def _alert(reason: Reason, lineage: Lineage, cause: Cause, policy: AlertPolicy) -> _Verdict:
    if cause not in policy.on:
        return reason, (), lineage.moved(advance(lineage.state, Event.IGNORE))
    return reason, (Alert(cause, policy),), lineage.moved(advance(lineage.state, Event.ALERT))


def _learn(snapshot: Snapshot, arrival: Arrival, decision: Decision, *, now: datetime) -> None:
    request_id: RequestId = arrival.envelope.request_id
    snapshot.seen[request_id] = arrival.envelope.digest
    if decision.lineage is not None:
        root = decision.lineage.root
        changed = decision.lineage.written()
        for member, known in snapshot.lineages.items():
            if known.root == root:
                snapshot.lineages[member] = changed
        snapshot.lineages[request_id] = changed
    if arrival.envelope.outcome is Outcome.FAILED:
        group = snapshot.groups.get(arrival.fingerprint)
        snapshot.groups[arrival.fingerprint] = (
            GroupFacts(group.first_seen, group.count + 1) if group else GroupFacts(now, 1)
        )
