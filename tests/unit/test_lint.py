"""Lint finds what is planted, where it is, and nothing else; what it claims for certain is certain."""

import json
import re
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triage.rulefiles import default_rules_dir, read_rules
from triage.rules.lint import CODES, lint
from triage.rules.lint.patterns import always, disjoint, implies, never, pattern
from triage.rules.match import matching
from triage.rules.matchers import ERROR_FIELDS, FIELDS, payload_field
from triage.rules.model import KIND, SourceText
from triage.rules.source import load_rules

TODAY = date(2026, 3, 1)
RECEIVERS = ("default", "oncall")
DATA = Path(__file__).parents[1] / "data" / "lint"
PLANTED = sorted(DATA.glob("*.yaml"))


def lint_text(*texts, receivers=RECEIVERS):
    sources = [SourceText(f"{number}.yaml", text) for number, text in enumerate(texts)]
    return lint(load_rules(sources), today=TODAY, receivers=receivers)


def marked(text):
    """(line, column, code) of each comment below a line: a caret under what is wrong, and the code."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if found := re.fullmatch(r"#( *)\^ (R\d{3})", line):
            above = next(n for n in range(number, 0, -1) if not re.match(r"# *\^", lines[n - 1]))
            yield above, len(found[1]) + 2, found[2]


@pytest.mark.parametrize("file", PLANTED, ids=lambda file: file.stem)
def test_what_is_planted_is_found_where_it_is(file):
    text = file.read_text()

    found = lint_text(text)

    assert sorted((each.problem.line, each.problem.column, each.code) for each in found) == sorted(marked(text))
    assert all(each.problem.message and each.problem.hint and each.problem.excerpt for each in found)


def test_every_code_is_planted():
    assert {code for file in PLANTED for _, _, code in marked(file.read_text())} == set(CODES)


def test_nothing_is_found_in_the_shipped_rules():
    assert lint(load_rules(read_rules(default_rules_dir())), today=TODAY, receivers=["default"]) == []


def test_receivers_are_only_looked_at_when_they_are_known():
    text = (DATA / "unknown-receiver.yaml").read_text()

    assert lint_text(text, receivers=None) == []


def test_a_file_without_rules_has_no_findings():
    assert lint_text("version: 1\nrules: []\n") == []


def test_findings_stand_in_the_order_of_files_and_lines():
    rule = (
        "version: 1\nrules:\n  - {id: %s, match: {function: %s, status_code: 200}, alert: {group_by: error_message}}\n"
    )

    found = lint_text(rule % ("a", "a"), rule % ("b", "b"))

    places = [(each.problem.file, each.problem.line, each.problem.column) for each in found]
    assert places == sorted(places)
    assert {each.problem.file for each in found} == {"0.yaml", "1.yaml"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # What is not certain is not told.
        ("match: {function: 'img-*'}", "match: {function: 'i*'}"),
        ("match: {function: 'img-*'}", "match: {condition: x}"),
        ("match: {function: img}", "match: {function: media/img, condition: x}"),  # it is certain, see below
        ("match: {function: media/*}", "match: {function: img}"),
        ("match: {error: {message: '/out$/'}}", "match: {error: {message: timed out}}"),
        ("match: {error: {message: timed out}}", "match: {error: {message: out}}"),
        ("match: {payload: {a: '*'}}", "match: {payload: {a: 1}}"),
        ("match: {payload: {a: 1}}", "match: {payload: {a: [1, 2]}}"),
        ("match: {status_code: '>= 500'}", "match: {status_code: '>= 499'}"),
        ("when: group.count > 1", "match: {function: a}"),
        ("when: group.count > 1", "when: group.count > 2"),
        ("mode: shadow", "match: {function: a}"),
        ("mode: off", "match: {function: a}"),
        ("expires: 2027-01-01", "match: {function: a}"),
        ("continue: true", "match: {function: a}"),
    ],
)
def test_a_rule_counts_as_shadowed_only_when_that_is_certain(first, second):
    rules = [
        f"  - {{id: {name}, {body}, owner: o, runbook: 'https://r.example', alert: {{}}}}"
        for name, body in (("a", first), ("b", second), ("z", "labels: {}"))
    ]

    found = lint_text("version: 1\nrules:\n" + "\n".join(rules))

    assert [each.code for each in found] == (["R002"] if "media/img" in second else [])


LITERALS = {
    "condition": ["", "a", "ab", "b", "*", "a*", "*b", "a?", "/a/", "/^a.b$/", 7],
    "function": ["a", "s/a", "a*", "s/*", "*/a", "*", "/a$/", "b"],
    "message": ["", "a", "ab", "b", "*", "/a/", "/^b/", "/a.*b/"],
    "status_code": [0, 1, 200, 201, "> 199", "<= 200", "!= 200", "< 1", "== 500"],
    "payload": [None, True, 1, 1.0, 0, "1", "a", "a*", "*", "/a/", False],
}
VALUES = {
    "condition": ["", "a", "ab", "b", "axb", "ba", "7", "aa"],
    "function": ["a", "s/a", "s/ab", "t/a", "b", "ab", "t/b", "s/s"],
    "message": ["", "a", "ab", "b", "axb", "ba", "*", "c\nab"],
    "status_code": [0, 100, 199, 200, 201, 499, 500, 501, 599],
    "payload": [None, True, False, 0, 1, 1.0, 2, "1", "a", "ab", "", [1], {"a": 1}],
}
NAMES = {
    "condition": FIELDS["condition"],
    "function": FIELDS["function"],
    "message": ERROR_FIELDS["message"],
    "status_code": FIELDS["status_code"],
    "payload": payload_field("x"),
}


def written(field):
    """Any value that may stand in ``match:`` for a field."""
    scalar = st.sampled_from(LITERALS[field])
    return st.recursive(
        scalar,
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3),
            st.fixed_dictionaries(
                {},
                optional={
                    "not": inner,
                    "any": st.lists(inner, min_size=1, max_size=2),
                    "all": st.lists(inner, min_size=1, max_size=2),
                },
            ).filter(bool),
        ),
        max_leaves=6,
    )


def several(field):
    return st.tuples(st.just(field), written(field), written(field))


@given(st.one_of(*map(several, NAMES)))
def test_what_is_claimed_of_patterns_holds_for_every_value(drawn):
    field, first, second = drawn
    one, other = pattern(NAMES[field], first), pattern(NAMES[field], second)
    fits = [(one.accepts(value), other.accepts(value)) for value in VALUES[field]]

    assert not (never(one) and any(a for a, _ in fits))
    assert not (always(one) and not all(a for a, _ in fits))
    assert not (implies(one, other) and any(a and not b for a, b in fits))
    assert not (disjoint(one, other) and any(a and b for a, b in fits))


@given(st.one_of(*map(several, NAMES)))
def test_a_pattern_agrees_with_what_the_loader_makes_of_it(drawn):
    from triage.rules.matchers import compile_match

    field, first, _ = drawn
    name = NAMES[field].name
    match = {"message": {"error": {"message": first}}, "payload": {"payload": {"x": first}}}.get(field, {field: first})
    (matcher,) = compile_match(match)

    for value in VALUES[field]:
        subject = {name: value, "payload": {"x": value}}
        assert matcher.test(subject) == pattern(NAMES[field], first).accepts(value)


@pytest.mark.timeout(20)
def test_huge_lists_do_not_take_long():
    names = ", ".join(f"f{number}" for number in range(3_000))
    rules = "\n".join(f"  - {{id: r{number}, match: {{function: [{names}]}}, alert: {{}}}}" for number in range(4))

    assert "R003" in {each.code for each in lint_text("version: 1\nrules:\n" + rules)}


@pytest.mark.timeout(20)
def test_many_rules_do_not_take_long():
    rules = "\n".join(
        f"  - {{id: r{n}, match: {{function: 'f{n}-*', condition: c{n % 7}}}, alert: {{}}}}" for n in range(200)
    )

    assert {each.code for each in lint_text("version: 1\nrules:\n" + rules)} == {"R005", "R019", "R020"}


PAGE = Path(__file__).parents[2].joinpath("docs", "reference", "lint.md").read_text(encoding="utf-8")
SECTIONS = dict(zip(*[iter(re.split(r"^## (R\d{3} .*)$", PAGE, flags=re.MULTILINE)[1:])] * 2, strict=True))


def test_the_page_has_a_section_for_every_code():
    assert list(SECTIONS) == [f"{code} {each.name}" for code, each in CODES.items()]
    for code, each in CODES.items():
        assert f"| [{code}](#{code.lower()}-{each.name}) | {each.name} | {each.level} |" in PAGE


@pytest.mark.parametrize("code", CODES)
def test_the_examples_on_the_page_are_as_they_are_said_to_be(code):
    bad, good = re.findall(r"^```yaml\n(.*?)^```$", SECTIONS[f"{code} {CODES[code].name}"], re.MULTILINE | re.DOTALL)

    assert code in {each.code for each in lint_text("version: 1\nrules:\n" + bad)}
    assert code not in {each.code for each in lint_text("version: 1\nrules:\n" + good)}


def test_what_the_page_allows_is_allowed():
    example = re.search(r"^```yaml\n(version.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1]

    assert "R017" not in {each.code for each in lint_text(example)}
    assert "R017" in {each.code for each in lint_text(example.replace("lint: allow", "lint: all"))}


def test_one_name_may_mean_two_things_in_two_files():
    one = "version: 1\nconditions: {c: {function: '%s'}}\nwindows: {w: {hours: '%s'}}\nrules:\n"
    rule = "  - {id: %s, match: {%s}, alert: {}, owner: o, runbook: 'https://r.example'}\n"
    rest = "  - {id: rest, alert: {}, owner: o, runbook: 'https://r.example'}\n"
    for match in ("use: c", "use: [c]", "not: {use: c}, function: x", "window: w", "window: {not: w}"):
        first = one % ("img-*", "09:00-18:00") + rule % ("a", match)
        second = one % ("vid-*", "10:00-18:00") + rule % ("z", match) + rest

        codes = [(each.rule_id, each.code) for each in lint_text(first, second)]

        assert not {("z", "R002"), ("z", "R003")} & set(codes), match


@pytest.mark.timeout(20)
def test_of_conditions_that_stand_for_very_much_nothing_is_claimed():
    levels = 3
    inner = ["  c0: {function: 'img-*'}"] + [
        f"  c{n}: {{all: [{', '.join([f'{{use: c{n - 1}}}'] * 30)}]}}" for n in range(1, levels)
    ]
    text = (
        "version: 1\nconditions:\n"
        + "\n".join(inner)
        + f"\nrules:\n  - {{id: a, match: {{use: c{levels - 1}}}, alert: {{}}}}\n"
    )
    text += f"  - {{id: b, match: {{use: c{levels - 1}, condition: x}}, alert: {{}}}}\n"

    assert {each.code for each in lint_text(text)} == {"R005", "R019", "R020"}


def test_what_an_included_file_defines_may_mention_what_only_that_file_knows():
    shared = "version: 1\nconditions:\n  c: {use: d, window: w}\n  d: {function: 'img-*'}\nwindows: {w: {hours: '09:00-18:00'}}\n"
    rules = "version: 1\ninclude: 0.yaml\nrules:\n  - {id: a, match: {use: c}, alert: {}}\n  - {id: b, match: {use: [c], any: [{use: c}]}, alert: {}}\n"

    assert {each.code for each in lint_text(shared, rules)} == {"R005", "R019", "R020"}
    assert [each.code for each in lint_text(shared)] == ["R023"]


def test_a_word_in_quotes_is_no_window():
    text = "version: 1\nrules:\n  - {id: a, when: 'error.message.contains(\"windows.nt\")', alert: {}}\n"

    assert "R023" not in {each.code for each in lint_text(text)}


FUNCTIONS = ["a", "s/a", "s/b", "b", "ab"]
WORDS = ["", "a", "ab", "b"]


def a_match(depth=2):
    """Any ``match:``, with names and combinations."""
    fields = {
        "function": written("function"),
        "condition": written("condition"),
        "status_code": written("status_code"),
        "error": st.fixed_dictionaries({}, optional={"message": written("message"), "type": written("condition")}),
        "labels": st.fixed_dictionaries({}, optional={"team": written("condition")}),
        "payload": st.fixed_dictionaries({}, optional={"x": written("payload")}),
        "outcome": st.sampled_from(["failed", "succeeded", "succeeded*", ["failed", "succeeded"], {"not": "failed"}]),
        "use": st.sampled_from(["c", "d", ["c", "d"], {"not": "c"}, {"all": ["c", {"not": "d"}]}]),
        "window": st.sampled_from(["day", {"not": "day"}, ["day", "past"]]),
    }
    if depth:
        inner = st.deferred(lambda: a_match(depth - 1))
        fields |= {
            "any": st.lists(inner, min_size=1, max_size=2),
            "all": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
        }
    return st.dictionaries(st.sampled_from(sorted(fields)), st.nothing(), max_size=0) | st.lists(
        st.sampled_from(sorted(fields)), min_size=1, max_size=2, unique=True
    ).flatmap(lambda names: st.fixed_dictionaries({name: fields[name] for name in names}))


DEFINED = {
    "version": 1,
    "conditions": {"c": {"function": ["a", "s/*"]}, "d": {"condition": "a*", "window": "day"}},
    "windows": {"day": {"hours": "09:00-18:00"}, "past": {"from": "2026-02-01", "until": "2026-02-02"}},
}


def subjects():
    """Results of every kind that the matches above tell apart."""
    for number, function in enumerate(FUNCTIONS * 8):
        word = WORDS[number % 4]
        yield dict.fromkeys(KIND, "") | {
            "outcome": ["failed", "failed", "succeeded"][number % 3],
            "fn": function,
            "condition": word,
            "status_code": [0, 200, 201, 500][(number // 3) % 4],
            "error.message": WORDS[(number // 5) % 4] if number % 3 < 2 else "",
            "error.type": WORDS[(number // 2) % 4] if number % 3 < 2 else "",
            "labels": [{}, {"team": "a"}, {"team": "ab"}][(number // 4) % 3],
            "payload": [None, {"x": 1}, {"x": "a"}, {"x": None}][(number // 7) % 4],
            "now": datetime(2026, 3, 1, [3, 12][number % 2], tzinfo=UTC),
        }


@settings(max_examples=150)
@given(
    st.lists(st.tuples(a_match(), st.sampled_from(["live", "live", "shadow"]), st.booleans()), min_size=2, max_size=5)
)
def test_what_is_said_never_to_be_asked_never_is(drawn):
    rules = [
        {"id": f"r{number}", "match": match, "mode": mode, "continue": goes_on, "alert": {}}
        for number, (match, mode, goes_on) in enumerate(drawn)
    ]
    loaded = load_rules([SourceText("a.yaml", json.dumps(DEFINED | {"rules": rules}))])

    findings = lint(loaded, today=TODAY)

    dead = {each.rule_id for each in findings if each.code in ("R002", "R003")}
    if catch_all := next((each.rule_id for each in findings if each.code == "R004"), ""):
        ids = [rule.id for rule in loaded.rules]
        dead |= {rule.id for rule in loaded.rules[ids.index(catch_all) + 1 :] if not rule.successes}
    for subject in subjects():
        match = matching(loaded, subject)
        assert not dead & {rule.id for rule in (*match.rules, *match.shadow)}
        for finding in findings:
            if finding.code == "R001" and "other clause" in finding.problem.message:
                rule = next(rule for rule in loaded.rules if rule.id == finding.rule_id)
                assert not all(matcher.test(subject) for matcher in rule.match)
