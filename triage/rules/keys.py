"""Every key of a rule file: how its value is read, what it means, and its JSON Schema. ``match:`` is in `matchers`.

One table serves the loader, the schema for editors and the test that keeps the reference page complete.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from triage.rules.course import Escalation
from triage.rules.expression import RESERVED, compile_expression
from triage.rules.fingerprints import PATTERN, read_fingerprinted
from triage.rules.grouped import GROUP_BY_SCHEMA, read_group_label, read_inhibition
from triage.rules.matchers import Names, compile_match
from triage.rules.mistakes import Gathered, Mistake, Mistakes, kind_of, wrong
from triage.rules.model import ABOUT_FAILURES, Cause, HoldPolicy, Mode, Severity
from triage.rules.readers import (
    DURATION,
    NAME,
    NEVER,
    PERCENT,
    Read,
    list_of,
    number,
    one_of,
    parse_duration,
    positive,
    positive_or_never,
    read_date,
    read_fields,
    read_flag,
    read_labels,
    read_link,
    read_name,
    read_percent,
    read_text,
    whole,
)
from triage.rules.templates import read_template
from triage.rules.windows import DAYS, read_days, read_hours, read_moment, read_zone
from triage.templating.sandbox import FORMS

Schema = Mapping[str, Any]

CAUSES: Final = tuple(cause.value for cause in Cause if cause in ABOUT_FAILURES)
MODES: Final = tuple(mode.value for mode in Mode)
SEVERITIES: Final = tuple(severity.value for severity in Severity)


@dataclass(frozen=True, slots=True)
class Key:
    """One key; ``doc`` says the default. It has a reader of its value, or ``keys`` of its own.

    Attributes:
        read: gives the value; raises `Mistakes`.
        read_named: the same, for values that mention what is defined by name.
    """

    doc: str
    read: Read | None = None
    schema: Schema = field(default_factory=dict)
    keys: Mapping[str, Key] | None = None
    required: bool = False
    read_named: Callable[[Any, Names], Any] | None = None

    def value(self, written: Any, names: Names) -> Any:
        """The value that is written, as read.

        Raises:
            Mistakes: all that is wrong with it.
        """
        if self.read_named is not None:
            return self.read_named(written, names)
        return written if self.read is None else self.read(written)


def _expression(value: Any, names: Names) -> Any:
    if not isinstance(value, str):
        raise wrong(f"expected an expression, not {kind_of(value)}")
    return compile_expression(value, names.windows)


def _definitions(name: Read) -> Read:
    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise wrong(f"expected a mapping of names to definitions, not {kind_of(value)}")
        mistakes = Gathered()
        for each in value:
            try:
                name(each)
            except Mistakes as error:
                mistakes += [Mistake(one.message, one.hint, (each,), key=True) for one in error.mistakes]
        if mistakes:
            raise Mistakes(mistakes)
        return value

    return read


def _window_name(value: Any) -> str:
    if not re.fullmatch(_WINDOW, value, re.ASCII) or value in RESERVED:
        raise wrong(
            f"{kind_of(value)} cannot be used in expressions", "letters, digits and '_', not beginning with a digit"
        )
    return str(value)


_WINDOW: Final = r"[A-Za-z_][A-Za-z0-9_]{0,99}"


def _version(value: Any) -> int:
    if value != 1 or isinstance(value, bool):
        raise wrong(f"expected 1, not {kind_of(value)}", "this program reads version 1 of the format")
    return 1


def _list(value: Any) -> Any:
    if not isinstance(value, list):
        raise wrong(f"expected a list of rules, not {kind_of(value)}", "each begins with - id: ...")
    return value


def _hold(value: Any) -> HoldPolicy:
    if not isinstance(value, dict):
        return HoldPolicy(read_text(least=1)(value))
    readers = {"reason": read_text(least=1), "for": positive}
    found = read_fields(value, readers, needed={"reason": "what the person has to decide"})
    return HoldPolicy(found["reason"], found.get("for", HoldPolicy("").length))


def _escalations(value: Any) -> tuple[Escalation, ...]:
    if not isinstance(value, list) or not value:
        raise wrong(f"expected a list of steps, not {kind_of(value)}", "each has after and to")
    readers = {"after": positive, "to": list_of(read_name)}
    steps: list[Escalation] = []
    mistakes = Gathered()
    for index, step in enumerate(value):
        try:
            found = read_fields(step, readers, needed={"after": "", "to": ""})
        except Mistakes as error:
            mistakes += [replace(one, path=(index, *one.path)) for one in error.mistakes]
            continue
        if steps and found["after"] < steps[-1].after:
            mistakes.append(Mistake("it comes before the step above", "", (index, "after")))
        steps.append(Escalation(**found))
    if mistakes:
        raise Mistakes(mistakes)
    return tuple(steps)


DURATION_SCHEMA: Final = {"type": "string", "pattern": rf"^(?:{DURATION}\s?)+$"}
_DATE_SCHEMA: Final = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\d$"}
_REASON_SCHEMA: Final = {"type": "string", "minLength": 1}
_TEXT_SCHEMA: Final = {"type": "string"}
_NAME_SCHEMA: Final = {"type": "string", "pattern": f"^{NAME}$"}


def _or_list(item: Schema) -> Schema:
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]}


BACKOFF: Final[Mapping[str, Key]] = {
    "factor": Key(
        "Each further delay is this many times longer, 1 to 10. Default: 2.",
        number(1, 10),
        {"type": "number", "minimum": 1, "maximum": 10},
    ),
    "max": Key("No delay is longer than this. Default: 1h.", positive, DURATION_SCHEMA),
    "jitter": Key(
        "Share of a delay that is spread, 0 to 1, so that many failures do not come back at once. Default: 0.1.",
        number(0, 1),
        {"type": "number", "minimum": 0, "maximum": 1},
    ),
}

RERUN: Final[Mapping[str, Key]] = {
    "after": Key("Delay before the first re-run. Default: 0s.", parse_duration, DURATION_SCHEMA),
    "backoff": Key("How the delays grow.", keys=BACKOFF),
    "max_attempts": Key(
        "Re-runs of one failure in all, 1 to 100, whoever asked for them. There is no unlimited re-run.",
        whole(1, 100),
        {"type": "integer", "minimum": 1, "maximum": 100},
        required=True,
    ),
    "give_up_after": Key("No re-run is planned later than this after the first failure. Default: 6h.",
                         positive, DURATION_SCHEMA),
    "quiet": Key("Tell nobody while a re-run may still succeed. Default: true.", read_flag, {"type": "boolean"}),
    "expect_within": Key("A result must come this long after a re-run was submitted. Default: 24h.",
                         positive, DURATION_SCHEMA),
    "idempotent": Key(
        "The function may run twice for one event. Only then a re-run is submitted again when nobody can tell whether "
        "the first try arrived. Default: false.",
        read_flag,
        {"type": "boolean"},
    ),
    "budget": Key(
        "Re-runs that the function earns for its own successes, 0.01% to 100%. Default: as configured, 10%.",
        read_percent,
        {"type": "string", "pattern": f"^{PERCENT}$"},
    ),
    "qualifier": Key("Version or alias to run. Default: the one that failed.",
                     read_text(), {"type": ["string", "integer"]}),
}  # fmt: skip

COURSE: Final[Mapping[str, Key]] = {
    "repeat_interval": Key(
        "When nothing is new but counts, how long until these are told; 0s: at every group_interval. Default: 1h.",
        parse_duration,
        DURATION_SCHEMA,
    ),
    "repeat_factor": Key(
        "Each further repeat waits this many times longer, 1 to 10. Default: 2.",
        number(1, 10),
        {"type": "number", "minimum": 1, "maximum": 10},
    ),
    "repeat_max": Key("No repeat waits longer than this. Default: 24h.", positive, DURATION_SCHEMA),
    "resolved": Key("Tell those who heard of it that it is over. Default: true.", read_flag, {"type": "boolean"}),
    "quiet_for": Key(
        "It is over when nothing has failed for so long, or all has healed; never: silence alone is no end. "
        "Default: 1h.",
        positive_or_never,
        {"anyOf": [DURATION_SCHEMA, {"const": NEVER}]},
    ),
    "success_threshold": Key(
        "It is also over when each of its functions has succeeded so many times since it last failed, 1 to 1000000. "
        "Default: successes end nothing.",
        whole(1, 1_000_000),
        {"type": "integer", "minimum": 1, "maximum": 1_000_000},
    ),
    "escalate": Key(
        "Who hears of it, too, when nobody has acknowledged it: a list of `after` (since the first message) and `to`.",
        _escalations,
        {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"after": DURATION_SCHEMA, "to": _or_list(_NAME_SCHEMA)},
                "required": ["after", "to"],
                "additionalProperties": False,
            },
            "minItems": 1,
        },
    ),
    "inhibited_by": Key(
        "Rules, or `rule` and `equal`. While one of their groups is open, groups of this rule tell nobody: they follow "
        "from it. `equal`: only those that are equal in these labels of `group_by`.",
        list_of(read_inhibition),
        _or_list(
            {
                "anyOf": [
                    _NAME_SCHEMA,
                    {
                        "type": "object",
                        "properties": {"rule": _NAME_SCHEMA, "equal": _or_list(GROUP_BY_SCHEMA)},
                        "required": ["rule"],
                        "additionalProperties": False,
                    },
                ]
            }
        ),
    ),
}
"""What is said of a group after its first message."""

ALERT: Final[Mapping[str, Key]] = {
    "to": Key("Names of receivers. Default: default.", list_of(read_name), _or_list(_NAME_SCHEMA)),
    "on": Key(
        "What is told. Default: failed; in a rule with rerun or hold, everything else.",
        list_of(one_of(CAUSES), empty="an empty list would tell nobody of anything"),
        _or_list({"enum": list(CAUSES)}),
    ),
    "severity": Key("info, warning or critical. Default: warning.", one_of(SEVERITIES), {"enum": list(SEVERITIES)}),
    "group_by": Key(
        "Alerts that are equal in these labels are told together. Default: [function, fingerprint].",
        list_of(read_group_label),
        _or_list(GROUP_BY_SCHEMA),
    ),
    "group_wait": Key(
        "How long the first alert of a group waits for more. Default: 30s.", parse_duration, DURATION_SCHEMA
    ),
    "group_interval": Key(
        "How often a group that fails is looked at. What is new is told then: another error, or twice as many. "
        "Default: 5m.",
        positive,
        DURATION_SCHEMA,
    ),
    **COURSE,
    "template": Key(
        "What its messages look like, in Jinja2: the name of a template beside the rules (NAME.txt.j2, NAME.md.j2, "
        "NAME.html.j2), or the templates themselves, by text, markdown and html. Default: as the receiver wants it.",
        read_template,
        {
            "anyOf": [
                _REASON_SCHEMA,
                {
                    "type": "object",
                    "properties": dict.fromkeys(FORMS, _REASON_SCHEMA),
                    "additionalProperties": False,
                    "minProperties": 1,
                },
            ]
        },
    ),
}

_ABOUT: Final[Mapping[str, Key]] = {
    "owner": Key("Who is responsible; shown in alerts.", read_text(), _TEXT_SCHEMA),
    "runbook": Key("Web address of what to do; shown in alerts.", read_link, {"type": "string", "format": "uri"}),
    "labels": Key(
        "Names and texts of your own, kept with the rule.",
        read_labels,
        {"type": "object", "additionalProperties": {"type": ["string", "integer"]}},
    ),
}

RULE: Final[Mapping[str, Key]] = {
    "id": Key("Name of the rule, unique in all files.", read_name, _NAME_SCHEMA, required=True),
    "match": Key("What the failure must look like; all of it must hold. Default: anything.", read_named=compile_match),
    "when": Key(
        "A CEL expression that must be true, asked after `match`.", schema=_TEXT_SCHEMA, read_named=_expression
    ),
    "ignore": Key("Do nothing, for this reason.", read_text(least=1), _REASON_SCHEMA),
    "hold": Key(
        "Do nothing until a person decides, for this reason; `{reason, for}` also says how long to wait until somebody "
        "is told that nobody did. Default of `for`: 24h.",
        _hold,
        {
            "anyOf": [
                _REASON_SCHEMA,
                {
                    "type": "object",
                    "properties": {"reason": _REASON_SCHEMA, "for": DURATION_SCHEMA},
                    "required": ["reason"],
                    "additionalProperties": False,
                },
            ]
        },
    ),
    "rerun": Key("Run the task again.", keys=RERUN),
    "alert": Key("Tell somebody.", keys=ALERT),
    "continue": Key("Ask the rules after this one, too. Default: false.", read_flag, {"type": "boolean"}),
    "fingerprint": Key(
        "What makes failures the same for the alerts of this rule, in place of function, condition, error type and "
        "masked message.",
        list_of(read_fingerprinted),
        _or_list({"type": "string", "pattern": f"^{PATTERN}$"}),
    ),
    "mode": Key(
        "live; shadow: only record what the rule would have done; off: do not ask it. Default: live.",
        one_of(MODES),
        {"enum": list(MODES)},
    ),
    "expires": Key("The last day (UTC) on which the rule is asked, such as 2026-03-31.", read_date, _DATE_SCHEMA),
    "review_by": Key("The day by which somebody should look at the rule again.", read_date, _DATE_SCHEMA),
    **_ABOUT,
}

DEFAULTS: Final[Mapping[str, Key]] = {
    **_ABOUT,
    "alert": Key(
        "For what the `alert` of a rule leaves out, and for rules with `rerun` or `hold` that have no `alert`.",
        keys=ALERT,
    ),
}

WINDOW: Final[Mapping[str, Key]] = {
    "days": Key(
        "Days of the week: mon, mon-fri, or a list. Default: each day.",
        read_days,
        _or_list({"type": "string", "pattern": rf"^(?:{'|'.join(DAYS)})(?:-(?:{'|'.join(DAYS)}))?$"}),
    ),
    "hours": Key(
        'Hours such as "09:00-18:00", or a list; "22:00-06:00" ends on the next day. Default: the whole day.',
        read_hours,
        _or_list({"type": "string", "pattern": r"^\d\d:\d\d-\d\d:\d\d$"}),
    ),
    "from": Key(
        "Beginning of a period, instead of days and hours: a date, or a date and time.", read_moment, _TEXT_SCHEMA
    ),
    "until": Key("End of the period, not included.", read_moment, _TEXT_SCHEMA),
    "zone": Key("Time zone, such as Asia/Shanghai. Default: UTC.", read_zone, _TEXT_SCHEMA),
}

FILE: Final[Mapping[str, Key]] = {
    "version": Key("Version of this format: 1.", _version, {"const": 1}, required=True),
    "defaults": Key("For all rules of this file that do not say otherwise.", keys=DEFAULTS),
    "include": Key(
        "Names of rule files of the same folder whose conditions and windows are used here.",
        list_of(read_text(least=1)),
        _or_list(_REASON_SCHEMA),
    ),
    "conditions": Key("Named matches, for `use` in matches.", _definitions(read_name)),
    "windows": Key(
        "Named times, for `window` in matches and `windows.NAME` in expressions.", _definitions(_window_name)
    ),
    "rules": Key("The rules; the first that matches decides. Needed unless the file defines something.", _list),
}
