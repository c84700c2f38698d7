"""The way of a drill through a daemon that runs: sent to its source, and then looked for in its store, hop by hop."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from triage.alerts.acks import acknowledged
from triage.clock import SystemClock, token
from triage.drills import Drill, drill_id
from triage.errors import Permanent, Temporary, TriageError
from triage.outbound import Guard
from triage.settings import LocalSource, Settings, SmqSource
from triage.states import State

if TYPE_CHECKING:
    from triage.stores import FailureDetail
    from triage.stores.sqlite import SqliteStore

Value = TypeVar("Value")

_LOOK: Final = timedelta(milliseconds=50)
_FUNCTION: Final = "triage-drill"
_TYPE, _ERROR = "DRILL", "This is a drill: nothing has failed."


@dataclass(frozen=True, slots=True)
class Hop:
    """A place that the drill has come to; ``at`` by whoever was there."""

    name: str
    at: datetime
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is wanted of a drill.

    Attributes:
        function: name of the function that it claims to be of.
        like: the stored failure that it looks like; empty: none.
        ack: it acknowledges itself.
    """

    by: str
    timeout: timedelta
    to: str = ""
    source: str = ""
    function: str = _FUNCTION
    like: str = ""
    rerun: bool = False
    ack: bool = False


class Stuck(TriageError):
    """The drill has come to a place that it cannot leave."""


Tell = Callable[[Hop], None]


@dataclass(slots=True)
class Course:
    """Where the drill is. ``awaited`` names the hop that comes next, for whoever runs out of patience."""

    store: SqliteStore
    settings: Settings
    plan: Plan
    tell: Tell
    root: str = ""
    awaited: str = "queued"
    clock: SystemClock = field(default_factory=SystemClock)

    async def run(self) -> str:
        """Go all the way; what keeps it from its end, empty when it has come there."""
        try:
            async with asyncio.timeout(self.plan.timeout.total_seconds()):
                await self._go()
        except TimeoutError:
            return f"{self.awaited}: did not come within the time. {await self._why()}".strip()
        except (Stuck, Temporary, Permanent) as error:
            return f"{self.awaited}: {error}"
        return ""

    async def _go(self) -> None:
        now = self.clock.now()
        # The name has no finer time than seconds, and the daemon's clock may be another one.
        name = drill_id(now + self.plan.timeout + timedelta(seconds=1), token()[:16])
        self.root = name
        body = await self._body(now)
        drill = Drill(name, hashlib.sha256(body).hexdigest(), self.plan.by, now, to=self.plan.to, rerun=self.plan.rerun)
        await self.store.expect_drill(drill)  # first: what is not expected is quarantined
        source = await self._send(body)
        self._at("queued", self.clock.now(), f"{self.root} into {source}", then="received")
        detail = await self._look(lambda detail: detail)
        seen = self.clock.now()
        self._at("received", _at(detail.envelope["received_at"]), f"by source {detail.envelope['source']}")
        self._at("decided", _at(detail.decision["decided_at"]), _decision(detail))
        self._at("committed", seen, "by then; another process sees it in the store", then="held and re-run")
        if _effect(detail, "rerun"):
            await self._rerun()
        elif _effect(detail, "hold"):
            self._at("held", _at(detail.decision["decided_at"]), "until a person decides; a drill does not ask one")
        self.awaited = "flushed"
        group, sent = await self._until(self._flushed)
        self._at("flushed", _at(sent["created_at"]), sent["payload"]["title"], then="sent")
        delivery = await self._until(self._sent)
        self._at("sent", _at(delivery["at"]), f"{delivery['receiver']}: {delivery['note']}", then="acknowledged")
        await self._acknowledge(group, sent["payload"]["code"])

    def _at(self, name: str, at: datetime, detail: str = "", *, then: str = "") -> None:
        self.tell(Hop(name, at, detail))
        self.awaited = then or self.awaited

    async def _body(self, now: datetime) -> bytes:
        if self.plan.like:
            detail = await self.store.failure(self.plan.like)
            if detail is None or not detail.envelope["body"]:
                raise Stuck(f"no envelope of {self.plan.like!r} is stored, or its message is past its retention")
            return _renamed(detail.envelope["body"].encode(), self.root)
        return sample(self.root, self.plan.function, self.settings.fc.region, self.settings.fc.account, now)

    async def _send(self, body: bytes) -> str:
        source = source_of(self.settings, self.plan.source)
        match source:
            case LocalSource():
                await _put(self.settings, source, body, clock=self.clock)
            case SmqSource():
                await _post(self.settings, source, body, clock=self.clock)
        return f"{source.type} queue {source.queue} (source {source.name})"

    async def _rerun(self) -> None:
        row = await self._look(lambda detail: _settled(detail, "rerun"))
        if not self.plan.rerun:
            self._at("held and re-run", _at(row["settled_at"]), row["note"])
            return
        self._at("re-run submitted", _at(row["settled_at"]), row["note"], then="the result of the re-run")
        result = await self._look(_result)
        self._at("re-run's result", _at(result["received_at"]), f"request {result['request_id']}")
        if (await self._look(lambda detail: detail)).row.state == State.HEALED:
            raise Stuck("the function succeeded, so there is nothing to tell; try one that fails")

    async def _flushed(self) -> tuple[str, Any] | None:
        detail = await self._look(lambda detail: detail)
        if detail.row.state == State.IGNORED:
            rule = detail.row.rule_id
            raise Stuck(f"by rule {rule!r} nobody is told of such a failure; choose another one with --like")
        for alert in detail.lineage["alerts"] if detail.lineage else ():
            for sent in (await self.store.alert_group(alert["group_key"])).sent:
                return alert["group_key"], sent
        return None

    async def _sent(self) -> Any:
        detail = await self._look(lambda detail: detail)
        results = {each["receiver"]: each for each in detail.deliveries}
        if any(each["result"] == "sent" for each in results.values()):
            return next(each for each in detail.deliveries if each["result"] == "sent")
        if results and all(each["result"] == "dead" for each in results.values()):
            raise Stuck("; ".join(f"{each['receiver']}: {each['note']}" for each in results.values()))
        return None

    async def _acknowledge(self, group: str, code: str) -> None:
        if self.plan.ack:
            now = self.clock.now()
            await self.store.settle_now(
                f"flush:{group}",
                lambda row, facts: acknowledged(row, facts, by=self.plan.by, reason="a drill", now=now),
                now=now,
            )
        else:
            self.tell(Hop("waiting", self.clock.now(), f"for `triage alerts ack {code}`"))
        ack = await self._until(lambda: self._acked(group))
        self._at("acknowledged", ack.at, f"by {ack.by}")

    async def _acked(self, group: str) -> Any:
        return (await self.store.alert_group(group)).row.incident.ack

    async def _look(self, found: Callable[[FailureDetail], Value | None]) -> Value:
        async def look() -> Value | None:
            detail = await self.store.failure(self.root)
            return None if detail is None else found(detail)

        return await self._until(look)

    async def _until(self, ask: Callable[[], Awaitable[Value | None]]) -> Value:
        while (value := await ask()) is None:
            await self.clock.sleep(_LOOK)
        return value

    async def _why(self) -> str:
        """What is known of why the next hop did not come."""
        if self.awaited == "queued":
            return "The queue does not answer."
        detail = await self.store.failure(self.root)
        if detail is None:
            refused = [each for each in await self.store.quarantined(limit=50) if self.root.encode() in each.body]
            if refused:
                return f"It is in the quarantine: {refused[0].detail}."
            return "Does `triage run` run, with this configuration, and read this queue?"
        notes = [f"{each['receiver']}: {each['result']}, {each['note']}" for each in detail.deliveries]
        notes += [f"{row['kind']}: {row['note']}" for row in detail.outbox if row["note"] and not row["settled_at"]]
        return "; ".join(notes[-3:])


