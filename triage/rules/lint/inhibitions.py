"""Rules that say which other rules keep them quiet: of causes that cannot be, and of labels that tell nothing apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from triage.rules.course import Inhibition
from triage.rules.lint.entry import Entry
from triage.rules.lint.findings import Finding
from triage.rules.mistakes import Path, did_you_mean
from triage.rules.model import Mode, Rule


def inhibition_findings(entries: Sequence[Entry]) -> Iterator[Finding]:
    """R026 and R027."""
    rules = {entry.rule.id: entry.rule for entry in entries}
    for entry in entries:
        for index, inhibition in enumerate(_inhibitions(entry.rule)):
            path = _path(entry, index)
            if (fault := _fault(entry.rule, inhibition.rule, rules)) is not None:
                yield entry.finding("R026", *fault, path)
            elif unlike := _unlike(entry.rule, inhibition, rules[inhibition.rule]):
                yield entry.finding("R027", *unlike, path)


def _path(entry: Entry, index: int) -> Path:
    listed: Path = ("alert", "inhibited_by", index)
    return listed if (*entry.path, *listed) in entry.document.values else listed[:-1]


def _inhibitions(rule: Rule) -> tuple[Inhibition, ...]:
    return rule.alert.course.inhibited_by if rule.alert is not None else ()


def _fault(rule: Rule, cause: str, rules: Mapping[str, Rule]) -> tuple[str, str] | None:
    """Why a rule cannot be the cause of another one, and what mends it."""
    if cause not in rules:
        others = [name for name in rules if name != rule.id]
        return f"there is no rule {cause!r}", did_you_mean(cause, others) or "the id of a rule, of any file"
    if cause == rule.id:
        return "the rule would keep itself quiet", "name the rule of the cause"
    if rules[cause].alert is None or rules[cause].mode is not Mode.LIVE:
        return f"rule {cause!r} alerts nobody: no group of it is ever open", f"give {cause!r} an alert"
    if (chain := _back(rule.id, cause, rules)) is not None:
        return f"they would keep each other quiet: {' by '.join(chain)}", "leave the symptom out at the cause"
    return None


def _back(start: str, cause: str, rules: Mapping[str, Rule]) -> list[str] | None:
    """The way from a rule by its causes back to it, when it leads through this one."""
    ways = [[start, cause]]
    seen = {cause}
    while ways:
        way = ways.pop()
        for each in _inhibitions(rules[way[-1]]):
            if each.rule == start:
                return [*way, start]
            if each.rule in rules and each.rule not in seen:
                seen.add(each.rule)
                ways.append([*way, each.rule])
    return None


def _unlike(rule: Rule, inhibition: Inhibition, cause: Rule) -> tuple[str, str] | None:
    """A label to be equal that groups of one of the rules may have several values of: only the newest would count."""
    for label in inhibition.equal:
        for each in (rule, cause):
            grouped = each.alert.group_by if each.alert is not None else ()
            if label not in grouped:
                return (
                    f"a group of {each.id!r} can have several values of {label!r}: it is not in its group_by",
                    f"add {label} to alert.group_by of {each.id!r}, or take it out here",
                )
    return None
