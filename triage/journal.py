"""What the log says of decisions and of acts: a line per effect, with the lineage by which they are found.

`triage lineage` and `triage failures show` tell all of it, from the store; the log tells it while it happens.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Final

from triage.changes import Commit, Decided, RowKind, Settle
from triage.decide import Alert, Effect, Hold, Reason, Rerun
from triage.log import about
from triage.states import RowState
from triage.views import OutboxRow

log = logging.getLogger(__name__)

_TOLD: Final = 16
"""Decisions of a batch that are told one by one, as long as debug is not on: a batch may hold hundreds."""

_STEPS: Final = {
    "submitted": "re-run %d of %s: %s",  # the note says it
    **{
        step: f"re-run %d of %s {step}: %s"
        for step in ("postponed", "unknown", "refused", "given_up", "succeeded", "failed", "overdue")
    },
}
_BAD: Final = frozenset({"postponed", "unknown", "refused", "given_up", "overdue"})
"""Steps of a re-run that somebody may have to do something about."""


def batch(commit: Commit) -> None:
    """Tell what came of a batch that is committed."""
    for item in commit.decided:
        for clause in item.decision.errors:
            log.warning(
                "rule %s: %s could not be evaluated: %s",
                clause.rule_id,
                clause.clause,
                clause.actual,
                extra=_about(item),
            )
    for gone in commit.quarantined:
        log.warning("%s: message %s quarantined: %s %s", gone.source, gone.message_id, gone.reason, gone.where)
    for conflict in commit.conflicts:
        request_id = conflict.envelope.request_id
        log.warning("request %s came again with another body; both are kept", request_id, extra=about(request_id))
    if log.isEnabledFor(logging.INFO):
        _decisions(commit)
    log.info(
        "batch: %d decided, %d duplicate, %d conflicting, %d quarantined",
        len(commit.decided),
        len(commit.duplicates),
        len(commit.conflicts),
        len(commit.quarantined),
    )


def _decisions(commit: Commit) -> None:
    consequential = [item for item in commit.decided if item.decision.effects or item.decision.reason is Reason.HEALED]
    told = None if log.isEnabledFor(logging.DEBUG) else _TOLD
    for item in islice(consequential, told):
        decision, function = item.decision, item.arrival.envelope.function.label
        if decision.reason is Reason.HEALED:
            attempt = decision.lineage.attempt if decision.lineage else 0
            log.info("%s succeeded: healed by re-run %d", function, attempt, extra=_about(item))
            continue
        rule = f"rule {decision.rule.id}" if decision.rule else "no rule"
        then = "; ".join(map(_effect, decision.effects))
        log.info("%s %s, %s: %s", function, item.arrival.envelope.outcome, rule, then, extra=_about(item))
    if told is not None and (more := len(consequential) - told) > 0:
        log.info("and %d more decisions of this batch; the log level debug tells each", more)


def _about(item: Decided) -> dict[str, str]:
    request_id, lineage = item.arrival.envelope.request_id, item.decision.lineage
    return about(lineage.root if lineage else request_id, request_id)


def _effect(effect: Effect) -> str:
    match effect:
        case Rerun():
            return f"re-run {effect.attempt} at {_time(effect.due_at)}"
        case Alert():
            return f"tell {', '.join(effect.policy.to)} ({effect.cause})"
        case Hold():
            return f"hold until {_time(effect.due_at)}"
    return f"ask how re-run {effect.attempt} ended"


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


_NAMED: Final = 8
"""Lineages that a line about an alert names; there may be thousands."""


def act(row: OutboxRow, settle: Settle, result: str, *, lineages: Sequence[str] = ()) -> None:
    """Tell what came of an act that is settled.

    Args:
        result: the step that a re-run has taken by it (`triage.outbox.rerun_result`), empty: none.
        lineages: roots of some of those that an alert is about.
    """
    payload = row.payload
    if result:
        level = logging.WARNING if result in _BAD else logging.INFO
        log.log(level, _STEPS[result], payload["attempt"], row.function, settle.note, extra=about(row.root))
    elif row.kind is RowKind.NOTIFY:
        delivery = "dead" if settle.state is RowState.DEAD else settle.delivery
        level = {"sent": logging.INFO, "dead": logging.ERROR}.get(delivery, logging.WARNING)
        named = {name: str(payload[name]) for name in ("code",) if name in payload}
        if lineages:
            named["lineage"] = ",".join(lineages[:_NAMED])
        log.log(
            level, "alert to %s %s: %s (%s)", payload["receiver"], delivery, payload["title"], settle.note, extra=named
        )
    elif row.kind is RowKind.HOLD and settle.changes.lineages:
        log.warning("%s: held for too long: %s", row.function, settle.note, extra=about(row.root))