def source_of(settings: Settings, name: str) -> LocalSource | SmqSource:
    """The source that a drill is sent to: the one of that name, else the first that is a queue.

    Raises:
        Stuck: there is none.
    """
    queues = [each for each in settings.sources if isinstance(each, LocalSource | SmqSource)]
    found = next((each for each in queues if name in ("", each.name)), None)
    if found is None:
        known = ", ".join(each.name for each in queues) or "none"
        raise Stuck(f"no source {name!r} is a queue to which a drill can be sent (those that are: {known})")
    return found


def sample(request_id: str, function: str, region: str, account: str, now: datetime) -> bytes:
    """A failure as Function Compute tells it, that says of itself that it is none."""
    arn = f"acs:fc:{region or 'cn-hangzhou'}:{account or '0'}:functions/{function}"
    message = {
        "timestamp": int(now.timestamp() * 1000),
        "requestContext": {
            "requestId": request_id,
            "functionArn": arn,
            "condition": "FunctionRuntimeError",
            "approximateInvokeCount": 1,
        },
        "requestPayload": json.dumps({"drill": request_id}),
        "responseContext": {"statusCode": 200, "functionError": "FunctionRuntimeError"},
        "responsePayload": json.dumps({"errorType": _TYPE, "errorMessage": _ERROR}),
    }
    return json.dumps(message).encode()


def _renamed(body: bytes, request_id: str) -> bytes:
    message = json.loads(body)
    return json.dumps(
        {**message, "requestContext": {**message["requestContext"], "requestId": request_id}}, ensure_ascii=False
    ).encode("utf-8", "replace")


async def _put(settings: Settings, source: LocalSource, body: bytes, *, clock: SystemClock) -> None:
    from triage.sources.local import LocalQueue  # noqa: PLC0415
    from triage.sources.queue_tables import Failed, Outgoing  # noqa: PLC0415

    queues = await LocalQueue.open(settings.queue.path, clock=clock)
    try:
        await queues.ensure(source.queue)
        (answer,) = await queues.send(source.queue, [Outgoing(body)])
    finally:
        await queues.close()
    if isinstance(answer, Failed):
        raise Stuck(f"the queue does not take it: {answer.detail}")


async def _post(settings: Settings, source: SmqSource, body: bytes, *, clock: SystemClock) -> None:
    from triage.intakes import credentials_of  # noqa: PLC0415
    from triage.outbound import session  # noqa: PLC0415
    from triage.sources.smq_client import SmqClient  # noqa: PLC0415
    from triage.sources.smq_wire import Operation, send_body  # noqa: PLC0415

    async with session(Guard.of(settings.outbound.allow), limit=4) as requests:
        client = SmqClient(
            requests,
            source.endpoint,
            source.queue,
            credentials=credentials_of(settings, clock),
            clock=clock,
            signature=source.signature,
            region=source.region,
        )
        await client.ask(Operation.SEND, {}, body=send_body(body))


def _decision(detail: FailureDetail) -> str:
    rule = detail.decision["rule_id"]
    does = ", ".join(each["kind"] for each in detail.decision["effects"]) or "nothing"
    return f"{f'rule {rule}' if rule else 'no rule matches'}: {does}"


def _effect(detail: FailureDetail, kind: str) -> bool:
    return any(each["kind"] == kind for each in detail.decision["effects"])


def _settled(detail: FailureDetail, kind: str) -> Any:
    return next((row for row in detail.outbox if row["kind"] == kind and row["settled_at"]), None)


def _result(detail: FailureDetail) -> Any:
    members = detail.lineage["members"] if detail.lineage else ()
    return next((row for row in members if row["attempt"]), None)


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)
