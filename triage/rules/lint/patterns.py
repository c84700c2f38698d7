"""What can be said for certain about patterns of ``match:`` without a value at hand: never, always, implies.

Each function answers True only when that is proved; False means that nobody knows. A pattern is looked at as written in
the rule file (scalars, lists, not, any, all), since a compiled one is a black box.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from triage.envelope import Outcome
from triage.rules.matchers import ERROR_FIELDS, FIELDS, Field
from triage.rules.regex import compile_regex
from triage.rules.values import Check, is_regex

MAX_LEAVES: Final = 200
"""Scalars of a pattern. Of a larger one only what is cheap to know is known."""


class Kind(StrEnum):
    """How the scalars of a field are read."""

    NAME = "name"
    FUNCTION = "function"
    MESSAGE = "message"
    COUNT = "count"
    ANYTHING = "anything"  # out of a payload: of any type
    WORD = "word"  # of a closed set


class Form(StrEnum):
    """Shape of a pattern."""

    IS = "is"
    ANY = "any"
    ALL = "all"
    NOT = "not"


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a value must look like. ``scalar`` belongs to ``IS``, ``parts`` to the other forms; ``kind`` tells how
    scalars are read.
    """

    field: Field
    form: Form
    scalar: Any = None
    parts: tuple[Pattern, ...] = ()
    kind: Kind = dataclasses.field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        other = Kind.ANYTHING if self.field.name.startswith("payload.") else Kind.NAME
        object.__setattr__(self, "kind", _KINDS.get(self.field.name, other))

    def accepts(self, value: Any) -> bool:
        """Whether a value fits."""
        return self.check()(value)

    def check(self) -> Check:
        """The test whether a value fits."""
        if self.form is Form.IS:
            return self.field.scalar(self.scalar)
        checks = [part.check() for part in self.parts]
        if self.form is Form.NOT:
            return lambda value: not checks[0](value)
        if self.form is Form.ANY:
            return lambda value: any(check(value) for check in checks)
        return lambda value: all(check(value) for check in checks)

    def leaves(self) -> Iterator[Pattern]:
        """All scalars in it."""
        if self.form is Form.IS:
            yield self
        for part in self.parts:
            yield from part.leaves()


_KINDS: Final[Mapping[str, Kind]] = {
    FIELDS["function"].name: Kind.FUNCTION,
    FIELDS["invoke_count"].name: Kind.COUNT,
    FIELDS["status_code"].name: Kind.COUNT,
    ERROR_FIELDS["message"].name: Kind.MESSAGE,
    FIELDS["outcome"].name: Kind.WORD,
}
_WORDS: Final = [outcome.value for outcome in Outcome]


def pattern(field: Field, written: Any) -> Pattern:
    """The pattern that stands in a rule file; it must be one that the loader takes."""
    if isinstance(written, list):
        return Pattern(field, Form.ANY, parts=tuple(pattern(field, each) for each in written))
    if not isinstance(written, dict):
        return Pattern(field, Form.IS, written)
    parts = [
        Pattern(field, Form.NOT, parts=(pattern(field, each),))
        if key == "not"
        else Pattern(field, Form(key), parts=tuple(pattern(field, item) for item in each))
        for key, each in written.items()
    ]
    return parts[0] if len(parts) == 1 else every(field, parts)


def every(field: Field, parts: list[Pattern]) -> Pattern:
    """All of these patterns for one field."""
    return parts[0] if len(parts) == 1 else Pattern(field, Form.ALL, parts=tuple(parts))


def never(one: Pattern) -> bool:
    """No value fits."""
    values = _candidates(one)
    if values is not None:
        return not any(map(one.check(), values))
    if one.form is Form.IS:
        return one.kind is Kind.FUNCTION and one.scalar == ""
    if one.form is Form.NOT:
        return always(one.parts[0])
    if one.form is Form.ANY:
        return all(never(part) for part in one.parts)
    return any(never(part) for part in one.parts) or any(
        disjoint(a, b) for index, a in enumerate(one.parts[:MAX_LEAVES]) for b in one.parts[:index]
    )


def always(one: Pattern) -> bool:
    """Every value fits."""
    if one.kind in (Kind.COUNT, Kind.WORD):
        return all(map(one.check(), _candidates(one) or ()))
    if one.form is Form.IS:
        return one.kind in (Kind.NAME, Kind.FUNCTION) and bool(re.fullmatch(r"\*+", str(one.scalar)))
    if one.form is Form.NOT:
        return never(one.parts[0])
    if one.form is Form.ANY:
        return any(always(part) for part in one.parts) or _complementary(one.parts[:MAX_LEAVES])
    return all(always(part) for part in one.parts)


def _complementary(parts: Sequence[Pattern]) -> bool:
    """Whether what does not fit one of them fits another one."""
    return any(
        part.form is Form.NOT and any(implies(part.parts[0], other) for other in parts if other is not part)
        for part in parts
    )


def implies(narrow: Pattern, wide: Pattern) -> bool:
    """Whatever fits ``narrow`` fits ``wide``, both being patterns for the same field."""
    if narrow == wide or always(wide) or never(narrow):
        return True
    if not (_small(narrow) and _small(wide)):
        return False
    values = _candidates(narrow, wide)
    if values is not None:
        return all(map(wide.check(), filter(narrow.check(), values)))
    if narrow.form is Form.ANY:
        return all(implies(part, wide) for part in narrow.parts)
    if wide.form is Form.ALL:
        return all(implies(narrow, part) for part in wide.parts)
    if wide.form is Form.ANY and any(implies(narrow, part) for part in wide.parts):
        return True
    if narrow.form is Form.ALL:
        return any(implies(part, wide) for part in narrow.parts)
    if wide.form is Form.NOT:
        if narrow.form is Form.NOT:
            return implies(wide.parts[0], narrow.parts[0])
        return disjoint(narrow, wide.parts[0])
    return narrow.form is wide.form is Form.IS and _scalar_implies(narrow, wide)


