"""Read a mapping of a YAML file by its table of keys: what rule files and case files have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from triage.errors import Problem
from triage.rules.document import Document
from triage.rules.keys import Key
from triage.rules.matchers import NO_NAMES, Names
from triage.rules.mistakes import MAX_TOLD, Mistake, Mistakes, Path, did_you_mean, kind_of

_MERGE: Final = "merge keys are not supported; what rules have in common belongs under defaults"


def read_section(
    document: Document, path: Path, keys: Mapping[str, Key], *, shape: str = "", names: Names = NO_NAMES
) -> tuple[dict[str, Any], list[Problem]]:
    """The values of the mapping at ``path``, as their keys read them. What cannot be read is told and left out.

    ``shape`` is the hint for a value that is no mapping at all; ``names`` are what the values may mention.
    """
    written = document.value(path)
    if not isinstance(written, dict):
        return {}, [document.problem(path, Mistake(f"expected a mapping, not {kind_of(written)}", shape))]
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, value in written.items():
        if len(problems) >= MAX_TOLD:
            break
        key = keys.get(name)
        if key is None:
            hint = _MERGE if name == "<<" else did_you_mean(name, keys)
            problems.append(document.problem(path, Mistake(f"unknown key {name[:60]!r}", hint, (name,), key=True)))
        elif key.keys is not None:
            values[name], more = read_section(document, (*path, name), key.keys, names=names)
            problems += more
        else:
            try:
                values[name] = key.value(value, names)
            except Mistakes as error:
                problems += [document.problem((*path, name), each) for each in error.mistakes[:MAX_TOLD]]
    for name, key in keys.items():
        if key.required and name not in written:
            problems.append(document.problem(path, Mistake(f"the key {name!r} is missing", key.doc)))
    return values, problems
