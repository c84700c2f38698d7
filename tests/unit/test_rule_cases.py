"""Cases of rules: how they are read, what passes, what a failed one says, what they cover."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from triage.envelope import Outcome
from triage.errors import RulesInvalid
from triage.rulefiles import default_rules_dir, read_cases, read_rules
from triage.rules import case_keys
from triage.rules.cases import load_cases
from triage.rules.model import SourceText
from triage.rules.source import load_rules
from triage.ruletest import coverage, run_cases

RULES = load_rules(
    [
        SourceText(
            "rules.yaml",
            """version: 1
defaults: {owner: media, runbook: "https://wiki.example/media"}
rules:
  - id: known
    match: {function: legacy, error: {type: KeyError}}
    ignore: fixed in the release of next week
  - id: throttled
    match: {condition: FunctionResourceExhausted}
    when: group.count < 100
    rerun: {after: 2m, backoff: {factor: 3, jitter: 0.5}, max_attempts: 3, qualifier: big}
    alert: {to: [oncall, chat], severity: critical}
  - id: loud
    match: {condition: FunctionServerError}
    rerun: {max_attempts: 1, quiet: false, budget: 25%}
  - id: audited
    match: {function: "pay-*"}
    continue: true
    alert: {to: audit, severity: info}
  - id: trial
    match: {function: "pay-*"}
    mode: shadow
    rerun: {max_attempts: 1}
  - id: payments
    match: {function: "pay-*"}
    hold: {reason: money may have moved, for: 2h}
    alert: {to: payments, on: held}
  - id: elsewhere
    mode: off
    alert: {}
