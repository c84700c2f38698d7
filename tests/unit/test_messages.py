"""What a message says, in each of its forms, and what a service is sent of it."""

import html
import re
import shlex
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit

import make
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from triage.alerts.compose import built_in, extended
from triage.alerts.grouping import flush
from triage.alerts.links import Sites
from triage.alerts.message import message_of
from triage.alerts.render import converted, fitting, render
from triage.alerts.wording import Format
from triage.changes import AlertGroup
from triage.effects import alert_plan
from triage.rules.model import Cause
from triage.views import AlertKind, GroupView, RowFacts, WaitingAlert

NOW = make.NOW
LABELS = {
    "function": "img-resize",
    "region": "cn-hangzhou",
    "condition": "InvocationError",
    "error_type": "TimeoutError",
    "error_message": "Function timed out after 60 seconds",
    "fingerprint": "v1-3f2a",
    "failure_group": "v1-3f2a",
    "rule": "tell",
    "owner": "media-team",
    "runbook": "https://wiki.example/media",
}
GROUP = AlertGroup("k1", ("default",), "critical", LABELS, timedelta(seconds=30), timedelta(minutes=5))
SAMPLE = WaitingAlert("1-670648a1-15197d0b", Cause.EXHAUSTED, "", NOW, 2)


def view(labels=(), **changes) -> GroupView:
    base = GroupView(
        group=replace(GROUP, labels={**LABELS, **dict(labels)}),
        flushes=0,
        told=0,
        first_at=NOW - timedelta(minutes=3),
        last_at=NOW,
        causes={Cause.EXHAUSTED: 2},
        samples=(SAMPLE,),
        last_id=77,
    )
    return replace(base, **changes)


def steps(**changes) -> dict[str, str]:
    return {step.label: step.command for step in message_of(view(**changes), "c0de").steps}


def links(*args, **changes) -> dict[str, str]:
    return {link.label: link.url for link in message_of(view(*args, **changes), "c0de").links}


# ---------------------------------------------------------------- what it says


def test_a_lock_screen_shows_what_broke_before_anything_else():
    title = message_of(view(), "ab12cd").title
    assert title == "[critical] img-resize failed × 2: TimeoutError #ab12cd"
    calm = replace(view(), group=replace(GROUP, severity="warning"))
    assert message_of(calm, "ab12cd").title.startswith("img-resize failed")


def test_a_long_function_name_leaves_room_for_the_error():
    title = message_of(view({"function": "f" * 128}), "ab12cd").title
    assert title == f"[critical] {'f' * 47}… failed × 2: TimeoutError #ab12cd"


@pytest.mark.parametrize(
    ("function", "error", "title"),
    [
        ("pay", "TimeoutError", "pay failed: TimeoutError × 2 #ab12cd"),
        ("pay-settlement", "org.example.storage.ConnectionPoolTimeout",
         "pay-settlement failed × 2: org.example.storage.ConnectionPoolTimeout #ab12cd"),
        ("pay", "数据库连接池已经耗尽", "pay failed: 数据库连接池已经耗尽 × 2 #ab12cd"),
        ("pay-sync", "数据库连接池已经耗尽", "pay-sync failed × 2: 数据库连接池已经耗尽 #ab12cd"),
        ("pay", "\u202eevil\u2066\u200d👩\u200d🚒\ud800", "pay failed: evil 👩 🚒 × 2 #ab12cd"),
    ],
    ids=["short", "long", "as wide as a screen", "wider by its characters", "directions and joiners"],
)  # fmt: skip
def test_a_long_title_says_how_often_before_the_error(function, error, title):
    calm = view({"function": function, "error_type": error})
    calm = replace(calm, group=replace(calm.group, severity="warning"))
    assert message_of(calm, "ab12cd").title == title


def test_a_single_failure_is_run_again_by_its_id_several_by_a_plan():
    assert steps(causes={Cause.FAILED: 1}) == {
        "Look": "triage failures show 1-670648a1-15197d0b",
        "Run again": "triage rerun 1-670648a1-15197d0b",
    }
    assert steps() == {
        "Look": "triage failures show 1-670648a1-15197d0b",
        "All": "triage failures list --group v1-3f2a",
        "Run again": "triage plan --group v1-3f2a --state alerted",
    }


def test_a_group_that_is_no_failure_group_is_found_by_function_and_time():
    own = view({"fingerprint": "v1-own"})
    mixed = view(kinds=tuple(AlertKind(f"k{n}", {"fingerprint": f"v1-{n}"}, {}, NOW, NOW) for n in range(2)))
    for each in (own, mixed):
        commands = [step.command for step in message_of(each, "c0de").steps]
        assert commands[1] == "triage failures list --function img-resize --since 2026-03-01T11:57:00Z"


