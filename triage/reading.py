"""What sources deliver, as envelopes, and what of it is none: kept as it is, with the place and the reason."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from triage.changes import Quarantined
from triage.drills import is_drill
from triage.envelope import RECONSTRUCTED, Destination, Envelope, parse_body
from triage.errors import InvalidEnvelope
from triage.facts import NO_LABELS, Arrival, Snapshot, arrival
from triage.sources import Delivery, Source

log = logging.getLogger(__name__)

Labels = Callable[[str], Mapping[str, str]]
"""What the configuration says of a function, by its name (``FunctionRef.label``)."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A delivery in our hands, and where to acknowledge it."""

    source: Source
    delivery: Delivery


def read_batch(
    batch: Iterable[Taken], *, now: datetime, labels: Labels = lambda _function: NO_LABELS
) -> tuple[list[Arrival], tuple[Quarantined, ...]]:
    """Parse every body; what is no envelope is kept raw, with the place and the reason."""
    arrivals: list[Arrival] = []
    quarantined: list[Quarantined] = []
    for item in batch:
        source, delivery = item.source, item.delivery
        try:
            envelope = _read(delivery, source.destination)
        except InvalidEnvelope as error:
            quarantined.append(
                Quarantined(
                    source=source.name,
                    message_id=delivery.message_id,
                    received_at=now,
                    body=delivery.body,
                    reason=error.reason,
                    where=error.where,
                    detail=error.detail,
                )
            )
        else:
            arrivals.append(
                arrival(
                    envelope,
                    source=source.name,
                    message_id=delivery.message_id,
                    received_at=now,
                    enqueued_at=delivery.enqueued_at,
                    labels=labels(envelope.function.label),
                )
            )
    return arrivals, tuple(quarantined)


def _read(delivery: Delivery, destination: Destination) -> Envelope:
    if delivery.unreadable:
        raise InvalidEnvelope("unreadable", detail=delivery.unreadable)
    try:
        envelope = parse_body(delivery.body, md5=delivery.body_md5, destination=destination)
    except InvalidEnvelope:
        raise
    except Exception as defect:
        # Outside text that trips over a defect of ours must cost itself its decision, not the daemon its life.
        log.exception("a defect of triage: message %s could not be read", delivery.message_id)
        raise InvalidEnvelope("unreadable", detail=f"a defect of triage: {type(defect).__name__}") from defect
    return replace(envelope, digest=RECONSTRUCTED + envelope.digest) if delivery.reconstructed else envelope


def sifted(arrivals: Sequence[Arrival], snapshot: Snapshot) -> tuple[list[bool], list[Quarantined]]:
    """Which of them are what their names say; and the others, that have the name of a drill which was not ordered."""
    genuine = [not is_drill(a.envelope.request_id) or snapshot.drill_of(a) is not None for a in arrivals]
    forged = [
        Quarantined(
            source=each.source,
            message_id=each.message_id,
            received_at=each.received_at,
            body=each.envelope.body,
            reason="no_drill",
            where="requestContext.requestId",
            detail="it has the name of a drill, and is not the envelope of one that was ordered (`triage drill`)",
        )
        for each, known in zip(arrivals, genuine, strict=True)
        if not known
    ]
    return genuine, forged
