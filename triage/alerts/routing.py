"""What a receiver wants to be told, when, and how often: decided at the moment a message is about to be sent. Pure.

A message that may not go yet waits at a gate. The next one that may go takes along, as one message, all that wait for
the same receiver and may go by then; they are done when it has been taken, and wait on when it is given up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from triage.alerts.compose import extended
from triage.alerts.delivery import NOBODY, Fallback
from triage.changes import Settle
from triage.drills import is_drill
from triage.line import Line, Waiting
from triage.reruns.gate import Gate
from triage.rules.model import Severity
from triage.rules.windows import Hours
from triage.views import OutboxRow, RowFacts

_SEVERITIES: Final = tuple(severity.value for severity in Severity)

_LOOK: Final = timedelta(seconds=5)
"""How often a message looks whether the one that takes it along has arrived, and whether the receiver is free."""

_LISTED: Final = 20
"""Messages taken along that are named one by one, the most severe first."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """Hours in which a receiver is not to be disturbed; ``passes``: not even by what is critical, if False."""

    hours: Hours
    passes: bool = True


@dataclass(frozen=True, slots=True)
class Rate:
    """At most so many messages within any span of this length."""

    count: int
    per: timedelta

    def __str__(self) -> str:
        return f"{self.count} in {self.per}"


@dataclass(frozen=True, slots=True)
class Route:
    """How messages go to one receiver: ``floor`` is the least severity it takes."""

    floor: Severity = Severity.INFO
    quiet: Quiet | None = None
    rate: Rate | None = None
    fallback: Fallback = NOBODY

    @property
    def open(self) -> bool:
        """Everything goes at once."""
        return self.floor is Severity.INFO and self.quiet is None and self.rate is None


Routes = Callable[[str], Route | None]
"""The route to a receiver; None when no receiver has that name."""


def everywhere(_receiver: str) -> Route:
    """No receiver wants anything special."""
    return Route()


def fallback_of(receiver: str, route: Route | None) -> Fallback:
    """Who is told when this receiver cannot be reached: what is meant for one that does not exist goes to `default`."""
    if route is not None:
        return route.fallback
    return Fallback("default") if receiver != "default" else NOBODY


def quiet_until(quiet: Quiet | None, severity: str, *, now: datetime) -> datetime | None:
    """When the hours end in which a message of this severity waits; None when it need not wait now."""
    if quiet is None or (quiet.passes and severity == Severity.CRITICAL) or not quiet.hours.contains(now):
        return None
    return quiet.hours.turn(now)


def routed(row: OutboxRow, facts: RowFacts, *, route: Route, now: datetime) -> Settle:
    """Whether a message may go to its receiver now, and what goes with it; that of a drill goes now and alone, or not
    at all.
    """
    if not is_drill(row.group):
        return _routed(row, facts, route=route, now=now)
    settle = _routed(row, replace(facts, line=replace(facts.line or Line(), waiting=())), route=route, now=now)
    return Settle.dead(note=settle.note) if settle.gate else settle


def _routed(row: OutboxRow, facts: RowFacts, *, route: Route, now: datetime) -> Settle:
    line, severity = facts.line or Line(), row.payload["severity"]
    if _SEVERITIES.index(severity) < _SEVERITIES.index(route.floor) and line.others:
        return Settle.done(note=f"the receiver takes {route.floor} and worse", delivery="below")
    if row.key in line.taken:
        return Settle.wait(
            Gate.QUIET if row.gate is Gate.QUIET else Gate.RECEIVER_RATE,
            due_at=now + _LOOK,
            note="goes with another message",
        )
    if "along" in row.payload:
        return Settle.go()  # it has been tried: the text, and what goes with it, stay as they were then
    if (until := quiet_until(route.quiet, severity, now=now)) is not None:
        return Settle.wait(Gate.QUIET, due_at=until, note=f"quiet hours until {until:%Y-%m-%d %H:%M}Z")
    if route.rate is not None and (free_at := _free_at(route.rate, line, now=now)) > now:
        note = f"no more than {route.rate.count} messages in {route.rate.per}"
        return Settle.wait(Gate.RECEIVER_RATE, due_at=free_at, note=note)
    along = [each for each in line.waiting if _may_go(each, route, now=now)]
    return Settle.go(payload=_together(row, along)) if along else Settle.go()


def _may_go(waiting: Waiting, route: Route, *, now: datetime) -> bool:
    return quiet_until(route.quiet, waiting.severity, now=now) is None


def _free_at(rate: Rate, line: Line, *, now: datetime) -> datetime:
    """When the receiver may be sent another message; those that are being sent count as sent."""
    recent = [at for at in line.sent if at > now - rate.per]  # the newest first
    if len(recent) + line.under_way < rate.count:
        return now
    if line.under_way >= rate.count:
        return now + _LOOK
    return recent[rate.count - line.under_way - 1] + rate.per


def _together(row: OutboxRow, along: Sequence[Waiting]) -> dict[str, object]:
    """The payload of a message that takes others along: every one is counted, the first few are named."""
    payload = row.payload
    alerts = sum(each.alerts for each in along)
    others = sorted(along, key=lambda each: (-_SEVERITIES.index(each.severity), each.at, each.key))
    severity, title = payload["severity"], payload["title"]
    if _SEVERITIES.index(others[0].severity) > _SEVERITIES.index(severity):
        severity, title = others[0].severity, others[0].title
    lines = [f"  {each.title}" for each in others[:_LISTED]]
    if rest := others[_LISTED:]:
        lines.append(f"  … and {_messages(len(rest))}, {_alerts(sum(each.alerts for each in rest))}")
    also = f"Held back until now: {_messages(len(along))}, {_alerts(alerts)}"
    return {
        **extended(payload, "\n".join([also, *lines])),
        "severity": severity,
        "title": f"{title} (+ {_messages(len(along))}, {_alerts(alerts)})",
        "along": [each.key for each in along],
    }


def _messages(count: int) -> str:
    return f"{count:,} message{'' if count == 1 else 's'}"


def _alerts(count: int) -> str:
    return f"{count:,} alert{'' if count == 1 else 's'}"
