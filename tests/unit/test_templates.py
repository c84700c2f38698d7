"""Own templates: what they can do, what they cannot, and that no message is lost to one."""

import logging
import subprocess
import sys
import time
import tracemalloc
from contextlib import suppress
from dataclasses import replace

import pytest
from bombs import BOMBS, WORDS
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from test_messages import HOSTILE, LABELS, SAMPLE, Tags, view

from triage.alerts.fields import fields_of
from triage.alerts.message import message_of
from triage.alerts.wording import Format, printable
from triage.composing import Composer
from triage.errors import RulesInvalid
from triage.progress import Work
from triage.rules.model import AlertPolicy, Cause, Place, Rule, RuleSet, SourceText
from triage.rules.source import load_rules
from triage.templating.samples import SAMPLES, check_template, form_of_file
from triage.templating.sandbox import LONGEST_TEXT, OwnTemplate, TemplateError

FULL = SAMPLES[0]


def draw(source, form="text", **values):
    return OwnTemplate(source, form).draw({**FULL, **values}).text


def refused(source, form="text", **values) -> str:
    with pytest.raises(TemplateError) as caught:
        draw(source, form, **values)
    return str(caught.value)


# ---------------------------------------------------------------- what they can do


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ function }} × {{ count | number }}", "img-resize × 1,234"),
        ("{{ labels.team }}{{ labels.nobody }}/{{ labels['team'] }}", "media/media"),
        ("{{ sums.told + sums.healed }}", "5"),
        ("{% for s in samples %}{{ loop.index }}:{{ s.request_id }}{% endfor %}", "1:1-670648a1-15197d0b"),
        ("{% for n in range(3) %}{{ n }}{{ ',' if not loop.last }}{% endfor %}", "0,1,2"),
        ("{{ outcomes | join(' + ', attribute='cause') }}", "exhausted + failed"),
        ("{{ owner | default('nobody', true) | upper }}", "MEDIA-TEAM"),
        ("{{ error | replace('60', '61') | truncate(9) }}", "Function…"),
        ("{% for name, text in labels | dictsort %}{{ name }}={{ text }}{% endfor %}", "team=media"),
        ("{{ (count - 34) // 100 * 2 % 7 }} {{ 7 / 2 | round }}", "3 3.5"),
        ("{% if 'Time' in error_type and count > 3 %}yes{% else %}no{% endif %}", "yes"),
        ("{{ code[:2] ~ code[-1] }}{{ samples[0].attempts }}{{ nothing is defined }}", "ab42False"),
        ("{{ runbook | link }} {{ function | code }}", "https://wiki.example/media img-resize"),
    ],
)
def test_a_template_says_what_it_wants(source, text):
    assert draw(source) == text


def test_a_title_is_set_by_a_template():
    drawn = OwnTemplate("{% set title = 'PAY ' ~ function %}text", "text").draw(FULL)
    assert (drawn.title, drawn.text) == ("PAY img-resize", "text")


@given(HOSTILE)
def test_what_a_template_shows_is_escaped_in_every_form(error):
    source = "{{ error }} {{ error | code }} {{ error | link }} {{ 'x' ~ error }}"
    page = Tags(draw(source, "html", error=error))
    assert page.tags <= {"code", "a"}
    assert all(href.startswith(("https://", "http://")) for href in page.hrefs)
    marked = draw("-> {{ error }} {{ error | upper }}", "markdown", error=printable(error, 500))
    shown = Tags(MarkdownIt("commonmark").render(marked))
    assert shown.tags == {"p"}
    assert "@everyone" not in marked


def test_code_and_links_are_marks_in_markdown_and_html():
    source = "{{ function | code }} {{ runbook | link }}"
    assert draw(source, "markdown") == "`img-resize` <https://wiki.example/media>"
    assert draw(source, "html") == (
        '<code>img-resize</code> <a href="https://wiki.example/media">https://wiki.example/media</a>'
    )
    assert draw("{{ runbook | link }}", "html", runbook="javascript:alert(1)") == "javascript:alert(1)"


# ---------------------------------------------------------------- what they cannot


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
@pytest.mark.parametrize("source", BOMBS, ids=range(len(BOMBS)))
def test_what_would_take_long_or_grow_or_look_inside_ends_soon_and_small(source, form):
    OwnTemplate("warm {{ up }}", form)
    tracemalloc.start()
    began = time.process_time()  # a busy machine is no fault of the template
    try:
        assert refused(source, form)
        took, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Drawing is bounded by steps, at some ten milliseconds; tracing it makes it slower, and compiling takes longer.
    assert took < 3
    assert peak < 40_000_000


def test_the_longest_that_a_template_may_take_is_short():
    template = OwnTemplate("{% for i in range(900) %}{{ i % 7 }}{{ '' ~ i }}{% endfor %}", "text")
    began = time.process_time()
    template.draw(FULL)
    assert time.process_time() - began < 1


