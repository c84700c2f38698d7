"""``triage rules backtest``: what other rules would have made of what is stored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from triage.cli.comparison import compare, history_options, tell
from triage.cli.output import print_json, settings_option

if TYPE_CHECKING:
    from triage.backtest.history import Choice
    from triage.settings import Settings


@click.command()
@click.option(
    "--rules", "path", type=click.Path(exists=True, path_type=Path), help="Rules to try; else those configured."
)
@click.option("--against", metavar="GIT_REV", help="Compare with the same files as of this revision.")
@history_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def backtest(
    *,
    settings: Settings,
    path: Path | None,
    against: str | None,
    choice: Choice,
    limit: int,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Replay stored failures with other rules, and show which decisions change.

    Compared are the decisions as they were made and those that the files would make now; with --against, what the files
    would have made at that Git revision and now. Nothing is sent, run or written.

    The exit code is 1 when a decision is not given again by the very rules it was made by, which is a defect of triage.
    """
    from triage.backtest.report import as_json as report_json  # noqa: PLC0415
    from triage.backtest.revision import read_revision  # noqa: PLC0415
    from triage.backtest.run import RulesUsed  # noqa: PLC0415
    from triage.rulefiles import default_rules_dir, read_rules  # noqa: PLC0415

    path = path or settings.rules or default_rules_dir()
    after = RulesUsed(tuple(read_rules(path)))
    before = RulesUsed(tuple(read_revision(path, against))) if against is not None else None
    report = compare(settings, after, before=before, choice=choice, limit=limit, jobs=jobs)
    if as_json:
        print_json(report_json(report))
    else:
        tell(report)
    if report.defective:
        raise SystemExit(1)
