"""A queue full of results of every kind, what the functions do when they are run again, and what must come of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import make
from processes import Emulation, Running, alerts, ask, tasks, totals

SCENARIO = """
version: 1
speed: 1000
queues: [results]
functions:
  again:                        # succeeds when it is run again
    async: {task: true, retries: 0, on_success: results, on_failure: results}
"""

RULES = """
version: 1
rules:
  - id: once-more
    match: {function: again}
    rerun: {after: 0s, max_attempts: 1, give_up_after: 1h}
    alert: {on: [exhausted, refused, unknown, overdue], group_wait: 1s, group_interval: 1s}
  - id: noise
    match: {function: noise}
    ignore: it is known to fail
  - id: tell
    alert: {to: default, group_by: [function], group_wait: 1s, group_interval: 1s, repeat_interval: 0s, resolved: false}
"""


def body(function: str, number: int) -> bytes:
    """The result of a failed invocation; its event says which."""
    arn = f"acs:fc:cn-hangzhou:1000000000000001:functions/{function}"
    return make.body(f"1-{function}-{number:06}", arn=arn, payload=f'{{"number":{number}}}')


@dataclass(frozen=True)
class Workload:
    """Of any forty messages ten are to be re-run, eighteen are ignored, ten are told, one comes twice, and one is
    garbage.
    """

    size: int

    @cached_property
    def bodies(self) -> list[bytes]:
        """The messages in the order they are sent."""
        return [self._body(number) for number in range(self.size)]

    @staticmethod
    def _body(number: int) -> bytes:
        match number % 40:
            case 38:
                return body("noise", number - 3)
            case 39:
                return b'{"requestContext": {"number": %d' % number
            case rest if rest % 4 == 0:
                return body("again", number)
            case rest if rest % 4 == 1:
                return body(f"broken-{rest // 8}", number)
        return body("noise", number)

    @cached_property
    def reruns(self) -> Counter[str]:
        """Events that must be accepted once more."""
        return Counter(f'{{"number":{number}}}' for number in range(self.size) if self._is(number, b":functions/again"))

    @cached_property
    def told(self) -> Counter[str]:
        """Alerts by what their titles say."""
        return Counter(
            f"broken-{number % 40 // 8} failed: InvocationError"
            for number in range(self.size)
            if self._is(number, b":functions/broken-")
        )

    def _is(self, number: int, mark: bytes) -> bool:
        return mark in self._body(number)

    @cached_property
    def garbage(self) -> int:
        """Messages that cannot be read."""
        return sum(number % 40 == 39 for number in range(self.size))

    @cached_property
    def unique(self) -> int:
        """Different results that were sent."""
        return self.size - 2 * self.garbage

    def is_done(self, state: Path) -> bool:
        """Everything has come to its end, as far as the store knows."""
        now = totals(state)
        return (
            now is not None
            and now.states.get("healed", 0) == self.reruns.total()
            and now.states.get("alerted", 0) == self.told.total()
            and now.quarantined >= self.garbage
            and now.decided == self.unique + self.reruns.total()
        )

    def check(self, emulation: Emulation, running: Running, state: Path, *, disturbed: bool = False) -> int:
        """Nothing lost, nothing done twice, the queue is empty, all commands agree. Gives how many notifications were
        repeated. ``disturbed``: the queue may have delivered again what was not acknowledged in time.
        """
        assert running.until(lambda: emulation.queue() == (0, 0))
        assert tasks(emulation.url, "again") == self.reruns
        sums = ask("status", state=state)
        assert sums["adds_up"]
        assert sums["decided"] == self.unique + self.reruns.total()
        assert sums["conflicts"] == 0
        again = sums["duplicates"] + sums["quarantined"] - 2 * self.garbage
        assert sums["received"] == self.size + self.reruns.total() + again
        assert again >= 0 if disturbed else again == 0
        assert sums["states"] == {
            "healed": self.reruns.total(),
            "alerted": self.told.total(),
            "ignored": self.unique - self.reruns.total() - self.told.total(),
        }
        assert set(sums["outbox"]) <= {"flush"}
        kept = ask("quarantine", "list", "--limit", 10_000, state=state)
        assert len({entry["message_id"] for entry in kept}) == self.garbage
        assert len(kept) == sums["quarantined"]
        told, repeated = alerts(running.out)
        quarantine = {what: times for what, times in told.items() if "could not be read" in what}
        assert Counter(told) - Counter(quarantine) == self.told
        return repeated