def test_a_failure_names_its_line():
    assert refused("one\ntwo\n{{ functoin }}") == "line 3: 'functoin' is undefined"
    assert refused("one\n{% if %}").startswith("line 2: ")
    assert refused("one\n{{ count }}\n\n{{ 'x' ** 2 }}") == "line 4: ** cannot be used here"


@settings(deadline=None, max_examples=300)
@given(st.lists(WORDS, max_size=60).map(" ".join) | st.text(max_size=200), st.sampled_from(Format))
def test_any_template_makes_a_text_or_says_why_not(source, form):
    began = time.process_time()
    with suppress(TemplateError):
        assert 0 < len(draw(source, form)) <= LONGEST_TEXT
    assert time.process_time() - began < 2


# ---------------------------------------------------------------- in rule files


def test_templates_are_tried_on_messages_that_have_all_the_names_of_real_ones():
    real = fields_of(message_of(view(), "ab12cd"), "oncall")
    for sample in SAMPLES:
        assert list(sample) == list(real)
        for name, value in sample.items():
            assert isinstance(value, type(real[name])), name
            if isinstance(value, list) and value and real[name]:
                assert list(value[0]) == list(real[name][0]), name
    check_template(
        "{{ labels.whatever }}{{ sums.whatever }}{{ accounts.whatever }}{{ samples | length }}{{ ended }}", "text"
    )
    with pytest.raises(TemplateError, match="there is no 0 here"):
        check_template("{{ samples[0].detail }}", "text")


def rules(text, **files):
    beside = [SourceText(name.replace("_", "."), source) for name, source in files.items()]
    return load_rules([SourceText("a.yaml", text), *beside])


RULES = "version: 1\nrules:\n  - id: tell\n    alert:\n      template: %s\n"


def test_a_rule_names_a_template_or_has_it():
    loaded = rules(RULES % "oncall", oncall_md_j2="**{{ function }}**", oncall_txt_j2="{{ function }}")
    assert loaded.rules[0].alert.template == "oncall"
    assert loaded.templates == {"oncall": {"markdown": "**{{ function }}**", "text": "{{ function }}"}}
    assert rules(RULES % "'{{ function }} is down'").rules[0].alert.template == (("text", "{{ function }} is down"),)
    (both,) = rules(RULES % "{text: '{{ what }}', html: '<b>{{ what }}</b>'}").rules
    assert both.alert.template == (("text", "{{ what }}"), ("html", "<b>{{ what }}</b>"))


def test_the_files_of_templates_are_part_of_the_set():
    one, two = (rules(RULES % "oncall", oncall_txt_j2=text) for text in ("a {{ what }}", "b {{ what }}"))
    assert one.digest != two.digest
    assert load_rules(one.texts) == one
    assert [source.name for source in one.sources] == ["a.yaml"]


@pytest.mark.parametrize(
    ("written", "files", "told"),
    [
        ("oncal", {"oncall_txt_j2": "x"}, "a.yaml:5:17: there is no template 'oncal' (did you mean 'oncall'?)"),
        (
            "oncall",
            {"oncall_txt_j2": "a\n  {{ nix }}"},
            "oncall.txt.j2:2:3: the template cannot be used: 'nix' is undef",
        ),
        (
            "oncall",
            {"oncall_txt_j2": "a\n{% if %}"},
            "oncall.txt.j2:2:1: the template cannot be used: Expected an expr",
        ),
        ("oncall", {"oncall_j2": "x"}, "oncall.j2: the name does not tell the form of its messages"),
        ("{text: '{{ nix }}'}", {}, "a.yaml:5:25: the template cannot be used: 'nix' is undefined"),
        ("|\n        one\n        {{ nix }}", {}, "a.yaml:7:9: the template cannot be used: 'nix' is undefined"),
        ("{txt: x}", {}, "unknown key 'txt' (did you mean 'text'?)"),
        ("{}", {}, "a template without text"),
        ("{text: 7}", {}, "expected a template, not the number 7"),
        ("{text: '{{ links[0].url }}'}", {}, "there is no 0 here"),
    ],
)
def test_a_template_that_cannot_be_used_is_told_with_its_place(written, files, told):
    with pytest.raises(RulesInvalid) as caught:
        rules(RULES % written, **files)
    assert told in str(caught.value)


def test_a_template_of_the_defaults_must_be_there_too():
    with pytest.raises(RulesInvalid, match="there is no template 'oncall'"):
        rules("version: 1\ndefaults: {alert: {template: oncall}}\nrules: [{id: a, alert: {}}]\n")


def test_names_of_files_tell_name_and_form():
    assert form_of_file("on.call.md.j2") == ("on.call", "markdown")
    assert form_of_file("oncall.j2") is None
    assert form_of_file(".md.j2") is None


# ---------------------------------------------------------------- the chain

PLACE = Place("a.yaml", 1)


