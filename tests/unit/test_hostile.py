"""Rules and payloads made to break what reads them: bounded time and memory, a clear answer, nothing raised.

What single modules do with a bad value is in their own tests; here is what only large, deep or many values show.
"""

import io
import json
import logging
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import hostile
import make
import pytest

from triage.alerts.render import body as alert_body
from triage.alerts.render import title as alert_title
from triage.changes import AlertGroup
from triage.cli.output import print_fields, print_json, print_table
from triage.decide import decide
from triage.effects import decided
from triage.envelope import REASONS, parse_body
from triage.errors import InvalidEnvelope, RulesInvalid
from triage.facts import Arrival, Facts
from triage.log import configure
from triage.rulefiles import default_rules_dir, read_rules
from triage.rules.expression import compile_expression
from triage.rules.match import trace
from triage.rules.matchers import Names, compile_match
from triage.rules.mistakes import MAX_TOLD, Mistakes
from triage.rules.model import Cause, SourceText
from triage.rules.regex import compile_regex
from triage.rules.source import load_rules
from triage.settings import LogSettings
from triage.subject import MAX_VALUES, PAYLOAD_PROBLEM, Subject, parse_payload, read_payload
from triage.views import GroupView, WaitingAlert

SHIPPED = load_rules(read_rules(default_rules_dir()))
HEAD = "version: 1\nrules:\n"


class Took:
    """The processor time of this thread, in seconds: what others do on the machine does not count."""

    def __enter__(self):
        self.start = time.thread_time()
        return self

    def __exit__(self, *_):
        self.seconds = time.thread_time() - self.start


# --- rule files -------------------------------------------------------------------------------------------------------


def one(rest: str) -> str:
    return f"{HEAD}  - id: a\n    alert: {{}}\n{rest}"


# Files of nothing but mistakes, as large as they may be, and what the last one told is about.
MISTAKES = {
    "keys of a rule": one("".join(f"    k{n}: 1\n" for n in range(24_000))),
    "keys of a match": one("    match:\n" + "".join(f"      k{n}: 1\n" for n in range(24_000))),
    "values of a match": one("    match: {function: [" + "{x: 1}, " * 12_000 + "]}\n"),
    "patterns": one("    match: {function: [" + "/(/, " * 20_000 + "]}\n"),
    "branches": one("    match: {any: [" + "{not: {foo: 1}}, " * 9_000 + "]}\n"),
    "paths": one("    match: {payload: {" + ", ".join(f"a{n}: [/(/]" for n in range(9_000)) + "}}\n"),
    "names of receivers": one("    alert: {to: [" + "'', " * 20_000 + "]}\n").replace("    alert: {}\n", ""),
    "expressions": HEAD + "".join(f"  - {{id: a{n}, alert: {{}}, when: '{'fnn || ' * 400}true'}}\n" for n in range(300)),
    "rules": HEAD + "".join(f"  - {{idd: a{n}}}\n" for n in range(9_000)),
    "rules of one name": HEAD + "  - {id: a, alert: {}}\n" * 6_000,
    "keys that stand twice": "a: 1\n" * 24_000,
    "keys that stand twice on one line": "{" + "a: 1, " * 24_000 + "}",
    "tags": "[" + "!!foo x, " * 24_000 + "]",
    "unknown conditions": "version: 1\nconditions: {" + ", ".join(f"a{n}: {{use: b{n}}}" for n in range(9_000)) + "}\n",
    "unknown windows": one("    match: {any: [" + ", ".join(f"{{window: b{n}}}" for n in range(9_000)) + "]}\n"),
    "windows": "version: 1\nwindows: {" + ", ".join(f"a{n}: {{x: b}}" for n in range(9_000)) + "}\n",
    "included files": "version: 1\ninclude: [" + ", ".join(f"a{n}.yaml" for n in range(20_000)) + "]\n",
    "one long name": one("    match: {use: " + "x" * 500_000 + "}\n"),
    "one long key": one("    " + "x" * 900 + ": 1\n"),
}  # fmt: skip


def refused(*texts: str) -> RulesInvalid:
    with Took() as took, pytest.raises(RulesInvalid) as caught:
        load_rules([SourceText(f"{number:03}.yaml", text) for number, text in enumerate(texts)])
    assert took.seconds < 4
    for problem in caught.value.problems:
        assert len(str(problem)) < 2_000
        assert str(problem).replace("\n", "").isprintable()
    return caught.value


