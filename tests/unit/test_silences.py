"""What a silence looks at, how it is written, and what is said of it."""

from datetime import timedelta

import make
import pytest

from triage.alerts.silences import begin, kind_key, kind_labels, silencing
from triage.alerts.summaries import Moment, show_match, summary
from triage.changes import AlertGroup
from triage.rules.alertmatch import matches, read_match
from triage.rules.mistakes import Mistakes
from triage.silence import Silence
from triage.views import SilencedGroup, SilenceView

HOUR = timedelta(hours=1)
LABELS = {
    "function": "media/img-resize",
    "condition": "InvocationError",
    "error_type": "Timeout",
    "error_message": "after 60 s",
    "fingerprint": "ab12",
    "rule": "tell",
    "owner": "media",
    "runbook": "",
    "labels.team": "media",
}


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({"function": "img-*"}, True),
        ({"function": "media/img-*"}, True),
        ({"function": ["pay-*", "/resize$/"]}, True),
        ({"function": {"not": ["img-*"]}}, False),
        ({"condition": "InvocationError", "error_type": "Timeout"}, True),
        ({"condition": "InvocationError", "error_type": "Other"}, False),
        ({"fingerprint": "ab*"}, True),
        ({"rule": "tell", "owner": "media"}, True),
        ({"severity": "warning"}, True),
        ({"severity": {"not": "critical"}}, True),
        ({"receiver": "oncall"}, True),
        ({"receiver": "boss"}, False),
        ({"labels.team": "media"}, True),
        ({"labels.team": "other"}, False),
        ({"labels.unheard": ""}, True),
    ],
)
def test_all_that_is_written_must_hold(match, expected):
    assert matches(read_match(match), LABELS, severity="warning", receiver="oncall") is expected


@pytest.mark.parametrize(
    ("match", "message", "hint"),
    [
        ({}, "a silence for everything", "name a label at least, such as function, with the value *"),
        ({"functoin": "x"}, "an alert has no label 'functoin'", "did you mean 'function'?"),
        ({"error.type": "x"}, "an alert has no label 'error.type'", "write error_type"),
        ({"labels.": "x"}, "an alert has no label 'labels.'", "one of"),
        ({"severity": "sever"}, "expected info or warning or critical, not 'sever'", ""),
        ({"function": []}, "an empty list matches nothing", "leave the key out"),
        ({"function": "/(/"}, "not a regular expression of RE2", ""),
    ],
)
def test_what_cannot_be_used_is_said(match, message, hint):
    with pytest.raises(Mistakes) as caught:
        read_match(match)
    (mistake,) = caught.value.mistakes
    assert message in mistake.message
    assert mistake.hint.startswith(hint)


def test_alerts_are_of_one_kind_when_they_are_equal_in_what_silences_look_at():
    other = {**LABELS, "error_message": "after 61 s", "runbook": "https://wiki"}
    assert kind_labels(LABELS) == kind_labels(other)
    assert kind_key(LABELS) == kind_key(other)
    for name in kind_labels(LABELS):
        assert kind_key({**LABELS, name: "changed"}) != kind_key(LABELS), name


def silence(number=1, *, length=HOUR, **match):
    return Silence(number, match or {"function": "img-*"}, "ana", "a deploy", make.NOW, make.NOW + length)


def test_of_several_the_one_that_ends_last_counts_and_none_that_is_over():
    several = [silence(1, length=HOUR), silence(2, length=3 * HOUR), silence(3, length=3 * HOUR)]

    def found(now):
        return silencing(several, LABELS, severity="warning", receiver="oncall", now=now)

    assert found(make.NOW).id == 2
    assert found(make.NOW + 3 * HOUR) is None


def test_a_warning_comes_before_the_end_but_not_at_once():
    before = timedelta(minutes=15)
    assert begin(silence(), warn_before=before).due_at == make.NOW + HOUR - before
    assert begin(silence(length=2 * before), warn_before=before).due_at == make.NOW + 2 * before
    assert begin(silence(), warn_before=timedelta(0)).due_at == make.NOW + HOUR


@pytest.mark.parametrize(
    ("match", "written"),
    [
        ({"function": "img-*", "owner": "media"}, ["function=img-*", "owner=media"]),
        ({"function": ["a", "b"]}, ["function=a", "function=b"]),
        ({"severity": {"not": ["critical"]}}, ["severity!=critical"]),
        ({"function": {"any": ["a*"], "not": ["ab"]}}, ["function=a*", "function!=ab"]),
    ],
)
def test_it_is_shown_as_it_is_written(match, written):
    assert show_match(match) == written


def test_the_summary_counts_everything_and_names_the_largest_groups():
    groups = tuple(
        SilencedGroup(
            AlertGroup(f"g{n}", ("a", "b"), "critical" if n == 3 else "info", LABELS, HOUR, HOUR),
            receiver,
            n,
            make.NOW,
            make.NOW,
            healed=1,
        )
        for n in range(1, 31)
        for receiver in ("a", "b")
    )
    text = summary(SilenceView(silence(), groups), Moment.OVER, "a", code="abc123", how="expired")
    assert text.title == "[critical] silence 1 is over: 465 alerts of 30 groups not told #abc123"
    assert "Count: 465 not told; 30 of them have healed since" in text.body
    assert "  30 × media/img-resize: Timeout, last 2026-03-01 12:00:00 UTC, 1 healed, owner media" in text.body
    assert "  … and 55 of 10 more groups" in text.body
    assert summary(SilenceView(silence(), groups), Moment.OVER, "somebody else", code="x").body.count("×") == 20
    soon = summary(SilenceView(silence(), groups), Moment.SOON, "a", code="abc123")
    assert soon.title.startswith("[critical] silence 1 ends at 2026-03-01 13:00:00 UTC: 465 alerts of 30 groups")
    assert "triage silence add --match 'function=img-*' --for 2h --by … --reason …" in soon.body
