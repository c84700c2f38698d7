"""Run test cases against rules, and see which rules and clauses they cover. Pure.

A case is decided by `triage.decide.decide`, its alerts are written by the code that writes them in production.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from triage.alerts.grouping import short_code
from triage.alerts.render import body, title
from triage.changes import GroupView, NewAlert, WaitingAlert
from triage.decide import Decision, Rerun, decide
from triage.effects import decided
from triage.reruns.backoff import next_delay
from triage.rules.cases import Case, ExpectedAlert, ExpectedRerun
from triage.rules.mistakes import did_you_mean
from triage.rules.model import Rule, RuleSet
from triage.rules.readers import show_duration


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as expected. ``what`` is its key in the case file."""

    what: str
    expected: str
    actual: str


@dataclass(frozen=True, slots=True)
class CaseResult:
    """How one case ended. ``why`` helps to understand a wrong rule: the clause that failed, or what came before it."""

    case: Case
    differences: tuple[Difference, ...] = ()
    why: str = ""

    @property
    def passed(self) -> bool:
        """Whether all is as expected."""
        return not self.differences


def run_cases(rules: RuleSet, cases: Sequence[Case]) -> list[CaseResult]:
    """Decide every case by these rules and compare with what it expects."""
    return [_run(rules, case) for case in cases]


def _run(rules: RuleSet, case: Case) -> CaseResult:
    decision = decide(case.arrival, case.facts, rules, now=case.now)
    differences = tuple(_differences(case, decision))
    why = ""
    if any(each.what == "rule" for each in differences):
        why = _why(rules, case, decision.rule)
    return CaseResult(case, differences, why)


def _differences(case: Case, decision: Decision) -> Iterable[Difference]:
    expect = case.expect
    rule_id = decision.rule.id if decision.rule else ""
    if expect.rule is not None and expect.rule != rule_id:
        yield Difference("rule", expect.rule or "none", rule_id or "none")
    if expect.reason is not None and expect.reason != decision.reason:
        yield Difference("reason", expect.reason, decision.reason)
    rerun = next((effect for effect in decision.effects if isinstance(effect, Rerun)), None)
    alerts = decided(case.arrival, decision).changes.alerts
    ignored = decision.rule.ignore if decision.rule and decision.rule.ignore is not None else None
    wanted = _kinds(expect.rerun, expect.alerts, expect.ignore)
    actual = _kinds(rerun, alerts, ignored)
    if (wanted or expect.nothing) and wanted != actual:
        yield Difference("what is done", " + ".join(wanted) or "nothing", " + ".join(actual) or "nothing")
    if expect.rerun and rerun:
        yield from _rerun(expect.rerun, rerun, case)
    if len(expect.alerts) == len(alerts):
        for index, (each, alert) in enumerate(zip(expect.alerts, alerts, strict=True)):
            yield from _alert(each, alert, case, name="alert" if len(alerts) == 1 else f"alert[{index}]")
    if expect.ignore is not None and ignored is not None and expect.ignore not in ignored:
        yield Difference("ignore", expect.ignore, ignored)


def _kinds(rerun: object, alerts: Sequence[object], ignore: object) -> list[str]:
    several = f"{len(alerts)} alerts" if len(alerts) > 1 else "alert"
    return ["rerun"] * (rerun is not None) + [several] * bool(alerts) + ["ignore"] * (ignore is not None)


def _rerun(expected: ExpectedRerun, rerun: Rerun, case: Case) -> Iterable[Difference]:
    policy = rerun.policy
    delay = next_delay(
        first=policy.after,
        factor=policy.factor,
        longest=policy.max_delay,
        jitter=0.0,
        attempt=rerun.attempt,
        spread=0.0,
    )
    if expected.attempt not in (None, rerun.attempt):
        yield Difference("rerun.attempt", str(expected.attempt), str(rerun.attempt))
    if expected.after not in (None, delay):
        yield Difference("rerun.after", show_duration(expected.after), show_duration(delay))
    qualifier = policy.qualifier or case.arrival.envelope.function.qualifier
    if expected.qualifier not in (None, qualifier):
        yield Difference("rerun.qualifier", expected.qualifier or '""', qualifier or '""')


def _alert(expected: ExpectedAlert, alert: NewAlert, case: Case, *, name: str) -> Iterable[Difference]:
    if expected.to is not None and set(expected.to) != set(alert.group.receivers):
        yield Difference(f"{name}.to", ", ".join(expected.to), ", ".join(alert.group.receivers))
    if expected.severity not in (None, alert.group.severity):
        yield Difference(f"{name}.severity", str(expected.severity), alert.group.severity)
    if expected.cause not in (None, alert.cause):
        yield Difference(f"{name}.cause", str(expected.cause), alert.cause)
    text = rendered(alert, case)
    for part in expected.text:
        if part not in text:
            yield Difference(f"{name}.text", part, text)


def rendered(alert: NewAlert, case: Case) -> str:
    """What a person would read, were this the only failure of its group."""
    attempts = case.facts.lineage.attempt if case.facts.lineage else 0
    waiting = WaitingAlert(alert.request_id, alert.cause, alert.detail, case.now, attempts)
    view = GroupView(alert.group, 0, 0, case.now, case.now, {alert.cause: 1}, (waiting,), 1)
    return f"{title(view, short_code(alert.group.key, 1))}\n{body(view)}"


def _why(rules: RuleSet, case: Case, actual: Rule | None) -> str:
    """Why the rule that was expected did not decide."""
    wanted = case.expect.rule
    if not wanted:
        return ""
    order = [rule.id for rule in rules.rules]
    if wanted not in order:
        hint = did_you_mean(wanted, order, listed=True)
        return f"there is no rule {wanted!r}" + (f"; {hint}" if hint else "")
    if actual is not None and order.index(actual.id) < order.index(wanted):
        return f"{wanted} is not asked: {actual.id} stands before it and matches"
    return f"{wanted} does not match"
