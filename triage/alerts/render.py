"""The text of a notification: what broke, since when, how often, what was tried, what to do, who owns it. Pure.

Everything that comes from outside is flattened to printable text and cut, so that no receiver can be broken, flooded or
misled by an error message.
"""

from __future__ import annotations

import shlex
import unicodedata
from datetime import UTC, datetime

from triage.changes import GroupView, WaitingAlert
from triage.rules.model import Cause

_CAUSES = {
    Cause.FAILED: ("failed", "told at once, as the rule wants"),
    Cause.EXHAUSTED: ("failed", "re-run without success, no attempt or time is left"),
    Cause.REFUSED: ("failed", "the re-run was refused"),
    Cause.UNKNOWN: ("failed", "it cannot be found out whether the re-run was taken; it is held for you"),
    Cause.OVERDUE: ("failed", "re-run, but no result came back"),
    Cause.HELD: ("failed", "held until a person decides"),
    Cause.MATCHED: ("ended", "a rule wants you to know"),
    Cause.QUARANTINED: ("could not be read", "kept in the quarantine"),
    Cause.RULES_REFUSED: ("could not be used", "the last good rules stay in force"),
    Cause.PLAN_STOPPED: ("stopped", "nothing more is run again until somebody resumes it"),
}


def title(view: GroupView, code: str) -> str:
    """One line: severity, what, how often, short code."""
    labels = view.group.labels
    count = sum(view.causes.values())
    times = "" if count == 1 else f" × {count}"
    if Cause.QUARANTINED in view.causes:
        what = f"message{'s' if count > 1 else ''} could not be read: {printable(labels['error_type'], 60)}"
    elif Cause.RULES_REFUSED in view.causes:
        what = f"rule files cannot be used: {printable(labels['error_message'], 160)}"
    elif Cause.PLAN_STOPPED in view.causes:
        what = f"plan of re-runs stopped: {printable(labels['error_message'], 160)}"
    elif set(view.causes) == {Cause.MATCHED}:
        what = f"{printable(labels['function'], 80)} ended as rule {printable(labels['rule'], 80)} says"
    else:
        kind = labels["error_type"] or labels["condition"] or "error"
        what = f"{printable(labels['function'], 80)} failed: {printable(kind, 60)}"
    return f"[{view.group.severity}] {what}{times} #{code}"


def body(view: GroupView) -> str:
    """The message below the title, plain text, one fact a line."""
    labels = view.group.labels
    count = sum(view.causes.values())
    lines = []
    if labels["error_message"]:
        lines.append(f"Error: {printable(labels['error_message'], 500)}")
    lines.append(_counted(view, count))
    for cause, number in sorted(view.causes.items()):
        lines.append(f"Outcome: {number} of {count} {_CAUSES[cause][0]}; {_CAUSES[cause][1]}")
    if labels["runbook"]:
        lines.append(f"Runbook: {printable(labels['runbook'], 300)}")
    if labels["owner"] or labels["rule"]:
        lines.append(f"Owner: {printable(labels['owner'], 80) or '(nobody)'} · rule: {printable(labels['rule'], 80)}")
    lines += [_sample(sample) for sample in view.samples]
    if count > len(view.samples):
        lines.append(f"  … and {count - len(view.samples)} more")
    lines.append(_next_step(view))
    return "\n".join(lines)


def printable(text: str, limit: int) -> str:
    """Text from outside on one line: control and format characters become spaces, white space folds, length is cut."""
    clean = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in text[: limit * 4])
    clean = " ".join(clean.split())
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def _counted(view: GroupView, count: int) -> str:
    since = f"since {instant(view.first_at)}" if view.first_at else ""
    until = f", last {instant(view.last_at)}" if view.last_at and view.last_at != view.first_at else ""
    before = [
        f"{number} {what} before" for number, what in ((view.told, "told"), (view.silenced, "silenced")) if number
    ]
    earlier = f" ({', '.join(before)})" if before else ""
    return f"Count: {count} {since}{until}{earlier}"


def _sample(sample: WaitingAlert) -> str:
    tried = f", re-run {sample.attempts} time{'s' if sample.attempts > 1 else ''}" if sample.attempts else ""
    detail = f" — {printable(sample.detail, 200)}" if sample.detail else ""
    return f"  {printable(sample.request_id, 128)} at {instant(sample.at)}{tried}{detail}"


def _next_step(view: GroupView) -> str:
    if Cause.QUARANTINED in view.causes:
        return "Look: triage quarantine list"
    if Cause.RULES_REFUSED in view.causes:
        return "Look: triage status"
    if Cause.PLAN_STOPPED in view.causes:
        return f"Look: triage plan show {printable(view.group.labels['fingerprint'].removeprefix('plan/'), 64)}"
    sample = view.samples[0].request_id if view.samples else ""
    return f"Look: triage failures show {shlex.quote(printable(sample, 256))}"  # somebody will paste it


def instant(at: datetime) -> str:
    """To the second, in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
