"""``triage rules stats``: how often each rule has applied, and which never did."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from triage.cli.output import Instant, print_json, print_table, settings_option, show_time
from triage.cli.storage import ask

if TYPE_CHECKING:
    from triage.rules.model import SourceText
    from triage.settings import Settings
    from triage.stores import RuleHits, Store


@click.command()
@click.option("--since", type=Instant(), help='Decided at or after: "30d" ago, or an ISO-8601 time.')
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def stats(*, settings: Settings, since: datetime | None, as_json: bool) -> None:
    """Count the hits of each rule in force, and of rules that have applied and are gone.

    Of rules in shadow mode is told how often they would have applied, and in how many of these cases they would have
    done something else than was done: `triage rules promote` shows which. Of rules that tell somebody is told how many
    of their alerts silences kept from everybody: if all, the rule is of no use, or the silence was forgotten.
    """
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.rules.source import load_rules  # noqa: PLC0415
    from triage.stores import RuleHits  # noqa: PLC0415

    async def find(store: Store) -> tuple[tuple[str, tuple[SourceText, ...]] | None, list[RuleHits]]:
        return await store.rule_set(), await store.rule_hits(since=since)

    kept, found = ask(settings, find)
    if kept is None:
        raise click.ClickException("no rules have been in force yet. Has `triage run` run with these settings?")
    hits = {each.rule_id: each for each in found}
    rules = {rule.id: rule for rule in load_rules(kept[1]).rules}
    today = SystemClock().now().date()
    rows = [
        _row(
            hits.get(rule.id, RuleHits(rule.id)),
            "expired" if rule.expires is not None and rule.expires < today else str(rule.mode),
            rule.place.file,
        )
        for rule in rules.values()
    ]
    rows += [_row(each, "gone", "") for each in found if each.rule_id not in rules]
    if as_json:
        print_json({"rule_set": kept[0], "since": since, "rules": rows})
        return
    print_table(
        ("RULE", "FILE", "MODE", "HITS", "LAST HIT", "ALERTS", "SILENCED", "IN SHADOW", "DISAGREED"),
        [
            (
                row["rule"],
                row["file"],
                row["mode"],
                f"{row['hits']:,}",
                _when(row),
                f"{row['alerts']:,}" if row["alerts"] else "",
                f"{row['silenced']:,}" if row["silenced"] else "",
                f"{row['shadow_hits']:,}" if row["shadow_hits"] else "",
                f"{row['disagreed']:,}" if row["shadow_hits"] else "",
            )
            for row in rows
        ],
    )
    never = [
        row["rule"]
        for row in rows
        if not row["hits"] and not row["shadow_hits"] and row["mode"] not in ("off", "expired")
    ]
    always = [row["rule"] for row in rows if row["alerts"] and row["silenced"] == row["alerts"]]
    span = f" since {show_time(since)}" if since else ""
    for what, found_rules in (("never hit", never), ("always silenced", always)):
        if found_rules:
            click.echo(f"\n{what}{span}: {', '.join(found_rules)}")


def _row(hits: RuleHits, mode: str, file: str) -> dict[str, Any]:
    return {
        "rule": hits.rule_id,
        "file": file,
        "mode": mode,
        "hits": hits.hits,
        "last_hit": hits.last_hit,
        "shadow_hits": hits.shadow_hits,
        "last_shadow_hit": hits.last_shadow_hit,
        "disagreed": hits.disagreed,
        "alerts": hits.alerts,
        "silenced": hits.silenced,
    }


def _when(row: dict[str, Any]) -> str:
    last = max(filter(None, (row["last_hit"], row["last_shadow_hit"])), default=None)
    return show_time(last) if last else "never"
