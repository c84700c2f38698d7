"""``triage run``: the daemon."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from triage.cli.output import settings_option

if TYPE_CHECKING:
    from triage.settings import Settings

log = logging.getLogger("triage")


@click.command()
@settings_option
def run(settings: Settings) -> None:
    """Take in results, decide, re-run or alert, until stopped.

    Without a configuration it reads the local queue, uses the shipped rules and prints alerts to standard output.
    SIGTERM and Ctrl-C stop it: it finishes what it holds, and what it cannot finish in time is still in the queue.
    Rules that were changed are taken within two seconds, or at once on SIGHUP; if they are wrong, those before them
    stay in force. SIGUSR1 stops all re-runs, until `triage switch on`.
    """
    from triage.log import configure, secrets_of  # noqa: PLC0415

    configure(settings.log, secrets=secrets_of(settings))
    faulthandler.enable()  # an end by SIGABRT, which is how the watchdog ends it, leaves the stacks in the log
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_run(settings))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - optional, used where it is installed
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def _run(settings: Settings) -> None:
    from triage.app import build  # noqa: PLC0415
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.sdnotify import Supervisor  # noqa: PLC0415

    stop, reload, halt = asyncio.Event(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    loop.add_signal_handler(signal.SIGUSR1, halt.set)
    async with build(settings, clock=SystemClock(), supervisor=Supervisor(os.environ, pid=os.getpid())) as app:
        # What is loaded by now lives as long as the process. Walking all of it again and again, as the collector
        # would while envelopes come and go, costs a tenth of the time of a drain.
        gc.freeze()
        gc.set_threshold(10_000, 20, 50)
        rules = app.rules.current()
        log.info(
            "running: sources %s; %d rules (%s); store %s",
            ", ".join(source.name for source in settings.sources),
            len(rules.rules),
            rules.digest[:12],
            settings.store.path,
        )
        await app.run(stop, reload=reload, halt=halt)
    log.info("stopped")
