"""Test cases of rules: ``NAME.test.yaml`` beside the rule files. Reading them; `triage.ruletest` runs them.

A case is what a decision is made from (a message, what is known of it, the time) and what is expected of it. A message
is written in the words of ``match:``, or as Function Compute sends it, inline or in a file; either way it is read by
the code that reads messages in production.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from triage.envelope import Destination, Envelope, Outcome, RequestId, parse_body
from triage.errors import InvalidEnvelope, Problem, RulesInvalid
from triage.facts import RATES, SPANS, Arrival, Facts, GroupFacts, Lineage, arrival
from triage.reruns.breaker import Breaker, BreakerState
from triage.reruns.budget import Budget
from triage.reruns.gate import Safeguards, Standing
from triage.rules.case_keys import ALERT, CASE, FILE, NOW
from triage.rules.document import Document, read_document
from triage.rules.keys import Key
from triage.rules.mistakes import Mistake, Path, did_you_mean
from triage.rules.model import Cause, Place, Severity, SourceText
from triage.rules.section import read_section
from triage.silence import Silence
from triage.states import State

SUFFIXES: Final = (".test.yaml", ".test.yml")
"""How the names of case files end."""


@dataclass(frozen=True, slots=True)
class ExpectedRerun:
    """What a re-run must be; None is not asked. ``after`` is the delay without its jitter, ``waits`` the gate at which
    it waits when it is due; empty: it goes.
    """

    attempt: int | None = None
    after: timedelta | None = None
    qualifier: str | None = None
    waits: str = ""


@dataclass(frozen=True, slots=True)
class ExpectedAlert:
    """What an alert must be; None is not asked. ``text`` are parts of the message a person gets, ``silenced`` the
    receivers that it is kept from.
    """

    to: tuple[str, ...] | None = None
    silenced: tuple[str, ...] = ()
    severity: Severity | None = None
    cause: Cause | None = None
    text: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a decision must be. What is None is not asked; the kinds of effects are, as soon as one is named.

    Attributes:
        rule: id of the rule that decides; an empty text means that none does.
        reason: word for the decision (``decide.Reason``).
        ignore: the reason, or a part of it; so is ``hold``.
        shadow: ids of the rules in shadow mode that match, too.
        nothing: no effect at all.
    """

    rule: str | None = None
    reason: str | None = None
    rerun: ExpectedRerun | None = None
    alerts: tuple[ExpectedAlert, ...] = ()
    ignore: str | None = None
    hold: str | None = None
    shadow: tuple[str, ...] | None = None
    nothing: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """What is decided, and what must come of it."""

    name: str
    place: Place
    arrival: Arrival
    facts: Facts
    now: datetime
    expect: Expectation
    silences: tuple[Silence, ...] = ()
    standing: Standing = field(default_factory=Standing)
    """How the function stands when a re-run of it is due."""


def load_cases(sources: Sequence[SourceText]) -> list[Case]:
    """Read case files, in the order of their names. The other sources are messages, which the cases may name.

    Raises:
        RulesInvalid: with every problem of all case files.
    """
    messages = {source.name: source.text for source in sources if not source.name.endswith(SUFFIXES)}
    loader = _Loader(messages)
    files = sorted((each for each in sources if each.name.endswith(SUFFIXES)), key=lambda source: source.name)
    cases = [case for source in files for case in loader.file(source)]
    if loader.problems:
        raise RulesInvalid(loader.problems)
    return cases


_FORMS: Final = ("envelope", "message", "file")
_ACTIONS: Final = ("rerun", "alert", "ignore", "hold")


