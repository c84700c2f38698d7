"""``match:``: what each kind of value matches, and how it is told."""

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import NOW, arrived, envelope

from triage.facts import Facts
from triage.rules.match import Verdict, matching, trace
from triage.rules.matchers import FIELDS, compile_match
from triage.rules.mistakes import Mistakes
from triage.rules.model import KIND, Place, Rule, RuleSet, SourceText
from triage.rules.source import load_rules
from triage.subject import VOCABULARY, Subject

SUBJECT = {
    "fn": "media/img-resize",
    "service": "media",
    "qualifier": "",
    "region": "cn-hangzhou",
    "account": "1034354682",
    "condition": "InvocationError",
    "invoke_count": 0,
    "status_code": 200,
    "function_error": "",
    "error.type": "java.lang.OutOfMemoryError",
    "error.message": "what? 2*3 timed out after 60 seconds\nat /var/task",
    "source": "smq",
    "outcome": "failed",
    "labels": {"team": "media", "tier.x": "1"},
    "payload": {"a": {"b": 3, "list": [1]}, "yes": True, "one": 1, "text": "3", "none": None, "x.y": 1},
}


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        # names: equality, globs, lists
        ({"condition": "InvocationError"}, True),
        ({"condition": "invocationerror"}, False),
        ({"condition": "Invocation*"}, True),
        ({"condition": "*Error"}, True),
        ({"condition": "*vocation*"}, True),
        ({"condition": "Invocation?rror"}, True),
        ({"condition": "Invocation?"}, False),
        ({"condition": "Invocatio*cationError"}, False),  # one star: head and tail may not overlap
        ({"condition": "*[IE]*"}, False),  # brackets stand for themselves
        ({"condition": ["FunctionOOMError", "Invocation*"]}, True),
        ({"condition": ["FunctionOOMError", "x*"]}, False),
        ({"region": "*"}, True),
        ({"qualifier": "*"}, True),
        ({"qualifier": ""}, True),
        ({"qualifier": "?*"}, False),
        ({"account": 1034354682}, True),
        ({"account": "1034354682"}, True),
        # functions: with and without the service
        ({"function": "img-resize"}, True),
        ({"function": "img-*"}, True),
        ({"function": "media/img-resize"}, True),
        ({"function": "media/*"}, True),
        ({"function": "*/img-*"}, True),
        ({"function": "media*"}, False),
        ({"function": "/^media/"}, True),
        ({"function": "/^img/"}, False),
        ({"function": ["video-*", "img-*"]}, True),
        # messages: part of the text, no glob
        ({"error": {"message": "timed out after"}}, True),
        ({"error": {"message": "Timed out"}}, False),
        ({"error": {"message": "what?"}}, True),
        ({"error": {"message": "2*3"}}, True),
        ({"error": {"message": "timed*after"}}, False),
        ({"error": {"message": "/(?i)TIMED out after \\d+ seconds$/"}}, False),  # $ is the end of the text
        ({"error": {"message": "/(?im)TIMED out after \\d+ seconds$/"}}, True),
        ({"error": {"message": "/"}}, True),
        ({"error": {"message": ""}}, False),
        ({"error": {"type": "*.OutOfMemoryError", "message": ["nope", "timed"]}}, True),
        # counts; 0 stands for a message that does not say
        ({"status_code": 200}, True),
        ({"status_code": [429, ">= 500"]}, False),
        ({"status_code": {"all": [">= 200", "<300"]}}, True),
        ({"status_code": "!= 200"}, False),
        ({"invoke_count": "< 3"}, False),
        ({"invoke_count": 0}, True),
        # not, any, all
        ({"condition": {"not": "InvocationError"}}, False),
        ({"condition": {"not": ["A*", "B*"]}}, True),
        ({"condition": {"all": ["Invocation*", "*Error"]}}, True),
        ({"condition": {"any": ["x", {"not": "y"}], "not": "z"}}, True),
        ({"function_error": {"not": ""}}, False),
        # payloads: typed, nothing equals what is missing
        ({"payload": {"a.b": 3}}, True),
        ({"payload": {"a.b": 3.0}}, True),
        ({"payload": {"a.b": "3"}}, False),
        ({"payload": {"text": "3"}}, True),
        ({"payload": {"text": 3}}, False),
        ({"payload": {"text": "/^[0-9]$/"}}, True),
        ({"payload": {"a.b": "*"}}, False),
        ({"payload": {"yes": True}}, True),
        ({"payload": {"one": True}}, False),
        ({"payload": {"yes": 1}}, False),
        ({"payload": {"none": None}}, True),
        ({"payload": {"missing": None}}, False),
        ({"payload": {"missing": {"not": 3}}}, True),
        ({"payload": {"a.b.c": 3}}, False),
        ({"payload": {"a.list.0": 1}}, False),
        ({"payload": {"a.b": [1, 2, 3], "yes": False}}, False),
        ({}, True),
        # outcomes and labels
        ({"outcome": "failed"}, True),
        ({"outcome": ["succeeded", "succeeded_or_stopped"]}, False),
        ({"outcome": {"not": "succeeded*"}}, True),
        ({"labels": {"team": "med*", "tier.x": [1, 2]}}, True),
        ({"labels": {"team": "ops"}}, False),
        ({"labels": {"tier": "1"}}, False),
        ({"labels": {"tier": {"not": "1"}}}, True),
        ({"labels": {"tier": ""}}, True),
        # matches inside a match
        ({"any": [{"region": "x"}, {"service": "media", "condition": "Inv*"}]}, True),
        ({"any": [{"region": "x"}, {"service": "media", "condition": "x"}]}, False),
        ({"all": [{"region": "cn-*"}, {"any": [{"service": "x"}, {"service": "media"}]}]}, True),
        ({"not": {"region": "cn-*", "service": "x"}}, True),
        ({"not": {"region": "cn-*", "service": "media"}}, False),
        ({"not": {}}, False),
        ({"any": [{}]}, True),
        ({"not": {"payload": {"a.b": 3}}, "region": "*"}, False),
    ],
)
def test_matching(match, expected):
    assert all(matcher.test(SUBJECT) for matcher in compile_match(match)) is expected


