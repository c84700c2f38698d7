"""``triage rules test``: run the cases beside the rules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import click

from triage.cli.output import config_option, print_json, read_settings, show
from triage.errors import Problem, RulesInvalid

if TYPE_CHECKING:
    from triage.rules.cases import Case
    from triage.rules.model import RuleSet
    from triage.ruletest import CaseResult, Coverage


@click.command()
@click.argument("path", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--coverage", "wanted", is_flag=True, help="Tell what no case shows; the exit code is then 1, too.")
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Write the results as JUnit XML, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@config_option
def test(*, path: Path | None, wanted: bool, junit: Path | None, as_json: bool, config: Path | None) -> None:
    """Run the test cases of the rules at PATH (those configured, or the shipped ones, when not given).

    Cases stand in *.test.yaml beside the rule files; for one rule file, NAME.yaml, in NAME.test.yaml. A case decides by
    all rules at PATH. The exit code is 1 when a case fails.
    """
    from triage.rulefiles import default_rules_dir  # noqa: PLC0415
    from triage.ruletest import coverage, run_cases  # noqa: PLC0415

    path = path or read_settings(config).rules or default_rules_dir()
    rules, cases = _load(path)
    if not cases:
        raise click.ClickException(f"no cases at {path}: they stand in *.test.yaml beside the rules.")
    results = run_cases(rules, cases)
    covered = coverage(rules, cases)
    if junit is not None:
        junit.write_text(_junit(results), encoding="utf-8")
    if as_json:
        _tell_json(results, covered, path)
    else:
        for line in _lines(results, path):
            click.echo(line)
        click.echo(_sum(results, covered))
        for line in _uncovered(covered, path) if wanted else ():
            click.echo(line)
    if not all(result.passed for result in results) or (wanted and covered.uncovered):
        raise SystemExit(1)


def _load(path: Path) -> tuple[RuleSet, list[Case]]:
    from triage.rulefiles import located, read_cases, read_rules  # noqa: PLC0415
    from triage.rules.cases import load_cases  # noqa: PLC0415
    from triage.rules.source import load_rules  # noqa: PLC0415 - loads the expression evaluator

    try:
        return load_rules(read_rules(path)), load_cases(read_cases(path))
    except RulesInvalid as error:
        raise RulesInvalid([located(problem, path) for problem in error.problems]) from None


def _lines(results: Sequence[CaseResult], path: Path) -> Iterator[str]:
    """What failed: place and name of the case, and what differs, expected above actual."""
    for result in results:
        if result.passed:
            continue
        yield f"FAILED {_place(result.case, path)}: {show(result.case.name)}"
        for each in result.differences:
            for mark, text in (("-", each.expected), ("+", each.actual)):
                first, *more = text.split("\n")
                yield f"    {mark} {each.what if mark == '-' else '':<{len(each.what)}}  {show(first)}"
                yield from (f"      {'':<{len(each.what)}}  {show(line)}" for line in more)
        if result.why:
            yield f"    {show(result.why)}"


def _place(case: Case, path: Path) -> str:
    from triage.rulefiles import located  # noqa: PLC0415

    return show(f"{located(Problem(case.place.file, 0, 0, ''), path).file}:{case.place.line}")


def _sum(results: Sequence[CaseResult], covered: Coverage) -> str:
    failed = sum(not result.passed for result in results)
    shown = covered.total - len(covered.uncovered)
    share = 100 * shown // covered.total if covered.total else 100
    passed = f"{len(results) - failed} passed" + (f", {failed} failed" if failed else "")
    cases = "1 case" if len(results) == 1 else f"{len(results)} cases"
    return f"{cases}: {passed}; coverage {share}% ({shown} of {covered.total})"


def _uncovered(covered: Coverage, path: Path) -> Iterator[str]:
    from triage.rulefiles import located  # noqa: PLC0415

    for each in covered.uncovered:
        place = each.rule.place
        file = located(Problem(place.file, 0, 0, ""), path).file
        clause = f": {show(each.clause)}" if each.clause else ""
        yield f"  {show(file)}:{place.line}: rule {each.rule.id}: {each.what}{clause}"


def _tell_json(results: Sequence[CaseResult], covered: Coverage, path: Path) -> None:
    def plain(result: CaseResult) -> dict[str, Any]:
        differences = [{"what": d.what, "expected": d.expected, "actual": d.actual} for d in result.differences]
        case = result.case
        place = {"file": case.place.file, "line": case.place.line}
        return {"name": case.name, **place, "passed": result.passed, "differences": differences, "why": result.why}

    missing = [{"rule": each.rule.id, "clause": each.clause, "what": each.what} for each in covered.uncovered]
    coverage = {"total": covered.total, "shown": covered.total - len(missing), "missing": missing}
    print_json({"path": path, "cases": [plain(result) for result in results], "coverage": coverage})


def _junit(results: Sequence[CaseResult]) -> str:
    """JUnit's XML: a suite for each case file."""
    root = ET.Element("testsuites")
    for file, group in groupby(results, key=lambda result: result.case.place.file):
        of_file = list(group)
        failures = sum(not result.passed for result in of_file)
        suite = ET.SubElement(root, "testsuite", name=_xml(file), tests=str(len(of_file)), failures=str(failures))
        for result in of_file:
            case = ET.SubElement(
                suite,
                "testcase",
                name=_xml(result.case.name),
                classname=_xml(file),
                file=_xml(file),
                line=str(result.case.place.line),
            )
            if not result.passed:
                message = ", ".join(f"{d.what}: expected {d.expected}, got {d.actual}" for d in result.differences)
                failure = ET.SubElement(case, "failure", message=_xml(message[:500]))
                failure.text = _xml("\n".join(_lines([result], Path())))
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _xml(text: str) -> str:
    """Without the characters that XML 1.0 cannot hold in any way."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)
