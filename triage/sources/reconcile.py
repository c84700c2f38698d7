"""Failures whose result message never arrived, found by asking Function Compute for its failed tasks.

A result of more than 64 KB does not fit into a queue, and a delivery that fails is not repeated. So every now and then
the failed tasks of the configured functions are listed, and for each one that is not stored a message is built from
what Function Compute says of the task. From there on it is an envelope like any other, but marked as reconstructed.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from triage.clock import Clock
from triage.cloud.fc_answers import AsyncConfig, Task, TaskPage
from triage.envelope import Destination, FunctionRef, parse_arn
from triage.errors import InvalidEnvelope, Misconfigured, Permanent, StoreUnavailable, Temporary
from triage.sources import Delivery

_LEASE: Final = timedelta(hours=1)
"""Nobody else gets what we hold, so it only says how seldom the consumer need renew it."""

_PAGE: Final = 100
"""Tasks that are listed at once; the API's maximum."""

_PAUSE: Final = timedelta(milliseconds=200)
"""Between two requests: nobody waits for what is found here, and the API has other users."""

_SOON: Final = timedelta(minutes=1)
"""From a round with errors that may pass to the next one."""

_LONGEST_PAUSE: Final = timedelta(seconds=30)
"""When the API wants to be left alone for longer, the others are asked meanwhile, and this one in the next round."""

_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{2,63}")
"""A task's error message is either an error code, or what the function said."""

Known = Callable[[Sequence[str]], Awaitable[Collection[str]]]
"""Which of these request ids are stored."""


class Tasks(Protocol):
    """What is asked of Function Compute. `triage.cloud.fc.FcClient` is it."""

    async def async_config(self, function: FunctionRef) -> AsyncConfig | None: ...

    async def get_task(self, function: FunctionRef, task_id: str) -> Task | None: ...

    async def list_tasks(
        self,
        function: FunctionRef,
        *,
        status: str = "",
        prefix: str = "",
        started_from: datetime | None = None,
        started_until: datetime | None = None,
        include_payload: bool = False,
        limit: int = 100,
        next_token: str = "",
    ) -> TaskPage: ...


@dataclass(frozen=True, slots=True)
class _Page:
    function: FunctionRef
    since: datetime
    token: str = ""


