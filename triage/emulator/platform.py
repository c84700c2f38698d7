"""Function Compute behind its API: functions, tasks and their executions, the platform's retries, destinations.

Instants are real ones, durations are those of the scenario, and ``Scenario.speed`` of them pass in a second.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from triage.clock import Clock, token
from triage.emulator.faults import Fault, Faults
from triage.emulator.results import MAX_MESSAGE, STOPPED, Ending, destination_message, ending, queue_body
from triage.emulator.scenario import AsyncConfig, Exhausted, Function, Scenario, Step, Succeed, Throttled
from triage.errors import TriageError

MAX_ASYNC_EVENT: Final = 128 << 10
"""Bytes, https://www.alibabacloud.com/help/doc-detail/2527064.html."""
MAX_DELAY: Final = timedelta(seconds=3600)
LATE: Final = timedelta(seconds=1)
"""How late (in emulated time) a faulty push is."""

_TASK_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,127}")
_KEPT = 100_000

Push = Callable[[str, bytes], Awaitable[None]]
"""Puts one message body into the named queue; a `TriageError` means it could not."""


class Refused(TriageError):
    """The API says no."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message
        super().__init__(f"{status} {code}: {message}")


@dataclass(frozen=True, slots=True)
class Submit:
    """An asynchronous invocation that was accepted. ``task_id`` is as sent, also when it was ignored."""

    function: str
    task_id: str
    request_id: str
    event: bytes


@dataclass(frozen=True, slots=True)
class Execution:
    """One attempt to run a function. ``attempt`` counts from 1; ``did`` is the step taken."""

    function: str
    task_id: str
    request_id: str
    event: bytes
    attempt: int
    did: str


@dataclass(slots=True, eq=False)
class Task:
    """One asynchronous invocation. Its id is the request id unless one was given and tasks are kept."""

    number: int
    function: str
    qualifier: str
    task_id: str
    request_id: str
    event: bytes
    started_at: datetime
    listed: bool
    status: str = "Enqueued"
    ended_at: datetime | None = None
    attempts: int = 0
    lasted: timedelta = timedelta(0)
    result: Ending | None = None
    destination_status: str = ""
    events: list[tuple[str, datetime]] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)


class Platform:
    """The emulated platform. ``close`` ends everything that runs.

    Attributes:
        submits, executions: what happened, oldest first, for tests to look at (the last 100,000 of each).
    """

    def __init__(self, scenario: Scenario, *, push: Push, clock: Clock, faults: Faults | None = None) -> None:
        self.scenario = scenario
        self.submits: deque[Submit] = deque(maxlen=_KEPT)
        self.executions: deque[Execution] = deque(maxlen=_KEPT)
        self._push, self._clock, self._faults = push, clock, faults
        self._configs: dict[tuple[str, str], AsyncConfig] = {
            (name, ""): function.asynchronous for name, function in scenario.functions.items()
        }
        self._tasks: dict[tuple[str, str], Task] = {}
        self._used: Counter[tuple[str, str, int]] = Counter()
        self._running: set[asyncio.Task[None]] = set()
        self._count = 0

    def function(self, name: str) -> Function:
        """A function by name (``service/name`` for FC 2.0).

        Raises:
            Refused: there is none.
        """
        found = self.scenario.functions.get(name)
        if found is None:
            raise Refused(404, "FunctionNotFound", f"function '{name}' does not exist")
        return found

    def config(self, name: str, qualifier: str = "") -> AsyncConfig:
        """How it treats asynchronous invocations; a qualifier without a configuration has that of the function."""
        self.function(name)
        return self._configs.get((name, qualifier)) or self._configs.get((name, "")) or AsyncConfig()

    def configs(self, name: str) -> list[tuple[str, AsyncConfig]]:
        """Qualifier and configuration, as far as there are any."""
        self.function(name)
        return [(qualifier, config) for (owner, qualifier), config in self._configs.items() if owner == name]

    def configure(self, name: str, qualifier: str, config: AsyncConfig | None) -> None:
        """Set or, with None, remove a configuration."""
        self.function(name)
        if config is None:
            self._configs.pop((name, qualifier), None)
        else:
            self._configs[name, qualifier] = config

    def arn(self, name: str) -> str:
        """The function's ARN in the form of its generation's messages."""
        service, slash, function = name.rpartition("/")
        if slash:
            return f"acs:fc:::services/{service}.LATEST/functions/{function}"
        return f"acs:fc:{self.scenario.region}:{self.scenario.account}:functions/{name}"

    def request_id(self, name: str = "") -> str:
        """A fresh id: FC 3.0's holds the second of its making, FC 2.0's is a UUID."""
        chance = token()
        if "/" in name:
            return str(uuid.UUID(hex=chance))
        return f"1-{int(self._clock.now().timestamp()):08x}-{chance[:8]}-{chance[8:20]}"

    def submit(
        self,
        name: str,
        event: bytes,
        *,
        qualifier: str = "",
        task_id: str = "",
        delay: timedelta = timedelta(0),
        keep: bool = False,
    ) -> Task:
        """Accept an asynchronous invocation and start it.

        A task id counts only where tasks are kept (``asyncTask``, or ``keep`` for this one): elsewhere it is ignored,
        and the same submit runs twice. Ids are unique per function.

        Raises:
            Refused: unknown function or id that is known, event too large, throttled by the scenario.
        """
        self.function(name)
        keep = keep or self.config(name, qualifier).task
        if len(event) > MAX_ASYNC_EVENT:
            raise Refused(400, "EntityTooLarge", f"the payload has {len(event)} bytes, at most {MAX_ASYNC_EVENT}")
        if task_id and _TASK_ID.fullmatch(task_id) is None:
            raise Refused(400, "InvalidArgument", "the task id must match [A-Za-z_][A-Za-z0-9_-]{0,127}")
        if not timedelta(0) <= delay <= MAX_DELAY:
            raise Refused(400, "InvalidArgument", "the delay must be between 0 and 3600 seconds")
        if keep and (name, task_id) in self._tasks:
            code = "StatefulAsyncInvocationAlreadyExists" if "/" in name else "AsyncTaskAlreadyExists"
            raise Refused(409, code, f"task '{task_id}' already exists")
        self._refuse_if_throttled(name, event)
        request_id = self.request_id(name)
        self._count += 1
        task = Task(
            number=self._count,
            function=name,
            qualifier=qualifier,
            task_id=(task_id if keep else "") or request_id,
            request_id=request_id,
            event=event,
            started_at=self._clock.now(),
            listed=keep,
        )
        self._move(task, "Enqueued")
        if keep:
            self._tasks[name, task.task_id] = task
        self.submits.append(Submit(name, task_id, request_id, event))
        running = asyncio.create_task(self._work(task, delay), name=f"fc:{name}:{request_id}")
        self._running.add(running)
        running.add_done_callback(self._done)
        return task

    async def call(self, name: str, event: bytes) -> tuple[str, Ending]:
        """Run a function synchronously: request id and how it ended. The platform never retries such a call.

        Raises:
            Refused: unknown function, throttled, or no instance to be had.
        """
        function = self.function(name)
        self._refuse_if_throttled(name, event)
        request_id = self.request_id(name)
        step = self._step(name, event)
        end = self._ending(step, function, name, event)
        if isinstance(step, Exhausted):
            raise Refused(429, "ResourceExhausted", "no instance can be started")
        self.executions.append(Execution(name, "", request_id, event, 1, step.do))
        await self._clock.sleep(end.lasted / self.scenario.speed)
        return request_id, end

    def task(self, name: str, task_id: str) -> Task | None:
        """A task that is kept."""
        self.function(name)
        return self._tasks.get((name, task_id))

    def tasks(self, name: str) -> list[Task]:
        """The function's tasks, oldest first."""
        self.function(name)
        return [task for (owner, _), task in self._tasks.items() if owner == name]

    def stop(self, name: str, task_id: str) -> bool:
        """Stop a task. False: there is none. One that has ended stays as it is."""
        task = self.task(name, task_id)
        if task is None:
            return False
        if task.ended_at is None and not task.stop.is_set():
            task.stop.set()
            self._move(task, "Stopping")
        return True

    async def settled(self) -> None:
        """Wait until nothing runs any more."""
        while self._running:
            await asyncio.wait(self._running)

    async def close(self) -> None:
        """End what runs. May be called twice."""
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _work(self, task: Task, delay: timedelta) -> None:
        function, config = self.function(task.function), self.config(task.function, task.qualifier)
        began, end = task.started_at, STOPPED
        stopped = await self._pass(delay, task)
        while not stopped:
            began, task.attempts = self._clock.now(), task.attempts + 1
            self._move(task, "Running")
            step = self._step(task.function, task.event)
            end = self._ending(step, function, task.function, task.event)
            self.executions.append(
                Execution(task.function, task.task_id, task.request_id, task.event, task.attempts, step.do)
            )
            stopped = await self._pass(end.lasted, task)
            task.lasted += end.lasted
            if stopped or not (end.failed and end.retried and task.attempts <= config.retries):
                break
            self._move(task, "Retrying")
            stopped = await self._pass(self.scenario.retry_after, task)
        task.result, task.ended_at = STOPPED if stopped else end, self._clock.now()
        self._move(task, "Stopped" if stopped else "Failed" if end.failed else "Succeeded")
        await self._deliver(task, config, began, stopped=stopped)

    async def _deliver(self, task: Task, config: AsyncConfig, began: datetime, *, stopped: bool) -> None:
        end = task.result or STOPPED
        queue = config.on_failure if stopped or end.failed else config.on_success
        if queue is None:
            return
        message = destination_message(
            end,
            request_id=task.request_id,
            function_arn=self.arn(task.function),
            event=task.event.decode("utf-8", "replace"),
            attempts=max(task.attempts, 1),
            at=began,
        )
        body = queue_body(message, self.scenario.body)
        fault = self._faults.draw("PushResult") if self._faults else None
        if end.lost or fault is Fault.LOST:
            task.destination_status = "Failed"
            return
        if fault not in (None, Fault.DUPLICATE):
            await self._clock.sleep(LATE / self.scenario.speed)
        try:
            if len(body) > MAX_MESSAGE:
                raise Refused(400, "MessageTooLarge", f"{len(body)} bytes")
            for _ in range(2 if fault is Fault.DUPLICATE else 1):
                await self._push(queue, body)
        except TriageError:
            # The vendor documents no retry of a delivery; the task's destination status is all that tells of it.
            task.destination_status = "Failed"
        else:
            task.destination_status = "Succeeded"

    def _refuse_if_throttled(self, name: str, event: bytes) -> None:
        step = self._step(name, event, submit=True)
        if isinstance(step, Throttled):
            raise Refused(429, "ResourceExhausted", "too many requests are under way")

    def _step(self, name: str, event: bytes, *, submit: bool = False) -> Step:
        """The step for this submit or execution; counts its use."""
        text = event.decode("utf-8", "replace")
        for index, step in enumerate(self.function(name).behaviour):
            use = (name, text, index)
            if isinstance(step, Throttled) is submit and step.applies(text, self._used[use]):
                if step.times is not None:
                    self._used[use] += 1
                return step
        return Succeed()

    def _ending(self, step: Step, function: Function, name: str, event: bytes) -> Ending:
        error_class = "UnhandledInvocationError" if "/" in name else "InvocationError"
        end = ending(step, function, event=event.decode("utf-8", "replace"), error_class=error_class)
        return replace(end, lost=step.lost)

    def _move(self, task: Task, status: str) -> None:
        task.status = status
        task.events.append((status, self._clock.now()))

    async def _pass(self, duration: timedelta, task: Task) -> bool:
        """Let emulated time pass; True when the task was stopped meanwhile."""
        return await self._clock.wait(task.stop, duration / self.scenario.speed)

    def _done(self, running: asyncio.Task[None]) -> None:
        self._running.discard(running)
        if not running.cancelled() and (error := running.exception()) is not None:
            # A defect of the emulator must be seen, not end as a task that never finishes.
            running.get_loop().call_exception_handler({"message": f"{running.get_name()} died", "exception": error})
