"""``triage reruns``: what is to be run again, and what keeps it waiting; call it back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from triage.cli.output import print_fields, print_json, print_table, settings_option, show_time
from triage.cli.people import person_options
from triage.cli.storage import ask
from triage.cli.switch import off, on
from triage.log import printable
from triage.reruns.gate import GATES

if TYPE_CHECKING:
    from triage.reruns.gate import Safeguards, Standing
    from triage.reruns.switches import Switch
    from triage.settings import Settings
    from triage.stores.sqlite import SqliteStore
    from triage.stores.underway import RerunRow


@click.group()
def reruns() -> None:
    """See what is to be run again and what keeps it waiting; call it back, pause and resume."""


# One mechanism under two names: whoever looks for "pause" finds the switch.
reruns.add_command(off, "pause")
reruns.add_command(on, "resume")


@reruns.command("list")
@click.option("--function", default="", metavar="GLOB", help='Only of such functions: "img-*".')
@click.option("--rule", default="", metavar="GLOB", help="Only those that such rules decided.")
@click.option("--gate", type=click.Choice([gate.value for gate in GATES]), help="Only those that wait there.")
@click.option("--given-up", is_flag=True, help="Instead, those that were given up before they were submitted.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Most rows to show.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def list_(
    *, settings: Settings, function: str, rule: str, gate: str | None, given_up: bool, limit: int, as_json: bool
) -> None:
    """List re-runs that are to come or under way, by when they go on, with the gate at which they wait and why."""
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.stores.underway import RerunFilter  # noqa: PLC0415

    async def question(store: SqliteStore) -> tuple[list[RerunRow], list[Switch]]:
        which = RerunFilter(function, rule, gate or "", given_up=given_up, limit=limit)
        return await store.reruns(which), await store.switches()

    rows, switches = ask(settings, question)
    now = SystemClock().now()
    if as_json:
        print_json([_plain(row, now) for row in rows])
        return
    if rows:
        print_table(
            ("ENDED" if given_up else "NEXT", "STATE", "FUNCTION", "RE-RUN", "REQUEST ID", "WHY"),
            [
                (
                    row.ended_at if given_up else row.next_at,
                    row.standing(now),
                    row.function,
                    f"{row.attempt} {row.origin}",
                    row.request_id,
                    row.note,
                )
                for row in rows
            ],
        )
    else:
        click.echo("No re-run was given up." if given_up else "No re-run is to come.", err=True)
    if len(rows) == limit:
        click.echo(f"The first {limit}; --limit shows more.", err=True)
    for switch in switches:
        told = f"{switch}, by {switch.by} at {show_time(switch.at)}: {switch.reason}"
        click.echo(f"Switched off: {printable(told)}", err=True)


@reruns.command()
@click.argument("request_id")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def show(*, settings: Settings, request_id: str, as_json: bool) -> None:
    """Show the re-run of a failure that is to come or under way, and how its function stands.

    The first characters of the request id will do if no other begins so.
    """
    from triage.clock import SystemClock  # noqa: PLC0415

    async def question(store: SqliteStore) -> tuple[RerunRow, tuple[Standing, int]] | None:
        found = await _find(store, request_id)
        return None if found is None else (found, await store.standing(found.function))

    answer = ask(settings, question)
    if answer is None:
        click.echo(f"triage: {_unknown(request_id)}", err=True)
        sys.exit(1)
    row, (standing, waiting) = answer
    now = SystemClock().now()
    function = _function(standing, waiting, settings.reruns.guards, now)
    if as_json:
        print_json({**_plain(row, now), "function_standing": function})
        return
    click.echo(f"{printable(row.request_id)}  {row.standing(now)}")
    print_fields(
        {
            "function": row.function,
            "rule": row.rule,
            "re-run": f"{row.attempt} ({row.origin}), task {row.task_id}",
            "next": row.next_at or "when it is switched on",
            "why": row.note,
            "tries": row.tries,
            **({} if row.running else {"given up at": row.give_up_at}),
            **{f"its {name}": value for name, value in function.items()},
        }
    )


@reruns.command()
@click.argument("request_ids", metavar="REQUEST_ID...", nargs=-1, required=True)
@person_options
@settings_option
def cancel(*, settings: Settings, request_ids: Sequence[str], by: str, reason: str) -> None:
    """Call back re-runs that were not submitted yet. Each failure is told to a person then, whatever its rule tells.

    What was submitted, or may have been, cannot be called back.
    """

    async def question(store: SqliteStore) -> list[str]:
        return [await _cancel(store, request_id, by=by, reason=reason) for request_id in request_ids]

    problems = ask(settings, question)
    for request_id, problem in zip(request_ids, problems, strict=True):
        name = printable(request_id)
        click.echo(f"triage: {problem}" if problem else f"{name}: will not be run again; it is told", err=bool(problem))
    sys.exit(1 if any(problems) else 0)


async def _cancel(store: SqliteStore, request_id: str, *, by: str, reason: str) -> str:
    """What is in the way; empty when it is done."""
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.errors import TooLate  # noqa: PLC0415
    from triage.reactions import withdrawn  # noqa: PLC0415

    found = await _find(store, request_id)
    if found is None:
        return _unknown(request_id)
    name = printable(found.request_id)
    if found.running:
        return f"{name}: it was submitted; its result is awaited."
    try:
        done = await store.settle_now(
            found.task_id, lambda row, facts: withdrawn(row, facts, by=by, reason=reason), now=SystemClock().now()
        )
    except TooLate as error:
        return f"{name}: {error}."
    return "" if done else _unknown(request_id)


async def _find(store: SqliteStore, request_id: str) -> RerunRow | None:
    """The re-run of a failure that is to come or under way; there is one at most."""
    from triage.stores.underway import RerunFilter  # noqa: PLC0415

    failure = await store.failure(request_id)
    if failure is None or not failure.row.root:
        return None
    return next(iter(await store.reruns(RerunFilter(root=failure.row.root, limit=1))), None)


def _unknown(request_id: str) -> str:
    return f"{printable(request_id)}: no re-run of it is to come. `triage reruns list` shows them."


def _plain(row: RerunRow, now: datetime) -> dict[str, Any]:
    return {**asdict(row), "standing": row.standing(now)}


def _function(standing: Standing, waiting: int, guards: Safeguards, now: datetime) -> dict[str, str]:
    from triage.reruns import budget, rate  # noqa: PLC0415

    state, until = standing.breaker.state, standing.breaker.until
    share = rate.share_at(standing.pace, guards.function_rate, now)
    return {
        "breaker": f"{state}; the next probe is at {show_time(until)}" if until else str(state),
        "budget": f"{int(budget.left(standing.budget, guards.budget, now=now))} re-runs left",
        "rate": f"{guards.function_rate.per_second * share:.3g} a second",
        "queue": f"{waiting} wait for breaker or budget",
    }
