"""Function Compute and SMQ on one address, as a context manager: for trials, the demo and tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from triage.clock import Clock
from triage.cloud.signing import Credentials
from triage.emulator.faults import Faults
from triage.emulator.fc import MAX_BODY, fc_routes
from triage.emulator.platform import Platform
from triage.emulator.scenario import Scenario
from triage.emulator.smq import smq_routes
from triage.errors import Permanent
from triage.sources.local import LocalQueue
from triage.sources.queue_tables import Failed, Outgoing

LOOPBACK_KEY: Final = Credentials("emulator", "emulator-secret")
"""A key for loopback only; it opens nothing anywhere else."""


@dataclass(frozen=True, slots=True)
class Emulator:
    """A running emulator: where it listens, what is in its queues, what happened in its functions."""

    url: str
    queues: LocalQueue
    fc: Platform


@asynccontextmanager
async def serve(
    scenario: Scenario,
    *,
    queues: LocalQueue,
    clock: Clock,
    credentials: Credentials = LOOPBACK_KEY,
    host: str = "127.0.0.1",
    port: int = 0,
    faults: Faults | None = None,
) -> AsyncIterator[Emulator]:
    """Serve both APIs until the block is left; whatever runs then is ended. ``queues`` stays the caller's to close.

    Args:
        credentials: the one key that may sign requests.
        port: 0 takes a free one.

    Raises:
        OSError: host and port cannot be listened on.
    """
    for name in scenario.all_queues:
        await queues.ensure(name)

    async def push(queue: str, body: bytes) -> None:
        for answer in await queues.send(queue, [Outgoing(body)]):
            if isinstance(answer, Failed):
                raise Permanent(answer.code, answer.detail)

    def known(key_id: str) -> Credentials | None:
        return credentials if key_id == credentials.access_key_id else None

    platform = Platform(scenario, push=push, clock=clock, faults=faults)
    requests: set[asyncio.Task[Any]] = set()

    @web.middleware
    async def tracked(request: web.Request, handler: Handler) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine of the server runs in a task
        requests.add(task)
        try:
            return await handler(request)
        except ConnectionResetError:
            return web.Response(status=499)  # the client went away before its request was read; nobody gets this
        finally:
            requests.discard(task)

    app = web.Application(client_max_size=MAX_BODY + 1, middlewares=[tracked])
    app.add_routes(fc_routes(platform, credentials=known, clock=clock, faults=faults))
    app.add_routes(smq_routes(queues, credentials=known, clock=clock, faults=faults))
    # Nobody waits for the end of a long poll when the emulator stops.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        for invocation in scenario.invoke:
            for _ in range(invocation.count):
                platform.submit(invocation.function, invocation.payload.encode(), delay=invocation.after)
        yield Emulator(_url(runner), queues, platform)
    finally:
        await runner.cleanup()
        # The library forgets a request whose client has gone; what it does must not outlive the queues.
        left = list(requests)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await platform.close()


def _url(runner: web.AppRunner) -> str:
    host, port = runner.addresses[0][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
