"""Tells whoever started the daemon how it gets on: systemd's notification protocol, sd_notify(3).

One datagram a message. Nothing is sent when nobody asked for it, that is, without ``$NOTIFY_SOCKET``.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Final

from triage.clock import monotonic

log = logging.getLogger(__name__)

_PATIENCE: Final = 1.0
"""Seconds to wait for room in the manager's socket, which all services share, for what is told once: a start whose end
is not heard of is taken back. Pings and lines of status come again."""


class Supervisor:
    """The service manager that runs this process, or nobody. No method raises, and none blocks for long: a supervisor
    that cannot be reached is told in the log, once.
    """

    def __init__(self, environ: Mapping[str, str], *, pid: int) -> None:
        """``pid`` is this process's: the watchdog may be meant for another one that inherited the environment."""
        address = environ.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the zero byte of an abstract socket. A vsock: is for virtual machines.
        self._address = "\0" + address[1:] if address.startswith("@") else address if address.startswith("/") else ""
        self.watchdog = _watchdog(environ, pid)
        """How long a ping is good for; None when no pings are expected."""
        self._lost = False

    def ready(self) -> None:
        """Start-up, or a reload, is complete."""
        self._send("READY=1", _PATIENCE)

    def reloading(self) -> None:
        """A reload begins; `ready` ends it. The time tells systemd which of its requests is answered."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={int(monotonic() * 1_000_000)}", _PATIENCE)

    def stopping(self) -> None:
        """The shutdown has begun."""
        self._send("STOPPING=1", _PATIENCE)

    def alive(self) -> None:
        """Ping the watchdog. Without pings for `watchdog` the process is killed and started anew."""
        if self.watchdog is not None:
            self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._send("STATUS=" + " ".join(text.split()))

    def _send(self, message: str, patience: float = 0.0) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as datagram:
                datagram.settimeout(patience)  # a manager that does not read must not stop the event loop
                datagram.sendto(message.encode("utf-8", "replace"), self._address)
        except OSError as error:
            if not self._lost:
                log.warning("the service manager cannot be told: %s", error)
            self._lost = True
        else:
            self._lost = False


def _watchdog(environ: Mapping[str, str], pid: int) -> timedelta | None:
    with suppress(ValueError):
        limit = timedelta(microseconds=int(environ.get("WATCHDOG_USEC", "0")))
        if limit > timedelta(0) and int(environ.get("WATCHDOG_PID", pid)) == pid:
            return limit
    return None
