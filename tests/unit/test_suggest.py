"""A rule and its case out of real failures."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import ARN, NOW, arrived, envelope

from triage.backtest.suggest import suggest
from triage.decide import decide
from triage.facts import Facts
from triage.rules.cases import load_cases
from triage.rules.model import SourceText
from triage.rules.source import load_rules
from triage.ruletest import run_cases
from triage.stores import FailureRow


def failed(
    message: str,
    *,
    function: str = "img-resize",
    condition: str = "InvocationError",
    kind: str = "",
    state: str = "alerted",
) -> FailureRow:
    return FailureRow(
        request_id="r", received_at=NOW, function=function, condition=condition, outcome="failed",
        error_type=kind or condition, error_message=message, fingerprint="v1-0123456789abcdef", reason="matched",
        rule_id="everything-else", state=state, root=f"root of {message}", attempt=0,
    )  # fmt: skip


def made(*failures: FailureRow, taken: tuple[str, ...] = ()):
    """The suggestion, and its rule, after its own case has passed."""
    suggestion = suggest(failures, taken=taken)
    rules = load_rules([SourceText("00.yaml", suggestion.rules)])
    results = run_cases(rules, load_cases([SourceText("00.test.yaml", suggestion.cases)]))
    assert [result.differences for result in results] == [()], suggestion
    return suggestion, rules


@pytest.mark.parametrize(
    ("failures", "clauses"),
    [
        ([failed("Function timed out after 60 seconds"), failed("Function timed out after 7 seconds")],
         ["function: img-resize", "condition: InvocationError", "error.message: Function timed out after"]),
        ([failed("row 17: amount is not a number", kind="ValueError")],
         ["function: img-resize", "condition: InvocationError", "error.type: ValueError",
          "error.message: amount is not a number"]),
        ([failed("'order-99'", kind="KeyError")],
         ["function: img-resize", "condition: InvocationError", "error.type: KeyError", "error.message: order"]),
        ([failed("", condition="FunctionServerError")], ["function: img-resize", "condition: FunctionServerError"]),
        ([failed("0x1f2e 17", function="media/transcode", condition="")], ["function: media/transcode"]),
        ([failed("first thing"), failed("other thing")], ["function: img-resize", "condition: InvocationError"]),
        ([failed("/usr/bin/tool: not found", kind="A*")],
         ["function: img-resize", "condition: InvocationError", "error.message: not found"]),
    ],
    ids=["two", "type", "quotes", "no message", "service", "nothing in common", "pattern"],
)  # fmt: skip
def test_the_rule_matches_what_the_failures_have_in_common(failures, clauses):
    _, rules = made(*failures)
    assert [matcher.clause for matcher in rules.rules[0].match] == clauses


def test_a_failure_that_says_nothing_leaves_the_match_open_and_says_so():
    suggestion = suggest([failed("", function="a*", condition="")], taken=())
    assert "nothing in common that a rule can match" in suggestion.rules


def test_what_healed_by_running_again_is_run_again():
    healed, alerted = failed("timed out", state="healed"), failed("timed out again", state="alerted")
    suggestion, rules = made(healed, alerted)
    assert "1 of 2 were healed by running them again" in suggestion.rules
    assert rules.rules[0].rerun.max_attempts == 3
    assert made(alerted, replace(alerted, root="other"), healed)[1].rules[0].rerun is None


def test_the_id_tells_what_it_is_and_is_free():
    assert suggest([failed("Function timed out")], taken=()).rule_id == "img-resize-function-timed-out"
    again = suggest([failed("Function timed out")], taken=("img-resize-function-timed-out",))
    assert again.rule_id == "img-resize-function-timed-out-2"
    assert suggest([failed("", function="函数", condition="")], taken=()).rule_id == "failed"


def test_the_head_says_where_it_comes_from():
    newest = failed("timed out")
    suggestion = suggest([newest, replace(newest, received_at=NOW - timedelta(hours=1), state="held")], taken=())
    assert suggestion.rules.splitlines()[:2] == [
        "# From 2 of group v1-0123456789abcdef, 2026-03-01 11:00 to 2026-03-01 12:00 UTC:",
        "# 1 alerted, 1 held. Decided by everything-else.",
    ]


@given(
    st.lists(st.text(max_size=60), min_size=1, max_size=4),
    st.from_regex(r"[^/:\s\ud800-\udfff]{1,20}", fullmatch=True).filter(str.isprintable),
    st.text(max_size=20).filter(lambda text: text == text.encode("utf-8", "replace").decode()),
    st.text(max_size=20),
)
def test_whatever_the_texts_the_draft_is_valid_and_takes_the_failures(messages, function, condition, kind):
    messages = [message.encode("utf-8", "replace").decode() for message in messages]
    kind = kind.encode("utf-8", "replace").decode()
    failures = [failed(text, function=function, condition=condition, kind=kind) for text in messages]
    suggestion = suggest(failures, taken=())
    rules = load_rules([SourceText("00.yaml", suggestion.rules)])
    load_cases([SourceText("00.test.yaml", suggestion.cases)])
    assert suggestion.rules.replace("\n", "").isprintable()
    for message in messages:
        came = arrived(
            envelope(
                arn=ARN.replace("my-fc-job", function),
                condition=condition,
                status=500,
                responsePayload=None,
                error=message,
            )
        )
        came = replace(
            came,
            envelope=replace(
                came.envelope, error=replace(came.envelope.error, type=kind or condition, message=message)
            ),
        )
        assert decide(came, Facts(), rules, now=NOW).rule is not None
