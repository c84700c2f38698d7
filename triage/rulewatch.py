"""Notices that rule files have changed: a written file, a renamed one, a swapped link, another folder by the same name.

What counts is the files' state (`signature`), looked at twice a second. A notice of the operating system only makes it
be looked at sooner, so a file system that gives none (NFS, or no watch left) costs half a second and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from watchfiles import watch

from triage.clock import Clock
from triage.progress import Progress
from triage.rulefiles import SUFFIXES, TEMPLATE_SUFFIXES

log = logging.getLogger(__name__)

_READ: Final = (*SUFFIXES, *TEMPLATE_SUFFIXES, ".json")
"""Rules, their templates and cases, and the messages that cases name."""

_LOOK: Final = timedelta(milliseconds=500)
_QUIET: Final = timedelta(milliseconds=200)
_QUIET_TRIES: Final = 5

_Notices = Generator[Any, None, None]


@dataclass(frozen=True, slots=True)
class Signature:
    """What tells two states of rule files apart without reading them."""

    folder: tuple[int, int]
    files: tuple[tuple[object, ...], ...]


def signature(path: Path) -> Signature:
    """The state of all that may be read for the rules at ``path``, a folder or one file. Hidden files and editors'
    temporary ones are no part of it. Whatever cannot be looked at is part of the state; nothing is raised.
    """
    folder = _folder(path)
    try:
        files = {file for file in folder.iterdir() if file.name.endswith(_READ) and not file.name.startswith(".")}
    except OSError:
        files = set()
    if folder != path:
        files.add(path)
    _, device, inode, *_ = _stat(folder)
    return Signature((device, inode), tuple(map(_stat, sorted(files))))


def _stat(file: Path) -> tuple[Any, ...]:
    # The change time catches what keeps size and modification time: cp -p, chmod, a swapped link.
    try:
        found = file.stat()
    except OSError as error:
        return (file.name, 0, error.errno or 0)
    return (file.name, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _folder(path: Path) -> Path:
    """The folder that says what becomes of ``path``; for a folder that is not there, the one it would be in."""
    return path if path.is_dir() else path.parent


async def watch_rules(
    path: Path,
    *,
    seen: Signature,
    changed: Callable[[], None],
    stop: asyncio.Event,
    clock: Clock,
    progress: Progress,
    quiet: timedelta = _QUIET,
) -> None:
    """Call ``changed`` each time the files differ from ``seen``, then from the last time; until ``stop``.

    Args:
        progress: gets a mark at each look.
        quiet: for how long the files must not have changed, because what does not rename writes a file in pieces.
            After five times as long ``changed`` is called in any case.
    """
    notices: _Notices | None = None
    while not stop.is_set():
        progress.rest()
        progress.busy(clock.steady())
        notices = await _notice(notices, path, stop=stop, clock=clock)
        if await asyncio.to_thread(signature, path) == seen:
            continue
        before, seen = seen, await _at_rest(path, quiet, stop=stop, clock=clock)
        if notices is not None and seen.folder != before.folder:
            notices.close()  # it watches the old folder
            notices = None
        if seen != before:
            changed()
    progress.rest()


async def _notice(notices: _Notices | None, path: Path, *, stop: asyncio.Event, clock: Clock) -> _Notices | None:
    """Return when it is time to look; with what gives the next notice, or None when nothing does."""
    try:
        if notices is None:
            notices = watch(
                _folder(path),
                recursive=False,
                watch_filter=None,
                step=50,
                debounce=200,
                rust_timeout=round(_LOOK / timedelta(milliseconds=1)),
                yield_on_timeout=True,
                stop_event=stop,
                raise_interrupt=False,
            )
        if await asyncio.to_thread(next, notices, None) is None and not stop.is_set():
            notices = None
    except (OSError, RuntimeError) as error:  # no such folder, not allowed, no watches left
        log.debug("%s: no notices of changes, looking instead: %s", path, error)
        await clock.wait(stop, _LOOK)
        return None
    return notices


async def _at_rest(path: Path, quiet: timedelta, *, stop: asyncio.Event, clock: Clock) -> Signature:
    found = await asyncio.to_thread(signature, path)
    for _ in range(_QUIET_TRIES):
        await clock.wait(stop, quiet)
        before, found = found, await asyncio.to_thread(signature, path)
        if found == before:
            break
    return found
