"""The gates that a re-run, or a notification, passes at the moment it goes out, and what is known there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from triage.reruns.breaker import Breaker, Tripping
from triage.reruns.budget import Allowance, Budget
from triage.reruns.rate import Pace, Rate
from triage.reruns.switches import Switch


class Gate(StrEnum):
    """Where a row waits."""

    SWITCH = "switch"  # it is switched off
    BREAKER = "breaker"  # re-runs of this function fail
    BUDGET = "budget"  # the function has no re-run left
    FUNCTION_RATE = "function_rate"  # others of this function go first
    RATE = "rate"  # others go first
    QUIET = "quiet_hours"  # its receiver is not to be disturbed now
    RECEIVER_RATE = "receiver_rate"  # its receiver has had as many messages as it wants
    PASSED = "passed"  # nowhere: it is let through, and its submit may be under way


GATES: Final = (Gate.SWITCH, Gate.BREAKER, Gate.BUDGET, Gate.FUNCTION_RATE, Gate.RATE)
"""Those of re-runs, in the order in which they are passed."""

AWAITED: Final = (Gate.BREAKER, Gate.BUDGET)
"""Gates at which nobody knows when they open: what waits there is let go by the function's ``wake`` row."""


@dataclass(frozen=True, slots=True)
class Safeguards:
    """What the gates go by; in all units of time as their parts say."""

    rate: Rate = Rate(50, timedelta(minutes=1))
    """Of all re-runs together."""
    function_rate: Rate = Rate(10, timedelta(minutes=1))
    budget: Allowance = Allowance(share=0.1, floor=10, cap=100)
    breaker: Tripping = Tripping(failures=10, share=0.5, pause=timedelta(seconds=30), longest=timedelta(minutes=10))


@dataclass(frozen=True, slots=True)
class Standing:
    """How a function stands with its re-runs; with no name, how all together do, of which only the pace counts."""

    function: str = ""
    pace: Pace = Pace()
    budget: Budget = Budget()
    breaker: Breaker = Breaker()


@dataclass(frozen=True, slots=True)
class Heard:
    """What the results of one batch tell about one function.

    Attributes:
        successes: of first runs.
        ok, bad: results of re-runs.
        streak: those that failed after the last that succeeded.
    """

    function: str
    successes: int = 0
    ok: int = 0
    bad: int = 0
    streak: int = 0

    @property
    def succeeded(self) -> int:
        """Successes of all runs."""
        return self.successes + self.ok


@dataclass(frozen=True, slots=True)
class GateFacts:
    """What is known at the gates about one re-run, inside the transaction.

    Attributes:
        switches: all that are off.
        own: how its function stands.
        every: how all re-runs together stand.
        waiting: re-runs of the function that wait until they are let go.
    """

    switches: tuple[Switch, ...] = ()
    own: Standing = Standing()
    every: Standing = Standing()
    waiting: int = 0
