"""Every store, for the suites that all of them pass. To run those on another one, add it here; nothing else names one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from triage.stores.sqlite import SqliteStore
from triage.testing import MemoryStore


@asynccontextmanager
async def sqlite(directory: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(directory / "triage.db")
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def memory(_directory: Path) -> AsyncIterator[MemoryStore]:
    yield MemoryStore()


STORES = {"sqlite": sqlite, "memory": memory}
