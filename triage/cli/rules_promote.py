"""``triage rules promote``: what a rule in shadow mode would have done, had it been live."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click

from triage.cli.comparison import compare, history_options, tell
from triage.cli.output import print_json, settings_option, show

if TYPE_CHECKING:
    from triage.backtest.history import Choice
    from triage.rules.model import Rule, RuleSet
    from triage.settings import Settings


@click.command()
@click.argument("rule_id", metavar="RULE")
@click.option(
    "--rules", "path", type=click.Path(exists=True, path_type=Path), help="Where it is; else those configured."
)
@history_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def promote(
    *,
    settings: Settings,
    rule_id: str,
    path: Path | None,
    choice: Choice,
    limit: int,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Show what RULE, now in shadow mode or off, would have done if it had been live, and how to make it so.

    Stored failures are replayed by the rules as they are, and again with this one rule live. No file is changed.
    """
    from triage.backtest.report import as_json as report_json  # noqa: PLC0415
    from triage.backtest.run import RulesUsed  # noqa: PLC0415
    from triage.rulefiles import default_rules_dir, read_rules  # noqa: PLC0415

    path = path or settings.rules or default_rules_dir()
    before = RulesUsed(tuple(read_rules(path)))
    rule = _waiting(before.load(), rule_id)
    after = RulesUsed(before.sources, frozenset({rule_id}))
    report = compare(settings, after, before=before, choice=choice, limit=limit, jobs=jobs)
    place = f"{path / rule.place.file if path.is_dir() else path}:{rule.place.line}"
    if as_json:
        print_json({"rule": rule.id, "place": place, "mode": str(rule.mode), **report_json(report)})
        return
    click.echo(f"If {show(rule.id)} ({show(place)}), now {rule.mode}, had been live:\n")
    tell(report)
    click.echo(f"\nto make it live, take `mode: {rule.mode}` out of it: {show(place)}")


def _waiting(rules: RuleSet, rule_id: str) -> Rule:
    """The rule, if it is not live.

    Raises:
        click.ClickException: there is no such rule, or it is live.
    """
    from triage.rules.model import Mode  # noqa: PLC0415

    known = {rule.id: rule for rule in rules.rules}
    if rule_id not in known:
        waiting = [rule.id for rule in rules.rules if rule.mode is not Mode.LIVE]
        close = get_close_matches(rule_id, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"not live: {', '.join(waiting) or 'none'}"
        raise click.ClickException(f"no rule is named {rule_id!r}; {hint}")
    if known[rule_id].mode is Mode.LIVE:
        raise click.ClickException(f"the rule {rule_id!r} is live already")
    return known[rule_id]
