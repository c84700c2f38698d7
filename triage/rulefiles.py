"""Reads rule files from disk. What they say is `triage.rules.source`'s business."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from triage.errors import ConfigInvalid, Problem, RulesInvalid
from triage.rules.document import MAX_SIZE, read_document
from triage.rules.model import SourceText

SUFFIXES: Final = (".yaml", ".yml")
CASE_SUFFIXES: Final = (".test.yaml", ".test.yml")
"""Beside the rules stand their test cases, which are no rules."""
TEMPLATE_SUFFIXES: Final = (".j2",)
"""So do templates of messages."""


def default_rules_dir() -> Path:
    """The folder of the rules that are used when nothing else is configured."""
    installed = Path(__file__).parent / "default_rules"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "rules"


def read_rules(path: Path) -> list[SourceText]:
    """Read one rule file, with those beside it that it includes, or the ``*.yaml`` and ``*.yml`` of a folder, by name:
    not of its folders, no hidden ones, no ``*.test.yaml``. With them come the templates beside them, ``*.j2``.

    Raises:
        ConfigInvalid: there is nothing to read at ``path``.
        RulesInvalid: files that cannot be read as text; all of them.
    """
    if path.is_dir():
        files = [file for file in _listed(path, SUFFIXES) if not file.name.endswith(CASE_SUFFIXES)]
        templates = _listed(path, TEMPLATE_SUFFIXES)
        if not files:
            raise _invalid(path, "no rule files in this folder", "their names end in .yaml")
    elif path.exists():
        return with_included(path.name, partial(_beside, path)) + _read_all(_listed(path.parent, TEMPLATE_SUFFIXES))
    else:
        raise _invalid(path, "no such file or folder", "the shipped rules are used when no rules are configured")
    return _read_all([*files, *templates])


def read_cases(path: Path) -> list[SourceText]:
    """Read what tests the rules at ``path``: ``*.test.yaml``, and ``*.json``, the messages that they may name.

    For a folder of rules all there are; for one rule file, ``NAME.yaml``, only ``NAME.test.yaml`` of the former.

    Raises:
        ConfigInvalid: the folder cannot be listed.
        RulesInvalid: files that cannot be read as text; all of them.
    """
    folder = path if path.is_dir() else path.parent
    names = CASE_SUFFIXES if path.is_dir() else tuple(path.with_suffix("").name + suffix for suffix in CASE_SUFFIXES)
    listed = _listed(folder, (*names, ".json"))
    if folder != path:
        listed = [file for file in listed if file.suffix == ".json" or file.name in names]
    return _read_all([file for file in listed if not file.name.endswith(".schema.json")])


def located(problem: Problem, path: Path) -> Problem:
    """A problem of the rules at ``path`` with its file as the user would name it, for a terminal or editor to open."""
    return replace(problem, file=str((path if path.is_dir() else path.parent) / problem.file))


def _read_all(files: Sequence[Path]) -> list[SourceText]:
    sources: list[SourceText] = []
    problems: list[Problem] = []
    for file in files:
        try:
            sources.append(_read(file))
        except RulesInvalid as error:
            problems += error.problems
    if problems:
        raise RulesInvalid(problems)
    return sources


def _beside(path: Path, name: str) -> SourceText | None:
    file = path.parent / name
    return _read(file) if file == path or (file.name == name and file.is_file()) else None


def with_included(name: str, read: Callable[[str], SourceText | None]) -> list[SourceText]:
    """A rule file and those that it includes, and so on, by name. ``read`` gives the file of a name.

    What is not there (None) is left out: the loader tells it with its place.
    """
    found: dict[str, SourceText | None] = {}
    wanted = [name]
    while wanted:
        name = wanted.pop()
        if name not in found:
            source = found[name] = read(name)
            wanted += _included(source) if source else ()
    return [source for _, source in sorted(found.items()) if source is not None]


def _included(source: SourceText) -> list[str]:
    document, _ = read_document(source)
    root = document.root if document else None
    named = root.get("include") if isinstance(root, dict) else None
    return [name for name in (named if isinstance(named, list) else [named]) if isinstance(name, str)]


def _listed(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    try:
        return sorted(
            file
            for file in folder.iterdir()
            if file.name.endswith(suffixes) and not file.name.startswith(".") and not file.is_dir()
        )
    except OSError as error:
        raise _invalid(folder, f"cannot be listed: {error.strerror}") from None


def _read(file: Path) -> SourceText:
    name = file.name
    try:
        # One byte more than any text within the limit can have: the loader says what is wrong with it.
        with file.open("rb") as stream:
            data = stream.read(4 * MAX_SIZE + 1)
        return SourceText(name, data.decode("utf-8-sig"))
    except OSError as error:
        raise RulesInvalid([Problem(name, 0, 0, f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise RulesInvalid([Problem(name, line, column, "not UTF-8", "save the file as UTF-8")]) from None


def _invalid(path: Path, message: str, hint: str = "") -> ConfigInvalid:
    return ConfigInvalid([Problem(str(path), 0, 0, message, hint)])
