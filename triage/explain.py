"""Why one result is decided the way it is: every rule with the clause that decided, and what the gates said. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from triage.alerts.silences import by_receiver
from triage.changes import NewAlert
from triage.decide import Alert, Decision, Reason, Rerun, decide, policy_of_rule, rerun_due
from triage.effects import decided
from triage.envelope import Outcome
from triage.facts import Arrival, Facts, Lineage
from triage.reruns.event import unfit_text
from triage.rules.match import Step, Verdict, judge, trace
from triage.rules.model import ABOUT_FAILURES, Cause, Rule, RuleSet
from triage.silence import Silence
from triage.states import State
from triage.subject import Subject


@dataclass(frozen=True, slots=True)
class Asked:
    """One rule. ``step`` is what came of it; ``alone`` what would have, had a rule that was not asked been asked."""

    step: Step
    alone: Step


@dataclass(frozen=True, slots=True)
class Gate:
    """Something beside the rules' clauses that has a say: ``name`` is one of a closed set, ``open`` whether it lets the
    rule have its way, and ``text`` why.
    """

    name: str
    open: bool
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision about one result, and what led to it."""

    asked: tuple[Asked, ...]
    gates: tuple[Gate, ...]
    decision: Decision
    subject: Subject


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What has a say after the decision.

    Attributes:
        silences: all that there are.
        quieted: by key of alert group the number of the silence that is on record to have kept the alert from
            everybody; it may have come while the group waited.
        waits: by task id the gate at which a re-run waits now, and why.
    """

    silences: Sequence[Silence] = ()
    quieted: Mapping[str, int] = field(default_factory=dict)
    waits: Mapping[str, tuple[str, str]] = field(default_factory=dict)


_NOTHING: Final = Aftermath()


def explain(
    arrival: Arrival, facts: Facts, rules: RuleSet, *, now: datetime, after: Aftermath = _NOTHING
) -> Explanation:
    """Decide, and say why."""
    subject = Subject(arrival, facts, now=now)
    decision = decide(arrival, facts, rules, now=now)
    asked = tuple(
        Asked(step, judge(step.rule, subject) if step.verdict is Verdict.NOT_ASKED else step)
        for step in trace(rules.rules, subject)
    )
    gates = (*_gates(arrival, facts, decision, now=now), *_of_aftermath(arrival, decision, after, now=now))
    return Explanation(asked, gates, decision, subject)


def _gates(arrival: Arrival, facts: Facts, decision: Decision, *, now: datetime) -> Iterator[Gate]:
    rule = decision.rule
    if facts.elsewhere and facts.lineage is not None:
        text = f"somebody has run {facts.lineage.root} again elsewhere: this is the result, of re-run {facts.attempt}"
        yield Gate("elsewhere", open=True, text=text)
    if facts.apart:
        yield Gate("elsewhere", open=False, text=facts.apart)
    if arrival.envelope.outcome is not Outcome.FAILED:
        yield from _of_result(decision)
        return
    if rule is None:
        yield Gate("rule", open=False, text="no rule takes it, so the default receiver is told")
        return
    if rule.ignore is not None:
        yield Gate("ignore", open=False, text=f"nothing is done: {rule.ignore}")
    elif rule.rerun is not None:
        lineage = facts.lineage or Lineage(arrival.envelope.request_id, State.NEW, 0, now, rule.id, 0)
        yield from _of_rerun(rule, arrival, lineage, decision, now=now)
    if rule.hold is not None and decision.reason is Reason.MATCHED:
        yield Gate("hold", open=False, text=f"a person decides: {rule.hold.reason}")
    if rule.ignore is None:
        yield _of_alert(rule, decision)


_UNFIT: Final = frozenset({Reason.NO_PAYLOAD, Reason.PAYLOAD_TOO_LARGE})


def _of_result(decision: Decision) -> Iterator[Gate]:
    texts = {
        Reason.HEALED: "the re-run succeeded: nothing is left to do",
        Reason.AMBIGUOUS: "the re-run succeeded or was stopped; the provider is asked which",
        Reason.SUCCEEDED: "a success that belongs to no re-run",
    }
    yield Gate("result", open=True, text=texts[decision.reason])


def _of_rerun(rule: Rule, arrival: Arrival, lineage: Lineage, decision: Decision, *, now: datetime) -> Iterator[Gate]:
    policy = rule.rerun
    assert policy is not None  # noqa: S101
    if (problem := unfit_text(arrival.envelope)) and decision.reason in _UNFIT:
        yield Gate("event", open=False, text=problem)
        return
    used, most = lineage.attempt, policy.max_attempts
    if decision.reason is Reason.ATTEMPTS_EXHAUSTED:
        yield Gate("attempts", open=False, text=f"{used} of {most} re-runs are used up")
        return
    by_hand = f", {lineage.manual} of those before asked for by a person" if lineage.manual else ""
    yield Gate("attempts", open=True, text=f"re-run {used + 1} of {most}{by_hand}")
    due_at, last = rerun_due(policy, lineage, now=now), lineage.started_at + policy.give_up_after
    late = decision.reason is Reason.TOO_OLD
    yield Gate(
        "deadline",
        open=not late,
        text=f"due {due_at:%Y-%m-%d %H:%M:%S}Z, {'after' if late else 'before'} the last moment for a re-run,"
        f" {last:%Y-%m-%d %H:%M:%S}Z",
    )


def _of_alert(rule: Rule, decision: Decision) -> Gate:
    policy = policy_of_rule(rule)
    alert = next((effect for effect in decision.effects if isinstance(effect, Alert) and effect.rule is rule), None)
    if alert is not None:
        return Gate("alert", open=True, text=f"{' and '.join(policy.to)} told now, of {alert.cause}")
    later = decision.reason is Reason.MATCHED
    rest = policy.on - {Cause.FAILED} - (frozenset() if rule.hold else {Cause.HELD})
    whom = f"{' and '.join(policy.to)} {'will be' if later else 'would be'} told of {_listed(rest)}"
    cause = Cause.REFUSED if decision.reason in _UNFIT else Cause.EXHAUSTED
    return Gate("alert", open=False, text=f"nobody is told {'yet' if later else f'of {cause}'}; {whom}")


def _of_aftermath(arrival: Arrival, decision: Decision, after: Aftermath, *, now: datetime) -> Iterator[Gate]:
    for effect in decision.effects:
        if isinstance(effect, Rerun) and effect.task_id in after.waits:
            name, text = after.waits[effect.task_id]
            yield Gate(name, open=False, text=f"the re-run waits: {text}")
    alerts = decided(arrival, decision).changes.alerts if after.silences and decision.is_new else ()
    for alert in alerts:
        kept = _kept_from(alert, after, now=now)
        for silence in after.silences:
            if receivers := [receiver for receiver, by in kept.items() if by is silence]:
                until = f"{silence.ended_at or silence.ends_at:%Y-%m-%d %H:%M:%S}Z"
                text = f"silenced by silence {silence.id} ({silence.by}: {silence.reason}) until {until}"
                yield Gate("silence", open=False, text=f"{text}, and told to {' and '.join(receivers)} at its end")


def _kept_from(alert: NewAlert, after: Aftermath, *, now: datetime) -> dict[str, Silence]:
    group = alert.group
    number = after.quieted.get(group.key)
    known = {receiver: each for each in after.silences if each.id == number for receiver in group.receivers}
    told_at = now + group.group_wait  # a silence acts when its group is told, at the earliest then
    then = [
        silence
        for silence in after.silences
        if silence.created_at <= told_at and (silence.ended_at is None or told_at < silence.ended_at)
    ]
    return known | by_receiver(group, group.labels, then, now=told_at)


def _listed(causes: Iterable[Cause]) -> str:
    return ", ".join(sorted(cause.value for cause in causes if cause in ABOUT_FAILURES))
