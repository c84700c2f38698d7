"""``triage apply``: begin to carry out a plan of re-runs."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import click

from triage.cli.output import settings_option
from triage.cli.people import person_options
from triage.cli.plan import steer
from triage.reruns.plan import MAX_STEP, SIZES, THRESHOLD

if TYPE_CHECKING:
    from triage.settings import Settings


class Percent(click.ParamType[int]):
    """``80%`` or ``80``."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip().removesuffix("%").strip()
        if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 100):
            self.fail(f"{value!r} is no percentage from 1% to 100%", param, ctx)
        return int(text)


class Steps(click.ParamType[tuple[int, ...]]):
    """``1,2,5,20,50``."""

    name = "steps"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        texts = [text.strip() for text in str(value).split(",")]
        if not all(text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MAX_STEP for text in texts):
            self.fail(f'{value!r} is no list of sizes from 1 to {MAX_STEP}, such as "1,2,5,20,50"', param, ctx)
        sizes = tuple(map(int, texts))
        if len(sizes) > 100 or any(later < size for size, later in pairwise(sizes)):
            self.fail(f"{value!r}: steps must not shrink, and there may be 100 of them", param, ctx)
        return sizes


@click.command()
@click.argument("plan_hash", metavar="HASH")
@person_options
@click.option(
    "--threshold",
    type=Percent(),
    default=f"{THRESHOLD}%",
    show_default=True,
    help="How many re-runs of a step must succeed, or the plan stops.",
)
@click.option(
    "--steps",
    type=Steps(),
    default=",".join(map(str, SIZES)),
    show_default=True,
    help="Re-runs per step; the last size is that of all further steps.",
)
@click.option("--to", multiple=True, metavar="RECEIVER", default=("default",), help="Whom to tell when it stops.")
@settings_option
def apply(
    *,
    settings: Settings,
    plan_hash: str,
    by: str,
    reason: str,
    threshold: int,
    steps: tuple[int, ...],
    to: tuple[str, ...],
) -> None:
    """Run again exactly what the plan holds, in steps that grow. The daemon does it; this only says so.

    A step is over when each of its re-runs has its result. When fewer than the threshold succeeded, the plan stops,
    tells the receivers, and keeps the rest: `triage plan resume` goes on, `triage plan cancel` ends it. A failure that
    has changed since the plan was made is skipped, with the reason. A plan is applied once.
    """
    from triage.plans import applied  # noqa: PLC0415

    if strangers := sorted(set(to) - set(settings.receivers)):
        raise click.UsageError(f"there is no receiver {strangers[0]!r}; there are: {', '.join(settings.receivers)}")
    max_age = settings.reruns.plan_max_age
    steer(settings, plan_hash, applied, by=by, reason=reason, threshold=threshold, sizes=steps, to=to, max_age=max_age)
    click.echo(f"A running daemon takes it up within seconds. To watch it: triage plan show {plan_hash}")