def disjoint(one: Pattern, other: Pattern) -> bool:
    """No value fits both, being patterns for the same field."""
    if not (_small(one) and _small(other)):
        return False
    for a, b in ((one, other), (other, one)):
        values = _candidates(a, b)
        if values is not None:
            return not any(map(a.check(), filter(b.check(), values)))
    for a, b in ((one, other), (other, one)):
        if a.form is Form.NOT:
            return implies(b, a.parts[0])
        if a.form is Form.ANY:
            return all(disjoint(part, b) for part in a.parts)
        if a.form is Form.ALL:
            return any(disjoint(part, b) for part in a.parts)
    return _scalars_disjoint(one, other)


def _small(one: Pattern) -> bool:
    return sum(1 for _ in one.leaves()) <= MAX_LEAVES


def _candidates(one: Pattern, *others: Pattern) -> list[Any] | None:
    """Values that tell for all whether they fit ``one``: those it lists, a closed set, or around its numbers."""
    if one.kind is Kind.WORD:
        return _WORDS
    return _counts(one, *others) if one.kind is Kind.COUNT else _listed(one)


def around(one: Pattern) -> list[Any]:
    """Values of a closed set or of numbers, by which everything can be told of a pattern for such."""
    return _WORDS if one.kind is Kind.WORD else _counts(one)


def _counts(*patterns: Pattern) -> list[int]:
    """A number on each side of every number mentioned: between them nothing changes. Only numbers that can come."""
    numbers = {0, 1}
    for one in patterns:
        for leaf in one.leaves():
            number = int(re.sub(r"\D", "", str(leaf.scalar)))
            numbers |= {number - 1, number, number + 1}
    if patterns[0].field.name == FIELDS["status_code"].name:
        return sorted({0, 100, 200, 599} | {each for each in numbers if 100 <= each <= 599})
    return sorted(each for each in numbers | {max(numbers) + 1} if each >= 0)


def _listed(one: Pattern) -> list[Any] | None:
    """The values that may fit, when they are few enough to be listed in the pattern."""
    if one.form is Form.IS:
        return [one.scalar if one.kind is Kind.ANYTHING else str(one.scalar)] if _is_value(one) else None
    if one.form is Form.ALL:
        return next((values for part in one.parts if (values := _listed(part)) is not None), None)
    if one.form is Form.ANY:
        lists = [_listed(part) for part in one.parts]
        return None if None in lists else [value for values in lists for value in values or ()]
    return None


def _is_value(leaf: Pattern) -> bool:
    """Whether the scalar fits one value only: itself."""
    text = str(leaf.scalar)
    if leaf.kind is Kind.ANYTHING and not isinstance(leaf.scalar, str):
        return True
    if leaf.kind is Kind.MESSAGE:
        return not text
    if leaf.kind is Kind.FUNCTION and "/" not in text:
        return False  # in any service
    return not is_regex(text) and not re.search(r"[*?]", text)


def _scalar_implies(narrow: Pattern, wide: Pattern) -> bool:
    a, b = str(narrow.scalar), str(wide.scalar)
    if narrow.kind is Kind.MESSAGE and not is_regex(a):
        if not is_regex(b):
            return bool(b) and b in a
        # What is found in a part is found in the whole, unless the expression asks what stands around it.
        return not re.search(r"[\^$]|\\[bBAz]", b) and compile_regex(b[1:-1])(a)
    globs = _globs(narrow, wide)
    if globs is None:
        return False
    (head, star, tail), (wide_head, wide_star, wide_tail) = globs
    if not star:  # one name, of a function in any service
        return _fits(head, wide_head, wide_tail) if wide_star else head == wide_head
    return bool(wide_star) and head.startswith(wide_head) and tail.endswith(wide_tail)


def _scalars_disjoint(one: Pattern, other: Pattern) -> bool:
    globs = _globs(one, other)
    if globs is None:
        return False
    (head, star, tail), (other_head, other_star, other_tail) = globs
    if not star and not other_star:
        return head != other_head
    if not star:
        return not _fits(head, other_head, other_tail)
    if not other_star:
        return not _fits(other_head, head, tail)
    heads = head.startswith(other_head) or other_head.startswith(head)
    tails = tail.endswith(other_tail) or other_tail.endswith(tail)
    return not (heads and tails)


def _fits(name: str, head: str, tail: str) -> bool:
    return name.startswith(head) and name.endswith(tail) and len(name) >= len(head) + len(tail)


_Glob = tuple[str, str, str]


def _globs(one: Pattern, other: Pattern) -> tuple[_Glob, _Glob] | None:
    """Both as text before a star, the star if there is one, and text after it; None when either is something else."""
    if one.kind in (Kind.MESSAGE, Kind.COUNT):
        return None
    texts = (one.scalar, other.scalar)
    if not all(isinstance(text, str | int) and not isinstance(text, bool) for text in texts):
        return None
    first, second = map(str, texts)
    if one.kind is Kind.FUNCTION and ("/" in first) != ("/" in second):
        return None  # one looks at the service, too
    if is_regex(first) or is_regex(second) or any(text.count("*") > 1 or "?" in text for text in (first, second)):
        return None
    return first.partition("*"), second.partition("*")