def test_what_is_held_is_decided_by_the_command_that_the_alert_brings():
    held = replace(SAMPLE, cause=Cause.HELD, detail="triage approve ab-12, or triage reject ab-12")
    told = steps(causes={Cause.HELD: 1}, samples=(held,))
    assert told["Decide"] == "triage approve ab-12, or triage reject ab-12"
    assert "Run again" not in told


def test_success_is_not_run_again():
    assert list(steps(causes={Cause.MATCHED: 3})) == ["Look"]


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_words_and_a_next_step(cause):
    message = message_of(view(causes={cause: 1}), "c0de")
    assert message.outcomes[0].tried
    assert message.steps[0].label == "Look"


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=100))
def test_every_command_can_be_pasted_whatever_came_from_outside(function, request_id, fingerprint):
    labels = {"function": function, "fingerprint": fingerprint, "failure_group": "other"}
    told = view(labels, samples=(replace(SAMPLE, request_id=request_id),))
    for step in message_of(told, "c0de").steps:
        assert shlex.split(step.command)[0] == "triage"
        assert "\n" not in step.command


def test_no_message_has_an_access_key_or_a_token_in_it_whatever_the_settings_say():
    key, jwt = "LTAI5tPlantedInAnError9", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJwbGFudGVkIn0.c2lnbmF0dXJl"
    labels = {"error_message": f"denied: {key}, Bearer {jwt}", "error_type": f"Denied {key}"}
    texts = built_in(view(labels, samples=(replace(SAMPLE, detail=f"asked with {key}"),)), "c0de", forms=Format)
    for text in (texts.title, texts.body, *texts.forms.values()):
        assert key not in text
        assert jwt not in text
    assert "Error: denied: [access_key], [token]" in texts.body
    assert texts.title == "[critical] img-resize failed × 2: Denied [access_key] #c0de"


# ---------------------------------------------------------------- links


def test_links_lead_to_the_console_and_to_the_logs_of_the_request():
    assert links() == {
        "Console": "https://fcnext.console.aliyun.com/cn-hangzhou/functions/img-resize?tab=detail&section=code",
        "Logs": "https://fcnext.console.aliyun.com/cn-hangzhou/functions/img-resize?tab=logging",
    }
    logs = links({"labels.logstore": "my-project/default-logs"})["Logs"]
    parts = urlsplit(logs)
    query = parse_qs(parts.query)
    assert (parts.netloc, parts.path) == (
        "sls.console.aliyun.com",
        "/lognext/project/my-project/logsearch/default-logs",
    )
    assert query["queryString"] == ['__topic__:"FCLogs:img-resize" and "1-670648a1-15197d0b"']
    assert int(query["startTime"][0]) < NOW.timestamp() < int(query["endTime"][0])


@pytest.mark.parametrize(
    "labels",
    [
        {"function": "service/name"},
        {"function": "a?b=c"},
        {"region": ""},
        {"region": "evil.example/x"},
        {"region": "CN-HANGZHOU"},
    ],
)
def test_there_is_no_link_where_an_address_would_be_a_guess(labels):
    assert links(labels) == {}


def test_a_strange_logstore_or_request_id_gets_into_no_address():
    assert "sls" not in str(links({"labels.logstore": "a/b?x="}))
    logs = links({"labels.logstore": "my-project/logs"}, samples=(replace(SAMPLE, request_id='" or *'),))["Logs"]
    assert parse_qs(urlsplit(logs).query)["queryString"] == ['__topic__:"FCLogs:img-resize"']


def test_links_can_be_switched_off_and_lead_to_another_site():
    assert message_of(view(), "c0de", sites=Sites("", "")).links == ()
    abroad = message_of(view(), "c0de", sites=Sites("https://fcnext.console.alibabacloud.com", "")).links
    assert all(link.url.startswith("https://fcnext.console.alibabacloud.com/cn-hangzhou/") for link in abroad)


def test_a_function_of_a_service_has_a_link_where_the_settings_say_of_what_form():
    page = "https://fc.console.aliyun.com/fc/service/{region}/{service}/function/{function}/code"
    sites = Sites(services=page)

    def found(**labels):
        return message_of(view({"function": "shop/pay", **labels}), "c0de", sites=sites).links

    (link,) = found()
    assert link.url == "https://fc.console.aliyun.com/fc/service/cn-hangzhou/shop/function/pay/code"
    assert found(function="shop/{region}") == found(function="a/b/c") == found(region="") == ()


# ---------------------------------------------------------------- the three forms


