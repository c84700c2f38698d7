"""What rule files define by name, conditions and windows, and which of it each file may mention."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Final

from triage.errors import Problem
from triage.rules.document import Document
from triage.rules.keys import WINDOW
from triage.rules.matchers import NO_NAMES, Names, compile_match
from triage.rules.mistakes import MAX_TOLD, Mistake, Mistakes, did_you_mean, wrong
from triage.rules.model import Matcher
from triage.rules.section import read_section
from triage.rules.windows import NEVER, Window, window_of

MAX_NESTING: Final = 16
"""Conditions inside conditions."""

Condition = Callable[[], tuple[Matcher, ...]]


@dataclass(slots=True)
class RuleFile:
    """A rule file as read; ``names`` is what it may mention, once `define` has been called."""

    document: Document
    values: Mapping[str, Any]
    names: Names = NO_NAMES
    windows: dict[str, Window] = field(default_factory=dict)
    conditions: dict[str, Condition] = field(default_factory=dict)
    compiling: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.document.source.name


def define(files: Sequence[RuleFile], unread: Collection[str]) -> list[Problem]:
    """Find out what each file defines and may mention: its own, and what the files define that it includes.

    ``unread`` are names of files that could not be read, which was told already.
    """
    problems: list[Problem] = []
    for file in files:
        problems += _define_windows(file)
        file.conditions |= {
            name: cache(partial(_compile, file, name, problems)) for name in file.values.get("conditions", {})
        }
    known = {file.name: file for file in files}
    compiling: list[str] = []
    for file in files:
        file.compiling = compiling
        problems += _include(file, known, unread)
    for file in files:
        before = len(problems)
        for condition in file.conditions.values():
            condition()
            if len(problems) - before > MAX_TOLD:
                break
    return problems


def _define_windows(file: RuleFile) -> list[Problem]:
    problems: list[Problem] = []
    for name in file.values.get("windows", {}):
        path = ("windows", name)
        if len(problems) > MAX_TOLD:
            break
        values, found = read_section(file.document, path, WINDOW, shape="days and hours, or from and until")
        problems += found
        file.windows[name] = NEVER  # what is told once need not be told again where it is mentioned
        if not found:
            try:
                file.windows[name] = window_of(values)
            except Mistakes as error:
                problems += [file.document.problem(path, each) for each in error.mistakes]
    return problems


def _compile(file: RuleFile, name: str, problems: list[Problem]) -> tuple[Matcher, ...]:
    if f"{file.name}:{name}" in file.compiling:
        raise wrong(f"the condition {name!r} is used inside itself")
    if len(file.compiling) >= MAX_NESTING:
        raise wrong(f"conditions inside conditions, deeper than {MAX_NESTING}")
    file.compiling.append(f"{file.name}:{name}")
    try:
        return compile_match(file.values["conditions"][name], file.names)
    except Mistakes as error:
        problems += [file.document.problem(("conditions", name), each) for each in error.mistakes]
        return ()
    finally:
        file.compiling.pop()


def _include(file: RuleFile, known: Mapping[str, RuleFile], unread: Collection[str]) -> list[Problem]:
    windows, conditions = dict(file.windows), dict(file.conditions)
    problems: list[Problem] = []
    written = file.document.root.get("include") if isinstance(file.document.root, dict) else None
    for name in file.values.get("include", ()):
        if len(problems) > MAX_TOLD:
            break
        path = ("include", written.index(name)) if isinstance(written, list) else ("include",)
        other = known.get(name)
        if other is None or other is file:
            if name not in unread:
                message = f"there is no rule file {name!r} here" if other is None else "a file cannot include itself"
                hint = did_you_mean(name, [each for each in known if each != file.name], listed=True)
                problems.append(file.document.problem(path, Mistake(message, hint)))
            continue
        for kind, own, more in (("window", windows, other.windows), ("condition", conditions, other.conditions)):
            for each in sorted(own.keys() & more.keys()):
                message = f"the {kind} {each!r} of {name} has the name of another one"
                problems.append(file.document.problem(path, Mistake(message, "rename one of them")))
        windows |= other.windows
        conditions |= other.conditions
    file.names = Names(windows, conditions)
    return problems
