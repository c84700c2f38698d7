"""The settings in force, and what the parts of the daemon are given of them. Some can change while it runs; of the
others, those that were changed are named.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from pydantic import BaseModel

from triage.alerts.maintenance import Maintenance
from triage.alerts.routing import Route
from triage.alerts.watching import Watch
from triage.errors import ConfigInvalid, Problem
from triage.log import redactor, secrets_of
from triage.notify import ReceiverConfig
from triage.reading import Labels
from triage.rules.mistakes import did_you_mean
from triage.rules.model import AlertPolicy
from triage.rules.values import function_name
from triage.settings import LabelSettings, Loaded, RetentionSettings, Settings
from triage.stores.retention import Cutoffs

log = logging.getLogger(__name__)

LIVE: Final = (
    "receivers",
    "owners",
    "arrivals",
    "maintenance",
    "digest",
    "labels",
    "quarantine",
    "retention",
    "links",
    "log",
)
"""Groups of settings that a reload puts in force."""


class Configuration:
    """Holds the settings; `reload` reads them again."""

    def __init__(self, settings: Settings, *, read: Callable[[], Settings] | None = None) -> None:
        """``read`` reads and checks the settings anew, in a thread; without it nothing ever changes."""
        self.settings = settings
        self.problems: Sequence[Problem] = ()
        """What keeps the settings, as they were read last, from being in force."""
        self._read, self._secrets = read, secrets_of(settings)
        self._redact = redactor(self._secrets)

    def redact(self, text: str) -> str:
        """Take secrets out of a text: those in force, and those that were before."""
        return self._redact(text)

    async def reload(self, take: Callable[[Settings], Awaitable[None]]) -> None:
        """Read the settings; put in force what can be, all of it or nothing. What is wrong is told and changes nothing.

        Args:
            take: does so. It may refuse with `ConfigInvalid`, before it has changed anything.
        """
        if self._read is None:
            return
        try:
            new = await asyncio.to_thread(self._read)
            self._secrets |= secrets_of(new)
            self._redact = redactor(self._secrets)
            await take(new)
        except ConfigInvalid as error:
            self.problems = error.problems
            log.error("the settings cannot be used; those before them stay in force")  # noqa: TRY400
            for problem in error.problems:
                for line in str(problem).splitlines():
                    log.error("%s", line)  # noqa: TRY400
            return
        self.problems = ()
        live = {name: getattr(new, name) for name in LIVE}
        changed = [name for name, value in live.items() if value != getattr(self.settings, name)]
        self.settings = self.settings.model_copy(update=live)
        waiting = needs_restart(self.settings, new)
        log.info("settings read again; changed: %s", ", ".join(changed) or "nothing")
        if waiting:
            log.warning("these settings were changed and come into force at a restart: %s", ", ".join(waiting))


def needs_restart(before: BaseModel, after: BaseModel, path: str = "") -> list[str]:
    """The settings that differ, by name; of a list only that it does."""
    names: list[str] = []
    for name in type(before).model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(old, BaseModel) and isinstance(new, BaseModel):
            names += needs_restart(old, new, f"{path}{name}.")
        elif old != new:
            names.append(f"{path}{name}")
    return names


def labels_of(given: Sequence[LabelSettings]) -> Labels:
    """The labels of a function by its name: of several entries that set the same one, the first counts."""
    table = [(function_name(entry.function), entry.set) for entry in given]

    @lru_cache(maxsize=4096)
    def labels(function: str) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for matches, entry in reversed(table):
            if matches(function):
                found |= entry
        return found

    return labels


def receivers_of(settings: Settings) -> dict[str, ReceiverConfig]:
    """The receivers, by name, with their addresses in the clear."""
    return {
        name: ReceiverConfig(tuple(url.get_secret_value() for url in receiver.urls), receiver.timeout, receiver.format)
        for name, receiver in settings.receivers.items()
    }


def templates_of(settings: Settings) -> dict[str, str]:
    """The templates that receivers want, by their names."""
    return {name: receiver.template for name, receiver in settings.receivers.items() if receiver.template}


def missing_templates(loaded: Loaded, templates: Collection[str]) -> list[Problem]:
    """The receivers whose template is not among those beside the rules: they get the built-in messages."""
    return [
        loaded.problem(
            ("receivers", receiver, "template"),
            f"there is no template {name!r} beside the rules",
            did_you_mean(name, templates, listed=True) or f"{name}.txt.j2, {name}.md.j2 or {name}.html.j2",
        )
        for receiver, name in templates_of(loaded.settings).items()
        if name not in templates
    ]


def quarantine_policy(settings: Settings) -> AlertPolicy | None:
    """Who hears of messages that cannot be read; None when nobody does."""
    if not settings.quarantine.alert:
        return None
    return AlertPolicy(
        to=settings.quarantine.to,
        group_by=("fingerprint",),
        group_wait=settings.quarantine.group_wait,
        group_interval=max(settings.quarantine.group_wait, timedelta(minutes=5)),
    )


def cutoffs_at(now: datetime, kept: RetentionSettings) -> Cutoffs:
    """What is old at an instant."""
    return Cutoffs(
        **{name: now - age if (age := getattr(kept, name)) else None for name in RetentionSettings.model_fields}
    )


def routes_of(settings: Settings) -> dict[str, Route]:
    """How messages go to the receivers, by name."""
    return {name: receiver.route for name, receiver in settings.receivers.items()}


def watches_of(settings: Settings) -> list[Watch]:
    """What has to arrive."""
    return [arrival.watch for arrival in settings.arrivals]


def maintenance_of(settings: Settings) -> list[Maintenance]:
    """What is silenced again and again."""
    return [each.maintenance for each in settings.maintenance]
