"""``triage status``: the rules in force and the totals."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from triage.cli.output import print_json, print_lines, settings_option, show
from triage.cli.storage import ask
from triage.reruns.plan import AT_WORK

if TYPE_CHECKING:
    from triage.reruns.switches import Switch
    from triage.settings import Settings
    from triage.stores import RulesState, Store, Totals


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def status(*, settings: Settings, as_json: bool) -> None:
    """Show the rules in force and the totals: what came in, and where it stands.

    Every message received is in exactly one of the lines below "received", every failure in one below "failures".
    If the sums do not add up, the exit code is 1. Rule files that cannot be used are shown with all their problems;
    the rules in force go on, so that is no failure of the daemon.
    """
    rules, totals, switches = ask(settings, _ask)
    wrong = list(_wrong_sums(totals))
    if as_json:
        off = [asdict(each) for each in switches]
        print_json({"rules": rules and asdict(rules), **asdict(totals), "switches": off, "adds_up": not wrong})
    else:
        print_lines(_rules_lines(rules))
        parts = {name: getattr(totals, name) for name in ("decided", "duplicates", "conflicts", "quarantined")}
        _section("received", totals.received, parts)
        _section("failures", totals.failures, totals.states)
        _section("waiting in the outbox", sum(totals.outbox.values()), totals.outbox)
        print_lines(_switch_lines(switches))
        if totals.gates:
            _section("waiting at a gate", sum(totals.gates.values()), totals.gates)
        if totals.breakers:
            _section("functions by breaker", sum(totals.breakers.values()), totals.breakers)
        _section("notifications", sum(totals.deliveries.values()), totals.deliveries)
        if totals.groups:
            _section("alert groups", sum(totals.groups.values()), totals.groups)
        if at_work := {state.value: count for state in AT_WORK if (count := totals.plans.get(state, 0))}:
            _section("plans at work", sum(at_work.values()), at_work)
            _section("  their items", sum(totals.plan_items.values()), totals.plan_items)
    for text in wrong:
        click.echo(f"triage: {text}", err=True)
    sys.exit(1 if wrong else 0)


async def _ask(store: Store) -> tuple[RulesState | None, Totals, list[Switch]]:
    return await store.rules_state(), await store.totals(), await store.switches()


def _switch_lines(switches: Sequence[Switch]) -> Iterator[str]:
    for each in switches:
        yield f"re-runs SWITCHED OFF   {show(each)} since {show(each.at)} by {show(each.by)}: {show(each.reason)}"


def _rules_lines(rules: RulesState | None) -> Iterator[str]:
    if rules is None:
        yield "rules in force         none yet"
        return
    yield f"rules in force         {rules.digest[:12]} since {show(rules.loaded_at)}"
    if rules.problems:
        yield f"rule files REFUSED     at {show(rules.refused_at)}; what is wrong with them:"
        yield from (f"  {show(line)}" for problem in rules.problems for line in str(problem).splitlines())


def _section(name: str, total: int, parts: Mapping[str, int]) -> None:
    click.echo(f"{name:22} {total:9,}")
    for part, count in parts.items():
        click.echo(f"  {part:20} {count:9,}")


def _wrong_sums(totals: Totals) -> Iterator[str]:
    accounted = totals.decided + totals.duplicates + totals.conflicts + totals.quarantined
    if totals.received != accounted:
        yield f"received {totals.received} messages but can account for {accounted}"
    if totals.failures != (stand := sum(totals.states.values())):
        yield f"{totals.failures} failures but {stand} in some state"
