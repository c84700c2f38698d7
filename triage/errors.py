"""Every error that triage raises on purpose.

TriageError
├── InvalidEnvelope          a message body that is no destination message; becomes a quarantine row
├── IllegalTransition        a failure's state has no move for this event: a defect of ours
├── RulesInvalid             rule files that cannot be loaded; carries every error with its place
├── ConfigInvalid            configuration that cannot be used; carries every error with its place
├── AmbiguousCode            the beginning of a short code that several have; carries them
├── PlanRefused              what is asked of a plan of re-runs cannot be done as it stands
├── TooLate                  what a person wants to call back was done, or may have been
├── StoreConflict            somebody else committed first; load facts again and decide again
├── StoreUnavailable         the store cannot be opened or written; ingestion stops, nothing is acknowledged
│   └── SealBroken           ... a stored message does not open; the others do
├── Temporary                the far side may say yes later (carries ``retry_after``)
│   └── OutcomeUnknown       the request may or may not have been carried out: ask, never guess
└── Permanent                the far side will not say yes to this request, ever
    └── Misconfigured        ... until a person changes the configuration
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta


class TriageError(Exception):
    """Root of all errors raised on purpose."""


class InvalidEnvelope(TriageError):
    """A message body that is no destination message.

    Attributes:
        reason: one of a closed set of words, used as label and in the quarantine (``envelope.REASONS``).
        where: JSON path (``$.requestContext.requestId``) or byte position; ``""`` when the whole body is meant.
        detail: what was wrong, for a person.
    """

    def __init__(self, reason: str, *, where: str = "", detail: str = "") -> None:
        self.reason, self.where, self.detail = reason, where, detail
        place = f" at {where}" if where else ""
        super().__init__(f"{reason}{place}: {detail}")


class AmbiguousCode(TriageError):
    """The beginning of a short code that several have. ``found``: which they are, the first few."""

    def __init__(self, name: str, found: Sequence[str]) -> None:
        self.name, self.found = name, tuple(found)
        super().__init__(f"{name}: several begin so: {', '.join(found)}; give more of the one that is meant")


class IllegalTransition(TriageError):
    """A state has no move for an event."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a file a person wrote. ``line`` and ``column`` count from 1; 0 means unknown."""

    file: str
    line: int
    column: int
    message: str
    hint: str = ""
    excerpt: str = ""  # the source line, without its newline

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        text = f"{place}: {self.message}"
        if self.hint:
            text += f" ({self.hint})"
        if self.excerpt:
            text += f"\n    {self.excerpt}\n    {' ' * max(self.column - 1, 0)}^"
        return text


class ProblemsError(TriageError):
    """Several problems, reported at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.file, p.line, p.column)))
        super().__init__("\n".join(str(p) for p in self.problems))


class RulesInvalid(ProblemsError):
    """Rule files that cannot be loaded."""


class ConfigInvalid(ProblemsError):
    """Configuration that cannot be used."""


class PlanRefused(TriageError):
    """A plan of re-runs cannot be made, or does not take what is asked of it; says why, and what to do."""


class TooLate(TriageError):
    """What a person wants to call back was done, or may have been."""


class StoreConflict(TriageError):
    """The rows a decision was based on have changed since they were read."""


class StoreUnavailable(TriageError):
    """The store cannot be opened, read or written."""


class SealBroken(StoreUnavailable):
    """A stored message was changed, or is in the place of another: it does not open, and never will."""

    def __init__(self, row: str = "") -> None:
        which = f"the stored message of {row}" if row else "a stored message"
        super().__init__(f"{which} does not open: somebody has changed it, or put it in the place of another")


class Temporary(TriageError):
    """The far side may say yes later.

    Attributes:
        reason: one of a closed set of words, used as label.
        retry_after: what the far side asked for, if it did.
    """

    def __init__(self, reason: str, detail: str = "", *, retry_after: timedelta | None = None) -> None:
        self.reason, self.detail, self.retry_after = reason, detail, retry_after
        super().__init__(f"{reason}: {detail}" if detail else reason)


class OutcomeUnknown(Temporary):
    """The request may or may not have been carried out (time-out, connection lost after sending)."""


class Permanent(TriageError):
    """The far side will not say yes to this request, ever."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


class Misconfigured(Permanent):
    """The far side will not say yes until a person changes the configuration."""
