"""Where the daemon may connect to: receivers and endpoints are addresses that somebody wrote, or was redirected to.

Addresses are judged when they are connected to, so that it does not matter whether they came from a configuration, a
redirect, or a name that resolves to something else than yesterday.
"""

from __future__ import annotations

import errno
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

METADATA: Final = IPv4Address("100.100.100.200")
"""Who can ask it gets the keys of the machine's RAM role."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Judges addresses. Link-local ones, where clouds have their metadata, are never allowed.

    Attributes:
        names: patterns of host names. With ``networks`` the only places that are allowed; both empty: all others are.
    """

    names: tuple[str, ...] = ()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of(cls, allow: tuple[str, ...]) -> Guard:
        """From host names, with ``*`` for any part, and addresses or networks."""
        names, networks = [], []
        for entry in allow:
            try:
                networks.append(ip_network(entry, strict=False))
            except ValueError:
                names.append(entry.lower())
        return cls(tuple(names), tuple(networks))

    def refusal(self, address: str, *, name: str = "") -> str:
        """Why this address, which ``name`` stands for, must not be connected to; empty: it may."""
        shown = f"{name} ({address})" if name and name != address else address
        try:
            at = ip_address(address.partition("%")[0])  # an IPv6 address may name an interface
        except ValueError:
            return f"{shown} is no address"
        if isinstance(at, IPv6Address) and at.ipv4_mapped is not None:
            at = at.ipv4_mapped
        if at == METADATA or at.is_link_local or at.is_multicast or at.is_unspecified:
            return f"{shown} is a link-local or metadata address, which nothing is sent to"
        if not (self.names or self.networks) or any(at in network for network in self.networks):
            return ""
        if any(fnmatchcase(name.lower().rstrip("."), pattern) for pattern in self.names):
            return ""
        return f"{shown} is not in outbound.allow"


# ---------------------------------------------------------------- libraries that open connections of their own

_here: Final = threading.local()


@contextmanager
def guarding(guard: Guard) -> Iterator[list[str]]:
    """Judge whatever this thread connects to inside the block, by whichever library. Gives what was refused."""
    _install()
    refused: list[str] = []
    _here.guard, _here.name, _here.refused = guard, "", refused
    try:
        yield refused
    finally:
        _here.guard = None


@cache
def _install() -> None:
    # The only place where all of them come by: requests, smtplib and the others have no common one of their own.
    sys.addaudithook(_judge)


def _judge(event: str, args: tuple[Any, ...]) -> None:
    if event not in ("socket.getaddrinfo", "socket.connect"):
        return
    guard: Guard | None = getattr(_here, "guard", None)
    if guard is None:
        return
    if event == "socket.getaddrinfo":
        host = args[0]
        _here.name = host.decode("ascii", "replace") if isinstance(host, bytes) else host or ""
        return
    address = args[1]
    if not isinstance(address, tuple):  # a socket file, which is on this machine
        return
    if reason := guard.refusal(str(address[0]), name=_here.name):
        _here.refused.append(reason)
        raise PermissionError(errno.EACCES, reason)


# ---------------------------------------------------------------- our own session


def session(guard: Guard, *, limit: int) -> aiohttp.ClientSession:
    """A session that connects to nothing which ``guard`` refuses: that is an `aiohttp.ClientError` with the reason,
    which says that nothing was sent.

    Args:
        limit: connections at a time.
    """
    connector = aiohttp.TCPConnector(limit=limit, resolver=GuardedResolver(guard, aiohttp.DefaultResolver()))

    async def literal(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        host = request.url.host or ""
        try:
            ip_address(host.partition("%")[0])
        except ValueError:
            return await handler(request)  # a name: the resolver sees it
        if reason := guard.refusal(host):
            raise aiohttp.InvalidURL(request.url.origin(), reason)
        return await handler(request)

    return aiohttp.ClientSession(connector=connector, middlewares=(literal,))


class GuardedResolver(AbstractResolver):
    """Gives only addresses that may be connected to."""

    def __init__(self, guard: Guard, inner: AbstractResolver) -> None:
        self._guard, self._inner = guard, inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        refused = [self._guard.refusal(each["host"], name=host) for each in found]
        allowed = [each for each, reason in zip(found, refused, strict=True) if not reason]
        if not allowed and found:
            raise PermissionError(errno.EACCES, refused[0])
        return allowed

    async def close(self) -> None:
        await self._inner.close()
