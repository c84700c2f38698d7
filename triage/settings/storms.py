"""Settings of storms of alerts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from triage.settings.group import Group


class StormSettings(Group):
    """Storms: many groups of alerts that begin to fail at once are told in summaries."""

    groups: Annotated[int, Field(ge=0, le=100_000)] = 20
    """So many that begin within five minutes are a storm; it is over when none of them has failed for as long. ``0`` =
    never."""
