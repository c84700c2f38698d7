"""Web addresses to look at a failure: the console of Function Compute, the logs of one request. Pure.

The forms of the addresses are those that the vendor's own tools print; there is none for a single asynchronous task.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import quote

from triage.rules.model import Cause
from triage.views import GroupView

LOGSTORE: Final = "labels.logstore"
"""The label of a function that says where its logs are: ``PROJECT/LOGSTORE``."""

_AROUND: Final = timedelta(minutes=15)
"""The logs of a request lie before its result; a function runs for a day at most, most of them for minutes."""

_REGION: Final = re.compile(r"[a-z]{2}-[a-z0-9-]{2,30}", re.ASCII)
_FUNCTION: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,127}", re.ASCII)
_PLACE: Final = re.compile(r"([a-z0-9][a-z0-9-]{1,62})/([A-Za-z0-9][A-Za-z0-9_-]{0,62})", re.ASCII)
_REQUEST: Final = re.compile(r"[0-9A-Za-z-]{1,128}", re.ASCII)
_NONE: Final = frozenset({Cause.QUARANTINED, Cause.RULES_REFUSED, Cause.PLAN_STOPPED})


@dataclass(frozen=True, slots=True)
class Link:
    """A web address, and what it shows in a word or two."""

    label: str
    url: str


@dataclass(frozen=True, slots=True)
class Sites:
    """Where the consoles of Function Compute and of Simple Log Service (SLS) are; empty: no links. ``services`` is the
    whole address of a function of FC 2.0, with ``{region}``, ``{service}`` and ``{function}`` in it.
    """

    functions: str = "https://fcnext.console.aliyun.com"
    logs: str = "https://sls.console.aliyun.com"
    services: str = ""


DEFAULT_SITES: Final = Sites()


def links_of(view: GroupView, sites: Sites) -> tuple[Link, ...]:
    """Where to look. Only what is spelt as the vendor spells it gets into an address: the rest is from outside."""
    return tuple(_links(view, sites)) if not _NONE & view.causes.keys() else ()


def _links(view: GroupView, sites: Sites) -> Iterator[Link]:
    labels = view.group.labels
    name, region = labels["function"], labels.get("region", "")
    service, slash, own = name.rpartition("/")
    if slash:  # a function of FC 2.0, whose pages stand elsewhere
        yield from _of_service(sites.services, region, service, own)
        return
    if not _FUNCTION.fullmatch(name):
        return
    if sites.functions and _REGION.fullmatch(region):
        page = f"{sites.functions}/{region}/functions/{name}"
        yield Link("Console", f"{page}?tab=detail&section=code")
        if not labels.get(LOGSTORE):
            yield Link("Logs", f"{page}?tab=logging")
    if sites.logs and (search := _search(labels, name, view)):
        yield Link("Logs", f"{sites.logs}{search}")


def _of_service(address: str, region: str, service: str, function: str) -> Iterator[Link]:
    spelt_right = _REGION.fullmatch(region) and _FUNCTION.fullmatch(service) and _FUNCTION.fullmatch(function)
    if address and spelt_right:
        for name, value in (("region", region), ("service", service), ("function", function)):
            address = address.replace(f"{{{name}}}", value)
        yield Link("Console", address)


def _search(labels: Mapping[str, str], name: str, view: GroupView) -> str:
    place = _PLACE.fullmatch(labels.get(LOGSTORE, ""))
    if place is None or not view.samples:
        return ""
    sample = view.samples[0]
    query = f'__topic__:"FCLogs:{name}"'
    if _REQUEST.fullmatch(sample.request_id):
        query += f' and "{sample.request_id}"'
    begin, end = _second(sample.at - _AROUND), _second(sample.at + _AROUND / 15)
    span = f"queryTimeType=99&startTime={begin}&endTime={end}"
    return f"/lognext/project/{place[1]}/logsearch/{place[2]}?{span}&queryString={quote(query, safe='')}"


def _second(at: datetime) -> int:
    return int(at.timestamp())
