"""Alerts whose rule says no receiver go to its owner's, if the configuration knows them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from triage.rules.model import UNSAID, Rule, RuleSet

Owners = Mapping[str, tuple[str, ...]]
"""Receivers by owner, as rules name it."""


def owned(rules: RuleSet, owners: Owners) -> RuleSet:
    """The same rules, with receivers where they name none."""
    return replace(rules, rules=tuple(_owned(rule, owners) for rule in rules.rules)) if owners else rules


def owners_then(rules: RuleSet, told: Iterable[tuple[str, Sequence[str]]]) -> Owners:
    """Whom owners' alerts went to when a decision was made, from what is on record: rules with the receivers told."""
    by_id = {rule.id: rule for rule in rules.rules}
    found = ((by_id[name], to) for name, to in told if name in by_id)
    return {
        rule.owner: tuple(to) for rule, to in found if rule.owner and (rule.alert is None or rule.alert.to is UNSAID)
    }


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
