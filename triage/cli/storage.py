"""Opens the store for a command that looks at it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from triage.errors import StoreUnavailable

if TYPE_CHECKING:
    from triage.settings import Settings
    from triage.stores.sqlite import SqliteStore

Answer = TypeVar("Answer")


def ask(settings: Settings, question: Callable[[SqliteStore], Awaitable[Answer]]) -> Answer:
    """Open the store, put one question to it, close it.

    Raises:
        StoreUnavailable: there is none yet (none is made), or it cannot be read.
    """
    return asyncio.run(_ask(settings, question))


async def _ask(settings: Settings, question: Callable[[SqliteStore], Awaitable[Answer]]) -> Answer:
    from triage.stores.sqlite import SqliteStore  # noqa: PLC0415

    path = settings.store.path
    if not path.exists():
        raise StoreUnavailable(f"there is none yet at {path}. Has `triage run` run with these settings?")
    store = await SqliteStore.open(path, seal=settings.encryption.seal)
    try:
        return await question(store)
    finally:
        await store.close()
