"""What the daemon looks after day by day, as long as it is configured: rows of the outbox, armed at the start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from triage.alerts import maintenance
from triage.alerts.maintenance import Maintenance, maintained
from triage.alerts.watching import Watch, armed, watched
from triage.changes import NewRow, RowKind
from triage.clock import Clock
from triage.outbox import Standing
from triage.report import Digest, begun, is_due, looked_at
from triage.reporting import Source, report
from triage.reruns.budget import Allowance
from triage.stores import React, Store
from triage.views import OutboxRow

_DAY: Final = timedelta(days=1)


@dataclass(slots=True)
class Duties:
    """What is configured at the moment."""

    watches: Sequence[Watch]
    digest: Digest
    maintenance: Sequence[Maintenance] = ()


def standing(duties: Duties, *, store: Source, clock: Clock, allowance: Allowance) -> Standing:
    """Answers such rows by what is configured, which may change. Nothing counts as silent before this is called."""
    up_since = clock.now()

    async def answer(row: OutboxRow) -> React:
        now = clock.now()
        if row.kind is RowKind.DIGEST:
            due = is_due(row, now=now)
            wanted = due and duties.digest.to
            found = await report(store, since=now - _DAY, now=now, allowance=allowance) if wanted else None
            return lambda _facts: looked_at(row, duties.digest, found, now=now)
        if row.kind is RowKind.MAINTENANCE:
            own = next((each for each in duties.maintenance if each.name == row.payload["maintenance"]), None)
            return lambda _facts: maintained(row, own, now=now)
        watch = next((each for each in duties.watches if each.name == row.payload["watch"]), None)
        return lambda facts: watched(row, facts, watch=watch, up_since=up_since, now=now)

    return answer


async def arm(store: Store, duties: Duties, *, clock: Clock) -> None:
    """Have it looked after. Rows that are there already become due, and so take notice of what is configured now.

    Raises:
        StoreUnavailable: nothing was armed.
    """
    now = clock.now()
    rows: list[NewRow] = [armed(watch, now=now) for watch in duties.watches]
    rows += [maintenance.armed(each, now=now) for each in duties.maintenance]
    if duties.digest.to:
        rows.append(begun(now=now))
    await store.arm(rows, now=now)
