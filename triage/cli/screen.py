"""A whole terminal for one program: its other screen, keys without Enter, and everything as before at the end."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final, TextIO

from triage.cli.screen_text import Style
from triage.clock import monotonic

_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l"  # the other screen, no cursor, no wrapping of lines
_LEAVE: Final = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_ENDS: Final = (signal.SIGTERM, signal.SIGHUP)


def style_of(environ: Mapping[str, str], stream: TextIO) -> Style:
    """What a stream can show: colour on terminals unless NO_COLOR (https://no-color.org) or a dumb one, Unicode where
    the locale is UTF-8.
    """
    colour = stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM", "dumb") != "dumb"
    utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
    # In the C locale, or one that is not there, Python takes UTF-8 by itself; nobody knows what the terminal does.
    by_itself = bool(sys.flags.utf8_mode) and environ.get("PYTHONUTF8") != "1"
    return Style(colour=colour, unicode=utf8 and not by_itself)


class Interrupted(BaseException):
    """A signal that ends the program came; it is sent again when the terminal is as it was."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Screen:
    """The terminal while it is ours. Made by `whole_screen`."""

    def __init__(self, keys: int, woken: int, out: TextIO) -> None:
        self._keys, self._woken, self._out = keys, woken, out

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, as they are now."""
        size = os.get_terminal_size(self._out.fileno())
        return (size.columns, size.lines) if size.columns and size.lines else (80, 24)

    def draw(self, lines: Sequence[str]) -> None:
        """Replace what is shown, in one write, so that nothing flickers."""
        self._out.write("\x1b[H" + "\x1b[K\n".join(lines) + "\x1b[K\x1b[J")
        self._out.flush()

    def wait(self, seconds: float) -> str:
        """What was typed, ``resize``, or empty when the time is over."""
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0:
            ready, _, _ = select.select([self._keys, self._woken], [], [], left)
            if self._woken in ready:
                with suppress(BlockingIOError):
                    os.read(self._woken, 4096)
                return "resize"
            if self._keys in ready:
                # An end of input means that the terminal is gone.
                return os.read(self._keys, 64).decode("utf-8", "replace") or "q"
        return ""


@contextmanager
def whole_screen(keys: TextIO, out: TextIO) -> Iterator[Screen]:
    """Take the terminal until the block is left, also by ^C or SIGTERM; while stopped by ^Z it is given back."""
    before = termios.tcgetattr(keys)
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)

    def take() -> None:
        tty.setcbreak(keys)
        out.write(_ENTER)
        out.flush()

    def give_back() -> None:
        with suppress(OSError):  # after SIGHUP nobody is there
            out.write(_LEAVE)
            out.flush()
        with suppress(termios.error):
            termios.tcsetattr(keys, termios.TCSADRAIN, before)

    def stopped(number: int, _frame: FrameType | None) -> None:
        give_back()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # here we stand until somebody says `fg`
        signal.signal(number, stopped)
        take()

    def ended(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    handlers: dict[int, Any] = {
        signal.SIGTSTP: stopped,
        signal.SIGWINCH: lambda *_: None,
        **dict.fromkeys(_ENDS, ended),
    }
    kept = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    wakeup = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    try:
        take()
        yield Screen(keys.fileno(), woken, out)
    finally:
        give_back()
        signal.set_wakeup_fd(wakeup)
        for number, handler in kept.items():
            signal.signal(number, handler)
        os.close(woken)
        os.close(wake)


def printed_size() -> tuple[int, int]:
    """Columns and lines for something that is printed once."""
    size = shutil.get_terminal_size()
    return size.columns, size.lines
