"""``triage top``: what goes on, at a glance."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import click

from triage.cli.output import Length, settings_option
from triage.errors import StoreUnavailable

if TYPE_CHECKING:
    from triage.cli.endpoint import Address
    from triage.cli.screen_text import Style
    from triage.cli.top_daemon import Daemon
    from triage.cli.top_frame import Snapshot
    from triage.settings import Settings

_PATIENCE: Final = 2.0
"""Seconds for an answer of the daemon; one that hangs is then told to be so."""

_SHARE: Final = 5
"""Looking may take one part in so many of the time: the store of a busy daemon has better things to do."""


@click.command()
@click.option("--once", is_flag=True, help="Print one frame and end.")
@click.option("--interval", type=Length(), default="2s", show_default=True, help="Time between two looks.")
@click.option("--url", help="Where the daemon listens, http://HOST:PORT; else [web] listen of the settings.")
@settings_option
def top(*, settings: Settings, once: bool, interval: timedelta, url: str | None) -> None:
    """Watch what goes on: lag, rates, failure groups, budgets, breakers, outbox, receivers.

    It reads the store, without writing, and asks the daemon's operations endpoint if [web] listen is set. The space bar
    looks again at once, q ends. Colours are left out with NO_COLOR, and all that is not ASCII where the locale is not
    UTF-8.
    """
    from triage.cli.screen import printed_size, style_of  # noqa: PLC0415
    from triage.cli.top_frame import frame  # noqa: PLC0415

    if interval < timedelta(milliseconds=100):
        raise click.BadParameter("at least 100ms", param_hint="--interval")
    path = settings.store.path
    if not path.exists():
        raise StoreUnavailable(f"there is none yet at {path}. Has `triage run` run with these settings?")
    address, style = _address(settings, url), style_of(os.environ, sys.stdout)
    if once:
        now = _look(settings, address)
        width, height = printed_size()
        click.echo("\n".join(frame(now, width=width, height=height, style=style)))
        sys.exit(1 if now.problem else 0)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("this is no terminal; --once prints one frame")
    _watch(settings, address, interval=interval, style=style)


def _watch(settings: Settings, address: Address | None, *, interval: timedelta, style: Style) -> None:
    from triage.cli.screen import Interrupted, whole_screen  # noqa: PLC0415
    from triage.cli.top_frame import frame  # noqa: PLC0415
    from triage.clock import monotonic  # noqa: PLC0415

    try:
        with whole_screen(sys.stdin, sys.stdout) as screen:
            before = None
            while True:
                began = monotonic()
                now = _look(settings, address)
                pause = max(interval.total_seconds(), _SHARE * (monotonic() - began))
                until = monotonic() + pause
                key = "resize"
                while key == "resize":  # the same frame, for another size
                    width, height = screen.size
                    screen.draw(frame(now, before, width=width, height=height, style=style))
                    key = screen.wait(until - monotonic())
                if key in ("q", "Q", "\x1b"):  # arrows and the like begin with an escape, and are more
                    return
                before = now
    except Interrupted as end:
        os.kill(os.getpid(), end.number)


def _address(settings: Settings, url: str | None) -> Address | None:
    from triage.cli.endpoint import address_configured, address_given  # noqa: PLC0415

    if url:
        return address_given(url)
    listens = settings.web.listen and settings.web.address[1]
    return address_configured(settings.web) if listens else None


def _look(settings: Settings, address: Address | None) -> Snapshot:
    from triage.cli.top_frame import Snapshot  # noqa: PLC0415
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.stores.overview import overview  # noqa: PLC0415
    from triage.stores.selfcheck import view  # noqa: PLC0415

    daemon, guards = _ask(settings, address), settings.reruns.guards
    now = SystemClock().now()
    try:
        with view(settings.store.path) as connection:
            return Snapshot(now, overview(connection, now=now), daemon, guards=guards)
    except StoreUnavailable as error:
        return Snapshot(now, None, daemon, problem=str(error))


def _ask(settings: Settings, address: Address | None) -> Daemon:
    from triage.cli.endpoint import get  # noqa: PLC0415
    from triage.cli.top_daemon import PATHS, Daemon, daemon_of  # noqa: PLC0415

    if address is None:
        return Daemon()
    token = settings.web.token.get_secret_value()
    return daemon_of(str(address), get(address, *PATHS, token=token, patience=_PATIENCE))
