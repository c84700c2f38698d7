"""What templates know of a message, by name: plain values, made fit for a person to read. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from triage.alerts.message import Message
from triage.alerts.wording import instant, printable
from triage.templating.sandbox import Open
from triage.views import GroupView


def fields_of(message: Message, receiver: str) -> dict[str, Any]:
    """The values of a message for a template. A name that ``labels``, ``sums`` or ``accounts`` lack is no mistake."""
    return {
        "code": message.code,
        "severity": message.severity,
        "title": message.title,
        "what": message.what,
        "count": message.count,
        "since": _when(message.first_at),
        "last": _when(message.last_at),
        "function": message.function,
        "region": message.region,
        "condition": message.condition,
        "error_type": message.error_type,
        "error": message.error,
        "rule": message.rule,
        "owner": message.owner,
        "runbook": message.runbook,
        "receiver": receiver,
        "labels": Open(message.labels, ""),
        "sums": Open(message.sums, 0),
        "accounts": Open(message.accounts, 0),
        "news": message.news,
        "ended": message.ended,
        "outcomes": [asdict(each) for each in message.outcomes],
        "samples": [
            {
                **asdict(each),
                "at": instant(each.at),
                "runs": [{**asdict(run), "at": _when(run.at)} for run in each.runs],
            }
            for each in message.samples
        ],
        "more": max(message.count - len(message.samples), 0),
        "steps": [asdict(each) for each in message.steps],
        "links": [asdict(each) for each in message.links],
    }


def _when(at: datetime | None) -> str:
    return "" if at is None else instant(at)


def bare(view: GroupView, code: str) -> tuple[str, str]:
    """Title and text with nothing but what is known, by name: for when nothing else could be made of it."""
    counts: Mapping[str, object] = {str(cause): count for cause, count in view.causes.items()}
    known = {"severity": view.group.severity, **counts, **view.group.labels}
    first = view.group.labels.get("function") or view.group.labels.get("condition") or "alert"
    lines = [f"{name}: {printable(str(value), 500)}" for name, value in known.items() if value]
    return f"{printable(first, 60)} × {sum(view.causes.values()):,} #{code}", "\n".join(lines)
