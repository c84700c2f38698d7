"""From the text of rule files to a `RuleSet`, or to all mistakes in them at once, each with its place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from triage.errors import Problem, RulesInvalid
from triage.rules.course import Course
from triage.rules.definitions import RuleFile, define
from triage.rules.document import Document, read_document
from triage.rules.keys import ALERT, COURSE, FILE, RULE, Key
from triage.rules.matchers import NO_NAMES, Names
from triage.rules.mistakes import MAX_TOLD, Mistake, Path, did_you_mean
from triage.rules.model import (
    ABOUT_FAILURES,
    AlertPolicy,
    Cause,
    Mode,
    Place,
    RerunPolicy,
    Rule,
    RuleSet,
    Severity,
    SourceText,
)
from triage.rules.section import read_section
from triage.rules.templates import SUFFIX, read_templates

GIVE_UP_AFTER: Final = timedelta(hours=6)


def load_rules(sources: Sequence[SourceText]) -> RuleSet:
    """Read rule files; their rules stand in the order of the files' names.

    Raises:
        RulesInvalid: with every problem of all files, of each file the first hundred.
    """
    every = sorted(sources, key=lambda source: source.name)
    beside = tuple(source for source in every if source.name.endswith(SUFFIX))
    ordered = [source for source in every if not source.name.endswith(SUFFIX)]
    loader = _Loader()
    loader.templates, loader.problems = read_templates(beside)
    files = loader.files(ordered)
    rules = tuple(rule for file in files for rule in loader.rules(file))
    if loader.problems:
        raise RulesInvalid(_told(loader.problems))
    digest = hashlib.sha256()
    for source in (*ordered, *beside):
        for text in (source.name, source.text):
            data = text.encode("utf-8", "replace")
            digest.update(b"%d:%b" % (len(data), data))
    return RuleSet(rules, digest.hexdigest(), tuple(ordered), loader.templates, beside)


def _told(problems: Sequence[Problem]) -> list[Problem]:
    """The problems without those past the first `MAX_TOLD` of a file, and that there are more."""
    told: list[Problem] = []
    by_file: dict[str, list[Problem]] = {}
    for problem in problems:
        by_file.setdefault(problem.file, []).append(problem)
    for file, found in by_file.items():
        told += sorted(found, key=lambda problem: (problem.line, problem.column))[:MAX_TOLD]
        if len(found) > MAX_TOLD:
            told.append(Problem(file, 0, 0, f"more than {MAX_TOLD} mistakes; the first {MAX_TOLD} are told"))
    return told


class _Loader:
    """Collects the problems of all files, and knows the ids used so far."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.ids: dict[str, Place] = {}
        self.templates: dict[str, dict[str, str]] = {}

    def files(self, sources: Sequence[SourceText]) -> list[RuleFile]:
        files: list[RuleFile] = []
        for source in sources:
            document, problems = read_document(source)
            self.problems += problems
            if document is None:
                continue
            values = self.section(document, (), FILE)
            if isinstance(document.root, dict) and not {"rules", "conditions", "windows"} & document.root.keys():
                self.report(document, (), Mistake("the key 'rules' is missing", FILE["rules"].doc))
            self.known_template(document, ("defaults",), values.get("defaults", {}))
            files.append(RuleFile(document, values))
        unread = {source.name for source in sources} - {file.document.source.name for file in files}
        self.problems += define(files, unread)
        return files

    def rules(self, file: RuleFile) -> Iterator[Rule]:
        for index in range(len(file.values.get("rules", ()))):
            if sum(problem.file == file.name for problem in self.problems) > MAX_TOLD:
                return
            rule = self.rule(file, ("rules", index), file.values.get("defaults", {}))
            if rule is not None:
                yield rule

    def rule(self, file: RuleFile, path: Path, defaults: Mapping[str, Any]) -> Rule | None:
        document = file.document
        before = len(self.problems)
        values = self.section(document, path, RULE, names=file.names)
        written = document.value(path)
        if not isinstance(written, dict):
            return None
        place = Place(document.source.name, *document.line(path))
        self.unique(document, path, values.get("id"), place)
        for mistake in (*_action_mistakes(written), *_rerun_mistakes(values), *_cause_mistakes(written, values)):
            self.report(document, path, mistake)
        self.known_template(document, path, values)
        if "fingerprint" in written and "fingerprint" not in _grouped_by(written, values, defaults):
            message = "no alert of this rule is grouped by its fingerprint"
            self.report(document, path, Mistake(message, "", ("fingerprint",), key=True))
        if len(self.problems) > before:
            return None
        match, when = values.get("match", ()), values.get("when")
        return Rule(
            id=values["id"],
            place=place,
            match=match,
            when=when,
            names=frozenset(when.names if when else ()).union(*(matcher.names for matcher in match)),
            rerun=_rerun_policy(values["rerun"]) if "rerun" in values else None,
            alert=_alert_policy(values, defaults),
            ignore=values.get("ignore"),
            owner=values.get("owner", defaults.get("owner", "")),
            runbook=values.get("runbook", defaults.get("runbook", "")),
            labels={**defaults.get("labels", {}), **values.get("labels", {})},
            hold=values.get("hold"),
            mode=Mode(values.get("mode", Mode.LIVE)),
            continues=values.get("continue", False),
            expires=values.get("expires"),
            review_by=values.get("review_by"),
            fingerprint=values.get("fingerprint", ()),
        )

    def known_template(self, document: Document, path: Path, values: Mapping[str, Any]) -> None:
        name = values.get("alert", {}).get("template", "")
        if isinstance(name, str) and name and name not in self.templates:
            close = did_you_mean(name, self.templates, listed=True)
            hint = close or f"{name}.txt.j2, {name}.md.j2 or {name}.html.j2 beside the rules"
            self.report(document, path, Mistake(f"there is no template {name!r}", hint, ("alert", "template")))

    def unique(self, document: Document, path: Path, rule_id: str | None, place: Place) -> None:
        if rule_id is None:
            return
        if rule_id in self.ids:
            first = self.ids[rule_id]
            mistake = Mistake(f"a second rule {rule_id!r}", f"the first is in {first.file}:{first.line}", ("id",))
            self.report(document, path, mistake)
        self.ids.setdefault(rule_id, place)

    def section(
        self, document: Document, path: Path, keys: Mapping[str, Key], names: Names = NO_NAMES
    ) -> dict[str, Any]:
        """Read a mapping by its table of keys; what cannot be read is reported and left out."""
        values, problems = read_section(document, path, keys, shape=_SHAPE.get(path, ""), names=names)
        self.problems += problems
        return values

    def report(self, document: Document, path: Path, mistake: Mistake) -> None:
        self.problems.append(document.problem(path, mistake))


