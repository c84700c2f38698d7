"""Decide stored failures again, under any rule set. Pure.

A *story* is a failure with all the results of its re-runs, in the order they were decided. It is replayed as a whole,
because a result only came if the rules had asked for the re-run. Time is virtual: each decision sees the instant it was
made at, and a result comes as much later as the rules under test would have run it later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import takewhile
from typing import Any, Final

from triage.decide import DEFAULT_ALERT, Decision, Hold, Rerun, decide_by, match_rules
from triage.envelope import Outcome
from triage.facts import Arrival, Facts, Subject
from triage.rules.document import read_document
from triage.rules.model import AlertPolicy, Cause, Match, Rule, RuleSet, SourceText
from triage.stores.decisions import also_json, effects_json, shadow_json


@dataclass(frozen=True, slots=True)
class Ruling:
    """What was decided, as it is stored: JSON texts. Rules in shadow mode do nothing, so they are not compared."""

    reason: str
    rule_id: str
    effects: str
    also: str = "[]"
    shadow: str = field(default="[]", compare=False)

    @classmethod
    def of(cls, decision: Decision) -> Ruling:
        """How a decision is stored."""
        rule = decision.rule
        return cls(
            decision.reason.value,
            rule.id if rule else "",
            effects_json(decision.effects, rule),
            also_json(decision.also),
            shadow_json(decision.shadow),
        )

    def repeats(self, other: Ruling) -> bool:
        """Whether it is the very same decision, rules in shadow mode and all."""
        return self == other and self.shadow == other.shadow


class Absence(StrEnum):
    """Why a stored result of a re-run is not decided in a replay."""

    NOT_MADE = "not_made"  # the rules would not have made that re-run
    UNKNOWN = "unknown"  # they would have re-run where nothing was re-run, so what followed says nothing


@dataclass(frozen=True, slots=True)
class Recorded:
    """A stored envelope, what its decision saw, when it was made and by which rules (a digest), and what it was.

    Attributes:
        planned: the re-run that was decided, as attempt and due time.
        later: causes of alerts that were raised afterwards, because of how that re-run or hold ended.
    """

    arrival: Arrival
    facts: Facts
    now: datetime
    rule_set: str
    ruling: Ruling
    planned: tuple[int, datetime] | None = None
    later: tuple[Cause, ...] = ()


@dataclass(frozen=True, slots=True)
class Replayed:
    """A decision made again, or why it is not.

    Attributes:
        told_later: receivers of the alerts that follow from how the recorded re-run or hold ended.
        open_end: a re-run of which no outcome is recorded.
        unrecorded: a rule wanted to know something that was not recorded, because no rule mentioned it then.
    """

    ruling: Ruling | None
    absence: Absence | None = None
    told_later: tuple[str, ...] = ()
    open_end: bool = False
    unrecorded: bool = False
    stopped_at: str = ""
    """The rule at which the search ended, by its id: rules after it had no say."""


def replay(story: Sequence[Recorded], rules: Sequence[Asked]) -> list[Replayed]:
    """Decide a story again, each result by its rules; by those it was decided by, the outcome is what is recorded.

    What each decision saw is taken from the record, since most of it (the group's count, say) does not depend on the
    rules. Where they re-run at another time, the result comes as much later or earlier. Where they do not re-run at
    all, or re-run where nothing was re-run, the rest of the story is left out.
    """
    replayed: list[Replayed] = []
    shift = timedelta(0)
    absence: Absence | None = None
    for item, asked in zip(story, rules, strict=True):
        if absence is not None:
            replayed.append(Replayed(None, absence))
            continue
        now = item.now + shift
        match = match_rules(item.arrival, item.facts, asked.rules, now=now)
        known = asked.known(match, item)
        if known is not None:
            absence = Absence.NOT_MADE if item.planned is not None else None
            replayed.append(known)
            continue
        decision = decide_by(match, item.arrival, item.facts, now=now)
        planned = _planned(decision)
        if planned is not None and item.planned is not None and planned[0] == item.planned[0]:
            shift = planned[1] - item.planned[1]
        elif planned is not None:
            absence = Absence.UNKNOWN
        elif item.planned is not None:
            absence = Absence.NOT_MADE
        again = Replayed(
            ruling=Ruling.of(decision),
            told_later=_told_later(decision, item.later) if item.later and absence is None else (),
            open_end=absence is Absence.UNKNOWN,
            unrecorded=any(clause.actual.endswith(_UNRECORDED) for clause in match.errors),
            stopped_at=match.rules[-1].id if match.rules and not match.rules[-1].continues else "",
        )
        asked.learn(match, item, again)
        replayed.append(again)
    return replayed


class Asked:
    """Rules that may match envelopes of one kind, with the decisions that follow from nothing but which of them match.

    Those are decisions about failures by rules that neither re-run nor hold: no time and no attempt is in them.
    """

    __slots__ = ("_common", "_known", "rules")

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        self._known: dict[tuple[int, ...], Replayed] = {}
        self._common: dict[int, frozenset[str]] = {}

    def known(self, match: Match, item: Recorded) -> Replayed | None:
        """The decision, if it was made before."""
        if match.shadow or match.errors or item.arrival.envelope.outcome is not Outcome.FAILED:
            return None
        return self._known.get(tuple(map(id, match.rules)))

    def learn(self, match: Match, item: Recorded, decision: Replayed) -> None:
        """Remember a decision, if it follows from the match alone."""
        plain = not match.shadow and not match.errors and not any(rule.rerun or rule.hold for rule in match.rules)
        if plain and item.arrival.envelope.outcome is Outcome.FAILED:
            self._known[tuple(map(id, match.rules))] = decision

    def settles(self, item: Recorded, replayed: Replayed, other: Asked) -> bool:
        """Whether a decision by these rules is that of the others for sure: the search ended before they differ."""
        if replayed.ruling is None:
            return True
        common = self._common.get(id(other))
        if common is None:
            common = self._common[id(other)] = _common(self.rules, other.rules)
        if item.arrival.envelope.outcome is not Outcome.FAILED:
            return _NOTHING in common
        return replayed.stopped_at in common


_NOTHING: Final = "(nothing)"
"""Among ids of rules: results that are no failures are asked about by the same rules, mostly by none."""


def _common(one: RuleSet, other: RuleSet) -> frozenset[str]:
    """Ids of the rules that come before the first difference between two sets."""
    same = takewhile(lambda pair: pair[0] is pair[1], zip(one.rules, other.rules, strict=False))
    ids = frozenset(rule.id for rule, _ in same)
    return ids | {_NOTHING} if list(map(id, one.of_successes)) == list(map(id, other.of_successes)) else ids


_UNRECORDED: Final = "was not recorded with this decision"
"""How the text of `triage.facts.Unrecorded` ends."""


def _planned(decision: Decision) -> tuple[int, datetime] | None:
    for effect in decision.effects:
        if isinstance(effect, Rerun):
            return effect.attempt, effect.due_at
    return None


def _told_later(decision: Decision, causes: Iterable[Cause]) -> tuple[str, ...]:
    """Whom the rule would have had told of how the re-run or hold ended."""
    if not any(isinstance(effect, Rerun | Hold) for effect in decision.effects):
        return ()
    policy: AlertPolicy = (decision.rule.alert if decision.rule else None) or DEFAULT_ALERT
    return tuple(receiver for cause in causes if cause in policy.on for receiver in policy.to)


_COARSE: Final = frozenset(
    {"fn", "service", "qualifier", "region", "account", "condition", "outcome", "status_code", "function_error",
     "error.type", "source"}
)  # fmt: skip
"""Names whose values many envelopes share, and which are the envelope's own: they settle what some clauses say."""

_MOST_KINDS: Final = 20_000


class Shortlist:
    """A rule set that remembers, for each kind of envelope, which of its rules can match at all.

    Leaving out a rule one of whose clauses does not hold changes no decision: this is speed, and nothing else.
    """

    def __init__(self, rules: RuleSet, pool: dict[tuple[int, ...], Asked]) -> None:
        """``pool``: shared by several, so that the same rules (see `shared`) are the same object for all of them."""
        self.rules, self._pool = rules, pool
        self._known: dict[tuple[object, ...], Asked] = {}

    def of(self, arrival: Arrival) -> Asked:
        """The rules that may match such an envelope, depending on what else is known."""
        envelope = arrival.envelope
        kind = (
            envelope.function,
            envelope.condition,
            envelope.outcome,
            envelope.status_code,
            envelope.function_error,
            envelope.error.type,
            arrival.source,
        )
        found = self._known.get(kind)
        if found is None:
            if len(self._known) >= _MOST_KINDS:
                self._known.clear()
            found = self._known[kind] = self._possible(arrival)
        return found

    def _possible(self, arrival: Arrival) -> Asked:
        subject = Subject(arrival, Facts(), now=arrival.received_at)
        rules = tuple(
            rule
            for rule in self.rules.rules
            if all(matcher.test(subject) for matcher in rule.match if matcher.names <= _COARSE)
        )
        return self._pool.setdefault(tuple(map(id, rules)), Asked(RuleSet(rules, self.rules.digest)))


def shared(rules: RuleSet, known: RuleSet) -> RuleSet:
    """The same rule set, with the rules of ``known`` in the place of those that are written in the same way.

    What is written beside the rules (defaults, named conditions, windows) must be the same in all files of one name.
    """
    (beside, texts), (known_beside, known_texts) = _written(rules.sources), _written(known.sources)
    if any(known_beside.get(name, text) != text for name, text in beside.items()):
        return rules
    same = {(rule.place.file, rule.id, rule.mode): rule for rule in known.rules}

    def replaced(rule: Rule) -> Rule:
        key = (rule.place.file, rule.id)
        return same.get((*key, rule.mode), rule) if texts[key] == known_texts.get(key) else rule

    return RuleSet(tuple(map(replaced, rules.rules)), rules.digest, rules.sources)


def _written(sources: Sequence[SourceText]) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """What stands in each rule file beside the rules, and the text of each rule by file and id, all as JSON."""
    beside: dict[str, str] = {}
    texts: dict[tuple[str, str], str] = {}
    for source in sources:
        document, _ = read_document(source)
        content: dict[str, Any] = {} if document is None else dict(document.value(()))
        for rule in content.pop("rules", ()):
            texts[source.name, rule["id"]] = json.dumps(rule, sort_keys=True)
        beside[source.name] = json.dumps(content, sort_keys=True)
    return beside, texts
