"""``triage selfcheck``: whether the laws hold of the store as it is now."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from triage.cli.output import print_json, settings_option, show
from triage.errors import StoreUnavailable

if TYPE_CHECKING:
    from triage.settings import Settings
    from triage.stores.selfcheck import Verdict


@click.command()
@click.option("--quick", is_flag=True, help="Do not read every page of the file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def selfcheck(*, settings: Settings, quick: bool, as_json: bool) -> None:
    """Check that nothing was lost, done twice or left undone, as far as the store can tell.

    One line for each law, with its numbers. Where one does not hold, the rows that break it are named with what to do,
    and the exit code is 1. All laws are checked at one instant of the store, which a daemon may go on using meanwhile;
    nothing is written.
    """
    verdicts = _check(settings, quick=quick, tell=not as_json)
    broken = [verdict.law.id for verdict in verdicts if verdict.broken]
    if as_json:
        print_json({"holds": not broken, "laws": [_plain(verdict) for verdict in verdicts]})
    else:
        seconds = sum(verdict.seconds for verdict in verdicts)
        held = f"All {len(verdicts)} laws hold" if not broken else f"Broken: {', '.join(broken)}"
        click.echo(f"{held} ({seconds:.1f} s).", err=True)
    sys.exit(1 if broken else 0)


def _check(settings: Settings, *, quick: bool, tell: bool) -> list[Verdict]:
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.stores.selfcheck import check, view  # noqa: PLC0415

    path = settings.store.path
    if not path.exists():
        raise StoreUnavailable(f"there is none yet at {path}. Has `triage run` run with these settings?")
    verdicts = []
    with view(path) as connection:
        for verdict in check(connection, now=SystemClock().now(), quick=quick):
            verdicts.append(verdict)
            if tell:
                _tell(verdict)
    return verdicts


def _tell(verdict: Verdict) -> None:
    click.echo(f"{'BROKEN' if verdict.broken else 'holds':6}  {verdict.law.id:10}  {verdict.told}")
    if not verdict.broken:
        return
    click.echo(f"          the law: {verdict.law.sentence}")
    for breach in verdict.breaches:
        click.echo(f"          {show(breach.what)}: {show(breach.problem)}")
    if (more := verdict.broken - len(verdict.breaches)) > 0:
        click.echo(f"          ... and {more:,} more")
    click.echo(f"          what to do: {verdict.law.mend}")


def _plain(verdict: Verdict) -> dict[str, Any]:
    return {
        "id": verdict.law.id,
        "law": verdict.law.sentence,
        "holds": not verdict.broken,
        "numbers": verdict.numbers,
        "broken": verdict.broken,
        "rows": [asdict(breach) for breach in verdict.breaches],
        "mend": verdict.law.mend if verdict.broken else "",
        "seconds": round(verdict.seconds, 3),
    }
