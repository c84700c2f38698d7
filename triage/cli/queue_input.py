"""What ``triage queue send`` is given, cut into messages, each with its place for the reports."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

LINES: Final = (".jsonl", ".ndjson")
"""Files with one message per line."""
_LARGEST_FILE: Final = 1 << 20  # bytes; a file that is one message and larger is not even read
STDIN: Final = "-"


class Entry(NamedTuple):
    """A message to send, or why there is none at this place."""

    place: str
    body: bytes = b""
    refused: str = ""


class SeveralLines(Exception):
    """Standard input begins like one JSON document that is spread over several lines."""


def entries(paths: Sequence[str], *, stdin: BinaryIO, whole_stdin: bool) -> Iterator[Entry | None]:
    """Messages in order: files are one message each, ``*.jsonl`` one per line, folders are walked, ``-`` is ``stdin``.

    None stands where the next message may be long in coming: what is there should be sent now.

    Raises:
        SeveralLines: before anything of ``stdin`` is given out.
    """
    for path in map(Path, paths or (STDIN,)):
        if str(path) == STDIN:
            yield from [_one("stdin", stdin.read())] if whole_stdin else _stdin(stdin)
        elif path.is_dir():
            yield from _folder(path)
        else:
            yield from _file(path)


def _stdin(stdin: BinaryIO) -> Iterator[Entry | None]:
    number, rest = 0, b""
    while chunk := stdin.read1(1 << 16) if isinstance(stdin, BufferedReader | BytesIO) else stdin.read():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            number += 1
            if number == 1 and line.strip() in (b"{", b"["):
                raise SeveralLines
            yield _line("stdin", number, line)
        yield None
    if rest:
        yield _line("stdin", number + 1, rest)


def _folder(folder: Path) -> Iterator[Entry]:
    """Every file below, in order of its path; hidden files and folders, links to folders and pipes are left out."""
    failed: list[OSError] = []
    for root, folders, names in os.walk(folder, onerror=failed.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(root, name)
            if not name.startswith(".") and (path.is_file() or not path.exists()):
                yield from _file(path)
        while failed:
            error = failed.pop()
            yield Entry(str(error.filename), refused=error.strerror or str(error))


def _file(path: Path) -> Iterator[Entry]:
    try:
        with path.open("rb") as file:
            if path.suffix.lower() in LINES:
                yield from (_line(str(path), number, line) for number, line in enumerate(file, start=1))
            elif (size := os.fstat(file.fileno()).st_size) > _LARGEST_FILE:
                yield Entry(str(path), refused=f"{size} bytes, at most 65536 fit in a message")
            else:
                yield _one(str(path), file.read())
    except OSError as error:
        yield Entry(str(path), refused=error.strerror or str(error))


def _line(place: str, number: int, line: bytes) -> Entry:
    body = line.rstrip(b"\r\n")
    return Entry(f"{place}:{number}", body, "" if body.strip() else "empty line")


def _one(place: str, body: bytes) -> Entry:
    return Entry(place, body, "" if body else "empty")
