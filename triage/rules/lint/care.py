"""Whether somebody looks after the rules: owner, runbook, dates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from itertools import groupby
from typing import Final

from triage.rules.lint.entry import Entry
from triage.rules.lint.findings import Finding
from triage.rules.model import Mode

SOON: Final = timedelta(days=14)


def care_findings(entries: Sequence[Entry], *, today: date) -> Iterator[Finding]:
    """R019 to R022."""
    live = [entry for entry in entries if entry.rule.mode is not Mode.OFF]
    for _, group in groupby(live, key=lambda entry: entry.document.source.name):
        of_file = list(group)
        yield from _missing(of_file, [each for each in of_file if not each.rule.owner], "R019", "owner", _OWNER)
        telling = [each for each in of_file if each.rule.ignore is None]
        yield from _missing(telling, [each for each in telling if not each.rule.runbook], "R020", "runbook", _RUNBOOK)
    for entry in live:
        yield from _dates(entry, today=today)


_OWNER: Final = "whoever gets its alerts cannot see whom to ask"
_RUNBOOK: Final = "whoever gets its alerts is not told what to do"


def _missing(asked: Sequence[Entry], lacking: Sequence[Entry], code: str, key: str, why: str) -> Iterator[Finding]:
    if lacking and len(asked) > 1 and len(lacking) == len(asked):
        first = lacking[0].finding(code, f"no rule of this file has {_an(key)}: {why}", "add it under defaults:")
        yield Finding(code, first.problem)
        return
    for entry in lacking:
        yield entry.finding(code, f"no {key}: {why}", f"add {key}: to the rule, or under defaults: of its file")


def _an(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _dates(entry: Entry, *, today: date) -> Iterator[Finding]:
    rule = entry.rule
    if rule.review_by is not None and rule.review_by - SOON <= today:
        days = (rule.review_by - today).days
        passed = f"was to be reviewed by {rule.review_by}" if days < 0 else f"is to be reviewed by {rule.review_by}"
        mend = "see whether it is still right (triage rules stats), then move the date"
        yield entry.finding("R021", passed, mend, ("review_by",))
    if rule.expires is not None and rule.expires < today:
        mend = "take the rule out, or move the date if it is still needed"
        yield entry.finding("R022", f"has not been asked since {rule.expires}", mend, ("expires",))