""",
        )
    ]
)


def load(text, **files):
    return load_cases(
        [
            SourceText("a.test.yaml", "version: 1\ncases:\n" + text),
            *(SourceText(f"{name}.json", body) for name, body in files.items()),
        ]
    )


def run(case, rules=RULES):
    """The result of one case, written without its name."""
    (result,) = run_cases(rules, load("  - {name: it, " + case + "}\n"))
    return result


def differences(case):
    return [(each.what, each.expected, each.actual) for each in run(case).differences]


EXHAUSTED = "condition: FunctionResourceExhausted"


@pytest.mark.parametrize(
    "case",
    [
        "envelope: {function: legacy, error: {type: KeyError}}, expect: {rule: known, reason: matched, ignore: next week}",
        "envelope: {%s}, expect: {rule: throttled, rerun: {attempt: 1, after: 2m, qualifier: big}}",
        "envelope: {%s}, lineage: {attempt: 1, age: 10m}, expect: {rerun: {attempt: 2, after: 6m}}",
        "envelope: {%s}, lineage: {attempt: 3, age: 1h}, expect: {reason: attempts_exhausted, alert: {to: [chat, oncall], severity: critical, cause: exhausted}}",
        "envelope: {%s}, lineage: {attempt: 1, age: 6h}, expect: {reason: too_old, alert: {}}",
        "envelope: {%s}, group: {count: 100, age: 1h}, expect: {rule: null, reason: no_rule, alert: {to: default}}",
        "envelope: {condition: FunctionServerError}, expect: {rule: loud, rerun: {}, alert: {cause: failed}}",
        "envelope: {function: pay-out}, expect: {rule: payments, hold: money, shadow: [trial], alert: [{to: payments, cause: held}, {to: audit}]}",
        "envelope: {function: legacy}, expect: {rule: null, shadow: []}",
        "envelope: {function: img}, silences: [{function: 'x-*'}], expect: {alert: {to: default}}",
        "envelope: {function: img}, silences: [{function: 'i*', severity: warning}], expect: {alert: {to: default, silenced: [default]}}",
        "envelope: {%s}, lineage: {attempt: 3}, silences: [{receiver: chat}], expect: {alert: {to: [oncall, chat], silenced: [chat]}}",
        "envelope: {%s}, silences: [{function: '*'}], expect: {rerun: {attempt: 1}}",
        "envelope: {%s}, gates: {}, expect: {rerun: {attempt: 1}}",
        "envelope: {%s}, gates: {budget: {successes: 9}}, expect: {rerun: {waits: budget}}",
        "envelope: {%s}, gates: {budget: {successes: 10}}, expect: {rerun: {}}",
        "envelope: {%s}, gates: {budget: {floor: 1}}, expect: {rerun: {}}",
        "envelope: {condition: FunctionServerError}, gates: {budget: {successes: 4}}, expect: {rerun: {}, alert: {}}",
        "envelope: {%s}, gates: {breaker: open}, expect: {rerun: {waits: breaker}}",
        "envelope: {%s}, gates: {breaker: half_open}, expect: {rerun: {waits: breaker}}",
        "envelope: {function: img}, gates: {budget: {}, breaker: open}, expect: {alert: {}}",
        "envelope: {function: img}, labels: {team: media}, silences: [{labels.team: [media, web]}], expect: {alert: {silenced: [default]}}",
        "envelope: {outcome: succeeded}, expect: {rule: null, reason: succeeded, nothing: true}",
        "envelope: {outcome: succeeded}, lineage: {attempt: 1}, expect: {reason: healed, nothing: true}",
        "envelope: {outcome: succeeded_or_stopped}, lineage: {attempt: 1}, expect: {reason: ambiguous}",
        "envelope: {function: img, error: {type: ValueError, message: no such image}}, expect: {alert: {text: ['img failed: ValueError', no such image]}}",
    ],
)  # fmt: skip
def test_cases_that_pass(case):
    assert differences(case.replace("%s", EXHAUSTED)) == []


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("envelope: {%s}, expect: {rule: known}", [("rule", "known", "throttled")]),
        ("envelope: {%s}, expect: {rule: null}", [("rule", "none", "throttled")]),
        ("envelope: {function: a}, expect: {rule: known}", [("rule", "known", "none")]),
        ("envelope: {%s}, expect: {reason: too_old}", [("reason", "too_old", "matched")]),
        ("envelope: {%s}, expect: {rerun: {attempt: 2, after: 1m, qualifier: ''}}",
         [("rerun.attempt", "2", "1"), ("rerun.after", "1m", "2m"), ("rerun.qualifier", '""', "big")]),
        ("envelope: {%s}, gates: {budget: {}}, expect: {rerun: {}}", [("rerun.waits", "it goes", "budget")]),
        ("envelope: {%s}, expect: {rerun: {waits: breaker}}", [("rerun.waits", "breaker", "it goes")]),
        ("envelope: {%s}, expect: {nothing: true}", [("what is done", "nothing", "rerun")]),
        ("envelope: {%s}, expect: {ignore: x}", [("what is done", "ignore", "rerun")]),
        ("envelope: {%s}, expect: {rerun: {}, alert: {}}", [("what is done", "rerun + alert", "rerun")]),
        ("envelope: {condition: FunctionServerError}, expect: {rerun: {}}", [("what is done", "rerun", "rerun + alert")]),
        ("envelope: {function: legacy, error: {type: KeyError}}, expect: {ignore: never}",
         [("ignore", "never", "fixed in the release of next week")]),
        ("envelope: {function: a}, expect: {alert: {to: x, severity: info, cause: exhausted}}",
         [("alert.to", "x", "default"), ("alert.severity", "info", "warning"), ("alert.cause", "exhausted", "failed")]),
        ("envelope: {function: pay-out}, expect: {hold: forever, alert: [{}, {to: x}]}",
         [("alert[1].to", "x", "audit"), ("hold", "forever", "money may have moved")]),
        ("envelope: {function: pay-out}, expect: {hold: money, alert: {}}", [("what is done", "alert + hold", "2 alerts + hold")]),
        ("envelope: {function: img}, silences: [{function: img}], expect: {alert: {}}", [("alert.silenced", "none", "default")]),
        ("envelope: {function: img}, silences: [{rule: x}], expect: {alert: {silenced: [default]}}", [("alert.silenced", "default", "none")]),
        ("envelope: {function: pay-out}, expect: {shadow: []}", [("shadow", "none", "trial")]),
    ],
)  # fmt: skip
def test_what_differs_is_told(case, expected):
    assert differences(case.replace("%s", EXHAUSTED)) == expected


def test_a_text_that_is_missing_is_told_with_the_whole_text():
    ((what, expected, actual),) = differences("envelope: {function: img}, expect: {alert: {text: nobody says this}}")

    assert (what, expected) == ("alert.text", "nobody says this")
    assert actual.startswith("img failed")
    assert "Look: triage failures show 1-case" in actual


def test_the_text_is_that_of_the_rule_s_own_template():
    files = {
        "rules.yaml": """version: 1
