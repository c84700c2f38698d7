"""Conditions and windows that nothing mentions, or whose time is over."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date

from triage.rules.keys import WINDOW
from triage.rules.lint.entry import Defined, Entry, names_used
from triage.rules.lint.findings import Finding
from triage.rules.mistakes import Mistake
from triage.rules.section import read_section
from triage.rules.windows import Period, window_of

_KINDS = (("use", "conditions", "condition"), ("window", "windows", "window"))


def name_findings(entries: Sequence[Entry], defined: Defined, *, today: date) -> Iterator[Finding]:
    """R023 and R024."""
    for key, kind, word in _KINDS:
        used = set(_used(entries, defined, key, kind))
        for file, document in defined.documents.items():
            for name in defined.of(file, kind):
                if (file, name) not in used:
                    mistake = Mistake(
                        f"no rule mentions the {word} {name!r}", "take it out, or use it", (name,), key=True
                    )
                    yield Finding("R023", document.problem((kind,), mistake))
    for file, document in defined.documents.items():
        for name in defined.of(file, "windows"):
            window = window_of(read_section(document, ("windows", name), WINDOW)[0])
            if isinstance(window, Period) and window.end.date() < today:
                mend = "take it out, with what asks for it"
                mistake = Mistake(f"the window {name!r} was over on {window.end.date()}", mend, (name, "until"))
                yield Finding("R024", document.problem(("windows",), mistake))


def _used(entries: Sequence[Entry], defined: Defined, key: str, kind: str) -> Iterator[tuple[str, str]]:
    """(file, name) of everything that a rule, or a condition, mentions, by the file that defines it."""
    for file, document in defined.documents.items():
        rules = document.root.get("rules") or ()
        for match in (*(rule.get("match", {}) for rule in rules), *defined.of(file, "conditions").values()):
            for name in names_used(match, key):
                yield defined.meaning(kind, name, file)[1], name
    if kind == "windows":
        for entry in entries:
            text = entry.rule.when.text if entry.rule.when else ""
            file = entry.document.source.name
            for name in re.findall(r"\bwindows\.(\w+)", text):
                yield defined.meaning(kind, name, file)[1], name
