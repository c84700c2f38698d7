"""Where result messages come from: the settings of each kind of source."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from triage.envelope import Destination
from triage.settings.group import Group
from triage.settings.values import (
    Duration,
    Name,
    Positive,
    Url,
    function_name,
    long_poll,
    not_empty,
    smq_queue_name,
    text_lines,
)


class LocalSource(Group):
    """Read result messages from the local queue: the file under ``[queue]``."""

    type: Literal["local"] = "local"
    """Kind of source."""
    name: Name = "local"
    """Stable name, stored with every envelope read from here. Unique among the sources."""
    queue: Name = "default"
    """Name of the queue inside the queue file."""
    destination: Destination = Destination.BOTH
    """Which results arrive here: ``both``, ``failure`` or ``success``. Tells what an empty message means."""


class SmqSource(Group):
    """Read result messages from a Simple Message Queue (SMQ, formerly MNS) queue over HTTP."""

    type: Literal["smq"]
    """Kind of source."""
    name: Name = "smq"
    """Stable name, stored with every envelope read from here. Unique among the sources."""
    endpoint: Url
    """Address of the queue service, ``http://ACCOUNT.mns.REGION.aliyuncs.com`` or its internal form."""
    queue: Annotated[str, AfterValidator(smq_queue_name)]
    """Name of the queue that the functions' ``destinationConfig`` names. Letters, digits and hyphens."""
    destination: Destination = Destination.BOTH
    """Which results the queue was configured to receive: ``both``, ``failure`` or ``success``."""
    receivers: Annotated[int, Field(ge=1, le=64)] = 4
    """Receive requests open at the same time. More hide the network's latency; 4 keep one core busy."""
    batch: Annotated[int, Field(ge=1, le=16)] = 16
    """Messages per receive request. 16 is the service's maximum and the cheapest per message."""
    wait: Annotated[Duration, AfterValidator(long_poll)] = timedelta(seconds=30)
    """Long poll: how long the service holds an empty receive. 30 s is the service's maximum; ``0s`` = short polls."""
    signature: Literal["v2", "v4"] = "v2"
    """Request signature. ``v2`` is accepted everywhere; ``v4`` needs ``region``."""
    region: str = ""
    """Region id for signature ``v4``, such as ``cn-hangzhou``. Not needed for ``v2``."""

    @model_validator(mode="after")
    def _region_for_v4(self) -> SmqSource:
        if self.signature == "v4" and not self.region:
            raise ValueError('signature = "v4" needs region, such as "cn-hangzhou"')
        return self


class ReconcileSource(Group):
    """Ask Function Compute now and then for failed tasks whose result message never arrived, as one over 64 KB."""

    type: Literal["reconcile"]
    """Kind of source."""
    name: Name = "reconcile"
    """Stable name, stored with every failure found here; rules know it as ``source``. Unique among the sources."""
    functions: Annotated[
        tuple[Annotated[str, AfterValidator(function_name)], ...],
        NoDecode,
        BeforeValidator(text_lines),
        AfterValidator(not_empty),
    ]
    """Functions to ask about: ``NAME``, or ``SERVICE/NAME`` for FC 2.0; with ``@QUALIFIER`` for a version or alias.
    Region and account are those under ``[fc]``. Their tasks must be kept (``asyncTask``)."""
    interval: Positive = timedelta(minutes=10)
    """From one round of questions to the next, and from the start to the first."""
    grace: Duration = timedelta(minutes=5)
    """How long ago a task must have ended, since its own message may still be on its way."""
    lookback: Positive = timedelta(hours=24)
    """How long ago a task may have begun. The service keeps tasks for 7 days."""

    @model_validator(mode="after")
    def _within_reach(self) -> ReconcileSource:
        if self.lookback > timedelta(days=7):
            raise ValueError("lookback must be at most 7d: the service keeps tasks no longer")
        if self.grace >= self.lookback:
            raise ValueError("grace must be shorter than lookback, or no task is ever looked at")
        return self


SourceSettings = Annotated[LocalSource | SmqSource | ReconcileSource, Field(discriminator="type")]
