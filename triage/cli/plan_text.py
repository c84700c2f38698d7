"""How a plan of re-runs is told to a person."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from triage.cli.output import print_fields, print_table, show_time
from triage.reruns.plan import AT_WORK, SIZES, ItemState, PlanState, estimate

if TYPE_CHECKING:
    from triage.reruns.plan import Plan
    from triage.stores.planning import PlanItemRow

_FIRST: Final = 20
"""Items that are shown when not all are asked for."""

_PAGE: Final = 500
"""Items of one table: its columns are as wide as what is in it, so it must be held in memory."""


def print_plan(plan: Plan, *, left_out: Mapping[str, int], deeds: Sequence[Mapping[str, Any]]) -> None:
    """All but the items."""
    click.echo(f"plan {plan.short}  {plan.state}")
    print_fields(
        {
            "hash": plan.hash,
            "made": f"{show_time(plan.created_at)} by {plan.by or '(nobody)'}",
            "reason": plan.reason,
            "selects": "; ".join(f"{name} {value}" for name, value in plan.selection.items()),
            "runs again": f"{plan.size:,}: {_functions(plan)}",
            "leaves out": ", ".join(f"{count:,} {why}" for why, count in left_out.items()) or "none",
            **_steps(plan),
            **_expected(plan),
        }
    )
    if deeds:
        click.echo("\ndecided by people")
        print_table(
            ("  AT", "BY", "ACTION", "REASON"),
            [
                (f"  {show_time(datetime.fromisoformat(each['at']))}", each["by"], each["action"], each["reason"])
                for each in deeds
            ],
        )


def _functions(plan: Plan) -> str:
    most = sorted(plan.functions.items(), key=lambda item: (-item[1], item[0]))
    told = ", ".join(f"{name} {count:,}" for name, count in most[:5])
    return told + (f" and {len(most) - 5} more functions" if len(most) > 5 else "")


def _steps(plan: Plan) -> dict[str, str]:
    sizes = ", ".join(map(str, plan.sizes))
    said = f"{sizes}, then {plan.sizes[-1]} each; {plan.threshold} % of each must succeed"
    if plan.state is PlanState.PLANNED:
        default = " (unless you say otherwise)" if plan.sizes == SIZES else ""
        return {"steps": said + default}
    results = ", ".join(
        f"{count:,} {state}" for state, count in plan.counts.items() if count and state is not ItemState.EXCLUDED
    )
    under_way = f"step {plan.step} of up to {plan.step_size}" if plan.state in AT_WORK else ""
    return {"steps": said, "so far": results, "at": under_way, "because": plan.note}


def _expected(plan: Plan) -> dict[str, str]:
    left = plan.counts[ItemState.WAITING]
    if not left or plan.state in (PlanState.DONE, PlanState.CANCELLED):
        return {}
    what = estimate(plan, left=left)
    basis = "a guess: no re-run of these functions is known" if what.guess else "by the median of earlier re-runs"
    each = what.executes / what.runs
    return {
        "costs": f"{what.runs:,} executions, about {_length(what.executes)} all in all ({_length(each)} each; {basis})",
        "takes": f"about {_length(what.lasts)}: {what.steps:,} steps, each as long as one re-run; "
        "limits of rate and gates make it longer",
    }


def _length(value: timedelta) -> str:
    seconds = value.total_seconds()
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


async def print_items(plan: Plan, items: AsyncIterator[PlanItemRow], *, every: bool) -> None:
    """The items in their order: all, or the first, in tables of some hundred."""
    page: list[PlanItemRow] = []
    shown = 0
    async for item in items:
        page.append(item)
        if len(page) == (_PAGE if every else _FIRST):
            _print_page(page)
            shown += len(page)
            page = []
            if not every:
                break
    if page:
        _print_page(page)
        shown += len(page)
    if (rest := sum(plan.counts.values()) - shown) > 0:
        click.echo(f"... and {rest:,} more: triage plan show {plan.short} --items")


def _print_page(page: Sequence[PlanItemRow]) -> None:
    click.echo()
    print_table(
        ("REQUEST ID", "STATE", "STEP", "RE-RUN", "WHY"),
        [
            (item.request_id, item.state, item.step or "", item.attempt if item.step else "", item.reason)
            for item in page
        ],
    )
