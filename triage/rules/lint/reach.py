"""Rules that never match, or are never asked because of those before them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from triage.envelope import Outcome
from triage.rules.lint.cover import shadowed
from triage.rules.lint.entry import Entry, Written
from triage.rules.lint.findings import Finding
from triage.rules.lint.patterns import Kind, Pattern, always, never
from triage.rules.matchers import ERROR_FIELDS, FIELDS
from triage.rules.mistakes import Path
from triage.rules.model import Mode


def reach_findings(entries: Sequence[Entry], conditions: Sequence[Written]) -> Iterator[Finding]:
    """R001 to R006."""
    for condition in conditions:
        yield from _impossible(condition)
    dead = set()
    for entry in entries:
        alone = [*_impossible(entry)]
        found = alone or [*_contradicted(entry)]
        if found:
            dead.add(entry.rule.id)
        yield from found
        yield from _constant(entry)
    live = [entry for entry in entries if entry.rule.mode is not Mode.OFF and entry.rule.id not in dead]
    catch_all = next((entry for entry in live if _takes_all(entry)), None)
    if catch_all is not None:
        after = [entry for entry in live[live.index(catch_all) + 1 :] if not entry.rule.successes]
        if after:
            yield _catch_all_first(catch_all, after)
        live = [entry for entry in live if entry not in after]
    elif entries:
        yield entries[-1].finding(
            "R005",
            "no rule takes what is left: such failures are told to `default`, as warnings",
            "end the last file with a rule without match, such as - {id: everything-else, alert: {}}",
        )
    yield from shadowed(live)


_MEND: Final = "it never matches; where one of several is meant, write a list"


def _impossible(written: Written) -> Iterator[Finding]:
    """Patterns that nothing fits, wherever they are mentioned."""
    for clause in written.mentioned:
        if not clause.negated and never(clause.pattern):
            yield written.finding("R001", f"no {clause.name} is like this", _MEND, clause.path)


def _contradicted(entry: Entry) -> Iterator[Finding]:
    """Patterns that contradict each other."""
    found = entry.patterns()
    for name, whole in found.items():
        if never(whole):
            last = [clause for clause in entry.clauses if clause.pattern.field.name == name][-1]
            message = f"no {last.name} is like this and like the other clause for it"
            yield entry.finding("R001", message, _MEND, last.path)
    function, service = found.get(FIELDS["function"].name), found.get(FIELDS["service"].name)
    if function and service and _other_service(function, service):
        message = "the function that is asked for is in another service"
        yield entry.finding("R001", message, _MEND, _place(entry, service))
    outcome = found.get(FIELDS["outcome"].name)
    if outcome is not None and not outcome.accepts(Outcome.FAILED.value):
        for field in ERROR_FIELDS.values():
            if field.name in found and not found[field.name].accepts(""):
                place = _place(entry, found[field.name])
                yield entry.finding("R001", "a result that is no failure has no error", _MEND, place)


def _place(entry: Entry, pattern: Pattern) -> Path:
    return next(clause.path for clause in entry.clauses if clause.pattern.field == pattern.field)


def _other_service(function: Pattern, service: Pattern) -> bool:
    leaves = [str(leaf.scalar) for leaf in function.leaves()]
    positive = function.kind is Kind.FUNCTION and all("/" in each and not each.startswith("/") for each in leaves)
    literal = not any(mark in each.partition("/")[0] for each in leaves for mark in "*?")
    return (
        positive
        and literal
        and not _negated(function)
        and not any(service.accepts(each.partition("/")[0]) for each in leaves)
    )


def _negated(pattern: Pattern) -> bool:
    return pattern.form.value == "not" or any(_negated(part) for part in pattern.parts)


def _constant(entry: Entry) -> Iterator[Finding]:
    when = entry.rule.when
    if when is None or when.names or "windows." in when.text:
        return
    if when.evaluate({}) is True:
        mend = "leave `when` out, or ask for something"
        yield entry.finding("R006", "the expression is true whatever the failure", mend, ("when",))
    else:
        mend = "the rule never matches; to switch it off, write mode: off"
        yield entry.finding("R001", "the expression is never true", mend, ("when",))


def _takes_all(entry: Entry) -> bool:
    rule = entry.rule
    return (
        rule.mode is Mode.LIVE
        and rule.when is None
        and rule.expires is None
        and not rule.continues
        and not entry.opaque
        and all(
            always(clause.pattern)
            or (clause.pattern.kind is Kind.WORD and clause.pattern.accepts(Outcome.FAILED.value))
            for clause in entry.clauses
        )
    )


def _catch_all_first(entry: Entry, after: Sequence[Entry]) -> Finding:
    names = ", ".join(each.rule.id for each in after[:3]) + (", ..." if len(after) > 3 else "")
    return entry.finding(
        "R004",
        f"takes every failure, so that the {len(after)} rules after it are never asked: {names}"
        if len(after) > 1
        else f"takes every failure, so that the rule after it is never asked: {names}",
        "put it last (files are read in the order of their names), or give it a match",
    )
