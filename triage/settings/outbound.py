"""Where the daemon may connect to."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

from triage.settings.group import Group
from triage.settings.values import text_lines


def _place(value: str) -> str:
    try:
        ip_network(value, strict=False)
    except ValueError:
        if not re.fullmatch(r"(?=.*[A-Za-z*])[A-Za-z0-9*_-]+(\.[A-Za-z0-9*_-]+)*", value):
            raise ValueError(
                f"{value!r} is neither a host name (*.aliyuncs.com) nor an address or a network (10.0.0.0/8)"
            ) from None
    return value


Places = Annotated[tuple[Annotated[str, AfterValidator(_place)], ...], NoDecode, BeforeValidator(text_lines)]


class OutboundSettings(Group):
    """Where receivers and endpoints may be."""

    allow: Places = ()
    """Host names (``*`` stands for any part), addresses and networks; nothing else is connected to then. Empty = all,
    but for link-local addresses and the cloud's metadata address, which are never connected to."""
