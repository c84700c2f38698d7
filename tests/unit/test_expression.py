"""``when:`` expressions: what is accepted, what it gives, and that none can hurt."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.rules.expression import MAX_TEXT, compile_expression
from triage.rules.mistakes import Mistakes
from triage.subject import VOCABULARY

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SUBJECT = {
    "fn": "media/resize",
    "service": "media",
    "qualifier": "",
    "region": "cn-hangzhou",
    "account": "1034354682",
    "condition": "InvocationError",
    "outcome": "failed",
    "invoke_count": 2,
    "status_code": 200,
    "function_error": "InvocationError",
    "error.type": "TimeoutError",
    "error.message": "timed out after 60 seconds",
    "lineage.attempt": 1,
    "lineage.automatic": 1,
    "lineage.manual": 0,
    "lineage.age": timedelta(minutes=10),
    "group.count": 7,
    "group.age": timedelta(hours=2),
    "group.rate_1m": 3.0,
    "group.rate_5m": 2.5,
    "group.rate_15m": 1.0,
    "group.rate_1h": 0.5,
    "group.regressed": False,
    "group.state": "ongoing",
    "labels": {"team": "media"},
    "source": "smq",
    "now": NOW,
    "payload": {"items": [{"kind": "video", "size": 3}], "token": "hunter2", "n": 3, "nothing": None},
}


def verdict(text, **changed):
    return compile_expression(text).evaluate(SUBJECT | changed)


def test_the_subject_of_these_tests_has_every_name():
    assert set(SUBJECT) == set(VOCABULARY)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fn == 'media/resize' && lineage.attempt < 3", True),
        ("fn.startsWith('video') || status_code >= 500", False),
        ("error.message.rx('(?i)TIMED OUT after [0-9]+')", True),
        ("error.message.rx('^after')", False),
        ("payload.items.exists(item, item.kind.rx('^vid'))", True),
        ("condition in ['InvocationError', 'FunctionOOMError']", True),
        ("group.age > duration('1h') && lineage.age < duration('1h')", True),
        ("now > timestamp('2026-03-01T00:00:00Z')", True),
        ("now.getHours('Asia/Shanghai') == 20", True),
        ("lineage.attempt + 1 == 2 && payload.n + 1 == 4", True),
        ("payload.?a.?b.orValue(0) == 0", True),
        ("has(payload.n) && !has(payload.m)", True),
        ("payload.nothing == null", True),
        ("error\n  .message == ''", False),
        ("payload.items.all(fn, fn.size == 3)", True),  # a bound name hides the vocabulary's
        ("group.rate_5m > 2.0 && group.rate_5m > 3.0 * group.rate_1h", True),
        ("group.state in ['new', 'regressed'] || group.regressed", False),
        ("lineage.automatic + lineage.manual == lineage.attempt", True),
        ("labels.team == 'media' && labels.?tier.orValue('2') == '2'", True),
        ("labels.tier == '1'", 'there is no "tier" (has(...) asks first)'),
        ("payload.m == 3", 'there is no "m" (has(...) asks first)'),
        ("payload.token > 3", "No matching overloads found : _>_(string, int64)"),
        ("payload.token", "the result is neither true nor false"),
        ("payload.n == 3 || payload.m == 3", True),  # an error does not matter when the rest decides
        ("int(payload.token) == 1", "cannot convert string to int"),
        ("100 / (lineage.attempt - 1) > 1", "divide by zero"),
    ],
)
def test_an_expression_gives_true_false_or_why_it_has_no_truth_value(text, expected):
    assert verdict(text) == expected


def test_a_payload_that_is_no_json_has_no_fields():
    assert verdict("has(payload.n)", payload=None) is False
    assert verdict("payload.?n.orValue(0) == 3", payload=None) is False


def test_an_error_text_shows_nothing_of_the_payload():
    for text in ("payload[payload.token] == 1", "{'a': 1}[payload.token] == 1", "duration(payload.token) > group.age"):
        told = verdict(text)
        assert isinstance(told, str)
        assert "hunter2" not in told
    assert "hunter2" not in verdict("payload", payload="INTERNAL: hunter2")
    assert len(verdict("payload." + "k" * 3000 + " == 1")) <= 200


def test_only_the_names_an_expression_mentions_are_fetched():
    class Recording(dict):
        def __getitem__(self, name):
            asked.add(name)
            return super().__getitem__(name)

    asked = set()
    subject = Recording(SUBJECT)
    text = "fn == 'payload' && error.message.rx('group.count') // source\n"

    compile_expression(text).evaluate(subject)

    assert asked == {"fn", "error.message"}


# What would take time or memory without a bound is refused at load, with the place where that is known.
REFUSED = {
    "joining texts": ("fn + fn == 'x'", 3, "+ does not take (string, string)"),
    "joining lists": ("[1] + [2] == []", 4, "+ does not take (list(int), list(int))"),
    "joining what may be texts": ("payload.a + payload.b == 'x'", 10, "a sum of two values of unknown type"),
    "doubling in a loop": ("[payload.a].exists(x, [x + x].exists(y, y == ''))", 25, "a sum of two values of unknown type"),
    "doubling in an option": ("optional.of(payload.a).optMap(x, x + x).hasValue()", 35, "a sum of two values of unknown type"),
    "doubling in a map": ("{'k': [payload.a + payload.b]} == {}", 17, "a sum of two values of unknown type"),
    "building lists": ("payload.items.map(x, x) == []", 17, "unknown name 'map'"),
    "loops in loops": (
        "[1].all(a, [1].all(b, [1].all(c, [1].all(d, a == d))))", None,
        "more than 3 of exists, all and the like inside each other",
    ),
    "nesting": ("(" * 500 + "true" + ")" * 500, None, "Expression recursion limit exceeded. limit: 32"),
    "nothing but brackets": ("[" * MAX_TEXT, None, "Expression recursion limit exceeded. limit: 32"),
    "length": ("fn == '" + "x" * 65_536 + "'", None, "the expression has 65544 characters; at most 4000 are taken"),
    "no Unicode": ("fn == '\ud800'", None, "the expression is no Unicode text"),
    "a large regular expression": ("fn.rx('(a{1000}){1000}')", 6, "not a regular expression of RE2: invalid repetition size: {1000}"),
    "a long sum": ("1" + "+1" * 1000 + " == 1", None, "Exceeded max recursion depth of 32 when parsing."),
    "white space": (" \n ", None, "the expression is empty"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "offset", "message"), REFUSED.values(), ids=REFUSED)
def test_what_could_grow_without_a_bound_is_refused(text, offset, message):
    with pytest.raises(Mistakes) as caught:
        compile_expression(text)

    assert (message, offset) in [(each.message, each.offset) for each in caught.value.mistakes]


def test_steps_are_bounded_at_run_time():
    numbers = {"l": list(range(1000))}

    told = verdict("payload.l.all(a, payload.l.all(b, payload.l.all(c, a * b * c >= 0)))", payload=numbers)

    assert told == "Iteration budget exceeded"


def test_a_pattern_that_backtracks_elsewhere_takes_no_time_here():
    assert verdict("error.message.rx('^(a+)+$')", **{"error.message": "a" * 8000 + "!"}) is False


@pytest.mark.parametrize("value", ["\ud800", 1 << 80, b"\xff", object(), datetime(2026, 1, 1), float("nan")])  # noqa: DTZ001
def test_a_value_the_evaluator_cannot_take_is_an_error_text(value):
    for text in ("payload == 'x' && payload.a.b", "payload.rx('x') || payload > 1"):
        assert isinstance(verdict(text, payload=value), bool | str)


NAMES = st.sampled_from(sorted(VOCABULARY))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
PIECES = st.one_of(
    NAMES,
    st.sampled_from(
        ["==", "!=", "<", "+", "&&", "||", "!", "(", ")", "[", "]", ".", "?", ":", ",", "{", "}", "1", "2.5"]
    ),
    st.sampled_from(
        ["'x'", "null", "true", ".rx('a')", ".exists(x, x == 1)", ".a", ".?b", ".size()", "has(payload.a)"]
    ),
)


@given(st.lists(PIECES, max_size=8).map(" ".join) | st.text(max_size=40), JSON)
def test_compiling_refuses_or_gives_what_never_raises(text, payload):
    try:
        compiled = compile_expression(text)
    except Mistakes as error:
        mistakes = error.mistakes
        assert_places(text, mistakes)
        return
    assert isinstance(compiled.evaluate(SUBJECT | {"payload": payload}), bool | str)


def assert_places(text, mistakes):
    assert mistakes
    assert all(each.offset is None or 0 <= each.offset <= len(text) for each in mistakes)
