"""Shared by all tests. Hypothesis runs the same examples everywhere, so that a red run on CI is red at the desk."""

from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")
