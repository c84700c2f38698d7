"""What a rule is, once loaded: values only. `triage.rules.source` makes them, `triage.rules.match` applies them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum
from operator import itemgetter
from typing import Any, Final, NamedTuple, Protocol

from triage.rules.course import COURSE, Course


class Cause(StrEnum):
    """Why an alert is raised; what ``alert.on`` lists."""

    FAILED = "failed"  # the rule matched a failure (at once, also when it re-runs)
    EXHAUSTED = "exhausted"  # no attempt or no time is left
    REFUSED = "refused"  # the provider refused the re-run for good
    UNKNOWN = "unknown"  # whether the re-run was submitted cannot be found out
    OVERDUE = "overdue"  # no result of the re-run came by its deadline
    HELD = "held"  # held for a person: told at once where the rule says so, and when nobody decided in time
    QUARANTINED = "quarantined"  # a message could not be read; not for rules
    MATCHED = "matched"  # a rule matched a result that is no failure; not to be listed
    RULES_REFUSED = "rules_refused"  # the rule files were changed and cannot be used; not for rules
    PLAN_STOPPED = "plan_stopped"  # too few re-runs of a plan's step succeeded; not for rules


ABOUT_FAILURES: Final = frozenset(Cause) - {
    Cause.QUARANTINED, Cause.RULES_REFUSED, Cause.PLAN_STOPPED, Cause.MATCHED,
}  # fmt: skip
"""What the alert of a rule can be about."""


class Severity(StrEnum):
    """How bad, for receivers that can show it."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class RerunPolicy:
    """When and how often to run the task again. There is no unlimited re-run.

    Attributes:
        after: delay before the first re-run.
        factor: each further delay is this many times longer, up to ``max_delay``.
        jitter: share of a delay that is spread, 0 to 1; drawn from the request id, so a replay gives the same instant.
        max_attempts: re-runs over the whole lineage, however they were asked for.
        give_up_after: since the first failure; no re-run is planned past it.
        expect_within: a result must come this long after the submit, else an alert says so.
        idempotent: the function may run twice; only then is a re-run repeated when its outcome cannot be found out.
        qualifier: version or alias to run; empty means the one that failed.
        budget: re-runs for one success of the function's first runs; None: as configured (`triage.reruns.budget`).
    """

    max_attempts: int
    give_up_after: timedelta
    after: timedelta = timedelta(0)
    factor: float = 2.0
    max_delay: timedelta = timedelta(hours=1)
    jitter: float = 0.1
    expect_within: timedelta = timedelta(hours=24)
    idempotent: bool = False
    qualifier: str = ""
    budget: float | None = None


UNSAID: Final = ("default",)
"""Whom an alert is for when its rule does not say: this very object, so that `to: default` is taken at its word."""


@dataclass(frozen=True, slots=True)
class AlertPolicy:
    """Whom to tell, about what, and how much at once (words as in Prometheus Alertmanager)."""

    to: tuple[str, ...] = UNSAID
    on: frozenset[Cause] = ABOUT_FAILURES
    severity: Severity = Severity.WARNING
    group_by: tuple[str, ...] = ("function", "fingerprint")
    group_wait: timedelta = timedelta(seconds=30)
    group_interval: timedelta = timedelta(minutes=5)
    template: str | tuple[tuple[str, str], ...] = ""
    """What its messages look like: the name of a template beside the rules, or forms with a template each."""
    course: Course = COURSE


@dataclass(frozen=True, slots=True)
class HoldPolicy:
    """Do nothing until a person decides; ``length`` from now a person is told that nobody did."""

    reason: str
    length: timedelta = timedelta(hours=24)