def test_every_field_looks_at_a_name_of_the_vocabulary():
    assert {field.name for field in FIELDS.values()} <= set(VOCABULARY)


def rules(*matches):
    return RuleSet(
        tuple(
            Rule(f"r{number}", Place("r.yaml", number), compile_match(match)) for number, match in enumerate(matches)
        ),
        "",
    )


def test_the_trace_tells_the_clause_and_the_value_it_met():
    steps = trace(
        rules(
            {"condition": "Inv*", "status_code": [429, ">= 500"]},
            {"payload": {"a.b": {"not": 3}}},
            {"function_error": "x", "error": {"message": "never"}},
            {},
            {"source": "not reached"},
        ).rules,
        SUBJECT | {"outcome": "failed"},
    )
    told = [step.clause for step in steps if step.clause]

    assert [(each.rule_id, each.clause, each.actual) for each in told] == [
        ("r0", 'status_code: [429, ">= 500"]', "200"),
        ("r1", 'payload.a.b: {"not": 3}', "3"),
        ("r2", "function_error: x", "''"),
    ]
    assert [step.verdict for step in steps] == ["failed", "failed", "failed", "matched", "not_asked"]


def test_patterns_that_backtrack_elsewhere_take_no_time_here():
    hostile = SUBJECT | {"error.message": "a" * 8192 + "b", "condition": "a" * 8192}
    (pattern,) = compile_match({"error": {"message": "/^(a+)+$/"}})
    (glob,) = compile_match({"condition": "*a*a*a*a*a*a*a*a*a*b"})

    start = time.thread_time()
    assert not pattern.test(hostile)
    assert not glob.test(hostile)
    assert time.thread_time() - start < 1