@pytest.mark.parametrize("text", MISTAKES.values(), ids=MISTAKES)
def test_a_file_of_mistakes_is_refused_with_the_first_hundred(text):
    problems = refused(text).problems

    assert len(problems) <= MAX_TOLD + 1
    if len(problems) > 1:
        assert len(problems) >= MAX_TOLD
        assert sum("100 mistakes" in problem.message for problem in problems) == (len(problems) > MAX_TOLD)


def test_each_file_has_a_hundred_of_its_own():
    problems = refused(MISTAKES["keys of a match"], HEAD + "  - {}\n").problems

    assert {problem.file for problem in problems} == {"000.yaml", "001.yaml"}


def conditions(pattern: str, count: int, last: str = "{function: x}") -> str:
    names = [f"  c{n}: {pattern.format(f'c{n + 1}')}\n" for n in range(count)]
    return (
        "version: 1\nconditions:\n"
        + "".join(names)
        + f"  c{count}: {last}\n"
        + "rules:\n  - {id: a, alert: {}, match: {use: c0}}\n"
    )


COMBINED = {
    "conditions that multiply": (conditions("{{use: [" + ", ".join(["{0}"] * 10) + "]}}", 12), "more than 1000 comparisons, those of the conditions it uses included"),
    "branches that multiply": (conditions("{{any: [" + ", ".join(["{{{{use: {0}}}}}"] * 10).replace("{{{{", "{{").replace("}}}}", "}}") + "]}}", 12), "more than 1000 comparisons, those of the conditions it uses included"),
    "a chain": (conditions("{{use: {0}}}", 5_000), "conditions inside conditions, deeper than 16"),
    "a circle": (conditions("{{use: {0}}}", 9, "{use: c0}"), "the condition 'c0' is used inside itself"),
    "one used often": (one("    match: {use: [" + "c, " * 20_000 + "]}\n") + "conditions:\n  c: {any: [" + "{function: a}, " * 900 + "]}\n", "more than 1000 comparisons, those of the conditions it uses included"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), COMBINED.values(), ids=COMBINED)
def test_conditions_do_not_multiply(text, message):
    assert message in [problem.message for problem in refused(text).problems]


def test_a_chain_of_conditions_through_many_files_ends():
    files = [f"version: 1\ninclude: [{n + 1:03}.yaml]\nconditions: {{c{n}: {{use: c{n + 1}}}}}\n" for n in range(300)]

    assert "deeper than 16" in str(refused(*files, "version: 1\nconditions: {c300: {function: x}}\n"))


def test_characters_that_turn_the_direction_of_writing_are_not_shown():
    refused(HEAD + "  - id: \"a\u202e\u2066\"\n    wehn: 'fn == \u202e'\n    \u202eid: x\n")


PATTERNS = {
    "counts in counts": "(a{1,40}b?){10}(a{1,40}b?){30}c",
    "more counts in counts": "(?:" + "|".join(f"(?:a{{1,30}}){{30}}{n}" for n in range(40)) + ")",
    "optional": "(?:a?){900}a{900}b",
    "letters, counted": r"(\pL{1,20}\d){5}",
}


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_a_pattern_that_is_linear_but_large_is_refused(pattern):
    with Took() as took, pytest.raises(Mistakes) as caught:
        compile_regex(pattern)

    assert took.seconds < 1
    assert "regular expression" in str(caught.value)


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+$",
        r"(a|a)*$",
        r"(a|aa)+$",
        r"(.*a){20}",
        r"(\w+\s?)*$",
        r"(a{1,40}b?){10}c",
        r"((a*)*)*b",
        r"^(\pL+\d?)+$",
    ],
)
def test_a_pattern_that_is_taken_takes_bounded_time(pattern):
    search = compile_regex(pattern)
    with Took() as took:
        for text in ("a" * 8192 + "!", "ab" * 4096, "a\u00e9" * 4096):
            search(text)

    assert took.seconds < 3


def test_patterns_of_one_match_are_bounded_together():
    heavy = "(a[ab]{0,40}){1,25}c"
    few = {"error": {"message": [f"/{heavy}{n}/" for n in range(4)]}}
    (match,) = compile_match(few)
    with Took() as took:
        match.test({"error.message": "ab" * 4096})
    assert took.seconds < 3

    many = {"any": [few, {"not": few}]}
    for refused in (many, {"use": ["few", {"not": "few"}]}):
        with pytest.raises(Mistakes, match="steps together; at most 10000 are taken"):
            compile_match(refused, Names(conditions={"few": lambda: compile_match(few)}))


