"""What a mistake in a rule file looks like: where it is said to be, and what is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.errors import RulesInvalid
from triage.rules.model import SourceText
from triage.rules.source import load_rules

HEAD = "version: 1\nrules:\n"
RULE = HEAD + "  - id: a\n"
RERUN = RULE + "    rerun:\n      max_attempts: 3\n"


def problems(text, *, name="r.yaml"):
    with pytest.raises(RulesInvalid) as caught:
        load_rules([SourceText(name, text)])
    return caught.value.problems


# Each: the file, then "line:column: message" of every problem in it.
TABLE = {
    "misspelt key": (RULE + "    wehn: fn == 'x'\n    alert: {}\n", ["4:5: unknown key 'wehn' (did you mean 'when'?)"]),
    "no action": (RULE, ["3:5: the rule does nothing (add ignore, rerun, hold or alert)"]),
    "two kinds of action": (
        RULE + "    ignore: known\n    alert: {}\n",
        ["5:5: a rule that ignores cannot alert, too"],
    ),
    "ignore and go on": (
        RULE + "    ignore: known\n    continue: true\n",
        ["5:5: a rule that ignores cannot continue (it ends the search)"],
    ),
    "budget as a number": (
        RULE + "    rerun: {max_attempts: 1, budget: 0.2}\n",
        ["4:38: the number 0.2 is no share (write 20% for a fifth)"],
    ),
    "budget of nothing": (
        RULE + "    rerun: {max_attempts: 1, budget: 0%}\n",
        ["4:38: 0% is not within 0.01% and 100%"],
    ),
    "budget that is no share": (
        RULE + "    rerun: {max_attempts: 1, budget: all}\n",
        ["4:38: expected a share, not 'all' (such as 20%)"],
    ),
    "held without hold": (
        RERUN + "    alert: {on: [held]}\n",
        ["6:17: without hold nothing is held (take `held` out)"],
    ),
    "hold and failed": (
        RULE + "    hold: why\n    alert: {on: [failed]}\n",
        ["5:17: what is held is told as `held` (take `failed` out)"],
    ),
    "hold without a reason": (
        RULE + "    hold: {for: 2h, fro: 3h}\n",
        [
            "4:11: the key 'reason' is missing (what the person has to decide)",
            "4:21: unknown key 'fro' (did you mean 'for'?)",
        ],
    ),
    "hold for no time": (
        RULE + "    hold: {reason: x, for: 0s}\n",
        ["4:28: expected more than nothing (such as 90s, 5m, 2h, 1d)"],
    ),
    "no such day": (RULE + "    alert: {}\n    expires: 2026-02-30\n", ["5:14: there is no day 2026-02-30"]),
    "no date": (
        RULE + "    alert: {}\n    review_by: tomorrow\n",
        ["5:16: expected a date, not 'tomorrow' (such as 2026-03-31)"],
    ),
    "misspelt mode": (
        RULE + "    alert: {}\n    mode: shadwo\n",
        ["5:11: expected live or shadow or off, not 'shadwo' (did you mean 'shadow'?)"],
    ),
    "ignore without a reason": (RULE + "    ignore: ''\n", ["4:13: expected a text, not an empty one"]),
    "alert without a value": (RULE + "    alert:\n", ["4:11: expected a mapping, not nothing"]),
    "misspelt cause": (
        RERUN + "    alert: {on: [exhausted, faled]}\n",
        [
            "6:29: expected failed or exhausted or refused or unknown or overdue or held, not 'faled' (did you mean 'failed'?)"
        ],
    ),
    "misspelt severity": (
        RULE + "    alert:\n      severity: critcal\n",
        ["5:17: expected info or warning or critical, not 'critcal' (did you mean 'critical'?)"],
    ),
    "severity of another type": (
        RULE + "    alert: {severity: [warning]}\n",
        ["4:23: expected info or warning or critical, not a list"],
    ),
    "a cause that needs rerun": (
        RULE + "    alert: {on: exhausted}\n",
        ["4:17: without rerun there is nothing to tell but that it failed (leave `on` out)"],
    ),
    "nobody is told of anything": (
        RERUN + "    alert: {on: []}\n",
        ["6:17: an empty list would tell nobody of anything (leave the key out for its default)"],
    ),
    "unknown grouping label": (
        RULE + "    alert: {group_by: fuction}\n",
        [
            "4:23: expected function or region or account or condition or error_type or error_message or fingerprint or rule or owner or labels.NAME, not 'fuction' (did you mean 'function'?)"
        ],
    ),
    "a cause without its rule": (
        RULE + "    alert: {inhibited_by: [db, {equal: regoin}]}\n",
        [
            "4:32: the key 'rule' is missing (the rule whose groups are the cause)",
            "4:40: expected function or region or account or condition or error_type or error_message or fingerprint or rule or owner or labels.NAME, not 'regoin' (did you mean 'region'?)",
        ],
    ),
    "quiet and loud at once": (
        RERUN + "      quiet: true\n    alert: {on: failed}\n",
        ["7:17: a quiet re-run does not tell that the task failed (write quiet: false, or take `failed` out)"],
    ),
    "re-run without end": (
        RULE + "    rerun: {after: 5m}\n",
        ["4:12: the key 'max_attempts' is missing (Re-runs of one failure in all, 1 to 100, whoever asked for them. There is no unlimited re-run.)"],
    ),
    "too many attempts": (
        RULE + "    rerun: {max_attempts: 101}\n",
        ["4:27: expected a whole number from 1 to 100, not the number 101"],
    ),
    "attempts as text": (
        RULE + "    rerun: {max_attempts: '3'}\n",
        ["4:27: expected a whole number from 1 to 100, not '3'"],
    ),
    "attempts as truth": (
        RULE + "    rerun: {max_attempts: true}\n",
        ["4:27: expected a whole number from 1 to 100, not true"],
    ),
    "duration without a unit": (
        RERUN + "      after: 5\n",
        ["6:14: the number 5 has no unit (write 5s, 5m, 5h or 5d)"],
    ),
    "duration in words": (
        RERUN + "      after: 5 minutes\n",
        ["6:14: expected a duration, not '5 minutes' (such as 90s, 5m, 2h, 1d or 1h30m)"],
    ),
    "longer than a year": (RERUN + "      after: 367d\n", ["6:14: 367d is longer than 366 days"]),
    "a number that is none": (
        RERUN + "      backoff: {factor: .nan, jitter: .inf}\n",
        [
            "6:25: expected a number from 1 to 10, not '.nan'",
            "6:39: expected a number from 0 to 1, not '.inf'",
        ],
    ),
    "never a first re-run": (
        RERUN + "      after: 8h\n",
        ["6:14: the first re-run would come later than give_up_after: there would never be one (its default is 6h)"],
    ),
    "runbook with a script": (
        RULE + "    runbook: javascript:alert(1)\n    alert: {}\n",
        ["4:14: 'javascript:alert(1)' is no web address (it starts with https:// or http://)"],
    ),
    "label that is a mapping": (
        RULE + "    labels: {a: 1, b: {}}\n    alert: {}\n",
        ["4:23: expected a text, not a mapping (put quotes around it)"],
    ),
    "unknown field in match": (
        RULE + "    match: {functon: x}\n    alert: {}\n",
        ["4:13: unknown key 'functon' in match (did you mean 'function'?)"],
    ),
    "outcome in match": (
        RULE + "    match: {outcome: sucseeded}\n    alert: {}\n",
        ["4:22: expected failed or succeeded or succeeded_or_stopped, not 'sucseeded' (did you mean 'succeeded'?)"],
    ),
    "bad pattern in a list": (
        RULE + "    match:\n      condition: [ok, '/(/', 3.5]\n    alert: {}\n",
        [
            "5:23: not a regular expression of RE2: missing ): (",
            "5:30: expected a text, not the number 3.5 (put quotes around it)",
        ],
    ),
    "look-ahead": (
        RULE + "    match: {error: {message: '/a(?=b)/'}}\n    alert: {}\n",
        ["4:30: not a regular expression of RE2: invalid perl operator: (?= (RE2 has no look-ahead and no look-behind)"],
    ),
    "count that is none": (
        RULE + "    match: {status_code: [429, 5xx]}\n    alert: {}\n",
        ["4:32: expected a whole number or a comparison, not '5xx' (such as 429 or \">= 500\")"],
    ),
    "matches nothing": (
        RULE + "    match: {condition: []}\n    alert: {}\n",
        ["4:24: an empty list matches nothing (leave the key out to match everything)"],
    ),
    "unknown operator": (
        RULE + "    match: {payload: {a.b: {nto: 1}}}\n    alert: {}\n",
        ["4:29: unknown key 'nto' (a mapping here holds not, any or all)"],
    ),
    "same id twice": (
        RULE + "    alert: {}\n  - id: a\n    ignore: x\n",
        ["5:9: a second rule 'a' (the first is in r.yaml:3)"],
    ),
    "same key twice": (
        RULE + "    alert: {}\n    alert: {to: x}\n",
        ["5:5: the key 'alert' stands here twice (first in line 4)"],
    ),
    "merge key": (
        "version: 1\ndefaults: &d {owner: x}\nrules:\n  - <<: *d\n    id: a\n    alert: {}\n",
        ["4:5: unknown key '<<' (merge keys are not supported; what rules have in common belongs under defaults)"],
    ),
    "id that is no name": (HEAD + "  - id: a b\n    alert: {}\n", [
        "3:9: 'a b' is no name (letters, digits, '_', '-' and '.', at most 100)"]),
    "rule that is a text": (HEAD + "  - abc\n", ["3:5: expected a mapping, not 'abc'"]),
    "rules as a mapping": ("version: 1\nrules: {id: a}\n", [
        "2:8: expected a list of rules, not a mapping (each begins with - id: ...)"]),
    "another version": ("version: 2\nrules: []\n", [
        "1:10: expected 1, not the number 2 (this program reads version 1 of the format)"]),
    "nothing in the file": ("# later\n", [
        "1:1: expected a mapping, not nothing (a rule file begins with version: 1, then rules:)"]),
    "the keys of a file": ("{}", [
        "1:1: the key 'version' is missing (Version of this format: 1.)",
        "1:1: the key 'rules' is missing (The rules; the first that matches decides. Needed unless the file defines something.)"]),
    "YAML that does not end": ("version: 1\nrules: [\n", [
        "3:1: not valid YAML: did not find expected node content while parsing a flow node, which begins in line 3 (a bracket that was opened is not closed)"]),
    "a bracket that is not closed": ("version: 1\nrules:\n  - {id: a, match: {function: b}\n    alert: {}\n", [
        "4:5: not valid YAML: did not find expected ',' or '}' while parsing a flow mapping, which begins in line 3 (a bracket that was opened is not closed, or a quote inside of quotes is not written twice)"]),
    "a quote inside of quotes": ("version: 1\nrules:\n  - {id: a, ignore: 'it's known'}\n", [
        "3:25: not valid YAML: did not find expected ',' or '}' while parsing a flow mapping, which begins in line 3 (a bracket that was opened is not closed, or a quote inside of quotes is not written twice)"]),
    "a colon in a text": ("version: 1\nrules:\n  - id: a\n    ignore: known: it is old\n", [
        "4:18: not valid YAML: mapping values are not allowed in this context (a text with a colon and a blank in it needs quotes; or the indentation is wrong)"]),
    "a tab": ("version: 1\n\trules: []\n", [
        "2:1: not valid YAML: found a tab character that violates indentation while scanning a plain scalar (indent with blanks)"]),
    "second document": ("version: 1\nrules: []\n---\nrules: []\n", [
        "3:1: a second document; a rule file holds one"]),
    "a Python object": ("version: 1\nrules: !!python/object/apply:os.getcwd []\n", [
        "2:8: the tag 'tag:yaml.org,2002:python/object/apply:os.getcwd' is not supported (leave it out)"]),
    "key that is a list": ("? [a]\n: 1\n", ["1:3: a key must be a text"]),
    "alias of nothing": ("version: *v\n", ["1:10: the alias *v stands for nothing defined before it"]),
    "alias inside itself": ("version: 1\nrules: &r [*r]\n", ["2:12: the alias *r stands for nothing defined before it"]),
    "control character": ("version: 1\nrules: [] # \x1b[2J\n", ["2:13: the character U+001B is not allowed in YAML"]),
    "lone surrogate": ("version: \ud800\n", ["1:10: the character U+D800 is not allowed in YAML"]),
    # Expressions: the place is inside the text, whichever way it is written.
    "unknown name": (RULE + "    when: fn == 'x' && servce == 'y'\n    alert: {}\n", [
        "4:24: unknown name 'servce' (did you mean 'service'?)"]),
    "wrong type": (RULE + "    when: 'fn == ''x'' && lineage.attempt == \"3\"'\n    alert: {}\n", [
        "4:43: == does not take (int, string)"]),
    "in double quotes": (RULE + '    when: "fn == \\"\\u0041\\"\\n || status == 1"\n    alert: {}\n', [
        "4:34: unknown name 'status' (did you mean 'status_code'?)"]),
    "in a folded block": (RULE + "    when: >- # why\n        fn == 'é😀'\n        || status == 1\n    alert: {}\n", [
        "6:12: unknown name 'status' (did you mean 'status_code'?)"]),
    "in a literal block": (RULE + "    when: &w |\n      fn == 'x'\n        && and\n    alert: {}\n", [
        "6:12: unknown name 'and' (write &&)"]),
    "on several plain lines": (RULE + "    when: fn == 'x'\n\n      && status == 1\n    alert: {}\n", [
        "6:10: unknown name 'status' (did you mean 'status_code'?)"]),
    "with Windows line ends": (RULE.replace("\n", "\r\n") + "    when: >\r\n      true &&\r\n      x\r\n    alert: {}\r\n", [
        "6:7: unknown name 'x'"]),
    "and is written &&": (RULE + "    when: status_code == 1 and fn == 'x'\n    alert: {}\n", [
        "4:28: mismatched input 'and' (write &&)"]),
    "function is reserved": (RULE + "    when: function == 'x'\n    alert: {}\n", [
        "4:11: reserved identifier: function (the function's name is called fn here, because CEL reserves that word)"]),
    "matches is not offered": (RULE + "    when: fn.matches('a')\n    alert: {}\n", [
        "4:21: unknown name 'matches' (write .rx(\"...\"))"]),
    "bad pattern in an expression": (RULE + "    when: fn == 'x' || fn.rx('(a')\n    alert: {}\n", [
        "4:30: not a regular expression of RE2: missing ): (a"]),
    "pattern from outside": (RULE + "    when: fn.rx(payload.pattern)\n    alert: {}\n", [
        "4:16: .rx takes a pattern in quotes, not a computed one"]),
    "no truth value": (RULE + "    when: fn\n    alert: {}\n", [
        "4:11: the expression gives STRING, not true or false (compare it with something)"]),
    "ends too early": (RULE + "    when: fn ==\n    alert: {}\n", ["4:16: the expression ends too early"]),
    "expression under an alias": (
        'version: 1\ndefaults: {owner: &w "fnn == 1"}\nrules:\n  - id: a\n    when: *w\n    alert: {}\n',
        ["5:11: unknown name 'fnn' (did you mean 'fn'?)"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), TABLE.values(), ids=TABLE)
def test_a_mistake_is_told_with_its_place(text, expected):
    found = problems(text)

    told = [f"{each.line}:{each.column}: {each.message}" + (f" ({each.hint})" if each.hint else "") for each in found]
    assert told == expected
    assert {each.file for each in found} == {"r.yaml"}


def test_all_problems_of_all_files_are_told_at_once_in_order():
    with pytest.raises(RulesInvalid) as caught:
        load_rules([
            SourceText("b.yaml", RULE + "    alert: {to: 3.5, sevrity: info}\n"),
            SourceText("a.yaml", RULE + "    alert: {}\n    ower: x\n"),
            SourceText("c.yaml", "version: [\n"),
        ])  # fmt: skip

    assert [f"{each.file}:{each.line}:{each.column}" for each in caught.value.problems] == [
        "a.yaml:5:5",
        "b.yaml:3:9",  # the id is taken
        "b.yaml:4:17",
        "b.yaml:4:22",
        "c.yaml:2:1",
    ]


def test_a_problem_shows_its_line_with_a_caret():
    text = RULE + "    alert: {severity: critcal}\n"

    assert str(problems(text)[0]).splitlines()[1:] == [
        "        alert: {severity: critcal}",
        "                          ^",
    ]


def test_a_very_long_line_is_not_shown_whole():
    (problem,) = problems(RULE + "    alert: {severity: " + "x" * 64_000 + "}\n")

    assert len(str(problem)) < 500


@given(st.text() | st.text(st.sampled_from("ab:-[]{}&*!|>'\"#%@ \n\t?,1.~<=")))
def test_any_text_loads_or_is_refused_with_reasons(text):
    for source in (text, RULE + "    when: " + text, RULE + "    match: {function: " + text + "}\n    alert: {}"):
        found = ()
        try:
            load_rules([SourceText("r.yaml", source)])
        except RulesInvalid as error:
            found = error.problems
        assert all(each.message and each.line >= 1 and each.column >= 1 for each in found)
