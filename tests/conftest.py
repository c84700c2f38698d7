"""Shared by all tests. Hypothesis runs the same examples everywhere, so that a red run on CI is red at the desk."""

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from triage.repeats import CountingHandler

settings.register_profile("default", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


@pytest.fixture(autouse=True)
def _no_log_is_left_behind() -> Iterator[None]:
    """A test that configured the log as the daemon does it leaves none to the next one."""
    yield
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, CountingHandler)]:
        root.removeHandler(handler)
        handler.close()
        root.setLevel(logging.WARNING)
