"""Run test cases against rules, and see which rules and clauses they cover. Pure.

A case is decided by `triage.decide.decide`, its alerts are written by the code that writes them in production.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from triage.admission import admitted
from triage.alerts.compose import built_in
from triage.alerts.drawing import drawn, template_of
from triage.alerts.message import message_of
from triage.alerts.silences import by_receiver
from triage.changes import Changes, NewAlert, RowKind
from triage.decide import Decision, Hold, Rerun, decide
from triage.effects import decided
from triage.incident import incident_code
from triage.reruns.backoff import next_delay
from triage.reruns.gate import GateFacts, Safeguards
from triage.rules.cases import Case, ExpectedAlert, ExpectedRerun
from triage.rules.match import Step, Verdict, trace
from triage.rules.mistakes import did_you_mean
from triage.rules.model import Mode, Rule, RuleSet
from triage.rules.readers import show_duration
from triage.states import RowState
from triage.subject import Subject
from triage.templating.sandbox import TemplateError
from triage.views import GroupView, OutboxRow, RowFacts, WaitingAlert


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
    differences = tuple(_differences(rules, case, decision))
    why = ""
    if any(each.what == "rule" for each in differences):
        why = _why(rules, case)
    return CaseResult(case, differences, why)


def _differences(rules: RuleSet, case: Case, decision: Decision) -> Iterable[Difference]:
    expect = case.expect
    rule_id = decision.rule.id if decision.rule else ""
    if expect.rule is not None and expect.rule != rule_id:
        yield Difference("rule", expect.rule or "none", rule_id or "none")
    if expect.reason is not None and expect.reason != decision.reason:
        yield Difference("reason", expect.reason, decision.reason)
    rerun = next((effect for effect in decision.effects if isinstance(effect, Rerun)), None)
    held = next((effect.policy.reason for effect in decision.effects if isinstance(effect, Hold)), None)
    ignored = decision.rule.ignore if decision.rule else None
    changes = decided(case.arrival, decision).changes
    alerts = changes.alerts
    wanted = _kinds(expect.rerun, expect.alerts, expect.ignore, expect.hold)
    actual = _kinds(rerun, alerts, ignored, held)
    if (wanted or expect.nothing) and wanted != actual:
        yield Difference("what is done", " + ".join(wanted) or "nothing", " + ".join(actual) or "nothing")
    if expect.rerun and rerun:
        yield from _rerun(expect.rerun, rerun, case)
        yield from _waits(expect.rerun, changes, case)
    if len(expect.alerts) == len(alerts):
        for index, (each, alert) in enumerate(zip(expect.alerts, alerts, strict=True)):
            name = "alert" if len(alerts) == 1 else f"alert[{index}]"
            yield from _alert(each, alert, case, rendered(rules, alert, case), name=name)
    for name, part, reason in (("ignore", expect.ignore, ignored), ("hold", expect.hold, held)):
        if part is not None and reason is not None and part not in reason:
            yield Difference(name, part, reason)
    shadow = tuple(each.rule.id for each in decision.shadow)
    if expect.shadow is not None and set(expect.shadow) != set(shadow):
        yield Difference("shadow", ", ".join(expect.shadow) or "none", ", ".join(shadow) or "none")


def _kinds(rerun: object, alerts: Sequence[object], ignore: object, hold: object) -> list[str]:
    several = f"{len(alerts)} alerts" if len(alerts) > 1 else "alert" if alerts else None
    named = {"rerun": rerun, several: several, "ignore": ignore, "hold": hold}
    return [name for name, value in named.items() if name is not None and value is not None]


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


def _waits(expected: ExpectedRerun, changes: Changes, case: Case) -> Iterable[Difference]:
    """At which gate the re-run would wait, were it due now."""
    new = next(row for row in changes.rows if row.kind is RowKind.RERUN)
    row = OutboxRow(
        id=0,
        key=new.key,
        kind=new.kind,
        state=RowState.PENDING,
        due_at=new.due_at,
        payload=new.payload,
        root=new.root,
        group="",
        attempts=1,
        interrupted=False,
        token="",
        function=case.arrival.envelope.function.label,
    )
    settle = admitted(row, RowFacts(gates=GateFacts(own=case.standing)), guards=Safeguards(), now=case.now)
    waits = settle.gate or ""
    if expected.waits != waits:
        yield Difference("rerun.waits", expected.waits or "it goes", waits or "it goes")


def _alert(expected: ExpectedAlert, alert: NewAlert, case: Case, text: str, *, name: str) -> Iterable[Difference]:
    if expected.to is not None and set(expected.to) != set(alert.group.receivers):
        yield Difference(f"{name}.to", ", ".join(expected.to), ", ".join(alert.group.receivers))
    kept = by_receiver(alert.group, alert.group.labels, case.silences, now=case.now)
    if set(expected.silenced) != set(kept):
        yield Difference(f"{name}.silenced", ", ".join(expected.silenced) or "none", ", ".join(kept) or "none")
    if expected.severity not in (None, alert.group.severity):
        yield Difference(f"{name}.severity", str(expected.severity), alert.group.severity)
    if expected.cause not in (None, alert.cause):
        yield Difference(f"{name}.cause", str(expected.cause), alert.cause)
    for part in expected.text:
        if part not in text:
            yield Difference(f"{name}.text", part, text)


def rendered(rules: RuleSet, alert: NewAlert, case: Case) -> str:
    """What a person would read, were this the only failure of its group; or why the rule's template cannot be used."""
    attempts = case.facts.lineage.attempt if case.facts.lineage else 0
    waiting = WaitingAlert(alert.request_id, alert.cause, alert.detail, case.now, attempts)
    view = GroupView(alert.group, 0, 0, case.now, case.now, {alert.cause: 1}, (waiting,), 1)
    code = incident_code(alert.group.key, 1)
    own = template_of(rules, alert.group.labels.get("rule", ""))
    if own is None:
        texts = built_in(view, code)
    else:
        name, forms = own
        try:
            texts = drawn(message_of(view, code), forms, alert.group.receivers[0], ())
        except TemplateError as error:
            return f"template {name} could not be used: {error}"
    return f"{texts.title}\n{texts.body}"


