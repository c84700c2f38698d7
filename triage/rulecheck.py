"""What rules have to pass before they may come into force: they load, lint finds no error, their own cases hold."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from triage.errors import Problem, RulesInvalid
from triage.rulefiles import located, read_cases, read_rules
from triage.rules.cases import load_cases
from triage.rules.document import problem_at
from triage.rules.lint import lint
from triage.rules.lint.findings import Level
from triage.rules.model import RuleSet, SourceText
from triage.rules.source import load_rules
from triage.ruletest import CaseResult, run_cases


def read_rule_set(path: Path, *, receivers: Collection[str], today: date) -> RuleSet:
    """Read the rules at ``path`` with their cases, and check them. May take a second for hundreds of rules.

    Raises:
        ConfigInvalid: there is nothing to read.
        RulesInvalid: with everything that is wrong, each with its place.
    """
    problems: list[Problem] = []
    rules: RuleSet | None = None
    try:
        rules = check_rules(read_rules(path), receivers=receivers, today=today)
    except RulesInvalid as error:
        problems += error.problems
    try:
        texts = read_cases(path)
        cases = load_cases(texts)
    except RulesInvalid as error:
        problems += error.problems
    else:
        if rules is not None:
            problems += failed_cases(run_cases(rules, cases), texts)
    if rules is None or problems:
        raise RulesInvalid([located(problem, path) for problem in problems])
    return rules


def check_rules(sources: Sequence[SourceText], *, receivers: Collection[str], today: date) -> RuleSet:
    """Load rules from their texts. What lint counts as an error is one, such as a receiver that is not configured.

    Raises:
        RulesInvalid: with everything that is wrong, each with its place.
    """
    rules = load_rules(sources)
    findings = lint(rules, today=today, receivers=receivers)
    problems = [
        replace(each.problem, message=f"{each.problem.message} [{each.code} {each.name}]")
        for each in findings
        if each.level is Level.ERROR
    ]
    if problems:
        raise RulesInvalid(problems)
    return rules


def failed_cases(results: Sequence[CaseResult], texts: Sequence[SourceText]) -> Iterator[Problem]:
    """The cases that failed as problems with a place; ``texts`` are the files they were read from."""
    by_name = {text.name: text for text in texts}
    for result in results:
        if result.passed:
            continue
        case, place = result.case, result.case.place
        source = by_name[place.file]
        lines = source.text.split("\n")[: place.line - 1]
        told = "; ".join(f"{d.what} is {_short(d.actual)}, expected {_short(d.expected)}" for d in result.differences)
        index = sum(len(line) + 1 for line in lines) + place.column - 1
        yield problem_at(source, index, f"the case {case.name!r} fails: {told}", result.why)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."
