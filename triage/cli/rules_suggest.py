"""``triage rules suggest``: a rule and its test case, from failures that have happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from triage.cli.comparison import compare, history_options, tell
from triage.cli.output import print_json, settings_option, show
from triage.cli.storage import ask

if TYPE_CHECKING:
    from triage.backtest.history import Choice
    from triage.backtest.report import Report
    from triage.rules.model import SourceText
    from triage.settings import Settings
    from triage.stores import FailureRow

_LOOKED_AT: Final = 500
"""The newest failures of the group, as many at most."""


@click.command()
@click.argument("group")
@click.option("--rules", "path", type=click.Path(exists=True, path_type=Path), help="Else those configured.")
@history_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def suggest(
    *,
    settings: Settings,
    group: str,
    path: Path | None,
    choice: Choice,
    limit: int,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Print a rule for the failures of GROUP, its test case, and what a back-test says of it.

    GROUP is a fingerprint, as `triage failures show` tells it; its first characters will do. The rule matches what the
    failures have in common. It is a draft: what is to be done, you know. No file is written.

    The back-test replays stored failures by the rules as they are, and again with this rule before all others.
    """
    from triage.backtest.report import as_json as report_json  # noqa: PLC0415
    from triage.backtest.run import RulesUsed  # noqa: PLC0415
    from triage.backtest.suggest import suggest as suggested  # noqa: PLC0415
    from triage.rulefiles import default_rules_dir, read_rules  # noqa: PLC0415

    failures = _failures(settings, group)
    path = path or settings.rules or default_rules_dir()
    before = RulesUsed(tuple(read_rules(path)))
    rules = before.load().rules
    made = suggested(failures, taken={rule.id for rule in rules})
    name = _first_name(made.rule_id, before.sources)
    after = RulesUsed((*before.sources, _source(name, made.rules)))
    report = compare(settings, after, before=before, choice=choice, limit=limit, jobs=jobs)
    fingerprint = failures[0].fingerprint
    own = replace(choice, globs=(*choice.globs, ("group", fingerprint)))
    of_group = compare(settings, after, before=before, choice=own, limit=0, jobs=jobs)
    taken = {"of_the_group": _taken(of_group, made.rule_id), "in_all": _taken(report, made.rule_id)}
    if as_json:
        draft = {"rule": made.rule_id, "group": fingerprint, "file": name, "rules": made.rules, "cases": made.cases}
        print_json({**draft, "takes": taken, **report_json(report)})
        return
    click.echo(f"# ---- {name}\n{made.rules}")
    click.echo(f"# ---- {Path(name).stem}.test.yaml\n{made.cases}")
    click.echo(f"# ---- what a back-test says, with {name} before all other rules")
    others = taken["in_all"] - taken["of_the_group"]
    click.echo(
        f"{made.rule_id} takes {taken['of_the_group']:,} of the {of_group.envelopes:,} results of the group"
        + (f", and {others:,} of other groups" if others else ", and none of other groups")
    )
    tell(report)


def _failures(settings: Settings, group: str) -> Sequence[FailureRow]:
    """The newest failures of the one group that begins so.

    Raises:
        click.ClickException: there is none, or there are several.
    """
    from triage.stores import FailureFilter  # noqa: PLC0415

    rows = ask(settings, lambda store: store.failures(FailureFilter(group=group, limit=_LOOKED_AT)))
    groups = Counter(row.fingerprint for row in rows)
    if not groups:
        raise click.ClickException(f"no failure is in a group {show(group)!r}; `triage failures show` tells the group.")
    if len(groups) > 1:
        named = ", ".join(f"{name} ({count})" for name, count in groups.most_common(5))
        raise click.ClickException(f"{show(group)!r} begins the names of several groups: {named}")
    return rows


def _first_name(rule_id: str, sources: Sequence[SourceText]) -> str:
    """A file name that stands before all others: rules are asked in the order of the files' names."""
    name = f"00-{rule_id}.yaml"
    return name if all(name < source.name for source in sources) else f"!{name}"


def _source(name: str, text: str) -> SourceText:
    from triage.rules.model import SourceText  # noqa: PLC0415

    return SourceText(name, text)


def _taken(report: Report, rule_id: str) -> int:
    return sum(count for (_, after), (count, _) in report.by_rule.items() if after == rule_id)
