"""`triage top` in a real terminal, beside a real daemon."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from processes import TRIAGE, environment, started, triage
from workload import RULES, body

ENTERED, LEFT = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


class Terminal:
    """The master's side of a pseudo-terminal in which a command runs."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid, self._fd, self.seen = pid, fd, ""

    def size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def frames(self) -> list[str]:
        """What was drawn, one text per frame, without colours."""
        drawn = re.sub(r"\x1b\[[\d;]*m|\x1b\[K", "", self.seen)
        return [frame.replace("\r", "") for frame in re.findall(r"\x1b\[H(.*?)\x1b\[J", drawn, re.DOTALL)]

    def until(self, text: str, *, times: int = 1, within: float = 30) -> str:
        """Read until a text is there so often; all that was read."""
        end = time.monotonic() + within
        while self.seen.count(text) < times:
            ready, _, _ = select.select([self._fd], [], [], max(end - time.monotonic(), 0))
            assert ready, f"no {text!r} within {within} s: {self.seen[-2000:]!r}"
            self.seen += os.read(self._fd, 65536).decode()
        return self.seen

    def exit_code(self) -> int:
        """Read to the end; what the command ended with."""
        with suppress(OSError):  # the other side is gone, which Linux calls an error
            while data := os.read(self._fd, 65536):
                self.seen += data.decode()
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)


@contextmanager
def terminal(*args: object, state: Path, shell: str = "", **environ: str) -> Iterator[Terminal]:
    """A command in a terminal of 80 columns and 24 lines; ``shell``: what bash does with it, as ``"$@"``."""
    own = {"TERM": "xterm", "PYTHONUTF8": "1", **environ}
    pid, fd = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job would hand down that it is ignored
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        command = [*(["/bin/bash", "-c", shell, "bash"] if shell else []), *TRIAGE, *map(str, args)]
        os.execve(command[0], command, environment(state, **own))
    try:
        yield Terminal(pid, fd)
    finally:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        os.close(fd)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder that a daemon has worked in, and its rules."""
    folder = tmp_path_factory.mktemp("top")
    state = folder / "state"
    (folder / "rules.yaml").write_text(RULES)
    (folder / "messages").mkdir()
    for number in range(12):
        (folder / "messages" / f"{number}.json").write_bytes(body("told", number))
    with started("run", state=state, TRIAGE_RULES=str(folder / "rules.yaml")) as daemon:
        daemon.until_logged("running")
        triage("queue", "send", *sorted((folder / "messages").iterdir()), state=state)
        daemon.until_taken(12)
        assert daemon.stop() == 0
    return state


def test_it_watches_a_running_daemon_and_follows_the_window(state: Path):
    rules = str(state.parent / "rules.yaml")
    with started("run", state=state, name="watched", TRIAGE_RULES=rules, TRIAGE_WEB__LISTEN="127.0.0.1:0") as daemon:
        url = re.search(r"(http://\S+)/healthz", daemon.until_logged("healthz"))[1]
        with terminal("top", "--url", url, "--interval", "30s", state=state) as screen:
            screen.until("\x1b[J")
            (first,) = screen.frames()
            assert f"daemon    gets on ({url.removeprefix('http://')})" in first
            assert "received  12 " in first
            assert re.search(r"^new +\d+ +\d+ +12 +12 .* told: InvocationError: F", first, re.MULTILINE)
            assert all(len(line) <= 80 for line in first.splitlines())
            assert len(first.splitlines()) <= 24
            screen.size(40, 8)  # drawn again at once, from what is known
            screen.until("\x1b[J", times=2)
            second = screen.frames()[-1]
            assert len(second.splitlines()) <= 8
            assert all(len(line) <= 40 for line in second.splitlines())
            screen.press("q")
            assert screen.exit_code() == 0
            assert screen.seen.endswith(LEFT)
        assert daemon.stop() == 0


@pytest.mark.parametrize("how", ["q", "Escape", "^C", "SIGTERM"])
def test_the_terminal_is_as_it_was_however_it_ends(state: Path, how: str):
    with terminal("top", state=state) as screen:
        screen.until("\x1b[J")
        assert screen.seen.startswith(ENTERED)
        if how == "SIGTERM":
            os.kill(screen.pid, signal.SIGTERM)
        else:
            screen.press("\x1b[A")  # an arrow only looks again
            screen.until("\x1b[J", times=2)
            screen.press({"q": "q", "Escape": "\x1b", "^C": "\x03"}[how])
        screen.until(LEFT)
        code = screen.exit_code()
        assert code == {"q": 0, "Escape": 0, "^C": 130, "SIGTERM": -signal.SIGTERM}[how]
        assert screen.seen.rstrip("\r\n").endswith(LEFT)


def test_it_can_be_stopped_meanwhile_and_the_terminal_is_usable_then(state: Path):
    shell = 'set -m; before=$(stty -g); "$@"; test "$(stty -g)" = "$before" && echo as before; fg >/dev/null'
    with terminal("top", state=state, shell=shell) as screen:
        screen.until("\x1b[J")
        screen.press("\x1a")
        watched, _, screen.seen = screen.until("as before\r\n").partition("as before\r\n")
        assert LEFT in watched
        assert ENTERED in screen.until("\x1b[J")
        screen.press("q")
        assert screen.exit_code() == 0


@pytest.mark.parametrize(
    ("environ", "ascii_only", "coloured"),
    [({"NO_COLOR": "1"}, False, False), ({"PYTHONUTF8": "", "LC_ALL": "C"}, True, True)],
    ids=["NO_COLOR", "C locale"],
)
def test_colour_and_unicode_only_where_they_are_wanted(
    state: Path, environ: dict[str, str], ascii_only: bool, coloured: bool
):
    with terminal("top", state=state, **environ) as screen:
        screen.until("\x1b[J")
        assert screen.seen.isascii() is ascii_only
        assert bool(re.search(r"\x1b\[[\d;]*m", screen.seen)) is coloured
        screen.press("q")
        assert screen.exit_code() == 0
