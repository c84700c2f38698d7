"""What `triage top` shows of what it knows."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import NOW

from triage.cli.endpoint import Answer
from triage.cli.screen_text import Span, Style, bars, cut, padded, shares, short, width_of, written
from triage.cli.top_daemon import Daemon, Source, daemon_of
from triage.cli.top_frame import Snapshot, frame
from triage.errors import Problem
from triage.reruns.breaker import Breaker, BreakerState
from triage.reruns.budget import Budget
from triage.reruns.gate import Standing
from triage.reruns.rate import Pace
from triage.reruns.switches import Scope, Switch
from triage.stores import RulesState, Totals
from triage.stores.overview import Failing, Guarded, Overview, Receiver, Waiting

PLAIN = Style(colour=False, unicode=True)
ASCII = Style(colour=False, unicode=False)
SECOND = timedelta(seconds=1)


def totals(**fields: object) -> Totals:
    given = {
        "received": 12345, "decided": 12300, "duplicates": 40, "conflicts": 0, "quarantined": 5, "failures": 4321,
        "states": {"healed": 3000, "alerted": 1300, "held": 20, "unknown": 1}, "outbox": {}, "deliveries": {},
    }  # fmt: skip
    return Totals(**{**given, **fields})


def failing(name: str = "img-resize", **fields: object) -> Failing:
    given = {
        "fingerprint": name, "function": name, "condition": "InvocationError", "error_type": "ValueError",
        "message": "cannot identify image file", "state": "new", "recent": (12.0, 30.0, 30.0, 90.0), "count": 400,
        "last_seen": NOW - SECOND,
    }  # fmt: skip
    return Failing(**{**given, **fields})


def guarded(function: str, state: BreakerState = BreakerState.CLOSED, *, waiting: int = 0) -> Guarded:
    breaker = Breaker(state, ok=2, bad=8, until=NOW + 20 * SECOND)
    return Guarded(Standing(function, Pace(None, NOW, 0.25), Budget(120.0, NOW), breaker), waiting)


def overview(**fields: object) -> Overview:
    given = {
        "at": NOW, "totals": totals(), "rules": RulesState("1a2b3c4d5e6f7a8b", NOW - timedelta(hours=2)), "results": 1200,
        "minutes": (*[0] * 57, 4, 8, 16), "recent": (16.0, 28.0, 28.0, 28.0),
        "outbox": (
            Waiting("rerun", 120, 12, 2, 30, NOW - 90 * SECOND), Waiting("flush", 3, 0, 0, 0, NOW + 12 * SECOND),
        ),
        "gates": {"switch": 30},
        "functions": (guarded("img", BreakerState.OPEN, waiting=30), guarded("pdf")), "functions_total": 2, "groups": (failing(),), "groups_total": 1,
        "receivers": (Receiver("oncall", {"sent": 7, "failed": 2}, 1, NOW - 30 * SECOND),), "switches": (), "silences": 0,
        "incidents": {"ongoing": 3, "escalating": 1}, "acknowledged": 2,
    }  # fmt: skip
    return Overview(**{**given, **fields})


def source(**fields: object) -> Source:
    given = {
        "name": "orders", "error": "", "lag": 0.4, "oldest": 75.0, "messages": 1200, "errors": 0, "received_at": NOW - SECOND,
    }  # fmt: skip
    return Source(**{**given, **fields})


def snapshot(store: Overview | None = None, **fields: object) -> Snapshot:
    daemon = Daemon("127.0.0.1:8020", well=True, said="ok", version="0.1.0", sources=(source(),))
    return replace(Snapshot(NOW, store or overview(), daemon), **fields)


def shown(what: Snapshot, *, width: int = 80, height: int = 24, style: Style = PLAIN) -> list[str]:
    return frame(what, width=width, height=height, style=style)


def test_a_frame_at_80_by_24():
    before = snapshot()
    before = replace(before, at=NOW - 2 * SECOND, daemon=replace(before.daemon, sources=(source(messages=1000),)))
    assert frame(snapshot(), before, width=80, height=24, style=PLAIN) == [
        "triage 0.1.0   2026-03-01 12:00:00Z   rules 1a2b3c4d5e6f since 2h",
        "daemon    gets on (127.0.0.1:8020)",
        "received  12,345  20/s  duplicates 40  conflicts 0  quarantined 5",
        "failures  4,321  16/min  under way 21  alerted 1,300  healed 3,000",
        "last hour                                                          ▂▄█ max 16",
        "a person has to decide: 20 (triage failures list --state held)",
        "nobody knows yet whether it was submitted: 1",
        "alert groups: ongoing 3, escalating 1; acknowledged 2 (triage alerts list)",
        "re-runs wait: switch 30",
        "SOURCES             lag  oldest    received     rate  errors  answered",
        "orders             0.4s     75s       1,200    100/s       0      1.0s",
        "OUTBOX            waiting      due  under way  at a gate        next",
        "rerun                 120       12          2         30    late 90s",
        "flush                   3        0          0          0      in 12s",
        "RECEIVERS, 1 h       sent   failed  unknown  given up  waiting     last",
        "oncall                  7        2        0         0        1      30s",
        "FUNCTIONS               breaker    probe     ok    bad  budget  pace   waiting",
        "img                        open   in 20s      2      8      12   25%        30",
        "pdf                      closed        -      2      8      12   25%         0",
        "GROUPS, 1 h   /min  5 min     1 h     ever  last  function: error",
        "new             12     30      90      400  1.0s  img-resize: ValueError: canno…",
    ]


def test_what_needs_somebody_is_said_before_the_tables():
    switches = tuple(Switch(Scope.FUNCTION, f"f{n}", "anna", "it fails", NOW - timedelta(minutes=5)) for n in range(4))
    problems = (Problem("a.yaml", 1, 1, "wrong", "", ""),) * 3
    rules = RulesState("abc", NOW, problems, NOW - timedelta(minutes=3))
    store = overview(
        switches=switches,
        rules=rules,
        silences=2,
        totals=totals(plans={"running": 1}, plan_items={"waiting": 5, "ordered": 15}),
    )
    lines = shown(
        replace(snapshot(store), daemon=Daemon("x:1", well=True, said="ok", waiting={"act": 12.0, "ack": 0.1}))
    )
    assert lines[5:16] == [
        "! work waits: act 12s",
        "! the rule files are not used since 3m, mistakes: 3 (triage rules check)",
        "! function f0: switched off by anna, 5m ago: it fails",
        "! function f1: switched off by anna, 5m ago: it fails",
        "! 2 more switches (triage switch show)",
        "a person has to decide: 20 (triage failures list --state held)",
        "nobody knows yet whether it was submitted: 1",
        "alert groups: ongoing 3, escalating 1; acknowledged 2 (triage alerts list)",
        "re-runs wait: switch 30",
        "silences in force: 2",
        "plans at work: 1, items waiting: 5 of 20",
    ]


@pytest.mark.parametrize(
    ("daemon", "said"),
    [
        (Daemon(), "daemon    not asked: it listens nowhere ([web] listen)"),
        (Daemon("h:1", well=False, said="consumer has not got on for 200 s"), "daemon    consumer has not got on for 200 s (h:1)"),
        (Daemon("h:1", well=True, said="ok", problem="a token is needed"), "daemon    gets on (h:1); the rest is not known: a token is needed"),
    ],
    ids=["nowhere", "stalled", "no token"],
)  # fmt: skip
def test_what_the_daemon_says_of_itself(daemon: Daemon, said: str):
    assert shown(replace(snapshot(), daemon=daemon))[1] == said


def test_without_the_store_the_daemon_is_still_shown():
    lines = shown(replace(snapshot(), store=None, problem="the database is locked"))
    assert lines == [
        "triage 0.1.0   2026-03-01 12:00:00Z",
        "daemon    gets on (127.0.0.1:8020)",
        "! store: the database is locked",
        "SOURCES             lag  oldest    received     rate  errors  answered",
        "orders             0.4s     75s       1,200        -       0      1.0s",
    ]


def test_nothing_at_all_is_said_in_words():
    store = overview(groups=(), functions=(), outbox=(), receivers=(), minutes=(0,) * 60, rules=None)
    assert [line for line in shown(snapshot(store)) if ": " in line][-4:] == [
        "OUTBOX: nothing is waiting",
        "RECEIVERS, 1 h: nobody was told anything in the last hour",
        "FUNCTIONS: no re-run yet",
        "GROUPS, 1 h: nothing has failed in the last hour",
    ]


def test_a_source_that_fails_says_why():
    bad = source(error="SignatureDoesNotMatch", errors=3, lag=None, received_at=None)
    line = shown(replace(snapshot(), daemon=Daemon("h:1", well=True, said="ok", sources=(bad,))), width=100)[10]
    assert line == "orders                -     75s       1,200        -       3         -  SignatureDoesNotMatch"


def test_rows_that_do_not_fit_are_counted():
    store = overview(groups=tuple(failing(f"f{n}") for n in range(40)), groups_total=55)
    lines = shown(snapshot(store))
    assert len(lines) == 24
    assert "GROUPS, 1 h   /min  5 min     1 h     ever  last  function: error   +51 more" in lines


def test_hostile_text_cannot_leave_its_place():
    store = overview(groups=(failing(message="\x1b[2J\n\u202egone"),))
    assert shown(snapshot(store), width=120)[-1].endswith("img-resize: ValueError: \\x1b[2J\\n\\u202egone")


def test_without_unicode_all_is_ascii():
    store = overview(groups=(failing("größe-图像"),))
    lines = shown(snapshot(store), style=ASCII)
    assert all(line.isascii() for line in lines)
    assert lines[4].rstrip().endswith(":=@ max 16")
    assert "gr??e-??" in lines[-1]


def test_colour_changes_nothing_that_is_read():
    import re

    plain, coloured = (shown(snapshot(), style=Style(colour=colour)) for colour in (False, True))
    assert "\x1b[33m" in "".join(coloured)
    assert [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in coloured] == plain


@given(width=st.integers(1, 200), height=st.integers(1, 60), groups=st.integers(0, 30), text=st.text(max_size=30))
def test_a_frame_always_fits(width: int, height: int, groups: int, text: str):
    store = overview(groups=tuple(failing(f"{text}{n}", message=text) for n in range(groups)))
    lines = shown(snapshot(store), width=width, height=height)
    assert len(lines) <= height
    assert all(width_of(line) <= width for line in lines)


@given(st.lists(st.integers(0, 50), max_size=6), st.integers(-3, 100))
def test_rows_are_shared_fairly_and_none_is_wasted(wanted: list[int], room: int):
    got = shares(wanted, room)
    assert sum(got) == min(max(room, 0), sum(wanted))
    assert all(mine <= want for mine, want in zip(got, wanted, strict=True))
    short_of = [mine for mine, want in zip(got, wanted, strict=True) if mine < want]
    assert not short_of or max(got) - min(short_of) <= 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (0, "0s"), (0.04, "0s"), (0.4, "0.4s"), (9.9, "9.9s"), (9.96, "10s"), (119, "119s"), (120, "2m"),
     (7199, "119m"), (7200, "2h"), (172800, "2d")],
)  # fmt: skip
def test_lengths_of_time_are_short(seconds: float, text: str):
    assert short(seconds) == text


def test_wide_characters_take_two_columns():
    assert [width_of(text) for text in ("ab", "图像", "e\u0301", "ｗ")] == [2, 4, 1, 2]
    assert cut("图像x", 3) == "图"
    assert padded("图像", 3) == "图 "
    assert padded("图", 4, right=True) == "  图"
    assert written([Span("图像"), Span("ab")], 5, PLAIN) == "图像…"
    assert written([Span("图像"), Span("a")], 5, PLAIN) == "图像a"


def test_bars_are_tallest_for_the_largest():
    assert bars([0, 1, 50, 100], PLAIN) == " ▁▄█"
    assert bars([], PLAIN) == ""
    assert bars([0, 0], ASCII) == "  "


METRICS = r"""# HELP triage_info x
triage_info{version="0.1.0",rules="abc"} 1
triage_source_messages_total{source="a \"b\"\\\nc"} 12
triage_source_errors_total{source="a \"b\"\\\nc"} 2
triage_source_lag_seconds{source="a \"b\"\\\nc"} 0.5
triage_source_last_receive_timestamp_seconds{source="a \"b\"\\\nc"} 1772366400
triage_stage_waiting_seconds{stage="ack"} 1.5
triage_reruns_total{result="submitted"} 4
nonsense{ 1
triage_stage_waiting_seconds{stage="bad"} what
"""


def test_the_daemon_s_answers_are_read():
    ready = '{"sources": {"a \\"b\\"\\\\\\nc": {"ok": false, "last_error": "refused"}, "other": {"ok": true}}}'
    found = daemon_of("h:1", [Answer(200, "ok"), Answer(503, ready), Answer(200, METRICS)])
    assert found == Daemon(
        "h:1", well=True, said="ok", version="0.1.0", waiting={"ack": 1.5}, reruns={"submitted": 4},
        sources=(Source('a "b"\\\nc', "refused", 0.5, None, 12, 2, NOW),),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([Answer(0, "no answer from h:1: refused")], Daemon("h:1", said="no answer from h:1: refused")),
        ([Answer(200, "ok"), Answer(0, "timed out")], Daemon("h:1", well=True, said="ok", problem="timed out")),
        ([Answer(200, "ok"), Answer(401, "a token is needed"), Answer(401, "a token is needed")],
         Daemon("h:1", well=True, said="ok", problem="a token is needed")),
        ([Answer(404, ""), Answer(404, ""), Answer(404, "")], Daemon("h:1", said="status 404", problem="status 404")),
        ([Answer(200, "<html>"), Answer(200, "[1]"), Answer(200, "<html>")], Daemon("h:1", well=True, said="<html>")),
    ],
    ids=["nobody", "half", "no token", "something else", "a web page"],
)  # fmt: skip
def test_answers_of_others_are_no_trouble(answers: list[Answer], expected: Daemon):
    assert daemon_of("h:1", answers) == expected
