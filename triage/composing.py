"""Writes the messages of the daemon: what its rules, receivers and settings say of them at that moment."""

from __future__ import annotations

from collections.abc import Callable, Collection

from triage.alerts.compose import Texts, built_in
from triage.alerts.links import DEFAULT_SITES, Sites
from triage.alerts.render import Format
from triage.changes import GroupView


class Composer:
    """A `triage.alerts.compose.Compose`. It is called in the thread that writes to the store."""

    def __init__(self, *, forms: Callable[[str], Collection[Format]], sites: Sites = DEFAULT_SITES) -> None:
        """``forms`` tells what a receiver can show beside plain text."""
        self._forms, self._sites = forms, sites

    def use(self, *, sites: Sites) -> None:
        """Write like this from now on."""
        self._sites = sites

    def __call__(self, view: GroupView, code: str, receiver: str) -> Texts:
        return built_in(view, code, receiver, forms=self._forms(receiver), sites=self._sites)
