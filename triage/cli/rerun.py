"""``triage rerun``: run one task again, whatever became of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from triage.cli.output import Length, print_json, settings_option, show_time
from triage.cli.people import person_options
from triage.cli.storage import ask
from triage.log import printable

if TYPE_CHECKING:
    from triage.orders import Order, Ordered, Refused
    from triage.reruns.switches import Switch
    from triage.settings import Settings
    from triage.stores.sqlite import SqliteStore


@click.command()
@click.argument("request_id")
@click.option("--after", type=Length(), default="0s", show_default=True, help='Not before so long from now: "10m".')
@click.option("--qualifier", default="", help="Version or alias to run instead of the one that ran.")
@person_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def rerun(
    *, settings: Settings, request_id: str, after: timedelta, qualifier: str, by: str, reason: str, as_json: bool
) -> None:
    """Run a task again, once, with the very event it had: one that failed, or one that succeeded.

    The first characters of the request id will do if no other begins so. It is refused while another re-run of the same
    task is under way, past the limits in `[reruns]`, and when the event is not known whole. A running daemon takes it
    up within seconds; what comes of it is judged by the rules, like any result.
    """
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.orders import Order, Refusal, Refused  # noqa: PLC0415
    from triage.reruns.lineage import Origin  # noqa: PLC0415

    now = SystemClock().now()
    order = Order(Origin.MANUAL, by, reason, now + after, qualifier)

    async def question(store: SqliteStore) -> tuple[str, Ordered | Refused, Sequence[Switch]]:
        found = await store.failure(request_id)
        name = found.row.request_id if found else request_id
        (answer,) = await store.order([name], order, limits=settings.reruns.limits, now=now)
        return name, answer, await store.switches()

    name, answer, switches = ask(settings, question)
    if isinstance(answer, Refused):
        detail = answer.detail + ", or several begin so" * (answer.why is Refusal.UNKNOWN_ID)
        if as_json:
            print_json({"request_id": name, "refused": answer.why.value, "detail": detail})
        click.echo(f"triage: {printable(name)}: not run again: {detail}.", err=True)
        sys.exit(1)
    planned = _planned(name, order, answer, switches)
    if as_json:
        print_json(planned)
        return
    version = f":{planned['qualifier']}" if planned["qualifier"] else ""
    when = f"not before {show_time(order.due_at)}" if after else "now"
    what = printable(f"{planned['function']}{version}")
    click.echo(f"{printable(name)}: will be run again {when}, as re-run {planned['attempt']}, by {what}")
    if planned["waits"]:
        click.echo(f"triage: it waits until that is switched on again: {printable(planned['waits'])}.", err=True)


def _planned(request_id: str, order: Order, answer: Ordered, switches: Sequence[Switch]) -> dict[str, Any]:
    from triage.reruns.switches import stopping  # noqa: PLC0415

    (row,) = answer.changes.rows
    function = answer.arrival.envelope.function.label
    switch = stopping(switches, function=function, rule=row.payload["alert"]["labels"]["rule"])
    return {
        "request_id": request_id,
        "root": answer.lineage.root,
        "attempt": answer.lineage.attempt,
        "origin": order.origin.value,
        "task_id": answer.task_id,
        "due_at": order.due_at,
        "function": function,
        "qualifier": row.payload["function"]["qualifier"],
        "by": order.by,
        "reason": order.reason,
        "waits": f"{switch}, by {switch.by} at {show_time(switch.at)}: {switch.reason}" if switch else None,
    }
