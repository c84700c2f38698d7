"""What changes between two replays of the same stories: counted, summed by rule, and some of it one by one. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from triage.backtest.recorded import Recorded, Ruling
from triage.backtest.replay import Absence, Deed, Replayed
from triage.envelope import Outcome
from triage.stores.records import instant_of

Deeds = Counter[Deed]


@dataclass(frozen=True, slots=True)
class Change:
    """One envelope that is decided in another way; without a decision where it is the result of a re-run not made."""

    request_id: str
    received_at: datetime
    function: str
    before: Replayed
    after: Replayed


@dataclass(frozen=True, slots=True)
class Defect:
    """A decision that the rules it was made by do not give again. There must be none."""

    request_id: str
    rule_set: str
    recorded: Ruling
    again: Ruling


@dataclass(slots=True)
class Report:
    """Sums over many stories; reports about different stories add up (`merge`).

    Attributes:
        limit: most changes and defects that are kept one by one.
        unkept: results by the digest of rules that are not kept or can no longer be read; taken as recorded.
        by_rule: what changes, by the rules that decide before and after: how many decisions, and the deeds after less
            those before. What is in parentheses is no rule but the reason there is none.
        open_ends: re-runs that only the rules after would make, so that no outcome is recorded.
        not_made: re-runs that only the rules before made; ``healed`` of them succeeded in the end.
        left_out: results of re-runs that are not decided under the rules after, and why.
        silenced: alerts on record that silences kept from everybody; silences are no part of a replay.
        unrecorded: decisions under the rules after that wanted a value which was not recorded.
        owners: of the rules after, by their ids.
    """

    limit: int = 20
    stories: int = 0
    unkept: Counter[str] = field(default_factory=Counter)
    changed: int = 0
    by_rule: dict[tuple[str, str], tuple[int, Deeds]] = field(default_factory=dict)
    open_ends: int = 0
    not_made: int = 0
    healed: int = 0
    unrecorded: int = 0
    silenced: int = 0
    left_out: Counter[Absence] = field(default_factory=Counter)
    owners: Mapping[str, str] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    defective: int = 0
    defects: list[Defect] = field(default_factory=list)
    # Counted together, as there are few different ones: counting each by itself costs more than the comparison.
    _covered: Counter[tuple[str, Outcome]] = field(default_factory=Counter)
    _before: Counter[tuple[Deed, ...]] = field(default_factory=Counter)
    _after: Counter[tuple[Deed, ...]] = field(default_factory=Counter)
    _unchanged: Counter[tuple[Deed, ...]] = field(default_factory=Counter)
    _first: str = ""
    _last: str = ""

    @property
    def envelopes(self) -> int:
        """Results in all."""
        return self._covered.total()

    @property
    def failures(self) -> int:
        """Results that are failures."""
        return sum(count for (_, outcome), count in self._covered.items() if outcome is Outcome.FAILED)

    @property
    def rule_sets(self) -> Counter[str]:
        """Results by the digest of the rules they were decided by."""
        sums: Counter[str] = Counter()
        for (digest, _), count in self._covered.items():
            sums[digest] += count
        return sums

    @property
    def first(self) -> datetime | None:
        """When the first of them was received."""
        return instant_of(self._first) if self._first else None

    @property
    def last(self) -> datetime | None:
        """When the last of them was received."""
        return instant_of(self._last) if self._last else None

    @property
    def before(self) -> Deeds:
        """All that is done under the rules before."""
        return _sum(self._unchanged, self._before)

    @property
    def after(self) -> Deeds:
        """All that is done under the rules after."""
        return _sum(self._unchanged, self._after)

    def add(self, story: Sequence[Recorded], before: Sequence[Replayed], after: Sequence[Replayed]) -> None:
        """Count one story, replayed twice."""
        self.stories += 1
        for item, old, new in zip(story, before, after, strict=True):
            self._covered[item.rule_set, item.outcome] += 1
            at = item.received_at
            if at < self._first or at > self._last:
                self._span(at, at)
            if old is new or _same(old, new):
                self._unchanged[old.deeds] += 1
            else:
                self._change(item, old, new)
            self.unrecorded += new.unrecorded
            if new.absence is not None and old.absence is None:
                self.left_out[new.absence] += 1
            if new.open_end and not old.open_end:
                self.open_ends += 1
        if before is not after:
            self._count_not_made(story, before, after)

    def disagree(self, item: Recorded, again: Ruling) -> None:
        """Count a decision that is not given again by its own rules."""
        self.defective += 1
        if len(self.defects) < self.limit:
            self.defects.append(Defect(item.request_id, item.rule_set, item.ruling, again))

    def merge(self, other: Report) -> None:
        """Add a report about stories that come after these."""
        for name in ("stories", "changed", "open_ends", "not_made", "healed", "unrecorded", "silenced", "defective"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("unkept", "left_out", "_covered", "_before", "_after", "_unchanged"):
            getattr(self, name).update(getattr(other, name))
        if other.stories:
            self._span(other._first, other._last)
        for rules, (count, deeds) in other.by_rule.items():
            self._add_up(rules, count, deeds)
        self.changes = [*self.changes, *other.changes][: self.limit]
        self.defects = [*self.defects, *other.defects][: self.limit]

    def _span(self, first: str, last: str) -> None:
        if first < self._first or not self._first:
            self._first = first
        self._last = max(self._last, last)

    def _change(self, item: Recorded, old: Replayed, new: Replayed) -> None:
        self._before[old.deeds] += 1
        self._after[new.deeds] += 1
        self.changed += 1
        difference = Counter(new.deeds)
        difference.subtract(old.deeds)
        self._add_up((taker(old), taker(new)), 1, difference)
        if len(self.changes) < self.limit:
            received_at = instant_of(item.received_at)
            self.changes.append(Change(item.request_id, received_at, item.function, old, new))

    def _add_up(self, rules: tuple[str, str], count: int, deeds: Deeds) -> None:
        known, sums = self.by_rule.get(rules, (0, Counter()))
        sums.update(deeds)
        self.by_rule[rules] = (known + count, sums)

    def _count_not_made(self, story: Sequence[Recorded], before: Sequence[Replayed], after: Sequence[Replayed]) -> None:
        for index, new in enumerate(after):
            if new.absence is Absence.NOT_MADE and before[index].absence is None:
                self.not_made += 1
                self.healed += _healed(story[index:])
                return


def _same(old: Replayed, new: Replayed) -> bool:
    if old.ruling is None or new.ruling is None:
        return old.ruling is new.ruling and old.absence is new.absence
    return old.ruling.does_as(new.ruling) and old.told_later == new.told_later


def effects_of(ruling: Ruling) -> list[dict[str, Any]]:
    """The effects of a stored decision."""
    effects: list[dict[str, Any]] = json.loads(ruling.effects)
    return effects


def told_by(ruling: Ruling) -> list[tuple[str, list[str]]]:
    """The rules whose alerts a stored decision tells, or would in shadow mode, and the receivers of each."""
    shadows = [(shadow["rule"], shadow["effects"]) for shadow in json.loads(ruling.shadow)]
    return [
        (effect.get("rule", rule), effect["to"])
        for rule, effects in [(ruling.rule_id, effects_of(ruling)), *shadows]
        for effect in effects
        if effect["kind"] == "alert"
    ]


def alike(one: Ruling, other: Ruling) -> bool:
    """Whether two decisions are the same, whoever is told."""
    first, second = ([json.loads(text, object_hook=_untold) for text in ruling[2:]] for ruling in (one, other))
    return one[:2] == other[:2] and first == second


def _untold(effect: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in effect.items() if name != "to"}


def _sum(*counted: Counter[tuple[Deed, ...]]) -> Deeds:
    sums: Deeds = Counter()
    for each in counted:
        for deeds, count in each.items():
            for deed in deeds:
                sums[deed] += count
    return sums


def taker(replayed: Replayed) -> str:
    """The rule that decides, or in parentheses why there is none."""
    if replayed.ruling is None:
        return f"({replayed.absence})"
    return replayed.ruling.rule_id or f"({replayed.ruling.reason})"


def _healed(rest: Iterable[Recorded]) -> bool:
    """Whether a re-run succeeded. An ambiguous result did, unless an alert followed it."""
    return any(
        item.ruling.reason == "healed" or (item.ruling.reason == "ambiguous" and not item.later) for item in rest
    )


def as_json(report: Report) -> dict[str, Any]:
    """The report with stable names, for programs."""
    return {
        "covered": {
            "envelopes": report.envelopes,
            "failures": report.failures,
            "stories": report.stories,
            "first": report.first,
            "last": report.last,
            "rule_sets": dict(report.rule_sets),
        },
        "changed": report.changed,
        "unchanged": report.envelopes - report.changed,
        "before": _deeds_json(report.before),
        "after": _deeds_json(report.after),
        "by_rule": [
            {
                "before": before,
                "after": after,
                "owner": report.owners.get(after, ""),
                "decisions": count,
                **_deeds_json(deeds),
            }
            for (before, after), (count, deeds) in ranked(report)
        ],
        "changes": [
            {
                "request_id": change.request_id,
                "received_at": change.received_at,
                "function": change.function,
                "before": _replayed_json(change.before),
                "after": _replayed_json(change.after),
            }
            for change in report.changes
        ],
        "not_known": {
            "reruns_without_outcome": report.open_ends,
            "reruns_not_made": report.not_made,
            "of_them_had_succeeded": report.healed,
            "results_left_out": {str(absence): count for absence, count in report.left_out.items()},
            "values_not_recorded": report.unrecorded,
            "alerts_silenced": report.silenced,
            "rule_sets_not_kept": dict(report.unkept),
        },
        "defects": {
            "decisions": report.defective,
            "first": [
                {
                    "request_id": defect.request_id,
                    "rule_set": defect.rule_set,
                    "recorded": ruling_json(defect.recorded),
                    "again": ruling_json(defect.again),
                }
                for defect in report.defects
            ],
        },
    }


def ranked(report: Report) -> list[tuple[tuple[str, str], tuple[int, Deeds]]]:
    """What changes by rule, the most first."""
    return sorted(report.by_rule.items(), key=lambda item: (-item[1][0], item[0]))


def _deeds_json(deeds: Deeds) -> dict[str, Any]:
    alerts = {receiver: count for (kind, receiver), count in sorted(deeds.items()) if kind == "alert"}
    kinds = {"reruns": "rerun", "held": "hold", "ignored": "ignore"}
    return {**{name: deeds[kind, ""] for name, kind in kinds.items()}, "alerts": alerts}


def _replayed_json(replayed: Replayed) -> dict[str, Any] | None:
    told = {"told_later": list(replayed.told_later)} if replayed.told_later else {}
    return {**ruling_json(replayed.ruling), **told} if replayed.ruling else {"absence": str(replayed.absence)}


def ruling_json(ruling: Ruling) -> dict[str, Any]:
    """A stored decision with stable names."""
    rule = {"reason": ruling.reason, "rule": ruling.rule_id, "effects": effects_of(ruling)}
    also = json.loads(ruling.also)
    return {**rule, "also": also} if also else rule
