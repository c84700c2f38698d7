"""What a loaded rule file says, and that hostile files are refused without harm."""

import time
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.errors import RulesInvalid
from triage.rulefiles import default_rules_dir, read_rules
from triage.rules.course import Inhibition
from triage.rules.document import read_document
from triage.rules.mistakes import Mistakes
from triage.rules.model import AlertPolicy, Cause, HoldPolicy, Mode, Place, RerunPolicy, Severity, SourceText
from triage.rules.readers import parse_duration
from triage.rules.source import load_rules

LATER = frozenset({Cause.EXHAUSTED, Cause.REFUSED, Cause.UNKNOWN, Cause.OVERDUE})


def rule_of(body, head="version: 1\n"):
    (rule,) = load_rules([SourceText("r.yaml", head + "rules:\n  - id: a\n" + body)]).rules
    return rule


def value_of(text):
    document, problems = read_document(SourceText("r.yaml", text))
    assert problems == []
    return document.root


def test_a_rule_with_everything():
    rule = rule_of(
        """\
    match: {function: "img-*"}
    when: lineage.attempt < 3
    rerun:
      after: 2m
      backoff: {factor: 3, max: 30m, jitter: 0.5}
      max_attempts: 3
      give_up_after: 1h30m
      quiet: false
      expect_within: 12h
      idempotent: true
      budget: 12.5%
      qualifier: 2
    alert:
      to: [oncall, chat]
      on: [exhausted, unknown]
      severity: critical
      group_by: [function, rule]
      group_wait: 0s
      group_interval: 10m
    owner: media
    runbook: https://wiki.example/media
    labels: {tier: 1}
    continue: true
    mode: shadow
    expires: 2026-03-31
    review_by: 2026-03-15
"""
    )

    assert rule.place == Place("r.yaml", 3, 5)
    assert [matcher.clause for matcher in rule.match] == ["function: img-*"]
    assert rule.when.text == "lineage.attempt < 3"
    assert rule.rerun == RerunPolicy(
        max_attempts=3,
        give_up_after=timedelta(minutes=90),
        after=timedelta(minutes=2),
        factor=3.0,
        max_delay=timedelta(minutes=30),
        jitter=0.5,
        expect_within=timedelta(hours=12),
        idempotent=True,
        budget=0.125,
        qualifier="2",
    )
    assert rule.alert == AlertPolicy(
        to=("oncall", "chat"),
        on=frozenset({Cause.EXHAUSTED, Cause.UNKNOWN, Cause.FAILED}),  # quiet: false adds `failed`
        severity=Severity.CRITICAL,
        group_by=("function", "rule"),
        group_wait=timedelta(0),
        group_interval=timedelta(minutes=10),
    )
    assert (rule.owner, rule.runbook, rule.labels) == ("media", "https://wiki.example/media", {"tier": "1"})
    assert (rule.continues, rule.mode, rule.hold) == (True, Mode.SHADOW, None)
    assert (rule.expires, rule.review_by) == (date(2026, 3, 31), date(2026, 3, 15))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("why", HoldPolicy("why", timedelta(hours=24))),
        ("{reason: why, for: 90m}", HoldPolicy("why", timedelta(minutes=90))),
    ],
)
def test_a_rule_that_holds(written, expected):
    assert rule_of(f"    hold: {written}\n").hold == expected


@pytest.mark.parametrize(
    ("body", "defaults", "expected"),
    [
        ("    alert: {}\n", "", AlertPolicy(on=frozenset({Cause.FAILED}))),
        ("    alert: {to: x}\n", "{alert: {to: d, severity: info}}", AlertPolicy(("x",), frozenset({Cause.FAILED}), Severity.INFO)),
        ("    alert: {}\n", "{alert: {on: [exhausted]}}", AlertPolicy(on=frozenset({Cause.FAILED}))),
        ("    rerun: {max_attempts: 1}\n", "", None),
        ("    rerun: {max_attempts: 1, quiet: false}\n", "", AlertPolicy(on=LATER | {Cause.FAILED})),
        ("    rerun: {max_attempts: 1}\n    alert: {}\n", "", AlertPolicy(on=LATER)),
        ("    rerun: {max_attempts: 1}\n", "{alert: {to: d}}", AlertPolicy(("d",), LATER)),
        ("    rerun: {max_attempts: 1}\n    alert: {on: failed}\n", "", AlertPolicy(on=frozenset({Cause.FAILED}))),
        ("    ignore: known\n", "{alert: {to: d}}", None),
        ("    hold: why\n", "", None),
        ("    hold: why\n    alert: {}\n", "", AlertPolicy(on=LATER | {Cause.HELD})),
        ("    hold: why\n", "{alert: {to: d}}", AlertPolicy(("d",), LATER)),
        ("    hold: why\n    rerun: {max_attempts: 1, quiet: false}\n    alert: {on: unknown}\n", "", AlertPolicy(on=frozenset({Cause.UNKNOWN}))),
    ],
)  # fmt: skip
def test_what_an_alert_is_told_about(body, defaults, expected):
    head = "version: 1\n" + (f"defaults: {defaults}\n" if defaults else "")

    assert rule_of(body, head).alert == expected


def test_a_rerun_has_an_end_when_none_is_given():
    assert rule_of("    rerun: {max_attempts: 2}\n").rerun == RerunPolicy(2, timedelta(hours=6))


def test_defaults_fill_in_what_a_rule_leaves_out():
    head = "version: 1\ndefaults: {owner: team, runbook: 'https://a.example/', labels: {a: x, b: x}}\n"

    rule = rule_of("    alert: {}\n    owner: me\n    labels: {b: y}\n", head)

    assert (rule.owner, rule.runbook, rule.labels) == ("me", "https://a.example/", {"a": "x", "b": "y"})


