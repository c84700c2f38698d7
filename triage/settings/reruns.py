"""The settings of re-runs."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field

from triage.orders import Limits
from triage.reruns.breaker import Tripping
from triage.reruns.budget import Allowance
from triage.reruns.gate import Safeguards
from triage.reruns.rate import Rate
from triage.settings.group import Group
from triage.settings.values import Duration, Positive


class RerunSettings(Group):
    """Re-runs: what people may ask for (rules have limits of their own), what keeps them from doing harm, what stops
    them.
    """

    max_attempts: Annotated[int, Field(ge=1, le=1000)] = 20
    """Most re-runs of one failure, those included that rules planned."""
    give_up_after: Positive = timedelta(days=30)
    """How long after the first failure it may be run again."""
    rate: Annotated[float, Field(ge=0.001, le=1_000_000)] = 50.0
    """Most re-runs a second, over all functions. Who is over it waits for a turn of its own."""
    function_rate: Annotated[float, Field(ge=0.001, le=1_000_000)] = 10.0
    """Most re-runs a second of one function. While the provider refuses some of them as too many it is less."""
    slow_start: Duration = timedelta(minutes=1)
    """How long the rate takes to grow from a tenth to all, after a start, after ``triage switch on``, and of a function
    after its breaker has closed. ``0s`` = all at once."""
    budget_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Re-runs that a function earns for each success of a first run; a rule may say otherwise. ``0`` = only
    ``budget_floor``."""
    budget_floor: Annotated[float, Field(ge=0, le=1_000_000)] = 10.0
    """Re-runs a minute that every function may have, whatever its successes. It is all there is for a function whose
    destination gets failures only. A very high one switches the budget off."""
    budget_cap: Annotated[float, Field(ge=0, le=1_000_000)] = 100.0
    """Re-runs that a function can save up by its successes."""
    breaker_failures: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """After so many re-runs of a function that failed in a row none is submitted for ``breaker_pause``. A very high one
    and ``breaker_share = 1`` switch the breaker off, but for functions of which every re-run fails."""
    breaker_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """The same when this share of a function's re-runs has failed, of at least 20 in 10 minutes."""
    breaker_pause: Positive = timedelta(seconds=30)
    """Pause until a single re-run finds out whether it helps again; doubled each time when it does not."""
    breaker_pause_max: Positive = timedelta(minutes=10)
    """The longest pause."""
    elsewhere_within: Duration = timedelta(hours=12)
    """A result belongs to an open failure with the same event as a re-run that somebody made elsewhere, in the console
    say, if something happened to that failure no longer ago than this and nothing else comes into question. ``0s`` =
    never."""
    stop_file: Path = Path("STOP")
    """While this file exists, nothing is run again; relative to ``state_dir``. Its first line is shown as the
    reason."""
    plan_max_age: Positive = timedelta(hours=24)
    """A plan that was made longer ago must be made again before it is applied: much may have changed since."""

    @property
    def guards(self) -> Safeguards:
        """The same, as the gates go by."""
        return Safeguards(
            Rate(self.rate, self.slow_start),
            Rate(self.function_rate, self.slow_start),
            Allowance(self.budget_share, self.budget_floor, self.budget_cap),
            Tripping(self.breaker_failures, self.breaker_share, self.breaker_pause, self.breaker_pause_max),
        )

    @property
    def limits(self) -> Limits:
        """The same, as orders are judged by."""
        return Limits(self.max_attempts, self.give_up_after)
