"""``triage rules explain``: why a result was decided the way it was, or would be by other rules."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from triage.cli.output import print_fields, print_json, print_table, settings_option, show, show_time
from triage.cli.storage import ask

if TYPE_CHECKING:
    from triage.backtest.recorded import Ruling
    from triage.explain import Aftermath, Asked, Explanation
    from triage.facts import Arrival, Facts
    from triage.redaction import Redaction
    from triage.rules.model import Rule, RuleSet, Subject
    from triage.rules.owners import Owners
    from triage.settings import Settings
    from triage.silence import Silence
    from triage.stores import FailureDetail
    from triage.stores.sqlite import SqliteStore

_LONGEST: Final = 160
"""Characters of one value in the table; ``--json`` gives what the trace has."""


@dataclass(frozen=True, slots=True)
class _Question:
    """What is to be explained: a result, what is known of it, the rules, the stored decision if there is one, and what
    has a say after it.
    """

    arrival: Arrival
    facts: Facts
    now: datetime
    rules: RuleSet
    recorded: Ruling | None
    by: str
    after: Aftermath
    owners: Owners


@click.command()
@click.argument("what", metavar="REQUEST_ID|FILE")
@click.option("--rules", "path", type=click.Path(exists=True, path_type=Path), help="Decide by these instead: what if?")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, complete.")
@click.option("--unredacted", is_flag=True, help="Show values as they came, whatever [redaction] says.")
@settings_option
def explain(*, settings: Settings, what: str, path: Path | None, as_json: bool, unredacted: bool) -> None:
    """Say for each rule why it matched, or which clause failed on which value; and what the gates said.

    A stored result is explained as it was decided then: by the same rules, with what was known. The first characters of
    its id will do. A FILE (- is standard input) holds one message that was never received; it is decided as if it came
    now, belonged to no re-run and were the first of its kind.

    The exit code is 1 when a stored decision is not given again by its own rules, which is a defect of triage.
    """
    from triage.backtest.recorded import Ruling  # noqa: PLC0415
    from triage.explain import explain as explained  # noqa: PLC0415
    from triage.redaction import NOTHING  # noqa: PLC0415

    question = (
        _from_file(settings, what, path) if what == "-" or Path(what).is_file() else _stored(settings, what, path)
    )
    explanation = explained(question.arrival, question.facts, question.rules, now=question.now, after=question.after)
    ruling = Ruling.of(explanation.decision)
    redaction = NOTHING if unredacted else settings.redaction.redaction
    if as_json:
        print_json(_redacted(_as_json(question, explanation, ruling), redaction))
    else:
        _tell(question, explanation, ruling, redaction.text)
    if question.recorded is not None and path is None and ruling != question.recorded:
        click.echo(
            "DEFECT: the rules that this decision was made by do not give it again. Please report this.", err=True
        )
        sys.exit(1)


def _stored(settings: Settings, request_id: str, path: Path | None) -> _Question:
    from triage.backtest.recorded import Ruling  # noqa: PLC0415
    from triage.backtest.report import told_by  # noqa: PLC0415
    from triage.explain import Aftermath  # noqa: PLC0415
    from triage.rules.owners import owned, owners_then  # noqa: PLC0415
    from triage.rules.source import load_rules  # noqa: PLC0415
    from triage.stores.decisions import recall  # noqa: PLC0415
    from triage.stores.records import instant_of, json_text  # noqa: PLC0415

    async def find(store: SqliteStore) -> tuple[FailureDetail | None, Any, Sequence[Silence]]:
        found = await store.failure(request_id)
        if found is None:
            return None, None, ()
        kept = await store.rule_set(found.decision["rule_set"])
        return found, kept, await store.silences_since(instant_of(found.decision["decided_at"]))

    detail, kept, silences = ask(settings, find)
    if detail is None:
        raise click.ClickException(
            f"no file and no single stored result is named {request_id!r}. `triage failures list` shows what is stored."
        )
    decision = detail.decision
    texts = (json_text(decision[name]) for name in ("effects", "also", "shadow"))
    recorded = Ruling(decision["reason"], decision["rule_id"], *texts)
    arrival, facts, now = recall(detail)
    if path is not None:
        rules, after = owned(_read(path), settings.owners), Aftermath(silences)
        return _Question(arrival, facts, now, rules, recorded, f"would be decided by {path}", after, settings.owners)
    if kept is None:
        raise click.ClickException(
            f"the rules that it was decided by ({decision['rule_set'][:12]}) are not kept; --rules PATH explains it by"
            " others"
        )
    by = f"decided then by rules {decision['rule_set'][:12]}"
    alerts = detail.lineage["alerts"] if detail.lineage else ()
    quieted = {
        alert["group_key"]: alert["silence"]
        for alert in alerts
        if alert["silence"] and alert["request_id"] == detail.row.request_id
    }
    waits = {row["key"]: (row["gate"], row["note"]) for row in detail.outbox if row["gate"]}
    rules = load_rules(kept[1])
    owners = {**settings.owners, **owners_then(rules, told_by(recorded))}
    after = Aftermath(silences, quieted, waits)
    return _Question(arrival, facts, now, owned(rules, owners), recorded, by, after, owners)


def _from_file(settings: Settings, name: str, path: Path | None) -> _Question:
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.configuration import labels_of  # noqa: PLC0415
    from triage.envelope import parse_body  # noqa: PLC0415
    from triage.explain import Aftermath  # noqa: PLC0415
    from triage.facts import Facts, arrival  # noqa: PLC0415
    from triage.rulefiles import default_rules_dir  # noqa: PLC0415
    from triage.rules.owners import owned  # noqa: PLC0415

    with click.open_file(name, "rb") as stream:
        envelope = parse_body(stream.read())
    now = SystemClock().now()
    labels = labels_of(settings.labels)(envelope.function.label)
    came = arrival(envelope, source="file", message_id=name, received_at=now, enqueued_at=None, labels=labels)
    path = path or settings.rules or default_rules_dir()
    silences = ask(settings, lambda store: store.silences_since(now)) if settings.store.path.exists() else ()
    rules, by = owned(_read(path), settings.owners), f"would be decided now by {path}"
    return _Question(came, Facts(), now, rules, None, by, Aftermath(silences), settings.owners)


def _read(path: Path) -> RuleSet:
    from triage.rulefiles import read_rules  # noqa: PLC0415
    from triage.rules.source import load_rules  # noqa: PLC0415

    return load_rules(read_rules(path))


def _redacted(value: Any, redaction: Redaction) -> Any:
    """What is printed as JSON, without what the settings want to have taken out: rules decide by what was there."""
    if isinstance(value, str):
        return redaction.text(value)
    if isinstance(value, list):
        return [_redacted(each, redaction) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _payload(each, redaction) if name == "payload" else _redacted(each, redaction)
        for name, each in value.items()
    }


def _payload(value: Any, redaction: Redaction) -> Any:
    text = redaction.payload(json.dumps(value, ensure_ascii=False))
    try:
        return json.loads(text)
    except ValueError:  # a number was taken out
        return text


def _tell(question: _Question, explanation: Explanation, ruling: Ruling, redact: Callable[[str], str]) -> None:
    from triage.cli.comparison import ruling_text  # noqa: PLC0415

    envelope, facts, subject = question.arrival.envelope, question.facts, explanation.subject
    click.echo(f"{show(envelope.request_id)}  {show(question.by)}, {show_time(question.now)}")
    lineage, group = facts.lineage, facts.group
    print_fields(
        {
            "function": envelope.function.label,
            "outcome": " ".join(filter(None, (envelope.outcome.value, subject["condition"]))),
            "error": _cut(redact(": ".join(filter(None, (subject["error.type"], subject["error.message"]))))),
            "lineage": f"re-run {lineage.attempt} of {show_time(lineage.started_at)}" if lineage else "none yet",
            "group": f"{group.count:,} before, since {show_time(group.first_seen)}"
            if group
            else "the first of its kind",
        }
    )
    click.echo("\nrules")
    print_table(("  PLACE", "RULE", "VERDICT", "WHY"), [_row(asked, redact) for asked in explanation.asked])
    if explanation.gates:
        click.echo("\ngates")
        print_table(
            ("  GATE", "IS", "WHY"),
            [(f"  {gate.name}", "open" if gate.open else "closed", redact(gate.text)) for gate in explanation.gates],
        )
    click.echo("\ndecision")
    click.echo(f"  {show(redact(ruling_text(ruling)))}")
    rule = explanation.decision.rule
    if rule is not None and rule.owner:
        click.echo(f"  owner {show(rule.owner)}: {_told(rule, question.owners)}")
    for shadow in explanation.decision.shadow:
        effects = ", ".join(type(effect).__name__.lower() for effect in shadow.effects) or "ignore"
        click.echo(f"  in shadow mode: {show(shadow.rule.id)} would {effects}")
    if question.recorded is not None and ruling != question.recorded:
        click.echo(f"  recorded: {show(redact(ruling_text(question.recorded)))}")


def _told(rule: Rule, owners: Owners) -> str:
    """Whom alerts of a rule go to, and who says so."""
    from triage.decide import policy_of_rule  # noqa: PLC0415
    from triage.rules.model import UNSAID  # noqa: PLC0415

    if rule.ignore is not None:
        return "nobody is told"
    to = policy_of_rule(rule).to
    by_owner = "as [owners] says" if to != UNSAID else "by default"  # what is on record may be the default
    by_rule = "by the rule" if rule.alert is not None and to is not UNSAID else "by default"
    why = by_owner if owners.get(rule.owner) == to else by_rule
    return f"alerts go to {show(' and '.join(to))}, {why}"


def _row(asked: Asked, redact: Callable[[str], str]) -> tuple[str, str, str, str]:
    place = asked.step.rule.place
    return (
        f"  {place.file}:{place.line}",
        asked.step.rule.id,
        asked.step.verdict.replace("_", " "),
        _why(asked, redact),
    )


def _why(asked: Asked, redact: Callable[[str], str]) -> str:
    from triage.rules.match import Verdict  # noqa: PLC0415

    step, alone = asked.step, asked.alone
    if step.verdict is Verdict.NOT_ASKED:
        matches = alone.verdict in (Verdict.MATCHED, Verdict.SHADOW)
        return "would match, too" if matches else f"would not match: {_clause(alone.clause, redact)}"
    if step.verdict is Verdict.MATCHED:
        return "and goes on" if step.rule.continues else ""
    if step.verdict is Verdict.SHADOW:
        return "matches, and does nothing in shadow mode"
    if step.verdict is Verdict.ERROR and step.clause is not None:
        return _cut(redact(f"{step.clause.clause}: {step.clause.actual}"))
    return _clause(step.clause, redact)


def _clause(clause: Any, redact: Callable[[str], str]) -> str:
    if clause is None:
        return ""
    return _cut(redact(f"{clause.clause}  (it is {clause.actual})" if clause.actual else clause.clause))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _as_json(question: _Question, explanation: Explanation, ruling: Ruling) -> dict[str, Any]:
    from triage.backtest.report import ruling_json  # noqa: PLC0415
    from triage.decide import policy_of_rule  # noqa: PLC0415

    recorded, rule = question.recorded, explanation.decision.rule
    return {
        "request_id": question.arrival.envelope.request_id,
        "fingerprint": question.arrival.fingerprint,
        "at": question.now,
        "rule_set": question.rules.digest,
        "seen": dict(_seen(explanation.subject)),
        "rules": [_asked_json(asked) for asked in explanation.asked],
        "gates": [{"gate": gate.name, "open": gate.open, "why": gate.text} for gate in explanation.gates],
        "decision": ruling_json(ruling),
        "owner": rule.owner if rule else "",
        "receivers": [] if rule and rule.ignore is not None else list(policy_of_rule(rule).to),
        "recorded": ruling_json(recorded) if recorded else None,
        "as_recorded": None if recorded is None else ruling == recorded,
    }


def _seen(subject: Subject) -> Iterator[tuple[str, Any]]:
    """The values of all names that were known; of the event only when a rule has looked into it."""
    from triage.facts import Unrecorded  # noqa: PLC0415
    from triage.subject import VOCABULARY  # noqa: PLC0415

    for name in VOCABULARY:
        if name != "payload" or name in subject:
            with suppress(Unrecorded):
                yield name, _plain(subject[name])


def _asked_json(asked: Asked) -> dict[str, Any]:
    step, alone = asked.step, asked.alone
    clause = alone.clause
    return {
        "rule": step.rule.id,
        "file": step.rule.place.file,
        "line": step.rule.place.line,
        "mode": str(step.rule.mode),
        "verdict": str(step.verdict),
        "alone": str(alone.verdict),
        "clause": clause.clause if clause else None,
        "actual": clause.actual if clause else None,
    }


def _plain(value: Any) -> Any:
    """Durations as seconds; everything else prints as it is."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    return dict(value) if isinstance(value, Mapping) else value
