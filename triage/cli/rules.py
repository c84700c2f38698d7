"""``triage rules``: check rule files, and print the schema that lets an editor help to write them."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from triage.cli.output import print_json, show
from triage.errors import Problem, RulesInvalid

if TYPE_CHECKING:
    from triage.rules.model import RuleSet


@click.group()
def rules() -> None:
    """Check rule files."""


@rules.command()
@click.argument("path", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the files, or the problems.")
def check(*, path: Path | None, as_json: bool) -> None:
    """Check the rules at PATH, a folder or one file (the shipped rules, when not given).

    Every problem of all files is shown at once, each with file, line and column. The exit code is 1 when there is one.
    """
    from triage.rulefiles import default_rules_dir  # noqa: PLC0415

    path = path or default_rules_dir()
    try:
        loaded = _load(path)
    except RulesInvalid as error:
        problems = [_located(problem, path) for problem in error.problems]
        if not as_json:
            raise RulesInvalid(problems) from None
        print_json({"valid": False, "path": path, "problems": [asdict(problem) for problem in problems]})
        raise SystemExit(1) from None
    counts = Counter(rule.place.file for rule in loaded.rules)
    if as_json:
        files = [{"file": source.name, "rules": counts[source.name]} for source in loaded.sources]
        print_json({"valid": True, "path": path, "digest": loaded.digest, "files": files, "problems": []})
        return
    for source in loaded.sources:
        count = counts[source.name]
        click.echo(f"{show(source.name)}: {count} {'rule' if count == 1 else 'rules'}, valid")


@rules.command()
def schema() -> None:
    """Print the JSON Schema of a rule file."""
    from triage.rules.schema import rules_schema  # noqa: PLC0415

    print_json(rules_schema())


def _load(path: Path) -> RuleSet:
    from triage.rulefiles import read_rules  # noqa: PLC0415
    from triage.rules.source import load_rules  # noqa: PLC0415 - loads the expression evaluator

    return load_rules(read_rules(path))


def _located(problem: Problem, path: Path) -> Problem:
    """The problem with its file as the user would name it, so that a terminal or editor can open it."""
    return replace(problem, file=str(path / problem.file if path.is_dir() else path))
