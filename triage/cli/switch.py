"""``triage switch``: stop re-runs, and let them go on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from triage.cli.output import print_json, print_table, settings_option
from triage.cli.people import person_options
from triage.cli.storage import ask
from triage.log import printable

if TYPE_CHECKING:
    from triage.reruns.switches import Scope, Switch
    from triage.settings import Settings
    from triage.stores import Store


@click.group()
def switch() -> None:
    """Stop re-runs, all of them or those of some functions or rules; let them go on."""


def _which(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which re-runs are meant."""
    rule = click.option("--rule", default="", metavar="PATTERN", help="Only those that such rules decided.")
    return click.option("--function", default="", metavar="PATTERN", help='Only those of such functions: "img-*".')(
        rule(command)
    )


@switch.command()
@_which
@person_options
@settings_option
def off(*, settings: Settings, function: str, rule: str, by: str, reason: str) -> None:
    """Stop re-runs within a second, over restarts, until they are switched on. Without a pattern: all of them.

    What would be submitted waits; what was submitted before is not called back. Re-runs by hand are stopped, too.
    Patterns are written as in the `match` of a rule. Nothing else stops: failures are taken in, decided and told.
    """
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.reruns.switches import Switch  # noqa: PLC0415

    scope, pattern = _scope(function, rule)
    switch = Switch(scope, pattern, by, reason, SystemClock().now())
    if not ask(settings, lambda store: store.switch_off(switch)):
        click.echo(f"triage: {printable(str(switch))}: off already; `triage switch show` says since when.", err=True)
        sys.exit(1)
    click.echo(f"{printable(str(switch))}: switched off")


@switch.command()
@_which
@person_options
@settings_option
def on(*, settings: Settings, function: str, rule: str, by: str, reason: str) -> None:
    """Let re-runs go on: at once, at a rate that grows slowly. The pattern must be the one that was switched off.

    What was stopped by the stop file goes on when the file is removed.
    """
    from triage.clock import SystemClock  # noqa: PLC0415

    scope, pattern = _scope(function, rule)
    now = SystemClock().now()

    async def let_go(store: Store) -> tuple[bool, list[Switch]]:
        return await store.switch_on(scope, pattern, by=by, reason=reason, now=now), await store.switches()

    done, left = ask(settings, let_go)
    name = f"{scope} {printable(pattern)}" if pattern else "all re-runs"
    click.echo(f"{name}: switched on" if done else f"triage: {name}: not switched off.", err=not done)
    if left:
        click.echo("Still switched off:", err=True)
        _print(left, err=True)
    if not done:
        sys.exit(1)


@switch.command()
@click.option(
    "--past", default=0, metavar="N", type=click.IntRange(0, 10_000), help="Also the last N that are on again."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def show(*, settings: Settings, past: int, as_json: bool) -> None:
    """Show what is switched off, since when, by whom and why."""
    found = ask(settings, lambda store: store.switches(past=past))
    if as_json:
        print_json([asdict(switch) for switch in found])
    elif found:
        _print(found)
    else:
        click.echo("Nothing is switched off.", err=True)


def _scope(function: str, rule: str) -> tuple[Scope, str]:
    from triage.reruns.switches import Scope, function_matcher, rule_matcher  # noqa: PLC0415
    from triage.rules.mistakes import Mistakes  # noqa: PLC0415

    if function and rule:
        raise click.UsageError("--function and --rule exclude each other: use one switch for each.")
    try:
        if function:
            function_matcher(function)
        if rule:
            rule_matcher(rule)
    except Mistakes as error:
        raise click.UsageError(f"{printable(function or rule)!r} is no pattern: {error}") from None
    scope = Scope.FUNCTION if function else Scope.RULE if rule else Scope.ALL
    return scope, function or rule


def _print(switches: Sequence[Switch], *, err: bool = False) -> None:
    again = any(switch.on_at for switch in switches)
    headings = ("SWITCHED OFF", "SINCE", "BY", "REASON", *(("ON AGAIN", "BY", "REASON") if again else ()))
    rows = [
        (
            switch,
            switch.at,
            switch.by,
            switch.reason,
            *((switch.on_at, switch.on_by, switch.on_reason) if again else ()),
        )
        for switch in switches
    ]
    print_table(headings, rows, err=err)
