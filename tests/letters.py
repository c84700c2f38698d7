"""A real mail server on loopback, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aiosmtpd.smtp import SMTP


class Letters:
    """Takes what is sent to it, but what has ``refused`` in it; what has ``slowly`` in it when ``release`` is set."""

    def __init__(self) -> None:
        self.taken, self.release, self.port = [], threading.Event(), 0

    @property
    def url(self) -> str:
        return f"mailto://127.0.0.1:{self.port}?from=triage@x.test&to=ops@x.test&mode=insecure"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's name
        if b"slowly" in envelope.content:
            await asyncio.to_thread(self.release.wait, 30)
        if b"refused" in envelope.content:
            return "451 come again later"
        self.taken.append(envelope)
        return "250 taken"


@contextmanager
def post_office() -> Iterator[Letters]:
    letters, opened = Letters(), threading.Event()
    loop, over = asyncio.new_event_loop(), asyncio.Event()

    async def serve():
        async with await loop.create_server(lambda: SMTP(letters, loop=loop), "127.0.0.1", 0) as server:
            letters.port = server.sockets[0].getsockname()[1]
            opened.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    opened.wait(10)
    try:
        yield letters
    finally:
        letters.release.set()
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()
