"""How an alert group is told of after its first message: repeats, the next receiver, and its end. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Escalation:
    """Others hear of it, too, when ``after`` the first message nobody has acknowledged it."""

    after: timedelta
    to: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inhibition:
    """A rule whose open groups are the cause of what fails here: those that are equal in these labels, or all."""

    rule: str
    equal: tuple[str, ...] = ()


def inhibits(inhibition: Inhibition, labels: Mapping[str, str], cause: Mapping[str, str]) -> bool:
    """Whether a group with the labels ``cause`` keeps one with ``labels`` quiet. A label that is missing is empty."""
    return cause.get("rule", "") == inhibition.rule and all(
        cause.get(name, "") == labels.get(name, "") for name in inhibition.equal
    )


@dataclass(frozen=True, slots=True)
class Course:
    """What a rule says of a group whose first message was sent (words as in Prometheus Alertmanager).

    Attributes:
        repeat_interval: no message before that when nothing is new but counts; nothing: at every ``group_interval``.
        repeat_factor: each further repeat waits this many times longer, up to ``repeat_max``.
        resolved: the receivers hear of its end.
        quiet_for: it is resolved when nothing has failed for so long; None: silence alone is no end.
        success_threshold: it is resolved when each of its functions has succeeded so often since it failed; 0: never.
        inhibited_by: while one of these groups is open, a group of this rule tells nobody.
    """

    repeat_interval: timedelta = timedelta(hours=1)
    repeat_factor: float = 2.0
    repeat_max: timedelta = timedelta(hours=24)
    resolved: bool = True
    quiet_for: timedelta | None = timedelta(hours=1)
    escalate: tuple[Escalation, ...] = ()
    success_threshold: int = 0
    inhibited_by: tuple[Inhibition, ...] = ()

    def repeat_after(self, repeats: int) -> timedelta:
        """How long after the last message the next repeat may come, when there were so many without news."""
        if repeats > 60:  # past any factor; a float must not overflow
            return max(self.repeat_max, self.repeat_interval)
        longest = max(self.repeat_max, self.repeat_interval) / timedelta(seconds=1)
        seconds = self.repeat_interval / timedelta(seconds=1)
        return timedelta(seconds=min(seconds * self.repeat_factor**repeats, longest))


COURSE: Final = Course()
"""What a rule says that says nothing of it."""

ONE_BY_ONE: Final = Course(repeat_interval=timedelta(0), resolved=False)
"""For what is news each time, and is not over because it does not come again."""


@lru_cache(maxsize=1024)
def course_json(course: Course) -> Mapping[str, Any]:
    """As JSON: a group outlives the rule that made it."""
    return {
        "repeat_interval": course.repeat_interval.total_seconds(),
        "repeat_factor": course.repeat_factor,
        "repeat_max": course.repeat_max.total_seconds(),
        "resolved": course.resolved,
        "quiet_for": None if course.quiet_for is None else course.quiet_for.total_seconds(),
        "success_threshold": course.success_threshold,
        "escalate": [{"after": step.after.total_seconds(), "to": list(step.to)} for step in course.escalate],
        "inhibited_by": [{"rule": each.rule, "equal": list(each.equal)} for each in course.inhibited_by],
    }


def course_of(written: Mapping[str, Any]) -> Course:
    """Undo `course_json`; what is missing, in a store of an older version, has its default."""
    full = {**course_json(COURSE), **written}
    steps = (Escalation(timedelta(seconds=step["after"]), tuple(step["to"])) for step in full["escalate"])
    return Course(
        repeat_interval=timedelta(seconds=full["repeat_interval"]),
        repeat_factor=full["repeat_factor"],
        repeat_max=timedelta(seconds=full["repeat_max"]),
        resolved=full["resolved"],
        quiet_for=None if full["quiet_for"] is None else timedelta(seconds=full["quiet_for"]),
        success_threshold=full["success_threshold"],
        escalate=tuple(steps),
        inhibited_by=tuple(map(_inhibition_of, full["inhibited_by"])),
    )


def _inhibition_of(written: str | Mapping[str, Any]) -> Inhibition:
    if isinstance(written, str):  # an older version knew names only
        return Inhibition(written)
    return Inhibition(written["rule"], tuple(written["equal"]))
