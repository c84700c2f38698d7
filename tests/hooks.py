"""Web hooks on loopback that answer as their paths say."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from urllib.parse import unquote


class Hooks(ThreadingHTTPServer):
    """``/ok`` takes everything, ``/broken`` answers 500, ``/slow`` does not answer before ``release``, ``/cut`` hangs up,
    ``/say/429/60`` answers with that status and ``Retry-After``. ``taken`` is what came, ``at`` when.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Hook)
        self.taken, self.at, self.release = [], [], threading.Event()

    def url(self, path, query=""):
        return f"json://127.0.0.1:{self.server_port}/{path}{query}"

    def got(self, path):
        return [body for where, body in self.taken if where == f"/{path}"]


class _Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.taken.append((self.path, body))
        self.server.at.append((self.path, monotonic()))
        if self.path.startswith("/slow"):
            self.server.release.wait(10)
        if self.path.startswith("/cut"):
            self.close_connection = True
            return
        status, _, after = self.path.removeprefix("/say/").partition("/")
        self.send_response(int(status) if status.isdecimal() else 500 if self.path.startswith("/broken") else 200)
        if after:
            self.send_header("Retry-After", unquote(after))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@contextmanager
def web_hooks() -> Iterator[Hooks]:
    with Hooks() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()