# --- expressions ------------------------------------------------------------------------------------------------------

LARGE = {
    "l": list(range(100)),
    "rows": [{"id": n, "tags": ["x"] * 20, "text": "a" * 50} for n in range(100)],
    "copy": [{"id": n, "tags": ["x"] * 20, "text": "a" * 50} for n in range(100)],
    "s": "a" * 8192,
    "t": "a" * 4096 + "b",
    "texts": ["a" * 100 for _ in range(1000)],
}
"""Near to what rules are shown at most."""

EXPRESSIONS = [
    "payload == payload",
    " && ".join(["payload.rows == payload.copy"] * 100),
    "payload.rows.all(r, payload.copy.exists(c, string(r.id) == string(c.id)))",
    "payload.rows.all(r, r.tags == payload.copy)",
    "payload.rows.all(r, r in payload.copy)",
    "payload.l.all(a, payload.l.all(b, payload.l.all(c, a + b + c >= 0)))".replace(
        "a + b + c", "int(a) + int(b) + int(c)"
    ),
    "payload.l.all(a, payload.l.all(b, payload.s.contains('" + "a" * 2000 + "b')))",
    "payload.l.all(a, !payload.s.contains(payload.t))",
    "payload.texts.all(t, !t.rx('(a|a)*b'))",
    "payload.l.all(a, payload.l.all(b, !payload.s.rx('(a{1,40}b?){10}c')))",
    "payload.l.all(a, payload.l.all(b, payload.s.size() > 0 && string(payload.s) != 'x'))",
    "payload.l.all(a, payload.l.all(b, 'x' in payload.texts || true))",
    "payload.l.exists_one(a, payload.rows.exists_one(b, b.id == a))".replace("b.id == a", "int(b.id) == int(a)"),
    "[payload, payload, payload].all(p, p == payload)",
    "{'a': payload, 'b': payload}.all(k, k == 'a' || payload.s == payload.t)".replace(
        "payload.s == payload.t", "k == payload.t"
    ),
]


@pytest.mark.parametrize("text", EXPRESSIONS, ids=lambda text: text[:60])
def test_an_expression_takes_bounded_time_on_a_large_event(text):
    event = parse_payload(json.dumps(LARGE).encode())
    subject = Subject(make.arrived(), Facts(), now=make.NOW) | {"payload": event}
    compiled = compile_expression(text)
    with Took() as took:
        verdict = compiled.evaluate(subject)

    assert event is not None
    assert isinstance(verdict, bool | str)
    assert took.seconds < 2


def test_searching_ends_when_it_takes_too_long():
    compiled = compile_expression("payload.l.all(a, payload.l.all(b, !payload.s.rx('(a{1,40}b?){10}c')))")
    subject = Subject(make.arrived(), Facts(), now=make.NOW) | {"payload": {"l": list(range(90)), "s": "a" * 8192}}

    assert compiled.evaluate(subject) == "the regular expressions take too long"
    assert compiled.evaluate(subject | {"payload": {"l": [1], "s": "b"}}) is True


# What steps do not count: comparing two large values again and again.
REPEATED = {
    "the same each time": ("payload.l.all(a, payload.x == payload.y)", 27, "a comparison in a loop of what is the same each time"),
    "the same each time, negated": ("payload.l.all(a, !(payload.x != payload.y))", 29, "a comparison in a loop of what is the same each time"),
    "the same each time, in a list": ("payload.l.all(a, payload in payload.y)", 25, "a comparison in a loop of what is the same each time"),
    "in a list that is written out": ("payload.l.all(a, [payload] == [payload.x])", 27, "a comparison in a loop of what is the same each time"),
    "in a branch": ("payload.l.all(a, (fn == 'f' ? payload.x : payload.y) == payload.y)", 53, "a comparison in a loop of what is the same each time"),
    "in an option": ("payload.l.all(a, payload.?x == payload.?y)", 28, "a comparison in a loop of what is the same each time"),
    "in a loop in a loop": ("payload.l.all(a, payload.l.all(b, a == b))", 36, "in a loop inside a loop, a comparison of values of unknown type"),
    "hidden by its type": ("payload.l.all(a, payload.l.all(b, dyn(1) == payload))", 41, "a comparison in a loop of what is the same each time"),
    "searched in a loop in a loop": ("payload.l.all(a, payload.l.all(b, payload.s.contains(payload.t)))", 52, "in a loop inside a loop, .contains takes a text in quotes"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "offset", "message"), REPEATED.values(), ids=REPEATED)
