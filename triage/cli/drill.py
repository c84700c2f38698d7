"""``triage drill``: a marked failure goes all the way through the running daemon, to see that one would."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from triage.cli.output import Length, print_json, settings_option, show
from triage.cli.people import login_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from triage.cli.drill_course import Hop, Plan
    from triage.settings import Settings
    from triage.stores.sqlite import SqliteStore


@click.command()
@click.option("--to", "receiver", metavar="NAME", help="Receiver that is told, in place of those that the rule names.")
@click.option("--like", metavar="REQUEST_ID", help="Stored failure that it looks like, so that the same rule decides.")
@click.option("--function", default="triage-drill", show_default=True, help="Function that it claims to be of.")
@click.option("--source", metavar="NAME", help="Source whose queue it is put into; the first one by default.")
@click.option("--rerun", is_flag=True, help="Really run the function again. Asked for on a terminal, else with --yes.")
@click.option("--yes", is_flag=True, help="With --rerun: do not ask.")
@click.option("--ack", is_flag=True, help="Acknowledge it at once, in place of waiting for a person.")
@click.option("--timeout", type=Length(), default="2m", show_default=True, help="How long all of it may take.")
@click.option("--isolated", is_flag=True, help="In a daemon and a queue of its own, which are removed.")
@click.option("--by", metavar="WHO", envvar="TRIAGE_BY", help="Who drills; else $TRIAGE_BY, else the login name.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, at the end.")
@settings_option
def drill(
    *,
    settings: Settings,
    receiver: str | None,
    like: str | None,
    function: str,
    source: str | None,
    rerun: bool,
    yes: bool,
    ack: bool,
    timeout: timedelta,
    isolated: bool,
    by: str | None,
    as_json: bool,
) -> None:
    """Send a marked failure through the running daemon, and print when it was where: queued, received, decided by the
    rules, committed, held and re-run, flushed, sent to a receiver, acknowledged.

    The message is a real one, titled DRILL. The re-run is a dry one unless --rerun says otherwise: nothing is
    submitted, and it is taken as failed. Delays and quiet hours are not waited for. A drill counts nowhere: in no sum,
    rate, budget or breaker. The exit code is 1 when a hop did not come, which is named.
    """
    from triage.cli.drill_course import Plan  # noqa: PLC0415
    from triage.rules.mistakes import did_you_mean  # noqa: PLC0415

    if receiver is not None and receiver not in settings.receivers:
        hint = did_you_mean(receiver, settings.receivers)
        raise click.UsageError(f"--to: no receiver is named {receiver!r}{f': {hint}' if hint else ''}.")
    if isolated and (like or source or rerun):
        raise click.UsageError("--isolated has its own store and queue: leave out --like, --source and --rerun.")
    if rerun and not (yes or (sys.stdin.isatty() and click.confirm("Really run the function again?", err=True))):
        raise click.UsageError("--rerun runs the function for real: confirm it with --yes.")
    plan = Plan(
        by=by or login_name(),
        timeout=timeout,
        to=receiver or "",
        source=source or "",
        function=function,
        like=like or "",
        rerun=rerun,
        ack=ack,
    )
    hops: list[Hop] = []

    def tell(hop: Hop) -> None:
        hops.append(hop)
        if not as_json:
            after = (hop.at - hops[0].at).total_seconds()
            click.echo(f"{hop.name:<16} {after:9.3f} s  {show(hop.detail)}")

    missing = asyncio.run(_run(settings, plan, tell, isolated=isolated))
    if as_json:
        rows: list[dict[str, Any]] = [{"hop": hop.name, "at": hop.at, "detail": hop.detail} for hop in hops]
        print_json({"complete": not missing, "missing": missing, "hops": rows})
    if missing:
        click.echo(f"triage: the drill did not come to its end: {show(missing)}", err=True)
        sys.exit(1)


async def _run(settings: Settings, plan: Plan, tell: Any, *, isolated: bool) -> str:
    from triage.cli.drill_course import Course  # noqa: PLC0415

    async with _isolated(settings) if isolated else _live(settings) as (store, own):
        return await Course(store, own, plan, tell).run()


@asynccontextmanager
async def _live(settings: Settings) -> AsyncIterator[tuple[SqliteStore, Settings]]:
    from triage.errors import StoreUnavailable  # noqa: PLC0415
    from triage.stores.sqlite import SqliteStore  # noqa: PLC0415

    path = settings.store.path
    if not path.exists():
        raise StoreUnavailable(f"there is none yet at {path}. Has `triage run` run with these settings?")
    store = await SqliteStore.open(path, seal=settings.encryption.seal)
    try:
        yield store, settings
    finally:
        await store.close()


@asynccontextmanager
async def _isolated(settings: Settings) -> AsyncIterator[tuple[SqliteStore, Settings]]:
    """The configured daemon, but for where failures come from and where they are kept: in a folder that is removed."""
    from triage.app import build  # noqa: PLC0415
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.settings import LocalSource  # noqa: PLC0415
    from triage.stores.sqlite import SqliteStore  # noqa: PLC0415

    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="triage-drill-")))
        own = settings.model_copy(
            update={
                "state_dir": folder,
                "sources": (LocalSource(),),
                "queue": settings.queue.model_copy(update={"path": folder / "queue.db"}),
                "store": settings.store.model_copy(update={"path": folder / "triage.db"}),
                "reruns": settings.reruns.model_copy(update={"stop_file": folder / "stop"}),
                "web": settings.web.model_copy(update={"listen": ""}),
                "heartbeat": type(settings.heartbeat)(),
                "digest": type(settings.digest)(),
                "arrivals": (),
            }
        )
        app = await stack.enter_async_context(build(own, clock=SystemClock()))
        stop = asyncio.Event()
        running = asyncio.create_task(app.run(stop))
        store = await SqliteStore.open(own.store.path, seal=own.encryption.seal)
        try:
            yield store, own
        finally:
            await store.close()
            stop.set()
            await running
