"""``triage plan``: make a plan of re-runs and look at it; pause, resume, cancel one that is applied."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from triage.cli.output import Instant, print_json, print_table, read_settings, settings_option, show_time
from triage.cli.people import person, person_options
from triage.cli.plan_text import print_items, print_plan
from triage.cli.storage import ask
from triage.reruns.plan import ItemState
from triage.states import State

if TYPE_CHECKING:
    from triage.changes import Changes
    from triage.planning import Selection, Unjudged
    from triage.plans import Say
    from triage.reruns.plan import Plan
    from triage.rules.expression import CelExpression
    from triage.settings import Settings
    from triage.stores.planning import PlanItemRow
    from triage.stores.sqlite import SqliteStore

_PAGE: Final = 1000
"""Items that are read in one go."""

_COLUMNS: Final = (ItemState.SUCCEEDED, ItemState.FAILED, ItemState.SKIPPED, ItemState.WAITING)


@click.group(invoke_without_command=True)
@click.option("--group", default="", metavar="FINGERPRINT", help="Failures of this group; its first letters do.")
@click.option("--filter", "when", default="", metavar="EXPR", help="Failures for which this holds, as in a rule.")
@click.option("--function", default="", metavar="GLOB", help='Only of functions with such a name: "img-*".')
@click.option(
    "--state",
    type=click.Choice([s.value for s in State if s is not State.NEW]),
    metavar="STATE",
    help="Only those that stand so, such as alerted.",
)
@click.option("--since", type=Instant(), help='Only those received since "2h" ago, or a time.')
@click.option("--until", type=Instant(), help='Only those received before "2h" ago, or a time.')
@click.option("--exclude", multiple=True, metavar="REQUEST_ID", help="Leave this one out. May be repeated.")
@click.option("--qualifier", default="", help="Version or alias to run; else the one that failed.")
@click.option("--reason", metavar="TEXT", help="Why; asked for on a terminal, a must in scripts.")
@click.option("--by", metavar="WHO", envvar="TRIAGE_BY", help="Who makes it; else $TRIAGE_BY, else the login name.")
@click.option("--items", is_flag=True, help="Print every request id, not only the first.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--config", "own", type=click.Path(dir_okay=False), metavar="FILE", help="Settings file.")
@click.pass_context
def plan(ctx: click.Context, /, *, own: str | None, items: bool, as_json: bool, **asked: Any) -> None:
    """Write down which failures to run again, after a fix say. Nothing is run yet.

    Taken is what --group or --filter says, narrowed by the other options. What cannot be run again is left out, with
    the reason. All that will run is under one hash: triage apply HASH
    """
    root = ctx.find_root()
    root.obj = own or root.obj
    if ctx.invoked_subcommand is not None:
        return
    from triage.cli.output import config_of  # noqa: PLC0415

    _make(read_settings(config_of(ctx)), items=items, as_json=as_json, **asked)


def _make(settings: Settings, *, by: str | None, reason: str | None, items: bool, as_json: bool, **asked: Any) -> None:
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.planning import make_plan  # noqa: PLC0415
    from triage.plans import Say  # noqa: PLC0415

    selection = _selection(settings, **asked)
    say = Say(*person(by, reason))
    progress = _Progress()

    async def make(store: SqliteStore) -> tuple[Plan, Unjudged]:
        return await make_plan(store, selection, say, clock=SystemClock(), progress=progress)

    made, unjudged = ask(settings, make)
    progress.end()
    if unjudged.count:
        click.echo(
            f"triage: for {unjudged.count} failures the filter could not be evaluated, and they are no part of the "
            f"plan: {unjudged.why}",
            err=True,
        )
    _show(settings, made, items=items, as_json=as_json)
    if not as_json:
        click.echo(f"\nNothing is run yet. To go on: triage apply {made.short} --reason ...")


def _selection(
    settings: Settings,
    *,
    group: str,
    when: str,
    function: str,
    state: str | None,
    since: datetime | None,
    until: datetime | None,
    exclude: Sequence[str],
    qualifier: str,
) -> Selection:
    from triage.planning import Selection  # noqa: PLC0415
    from triage.stores import FailureFilter  # noqa: PLC0415

    if not (group.strip() or when.strip()):
        raise click.UsageError("say which failures: --group FINGERPRINT or --filter EXPR (see: triage failures list)")
    asked = {
        "group": group,
        "filter": when,
        "function": function,
        "state": state or "",
        "since": show_time(since) if since else "",
        "until": show_time(until) if until else "",
        "exclude": " ".join(exclude),
        "qualifier": qualifier,
    }
    return Selection(
        which=FailureFilter(function, state or "", group.strip(), since=since, until=until),
        when=_expression(when) if when.strip() else None,
        exclude=frozenset(exclude),
        asked={name: value for name, value in asked.items() if value},
        qualifier=qualifier,
        limits=settings.reruns.limits,
    )


def _expression(text: str) -> CelExpression:
    from triage.rules.expression import compile_expression  # noqa: PLC0415
    from triage.rules.mistakes import Mistakes  # noqa: PLC0415

    try:
        expression = compile_expression(text)
    except Mistakes as error:
        told = []
        for mistake in error.mistakes:
            told.append(f"--filter: {mistake.message}" + (f" ({mistake.hint})" if mistake.hint else ""))
            if mistake.offset is not None and "\n" not in text:
                told.append(f"    {text}\n    {' ' * mistake.offset}^")
        raise click.UsageError("\n".join(told)) from None
    if not expression.names:
        raise click.UsageError("--filter: the expression looks at nothing, so it would take every failure or none")
    return expression


class _Progress:
    """How far it is, on a terminal, for whoever waits."""

    def __init__(self) -> None:
        self._told = ""

    def __call__(self, done: int, total: int) -> None:
        if sys.stderr.isatty() and (text := f"looked at {100 * done // total} %") != self._told:
            click.echo(f"\r{text}", err=True, nl=False)
            self._told = text

    def end(self) -> None:
        if self._told:
            click.echo("\r" + " " * len(self._told) + "\r", err=True, nl=False)


@plan.command("list")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="Most rows to show.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def list_(*, settings: Settings, limit: int, as_json: bool) -> None:
    """List plans, newest first."""
    found = ask(settings, lambda store: store.plans(limit=limit))
    if as_json:
        print_json([_plain(each) for each in found])
        return
    if not found:
        click.echo("There are no plans. `triage plan` makes one.", err=True)
        return
    print_table(
        ("PLAN", "MADE", "STATE", "ITEMS", "SUCCEEDED", "FAILED", "SKIPPED", "LEFT", "BY", "REASON"),
        [
            (
                each.short,
                each.created_at,
                each.state,
                each.size,
                *(each.counts[state] for state in _COLUMNS),
                each.by,
                each.reason,
            )
            for each in found
        ],
    )


@plan.command()
@click.argument("plan_hash", metavar="HASH")
@click.option("--items", is_flag=True, help="Print every request id with what came of it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def show(*, settings: Settings, plan_hash: str, items: bool, as_json: bool) -> None:
    """Show a plan: what it holds, how far it is, who said what of it."""
    found = ask(settings, lambda store: store.plan(plan_hash))
    if found is None:
        raise click.ClickException(unknown(plan_hash))
    _show(settings, found, items=items, as_json=as_json)


def unknown(plan_hash: str) -> str:
    """What to say when there is no such plan."""
    return f"no single plan has the hash {plan_hash!r}. `triage plan list` shows them."


def _show(settings: Settings, found: Plan, *, items: bool, as_json: bool) -> None:
    async def tell(store: SqliteStore) -> None:
        from triage.plans import about  # noqa: PLC0415

        reasons, deeds = await store.excluded(found.hash), await store.deeds_about(about(found))
        if as_json:
            every = [asdict(row) async for row in _items(store, found)] if items else None
            print_json({**_plain(found), "left_out": reasons, "deeds": deeds, "items": every})
            return
        print_plan(found, left_out=reasons, deeds=deeds)
        await print_items(found, _items(store, found), every=items)

    ask(settings, tell)


async def _items(store: SqliteStore, found: Plan) -> AsyncIterator[PlanItemRow]:
    after = 0
    while page := await store.plan_items(found.hash, after=after, limit=_PAGE):
        for row in page:
            yield row
        after = page[-1].id


def _plain(found: Plan) -> dict[str, Any]:
    return {**asdict(found), "size": found.size}


@plan.command()
@click.argument("plan_hash", metavar="HASH")
@person_options
@settings_option
def pause(*, settings: Settings, plan_hash: str, by: str, reason: str) -> None:
    """Order no more re-runs for the time being. Those that are ordered go on."""
    from triage.plans import paused  # noqa: PLC0415

    steer(settings, plan_hash, paused, by=by, reason=reason)


@plan.command()
@click.argument("plan_hash", metavar="HASH")
@person_options
@settings_option
def resume(*, settings: Settings, plan_hash: str, by: str, reason: str) -> None:
    """Go on with a plan that is paused, or that stopped by itself; then with a first step of one again."""
    from triage.plans import resumed  # noqa: PLC0415

    steer(settings, plan_hash, resumed, by=by, reason=reason)


@plan.command()
@click.argument("plan_hash", metavar="HASH")
@person_options
@settings_option
def cancel(*, settings: Settings, plan_hash: str, by: str, reason: str) -> None:
    """Order no more re-runs, for good. Those that are submitted get their results; the others are called back."""
    from triage.plans import cancelled  # noqa: PLC0415

    steer(settings, plan_hash, cancelled, by=by, reason=reason)


def steer(
    settings: Settings, plan_hash: str, react: Callable[..., Changes], *, by: str, reason: str, **more: Any
) -> None:
    """Do what a person says of a plan, and tell how it stands then."""
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.plans import Say  # noqa: PLC0415

    now = SystemClock().now()
    say: Say = Say(by, reason)
    moved = ask(
        settings,
        lambda store: store.move_plan(plan_hash, lambda known: react(known, say, now=now, **more), now=now),
    )
    if moved is None:
        raise click.ClickException(unknown(plan_hash))
    counts = ", ".join(f"{count:,} {state}" for state, count in moved.counts.items() if count and state != "excluded")
    click.echo(f"plan {moved.short} is {moved.state}: {counts}")
