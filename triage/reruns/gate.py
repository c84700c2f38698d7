"""The gates that a re-run passes at the moment it is submitted, and what is known there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from triage.reruns.switches import Switch


class Gate(StrEnum):
    """Where a re-run waits."""

    SWITCH = "switch"  # it is switched off
    PAUSED = "paused"  # a person has put this one aside


@dataclass(frozen=True, slots=True)
class GateFacts:
    """What is known at the gates about one re-run, inside the transaction.

    Attributes:
        switches: all that are off.
    """

    switches: tuple[Switch, ...] = ()
