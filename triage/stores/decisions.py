"""Decisions as rows and back: what was decided, and what deciding saw, so that it can be decided again. Pure, and the
same for every store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from triage.changes import Decided
from triage.decide import Alert, Effect, Hold, Rerun, Shadow
from triage.envelope import Destination, Outcome, RequestId, parse_body
from triage.errors import TriageError
from triage.facts import NO_LABELS, Arrival, Facts, GroupFacts, Lineage
from triage.reruns.event import Unfit
from triage.rules.model import Rule
from triage.states import State
from triage.stores import FailureDetail
from triage.stores.records import Record, instant, instant_of, json_text

DECISION: Final = (
    "request_id", "decided_at", "reason", "rule_id", "rule_set", "facts", "effects", "also", "shadow",
)  # fmt: skip
"""``also`` names the other rules that applied; ``shadow`` what those in shadow mode would have done."""

GROUP_FACTS: Final = ("first_seen", "count", "last_seen", "back_since")

LINEAGE_FACTS: Final = ("root", "state", "attempt", "started_at", "rule_id", "version", "manual")


def decision_record(decided: Decided, *, now: datetime, rule_set: str) -> Record:
    """Values of `DECISION`."""
    decision = decided.decision
    return (
        decided.arrival.envelope.request_id,
        instant(now),
        decision.reason.value,
        decision.rule.id if decision.rule else "",
        rule_set,
        facts_json(decision.facts, decided.arrival.labels, now=now),
        effects_json(decision.effects, decision.rule),
        also_json(decision.also),
        shadow_json(decision.shadow),
    )


def facts_json(facts: Facts, labels: Mapping[str, str], *, now: datetime) -> str:
    """What deciding saw beside the envelope, enough to decide again (`recall`)."""
    group = lineage = "null"
    more = f',"labels":{json_text(labels)}' if labels else ""
    if facts.attempt is not None:
        more += f',"attempt":{facts.attempt}'
    if facts.elsewhere:
        more += ',"elsewhere":true'
    if facts.apart:
        more += f',"apart":{json_text(facts.apart)}'
    if facts.unfit is not None:
        more += f',"unfit":"{facts.unfit}"'
    if facts.group is not None:
        known = facts.group
        recent = "" if known.recent is None else f',"recent":{list(known.recent)}'
        group = (
            f'{{"first_seen":"{instant(known.first_seen)}","count":{known.count},"last_seen":"{instant(known.last_seen)}"'
            f',"back_since":"{instant(known.back_since)}"{recent}}}'
        )
    if facts.lineage is not None:
        lineage = json_text(dict(zip(LINEAGE_FACTS, lineage_record(facts.lineage), strict=True)))
    return f'{{"now":"{instant(now)}","lineage":{lineage},"group":{group}{more}}}'


def effects_json(effects: Sequence[Effect], rule: Rule | None) -> str:
    """What was decided, as stored; equal texts are equal decisions. Alerts of other rules than ``rule`` name theirs."""
    if len(effects) == 1 and isinstance(rerun := effects[0], Rerun):
        # Most of them, and nothing in it needs an escape.
        due_at = instant(rerun.due_at)
        return f'[{{"kind":"rerun","task_id":"{rerun.task_id}","attempt":{rerun.attempt},"due_at":"{due_at}"}}]'
    return json_text([_effect(effect, rule) for effect in effects]) if effects else "[]"


def also_json(also: Sequence[Rule]) -> str:
    """The other rules that applied, as stored."""
    return json_text([rule.id for rule in also]) if also else "[]"


def shadow_json(shadow: Sequence[Shadow]) -> str:
    """What rules in shadow mode would have done, as stored."""
    return json_text([_shadow(each) for each in shadow]) if shadow else "[]"


def _shadow(shadow: Shadow) -> dict[str, Any]:
    effects = [_effect(effect, shadow.rule) for effect in shadow.effects]
    return {"rule": shadow.rule.id, "reason": shadow.reason.value, "effects": effects}


def _effect(effect: Effect, rule: Rule | None) -> dict[str, Any]:
    # The policies are in the rule set, which is kept.
    match effect:
        case Rerun():
            due = instant(effect.due_at)
            return {"kind": "rerun", "task_id": effect.task_id, "attempt": effect.attempt, "due_at": due}
        case Alert():
            policy = effect.policy
            to = list(policy.to)
            told = {"kind": "alert", "cause": effect.cause.value, "to": to, "severity": policy.severity.value}
            return told if effect.rule is rule or effect.rule is None else {**told, "rule": effect.rule.id}
        case Hold():
            return {"kind": "hold", "reason": effect.policy.reason, "due_at": instant(effect.due_at)}
    return {"kind": "resolve", "task_id": effect.task_id, "attempt": effect.attempt}


def recall(detail: FailureDetail) -> tuple[Arrival, Facts, datetime]:
    """The arguments a stored decision was made from (the rule set is kept under the decision's ``rule_set``)."""
    labels = detail.decision["facts"].get("labels", NO_LABELS)
    stored = {**detail.envelope, "body": detail.envelope["body"].encode()}
    return (arrival_of(stored, labels=labels), *facts_of(detail.decision["facts"]))


def arrival_of(stored: Mapping[str, Any], *, labels: Mapping[str, str] = NO_LABELS) -> Arrival:
    """An envelope as it came, from the values of `triage.stores.records.ENVELOPE`.

    Raises:
        TriageError: its message is past its retention.
    """
    if not stored["body"]:
        raise TriageError(f"the message of {stored['request_id']} is gone: it is past [retention] failures")

    role = {Outcome.FAILED.value: Destination.FAILURE, Outcome.SUCCEEDED.value: Destination.SUCCESS}
    return Arrival(
        envelope=parse_body(stored["body"], destination=role.get(stored["outcome"], Destination.BOTH)),
        source=stored["source"],
        message_id=stored["message_id"],
        received_at=instant_of(stored["received_at"]),
        enqueued_at=instant_of(stored["enqueued_at"]) if stored["enqueued_at"] else None,
        fingerprint=stored["fingerprint"],
        labels=labels,
    )


def facts_of(value: Mapping[str, Any]) -> tuple[Facts, datetime]:
    """Undo `facts_json`: what deciding saw, and when."""
    lineage = value["lineage"] and lineage_of([value["lineage"][name] for name in LINEAGE_FACTS])
    group = None
    if (known := value["group"]) is not None:
        recent = tuple(known["recent"]) if "recent" in known else None
        group = group_facts([known[name] for name in GROUP_FACTS], recent=recent)
    unfit = Unfit(value["unfit"]) if "unfit" in value else None
    facts = Facts(
        lineage=lineage,
        group=group,
        attempt=value.get("attempt"),
        unfit=unfit,
        elsewhere=value.get("elsewhere", False),
        apart=value.get("apart", ""),
    )
    return facts, instant_of(value["now"])


def group_facts(row: Sequence[Any], *, recent: tuple[float, ...] | None) -> GroupFacts:
    """A failure group from the values of `GROUP_FACTS`."""
    first_seen, count, last_seen, back_since = row
    return GroupFacts(instant_of(first_seen), count, instant_of(last_seen), instant_of(back_since), recent)


def lineage_record(lineage: Lineage) -> Record:
    """Values of `LINEAGE_FACTS`."""
    started_at = instant(lineage.started_at)
    state, rule_id = lineage.state.value, lineage.rule_id
    return (lineage.root, state, lineage.attempt, started_at, rule_id, lineage.version, lineage.manual)


def lineage_of(row: Sequence[Any]) -> Lineage:
    """A lineage from the values of `LINEAGE_FACTS`."""
    root, state, attempt, started_at, rule_id, version, manual = row
    return Lineage(RequestId(root), State(state), attempt, instant_of(started_at), rule_id, version, manual)