class ReconcileSource:
    """Lists failed tasks in rounds, and hands out those that nobody has told of.

    A round begins ``interval`` after the one before it, the first one ``interval`` after the start, so that what waits
    in the queues is taken in first. An error of one function keeps no other from being asked; what went wrong is raised
    at the end of the round.
    """

    def __init__(
        self,
        tasks: Tasks,
        functions: Sequence[FunctionRef],
        *,
        known: Known,
        clock: Clock,
        name: str = "reconcile",
        interval: timedelta = timedelta(minutes=10),
        grace: timedelta = timedelta(minutes=5),
        lookback: timedelta = timedelta(hours=24),
    ) -> None:
        """Look for lost results of ``functions``.

        Args:
            known: asks the store, so that what it has is not handed out again and again.
            grace: how long ago a task must have ended, since its own message may still be on its way.
            lookback: how long ago a task may have begun.
        """
        self._tasks, self._functions, self._known, self._clock = tasks, tuple(functions), known, clock
        self._name, self._interval, self._grace, self._lookback = name, interval, grace, lookback
        self._next_at = clock.now() + interval
        self._pages: deque[_Page] = deque()
        self._lost: deque[tuple[FunctionRef, Task]] = deque()
        self._held: set[str] = set()
        self._errors: list[Temporary | Permanent] = []

    @property
    def name(self) -> str:
        return self._name

    @property
    def destination(self) -> Destination:
        """Only failed tasks are asked for."""
        return Destination.FAILURE

    @property
    def lease(self) -> timedelta:
        return _LEASE

    async def receive(self, *, limit: int, wait: timedelta) -> list[Delivery]:
        """Hand out up to ``limit`` lost failures. Raises, once all functions were asked, what went wrong with some."""
        until = self._clock.now() + wait
        while True:
            now = self._clock.now()
            if self._errors and not self._lost and not self._pages:
                raise self._failed(now)
            if now >= until:
                return []
            if self._lost:
                if found := await self._hand_out(limit, until):
                    return found
            elif self._pages:
                await self._look()
            elif now >= self._next_at:
                self._next_at = now + self._interval
                self._pages.extend(_Page(function, now - self._lookback) for function in self._functions)
            else:
                await self._clock.sleep(min(self._next_at, until) - now)

    async def _look(self) -> None:
        """List one page, and note what of it is lost. Without events: most tasks are known, and events may be large."""
        page = self._pages.popleft()
        try:
            found = await self._tasks.list_tasks(
                page.function, status="Failed", started_from=page.since, limit=_PAGE, next_token=page.token
            )
            if not found.tasks:
                await self._check(page.function)
            ended = self._clock.now() - self._grace
            over = {
                task.request_id: task
                for task in found.tasks
                if task.request_id and task.status == "Failed" and (task.ended_at or task.started_at or ended) <= ended
            }
            known = await self._known(list(over))
        except (Temporary, Permanent) as error:
            await self._note(error)
        except StoreUnavailable as error:
            await self._note(Temporary("store_unavailable", str(error)))
        else:
            if found.next_token not in ("", page.token):
                self._pages.appendleft(_Page(page.function, page.since, found.next_token))
            self._lost.extend(
                (page.function, task) for key, task in over.items() if key not in known and key not in self._held
            )
            await self._clock.sleep(_PAUSE)

    async def _check(self, function: FunctionRef) -> None:
        """That no task failed is good to hear, unless no tasks are kept. FC 2.0 lets each invocation say so."""
        if function.service:
            return
        config = await self._tasks.async_config(function)
        if config is None and function.qualifier:
            config = await self._tasks.async_config(replace(function, qualifier=""))
        if config is None or not config.async_task:
            raise Misconfigured("no_tasks", f"{function.label} keeps no tasks: switch on asyncTask, or name it no more")

    async def _hand_out(self, limit: int, until: datetime) -> list[Delivery]:
        deliveries: list[Delivery] = []
        while self._lost and len(deliveries) < limit and self._clock.now() < until:
            function, listed = self._lost.popleft()
            try:
                task = await self._whole(function, listed)
            except (Temporary, Permanent) as error:
                await self._note(error)  # the next round finds it again
                continue
            self._held.add(task.request_id)
            deliveries.append(
                Delivery(
                    body=reconstructed_message(function, task),
                    message_id=task.task_id,
                    receipt_handle=task.request_id,
                    lease_until=self._clock.now() + _LEASE,
                    reconstructed=True,
                )
            )
        return deliveries

    async def _whole(self, function: FunctionRef, listed: Task) -> Task:
        """The task with its event, which is documented of ListAsyncTasks, and of GetAsyncTask only seen."""
        task = await self._tasks.get_task(function, listed.task_id) or listed
        if not task.payload:
            page = await self._tasks.list_tasks(function, prefix=listed.task_id, include_payload=True, limit=_PAGE)
            task = next((each for each in page.tasks if each.task_id == listed.task_id), task)
        return replace(task, task_id=listed.task_id, request_id=listed.request_id)

    def _failed(self, now: datetime) -> Temporary | Permanent:
        """The errors of a round that is over, as one. What may pass is tried again soon."""
        errors, self._errors = self._errors, []
        error = _together(errors)
        if isinstance(error, Temporary):
            self._next_at = min(self._next_at, now + _SOON)
        return error

    async def _note(self, error: Temporary | Permanent) -> None:
        self._errors.append(error)
        await self._clock.sleep(min(getattr(error, "retry_after", None) or _PAUSE, _LONGEST_PAUSE))

    async def ack(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """They are stored now, which is how the next round knows them."""
        self._held.difference_update(delivery.receipt_handle for delivery in deliveries)
        return []

    async def extend(self, delivery: Delivery, by: timedelta) -> bool:
        delivery.lease_until = self._clock.now() + by
        return True

    async def close(self) -> None:
        """Nothing is held: the client belongs to the caller."""


def _together(errors: Sequence[Temporary | Permanent]) -> Temporary | Permanent:
    told = list(dict.fromkeys(error.detail or error.reason for error in errors))
    more = f"; and {len(told) - 3} more" if len(told) > 3 else ""
    worst = next((error for error in errors if isinstance(error, Permanent)), errors[0])
    return type(worst)(worst.reason, "; ".join(told[:3]) + more)


def reconstructed_message(function: FunctionRef, task: Task) -> bytes:
    """A destination message from what Function Compute says of a failed task.

    What a message would say, and a task does not, is inferred: an error code stands for itself, an error of the
    function makes the condition that its generation uses. Under ``reconstructed`` is what only the task says.
    """
    code = _CODE.fullmatch(task.error.strip())
    usual = "UnhandledInvocationError" if function.service else "InvocationError"
    condition = code[0] if code else usual if task.error or task.result else ""
    message: dict[str, Any] = {
        "timestamp": task.started_at and round(task.started_at.timestamp() * 1000),
        "requestContext": {
            "requestId": task.request_id,
            "functionArn": _arn(function, task),
            "condition": condition,
            "approximateInvokeCount": task.retries + 1,
        },
        "requestPayload": task.payload,
        "responseContext": {"statusCode": 200, "functionError": "" if code and not task.result else condition},
        "responsePayload": task.result or ("" if code else task.error) or task.detail,
        "reconstructed": {
            "taskId": task.task_id,
            "status": task.status,
            "destinationStatus": task.destination_status,
            "endTime": task.ended_at and round(task.ended_at.timestamp() * 1000),
            "lastEvent": task.detail,
        },
    }
    return json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _arn(function: FunctionRef, task: Task) -> str:
    """As the task says it; with the configured qualifier, since a re-run has to reach the same version."""
    region, account = function.region, function.account
    try:
        told = parse_arn(task.function_arn)
    except InvalidEnvelope:
        pass
    else:
        if told.label == function.label and function.qualifier in ("", told.qualifier):
            return task.function_arn
        region, account = told.region or region, told.account or account
    start = f"acs:fc:{region}:{account}:"
    if function.service:
        return f"{start}services/{function.service}.{function.qualifier or 'LATEST'}/functions/{function.name}"
    return f"{start}functions/{function.name}" + (f"/{function.qualifier}" if function.qualifier else "")
