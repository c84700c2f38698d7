"""Drills: marked failures that go the way of a real one through the running daemon, and count nowhere. Pure.

The mark is the name. A drill's request id, and so the root of its lineage, begins with `PREFIX`, and so does the key of
its alert group; whatever counts leaves out such names (in SQL: `GLOB`). Nobody can take the name from outside: an
envelope of that name which is not, byte for byte, the one that the store was told to expect goes to the quarantine,
which counts it (`triage.facts.Snapshot.drill_of`).

The request id says until when the drill lasts, so that each step can tell without asking: what was left over from a
night when the daemon was down wakes nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from triage.envelope import RequestId

PREFIX: Final = "triage-drill-"
GLOB: Final = f"{PREFIX}*"
_UNTIL: Final = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class Drill:
    """A drill that somebody has ordered.

    Attributes:
        digest: of the envelope that will come (`triage.envelope.Envelope.digest`).
        to: the receiver that is told in place of those that the rule names; empty: those of the rule.
        rerun: the re-run is really submitted. Else only what would hinder it is found out.
    """

    request_id: RequestId
    digest: str
    by: str
    at: datetime
    to: str = ""
    rerun: bool = False


def drill_id(until: datetime, token: str) -> RequestId:
    """The request id of a drill that lasts until then; ``token`` makes it unique."""
    return RequestId(f"{PREFIX}{until.astimezone(UTC):{_UNTIL}}-{token}")


def is_drill(name: str) -> bool:
    """Whether a request id, the root of a lineage, or the key of an alert group is that of a drill."""
    return name.startswith(PREFIX)


def is_over(request_id: str, now: datetime) -> bool:
    """Whether the time of a drill is up; of what is no drill it never is."""
    return is_drill(request_id) and now >= until_of(request_id)


def until_of(request_id: str) -> datetime:
    """When the time of a drill is up: long ago for a name that `drill_id` has not made."""
    try:
        return datetime.strptime(request_id.removeprefix(PREFIX).partition("-")[0], _UNTIL).replace(tzinfo=UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
