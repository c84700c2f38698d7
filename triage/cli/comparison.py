"""Runs a back-test for a command, and tells a person what came of it."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

import click

from triage.cli.output import Instant, print_table, show, show_time
from triage.cli.storage import ask

if TYPE_CHECKING:
    from triage.backtest.history import Choice
    from triage.backtest.recorded import Ruling
    from triage.backtest.replay import Replayed
    from triage.backtest.report import Deeds, Report
    from triage.backtest.run import Backtest, RulesUsed
    from triage.settings import Settings
    from triage.stores import Store

_NO_RULE: Final = {
    "(not_made)": "(result of a re-run not made)",
    "(unknown)": "(after a re-run of unknown outcome)",
    "(no_rule)": "(no rule)",
}

_PAIRS: Final = 30
"""Pairs of rules told to a person; ``--json`` gives all."""


def history_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that choose a history, and call it with ``choice``, ``limit`` and ``jobs``."""

    @click.option("--since", type=Instant(), help='Failed at or after: "30d" ago, or an ISO-8601 time.')
    @click.option("--until", type=Instant(), help='Failed before: "30d" ago, or an ISO-8601 time.')
    @click.option(
        "--filter", "filters", multiple=True, metavar="NAME=GLOB", help='"function=img-*", say; all must hold.'
    )
    @click.option(
        "--limit", default=20, show_default=True, type=click.IntRange(0, 100_000), help="Changes shown in full."
    )
    @click.option("--jobs", type=click.IntRange(1, 64), help="Processes to use. Default: one for each processor.")
    @functools.wraps(command)
    def with_choice(
        *args: Any, since: datetime | None, until: datetime | None, filters: Sequence[str], **kwargs: Any
    ) -> Any:
        from triage.backtest.history import Choice  # noqa: PLC0415

        return command(*args, choice=Choice(since, until, _globs(filters)), **kwargs)

    return with_choice


