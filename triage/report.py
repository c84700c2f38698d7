"""The report of a shift, or of a day: what is open, what healed by itself, what needs a person. Pure."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from zoneinfo import ZoneInfo

from triage.alerts.wording import instant, printable, times
from triage.changes import Changes, NewRow, RowKind, Settle
from triage.incident import short_code
from triage.views import OutboxRow

_MARKS: Final = re.compile(r"([\\`*_{}\[\]<>()#+.!|~-])")


class Form(StrEnum):
    """What a report can look like."""

    TEXT = "text"
    MARKDOWN = "markdown"
    HTML = "html"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class OpenGroup:
    """Failures that are alike and not over."""

    fingerprint: str
    function: str
    error: str
    count: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Spared:
    """Failures of a function that re-runs healed before anybody was told."""

    function: str
    count: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Spent:
    """What a function has spent on re-runs. ``waiting``: re-runs for which the budget has had nothing so far."""

    function: str
    reruns: int
    waiting: int
    left: int


@dataclass(frozen=True, slots=True)
class Ending:
    """A silence that ends soon."""

    number: int
    ends_at: datetime
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything between two instants, as of the later one.

    Attributes:
        states: failures that came in the time, by where they stand now.
        groups: the largest open ones, ``groups_total`` in all.
        held: codes of failures that wait for a person, and for what.
        spent: functions that were run again in the time, or wait for their budget.
        stopped: functions whose re-runs a breaker has stopped.
        switched: what people have switched off.
        noisy: rules by how often they applied in the time, the busiest first.
        idle: rules that never applied.
        undelivered: messages that were given up, by receiver.
    """

    since: datetime
    until: datetime
    states: Mapping[str, int]
    groups: Sequence[OpenGroup] = ()
    groups_total: int = 0
    spared: Sequence[Spared] = ()
    held: Sequence[tuple[str, str]] = ()
    spent: Sequence[Spent] = ()
    stopped: Sequence[str] = ()
    switched: Sequence[str] = ()
    silences: Sequence[Ending] = ()
    noisy: Sequence[tuple[str, int]] = ()
    idle: Sequence[str] = ()
    undelivered: Mapping[str, int] | None = None

    @property
    def failures(self) -> int:
        """All that came in the time."""
        return sum(self.states.values())

    @property
    def title(self) -> str:
        """One line."""
        spared = sum(each.count for each in self.spared)
        return f"[info] triage: {self.failures:,} failures, {spared:,} healed unseen, {self.groups_total:,} groups open"


@dataclass(frozen=True, slots=True)
class _Section:
    title: str
    lines: Sequence[str]


def sections(report: Report) -> list[_Section]:
    """What there is to say, in words; parts about which there is nothing are left out."""
    states = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in sorted(report.states.items()))
    first = f"{report.failures:,} failures from {instant(report.since)} to {instant(report.until)}"
    spared = [
        f"{each.count:,} × {printable(each.function, 80)}, by {times(each.attempts, 're-run')}"
        for each in report.spared
    ]
    groups = [
        f"{each.count:,} × {printable(each.function, 80)}: {printable(each.error, 80)}, since {instant(each.first_at)},"
        f" last {instant(each.last_at)} ({each.fingerprint[:8]})"
        for each in report.groups
    ]
    if (rest := report.groups_total - len(groups)) > 0:
        groups.append(f"and {rest:,} more groups")
    spent = [
        f"{printable(each.function, 80)}: {times(each.reruns, 're-run')}, {each.left:,} left"
        + (f", {each.waiting:,} wait for it" if each.waiting else "")
        for each in report.spent
    ]
    found = [
        _Section("Failures", [first, *([states] if states else [])]),
        _Section("Open groups", groups),
        _Section("Waiting for a decision", [f"{code}: {printable(reason, 120)}" for code, reason in report.held]),
        _Section("Healed without anybody being told", spared),
        _Section("Budget of re-runs", spent),
        _Section("Re-runs stopped by a breaker", [printable(each, 120) for each in report.stopped]),
        _Section("Switched off", [printable(each, 160) for each in report.switched]),
        _Section(
            "Silences that end within a day",
            [
                f"{each.number} at {instant(each.ends_at)}, {printable(each.by, 40)}: {printable(each.reason, 120)}"
                for each in report.silences
            ],
        ),
        _Section("Busiest rules", [f"{printable(rule, 80)}: {times(hits, 'time')}" for rule, hits in report.noisy]),
        _Section("Rules that never applied", [printable(rule, 80) for rule in report.idle]),
        _Section(
            "Messages that could not be delivered",
            [f"{printable(name, 80)}: {count:,}" for name, count in (report.undelivered or {}).items()],
        ),
    ]
    return [section for section in found if section.lines]


