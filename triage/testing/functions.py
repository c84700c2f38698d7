"""Function Compute as far as re-runs need it, in memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from triage.clock import Clock
from triage.cloud.fc_answers import AsyncConfig, Submitted, Task
from triage.envelope import FunctionRef
from triage.errors import Permanent, Temporary
from triage.testing.source import FakeSource


@dataclass(slots=True)
class FakeFunctions:
    """Takes submits, refuses a task id it knows, and puts a result message into a `FakeSource`.

    Attributes:
        outcomes: how the executions end, in order: True for success; the last one repeats.
        delay: from the submit to the result message.
        tracked: ``asyncTask`` of every function; without it no task id is known or refused.
        failures: errors for the next calls of ``invoke_async``, one each; the submit is not taken.
        lost: errors for the calls after those, one each; the submit is taken, and its answer is lost.
        executions: how often each task id was taken (a window).
    """

    clock: Clock
    results: FakeSource
    outcomes: Sequence[bool] = (True,)
    delay: timedelta = timedelta(seconds=10)
    tracked: bool = True
    failures: list[Temporary | Permanent] = field(default_factory=list)
    lost: list[Temporary] = field(default_factory=list)
    executions: Counter[str] = field(default_factory=Counter)
    _tasks: dict[str, Task] = field(default_factory=dict)
    _taken: int = 0

    async def invoke_async(self, function: FunctionRef, payload: bytes, *, task_id: str) -> Submitted:
        if self.failures:
            raise self.failures.pop(0)
        if self.tracked and task_id in self._tasks:
            return Submitted(request_id="", task_id=task_id, already=True)
        succeeded = self.outcomes[min(self._taken, len(self.outcomes) - 1)]
        self._taken += 1
        self.executions[task_id] += 1
        request_id = f"fake-{self._taken}"
        self._tasks[task_id] = Task(task_id, request_id, "Succeeded" if succeeded else "Failed")
        self.results.put(_result(request_id, function, payload, succeeded=succeeded), delay=self.delay)
        if self.lost:
            raise self.lost.pop(0)
        return Submitted(request_id, task_id, already=False)

    def ran(self, task_id: str, status: str) -> None:
        """A task that somebody else has submitted."""
        self._tasks[task_id] = Task(task_id, task_id, status)

    async def get_task(self, function: FunctionRef, task_id: str) -> Task | None:  # noqa: ARG002
        return self._tasks.get(task_id) if self.tracked else None

    async def async_config(self, function: FunctionRef) -> AsyncConfig | None:  # noqa: ARG002
        return AsyncConfig(async_task=self.tracked)


def _result(request_id: str, function: FunctionRef, payload: bytes, *, succeeded: bool) -> bytes:
    condition = "" if succeeded else "InvocationError"
    return json.dumps(
        {
            "requestContext": {
                "requestId": request_id,
                "functionArn": f"acs:fc:{function.region}:{function.account}:functions/{function.name}",
                "condition": condition,
                "approximateInvokeCount": 1,
            },
            "requestPayload": payload.decode(),
            "responseContext": {"statusCode": 200, "functionError": condition},
            "responsePayload": "{}" if succeeded else json.dumps({"errorMessage": "still broken"}),
        }
    ).encode()
