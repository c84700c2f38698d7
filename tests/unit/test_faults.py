"""Seeded faults: repeatable, in the asked proportions, wrong rates refused."""

from collections import Counter

import pytest

from triage.emulator.faults import Fault, Faults


def draws(seed: int, rates: dict[str, float], operation: str = "SendMessage", times: int = 2000) -> list[Fault | None]:
    faults = Faults(seed, rates)
    return [faults.draw(operation) for _ in range(times)]


def test_same_seed_gives_same_faults() -> None:
    rates = {"lost_answer": 0.2, "throttled": 0.1}
    assert draws(7, rates) == draws(7, rates) != draws(8, rates)


def test_rates_are_kept_and_an_operations_own_goes_before_the_general_one() -> None:
    rates = {"throttled": 0.5, "delay": 0.25, "DeleteMessage:throttled": 0.0}
    sends, deletes = Counter(draws(1, rates)), Counter(draws(1, rates, "DeleteMessage"))
    assert 900 < sends[Fault.THROTTLED] < 1100
    assert 400 < sends[Fault.DELAY] < 600
    assert 400 < sends[None] < 600
    assert set(deletes) == {Fault.DELAY, None}


def test_no_rates_no_faults_and_full_rate_always() -> None:
    assert set(draws(1, {})) == {None}
    assert set(draws(1, {"duplicate": 1.0})) == {Fault.DUPLICATE}


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"explode": 0.1}, "unknown fault 'explode'"),
        ({"delay": 1.5}, "between 0 and 1"),
        ({"delay": -0.1}, "between 0 and 1"),
        ({"delay": 0.6, "throttled": 0.6}, "add up to 1.2"),
        ({"delay": 0.6, "SendMessage:throttled": 0.6}, "rates of SendMessage add up"),
    ],
)
def test_wrong_rates_are_refused(rates: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Faults(1, rates)
