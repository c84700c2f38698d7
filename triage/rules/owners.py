"""Alerts whose rule says no receiver go to its owner's, if the configuration knows them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from triage.rules.model import UNSAID, Rule, RuleSet

Owners = Mapping[str, tuple[str, ...]]
"""Receivers by owner, as rules name it."""


def owned(rules: RuleSet, owners: Owners) -> RuleSet:
    """The same rules, with receivers where they name none."""
    return replace(rules, rules=tuple(_owned(rule, owners) for rule in rules.rules)) if owners else rules


def _owned(rule: Rule, owners: Owners) -> Rule:
    if not (to := owners.get(rule.owner, ())):
        return rule
    if rule.alert is None:
        return replace(rule, tell=to)
    return replace(rule, alert=replace(rule.alert, to=to)) if rule.alert.to is UNSAID else rule


def by_owner(current: Callable[[], RuleSet], owners: Callable[[], Owners]) -> Callable[[], RuleSet]:
    """The rules of the moment, for the owners of the moment; made anew only when either has changed."""
    made: list[tuple[RuleSet, Owners, RuleSet]] = []

    def now() -> RuleSet:
        rules, known = current(), owners()
        if not made or made[0][0] is not rules or made[0][1] is not known:
            made[:] = [(rules, known, owned(rules, known))]
        return made[0][2]

    return now
