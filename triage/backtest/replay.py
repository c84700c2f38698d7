"""Decide stored failures again, under any rule set. Pure.

A *story* is a failure with all the results of its re-runs, in the order they were decided. It is replayed as a whole,
because a result only came if the rules had asked for the re-run. Time is virtual: each decision sees the instant it was
made at, and a result comes as much later as the rules under test would have run it later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import takewhile
from typing import Any, Final

from triage.backtest.recorded import Recorded, Ruling, Values
from triage.decide import DEFAULT_ALERT, Alert, Decision, Hold, Rerun, Resolve, decide_by
from triage.envelope import Outcome
from triage.rules.document import read_document
from triage.rules.match import matching_of
from triage.rules.model import AlertPolicy, Candidate, Cause, Match, Rule, RuleSet, SourceText, kind_of


class Absence(StrEnum):
    """Why a stored result of a re-run is not decided in a replay."""

    NOT_MADE = "not_made"  # the rules would not have made that re-run
    UNKNOWN = "unknown"  # they would have re-run where nothing was re-run, so what followed says nothing


Deed = tuple[str, str]
"""Something done: its kind (rerun, alert, hold, ignore, resolve), and for an alert the receiver."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """A decision made again, or why it is not.

    Attributes:
        deeds: what it does; what is told later because of how a re-run or hold ended counts, too.
        told_later: receivers of the alerts that follow from how the recorded re-run or hold ended.
        open_end: a re-run of which no outcome is recorded.
        unrecorded: a rule wanted to know something that was not recorded, because no rule mentioned it then.
        stopped_at: the rule at which the search ended, by its id: rules after it had no say.
    """

    ruling: Ruling | None
    absence: Absence | None = None
    deeds: tuple[Deed, ...] = ()
    told_later: tuple[str, ...] = ()
    open_end: bool = False
    unrecorded: bool = False
    stopped_at: str = ""


_NO_SHIFT: Final = timedelta(0)
_FAILED: Final = Outcome.FAILED


def replay(story: Sequence[Recorded], rules: Sequence[Asked]) -> list[Replayed]:
    """Decide a story again, each result by its rules; by those it was decided by, the outcome is what is recorded.

    What each decision saw is taken from the record, since most of it (the group's count, say) does not depend on the
    rules. Where they re-run at another time, the result comes as much later or earlier. Where they do not re-run at
    all, or re-run where nothing was re-run, the rest of the story is left out.
    """
    replayed: list[Replayed] = []
    shift = _NO_SHIFT
    absence: Absence | None = None
    for item, asked in zip(story, rules, strict=True):
        if absence is not None:
            replayed.append(Replayed(None, absence))
            continue
        match = matching_of(asked.candidates, Values(item, shift))
        again = asked.known(match, item)
        if again is not None:
            absence = Absence.NOT_MADE if item.planned is not None else None
            replayed.append(again)
            continue
        now = item.now + shift
        decision = decide_by(match, item.facts, request_id=item.request_id, outcome=item.outcome, now=now)
        ruling = Ruling.of(decision)
        planned = _planned(decision)
        if ruling.effects == item.effects:
            # Most decisions: the same re-run, at the same time.
            shift = _NO_SHIFT if planned is not None else shift
        else:
            recorded = item.planned
            if planned is not None and recorded is not None and planned[0] == recorded[0]:
                shift = planned[1] - recorded[1]
            elif planned is not None:
                absence = Absence.UNKNOWN
            elif recorded is not None:
                absence = Absence.NOT_MADE
        told_later = _told_later(decision, item.later) if item.causes and absence is None else ()
        again = Replayed(
            ruling=ruling,
            deeds=_deeds(decision, item.outcome, told_later),
            told_later=told_later,
            open_end=absence is Absence.UNKNOWN,
            unrecorded=any(clause.actual.endswith(_UNRECORDED) for clause in match.errors),
            stopped_at=match.rules[-1].id if match.rules and not match.rules[-1].continues else "",
        )
        asked.learn(match, item, again)
        replayed.append(again)
    return replayed


def as_recorded(item: Recorded) -> Replayed:
    """The decision as it was made, for want of the rules that made it."""
    effects = json.loads(item.effects)
    deeds = tuple((effect["kind"], receiver) for effect in effects for receiver in effect.get("to", ("",)))
    return Replayed(item.ruling, deeds=deeds or _idle(item.outcome))


class Asked:
    """Rules that may match results of one kind, with the decisions that follow from nothing but which of them match.

    Those are decisions about failures by rules that neither re-run nor hold: no time and no attempt is in them.
    """

    __slots__ = ("_common", "_known", "candidates")

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.candidates = candidates
        self._known: dict[tuple[int, ...], Replayed] = {}
        self._common: dict[int, frozenset[str]] = {}

    def known(self, match: Match, item: Recorded) -> Replayed | None:
        """The decision, if it was made before."""
        if item.outcome is not _FAILED or match.shadow or match.errors:
            return None
        return self._known.get(tuple(map(id, match.rules)))

    def learn(self, match: Match, item: Recorded, decision: Replayed) -> None:
        """Remember a decision, if it follows from the match alone."""
        if item.outcome is not _FAILED or match.shadow or match.errors:
            return
        if not any(rule.rerun or rule.hold for rule in match.rules):
            self._known[tuple(map(id, match.rules))] = decision

    def settles(self, replayed: Replayed, other: Asked) -> bool:
        """Whether a decision by these rules is that of the others for sure: the search ended before they differ."""
        if replayed.ruling is None:
            return True
        common = self._common.get(id(other))
        if common is None:
            pairs = zip(self.candidates, other.candidates, strict=False)
            same = takewhile(lambda pair: pair[0].rule is pair[1].rule, pairs)
            common = self._common[id(other)] = frozenset(one.rule.id for one, _ in same)
        return replayed.stopped_at in common


_UNRECORDED: Final = "was not recorded with this decision"
"""How the text of `triage.facts.Unrecorded` ends."""


def _deeds(decision: Decision, outcome: Outcome, told_later: Iterable[str]) -> tuple[Deed, ...]:
    deeds: list[Deed] = []
    for effect in decision.effects:
        if isinstance(effect, Alert):
            deeds += [("alert", receiver) for receiver in effect.policy.to]
        else:
            deeds.append((_KINDS[type(effect)], ""))
    deeds += [("alert", receiver) for receiver in told_later]
    return tuple(deeds) or _idle(outcome)


_KINDS: Final = {Rerun: "rerun", Hold: "hold", Resolve: "resolve"}


def _idle(outcome: Outcome) -> tuple[Deed, ...]:
    return (("ignore", ""),) if outcome is _FAILED else ()


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


_MOST_KINDS: Final = 20_000


class Shortlist:
    """A rule set that remembers, for each kind of result, which of its rules can match at all."""

    def __init__(self, rules: RuleSet, pool: dict[tuple[int, ...], Asked]) -> None:
        """``pool``: shared by several, so that the same rules (see `shared`) are the same object for all of them."""
        self.rules, self._pool = rules, pool
        self._known: dict[tuple[Any, ...], Asked] = {}

    def of(self, item: Recorded) -> Asked:
        """The rules that may match such a result, depending on what else is known."""
        kind = item.kind
        if kind is None:
            return self._possible(item)
        found = self._known.get(kind)
        if found is None:
            if len(self._known) >= _MOST_KINDS:
                self._known.clear()
            found = self._known[kind] = self._possible(item)
        return found

    def _possible(self, item: Recorded) -> Asked:
        values = Values(item, _NO_SHIFT)
        candidates = self.rules.candidates(kind_of(values), values)
        return self._pool.setdefault(tuple(id(candidate.rule) for candidate in candidates), Asked(candidates))


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
