"""What the daemon looks after day by day, as long as it is configured: rows of the outbox, armed at the start."""

from __future__ import annotations

from collections.abc import Sequence

from triage.alerts.watching import Watch, armed, watched
from triage.changes import NewRow, OutboxRow
from triage.clock import Clock
from triage.outbox import Standing
from triage.stores import React, Store


def standing(watches: Sequence[Watch], *, clock: Clock) -> Standing:
    """Answers such rows by what is configured, which may change. Nothing counts as silent before this is called."""
    up_since = clock.now()

    async def answer(row: OutboxRow) -> React:
        now = clock.now()
        watch = next((each for each in watches if each.name == row.payload["watch"]), None)
        return lambda facts: watched(row, facts, watch=watch, up_since=up_since, now=now)

    return answer


async def arm(store: Store, watches: Sequence[Watch], *, clock: Clock) -> None:
    """Have it looked after. Rows that are there already become due, and so take notice of what is configured now.

    Raises:
        StoreUnavailable: nothing was armed.
    """
    now = clock.now()
    rows: list[NewRow] = [armed(watch, now=now) for watch in watches]
    await store.arm(rows, now=now)
