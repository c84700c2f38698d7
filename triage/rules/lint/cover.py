"""Rules that are never asked because those before them take all that they ask for: one of them, or several together.

Whether a pattern implies another one takes a while, and is asked of every two rules. So every pattern has some
witnesses, values that fit it: a rule that refuses one of them does not take all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from triage.rules.lint.entry import Entry
from triage.rules.lint.findings import Finding
from triage.rules.lint.patterns import Form, Kind, Pattern, always, around, implies
from triage.rules.model import Mode
from triage.rules.values import Check, is_regex

NEAREST: Final = 1_000
"""Each rule is compared with so many before it."""
MAX_TOGETHER: Final = 50
"""Rules that may take together what one rule asks for."""
_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a rule asks of each value, by its name; values of which anything will do are left out."""

    entry: Entry
    patterns: Mapping[str, Pattern]
    checks: Mapping[str, Check]
    witnesses: Mapping[str, tuple[Any, ...]]
    decides: bool


def shadowed(entries: Sequence[Entry]) -> Iterator[Finding]:
    """R002 and R003."""
    asked = [_asked(entry) for entry in entries]
    for index, later in enumerate(asked):
        takers = _takers(asked[max(0, index - NEAREST) : index], later)
        first = ", ".join(map(_named, takers[:_NAMED])) + (", ..." if len(takers) > _NAMED else "")
        if len(takers) > 1:
            message = f"is never asked: {first} before it take together all that it asks for"
            yield later.entry.finding("R002", message, "put it before them, or narrow what they match")
        elif takers and later.decides and _takes(later, takers[0]) and not _open(later, takers[0]):
            message = f"asks for the same as {first}, which decides before it"
            yield later.entry.finding("R003", message, "make one rule of the two, or tell them apart in match")
        elif takers:
            message = f"is never asked: {first} before it takes all that it asks for"
            yield later.entry.finding("R002", message, "put it before that rule, or narrow that rule's match")


def _named(asked: _Asked) -> str:
    rule = asked.entry.rule
    return f"{rule.id!r} ({rule.place.file}:{rule.place.line})"


def _asked(entry: Entry) -> _Asked:
    rule = entry.rule
    patterns = {name: each for name, each in entry.patterns().items() if not always(each)}
    checks = {name: each.check() for name, each in patterns.items()}
    witnesses = {name: tuple(_witnesses(each)) for name, each in patterns.items()}
    decides = rule.mode is Mode.LIVE and not rule.continues and rule.expires is None
    return _Asked(entry, patterns, checks, witnesses, decides)


def _witnesses(one: Pattern) -> Iterator[Any]:
    """Values that fit: at most one for each part of a list."""
    if one.kind in (Kind.COUNT, Kind.WORD):
        check = one.check()
        yield from [value for value in around(one) if check(value)][:MAX_TOGETHER]
        return
    for part in one.parts[:MAX_TOGETHER] if one.form is Form.ANY else (one,):
        check = part.check()
        texts = (_example(leaf) for leaf in part.leaves() if not is_regex(str(leaf.scalar)))
        yield from [value for value in texts if check(value)][:1]


def _example(leaf: Pattern) -> Any:
    if leaf.kind is Kind.MESSAGE or (leaf.kind is Kind.ANYTHING and not isinstance(leaf.scalar, str)):
        return leaf.scalar
    return re.sub(r"\*", "", str(leaf.scalar)).replace("?", "x")


def _takers(before: Sequence[_Asked], later: _Asked) -> list[_Asked]:
    """The rule that takes all that a later one asks for, or several that do together; none when that is not certain."""
    partly: dict[str, list[_Asked]] = {}
    for earlier in before:
        if not earlier.decides or not _takes(earlier, later):
            continue
        left = _open(earlier, later)
        if not left:
            return [earlier]
        if len(left) == 1:
            partly.setdefault(left[0], []).append(earlier)
    for name, several in partly.items():
        if len(several) > 1 and _together(name, several[:MAX_TOGETHER], later):
            return _needed(name, several[:MAX_TOGETHER], later)
    return []


def _takes(wide: _Asked, narrow: _Asked) -> bool:
    """Whether a rule takes all that another one asks for, their patterns aside."""
    if not wide.entry.opaque <= narrow.entry.opaque:
        return False
    one, other = wide.entry.rule.when, narrow.entry.rule.when
    if one is None:
        return True
    if other is None or one.text != other.text:
        return False
    # Another file may mean another window by the same name.
    return wide.entry.document is narrow.entry.document or "windows" not in one.text


_SEVERAL: Final = ["", ""]


def _open(wide: _Asked, narrow: _Asked) -> list[str]:
    """Names of values of which a rule may not take all that another one asks for; two when there are more, or when it
    takes nothing of it.
    """
    left: list[str] = []
    sure: list[str] = []
    for name, check in wide.checks.items():
        seen = narrow.witnesses.get(name)
        if seen is not None and all(map(check, seen)):
            sure.append(name)
        elif left or (seen and not any(map(check, seen))):
            return _SEVERAL
        else:
            left.append(name)
    for name in sure:
        if not implies(narrow.patterns[name], wide.patterns[name]):
            left.append(name)
            if len(left) > 1:
                return _SEVERAL
    return left


def _together(name: str, several: Sequence[_Asked], later: _Asked) -> bool:
    """Whether rules that only differ in one value take together all that a later one asks of it."""
    parts = tuple(each.patterns[name] for each in several)
    if not all(any(each.checks[name](value) for each in several) for value in later.witnesses.get(name, ())):
        return False
    union = Pattern(parts[0].field, Form.ANY, parts=parts)
    return implies(later.patterns[name], union) if name in later.patterns else always(union)


def _needed(name: str, several: Sequence[_Asked], later: _Asked) -> list[_Asked]:
    """Those of them without which something would be left; the first ones, where there is a choice."""
    needed = list(several)
    for each in reversed(several):
        rest = [other for other in needed if other is not each]
        if _together(name, rest, later):
            needed = rest
    return needed