def compose(*, rule="", receiver="", files=(), forms=(), work=None, labels=(), **changes):
    rule_set = RuleSet((Rule("tell", PLACE, alert=AlertPolicy(template=rule)),), "", templates=dict(files))
    composer = Composer(
        forms=lambda _: forms, rules=lambda: rule_set, templates={"oncall": receiver} if receiver else {}, work=work
    )
    return composer(view(labels, **changes), "ab12cd", "oncall")


def test_the_rules_template_comes_before_the_receivers_and_that_before_the_built_in_text():
    files = {"mine": {"text": "of {{ receiver }}"}}
    assert compose(rule=(("text", "rule {{ rule }}"),), receiver="mine", files=files).body == "rule tell"
    assert compose(receiver="mine", files=files).body == "of oncall"
    assert compose().body.startswith("Error: ")


def test_a_template_that_fails_is_counted_logged_and_said_and_the_next_is_used(caplog):
    work = Work()
    files = {"mine": {"text": "of {{ receiver }}"}, "bad": {"text": "{{ samples[7].at }}"}}
    with caplog.at_level(logging.WARNING, "triage"):
        first = compose(rule="bad", receiver="mine", files=files, work=work, forms=[Format.HTML])
        last = compose(rule="bad", receiver="gone", files=files, work=work)
    said = "Template bad could not be used for this message: line 1: there is no 7 here"
    assert first.body == f"of oncall\n\n{said}"
    assert said in first.forms[Format.HTML]
    assert last.body.startswith("Error: ")
    assert last.body.endswith(
        "Template gone could not be used for this message: there is none of that name beside the rules"
    )
    assert work.templates == {"bad": 2, "gone": 1}
    assert len(caplog.records) == 3


def test_of_its_forms_a_template_gives_what_the_receiver_can_show():
    text = compose(rule=(("text", "<{{ function }}>"),), forms=Format)
    assert text.forms == {"markdown": "\\<img-resize\\>", "html": "&lt;img-resize&gt;<br>"}
    marked = compose(rule=(("markdown", "**{{ function }}**"),), forms=Format)
    assert (marked.body, marked.forms[Format.MARKDOWN]) == ("**img-resize**", "**img-resize**")
    assert marked.forms[Format.HTML].startswith("<div")
    page = compose(rule=(("html", "<i>{{ function }}</i>"),), forms=[Format.HTML])
    assert page.forms == {"html": "<i>img-resize</i>"}
    assert page.body.startswith("Error: ")


def test_a_title_of_ones_own_keeps_the_code_and_one_line():
    assert compose(rule=(("text", "{% set title = 'a\\nb' %}x"),)).title == "a b #ab12cd"
    assert compose(rule=(("text", "{% set title = code ~ '!' %}x"),)).title == "ab12cd!"
    assert compose(rule=(("text", "x"),)).title == message_of(view(), "ab12cd").title


def test_what_cannot_be_written_at_all_is_told_by_its_names(caplog):
    broken = replace(view(), group=replace(view().group, labels={"function": "f", "error_message": "boom\x00"}))
    with caplog.at_level(logging.CRITICAL, "triage"):
        texts = Composer(forms=lambda _: ())(broken, "ab12cd", "oncall")
    assert texts.title == "f × 2 #ab12cd"
    assert texts.body == "severity: critical\nexhausted: 2\nfunction: f\nerror_message: boom"


@settings(deadline=None, max_examples=200)
@given(
    st.lists(WORDS, max_size=40).map(" ".join) | st.sampled_from(BOMBS),
    st.dictionaries(st.sampled_from([*LABELS, "labels.team"]), HOSTILE),
    HOSTILE,
    st.sampled_from(Cause),
)
def test_every_message_is_readable_whatever_the_template_and_the_payload_are(source, labels, detail, cause):
    sample = replace(SAMPLE, request_id=detail, detail=detail, cause=cause)
    began = time.process_time()
    logging.disable(logging.CRITICAL)
    try:
        texts = compose(
            rule=tuple((str(form), source) for form in Format),
            forms=Format,
            labels={**labels, "rule": "tell"},
            causes={cause: 3},
            samples=(sample,),
        )
    finally:
        logging.disable(logging.NOTSET)
    assert time.process_time() - began < 2
    assert "ab12cd" in texts.title
    assert "\n" not in texts.title
    for text in (texts.body, *texts.forms.values()):
        assert text.strip()
        assert len(text) < LONGEST_TEXT + 1000
    assert set(texts.forms) == {Format.MARKDOWN, Format.HTML}


def test_jinja2_is_loaded_only_where_somebody_has_a_template():
    code = (
        "import sys, triage.app, triage.rulefiles, triage.rules.source as s\n"
        "s.load_rules(triage.rulefiles.read_rules(triage.rulefiles.default_rules_dir()))\n"
        "assert 'jinja2' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
