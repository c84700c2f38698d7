"""The frame that `triage top` shows: lines of text from what is known at an instant. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from triage.cli.screen_text import Line, Span, Style, bars, padded, per_second, shares, short, shown, written
from triage.cli.top_daemon import Daemon
from triage.cli.top_daemon import Source as SourceLook
from triage.incident import GroupState
from triage.reruns.breaker import BreakerState
from triage.reruns.budget import left
from triage.reruns.gate import Safeguards
from triage.reruns.plan import AT_WORK
from triage.reruns.rate import share_at
from triage.states import ACCOUNTED, ACCOUNTS, State
from triage.stores.overview import Failing, Guarded, Overview, Receiver, Waiting

_LATE: Final = timedelta(minutes=1)
"""A lag, or a row that is due for so long, is worth a look; ten times that is bad."""

_SLOW: Final = 5.0
"""Seconds for which a stage may have had work without our mentioning it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known at an instant. ``store`` is None when it does not answer, for which ``problem`` is the reason."""

    at: datetime
    store: Overview | None
    daemon: Daemon
    problem: str = ""
    guards: Safeguards = Safeguards()
    """What the gates of re-runs go by."""


class _Column(NamedTuple):
    title: str
    width: int
    right: bool = True


class _Section(NamedTuple):
    """A table: its name, how wide that of a row is, its further columns (one of width 0 takes what is left), its rows,
    and what to say when it has none.
    """

    name: str
    own: int
    columns: Sequence[_Column]
    rows: Sequence[Sequence[Span]]
    none: str
    total: int = 0
    """Rows there are, if they are more than those here."""


def frame(now: Snapshot, before: Snapshot | None = None, *, width: int, height: int, style: Style) -> list[str]:
    """The lines of one frame, at most ``height`` of them, none wider than ``width``.

    Args:
        before: the one shown last; rates of sources follow from the difference.
    """
    lines = [*_head(now, style), *_notices(now)]
    sections = list(_sections(now, before))
    room = height - len(lines) - len(sections)
    rows = shares([len(section.rows) for section in sections], room)
    for section, number in zip(sections, rows, strict=True):
        lines += _table(section, number, width, style)
    return [written(line, width, style) for line in lines[:height]]


def _head(now: Snapshot, style: Style) -> Iterator[Line]:
    store, daemon = now.store, now.daemon
    version = f" {daemon.version}" if daemon.version else ""
    rules = ""
    if store:
        loaded = store.rules
        since = f"{loaded.digest[:12]} since {short(now.at - loaded.loaded_at)}" if loaded else "none yet"
        rules = f"   rules {since}"
    yield Span(f"triage{version}", "strong"), Span(f"   {now.at:%Y-%m-%d %H:%M:%S}Z{rules}")
    yield _daemon_line(daemon)
    if store is None:
        return
    totals = store.totals
    yield (
        Span("received  "),
        Span(f"{totals.received:,}", "strong"),
        Span(f"  {per_second(store.results / 60)}  duplicates {totals.duplicates:,}"),
        Span(f"  conflicts {totals.conflicts:,}", "warn" if totals.conflicts else ""),
        Span(f"  quarantined {totals.quarantined:,}", "warn" if totals.quarantined else ""),
    )
    accounts = dict.fromkeys(ACCOUNTS, 0)
    for state, count in totals.states.items():
        if state in ACCOUNTED:
            accounts[ACCOUNTED[State(state)]] += count
    waiting = accounts.pop("held")
    settled = "".join(f"  {name} {count:,}" for name, count in accounts.items() if count)
    yield (
        Span("failures  "),
        Span(f"{totals.failures:,}", "strong"),
        Span(f"  {store.recent[0]:,.0f}/min  under way {waiting:,}{settled}"),
    )
    yield (
        Span("last hour "),
        Span(bars(store.minutes, style), "warn"),
        Span(f" max {max(store.minutes):,}"),
    )


def _daemon_line(daemon: Daemon) -> Line:
    if not daemon.address:
        return (Span("daemon    not asked: it listens nowhere ([web] listen)", "dim"),)
    told = "gets on" if daemon.well and daemon.said == "ok" else daemon.said
    yet = f"; the rest is not known: {daemon.problem}" if daemon.problem else ""
    return Span("daemon    "), Span(told, "good" if daemon.well else "bad"), Span(f" ({daemon.address}){yet}")


def _notices(now: Snapshot) -> Iterator[Line]:
    """What somebody should know first."""
    store, daemon = now.store, now.daemon
    if now.problem:
        yield (Span(f"! store: {now.problem}", "bad"),)
    slow = [f"{name} {short(length)}" for name, length in daemon.waiting.items() if length > _SLOW]
    if slow and daemon.well:  # else the daemon's own line names them
        yield (Span(f"! work waits: {', '.join(slow)}", "warn"),)
    if store is None:
        return
    if store.rules and store.rules.problems:
        since = f" since {short(now.at - store.rules.refused_at)}" if store.rules.refused_at else ""
        yield (
            Span(
                f"! the rule files are not used{since}, mistakes: {len(store.rules.problems)} (triage rules check)",
                "bad",
            ),
        )
    for switch in store.switches[:2]:
        yield (
            Span(f"! {switch}: switched off by {switch.by}, {short(now.at - switch.at)} ago: {switch.reason}", "bad"),
        )
    if len(store.switches) > 2:
        yield (Span(f"! {len(store.switches) - 2} more switches (triage switch show)", "bad"),)
    for text in _also(store):
        yield (Span(text),)


def _also(store: Overview) -> Iterator[str]:
    if held := store.totals.states.get(State.HELD.value, 0):
        yield f"a person has to decide: {held:,} (triage failures list --state held)"
    if unknown := store.totals.states.get(State.UNKNOWN.value, 0):
        yield f"nobody knows yet whether it was submitted: {unknown:,}"
    if store.incidents:
        states = ", ".join(f"{state} {store.incidents[state]:,}" for state in GroupState if state in store.incidents)
        yield f"alert groups: {states}; acknowledged {store.acknowledged:,} (triage alerts list)"
    if store.gates:
        yield f"re-runs wait: {', '.join(f'{gate} {count:,}' for gate, count in store.gates.items())}"
    if store.silences:
        yield f"silences in force: {store.silences}"
    plans = sum(store.totals.plans.get(state.value, 0) for state in AT_WORK)
    if plans:
        items = store.totals.plan_items
        yield f"plans at work: {plans}, items waiting: {items.get('waiting', 0):,} of {sum(items.values()):,}"


def _sections(now: Snapshot, before: Snapshot | None) -> Iterator[_Section]:
    store = now.store
    if now.daemon.sources:
        yield _Section(
            "SOURCES",
            16,
            (
                *(_Column("lag", 7), _Column("oldest", 8), _Column("received", 12), _Column("rate", 9)),
                *(_Column("errors", 8), _Column("answered", 10), _Column("", 0, right=False)),
            ),
            [_source_row(source, now, before) for source in now.daemon.sources],
            "none",
        )
    if store is None:
        return
    yield _Section(
        "OUTBOX",
        16,
        (
            *(_Column("waiting", 9), _Column("due", 9), _Column("under way", 11), _Column("at a gate", 11)),
            _Column("next", 12),
        ),
        [_waiting_row(row, now.at) for row in store.outbox],
        "nothing is waiting",
    )
    yield _Section(
        "RECEIVERS, 1 h",
        16,
        (
            *(_Column("sent", 9), _Column("failed", 9), _Column("unknown", 9), _Column("given up", 10)),
            *(_Column("waiting", 9), _Column("last", 9)),
        ),
        [_receiver_row(receiver, now.at) for receiver in store.receivers],
        "nobody was told anything in the last hour",
    )
    yield _Section(
        "FUNCTIONS",
        20,
        (
            *(_Column("breaker", 11), _Column("probe", 9), _Column("ok", 7), _Column("bad", 7)),
            *(_Column("budget", 8), _Column("pace", 6), _Column("waiting", 10)),
        ),
        [_function_row(function, now) for function in store.functions],
        "no re-run yet",
        total=store.functions_total,
    )
    yield _Section(
        "GROUPS, 1 h",
        12,
        (
            *(_Column("/min", 6), _Column("5 min", 7), _Column("1 h", 8), _Column("ever", 9)),
            *(_Column("last", 6), _Column("", 2), _Column("function: error", 0, right=False)),
        ),
        [_group_row(group, now.at) for group in store.groups],
        "nothing has failed in the last hour",
        total=store.groups_total,
    )


def _table(section: _Section, number: int, width: int, style: Style) -> Iterator[Line]:
    """The heading, which also tells how many rows there are, and the first ``number`` of them."""
    if not section.rows:
        yield (Span(padded(f"{section.name}: {section.none}", width), "title"),)
        return
    hidden = max(section.total, len(section.rows)) - number
    titles = "".join(
        padded(column.title, column.width or len(column.title) + 1, right=column.right) for column in section.columns
    )
    heading = f"{padded(section.name, section.own)}{titles}{f'  +{hidden} more' if hidden else ''}"
    yield (Span(padded(heading, width), "title"),)
    for name, *cells in section.rows[:number]:
        spans = [Span(padded(shown(name.text, style), section.own), name.tone)]
        for cell, column in zip(cells, section.columns, strict=True):
            text = shown(cell.text, style)
            spans.append(Span(padded(text, column.width, right=column.right) if column.width else text, cell.tone))
        yield spans


def _late(length: timedelta) -> str:
    return "bad" if length >= 10 * _LATE else "warn" if length >= _LATE else ""


def _source_row(source: SourceLook, now: Snapshot, before: Snapshot | None) -> list[Span]:
    earlier = {each.name: each.messages for each in before.daemon.sources}.get(source.name) if before else None
    seconds = (now.at - before.at).total_seconds() if before else 0.0
    rate = "" if earlier is None or seconds <= 0 else per_second(max(source.messages - earlier, 0) / seconds)
    lag, oldest = (None if each is None else timedelta(seconds=each) for each in (source.lag, source.oldest))
    return [
        Span(source.name, "bad" if source.error else ""),
        Span("-" if lag is None else short(lag), _late(lag or timedelta(0))),
        Span("-" if oldest is None else short(oldest), _late(oldest or timedelta(0))),
        Span(f"{source.messages:,}"),
        Span(rate or "-"),
        Span(f"{source.errors:,}", "warn" if source.errors else ""),
        Span(_ago(source.received_at, now.at)),
        Span(f"  {source.error}" if source.error else "", "bad"),
    ]


def _waiting_row(row: Waiting, now: datetime) -> list[Span]:
    late = now - row.first
    # Rows under way are due as well: only a due time that nobody acts on is late.
    waits = row.due > row.under_way
    due = (
        f"late {short(late)}"
        if late >= timedelta(seconds=1)
        else "now"
        if late >= timedelta(0)
        else f"in {short(-late)}"
    )
    return [
        Span(row.kind),
        Span(f"{row.rows:,}"),
        Span(f"{row.due:,}", "warn" if waits and late >= _LATE else ""),
        Span(f"{row.under_way:,}"),
        Span(f"{row.gated:,}", "warn" if row.gated else ""),
        Span(due, _late(late) if waits else ""),
    ]


def _receiver_row(receiver: Receiver, now: datetime) -> list[Span]:
    results = receiver.results
    failed, unknown, dead = (results.get(result, 0) for result in ("failed", "unknown", "dead"))
    return [
        Span(receiver.name, "bad" if dead else ""),
        Span(f"{results.get('sent', 0):,}"),
        Span(f"{failed:,}", "warn" if failed else ""),
        Span(f"{unknown:,}", "warn" if unknown else ""),
        Span(f"{dead:,}", "bad" if dead else ""),
        Span(f"{receiver.waiting:,}"),
        Span(_ago(receiver.last_at, now)),
    ]


def _function_row(function: Guarded, now: Snapshot) -> list[Span]:
    standing, guards = function.standing, now.guards
    breaker = standing.breaker
    shut = breaker.state is not BreakerState.CLOSED
    probe = (
        "-"
        if not shut
        else f"in {short(breaker.until - now.at)}"
        if breaker.until and breaker.until > now.at
        else "due"
    )
    budget = int(left(standing.budget, guards.budget, now=now.at))
    return [
        Span(standing.function, "bad" if shut else ""),
        Span(breaker.state.value.replace("_", " "), "bad" if shut else ""),
        Span(probe),
        Span(f"{breaker.ok:,}"),
        Span(f"{breaker.bad:,}", "warn" if breaker.bad else ""),
        Span(f"{budget:,}", "" if budget else "warn"),
        Span(f"{share_at(standing.pace, guards.function_rate, now.at):.0%}"),
        Span(f"{function.waiting:,}", "warn" if function.waiting else ""),
    ]


_GROUP_TONES: Final = {"escalating": "bad", "regressed": "bad", "new": "warn"}


def _group_row(group: Failing, now: datetime) -> list[Span]:
    one, five, *_, hour = group.recent
    error = ": ".join(filter(None, (group.error_type or group.condition, group.message)))
    return [
        Span(group.state, _GROUP_TONES.get(group.state, "")),
        *(Span(f"{number:,.0f}") for number in (one, five, hour)),
        Span(f"{group.count:,}"),
        Span(_ago(group.last_seen, now)),
        Span(""),
        Span(f"{group.function}: {error}"),
    ]


def _ago(at: datetime | None, now: datetime) -> str:
    return "-" if at is None else short(now - at)
