"""``triage run``: the daemon."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from triage.cli import tell
from triage.cli.output import config_option, read_settings

if TYPE_CHECKING:
    from triage.app import App
    from triage.cli.stopping import Stopping
    from triage.settings import Settings

log = logging.getLogger("triage")

EXIT_CONFIG: Final = 3


class _Daemon(click.Command):
    """Ends with a code of its own when starting it again would not help until a person has mended the configuration."""

    def invoke(self, ctx: click.Context) -> Any:
        from triage.errors import ConfigInvalid, Misconfigured, RulesInvalid  # noqa: PLC0415

        try:
            return super().invoke(ctx)
        except (ConfigInvalid, Misconfigured, RulesInvalid) as error:
            tell(error)
            sys.exit(EXIT_CONFIG)


@click.command(cls=_Daemon)
@config_option
def run(config: Path | None) -> None:
    """Take in results, decide, re-run or alert, until stopped.

    Without a configuration it reads the local queue, uses the shipped rules and prints alerts to standard output.
    SIGTERM and Ctrl-C stop it: it finishes what it holds, and what it cannot finish in time is still in the queue. A
    second one ends it at once, and nothing is lost by that either.
    Rules that were changed are taken within two seconds. On SIGHUP rules and settings are read at once; settings that
    need a restart are named. What is wrong is told, and what was before stays in force. SIGUSR1 stops all re-runs,
    until `triage switch on`.

    Exit codes: 0 stopped; 1 failed; 2 wrong usage; 3 the configuration cannot be used; 70 a stage stood still, so that
    it has to be started anew; 130 or 143 a second SIGINT or SIGTERM ended it.
    """
    from triage.cli.stopping import Stopping  # noqa: PLC0415
    from triage.clock import SystemClock  # noqa: PLC0415

    stopping = Stopping(SystemClock())
    stopping.catch()
    settings = read_settings(config)
    _configure_log(settings)
    faulthandler.enable()  # an end by SIGABRT, which is how the watchdog ends it, leaves the stacks in the log
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_run(settings, stopping, lambda: read_settings(config)))


def _configure_log(settings: Settings) -> None:
    from triage.log import configure, secrets_of  # noqa: PLC0415

    configure(settings.log, secrets=secrets_of(settings), redact=settings.redaction.redaction.text)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - optional, used where it is installed
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def _run(settings: Settings, stopping: Stopping, reread: Callable[[], Settings]) -> None:
    stop, reload, halt = asyncio.Event(), asyncio.Event(), asyncio.Event()
    stopping.into(stop)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    loop.add_signal_handler(signal.SIGUSR1, halt.set)
    # These take most of the time of a start, in which signals come, too.
    from triage.app import build  # noqa: PLC0415
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.log import tell_repeats  # noqa: PLC0415
    from triage.sdnotify import Supervisor  # noqa: PLC0415

    with ExitStack() as until_the_end:  # closing may hang as well
        async with build(
            settings,
            clock=SystemClock(),
            supervisor=Supervisor(os.environ, pid=os.getpid()),
            reread=reread,
            configured=_configure_log,
        ) as app:
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
            until_the_end.enter_context(_watched(app, settings))
            await app.run(stop, reload=reload, halt=halt)
    tell_repeats()
    log.info("stopped")


@contextmanager
def _watched(app: App, settings: Settings) -> Iterator[None]:
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.watchdog import Watchdog  # noqa: PLC0415

    if not settings.watchdog.limit:
        yield
        return
    watchdog = Watchdog(
        app.stages,
        notifier=app.notifier,
        to=settings.watchdog.to,
        clock=SystemClock(),
        last_resort=2 * settings.watchdog.limit,
    )
    watchdog.start()
    try:
        yield
    finally:
        watchdog.stop()
