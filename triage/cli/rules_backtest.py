"""``triage rules backtest``: what other rules would have made of what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click

from triage.cli.comparison import compare, tell
from triage.cli.output import Instant, print_json, settings_option

if TYPE_CHECKING:
    from triage.settings import Settings


@click.command()
@click.option(
    "--rules", "path", type=click.Path(exists=True, path_type=Path), help="Rules to try; else those configured."
)
@click.option("--against", metavar="GIT_REV", help="Compare with the same files as of this revision.")
@click.option("--since", type=Instant(), help='Failed at or after: "30d" ago, or an ISO-8601 time.')
@click.option("--until", type=Instant(), help='Failed before: "30d" ago, or an ISO-8601 time.')
@click.option(
    "--filter", "filters", multiple=True, metavar="NAME=GLOB", help='Such as "function=img-*"; all must hold.'
)
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(0, 100_000), help="Changes to show in full."
)
@click.option("--jobs", type=click.IntRange(1, 64), help="Processes to use. Default: one for each processor.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def backtest(
    *,
    settings: Settings,
    path: Path | None,
    against: str | None,
    since: datetime | None,
    until: datetime | None,
    filters: Sequence[str],
    limit: int,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Replay stored failures with other rules, and show which decisions change.

    Compared are the decisions as they were made and those that the files would make now; with --against, what the files
    would have made at that Git revision and now. Nothing is sent, run or written.

    The exit code is 1 when a decision is not given again by the very rules it was made by, which is a defect of triage.
    """
    from triage.backtest.history import Choice  # noqa: PLC0415
    from triage.backtest.report import as_json as report_json  # noqa: PLC0415
    from triage.backtest.revision import read_revision  # noqa: PLC0415
    from triage.backtest.run import RulesUsed  # noqa: PLC0415
    from triage.rulefiles import default_rules_dir, read_rules  # noqa: PLC0415

    path = path or settings.rules or default_rules_dir()
    after = RulesUsed(tuple(read_rules(path)))
    before = RulesUsed(tuple(read_revision(path, against))) if against is not None else None
    choice = Choice(since, until, globs(filters))
    report = compare(settings, after, before=before, choice=choice, limit=limit, jobs=jobs)
    if as_json:
        print_json(report_json(report))
    else:
        tell(report)
    if report.defective:
        raise SystemExit(1)


def globs(filters: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Read ``NAME=GLOB`` options.

    Raises:
        click.BadParameter: one is none, or its name is not known.
    """
    from triage.backtest.history import GLOBS  # noqa: PLC0415

    found = []
    for text in filters:
        name, equals, pattern = text.partition("=")
        if not equals or name not in GLOBS:
            close = get_close_matches(name, GLOBS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"NAME is one of {', '.join(GLOBS)}"
            raise click.BadParameter(f"{text!r} is no NAME=GLOB with a known name; {hint}", param_hint="--filter")
        found.append((name, pattern))
    return tuple(found)