YAML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 600) | st.floats(allow_nan=False) | st.text(max_size=5)
    | st.sampled_from(["/a/", "*a?", ">= 3", "a*", "/(/"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["not", "any", "all", "x"]), inner, max_size=2),
    max_leaves=5,
)  # fmt: skip
MATCHES = st.dictionaries(
    st.sampled_from([*FIELDS, "error", "payload", "labels"]),
    YAML_VALUES | st.dictionaries(st.sampled_from(["type", "message", "a", "a.b"]), YAML_VALUES, max_size=3),
    max_size=3,
)
MATCHES = st.recursive(
    MATCHES,
    lambda inner: (
        st.dictionaries(st.sampled_from(["any", "all"]), st.lists(inner, max_size=3), max_size=2)
        | st.dictionaries(st.sampled_from(["not", "window", "use"]), inner, max_size=2)
    ),
    max_leaves=4,
)
TEXTS = st.text(st.characters(), max_size=6)  # lone surrogates, too
SUBJECTS = st.fixed_dictionaries(
    {
        name: st.integers() if kind == "INT" else st.recursive(
            st.none() | st.booleans() | st.floats() | TEXTS,
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
            max_leaves=4,
        ) if name == "payload" else TEXTS
        for name, kind in VOCABULARY.items()
        if kind in ("STRING", "INT", "DYN") and not name.startswith("group.")
    }
)  # fmt: skip


@given(MATCHES, SUBJECTS)
def test_a_match_is_refused_at_load_or_never_raises(match, subject):
    try:
        matchers = compile_match(match)
    except Mistakes:
        return
    subject |= {"outcome": "failed", "labels": {"a": "x"}, "now": NOW}
    rule = Rule("r", Place("r.yaml", 1), matchers)

    (step,) = trace([rule], subject)
    assert (matching(RuleSet((rule,), ""), subject).rules == [rule]) == (step.verdict is Verdict.MATCHED)


@given(st.lists(MATCHES, max_size=4), st.lists(st.tuples(SUBJECTS, st.booleans()), min_size=1, max_size=4))
def test_what_is_known_of_a_kind_changes_no_verdict(matches, subjects):
    known = []
    for match in matches:
        with suppress(Mistakes):
            known.append(compile_match(match))
    asked = RuleSet(
        tuple(
            Rule(f"r{number}", Place("r.yaml", 1), matchers, continues=True) for number, matchers in enumerate(known)
        ),
        "",
    )
    first = subjects[0][0]
    for subject, alike in subjects:
        # Half of them differ from the first only in what is no part of their kind.
        names = subject | ({name: first[name] for name in KIND} if alike else {})
        names |= {"outcome": "failed", "labels": {"a": "x"}, "now": NOW}
        told = [step.rule for step in trace(asked.rules, names) if step.verdict is Verdict.MATCHED]
        assert matching(asked, names).rules == told


def test_kinds_that_anybody_can_make_up_take_no_memory():
    asked = rules({"condition": "Inv*"}, {})
    for number in range(10_000):
        matching(asked, SUBJECT | {"now": NOW, "error.type": f"{number}"})
        matching(asked, SUBJECT | {"now": NOW, "error.type": "x" * 5000 + f"{number}"})
    assert 0 < len(asked._of_kinds) <= 4000
    assert max(len(kind[7]) for kind in asked._of_kinds) < 10


def test_a_text_that_is_no_unicode_is_matched_all_the_same():
    failure = arrived(
        envelope(error="job \ud800 timed out", payload='{"k\\ud800": "\\ud800", "deep": ' + "[" * 900 + "]" * 900 + "}")
    )
    subject = Subject(failure, Facts(), now=NOW)
    loaded = load_rules([
        SourceText("r.yaml", "version: 1\nrules:\n  - id: a\n    when: error.message.contains('job ? timed out') && payload == payload\n    alert: {}\n")
    ])  # fmt: skip

    assert matching(loaded, subject).rules[0].id == "a"
    assert matching(rules({"error": {"message": "/job . timed/"}}), subject).rules
