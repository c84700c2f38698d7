"""Alerts about what does not happen: that nothing has arrived for too long from a function or a source. Pure.

Each thing to watch has one outbox row, due when it would have been silent for too long; whoever looks arms it anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from triage.alerts.notice import notice
from triage.alerts.wording import instant, printable
from triage.changes import Changes, NewRow, RowKind, Settle
from triage.incident import short_code
from triage.rules.readers import show_duration
from triage.views import OutboxRow, RowFacts

_LOOK: Final = timedelta(minutes=5)
"""How often it is looked whether something has come again, at the most."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What has to arrive. ``matches`` tells the functions, ``source`` the source; at least one of them is given.

    Attributes:
        name: what it is, for people; also the name of its row.
        within: how long nothing may come.
    """

    name: str
    within: timedelta
    to: tuple[str, ...]
    severity: str
    matches: Callable[[str], bool] | None = None
    source: str = ""


def armed(watch: Watch, *, now: datetime) -> NewRow:
    """The row that looks after it, due at once. One that is there already only becomes due."""
    return NewRow(f"watch:{watch.name}", RowKind.WATCH, now, {"watch": watch.name}, sooner=True)


def watched(row: OutboxRow, facts: RowFacts, *, watch: Watch | None, up_since: datetime, now: datetime) -> Settle:
    """Whether it has been silent for too long, or speaks again; then its receivers are told, once.

    Args:
        watch: as it is configured now; None: not any more.
        up_since: when this process began to listen: before that nothing could arrive.
    """
    if watch is None:
        return Settle.done(note="not watched any more")
    times = [
        seen.at
        for seen in facts.arrivals
        if (watch.matches is None or watch.matches(seen.function)) and watch.source in ("", seen.source)
    ]
    last = max(times, default=None)
    base = max(last or up_since, up_since)
    told = row.payload.get("told", "")
    kept = {"watch": watch.name}
    if now < base + watch.within:
        # It is back when something came, not because this process was started anew.
        back = bool(told) and last is not None and last.isoformat() > told
        rows = _messages(watch, last, told, now=now) if back else ()
        payload = {**kept, "told": "" if back else told}
        return Settle.retry(due_at=base + watch.within, note="heard of", payload=payload, changes=Changes(rows=rows))
    rows = () if told else _messages(watch, last, "", now=now)
    payload = {**kept, "told": told or now.isoformat()}
    due_at = now + min(watch.within, _LOOK)
    return Settle.retry(due_at=due_at, note="silent", payload=payload, changes=Changes(rows=rows))


def _messages(watch: Watch, last: datetime | None, told: str, *, now: datetime) -> tuple[NewRow, ...]:
    severity = "info" if told else watch.severity
    since = told or now.isoformat()
    code = short_code(f"{watch.name}/{since}")
    what = printable(watch.name, 120)
    came = f"The last message came at {instant(last)}." if last else "No message has ever come."
    if told:
        title = f"[info] {what}: messages arrive again #{code}"
        body = f"{came} Nothing had come, as was told at {instant(datetime.fromisoformat(told))}."
    else:
        title = f"[{severity}] {what}: nothing has arrived for {show_duration(watch.within)} #{code}"
        body = (
            f"{came}\nEither nothing runs there, or its results do not reach the queue, or nobody reads that.\n"
            "Look: triage status; is the function invoked, and is its destination set?"
        )
    return tuple(
        notice(
            f"notify:watch:{code}:{'back' if told else 'silent'}:{receiver}",
            receiver,
            code=code,
            severity=severity,
            title=title,
            body=body,
            now=now,
        )
        for receiver in watch.to
    )