_SHAPE: Final[Mapping[Path, str]] = {(): "a rule file begins with version: 1, then rules:"}


def _grouped_by(written: Mapping[str, Any], values: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[str, ...]:
    if "ignore" in written:
        return ()
    alert = {**defaults.get("alert", {}), **values.get("alert", {})}
    return tuple(alert.get("group_by", AlertPolicy().group_by))


def _action_mistakes(written: Mapping[str, Any]) -> Iterator[Mistake]:
    actions = [key for key in ("ignore", "rerun", "hold", "alert") if key in written]
    if not actions:
        yield Mistake("the rule does nothing", "add ignore, rerun, hold or alert")
    elif "ignore" in actions:
        for key in actions[1:]:
            yield Mistake(f"a rule that ignores cannot {key}, too", "", (key,), key=True)
        if "continue" in written:
            yield Mistake("a rule that ignores cannot continue", "it ends the search", ("continue",), key=True)


def _rerun_mistakes(values: Mapping[str, Any]) -> Iterator[Mistake]:
    rerun = values.get("rerun", {})
    if rerun.get("after", timedelta(0)) > rerun.get("give_up_after", GIVE_UP_AFTER):
        message = "the first re-run would come later than give_up_after: there would never be one"
        yield Mistake(message, "" if "give_up_after" in rerun else "its default is 6h", ("rerun", "after"))
    if rerun.get("quiet") is True and Cause.FAILED in values.get("alert", {}).get("on", ()):
        message = "a quiet re-run does not tell that the task failed"
        yield Mistake(message, "write quiet: false, or take `failed` out", ("alert", "on"))


def _cause_mistakes(written: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[Mistake]:
    on = {Cause(cause) for cause in values.get("alert", {}).get("on", ())}
    if "rerun" not in written and "hold" not in written and on - {Cause.FAILED}:
        yield Mistake("without rerun there is nothing to tell but that it failed", "leave `on` out", ("alert", "on"))
    elif "hold" not in written and Cause.HELD in on:
        yield Mistake("without hold nothing is held", "take `held` out", ("alert", "on"))
    elif "hold" in written and Cause.FAILED in on:
        yield Mistake("what is held is told as `held`", "take `failed` out", ("alert", "on"))


def _rerun_policy(values: Mapping[str, Any]) -> RerunPolicy:
    backoff = {_BACKOFF[name]: value for name, value in values.get("backoff", {}).items()}
    rest = {name: value for name, value in values.items() if name not in ("backoff", "quiet")}
    return RerunPolicy(**{"give_up_after": GIVE_UP_AFTER, **rest, **backoff})


_BACKOFF: Final = {"factor": "factor", "max": "max_delay", "jitter": "jitter"}


def _alert_policy(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> AlertPolicy | None:
    acts_later = "rerun" in values or "hold" in values
    quiet = values.get("rerun", {}).get("quiet", True) or "hold" in values
    default = defaults.get("alert", {})
    if "alert" not in values and (not acts_later or (quiet and not default)):
        return None
    alert = {**default, **values.get("alert", {})}
    if values["id"] in (each.rule for each in default.get("inhibited_by", ())):
        alert["inhibited_by"] = values.get("alert", {}).get("inhibited_by", ())  # it is said for all but the causes
    if acts_later:
        later = _LATER if "hold" in values and "alert" in values else _LATER - {Cause.HELD}
        on = frozenset(map(Cause, alert["on"])) if "on" in alert else later
        on |= frozenset() if quiet else {Cause.FAILED}
    else:
        on = frozenset({Cause.FAILED})
    given = {name: alert[name] for name in ALERT if name in alert and name not in ("on", "severity", *COURSE)}
    course = Course(**{name: alert[name] for name in COURSE if name in alert})
    return AlertPolicy(on=on, severity=Severity(alert.get("severity", Severity.WARNING)), course=course, **given)


_LATER: Final = ABOUT_FAILURES - {Cause.FAILED}