class Tags(HTMLParser):
    """What a browser would make of it: the tags, where links lead, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.open, self.hrefs, self.text = set(), [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert {name for name, _ in attrs} <= {"style", "href"}
        self.hrefs += [value for name, value in attrs if name == "href"]
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


HOSTILE = st.one_of(
    st.text(max_size=600),
    st.sampled_from(
        [
            "<script>alert(1)</script>",
            "</div><img src=x onerror=alert(1)>",
            "[click](https://evil.example) ![x](https://evil.example/x.png)",
            "`` ``` ` **bold** __x__ ~~y~~ | a | b |\n# head\n> quote\n- item\n1. one",
            "@everyone @here <!channel> <@U123> &lt;b&gt; &#x41;",
            "{{ 7*7 }} {% for x in y %} ${7*7} %s {0}",
            "https://evil.example/`x`*y*",
            "\u202egnp.exe \u0000\ufeff\u2028 \ud800",
        ]
    ),
)


@given(
    st.dictionaries(st.sampled_from([*LABELS, "labels.logstore"]), HOSTILE), HOSTILE, HOSTILE, st.sampled_from(Cause)
)
def test_no_text_from_outside_becomes_a_mark(labels, request_id, detail, cause):
    runbook = {"runbook": "https://wiki.example/x"} if "runbook" in labels else {}
    sample = WaitingAlert(request_id, cause, detail, NOW, 1)
    told = message_of(view({**labels, **runbook}, causes={cause: 2}, samples=(sample,)), "c0de")
    hosts = {"wiki.example", "fcnext.console.aliyun.com", "sls.console.aliyun.com"}

    page = Tags(render(told, Format.HTML))
    assert page.tags <= {"div", "p", "b", "code", "a"}
    assert page.open == []
    assert {urlsplit(each).hostname for each in page.hrefs} <= hosts

    drawn = MarkdownIt("commonmark").render(render(told, Format.MARKDOWN))
    shown = Tags(drawn)
    assert shown.tags <= {"p", "ul", "li", "strong", "code", "a", "blockquote"}
    assert {urlsplit(each).hostname for each in shown.hrefs} <= hosts
    assert "@everyone" not in re.sub(r"<code>.*?</code>", "", drawn)

    text = render(told, Format.TEXT)
    assert all(re.match(r"[A-Z][a-z ]+:|  ", line) for line in text.splitlines())
    assert len(text) < 4500
    assert "\n" not in told.title


def test_the_forms_say_the_same():
    message = message_of(view({"labels.logstore": "p1/logs"}, told=3), "c0de")
    text, marked, page = (render(message, form) for form in Format)
    for said in ("Function timed out after 60 seconds", "triage plan --group v1-3f2a --state alerted", "3 told"):
        assert said in text
        assert said in marked
        assert said in Tags(page).text
    assert "[sls.console.aliyun.com](https://sls.console.aliyun.com/lognext/project/p1/logsearch/logs?" in marked
    assert marked.count("\n- **") == len([line for line in text.splitlines() if line[0] != " "]) - 1


# ---------------------------------------------------------------- as it is sent


def test_a_notification_keeps_the_texts_that_its_receiver_can_show():
    def compose(view, code, receiver):
        return built_in(view, code, receiver, forms=[Format.HTML])

    (row,) = flush(RowFacts(group=view()), now=NOW, compose=compose).changes.rows
    assert list(row.payload["forms"]) == ["html"]
    assert row.payload["forms"]["html"] == render(message_of(view(), row.payload["code"]), Format.HTML)
    (plain,) = flush(RowFacts(group=view()), now=NOW).changes.rows
    assert "forms" not in plain.payload
    assert plain.payload["body"] == row.payload["body"]


def test_a_note_goes_below_the_message_in_every_form():
    payload = built_in(view(), "c0de", forms=Format).payload
    more = extended(payload, "Meant for <ops>, * not you")
    assert more["body"] == payload["body"] + "\n\nMeant for <ops>, * not you"
    assert more["forms"]["html"].endswith("\n\nMeant for &lt;ops&gt;, * not you<br>")
    assert more["forms"]["markdown"].endswith("\n\nMeant for \\<ops\\>, \\* not you")
    assert extended({"body": "x"}, "y") == {"body": "x\n\ny"}


@given(st.text(max_size=2000), st.sampled_from(Format), st.integers(100, 3000))
def test_what_is_too_long_is_cut_at_the_end_of_a_line_and_says_so(text, form, limit):
    cut = fitting(text, form, limit)
    assert len(cut) <= limit
    if len(converted(text, form)) > limit:
        assert "… and more: see triage failures list" in html.unescape(cut).replace("\\", "")


def test_labels_of_an_alert_know_region_and_failure_group():
    labels = alert_plan(make.arrived(), None)["labels"]
    assert labels["region"] == "cn-hangzhou"
    assert labels["failure_group"] == labels["fingerprint"]
    own = alert_plan(make.arrived(), replace(make.rule(), fingerprint=("function",)))["labels"]
    assert own["failure_group"] != own["fingerprint"]