def _why(rules: RuleSet, case: Case) -> str:
    """Why the rule that was expected did not decide."""
    wanted = case.expect.rule
    if not wanted:
        return ""
    order = [rule.id for rule in rules.rules]
    if wanted not in order:
        hint = did_you_mean(wanted, order, listed=True)
        return f"there is no rule {wanted!r}" + (f"; {hint}" if hint else "")
    before: list[str] = []
    for step in trace(rules.rules, Subject(case.arrival, case.facts, now=case.now)):
        if step.rule.id == wanted:
            return _said(step, before)
        before += [step.rule.id] if step.verdict is Verdict.MATCHED else []
    return ""


def _said(step: Step, before: Sequence[str]) -> str:
    clause, name = step.clause, step.rule.id
    if clause is not None:
        if step.verdict is Verdict.FAILED and not clause.clause.startswith("when: "):
            return f"{name}: {clause.clause} does not hold for {clause.actual}"
        return f"{name}: {clause.clause}: {clause.actual}".removesuffix(": ")
    if step.verdict is Verdict.NOT_ASKED:
        return (
            f"{name} is not asked: {before[-1]} decides before it" if before else f"{name} is asked about failures only"
        )
    return f"{name} matches, in shadow mode" if step.verdict is Verdict.SHADOW else ""


@dataclass(frozen=True, slots=True)
class Uncovered:
    """What no case shows of a rule. ``clause`` is empty when the rule is never seen to match."""

    rule: Rule
    clause: str
    what: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of a rule set its cases show: each rule matched, each clause seen to hold and not to hold."""

    total: int
    uncovered: tuple[Uncovered, ...]


def coverage(rules: RuleSet, cases: Sequence[Case]) -> Coverage:
    """See which rules and clauses are asked by cases, as they are asked in production: a rule only when none before it
    decides, a clause only when those before it hold. Rules that are off or expired are left out.
    """
    seen: set[tuple[str, int, bool]] = set()
    live = [rule for rule in rules.rules if rule.mode is not Mode.OFF]
    for case in cases:
        subject = Subject(case.arrival, case.facts, now=case.now)
        for step in trace(rules.rules, subject):
            if step.verdict in _ASKED:
                seen |= set(_seen(step.rule, subject))
    missing = [each for rule in live for each in _uncovered(rule, seen)]
    return Coverage(sum(1 + 2 * len(_clauses(rule)) for rule in live), tuple(missing))


_ASKED = frozenset({Verdict.MATCHED, Verdict.SHADOW, Verdict.FAILED, Verdict.ERROR})
_MATCHED = -1


def _clauses(rule: Rule) -> list[str]:
    return [matcher.clause for matcher in rule.match] + ([f"when: {rule.when.text}"] if rule.when else [])


def _seen(rule: Rule, subject: Subject) -> Iterable[tuple[str, int, bool]]:
    for index, matcher in enumerate(rule.match):
        holds = matcher.test(subject)
        yield rule.id, index, holds
        if not holds:
            return
    if rule.when is not None:
        holds = rule.when.evaluate(subject) is True
        yield rule.id, len(rule.match), holds
        if not holds:
            return
    yield rule.id, _MATCHED, True


def _uncovered(rule: Rule, seen: set[tuple[str, int, bool]]) -> Iterable[Uncovered]:
    if (rule.id, _MATCHED, True) not in seen:
        yield Uncovered(rule, "", "no case in which it matches")
    for index, clause in enumerate(_clauses(rule)):
        for holds, word in ((True, "holds"), (False, "does not hold")):
            if (rule.id, index, holds) not in seen:
                yield Uncovered(rule, clause, f"no case in which this {word}")
