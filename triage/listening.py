"""Hears what a far side answers over HTTP to a call that is made by a library of others, in this thread.

apprise says of a message only whether it arrived. Its services speak HTTP through requests, and that through urllib3,
whose pools of connections are looked up in a table by scheme. Ours stand in that table: they do what theirs do, and
note the answer for whoever listens in the same thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, HTTPError, MaxRetryError, NewConnectionError, SSLError
from urllib3.poolmanager import pool_classes_by_scheme

_NO_CONNECTION: Final = (ConnectTimeoutError, NewConnectionError, SSLError)


@dataclass(slots=True)
class Heard:
    """What came of the last request of a call.

    Attributes:
        status: of the answer; None when there was none.
        retry_after: that header's text.
        lost: the request left, or part of it, and no answer came.
        refused: there was no connection.
    """

    status: int | None = None
    retry_after: str = ""
    lost: bool = False
    refused: bool = False


_here = threading.local()


@contextmanager
def listening() -> Iterator[Heard]:
    """Hear the answers to the requests that are made inside, by this thread."""
    pool_classes_by_scheme.update({"http": _Http, "https": _Https})
    heard = _here.heard = Heard()
    try:
        yield heard
    finally:
        del _here.heard


class _Listening(HTTPConnectionPool):
    def urlopen(self, *args: Any, **kwargs: Any) -> Any:
        heard: Heard | None = getattr(_here, "heard", None)
        if heard is None:
            return super().urlopen(*args, **kwargs)
        heard.status, heard.retry_after, heard.lost, heard.refused = None, "", False, False
        try:
            answer = super().urlopen(*args, **kwargs)
        except HTTPError as error:
            cause = error.reason if isinstance(error, MaxRetryError) else error
            heard.refused = isinstance(cause, _NO_CONNECTION)
            heard.lost = not heard.refused
            raise
        heard.status, heard.retry_after = answer.status, answer.headers.get("Retry-After", "")
        return answer


class _Http(_Listening):
    pass


class _Https(_Listening, HTTPSConnectionPool):
    pass
