"""What a person can do about a group of alerts, as commands that can be pasted into a shell as they are. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from triage.alerts.wording import instant, printable
from triage.rules.model import Cause
from triage.views import GroupView


@dataclass(frozen=True, slots=True)
class Step:
    """A command, and what it is good for in a word or two."""

    label: str
    command: str


def steps_of(view: GroupView, code: str) -> tuple[Step, ...]:
    """The commands for what waits in a group, the first to be used first. ``code``: that of the message."""
    return tuple(_steps(view, code.partition("-")[0]))


def _steps(view: GroupView, code: str) -> Iterator[Step]:
    labels = view.group.labels
    if Cause.QUARANTINED in view.causes:
        yield Step("Look", "triage quarantine list")
        return
    if Cause.RULES_REFUSED in view.causes:
        yield Step("Look", "triage status")
        return
    if Cause.PLAN_STOPPED in view.causes:
        yield Step("Look", f"triage plan show {_word(labels['fingerprint'].removeprefix('plan/'), 64)}")
        return
    if not view.samples:
        yield Step("Look", f"triage alerts show {code}")
        return
    request_id = _word(view.samples[0].request_id, 256)
    yield Step("Look", f"triage failures show {request_id}")
    if labels.get("drill"):
        yield Step("Acknowledge", f"triage alerts ack {code}")
        return
    if set(view.causes) == {Cause.MATCHED}:
        return
    count = sum(view.causes.values())
    if count > 1:
        yield Step("All", f"triage failures list {_which(labels, view)}")
    if Cause.HELD in view.causes:
        yield from (Step("Decide", each.detail) for each in view.samples[:1] if each.detail.startswith("triage "))
    elif count > 1:
        yield Step("Run again", f"triage plan {_which(labels, view)} --state alerted")
    else:
        yield Step("Run again", f"triage rerun {request_id}")


def _which(labels: Mapping[str, str], view: GroupView) -> str:
    """The failures of the group as an option, precise where the alerts are grouped as the failures are."""
    fingerprint = labels["fingerprint"]
    kinds = {kind.labels.get("fingerprint", fingerprint) for kind in view.kinds}
    if labels.get("failure_group") == fingerprint and len(kinds) <= 1:
        return f"--group {_word(fingerprint, 64)}"
    since = f" --since {instant(view.first_at)[:19].replace(' ', 'T')}Z" if view.first_at else ""
    return f"--function {_word(labels['function'], 256)}{since}"


def _word(text: str, limit: int) -> str:
    return shlex.quote(printable(text, limit))  # somebody will paste it
