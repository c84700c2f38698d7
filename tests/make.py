"""Values that many tests need, with everything that does not matter filled in."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from triage.changes import NewRow
from triage.envelope import Destination, Envelope, parse_body
from triage.facts import Arrival, arrival
from triage.rules.model import ABOUT_FAILURES, AlertPolicy, Cause, Matcher, Place, RerunPolicy, Rule, RuleSet
from triage.states import RowState
from triage.views import OutboxRow

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ARN = "acs:fc:cn-hangzhou:1034354682:functions/my-fc-job"


def body(
    request_id: str = "1-670648a1-15197d0b-d07710222f9d",
    *,
    arn: str = ARN,
    condition: str = "InvocationError",
    function_error: str | None = None,
    error: object = "Function timed out after 60 seconds (maxMemoryUsage: 8MB)",
    payload: str = '{"failure":true}',
    status: int = 200,
    **extra: object,
) -> bytes:
    """A destination message as FC writes it."""
    message = {
        "timestamp": 1728465119433,
        "requestContext": {
            "requestId": request_id,
            "functionArn": arn,
            "condition": condition,
            "approximateInvokeCount": 2,
        },
        "requestPayload": payload,
        "responseContext": {
            "statusCode": status,
            "functionError": condition if function_error is None else function_error,
        },
        "responsePayload": json.dumps({"errorMessage": error}) if condition else "{}",
        **extra,
    }
    return json.dumps(message).encode()


def envelope(request_id: str = "r1", *, destination: Destination = Destination.BOTH, **fields: object) -> Envelope:
    return parse_body(body(request_id, **fields), destination=destination)


def success(request_id: str = "r1", *, destination: Destination = Destination.SUCCESS, **fields: object) -> Envelope:
    return envelope(request_id, destination=destination, condition="", **fields)


def arrived(what: Envelope | None = None, *, at: datetime = NOW, source: str = "local") -> Arrival:
    return arrival(what or envelope(), source=source, message_id="m1", received_at=at, enqueued_at=at)


def matcher(name: str, value: object) -> Matcher:
    return Matcher(name, f"{name}: {value}", lambda subject: subject[name] == value)


QUIET = ABOUT_FAILURES - {Cause.FAILED}


def rule(
    rule_id: str = "again",
    *,
    rerun: RerunPolicy | None = None,
    alert: AlertPolicy | None = None,
    ignore: str | None = None,
    when: object = None,
    more: dict[str, object] | None = None,
    **match: object,
) -> Rule:
    return Rule(
        id=rule_id,
        place=Place("rules.yaml", 1),
        match=tuple(matcher(name, value) for name, value in match.items()),
        when=when,
        rerun=rerun,
        alert=alert,
        ignore=ignore,
        **(more or {}),
    )


def rules(*items: Rule) -> RuleSet:
    return RuleSet(rules=items, digest="digest-of-rules")


RERUN = RerunPolicy(max_attempts=2, give_up_after=timedelta(hours=6), after=timedelta(minutes=2), jitter=0.0)
ALERT = AlertPolicy(on=QUIET)


def claimed(new: NewRow, *, state: RowState = RowState.PENDING, attempts: int = 1, **payload: object) -> OutboxRow:
    """An outbox row as if it had been written and claimed."""
    return OutboxRow(
        id=1,
        key=new.key,
        kind=new.kind,
        state=state,
        due_at=new.due_at,
        payload={**new.payload, **payload},
        root=new.root,
        group=new.group,
        attempts=attempts,
        interrupted=False,
        token="token",
    )
