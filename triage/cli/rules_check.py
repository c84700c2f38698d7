"""``triage rules check``: what is wrong with rule files, and what is valid and yet hardly meant."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from triage.cli.output import config_option, print_json, show
from triage.errors import Problem, RulesInvalid

if TYPE_CHECKING:
    from triage.rules.lint import Finding
    from triage.rules.model import RuleSet

PAGE: Final = "docs/reference/lint.md"


@click.command()
@click.argument("path", required=False, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    help="How to tell: for people, programs, or annotations of a GitHub workflow.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings, too.")
@config_option
def check(*, path: Path | None, form: str, as_json: bool, strict: bool, config: Path | None) -> None:
    """Check the rules at PATH, a folder or one file (those configured, or the shipped ones, when not given).

    Mistakes keep rules from being used; all of all files are shown at once, each with file, line and column. When there
    is none, the test cases beside the rules are run, and lint looks for what is valid and yet hardly meant: its errors
    and warnings have codes, which docs/reference/lint.md explains. The exit code is 1 for mistakes, errors and failed
    cases: for all that keeps a running daemon from taking such rules.

    Receivers are checked where some are configured.
    """
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.configuration import missing_templates  # noqa: PLC0415
    from triage.rulefiles import default_rules_dir, located  # noqa: PLC0415
    from triage.settings import load  # noqa: PLC0415

    configured = load(config, environ=os.environ)
    settings = configured.settings
    path = path or settings.rules or default_rules_dir()
    receivers = settings.receivers if config or settings.receivers.keys() > {"default"} else None
    form = "json" if as_json else form
    try:
        loaded, failed = _load(path)
        failed = [located(problem, path) for problem in failed]
    except RulesInvalid as error:
        problems = [located(problem, path) for problem in error.problems]
        if form == "text":
            raise RulesInvalid(problems) from None
        _tell_problems(problems, path, form)
        raise SystemExit(1) from None
    from triage.rules.lint import lint  # noqa: PLC0415

    if receivers is None and (
        named := {to for rule in loaded.rules if rule.alert for to in rule.alert.to} - {"default"}
    ):
        names = ", ".join(map(show, sorted(named)))
        click.echo(f"Receivers are not checked, as none are configured (--config FILE names them): {names}", err=True)
    if path == (settings.rules or default_rules_dir()):
        failed += missing_templates(configured, loaded.templates)
    findings = lint(loaded, today=SystemClock().now().date(), receivers=receivers)
    # Of one file only what is found in it: whether what it includes is of use, other files decide.
    findings = [
        replace(each, problem=located(each.problem, path))
        for each in findings
        if path.is_dir() or each.problem.file == path.name
    ]
    {"text": _tell_text, "json": _tell_json, "github": _tell_github}[form](loaded, findings, failed, path)
    if failed or (findings and (strict or any(each.level == "error" for each in findings))):
        raise SystemExit(1)


def _load(path: Path) -> tuple[RuleSet, list[Problem]]:
    """The rules, and what is wrong with what their cases expect.

    Raises:
        RulesInvalid: with every problem of the rules, and of how the cases are written.
    """
    from triage.rulecheck import failed_cases  # noqa: PLC0415
    from triage.rulefiles import read_cases, read_rules  # noqa: PLC0415
    from triage.rules.cases import load_cases  # noqa: PLC0415
    from triage.rules.source import load_rules  # noqa: PLC0415 - loads the expression evaluator
    from triage.ruletest import run_cases  # noqa: PLC0415

    problems: list[Problem] = []
    loaded, texts, cases = None, [], []
    try:
        loaded = load_rules(read_rules(path))
    except RulesInvalid as error:
        problems += error.problems
    try:
        texts = read_cases(path)
        cases = load_cases(texts)
    except RulesInvalid as error:
        problems += error.problems
    if loaded is None or problems:
        raise RulesInvalid(problems)
    return loaded, list(failed_cases(run_cases(loaded, cases), texts))


def _tell_problems(problems: Sequence[Problem], path: Path, form: str) -> None:
    if form == "json":
        told = {"valid": False, "path": path, "problems": [asdict(each) for each in problems], "findings": []}
        print_json(told)
        return
    for problem in problems:
        _annotate("error", problem, "triage rules check")


def _tell_json(rules: RuleSet, findings: Sequence[Finding], failed: Sequence[Problem], path: Path) -> None:
    files = [{"file": source.name, "rules": count} for source, count in _counts(rules)]
    problems = [asdict(each) for each in failed]
    told = {"valid": not failed, "path": path, "digest": rules.digest, "files": files, "problems": problems}
    print_json({**told, "findings": [_plain(each) for each in findings]})


def _plain(finding: Finding) -> dict[str, Any]:
    fields = asdict(finding.problem)
    return {
        "code": finding.code,
        "name": finding.name,
        "level": str(finding.level),
        "rule": finding.rule_id,
        **{name: fields[name] for name in ("file", "line", "column", "message")},
        "mend": finding.problem.hint,
        "excerpt": finding.problem.excerpt,
        "page": f"{PAGE}#{finding.anchor}",
    }


def _tell_text(rules: RuleSet, findings: Sequence[Finding], failed: Sequence[Problem], path: Path) -> None:  # noqa: ARG001
    for problem in failed:
        click.echo("\n".join(map(show, str(problem).split("\n"))))
    for finding in findings:
        rule = f"rule {finding.rule_id}: " if finding.rule_id else ""
        message = f"{finding.level} {finding.code} {finding.name}: {rule}{finding.problem.message}"
        click.echo("\n".join(map(show, str(replace(finding.problem, message=message)).split("\n"))))
    for source, count in _counts(rules):
        click.echo(f"{show(source.name)}: {count} {'rule' if count == 1 else 'rules'}, valid")
    levels = Counter(str(each.level) for each in findings)
    counts = {"failed case": len(failed), "error": levels["error"], "warning": levels["warning"]}
    if told := ", ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items() if count):
        click.echo(f"{told}; what each code means: {PAGE}" if findings else told)


def _tell_github(rules: RuleSet, findings: Sequence[Finding], failed: Sequence[Problem], path: Path) -> None:  # noqa: ARG001
    for problem in failed:
        _annotate("error", problem, "triage rules check")
    for finding in findings:
        _annotate(str(finding.level), finding.problem, f"{finding.code} {finding.name}")


def _counts(rules: RuleSet) -> list[tuple[Any, int]]:
    counts = Counter(rule.place.file for rule in rules.rules)
    return [(source, counts[source.name]) for source in rules.sources]


def _annotate(level: str, problem: Problem, title: str) -> None:
    """A workflow command that puts the message beside the line in GitHub's view of the change."""
    place = {"file": problem.file, "title": title}
    if problem.line:
        place |= {"line": str(problem.line), "col": str(problem.column)}
    shown = ",".join(
        f"{name}={_escaped(value).replace(':', '%3A').replace(',', '%2C')}" for name, value in place.items()
    )
    message = f"{problem.message} ({problem.hint})" if problem.hint else problem.message
    click.echo(f"::{level} {shown}::{_escaped(message)}")


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
