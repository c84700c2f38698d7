"""Gathers a report from the store."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Protocol

from triage.report import Ending, Report, Spent
from triage.reruns import budget
from triage.reruns.budget import Allowance
from triage.rules.source import load_rules
from triage.stores import Desk, Store
from triage.stores.postbox import Postbox
from triage.stores.shift import Reporting

_SOON: Final = timedelta(days=1)
_BUSIEST: Final = 5


class Source(Store, Desk, Postbox, Reporting, Protocol):
    """A store that can be reported on."""


async def report(store: Source, *, since: datetime, now: datetime, allowance: Allowance) -> Report:
    """Everything from ``since`` on. ``allowance`` is what re-runs functions may have.

    Raises:
        StoreUnavailable: the store could not be read.
    """
    found, kept = await store.shift(since), await store.rule_set()
    lately, ever = await store.rule_hits(since=since), {each.rule_id: each for each in await store.rule_hits()}
    noisy = sorted(((each.rule_id, each.hits) for each in lately if each.hits), key=lambda each: (-each[1], each[0]))
    known = [rule.id for rule in load_rules(kept[1]).rules] if kept else []
    return Report(
        since=since,
        until=now,
        states=found.states,
        groups=found.groups,
        groups_total=found.groups_total,
        spared=found.spared,
        held=[(each.code, each.reason) for each in await store.held()],
        spent=[
            Spent(
                each.standing.function,
                each.reruns,
                each.waiting,
                int(budget.left(each.standing.budget, allowance, now=now)),
            )
            for each in found.spent
        ],
        stopped=found.stopped,
        switched=[f"{each} by {each.by}: {each.reason}" for each in await store.switches()],
        silences=[
            Ending(view.silence.id, view.silence.ends_at, view.silence.by, view.silence.reason)
            for view in await store.silences()
            if view.silence.ends_at <= now + _SOON
        ],
        noisy=noisy[:_BUSIEST],
        idle=[rule for rule in known if rule not in ever],
        undelivered={each.receiver: each.dead for each in await store.received() if each.dead},
    )
