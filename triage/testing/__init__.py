"""Doubles for tests of triage, and of what people build around it: real behaviour without disk, network or waiting.

`MemoryStore` passes the same contract suite as the real stores. `ManualClock` moves only when told. `FakeSource` is a
queue with leases that run out on any clock, `FakeFunctions` the part of Function Compute that re-runs need. Each has
windows to look through: plain attributes that a test may read.

`Crashes` lets a process die at any of the points at which it waits for one of these, or for the real thing.
"""

from triage.testing.clock import ManualClock
from triage.testing.crashes import Crash, Crashes
from triage.testing.functions import FakeFunctions
from triage.testing.source import FakeSource
from triage.testing.store import MemoryStore

__all__ = ["Crash", "Crashes", "FakeFunctions", "FakeSource", "ManualClock", "MemoryStore"]
