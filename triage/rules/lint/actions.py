"""What rules do: re-runs that nobody hears of or that multiply, alerts that reach nobody or too many."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import timedelta
from typing import Final

from triage.rules.lint.entry import Entry
from triage.rules.lint.findings import Finding
from triage.rules.lint.patterns import always
from triage.rules.matchers import ERROR_FIELDS, FIELDS
from triage.rules.mistakes import did_you_mean
from triage.rules.model import Cause, Mode, RerunPolicy
from triage.rules.readers import show_duration

MAX_ATTEMPTS: Final = 10
LONGEST: Final = timedelta(days=2)
PLATFORM_RETRIES: Final = 3
"""How often Function Compute itself runs a failed function again, unless the function is configured otherwise
(https://www.alibabacloud.com/help/en/functioncompute/fc/error-handling-1-2)."""
MULTIPLIED: Final = 3
"""Re-runs of a failed function from which on their product with the platform's is worth a word."""

FUNCTION_ERRORS: Final = ("InvocationError", "HandledInvocationError", "UnhandledInvocationError")
"""Conditions that tell of an error of the function's own, which the platform has retried."""


def action_findings(entry: Entry, *, receivers: Collection[str] | None) -> Iterator[Finding]:
    """R012 to R018, and R025."""
    rule = entry.rule
    if rule.rerun is not None:
        yield from _rerun(entry, rule.rerun)
    if rule.hold is not None and Cause.HELD not in (rule.alert.on if rule.alert else ()):
        yield entry.finding(
            "R025",
            f"nobody is told that a decision is awaited until {show_duration(rule.hold.length)} have passed",
            "add alert: {} to the rule: it tells at once",
            ("hold",),
        )
    if rule.alert is not None:
        if receivers is not None:
            later = (name for step in rule.alert.course.escalate for name in step.to)
            yield from _receivers(entry, (*rule.alert.to, *later), receivers)
        if "error_message" in rule.alert.group_by:
            yield entry.finding(
                "R017",
                "messages differ in ids and numbers, so that nearly every failure becomes an alert of its own",
                "group by fingerprint: it is the same for messages that differ only in these",
                ("alert", "group_by"),
            )
    takes_all = rule.when is None and not entry.opaque and all(always(clause.pattern) for clause in entry.clauses)
    if rule.ignore is not None and rule.mode is Mode.LIVE and takes_all:
        yield entry.finding(
            "R018",
            "ignores every failure that comes to it: nobody will ever hear of them",
            "give it a match, or an alert of severity info",
            ("ignore",),
        )


def _rerun(entry: Entry, policy: RerunPolicy) -> Iterator[Finding]:
    alert = entry.rule.alert
    if alert is not None and not alert.on & {Cause.FAILED, Cause.EXHAUSTED}:
        yield entry.finding(
            "R012",
            "nobody is told when the last re-run has failed",
            "add `exhausted` to alert.on, or leave `on` out",
            ("alert", "on"),
        )
    if policy.max_attempts > MAX_ATTEMPTS:
        yield entry.finding(
            "R013",
            f"{policy.max_attempts} re-runs of one failure: what ten did not mend, the next will hardly",
            f"{MAX_ATTEMPTS} or fewer, with longer delays (backoff)",
            ("rerun", "max_attempts"),
        )
    if policy.give_up_after > LONGEST:
        yield entry.finding(
            "R013",
            f"re-runs go on for {show_duration(policy.give_up_after)}, and as long nobody is told",
            f"give up after {show_duration(LONGEST)} or less",
            ("rerun", "give_up_after"),
        )
    if policy.max_attempts >= MULTIPLIED and _is_function_error(entry):
        runs = (policy.max_attempts + 1) * (PLATFORM_RETRIES + 1)
        yield entry.finding(
            "R014",
            f"the platform itself runs a failed function {PLATFORM_RETRIES} times more: "
            f"with these re-runs {runs} times in all",
            f"fewer than {MULTIPLIED} re-runs, or switch the function's own retries off",
            ("rerun", "max_attempts"),
        )
    fitting = _fitting(policy)
    if fitting < policy.max_attempts:
        yield entry.finding(
            "R015",
            f"only {fitting} of {policy.max_attempts} re-runs can come before give_up_after "
            f"({show_duration(policy.give_up_after)})",
            "give up later, shorten the delays (after, backoff), or lower max_attempts",
            ("rerun", "max_attempts"),
        )


def _is_function_error(entry: Entry) -> bool:
    """Whether the rule asks for errors of functions, in so many words."""
    found = entry.patterns()
    for key in ("condition", "function_error"):
        asked = found.get(FIELDS[key].name)
        if asked is not None and not asked.accepts("") and any(map(asked.accepts, FUNCTION_ERRORS)):
            return True
    errors = (found.get(field.name) for field in ERROR_FIELDS.values())
    return any(asked is not None and not asked.accepts("") for asked in errors)


def _fitting(policy: RerunPolicy) -> int:
    """How many re-runs can come in time if each failed at once and chance made all delays as short as may be."""
    passed = timedelta(0)
    delay = policy.after
    for number in range(policy.max_attempts):
        passed += min(delay, policy.max_delay) * (1 - policy.jitter)
        if passed > policy.give_up_after:
            return number
        delay = min(delay * policy.factor, policy.max_delay)
    return policy.max_attempts


def _receivers(entry: Entry, named: tuple[str, ...], known: Collection[str]) -> Iterator[Finding]:
    for receiver in named:
        if receiver not in known:
            hint = did_you_mean(receiver, known, listed=True) or f"configured: {', '.join(sorted(known))}"
            yield entry.finding(
                "R016",
                f"no receiver {receiver!r} is configured",
                f"{hint}; or add [receivers.{receiver}]",
                ("alert", "to"),
            )
