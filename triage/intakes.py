"""The configured sources, as the consumer takes from them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp

from triage.clock import Clock
from triage.cloud.credentials import ChainCredentials, CredentialsProvider, StaticCredentials
from triage.cloud.fc import FcClient
from triage.cloud.signing import Credentials
from triage.consumer import Intake
from triage.envelope import FunctionRef
from triage.settings import FcSettings, Settings
from triage.settings import LocalSource as LocalSettings
from triage.settings import ReconcileSource as ReconcileSettings
from triage.settings import SmqSource as SmqSettings
from triage.settings.values import read_function
from triage.sources import Source
from triage.sources.local import LocalQueue, LocalSource
from triage.sources.reconcile import ReconcileSource
from triage.sources.smq import SmqSource
from triage.stores import Store


def credentials_of(settings: Settings, clock: Clock) -> CredentialsProvider:
    """The configured access key, or the vendor's chain."""
    given = settings.credentials
    if not given.access_key_id:
        return ChainCredentials(clock=clock)
    return StaticCredentials(
        Credentials(
            given.access_key_id, given.access_key_secret.get_secret_value(), given.security_token.get_secret_value()
        )
    )


async def intakes_of(
    settings: Settings,
    stack: AsyncExitStack,
    *,
    session: aiohttp.ClientSession,
    credentials: CredentialsProvider,
    functions: FcClient,
    store: Store,
    clock: Clock,
) -> AsyncIterator[Intake]:
    """Open the sources, one after the other; ``stack`` closes them.

    Raises:
        StoreUnavailable: the file of the local queue cannot be opened.
    """
    queues: LocalQueue | None = None
    for given in settings.sources:
        source: Source
        match given:
            case LocalSettings():
                queues = queues or await LocalQueue.open(settings.queue.path, clock=clock)
                source = LocalSource(
                    queues,
                    queue=given.queue,
                    name=given.name,
                    destination=given.destination,
                    lease=settings.queue.visibility_timeout,
                )
                intake = Intake(source, receivers=1, batch=settings.consumer.batch)
            case SmqSettings():
                source = SmqSource(
                    session,
                    given.endpoint,
                    given.queue,
                    name=given.name,
                    credentials=credentials,
                    clock=clock,
                    destination=given.destination,
                    signature=given.signature,
                    region=given.region,
                )
                intake = Intake(source, receivers=given.receivers, batch=given.batch, wait=given.wait)
            case ReconcileSettings():
                source = ReconcileSource(
                    functions,
                    [_function(each, settings.fc) for each in given.functions],
                    known=store.known,
                    clock=clock,
                    name=given.name,
                    interval=given.interval,
                    grace=given.grace,
                    lookback=given.lookback,
                )
                intake = Intake(source, receivers=1, wait=given.interval)
        stack.push_async_callback(source.close)
        yield intake


def _function(name: str, fc: FcSettings) -> FunctionRef:
    return FunctionRef(**read_function(name), region=fc.region, account=fc.account)