class _Loader:
    """Collects the problems of all case files."""

    def __init__(self, messages: Mapping[str, str]) -> None:
        self.messages = messages
        self.problems: list[Problem] = []

    def file(self, source: SourceText) -> list[Case]:
        document, problems = read_document(source)
        self.problems += problems
        if document is None:
            return []
        values = self.section(document, (), FILE, shape="a case file begins with version: 1, then cases:")
        cases = [self.case(document, ("cases", index)) for index in range(len(values.get("cases", ())))]
        return [case for case in cases if case is not None]

    def case(self, document: Document, path: Path) -> Case | None:
        before = len(self.problems)
        values = self.section(document, path, CASE)
        if not isinstance(document.value(path), dict):
            return None
        forms = [name for name in _FORMS if name in document.value(path)]
        if len(forms) != 1:
            said = f"{' and '.join(forms)} together" if forms else "no message"
            self.report(document, path, Mistake(said, f"a case has one of {', '.join(_FORMS)}"))
        elif "file" in values and values["file"] not in self.messages:
            hint = did_you_mean(values["file"], self.messages) or "it stands beside this one, as *.json"
            self.report(document, path, Mistake(f"no file {values['file'][:100]!r}", hint, ("file",)))
        expect = self.expectation(document, (*path, "expect"), values.get("expect", {}))
        if len(self.problems) > before:
            return None
        now = values.get("now") or datetime.fromisoformat(NOW)
        try:
            envelope = self.envelope(values)
        except InvalidEnvelope as error:
            self.report(document, path, Mistake(f"no message that can be read: {error}", "", (forms[0],)))
            return None
        return Case(
            name=values["name"],
            place=Place(document.source.name, *document.line(path)),
            arrival=arrival(
                envelope,
                source=values.get("source", "local"),
                message_id="case",
                received_at=now,
                enqueued_at=None,
                labels=values.get("labels", {}),
            ),
            facts=_facts(values, now=now),
            now=now,
            expect=expect,
            silences=tuple(_silence(match, now=now) for match in values.get("silences", ())),
            standing=_standing(values.get("gates", {}), now=now),
        )

    def envelope(self, values: Mapping[str, Any]) -> Envelope:
        if "envelope" in values:
            written = values["envelope"]
            return parse_body(_body(written), destination=_DESTINATIONS[written.get("outcome", Outcome.FAILED)])
        text = self.messages[values["file"]] if "file" in values else json.dumps(values["message"])
        return parse_body(text.encode(), destination=Destination(values.get("destination", Destination.BOTH)))

    def expectation(self, document: Document, path: Path, values: Mapping[str, Any]) -> Expectation:
        written = values.get("alert", [])
        here: Path = (*path, "alert")
        places = [(*here, index) for index in range(len(written))] if isinstance(written, list) else [here]
        alerts = [ExpectedAlert(**_alert(self.section(document, place, ALERT))) for place in places]
        if values.get("nothing") and (named := [name for name in _ACTIONS if name in values]):
            self.report(
                document, path, Mistake(f"nothing, and yet {named[0]}", "leave one out", ("nothing",), key=True)
            )
        return Expectation(
            rule=values.get("rule"),
            reason=values.get("reason"),
            rerun=ExpectedRerun(**values["rerun"]) if "rerun" in values else None,
            alerts=tuple(alerts),
            ignore=values.get("ignore"),
            hold=values.get("hold"),
            shadow=values.get("shadow"),
            nothing=values.get("nothing", False),
        )

    def section(self, document: Document, path: Path, keys: Mapping[str, Key], *, shape: str = "") -> dict[str, Any]:
        values, problems = read_section(document, path, keys, shape=shape)
        self.problems += problems
        return values

    def report(self, document: Document, path: Path, mistake: Mistake) -> None:
        self.problems.append(document.problem(path, mistake))


_DESTINATIONS: Final[Mapping[str, Destination]] = {
    Outcome.FAILED: Destination.FAILURE,
    Outcome.SUCCEEDED: Destination.SUCCESS,
    Outcome.AMBIGUOUS: Destination.BOTH,
}
"""The queue on which a message that says nothing else would have this outcome."""


def _body(written: Mapping[str, Any]) -> bytes:
    """The message as Function Compute would send it."""
    service, _, name = written.get("function", "example").rpartition("/")
    function = f"services/{service}/functions/{name}" if service else f"functions/{name}"
    arn = f"acs:fc:{written.get('region', '')}:{written.get('account', '')}:{function}"
    error = written.get("error")
    payload = written.get("payload", "")
    message = {
        "requestContext": {
            "requestId": written.get("request_id", "1-case"),
            "functionArn": f"{arn}/{written['qualifier']}" if written.get("qualifier") else arn,
            "condition": written.get("condition", ""),
            "approximateInvokeCount": written.get("invoke_count"),
        },
        "requestPayload": payload if isinstance(payload, str) else json.dumps(payload),
        "responseContext": {
            "statusCode": written.get("status_code", 200),
            "functionError": written.get("function_error", ""),
        },
        "responsePayload": json.dumps({"errorType": error.get("type"), "errorMessage": error.get("message")})
        if error
        else "",
    }
    return json.dumps(message).encode()


def _silence(match: Mapping[str, Any], *, now: datetime) -> Silence:
    return Silence(id=0, match=match, by="", reason="", created_at=now, ends_at=datetime.max.replace(tzinfo=UTC))


def _standing(values: Mapping[str, Any], *, now: datetime) -> Standing:
    budget, state = values.get("budget"), BreakerState(values.get("breaker", BreakerState.CLOSED))
    left = Budget()
    if budget is not None:
        saved = budget.get("floor", 0) * Safeguards().budget.interval
        left = Budget(budget.get("successes", 0), now - saved)
    return Standing(budget=left, breaker=Breaker(state, until=None if state is BreakerState.CLOSED else now + _PAUSE))


_PAUSE: Final = timedelta(seconds=30)


def _facts(values: Mapping[str, Any], *, now: datetime) -> Facts:
    lineage, group = values.get("lineage"), values.get("group")
    return Facts(
        lineage=Lineage(
            root=RequestId("1-first"),
            state=State.RERUNNING,
            attempt=lineage["attempt"],
            started_at=now - lineage.get("age", _NONE),
            rule_id="",
            version=1,
            manual=lineage.get("manual", 0),
        )
        if lineage
        else None,
        group=_group(group, now=now) if group else None,
    )


def _group(values: Mapping[str, Any], *, now: datetime) -> GroupFacts:
    first_seen = now - values.get("age", values.get("last", _NONE))
    last_seen = now - values.get("last", _NONE)
    recent = tuple(values.get(f"rate_{name}", 0.0) * span for name, span in zip(SPANS, RATES, strict=True))
    return GroupFacts(first_seen, values["count"], last_seen, first_seen, recent)


_NONE: Final = timedelta(0)


def _alert(values: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {"severity": Severity, "cause": Cause}
    return {name: kinds[name](value) if name in kinds else value for name, value in values.items()}
