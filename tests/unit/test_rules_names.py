"""What rule files define by name: conditions and windows, who may mention them, and when a window is open."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import make
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.errors import RulesInvalid
from triage.facts import Facts
from triage.rules.match import Verdict, matching, trace
from triage.rules.model import SourceText
from triage.rules.source import load_rules
from triage.subject import Subject

SHARED = """\
version: 1
conditions:
  noise: {error: {message: timed out}, function: "my-*"}
  ours: {account: "1034354682"}
  both: {use: {all: [noise, ours]}}
windows:
  office: {days: mon-fri, hours: "09:00-18:00", zone: Asia/Shanghai}
  sunday: {days: sun}
"""


def load(*rules, shared=SHARED, head="include: shared.yaml\n"):
    text = (
        "version: 1\n"
        + head
        + "rules:\n"
        + "".join(f"  - {{id: r{n}, alert: {{}}, {rule}}}\n" for n, rule in enumerate(rules))
    )
    return load_rules([SourceText("shared.yaml", shared), SourceText("rules.yaml", text)])


def problems(*rules, **texts):
    with pytest.raises(RulesInvalid) as caught:
        load(*rules, **texts)
    return [str(each).partition("\n")[0] for each in caught.value.problems]


def subject(**fields):
    # make.NOW is a Sunday, 12:00 in UTC and 20:00 in Shanghai
    return Subject(make.arrived(make.envelope(**fields)), Facts(), now=make.NOW)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("match: {use: noise}", True),
        ("match: {use: both}", True),
        ("match: {use: {not: noise}}", False),
        ("match: {use: [noise, ours]}", True),
        ("match: {use: {all: [noise, {not: ours}]}}", False),
        ("match: {window: sunday}", True),
        ("match: {window: office}", False),
        ("match: {window: {not: office}, use: noise}", True),
        ("match: {window: [office, sunday]}", True),
        ("match: {any: [{use: {not: noise}}, {window: sunday, use: ours}]}", True),
        ("match: {all: [{use: noise}, {not: {window: sunday}}]}", False),
        ("when: windows.sunday && !windows.office", True),
        ("when: windows.office || fn == 'x'", False),
    ],
)
def test_names_are_what_they_stand_for(rule, expected):
    rules = load(rule)
    assert bool(matching(rules, subject()).rules) is expected
    (step,) = trace(rules.rules, subject())
    assert (step.verdict is Verdict.MATCHED) is expected


def test_a_trace_names_the_innermost_clause():
    steps = trace(
        load(
            "match: {use: both}",
            "match: {use: {not: ours}}",
            "match: {any: [{region: a}, {qualifier: b}]}",
            "match: {all: [{region: a}]}",
            "match: {window: office}",
            "match: {labels: {tier: '1'}}",
        ).rules,
        subject(error="boom"),
    )
    assert [(step.clause.clause, step.clause.actual) for step in steps] == [
        (
            'use: both > use: {"all": ["noise", "ours"]}',
            "account '1034354682', error.message 'boom', fn 'my-fc-job'",
        ),
        ('use: {"not": "ours"}', "'1034354682'"),
        ('any: [{"region": "a"}, {"qualifier": "b"}]', "qualifier '', region 'cn-hangzhou'"),
        ("all > region: a", "'cn-hangzhou'"),
        ("window: office", "2026-03-01 12:00:00+00:00"),
        ("labels.tier: 1", "''"),
    ]  # fmt: skip


def test_a_file_may_mention_its_own_names():
    (rule,) = load_rules([SourceText("a.yaml", SHARED + "rules: [{id: a, match: {use: noise}, alert: {}}]")]).rules
    assert rule.names == {"error.message", "fn"}


MENTIONS = {
    "unknown condition": ("match: {use: noize}", {}, "rules.yaml:4:38: unknown condition 'noize' (did you mean 'noise'?)"),
    "unknown window": ("match: {window: offices}", {}, "rules.yaml:4:41: unknown window 'offices' (did you mean 'office'?)"),
    "unknown window in an expression": ("when: windows.ofice", {}, "rules.yaml:4:38: unknown name 'windows.ofice' (did you mean 'windows.office'?)"),
    "nothing is defined": ("match: {use: noise}", {"head": ""}, "rules.yaml:3:38: unknown condition 'noise' (define it under conditions, or include a file that does)"),
    "windows as a whole": ("when: windows", {"head": ""}, "rules.yaml:3:31: unknown name 'windows' (write windows.NAME, where NAME is defined under windows)"),
    "no name": ("match: {use: 3}", {}, "rules.yaml:4:38: expected the name of a condition, not the number 3"),
    "unknown file": ("match: {}", {"head": "include: [shraed.yaml]\n"}, "rules.yaml:2:11: there is no rule file 'shraed.yaml' here (did you mean 'shared.yaml'?)"),
    "itself": ("match: {}", {"head": "include: rules.yaml\n"}, "rules.yaml:2:10: a file cannot include itself"),
    "no list of matches": ("match: {any: {region: a}}", {}, "rules.yaml:4:38: expected a list of matches, not a mapping"),
    "an empty list of matches": ("match: {all: []}", {}, "rules.yaml:4:38: an empty list matches nothing (leave the key out to match everything)"),
    "a mistake inside": ("match: {any: [{region: a}, {regoin: b}]}", {}, "rules.yaml:4:53: unknown key 'regoin' in match (did you mean 'region'?)"),
    "no match": ("match: {not: [a]}", {}, "rules.yaml:4:38: expected a mapping, not a list"),
    "the same name twice": (
        "match: {}", {"head": "include: shared.yaml\nconditions: {noise: {region: a}}\n"},
        "rules.yaml:2:10: the condition 'noise' of shared.yaml has the name of another one (rename one of them)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "texts", "expected"), MENTIONS.values(), ids=MENTIONS)
def test_a_wrong_mention_is_told_with_its_place(rule, texts, expected):
    assert problems(rule, **texts) == [expected]


DEFINITIONS = {
    "a condition inside itself": ("conditions: {a: {use: b}, b: {use: a}}", ["shared.yaml:2:36: the condition 'a' is used inside itself"]),
    "an unused condition": ("conditions: {a: {regoin: x}}", ["shared.yaml:2:18: unknown key 'regoin' in match (did you mean 'region'?)"]),
    "no mapping": ("conditions: [a]", ["shared.yaml:2:13: expected a mapping of names to definitions, not a list"]),
    "no name": ("conditions: {a b: {}}", ["shared.yaml:2:14: 'a b' is no name (letters, digits, '_', '-' and '.', at most 100)"]),
    "a name for expressions": ("windows: {a-b: {days: sun}}", ["shared.yaml:2:11: 'a-b' cannot be used in expressions (letters, digits and '_', not beginning with a digit)"]),
    "a reserved word": ("windows: {in: {days: sun}}", ["shared.yaml:2:11: 'in' cannot be used in expressions (letters, digits and '_', not beginning with a digit)"]),
    "no time": ("windows: {a: {}}", ["shared.yaml:2:14: the window says no time (days and hours, or from and until)"]),
    "a zone alone": ("windows: {a: {zone: UTC}}", ["shared.yaml:2:14: the window says no time (days and hours, or from and until)"]),
    "no window": ("windows: {a: mon}", ["shared.yaml:2:14: expected a mapping, not 'mon' (days and hours, or from and until)"]),
    "misspelt day": ("windows: {a: {days: [mon, tuse]}}", ["shared.yaml:2:27: 'tuse' is no day (did you mean 'tue'?)"]),
    "misspelt range": ("windows: {a: {days: mon-}}", ["shared.yaml:2:21: '' is no day (one of fri, mon, sat, sun, thu, tue, wed)"]),
    "hours without quotes": ("windows: {a: {hours: 900}}", ['shared.yaml:2:22: expected hours, not the number 900 (such as "09:00-18:00", in quotes)']),
    "no such hour": ("windows: {a: {hours: '09:00-24:30'}}", ["shared.yaml:2:22: there is no such time in 09:00-24:30 (00:00 to 24:00)"]),
    "no such minute": ("windows: {a: {hours: '09:60-10:00'}}", ["shared.yaml:2:22: there is no such time in 09:60-10:00 (00:00 to 24:00)"]),
    "no time between": ("windows: {a: {hours: '09:00-09:00'}}", ["shared.yaml:2:22: 09:00-09:00 is no time at all (leave `hours` out for the whole day)"]),
    "unknown zone": ("windows: {a: {days: sun, zone: Asia/Shangai}}", ["shared.yaml:2:32: unknown time zone 'Asia/Shangai' (such as Asia/Shanghai or UTC)"]),
    "a zone that is a path": ("windows: {a: {days: sun, zone: /etc/localtime}}", ["shared.yaml:2:32: unknown time zone '/etc/localtime' (such as Asia/Shanghai or UTC)"]),
    "no end": ("windows: {a: {from: 2026-03-01}}", ["shared.yaml:2:14: the key 'until' is missing (a period has from and until)"]),
    "ends first": ("windows: {a: {from: 2026-03-02, until: 2026-03-01}}", ["shared.yaml:2:40: the period ends before it begins"]),
    "both kinds": ("windows: {a: {from: 2026-03-01, until: 2026-03-02, hours: '09:00-10:00'}}", ["shared.yaml:2:52: a period has no hours (name two windows)"]),
    "no time at all": ("windows: {a: {from: soon, until: 2026-03-02}}", ["shared.yaml:2:21: expected a time, not 'soon' (such as \"2026-03-01T22:00\" or \"2026-03-01\")"]),
    "unknown key": ("windows: {a: {day: sun, hours: '09:00-10:00'}}", ["shared.yaml:2:15: unknown key 'day' (did you mean 'days'?)"]),
}  # fmt: skip


@pytest.mark.parametrize(("definition", "expected"), DEFINITIONS.values(), ids=DEFINITIONS)
def test_a_wrong_definition_is_told_once_with_its_place(definition, expected):
    mention = "match: {window: a}" if definition.startswith("windows: {a:") else "match: {}"
    assert problems(mention, shared=f"version: 1\n{definition}\n") == expected


def test_what_a_broken_file_defines_is_told_once():
    (told,) = problems("match: {}", shared="version: 1\nwindows: [\n")
    assert told.startswith("shared.yaml:3:1: not valid YAML")


def window(definition):
    text = f"version: 1\nwindows: {{a: {definition}}}\nrules: [{{id: a, match: {{window: a}}, alert: {{}}}}]\n"
    (rule,) = load_rules([SourceText("r.yaml", text)]).rules
    return lambda at: rule.match[0].test({"now": at})


def utc(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# 2026-03-02 is a Monday. Berlin's clocks go from 02:00 to 03:00 on 2026-03-29, and from 03:00 to 02:00 on 2026-10-25.
@pytest.mark.parametrize(
    ("definition", "inside", "outside"),
    [
        ("{hours: '09:00-18:00'}", ["2026-03-02T09:00", "2026-03-01T17:59:59"], ["2026-03-02T08:59:59", "2026-03-02T18:00"]),
        ("{hours: '00:00-24:00', days: mon}", ["2026-03-02T00:00", "2026-03-02T23:59"], ["2026-03-01T23:59", "2026-03-03T00:00"]),
        ("{days: mon-fri, hours: '09:00-18:00', zone: Asia/Shanghai}", ["2026-03-02T01:00", "2026-03-06T09:59"], ["2026-03-02T10:00", "2026-03-01T02:00"]),
        ("{days: sat-mon}", ["2026-03-01T12:00", "2026-02-28T00:00", "2026-03-02T23:59"], ["2026-03-03T00:00", "2026-02-27T23:59"]),
        ("{days: [mon, wed], hours: ['08:00-09:00', '20:00-21:00']}", ["2026-03-02T08:30", "2026-03-04T20:30"], ["2026-03-02T10:00", "2026-03-03T08:30"]),
        ("{days: fri, hours: '22:00-06:00'}", ["2026-03-06T22:00", "2026-03-07T05:59"], ["2026-03-06T05:00", "2026-03-07T22:00", "2026-03-07T06:00"]),
        ("{days: sun, hours: '01:00-04:00', zone: Europe/Berlin}", ["2026-03-29T00:30", "2026-03-29T01:30", "2026-10-25T00:30", "2026-10-25T01:30"], ["2026-03-29T02:00", "2026-10-25T03:00"]),
        ("{from: 2026-03-01, until: 2026-03-02}", ["2026-03-01T00:00", "2026-03-01T23:59:59"], ["2026-02-28T23:59", "2026-03-02T00:00"]),
        ("{from: '2026-03-01T22:00', until: '2026-03-02T06:00', zone: Asia/Shanghai}", ["2026-03-01T14:00", "2026-03-01T21:59"], ["2026-03-01T13:59", "2026-03-01T22:00"]),
        ("{from: '2026-03-01T22:00+01:00', until: '2026-03-01T22:00Z', zone: Asia/Shanghai}", ["2026-03-01T21:00"], ["2026-03-01T20:59", "2026-03-01T22:00"]),
    ],
)  # fmt: skip
def test_when_a_window_is_open(definition, inside, outside):
    is_open = window(definition)
    assert [at for at in inside if not is_open(utc(at))] == []
    assert [at for at in outside if is_open(utc(at))] == []


@given(
    st.integers(0, 10 * 365 * 1440), st.sampled_from(["UTC", "Asia/Kathmandu", "America/New_York"]),
    st.integers(0, 1439), st.integers(0, 1439),
)  # fmt: skip
def test_a_span_and_the_span_around_it_share_no_time_and_leave_none_out(at, zone, start, end):
    if start == end:
        return
    text = [f"{minute // 60:02}:{minute % 60:02}" for minute in (start, end)]
    first, second = (window(f"{{hours: '{a}-{b}', zone: {zone}}}") for a, b in (text, text[::-1]))
    now = make.NOW + timedelta(minutes=at)
    assert first(now) is not second(now)
    local = now.astimezone(ZoneInfo(zone))
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    passed = (local.replace(tzinfo=None) - midnight.replace(tzinfo=None)) // timedelta(minutes=1)
    assert first(now) is ((start <= passed < end) if start < end else not end <= passed < start)