class Mode(StrEnum):
    """What a rule that matches may do."""

    LIVE = "live"
    SHADOW = "shadow"  # it is recorded what it would have done; the search goes on
    OFF = "off"  # not asked


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rule stands in its file, counted from 1."""

    file: str
    line: int
    column: int = 1


@dataclass(frozen=True, slots=True)
class Clause:
    """Why a rule did not match: the clause, and the value it met."""

    rule_id: str
    clause: str
    actual: str


Subject = Mapping[str, Any]
"""The flat set of dotted names a rule may mention, with their values (see ``triage.subject.VOCABULARY``)."""


class Expression(Protocol):
    """A compiled ``when:``. True, False, or the text of an evaluation error (which is no match, and counted).

    ``names`` are those that ``text`` mentions.
    """

    text: str
    names: tuple[str, ...]

    def evaluate(self, subject: Subject) -> bool | str: ...


Test = Callable[[Subject], bool]


@dataclass(frozen=True, slots=True)
class Matcher:
    """One compiled clause of ``match:``.

    Attributes:
        name: the value it looks at; for one that combines others the word for how: any, all, not, use.
        clause: its text, for explanations.
        wanted: what is written there.
        parts: the matchers that it combines.
    """

    name: str
    clause: str
    test: Test = field(compare=False)
    wanted: Any = None
    parts: tuple[Matcher, ...] = ()
    names: frozenset[str] = field(init=False, compare=False, repr=False)
    """Names of the vocabulary that it looks at."""
    size: int = field(init=False, compare=False, repr=False)
    """How many comparisons it consists of."""
    steps: int = field(default=0, compare=False, repr=False)
    """Steps of the regular expressions in it."""

    def __post_init__(self) -> None:
        # Found out once: a condition may be part of thousands of rules.
        root = self.name.partition(".")[0]
        own = frozenset((root if root in ("payload", "labels") else self.name,))
        combined = self.name in COMBINED
        names = frozenset().union(*(part.names for part in self.parts)) if combined else own
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "size", sum(part.size for part in self.parts) if self.parts else 1)
        if self.parts:
            object.__setattr__(self, "steps", sum(part.steps for part in self.parts))


COMBINED: Final = ("any", "all", "not", "use")
"""Names of matchers that look at no value themselves."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. It has ``ignore`` alone, or at least one of ``rerun``, ``alert`` and ``hold``.

    Attributes:
        hold: a person decides; with ``rerun``, that is what happens when the person says so.
        continues: what it does is done, and the rules after it are asked, too.
        expires: the last day (UTC) on which it is asked.
        review_by: when somebody should look whether it is still right.
        fingerprint: what its alerts have for a fingerprint, in place of the usual one (`triage.rules.fingerprints`).
        tell: receivers of its owner, for what it says nothing about (`triage.rules.owners`).
        names: of the vocabulary, those that ``match`` and ``when`` mention.
    """

    id: str
    place: Place
    match: tuple[Matcher, ...] = ()
    when: Expression | None = None
    rerun: RerunPolicy | None = None
    alert: AlertPolicy | None = None
    ignore: str | None = None
    owner: str = ""
    runbook: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    hold: HoldPolicy | None = None
    mode: Mode = Mode.LIVE
    continues: bool = False
    expires: date | None = None
    review_by: date | None = None
    fingerprint: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    tell: tuple[str, ...] = ()

    @property
    def successes(self) -> bool:
        """Whether it is asked about results that are no failures, too. Those cannot be run again, nor held."""
        return "outcome" in self.names and self.rerun is None and self.hold is None


@dataclass(frozen=True, slots=True)
class SourceText:
    """One rule file, or template, as read. ``name`` is its path relative to the rules folder."""

    name: str
    text: str


class Candidate(NamedTuple):
    """A rule that may match, and the tests of its ``match`` that are still to be made."""

    rule: Rule
    tests: tuple[Test, ...]


KIND: Final = (
    "fn", "service", "qualifier", "region", "account", "condition", "outcome", "error.type", "status_code", "source",
)  # fmt: skip
"""Names whose values many results share. Two results of one kind have the same values under all of them."""

kind_of: Callable[[Subject], tuple[Any, ...]] = itemgetter(*KIND)
"""The values under `KIND`."""

_MOST_KINDS: Final = 4_000
_LONGEST_KIND: Final = 400
"""Characters of condition and error type, which anybody can make up."""


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All rules, in file order. ``digest`` is the SHA-256 over names and texts, and is stored with every decision.

    ``of_failures`` and ``of_successes`` are those that are asked about such a result at all.
    """

    rules: tuple[Rule, ...]
    digest: str
    sources: tuple[SourceText, ...] = ()
    templates: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Templates of messages beside the rules, by name and form."""
    beside: tuple[SourceText, ...] = ()
    """The files of those templates."""
    of_failures: tuple[Rule, ...] = field(init=False, compare=False, repr=False)
    of_successes: tuple[Rule, ...] = field(init=False, compare=False, repr=False)
    names: frozenset[str] = field(init=False, compare=False, repr=False)
    """Names of the vocabulary that rules mention which are asked at all."""
    _of_kinds: dict[tuple[Any, ...], tuple[Candidate, ...]] = field(
        init=False, compare=False, repr=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        asked = tuple(rule for rule in self.rules if rule.mode is not Mode.OFF)
        object.__setattr__(self, "names", frozenset().union(*(rule.names for rule in asked)))
        object.__setattr__(self, "of_failures", asked)
        object.__setattr__(self, "of_successes", tuple(rule for rule in asked if rule.successes))

    @property
    def texts(self) -> tuple[SourceText, ...]:
        """Everything that `triage.rules.source.load_rules` needs to make it again."""
        return (*self.sources, *self.beside)

    def candidates(self, kind: tuple[Any, ...], subject: Subject) -> tuple[Candidate, ...]:
        """The rules that may match a subject of this kind, in order.

        Which those are is found out once for each kind: clauses that look at nothing but `KIND` are settled by it. To
        leave out a rule one of whose clauses does not hold changes no decision; this is speed, and nothing else.
        """
        found = self._of_kinds.get(kind)
        if found is None:
            rules = self.of_failures if subject["outcome"] == "failed" else self.of_successes
            found = tuple(
                Candidate(rule, tuple(matcher.test for matcher in rule.match if not matcher.names <= _SETTLED))
                for rule in rules
                if all(matcher.test(subject) for matcher in rule.match if matcher.names <= _SETTLED)
            )
            if len(subject["condition"]) + len(subject["error.type"]) <= _LONGEST_KIND:
                if len(self._of_kinds) >= _MOST_KINDS:
                    self._of_kinds.clear()
                self._of_kinds[kind] = found
        return found


_SETTLED: Final = frozenset(KIND)


class Match(NamedTuple):
    """The rules that apply: any number that continue and at most one that does not, in order.

    Attributes:
        shadow: rules in shadow mode that match, and would have applied.
        errors: rules on the way whose ``when`` could not be evaluated.
    """

    rules: Sequence[Rule] = ()
    shadow: Sequence[Rule] = ()
    errors: tuple[Clause, ...] = ()
