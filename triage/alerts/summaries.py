"""The text of what there is to say of a silence: that it is about to end, and at its end what it kept quiet. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from triage.alerts.message import urgency
from triage.alerts.wording import instant, printable
from triage.rules.model import Severity
from triage.silence import Silence
from triage.views import SilencedGroup, SilenceView

_GROUPS: Final = 20
"""Groups that a summary tells one by one, those with most alerts first."""

_SEVERITIES: Final = tuple(severity.value for severity in Severity)


class Moment(StrEnum):
    """When there is something to say of a silence."""

    SOON = "soon"  # it is about to end
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Summary:
    """A message about a silence."""

    severity: str
    title: str
    body: str


def summary(view: SilenceView, moment: Moment, receiver: str, *, code: str, how: str = "") -> Summary:
    """What a receiver is told of a silence: what was kept from it, or, when nothing was, everything."""
    silence = view.silence
    groups = kept_from(view.groups, receiver)
    count = sum(each.count for each in groups)
    severity = max((each.group.severity for each in groups), key=_SEVERITIES.index)
    alerts = f"{_counted(count, 'alert')} of {_counted(len(groups), 'group')}"
    if moment is Moment.OVER:
        title = f"{urgency(severity)}silence {silence.id} is over: {alerts} not told #{code}"
    else:
        title = (
            f"{urgency(severity)}silence {silence.id} ends at {instant(silence.ends_at)}: "
            f"{alerts} not told so far #{code}"
        )
    lines = [
        f"Silence: {printable(' '.join(show_match(silence.match)), 300)}",
        f"Asked for by {printable(silence.by, 80)} at {instant(silence.created_at)}: {printable(silence.reason, 300)}",
    ]
    if moment is Moment.OVER:
        lines.append(f"It is over: {printable(how, 300)}")
    healed = sum(each.healed for each in groups)
    lines.append(f"Count: {count:,} not told{f'; {healed:,} of them have healed since' if healed else ''}")
    lines += map(_group_line, groups[:_GROUPS])
    if rest := groups[_GROUPS:]:
        lines.append(f"  … and {sum(each.count for each in rest):,} of {_counted(len(rest), 'more group')}")
    lines += [
        "What fails from now on is told again." if moment is Moment.OVER else f"To go on: {_again(silence)}",
        f"Look: triage silence show {silence.id}",
    ]
    return Summary(severity, title, "\n".join(lines))


def kept_from(groups: Sequence[SilencedGroup], receiver: str) -> list[SilencedGroup]:
    """What was kept from a receiver, or, when nothing was, all groups once; the largest first."""
    found: Iterable[SilencedGroup] = [each for each in groups if each.receiver == receiver]
    if not found:
        largest: dict[str, SilencedGroup] = {}
        for each in groups:
            if each.group.key not in largest or each.count > largest[each.group.key].count:
                largest[each.group.key] = each
        found = largest.values()
    return sorted(found, key=lambda each: (-each.count, each.group.key))


def show_match(match: Mapping[str, Any]) -> list[str]:
    """What an alert must have, as ``triage silence add --match`` takes it."""
    return [each for name, wanted in match.items() for each in _clauses(name, wanted)]


def _clauses(name: str, wanted: Any) -> list[str]:
    if isinstance(wanted, list):
        return [f"{name}={value}" for value in wanted]
    if isinstance(wanted, dict) and set(wanted) <= {"any", "not"} and all(isinstance(v, list) for v in wanted.values()):
        return [
            *(f"{name}={value}" for value in wanted.get("any", ())),
            *(f"{name}!={value}" for value in wanted.get("not", ())),
        ]
    return [f"{name}={wanted if isinstance(wanted, str) else json.dumps(wanted)}"]


def _group_line(each: SilencedGroup) -> str:
    labels = each.group.labels
    what = printable(labels.get("function") or labels.get("condition", ""), 80)
    kind = printable(labels.get("error_type") or labels.get("condition") or "error", 60)
    owner = f", owner {printable(labels['owner'], 80)}" if labels.get("owner") else ""
    healed = f", {each.healed:,} healed" if each.healed else ""
    return f"  {each.count:,} × {what}: {kind}, last {instant(each.last_at)}{healed}{owner}"


def _again(silence: Silence) -> str:
    match = " ".join(f"--match {shlex.quote(printable(each, 200))}" for each in show_match(silence.match))
    return f"triage silence add {match} --for 2h --by … --reason …"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