def test_large_comparisons_again_and_again_are_refused(text, offset, message):
    with pytest.raises(Mistakes) as caught:
        compile_expression(text)

    assert [(each.message, each.offset) for each in caught.value.mistakes] == [(message, offset)]


@pytest.mark.parametrize(
    "text",
    [
        "payload.items.exists(i, i.sku == payload.sku)",
        "payload.items.exists(i, payload.sku == i)",
        "payload.items.exists(i, i.kind in ['a', 'b'] && i.size > 3 && fn == i.fn)",
        "payload.items.exists(i, i.tags.exists(t, t == 'x' || string(t) == string(payload.tag)))",
        "payload.items.exists(i, i.?kind.orValue('x') == 'video' && payload.mode == 'x')",
        "payload.a == payload.b && payload.c in payload.d",
        "payload.items.exists_one(i, i.done == true) || payload.items.all(i, has(i.x) && i.n != null)",
        "payload.items.exists(i, error.message.contains(i))",
        "(payload.a == payload.b ? payload.c : payload.d).exists(i, i == 1)",
    ],
)
def test_what_people_write_in_loops_is_taken(text):
    compile_expression(text)


# --- events -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        (
            b"[" + b"1," * MAX_VALUES + b"1]",
            "the event has more than 10000 values, or 64 levels; rules do not look into it",
        ),
        (b"[" * 65 + b"]" * 65, "the event has more than 10000 values, or 64 levels; rules do not look into it"),
        (
            b'{"a":' * 65 + b"1" + b"}" * 65,
            "the event has more than 10000 values, or 64 levels; rules do not look into it",
        ),
        (b'"' + b"x" * (256 << 10) + b'"', "the event has 262146 bytes; rules look into 262144 at most"),
        (b"no", "the event is no JSON"),
        (b"null", "the event is null"),
    ],
    ids=["values", "levels", "levels of objects", "bytes", "no JSON", "null"],
)
def test_an_event_that_rules_do_not_look_into_has_no_fields_and_explaining_says_why(event, problem):
    arrival = make.arrived(make.envelope(payload=event.decode()))
    subject = Subject(arrival, Facts(), now=make.NOW)
    rules = load_rules(
        [
            SourceText(
                "r.yaml",
                HEAD
                + "  - {id: a, alert: {}, match: {payload: {a: 1}}}\n  - {id: b, alert: {}, when: has(payload.a)}\n",
            )
        ]
    )

    assert [step.clause.actual for step in trace(rules.rules, subject)] == [
        f"nothing: {problem}",
        f"false: payload nothing: {problem}",
    ]
    assert subject[PAYLOAD_PROBLEM] == problem


@pytest.mark.parametrize(
    "event", [b"[" + b"1," * (MAX_VALUES - 1) + b"1]", b"[" * 64 + b"]" * 64, b"{}", b"0", b'""'], ids=len
)
def test_an_event_within_the_bounds_is_looked_into(event):
    value, problem = read_payload(event)

    assert value is not None
    assert problem == ""


def test_how_deep_an_event_may_be_does_not_depend_on_who_asks():
    def deeper(levels: int) -> object:
        return deeper(levels - 1) if levels else parse_payload(b"[" * 200 + b"]" * 200)

    assert deeper(0) is deeper(800) is None


def test_what_an_error_says_does_not_depend_on_who_asks():
    raw = (
        hostile.BODIES["error of 990 levels with a surrogate"]
        .replace(b"[" * 980, b"[" * 300)
        .replace(b"]" * 980, b"]" * 300)
    )

    def deeper(levels: int) -> object:
        return deeper(levels - 1) if levels else parse_body(raw).error

    assert deeper(0) == deeper(600)


# --- message bodies ---------------------------------------------------------------------------------------------------


def read(raw: bytes) -> Arrival | InvalidEnvelope:
    try:
        return make.arrived(parse_body(raw))
    except InvalidEnvelope as error:
        return error


