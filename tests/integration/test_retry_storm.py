"""A small retry storm, simulated as for docs/explanation/retry-storm.md."""

import asyncio

from retry_storm import DEFAULT, UNGUARDED, Load, simulate

SMALL = Load(begins=30, ends=60, length=180)


def test_with_the_default_bounds_re_runs_do_no_harm_and_the_function_recovers_by_itself():
    story = asyncio.run(simulate(SMALL, DEFAULT))
    assert 1 < story.amplification() <= 1.1
    assert story.recovered_after < 40
    assert story.states["healed"] > 0


def test_without_bounds_the_same_load_is_a_storm():
    story = asyncio.run(simulate(SMALL, UNGUARDED))
    assert story.amplification() > 2
    assert story.recovered_after is None