def _globs(filters: Sequence[str]) -> tuple[tuple[str, str], ...]:
    from triage.backtest.history import GLOBS  # noqa: PLC0415

    found = []
    for text in filters:
        name, equals, pattern = text.partition("=")
        if not equals or name not in GLOBS:
            close = get_close_matches(name, GLOBS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"NAME is one of {', '.join(GLOBS)}"
            raise click.BadParameter(f"{text!r} is no NAME=GLOB with a known name; {hint}", param_hint="--filter")
        found.append((name, pattern))
    return tuple(found)


def compare(
    settings: Settings,
    after: RulesUsed,
    *,
    before: RulesUsed | None = None,
    choice: Choice,
    limit: int = 20,
    jobs: int | None = None,
) -> Report:
    """Replay the stored history; on a terminal a bar shows how far it is.

    Raises:
        RulesInvalid, StoreUnavailable: see `triage.backtest.run.run`.
    """
    from triage.backtest.run import Backtest  # noqa: PLC0415

    backtest = Backtest(settings.store.path, after, before, choice, limit, settings.encryption.seal, settings.owners)
    report = ask(settings, lambda store: _watch(store, backtest, jobs or _processors()))
    report.owners = {rule.id: rule.owner for rule in after.load().rules if rule.owner}
    return report


async def _watch(_: Store, backtest: Backtest, jobs: int) -> Report:
    """The store is open meanwhile: it has brought the schema up to date, and tidies up when it is closed."""
    from triage.backtest.report import Report  # noqa: PLC0415
    from triage.backtest.run import run  # noqa: PLC0415

    report = Report(limit=backtest.limit)
    bar: Any = None
    shown = sys.stderr.isatty()
    try:
        for progress in run(backtest, jobs=jobs):
            report.merge(progress.report)
            if shown and bar is None:
                bar = click.progressbar(length=progress.total, label="Replaying", file=sys.stderr)
            if bar is not None:
                bar.update(progress.done - bar.pos)
    finally:
        if bar is not None:
            bar.render_finish()
    return report


def _processors() -> int:
    return max(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 1)


def tell(report: Report) -> None:
    """Print the report for a person: what changes, by rule, one by one, and what is not known."""
    if not report.envelopes:
        click.echo("No stored failures in this choice.", err=True)
        return
    click.echo(
        f"covered    {report.envelopes:,} results of {report.stories:,} invocations,"
        f" {_span(report.first, report.last)}, decided by {_count(len(report.rule_sets), 'rule set')}"
    )
    click.echo(f"unchanged  {report.envelopes - report.changed:,}")
    click.echo(f"changed    {report.changed:,}")
    _tell_defects(report)
    if report.changed:
        click.echo()
        print_table(("", "BEFORE", "AFTER", "CHANGE"), list(_sums(report.before, report.after)))
        _tell_rules(report)
        _tell_changes(report)
    _tell_unknown(report)


def _span(first: datetime | None, last: datetime | None) -> str:
    return f"{show_time(first)} to {show_time(last)}" if first and last else "-"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _sums(before: Deeds, after: Deeds) -> Iterator[tuple[str, str, str, str]]:
    receivers = sorted({receiver for deeds in (before, after) for kind, receiver in deeds if kind == "alert"})
    rows = [("re-runs", ("rerun", "")), *((f"alerts to {name}", ("alert", name)) for name in receivers)]
    for name, deed in [*rows, ("held", ("hold", "")), ("ignored", ("ignore", ""))]:
        old, new = before[deed], after[deed]
        yield name, f"{old:,}", f"{new:,}", f"{new - old:+,}" if new != old else "-"


def _tell_rules(report: Report) -> None:
    from triage.backtest.report import ranked  # noqa: PLC0415

    click.echo("\nby rule")
    rows = [
        (_taker(old), _taker(new), f"{count:,}", _difference(deeds), report.owners.get(new, ""))
        for (old, new), (count, deeds) in ranked(report)[:_PAIRS]
    ]
    print_table(
        ("  BEFORE", "AFTER", "DECISIONS", "WHAT IS DONE", "OWNER"), [(f"  {row[0]}", *row[1:]) for row in rows]
    )
    if (more := len(report.by_rule) - _PAIRS) > 0:
        click.echo(f"  and {_count(more, 'more pair')}")


def _taker(name: str) -> str:
    return _NO_RULE.get(name, name)


def _difference(deeds: Deeds) -> str:
    """``+3 re-runs, -3 alerts to ops``."""
    names = {"rerun": "re-runs", "hold": "held", "ignore": "ignored", "resolve": "questions to the provider"}
    told = [
        f"{count:+,} {f'alerts to {receiver}' if kind == 'alert' else names.get(kind, kind)}"
        for (kind, receiver), count in sorted(deeds.items())
        if count
    ]
    return ", ".join(told) or "the same, or at another time"


def _tell_changes(report: Report) -> None:
    if not report.changes:
        return
    click.echo("\none by one")
    rows = [
        (
            f"  {show_time(change.received_at)}",
            change.function,
            change.request_id,
            _replayed(change.before),
            _replayed(change.after),
        )
        for change in report.changes
    ]
    print_table(("  RECEIVED", "FUNCTION", "REQUEST ID", "BEFORE", "AFTER"), rows)
    if (more := report.changed - len(report.changes)) > 0:
        click.echo(f"  and {more:,} more; --limit shows more")


def _replayed(replayed: Replayed) -> str:
    if replayed.ruling is None:
        return _taker(f"({replayed.absence})")
    told = f", then alert {' '.join(replayed.told_later)}" if replayed.told_later else ""
    return ruling_text(replayed.ruling) + told


def ruling_text(ruling: Ruling) -> str:
    """``rule: re-run 2 at 2026-01-02 03:04:05Z, alert ops``."""
    from triage.backtest.report import effects_of  # noqa: PLC0415

    effects = ", ".join(map(effect_text, effects_of(ruling)))
    quiet = "nothing" if ruling.reason in ("succeeded", "healed") else "ignore"
    reason = "" if ruling.reason == "matched" else ruling.reason
    return f"{' '.join(filter(None, (ruling.rule_id, f'({reason})' if reason else '')))}: {effects or quiet}"


def effect_text(effect: dict[str, Any]) -> str:
    """One effect of a stored decision, in words."""
    match effect["kind"]:
        case "rerun":
            return f"re-run {effect['attempt']} at {show_time(datetime.fromisoformat(effect['due_at']))}"
        case "alert":
            cause = f" ({effect['cause']})" if effect["cause"] != "failed" else ""
            return f"alert {' '.join(effect['to'])}{cause}"
        case "hold":
            return f"hold until {show_time(datetime.fromisoformat(effect['due_at']))}: {effect['reason']}"
    return f"ask the provider about re-run {effect['attempt']}"


def _tell_unknown(report: Report) -> None:
    from triage.backtest.replay import Absence  # noqa: PLC0415

    not_made, unknown = report.left_out[Absence.NOT_MADE], report.left_out[Absence.UNKNOWN]
    told = [
        report.open_ends
        and f"{_count(report.open_ends, 're-run')} would be made that {_was(report.open_ends)} not: no outcome is"
        " recorded, so what would have followed is not counted",
        report.not_made
        and f"{_count(report.not_made, 'chain')} of re-runs would have ended earlier; {report.healed:,} of them"
        f" succeeded in the end. Their {_count(not_made, 'result')} would not have come",
        unknown and f"{_count(unknown, 'result')} came after such a point and {_was(unknown)} left out",
        report.unrecorded
        and f"in {_count(report.unrecorded, 'decision')} a rule asks for a value (a rate, say) that was not recorded,"
        " because no rule mentioned it then; it counts as no match",
        report.silenced
        and f"{_count(report.silenced, 'alert')} {_was(report.silenced)} kept from everybody by silences; all alerts"
        " count here, as if there had been none",
        report.unkept
        and f"{_count(report.unkept.total(), 'decision')} {_was(report.unkept.total())} made by rules that are not kept"
        f" or can no longer be read ({', '.join(digest[:12] for digest in report.unkept)}); compared as recorded",
    ]
    lines = [text for text in told if text]
    if lines:
        click.echo("\nnot known")
        for line in lines:
            click.echo(f"  - {line}")


def _was(number: int) -> str:
    return "was" if number == 1 else "were"


def _tell_defects(report: Report) -> None:
    if not report.defective:
        return
    click.echo(
        f"\nDEFECT: {_count(report.defective, 'decision')} {_was(report.defective)} not given again by the very rules"
        " they were made by. Please report this; the rest of this back-test cannot be trusted.",
        err=True,
    )
    for defect in report.defects:
        click.echo(
            f"  {show(defect.request_id)}  recorded {show(ruling_text(defect.recorded))}, now"
            f" {show(ruling_text(defect.again))} (rules {show(defect.rule_set[:12])})",
            err=True,
        )