rules:
  - {id: own, match: {function: img}, alert: {template: short}}
  - {id: inline, match: {function: pay}, alert: {template: "{{ function }} has no money"}}
  - {id: usual, alert: {}}
""",
        "short.txt.j2": "{{ function }} is down\n",
    }
    rules = load_rules([SourceText(name, text) for name, text in files.items()])
    expected = {"img": "img is down", "pay": "pay has no money", "web": "Look: triage failures show 1-case"}

    for function, text in expected.items():
        asked = f"envelope: {{function: {function}}}, expect: {{alert: {{text: nobody says this}}}}"
        actual = run(asked, rules).differences[0].actual
        assert text in actual
        assert ("Look" in actual) == (function == "web")


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("envelope: {function: a}, expect: {rule: known}", "known: function: legacy does not hold for 'a'"),
        ("envelope: {%s}, group: {count: 100}, expect: {rule: throttled}", "throttled: when: group.count < 100: false: group.count 100"),
        ("envelope: {function: legacy, error: {type: KeyError}}, expect: {rule: throttled}", "throttled is not asked: known decides before it"),
        ("envelope: {outcome: succeeded}, expect: {rule: known}", "known is asked about failures only"),
        ("envelope: {function: a}, expect: {rule: knwon}", "there is no rule 'knwon'; did you mean 'known'?"),
        ("envelope: {function: pay-a}, expect: {rule: trial}", "trial matches, in shadow mode"),
        ("envelope: {function: a}, expect: {rule: elsewhere}", "elsewhere: mode: off"),
        ("envelope: {function: a}, expect: {reason: matched}", ""),
    ],
)  # fmt: skip
def test_why_another_rule_decides(case, why):
    assert run(case.replace("%s", EXHAUSTED)).why == why


def test_a_message_may_be_written_as_it_is_sent_inline_or_in_a_file():
    body = Path(__file__).parents[1].joinpath("data", "samples", "01_fc3_timeout.json").read_text().replace("****", "")
    inline = "  - {name: inline, message: {requestContext: {requestId: r1, functionArn: 'acs:fc:::functions/f'}}, destination: failure, expect: {}}\n"

    first, second = load(inline + "  - {name: file, file: timeout.json, expect: {}}\n", timeout=body)

    assert (first.arrival.envelope.function.name, first.arrival.envelope.outcome) == ("f", Outcome.FAILED)
    assert second.arrival.envelope.body == body.strip().encode()
    assert second.arrival.envelope.error.message.startswith("Function timed out after 60 seconds")


def test_an_envelope_in_few_words_becomes_a_message():
    (case,) = load(
        "  - name: it\n    envelope: {function: media/img, qualifier: 3, region: cn-hangzhou, account: 1034, condition: C, function_error: E,"
        " error: {type: T, message: m}, invoke_count: 4, status_code: 500, payload: {a: [1]}, request_id: r9}\n"
        "    source: smq\n    now: 2026-01-05T09:00:00+08:00\n    expect: {}\n"
    )
    envelope = case.arrival.envelope

    assert (envelope.function.label, envelope.function.qualifier) == ("media/img", "3")
    assert (envelope.function.region, envelope.function.account) == ("cn-hangzhou", "1034")
    assert (envelope.condition, envelope.function_error, envelope.error.type, envelope.error.message) == (
        "C",
        "E",
        "T",
        "m",
    )
    assert (envelope.invoke_count, envelope.status_code, envelope.request_id) == (4, 500, "r9")
    assert envelope.request_payload == b'{"a": [1]}'
    assert (case.arrival.source, case.now) == ("smq", datetime(2026, 1, 5, 1, tzinfo=UTC))
    assert case.place.line == 3


def test_a_case_that_says_nothing_is_a_failure_that_says_nothing():
    (case,) = load("  - {name: it, envelope: {}, expect: {}}\n")
    envelope = case.arrival.envelope

    assert (envelope.outcome, envelope.status_code, envelope.invoke_count) == (Outcome.FAILED, 200, None)
    assert (envelope.condition, envelope.function_error, envelope.error.type, envelope.error.message) == ("",) * 4
    assert case.now.weekday() == 0
    assert (case.facts.lineage, case.facts.group) == (None, None)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("{envelope: {}, expect: {}}", "3:5: the key 'name' is missing"),
        ("{name: a, envelope: {}}", "3:5: the key 'expect' is missing"),
        ("{name: a, expect: {}}", "3:5: no message (a case has one of envelope, message, file)"),
        ("{name: a, envelope: {}, message: {}, expect: {}}", "3:5: envelope and message together"),
        ("{name: a, envelope: {functon: x}, expect: {}}", "3:26: unknown key 'functon' (did you mean 'function'?)"),
        ("{name: a, envelope: {function: a:b:c}, expect: {}}", "3:25: no message that can be read: bad_arn"),
        (
            "{name: a, message: {requestContext: {requestId: r}}, expect: {}}",
            "3:24: no message that can be read: schema",
        ),
        ("{name: a, file: elsewhere, expect: {}}", "3:21: no file 'elsewhere' (one of body.json)"),
        ("{name: a, file: boddy.json, expect: {}}", "3:21: no file 'boddy.json' (did you mean 'body.json'?)"),
        ("{name: a, envelope: {}, now: tomorrow, expect: {}}", "3:34: expected a date and time, not 'tomorrow'"),
        ("{name: a, envelope: {}, now: 2026-01-05T09:00:00, expect: {}}", "3:34: the time does not say its zone"),
        ("{name: a, envelope: {}, silences: [{}], expect: {}}", "3:40: a silence for everything (name a label"),
        (
            "{name: a, envelope: {}, silences: [{rule: a}, {functon: b}], expect: {}}",
            "3:52: an alert has no label 'functon' (did you mean 'function'?)",
        ),
        ("{name: a, envelope: {}, silences: [3], expect: {}}", "3:40: expected a mapping, not the number 3"),
        ("{name: a, envelope: {}, lineage: {age: 1h}, expect: {}}", "3:38: the key 'attempt' is missing"),
        ("{name: a, envelope: {}, expect: {rule: a b}}", "3:44: 'a b' is no name"),
        ("{name: a, envelope: {}, expect: {alert: {severity: bad}}}", "3:56: expected info or warning or critical"),
        ("{name: a, envelope: {}, expect: {alert: [{}, 3]}}", "3:50: expected a mapping, not the number 3"),
        ("{name: a, envelope: {}, expect: {rerun: {after: 5}}}", "3:53: the number 5 has no unit"),
        ("{name: a, envelope: {}, expect: {nothing: true, hold: x}}", "3:38: nothing, and yet hold"),
        ("3", "3:5: expected a mapping, not the number 3"),
    ],
)
def test_mistakes_are_told_with_their_place(case, message):
    with pytest.raises(RulesInvalid) as caught:
        load(f"  - {case}\n", body="{}")

    assert str(caught.value).startswith(f"a.test.yaml:{message}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version: 1\n",
        "cases: []\n",
        "version: 2\ncases: [{name: a, envelope: {}, expect: {}}]\n",
        "- a\n",
        "[\n",
        "version: 1\ncases: []\n",
    ],
)
def test_what_is_no_case_file_is_told(text):
    with pytest.raises(RulesInvalid):
        load_cases([SourceText("a.test.yaml", text)])


def test_every_problem_of_all_files_is_told():
    with pytest.raises(RulesInvalid) as caught:
        load_cases([SourceText("b.test.yaml", "version: 1\n"), SourceText("a.test.yml", "cases: 3\n")])

    assert [each.file for each in caught.value.problems] == ["a.test.yml", "a.test.yml", "b.test.yaml"]


def test_coverage_counts_what_is_asked_as_it_is_asked():
    cases = load(
        "  - {name: a, envelope: {function: legacy, error: {type: KeyError}}, expect: {}}\n"
        "  - {name: b, envelope: {function: legacy, condition: FunctionResourceExhausted}, expect: {}}\n"
    )
    covered = coverage(RULES, cases)
    missing = {(each.rule.id, each.clause, each.what) for each in covered.uncovered}

    assert covered.total == 5 + 5 + 3 + 3 + 3 + 3, "`elsewhere` is off"
    assert {each for each in missing if each[0] == "known"} == {
        ("known", "function: legacy", "no case in which this does not hold")
    }
    assert {each[1:] for each in missing if each[0] == "throttled"} == {
        ("condition: FunctionResourceExhausted", "no case in which this does not hold"),
        ("when: group.count < 100", "no case in which this does not hold"),
    }
    assert ("payments", "", "no case in which it matches") in missing
    assert ("payments", "function: pay-*", "no case in which this holds") in missing


def test_the_shipped_rules_are_covered_by_their_cases():
    rules, cases = load_rules(read_rules(default_rules_dir())), load_cases(read_cases(default_rules_dir()))

    assert [result for result in run_cases(rules, cases) if not result.passed] == []
    assert coverage(rules, cases).uncovered == ()


@pytest.mark.parametrize(
    "find",
    ["FunctionResourceExhausted", "max_attempts: 5", "after: 2m", "factor: 2", '">= 500"', "429", 'function_error: ""', "InternalServerError", "give_up_after: 6h", "severity: critical",
     "timed out after", "Process exited unexpectedly", "(?i)", r"\boom\b", "MemoryError", '"*.OutOfMemoryError"', "to: default", "owner: platform", "owner: on-call"],
)  # fmt: skip
def test_the_shipped_cases_notice_when_a_shipped_rule_changes(find):
    """Each is replaced where it first stands in a rule; a case has to fail."""
    changed = {"429": "428", "factor: 2": "factor: 3", "max_attempts: 5": "max_attempts: 6", "after: 2m": "after: 3m", '">= 500"': '">= 600"',
               'function_error: ""': 'function_error: "*"', "give_up_after: 6h": "give_up_after: 9h", "severity: critical": "severity: info", "(?i)": "", r"\boom\b": "oom",
               "to: default": "to: nobody", '"*.OutOfMemoryError"': "Other", "owner: platform": "owner: nobody", "owner: on-call": "owner: nobody"}  # fmt: skip
    sources = read_rules(default_rules_dir())
    texts = []
    done = False
    for source in sources:
        lines = source.text.split("\n")
        for number, line in enumerate(lines):
            if not done and find in line and not line.lstrip().startswith("#"):
                lines[number] = line.replace(find, changed.get(find, "Other"), 1)
                done = True
        texts.append(SourceText(source.name, "\n".join(lines)))
    assert done

    results = run_cases(load_rules(texts), load_cases(read_cases(default_rules_dir())))

    assert not all(result.passed for result in results)


PAGE = Path(__file__).parents[2].joinpath("docs", "reference", "rule-cases.md").read_text(encoding="utf-8")
TABLES = {
    "A file": case_keys.FILE,
    "A case": case_keys.CASE,
    "envelope": case_keys.ENVELOPE,
    "gates": {**case_keys.GATES, **case_keys.BUDGET},
    "lineage and group": {**case_keys.LINEAGE, **case_keys.GROUP},
    "expect": {**case_keys.EXPECT, **case_keys.RERUN, **case_keys.ALERT},
}


@pytest.mark.parametrize("section", TABLES)
def test_every_key_is_on_the_page_and_no_other(section):
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}

    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert set(TABLES[section]) <= set(re.findall(r"`([^`]+)`", prose))
    assert named <= set(TABLES[section])


@pytest.mark.parametrize("example", re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
def test_every_example_on_the_page_loads(example):
    assert load_cases([SourceText("a.test.yaml", example)])


def test_the_default_time_is_on_the_page():
    at = datetime.fromisoformat(case_keys.NOW)
    assert f"{at:%H:%M} UTC on {at:%A}, {at.day} {at:%B %Y}" in PAGE
    assert at.utcoffset() == timedelta(0)
