"""Clauses that can match, and yet hardly do what was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Final

from triage.rules.lint.entry import Clause, Entry, Written
from triage.rules.lint.findings import Finding
from triage.rules.lint.patterns import Kind, Pattern, always
from triage.rules.matchers import FIELDS
from triage.rules.values import is_regex

CONDITIONS: Final = (
    "InvocationError", "HandledInvocationError", "UnhandledInvocationError", "FunctionResourceExhausted",
    "FunctionServerError", "InternalServerError", "ResourceExhausted", "ResourceThrottled", "FunctionOOMError",
)  # fmt: skip
"""Words that were seen or are documented as condition or error class. The set is open: only what is *nearly* one of
these is found."""

_MANY: Final = 1_000_000


def clause_findings(entry: Entry) -> Iterator[Finding]:
    """R007 to R011 of a rule."""
    yield from text_findings(entry)
    for clause in entry.mentioned:
        if clause.pattern.field.name == FIELDS["invoke_count"].name and not clause.negated:
            yield from _cap(entry, clause)
    if entry.rule.when is not None:
        yield from _when(entry, entry.rule.when.text)


def text_findings(written: Written) -> Iterator[Finding]:
    """R007 and R009 to R011, of a rule or a condition."""
    for clause in written.mentioned:
        name = clause.pattern.field.name
        if name == FIELDS["status_code"].name and not clause.negated:
            yield from _status(written, clause)
        elif name in (FIELDS["condition"].name, FIELDS["function_error"].name):
            yield from _misspelt(written, clause)
        yield from _texts(written, clause)


_STATUS: Final = (
    "status 200 tells nothing: every function that ran has it, also when it failed",
    'ask for error or function_error, and for a fault of the platform with ">= 400"',
)
_CAP: Final = (
    "invoke_count is approximate and begins again with each re-run, so it cannot limit re-runs",
    "max_attempts limits them; in `when` there is lineage.attempt",
)


def _status(written: Written, clause: Clause) -> Iterator[Finding]:
    if clause.pattern.accepts(200) and not always(clause.pattern):
        yield written.finding("R007", *_STATUS, clause.path)


def _cap(entry: Entry, clause: Clause) -> Iterator[Finding]:
    if entry.rule.rerun is not None and not clause.pattern.accepts(_MANY):
        yield entry.finding("R008", *_CAP, clause.path)


def _when(entry: Entry, text: str) -> Iterator[Finding]:
    if re.search(r"\bstatus_code\s*==\s*200\b|\b200\s*==\s*status_code\b", text):
        yield entry.finding("R007", *_STATUS, ("when",))
    if entry.rule.rerun is not None and re.search(r"\binvoke_count\s*(?:<|==)|[<=]=?\s*invoke_count\b", text):
        yield entry.finding("R008", *_CAP, ("when",))


def _misspelt(written: Written, clause: Clause) -> Iterator[Finding]:
    for leaf in clause.pattern.leaves():
        text = str(leaf.scalar)
        if text in CONDITIONS or is_regex(text) or re.search(r"[*?]", text):
            continue
        folded = {each.lower(): each for each in CONDITIONS}
        near = difflib.get_close_matches(text.lower(), folded, n=1, cutoff=0.88)
        if near:
            message = f"{text[:60]!r} is nearly {folded[near[0]]!r}, a word that the platform uses"
            yield written.finding("R011", message, f"write {folded[near[0]]}, if that is meant", clause.path)


def _texts(written: Written, clause: Clause) -> Iterator[Finding]:
    for leaf in clause.pattern.leaves():
        if not isinstance(leaf.scalar, str):
            continue
        if is_regex(leaf.scalar):
            yield from _plain_regex(written, clause, leaf)
        elif leaf.kind is Kind.MESSAGE and "*" in leaf.scalar:
            wanted = re.escape(leaf.scalar.strip("*")).replace(r"\*", ".*").replace("\\ ", " ")
            yield written.finding(
                "R009",
                "in a message a star stands for itself, and the text is looked for anywhere in it",
                f"for any characters between write '/{wanted}/'" if ".*" in wanted else "leave the stars out",
                clause.path,
            )


def _plain_regex(written: Written, clause: Clause, leaf: Pattern) -> Iterator[Finding]:
    """A regular expression with nothing in it that a plain text or a glob could not say."""
    pattern = leaf.scalar[1:-1]
    begins, ends = pattern.startswith("^"), pattern.endswith("$")
    plain = pattern[begins : len(pattern) - ends]
    if not plain or re.search(r"[\\^$.|?*+()\[\]{}]", plain) or leaf.kind is Kind.FUNCTION:
        return
    if leaf.kind is Kind.MESSAGE:
        if begins or ends:
            return
        simple = plain
    else:
        simple = f"{'' if begins else '*'}{plain}{'' if ends else '*'}"
    yield written.finding("R010", "the regular expression is a plain text", f'write "{simple}"', clause.path)
