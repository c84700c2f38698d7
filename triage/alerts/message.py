"""A message as a value: all that there is to say of a group of alerts. What it looks like is `render`'s business. Pure.

Everything that comes from outside is flattened to printable text and cut here, so that no receiver can be broken,
flooded or misled by an error message, whatever draws the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from triage.alerts.links import DEFAULT_SITES, Link, Sites, links_of
from triage.alerts.steps import Step, steps_of
from triage.alerts.wording import printable, width
from triage.incident import Why
from triage.redaction import Redaction
from triage.rules.model import Cause, Severity
from triage.rules.readers import show_duration
from triage.states import ACCOUNTED, ACCOUNTS, State
from triage.views import GroupView, WaitingAlert

_SEEN: Final = 40
"""Columns of a title that a lock screen shows."""

OWN: Final = "labels."
"""Begins the names of labels that the configuration gives to a function, or a rule file to a rule."""

_SECRETS: Final = Redaction(detectors=("access_key", "token"))
"""What no message has in it, whatever the settings say: chat rooms have many readers, and never forget."""

_ENDINGS: Final[Mapping[Cause, tuple[str, str]]] = {
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """How so many of the alerts came about: what happened, and what was tried with which result."""

    cause: str
    count: int
    ended: str
    tried: str


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the task: ``number`` 0 is the first. ``at`` is when its result came; ``detail`` is its error, or why
    there is no result.
    """

    number: int
    origin: str
    request_id: str
    at: datetime | None
    result: str
    detail: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One of the alerts. ``runs``: of a failure that was run again, those that have room; ``attempts`` are all."""

    request_id: str
    at: datetime
    attempts: int
    detail: str
    cause: str
    runs: tuple[Run, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """What a person is told of a group.

    Attributes:
        code: characters that are the same when a crash sends it twice.
        what: what broke, in a line.
        count: alerts that it tells of; ``outcomes`` says how they came about, ``samples`` are the newest few.
        news: why it is sent when it is not the first of its incident, for the title.
        ended: how the incident has come to its end, and after how long; empty before.
        accounts: how all failures of the incident stand, this message included; their sum is that of all.
        sums: of the same group before, by what became of them (told, silenced ...); nothing that is zero.
        labels: of the function and of the rule, by the names that their owners gave them.
        steps: commands to copy.
    """

    code: str
    severity: str
    what: str
    count: int
    outcomes: tuple[Outcome, ...]
    first_at: datetime | None
    last_at: datetime | None
    sums: Mapping[str, int]
    function: str
    region: str
    condition: str
    error_type: str
    error: str
    rule: str
    owner: str
    runbook: str
    samples: tuple[Sample, ...]
    steps: tuple[Step, ...]
    links: tuple[Link, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    news: str = ""
    ended: str = ""
    accounts: Mapping[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """One line for a lock screen: what is worst first, what broke, how often, short code. When it is long, how
        often comes before the error, whose end may be cut off.
        """
        times = "" if self.count == 1 else f" × {self.count:,}"
        before, what = f"{urgency(self.severity)}{self.news}", f"{self.what}{times}"
        if times and width(before + what) > _SEEN:
            function, colon, error = self.what.partition(": ")
            what = f"{function}{times}{colon}{error}"
        return f"{before}{what} #{self.code}"


def urgency(severity: str) -> str:
    """What a title begins with. Few see more of it than forty characters, so only what is critical takes some."""
    return f"[{severity}] " if severity == Severity.CRITICAL else ""


def message_of(view: GroupView, code: str, *, sites: Sites = DEFAULT_SITES) -> Message:
    """What there is to say of the alerts that wait in a group."""
    labels = view.group.labels
    causes = sorted(view.causes.items())
    count = sum(view.causes.values()) + view.unsaid
    outcomes = [Outcome(str(cause), number, *_ENDINGS[cause]) for cause, number in causes]
    if view.unsaid and causes:
        outcomes.append(Outcome("counted", view.unsaid, "failed", "of the same kind, only counted till now"))
    return Message(
        code=code,
        severity=Severity.INFO if view.ended else view.group.severity,
        what=_what(view),
        count=view.incident.count if view.ended else count,
        outcomes=tuple(outcomes),
        first_at=_first_at(view),
        last_at=view.last_at or view.incident.last_at,
        sums={name: count for name, count in (("told", view.told), ("silenced", view.silenced)) if count},
        function=printable(labels["function"], 128),
        region=printable(labels.get("region", ""), 32),
        condition=printable(labels["condition"], 80),
        error_type=_told(labels["error_type"], 80),
        error=_told(labels["error_message"], 500),
        rule=printable(labels["rule"], 80),
        owner=printable(labels["owner"], 80),
        runbook=printable(labels["runbook"], 300),
        samples=tuple(_sample(each, most=_RUNS_OF_ONE if len(view.samples) == 1 else _RUNS) for each in view.samples),
        steps=steps_of(view, code),
        links=links_of(view, sites),
        labels={name.removeprefix(OWN): printable(text, 200) for name, text in labels.items() if name.startswith(OWN)},
        news=_NEWS.get(view.why, ""),
        ended=_ended(view),
        accounts=_accounts(view),
    )


_NEWS: Final[Mapping[Why, str]] = {
    Why.SURGED: "more and more: ",
    Why.CHANGED: "also: ",
    Why.REPEAT: "still: ",
    Why.UNANSWERED: "unanswered: ",
    Why.RESOLVED: "resolved: ",
}


def _first_at(view: GroupView) -> datetime | None:
    """When the first of the alerts came that a message counts, as closely as is known."""
    if view.ended or view.why is Why.UNANSWERED:
        return view.incident.opened_at
    return view.incident.told_at or view.first_at if view.unsaid else view.first_at


def _ended(view: GroupView) -> str:
    incident, ended = view.incident, _told(view.ended, 300)
    if not ended or incident.opened_at is None or incident.last_at is None:
        return ended
    length = timedelta(seconds=round((incident.last_at - incident.opened_at).total_seconds()))
    unsaid = f"; {view.unsaid:,} of them were only counted till now" if view.unsaid else ""
    return f"{ended}; it failed for {show_duration(length)}{unsaid}"


def _accounts(view: GroupView) -> dict[str, int]:
    sums = dict.fromkeys(ACCOUNTS, 0)
    for state, count in view.states.items():
        # What waits to be told, and what was only counted so far, is told by this very message.
        told = state in ("", State.ALERTING, State.SUPPRESSED)
        sums["alerted" if told else ACCOUNTED[State(state)]] += count
    return {account: count for account, count in sums.items() if count}


_RUNS_OF_ONE: Final = 20
_RUNS: Final = 4
"""Runs that are told of each failure, when there are several; the first, and the last."""


def _sample(alert: WaitingAlert, *, most: int) -> Sample:
    runs = alert.runs if len(alert.runs) <= most else (alert.runs[0], *alert.runs[1 - most :])
    told = tuple(
        Run(
            each.number,
            each.origin,
            printable(each.request_id or each.task_id, 128),
            each.result_at or each.submitted_at or each.due_at,
            each.result,
            _told(each.detail, 120),
        )
        for each in runs
    )
    detail, cause = _told(alert.detail, 200), str(alert.cause)
    return Sample(printable(alert.request_id, 128), alert.at, alert.attempts, detail, cause, told)


def _told(text: str, limit: int) -> str:
    return printable(_SECRETS.text(text), limit)


def _what(view: GroupView) -> str:
    labels = view.group.labels
    if Cause.QUARANTINED in view.causes:
        messages = "messages" if sum(view.causes.values()) > 1 else "message"
        return f"{messages} could not be read: {printable(labels['error_type'], 60)}"
    if Cause.RULES_REFUSED in view.causes:
        return f"rule files cannot be used: {printable(labels['error_message'], 160)}"
    if Cause.PLAN_STOPPED in view.causes:
        return f"plan of re-runs stopped: {printable(labels['error_message'], 160)}"
    function = printable(labels["function"], 48)
    if set(view.causes) == {Cause.MATCHED}:
        return f"{function} ended as rule {printable(labels['rule'], 40)} says"
    kind = _SECRETS.text(labels["error_type"] or labels["condition"] or "error")
    held = " and is held" if set(view.causes) == {Cause.HELD} else ""
    again = " again" if view.why is Why.FIRST and view.incident.number > 1 else ""
    return f"{function} failed{again}{held}: {printable(kind, 60)}"
