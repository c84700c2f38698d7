"""Settings of the links that messages have."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from triage.alerts.links import Sites
from triage.settings.group import Group
from triage.settings.values import optional_url


class LinkSettings(Group):
    """Links in messages, to the vendor's consoles."""

    functions: Annotated[str, AfterValidator(optional_url)] = Sites().functions
    """The console of Function Compute. On the international site ``https://fcnext.console.alibabacloud.com``. Empty =
    no links to it."""
    logs: Annotated[str, AfterValidator(optional_url)] = Sites().logs
    """The console of Simple Log Service (SLS), for functions whose label ``logstore`` says ``PROJECT/LOGSTORE``. Empty
    = no links to it."""

    services: Annotated[str, AfterValidator(optional_url)] = Sites().services
    """The page of a function of FC 2.0 in the console: an address with ``{region}``, ``{service}`` and ``{function}``
    in it, which are filled in. Empty = no links to it: the vendor changes its form."""

    @property
    def sites(self) -> Sites:
        """The same, as links are made of."""
        return Sites(self.functions, self.logs, self.services)