def rendered(report: Report, form: Form) -> str:
    """The report as text, Markdown or HTML."""
    match form:
        case Form.TEXT | Form.JSON:
            parts = [f"{each.title}\n" + "\n".join(f"  {line}" for line in each.lines) for each in sections(report)]
            return "\n\n".join(parts)
        case Form.MARKDOWN:
            parts = [
                f"### {each.title}\n\n" + "\n".join(f"- {_MARKS.sub(_BACKSLASHED, line)}" for line in each.lines)
                for each in sections(report)
            ]
            return "\n\n".join(parts)
        case Form.HTML:
            parts = [
                f"<h3>{html.escape(each.title)}</h3>\n<ul>\n"
                + "\n".join(f"<li>{html.escape(line)}</li>" for line in each.lines)
                + "\n</ul>"
                for each in sections(report)
            ]
            return "\n".join(parts)


_BACKSLASHED: Final = r"\\\1"


def plain(report: Report) -> dict[str, Any]:
    """The report as JSON can hold it."""
    return {"failures": report.failures, **asdict(report)}


@dataclass(frozen=True, slots=True)
class Digest:
    """Who gets a report every day, and at which time of day by the clocks of which zone."""

    to: tuple[str, ...]
    at: timedelta
    zone: ZoneInfo

    def next(self, *, now: datetime) -> datetime:
        """When the next one is due. On a day that has no such time, because clocks are put forward, soon after it."""
        midnight = now.astimezone(self.zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        for days in range(3):
            due = (midnight + timedelta(days=days) + self.at).astimezone(UTC)
            if due > now:
                return due
        raise AssertionError("no day is longer than two")


def begun(*, now: datetime) -> NewRow:
    """The row that sees to the digest. One that is there already becomes due, and takes notice of the new time."""
    return NewRow("digest", RowKind.DIGEST, now, {}, sooner=True)


def looked_at(row: OutboxRow, digest: Digest, report: Report | None, *, now: datetime) -> Settle:
    """Send the report if its time has come, and wait for the next one.

    Args:
        report: None: its time has not come.
    """
    if not digest.to:
        return Settle.done(note="nobody gets it")
    due_at = digest.next(now=now)
    payload = {"due": due_at.isoformat()}
    if report is None:
        return Settle.retry(due_at=due_at, note="waits for its time", payload=payload)
    day = f"{now.astimezone(digest.zone):%Y-%m-%d}"
    code = short_code(f"digest/{row.payload['due']}")
    message = {
        "at": now.isoformat(),
        "code": code,
        "severity": "info",
        "title": f"{report.title} #{code}",
        "body": rendered(report, Form.TEXT),
        "forms": {"markdown": rendered(report, Form.MARKDOWN), "html": rendered(report, Form.HTML)},
    }
    rows = tuple(
        NewRow(f"notify:digest:{day}:{receiver}", RowKind.NOTIFY, now, {"receiver": receiver, **message})
        for receiver in digest.to
    )
    return Settle.retry(due_at=due_at, note=f"told on {day}", payload=payload, changes=Changes(rows=rows))


def is_due(row: OutboxRow, *, now: datetime) -> bool:
    """Whether the time of the row has come, and not only its configuration changed."""
    due = row.payload.get("due", "")
    return bool(due) and datetime.fromisoformat(due) <= now
