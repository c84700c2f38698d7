"""Access keys: given ones, or the vendor's default chain, asked off the event loop.

The chain (https://help.aliyun.com/document_detail/378659.html) is the official package's own: environment, OIDC role
of a Kubernetes service account, CLI profile, credentials file, role of the ECS instance, credentials URI.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Protocol

from triage.clock import Clock
from triage.cloud.signing import Credentials
from triage.errors import Misconfigured, Temporary

FRESH_FOR: Final = timedelta(seconds=60)
"""How long an answer of the chain is used without asking again. The package does not tell when a key expires, but it
renews 15 minutes before that, and asking it costs nothing in between."""

Load = Callable[[], Credentials]
Connect = Callable[[], Load]


class CredentialsProvider(Protocol):
    """Where requests get their access key from."""

    async def get(self) -> Credentials:
        """The key to sign with now; cheap enough for every request.

        Raises:
            Misconfigured: there is no key; says which variables and files were looked at.
            Temporary: there was one, and its renewal fails.
        """
        ...

    async def refresh(self, refused: Credentials | None = None) -> None:
        """Forget what is cached, because the far side refused it. Callers that were refused with the same key at the
        same time cause one renewal when they pass that key.
        """
        ...


class StaticCredentials:
    """A key that never changes."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def get(self) -> Credentials:
        return self._credentials

    async def refresh(self, refused: Credentials | None = None) -> None:
        """Nothing to renew."""


class ChainCredentials:
    """The vendor's default chain, or whatever ``connect`` makes: a blocking function that returns the current key.

    The first `get` imports the vendor's package, which reads the environment then and never again. One caller asks
    (in a thread), the others wait for its answer. `refresh` connects anew, so changed files are read again.
    """

    def __init__(self, clock: Clock, *, connect: Connect | None = None) -> None:
        self._clock = clock
        self._connect = connect or vendor_chain
        self._load: Load | None = None
        self._known: Credentials | None = None
        self._asked_at: datetime | None = None
        self._lock = asyncio.Lock()

    async def get(self) -> Credentials:
        if (fresh := self._fresh()) is not None:
            return fresh
        async with self._lock:
            return self._fresh() or await self._ask()

    async def refresh(self, refused: Credentials | None = None) -> None:
        async with self._lock:
            if refused is None or refused == self._known:
                self._load = self._asked_at = None

    def _fresh(self) -> Credentials | None:
        if self._asked_at is None:
            return None
        age = self._clock.now() - self._asked_at
        return self._known if timedelta(0) <= age < FRESH_FOR else None

    async def _ask(self) -> Credentials:
        try:
            self._known = await asyncio.to_thread(self._ask_blocking)
        except Misconfigured as error:
            if self._known is None:
                raise
            # There was a key, so the configuration is not at fault: the place it came from does not answer.
            raise Temporary("credentials_unavailable", error.detail) from None
        self._asked_at = self._clock.now()
        return self._known

    def _ask_blocking(self) -> Credentials:
        if self._load is None:
            self._load = self._connect()
        return self._load()


def vendor_chain() -> Load:
    """Connect to the default chain of ``alibabacloud-credentials``. Blocks for the import (about a second)."""
    from alibabacloud_credentials.client import Client  # noqa: PLC0415 - slow, and it reads the environment

    # Importing it gives its loggers handlers of their own and a level, and it logs answers that may hold keys.
    for name in ("credentials", "alibabacloud-tea"):
        logger = logging.getLogger(name)
        for handler in tuple(logger.handlers):
            logger.removeHandler(handler)
        logger.disabled = True
    client: Client | None = None

    def load() -> Credentials:
        nonlocal client
        try:
            if client is None:
                client = Client()
            found = client.get_credential()
        except Exception as error:  # noqa: BLE001 - the package raises any of its dependencies' errors
            raise Misconfigured("no_credentials", _advice(error)) from None
        if not (found.access_key_id and found.access_key_secret):
            raise Misconfigured("no_credentials", _advice(None))
        return Credentials(found.access_key_id, found.access_key_secret, found.security_token or "")

    return load


def _advice(error: Exception | None) -> str:
    # The package's text may quote answers with keys in them: only the names of what was tried and HTTP codes are kept.
    text = str(getattr(error, "message", error))
    tried = ", ".join(dict.fromkeys(re.findall(r"\b(\w+)CredentialsProvider\b", text)))
    codes = ", ".join(dict.fromkeys(re.findall(r"http_?code\s*=\s*(\d{3})\b", text, re.IGNORECASE)))
    return (
        "no access key was found"
        + (f" (tried {tried})" if tried else "")
        + (f" (HTTP {codes} from the credentials' endpoint)" if codes else "")
        + ": set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET (and ALIBABA_CLOUD_SECURITY_TOKEN for"
        " a temporary key), or give the host, the pod or ~/.alibabacloud/credentials.ini a RAM role or key,"
        " or set access_key_id and access_key_secret under [credentials] in triage's configuration"
    )