def test_rules_stand_in_the_order_of_their_files_names():
    def file(name, *ids):
        return SourceText(name, "version: 1\nrules:\n" + "".join(f"  - {{id: {each}, ignore: x}}\n" for each in ids))

    sources = [file("20.yaml", "c"), file("10.yaml", "b", "a")]

    loaded = load_rules(sources)

    assert [rule.id for rule in loaded.rules] == ["b", "a", "c"]
    assert loaded.digest == load_rules(sources[::-1]).digest
    assert [source.name for source in loaded.sources] == ["10.yaml", "20.yaml"]


def test_the_digest_changes_with_every_name_and_text():
    empty = "version: 1\nrules: []\n"
    texts = [
        [SourceText("a", empty)],
        [SourceText("b", empty)],
        [SourceText("a", empty + "#")],
        [SourceText("a", empty), SourceText("b", empty)],
        [SourceText("a", empty), SourceText("b", empty + "#")],
        [],
    ]

    assert len({load_rules(sources).digest for sources in texts}) == len(texts)


def test_the_shipped_rules_load_and_end_with_one_that_takes_everything():
    loaded = load_rules(read_rules(default_rules_dir()))

    assert {rule.rerun is not None for rule in loaded.rules} == {True, False}
    assert (loaded.rules[-1].match, loaded.rules[-1].when) == ((), None)
    assert all(rule.match for rule in loaded.rules[:-1])
    assert not any(rule.rerun and rule.rerun.idempotent for rule in loaded.rules)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[on, off, yes, no, y, n]", ["on", "off", "yes", "no", "y", "n"]),
        ("[true, False, TRUE, tRUE]", [True, False, True, "tRUE"]),
        ("[1:30, 0123, 0o17, 0x1f, 1_000, +5, 2024-01-01]", ["1:30", "0123", "0o17", "0x1f", "1_000", "+5", "2024-01-01"]),
        ("[0, -7, 1.5, 1e3, .5, 2.]", [0, -7, 1.5, 1000.0, 0.5, 2.0]),
        ("[.nan, .inf, 1e999, " + "9" * 5000 + "]", [".nan", ".inf", "1e999", "9" * 5000]),
        ("[null, ~, Null, '', 'null', !!str 1, ! 2]", [None, None, None, "", "null", "1", "2"]),
        ("{on: 1, 1: 2, null: 3, ~: 4}", {"on": 1, "1": 2, "null": 3, "~": 4}),
        ("{a: &x [1], b: *x}", {"a": [1], "b": [1]}),
        ("\ufeffa: 1", {"a": 1}),
        ("", None),
    ],
)  # fmt: skip
def test_values_are_typed_by_the_core_schema_of_yaml_1_2(text, value):
    assert value_of(text) == value


BOMBS = {
    "brackets": ("[" * 100_000, "nested deeper than 64"),
    "braces": ("{a: " * 100_000, "nested deeper than 64"),
    "block lists": ("- " * 100_000, "nested deeper than 64"),
    "aliases": (
        "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(9)),
        "more than 50000 values, with aliases counted as what they stand for",
    ),
    "values": ("[" + "1," * 60_000 + "]", "more than 50000 values, with aliases counted as what they stand for"),
    "size": ("#" * (1 << 21), "the file has 2097152 characters; at most 1048576 are read"),
    "NUL": ("version: 1\x00", "the character U+0000 is not allowed in YAML"),
}


@pytest.mark.parametrize(("text", "message"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_quickly(text, message):
    start = time.thread_time()
    with pytest.raises(RulesInvalid) as caught:
        load_rules([SourceText("r.yaml", text)])

    assert message in [problem.message for problem in caught.value.problems]
    assert time.thread_time() - start < 5


@pytest.mark.parametrize("key", ["id", "owner", "ignore", "runbook", "when"])
def test_a_text_of_64_kb_is_refused_wherever_it_stands(key):
    text = (
        "version: 1\nrules:\n  - id: a\n    ignore: x\n".replace(f"    {key}:", "    #")
        + f"    {key}: {'x' * 65_536}\n"
    )
    with pytest.raises(RulesInvalid):
        load_rules([SourceText("r.yaml", text)])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), ("1h 30m", 5400), ("1.5h", 5400),
     ("250ms", 0.25), ("0s", 0), ("2 h", 7200), ("366d", 366 * 86400)],
)  # fmt: skip
def test_durations(text, seconds):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "m", "-5m", "5 minutes", "5M", "1e3s", "٣s", "5m,", "1y", 5, 0, True, None, "9" * 400 + "s"]
)
def test_what_is_no_duration(text):
    with pytest.raises(Mistakes):
        parse_duration(text)


@given(st.integers(0, 366 * 24 * 60 * 60))
def test_every_whole_number_of_seconds_is_a_duration(seconds):
    minutes, rest = divmod(seconds, 60)
    text = f"{seconds}s"

    assert parse_duration(text) == timedelta(seconds=seconds) == parse_duration(f"{minutes}m{rest}s")


def test_what_is_said_of_causes_for_all_rules_is_not_meant_for_the_causes():
    text = """
version: 1
defaults: {alert: {group_by: [function, labels.team], inhibited_by: [db, {rule: net, equal: labels.team}]}}
rules:
  - {id: db, match: {function: db}, alert: {}}
  - {id: net, match: {function: net}, alert: {inhibited_by: db}}
  - {id: rest, alert: {}}
"""
    rules = load_rules([SourceText("rules.yaml", text)]).rules

    db, net = Inhibition("db"), Inhibition("net", ("labels.team",))
    assert [rule.alert.course.inhibited_by for rule in rules] == [(), (db,), (db, net)]
