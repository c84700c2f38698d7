"""Warnings that repeat themselves are counted, and nothing that is said once is lost."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.repeats import SHOWN, WINDOW, Repeats, message_of


class Bench:
    """The filter with a clock that is moved, and all that was written."""

    def __init__(self) -> None:
        self.at, self.written, self._timers = 100.0, [], []
        self.filter = Repeats(self._write, now=lambda: self.at, later=self._later)

    def _write(self, record: logging.LogRecord) -> None:
        assert self.filter.filter(record)
        self.written.append(record.getMessage())

    def _later(self, seconds: float, call) -> None:
        self._timers.append((self.at + seconds, call))

    def move(self, seconds: float) -> None:
        self.at += seconds
        due = [timer for timer in self._timers if timer[0] <= self.at]
        self._timers = [timer for timer in self._timers if timer[0] > self.at]
        for _, call in due:
            call()

    def say(self, text: str, *args: object, level: int = logging.WARNING, name: str = "triage") -> None:
        record = logging.LogRecord(name, level, "f.py", 1, text, args, None)
        if self.filter.filter(record):
            self.written.append(record.getMessage())


def test_the_first_few_are_written_and_the_rest_is_counted():
    bench = Bench()
    for number in range(317):
        bench.say("message %d quarantined", number)
    assert bench.written == [f"message {number} quarantined" for number in range(SHOWN)]
    bench.move(WINDOW)
    assert bench.written[SHOWN:] == ["repeated 312 times in 60 s; the last: message 316 quarantined"]
    bench.say("message %d quarantined", 400)  # a new minute begins
    assert bench.written[-1] == "message 400 quarantined"
    bench.move(WINDOW)
    assert len(bench.written) == SHOWN + 2


def test_a_timer_that_comes_late_loses_nothing():
    bench = Bench()
    for _ in range(7):
        bench.say("again")
    bench.at += WINDOW + 5  # nobody called
    bench.say("again")
    assert bench.written == ["again"] * 5 + ["repeated 2 times in 65 s; the last: again", "again"]
    bench.move(0)
    assert len(bench.written) == 7, "told twice"


def test_kinds_are_apart_by_logger_level_and_template():
    bench = Bench()
    for _ in range(SHOWN):
        bench.say("%s failed", "a")
    for more in ({"name": "other"}, {"level": logging.ERROR}):
        bench.say("%s failed", "a", **more)
    bench.say("%s failed", "b")
    bench.say("%s is full", "b")
    assert bench.written == ["a failed"] * SHOWN + ["a failed", "a failed", "b is full"]


@pytest.mark.parametrize("template", ["%s", "%s: %s", "[%r]"])
def test_a_template_that_says_nothing_is_no_kind(template: str):
    bench = Bench()
    for number in range(20):
        bench.say(template, *[number] * template.count("%"))
    assert len(bench.written) == 20


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO, logging.CRITICAL])
def test_lines_about_effects_and_the_end_are_never_left_out(level: int):
    bench = Bench()
    for _ in range(50):
        bench.say("the same", level=level)
    assert len(bench.written) == 50


def test_at_the_end_all_counts_are_told():
    bench = Bench()
    for name in ("a", "b"):
        for _ in range(SHOWN + 3):
            bench.say(f"{name} fails")
    bench.filter.end()
    assert bench.written[-2:] == [f"repeated 3 times in 0 s; the last: {name} fails" for name in "ab"]
    bench.move(2 * WINDOW)
    assert len(bench.written) == 2 * SHOWN + 2


def test_messages_that_are_all_different_take_no_memory():
    bench = Bench()
    for number in range(5000):
        bench.say(f"library says {number}")
    assert len(bench.written) == 5000
    assert len(bench.filter._kinds) <= 1000


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 40)), max_size=200))
def test_what_is_written_and_what_is_counted_is_all_that_was_said(said: list[tuple[str, float]]):
    bench = Bench()
    for text, pause in said:
        bench.say(f"{text} fails")
        bench.move(pause)
    bench.filter.end()
    counted = sum(int(line.split()[1]) for line in bench.written if line.startswith("repeated"))
    assert counted + sum(not line.startswith("repeated") for line in bench.written) == len(said)


@pytest.mark.parametrize(
    ("text", "args", "shown"),
    [
        ("%d of %s", ("x", 1), "%d of %s ('x', 1)"),
        ("50 %", (), "50 %"),
        ("%s", (), "%s"),
        ("%(a)s", ({"b": 1},), "%(a)s"),
    ],
)
def test_a_library_s_mistake_in_a_message_is_no_error(text: str, args: tuple, shown: str):
    assert message_of(logging.LogRecord("x", logging.INFO, "f.py", 1, text, args, None)) == shown