@pytest.mark.parametrize("raw", hostile.BODIES.values(), ids=hostile.BODIES)
def test_a_hostile_body_is_decided_or_refused_in_no_time(raw):
    with Took() as took:
        arrival = read(raw)
        if isinstance(arrival, InvalidEnvelope):
            assert arrival.reason in REASONS
            assert len(str(arrival)) < 1_000
        else:
            decision = decide(arrival, Facts(), SHIPPED, now=make.NOW)
            assert decided(arrival, decision).decision is decision
            trace(SHIPPED.rules, Subject(arrival, Facts(), now=make.NOW))
    assert took.seconds < 0.5


MEMORY = """
import resource, sys
sys.path[:0] = [{tests!r}]
import hostile, make
from triage.decide import decide
from triage.envelope import parse_body, MAX_BODY
from triage.errors import InvalidEnvelope, RulesInvalid
from triage.facts import Facts
from triage.subject import Subject
from triage.rules.model import SourceText
from triage.rules.source import load_rules
from triage.rules.expression import compile_expression

rules = load_rules([SourceText("r.yaml", {rules!r})])
grown = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + (400 << 20)
resource.setrlimit(resource.RLIMIT_AS, (grown, grown))
large = make.body("l")[:-1] + b', "x": [' + b"[]," * ((MAX_BODY - 1000) // 3) + b"1]}}"
assert len(large) < MAX_BODY
for raw in (*hostile.BODIES.values(), large, b"[" * MAX_BODY, b"\\0" * MAX_BODY, make.body("p", payload="[" + "[]," * 1_000_000 + "1]")):
    try:
        arrival = make.arrived(parse_body(raw))
    except InvalidEnvelope:
        continue
    decide(arrival, Facts(), rules, now=make.NOW)
for text in ("[" * (1 << 20), "a: &a [1,1,1,1]\\n" * 60_000, "? " * (1 << 19), "{{a: " * 200_000, "- " * 500_000, "'" + "x" * (1 << 20)):
    try:
        load_rules([SourceText("r.yaml", text)])
    except RulesInvalid:
        pass
print("alive", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are set and read the Linux way")
def test_memory_is_bounded_for_whatever_comes():
    rules = (
        HEAD
        + "  - {id: a, alert: {}, when: 'payload.x == payload.y || payload.l.all(a, has(a.x))', match: {payload: {a: 1}}}\n"
    )
    script = MEMORY.format(tests=str(Path(__file__).parent.parent), rules=rules)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)

    assert done.stdout.startswith("alive"), done.stderr[-2000:]


# --- what is printed --------------------------------------------------------------------------------------------------


def unsafe(text: str) -> set[str]:
    """Control and format characters, surrogates and what is no character: all but the ends of lines."""
    return {char for char in text if unicodedata.category(char)[0] == "C" or char in "\u2028\u2029"} - {"\n"}


def test_alerts_show_no_control_characters():
    labels = dict.fromkeys(
        ("function", "condition", "error_type", "error_message", "fingerprint", "rule", "owner", "runbook"),
        hostile.CONTROL,
    )
    for cause in Cause:
        sample = WaitingAlert(hostile.CONTROL, cause, hostile.CONTROL, make.NOW, 2)
        group = AlertGroup("k", ("default",), "warning", labels, make.ALERT.group_wait, make.ALERT.group_interval)
        view = GroupView(group, 0, 0, make.NOW, make.NOW, {cause: 1}, (sample,), 1)

        assert not unsafe(alert_title(view, "ab12cd"))
        assert "\n" not in alert_title(view, "ab12cd")
        assert not unsafe(alert_body(view))


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_shows_no_control_characters(form):
    out = io.StringIO()
    configure(LogSettings(format=form), stream=out)
    logging.getLogger("triage").warning("id %s", hostile.CONTROL + "\ud800", extra={"key": hostile.CONTROL})

    assert not unsafe(out.getvalue())
    assert out.getvalue().count("\n") == 1
    if form == "json":
        line = json.loads(out.getvalue())
        assert line["message"] == f"id {hostile.CONTROL}\ud800"
        assert line["key"] == hostile.CONTROL


def test_tables_and_json_show_no_control_characters(capsys):
    print_table(["id", "text"], [["1", hostile.CONTROL], [hostile.CONTROL, 2]])
    print_fields({"id": hostile.CONTROL})
    shown = capsys.readouterr().out
    assert not unsafe(shown)
    assert shown.count("\n") == 4

    print_json({"a": hostile.CONTROL, hostile.CONTROL: ["é漢"]})
    shown = capsys.readouterr().out
    assert not unsafe(shown)
    assert json.loads(shown) == {"a": hostile.CONTROL, hostile.CONTROL: ["é漢"]}
