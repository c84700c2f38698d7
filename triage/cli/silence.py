"""``triage silence``: keep alerts quiet for a while; see what is kept quiet, and end it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from triage.cli.output import Length, print_fields, print_json, print_table, settings_option, show_time
from triage.cli.output import show as shown
from triage.cli.people import person_options
from triage.cli.storage import ask

if TYPE_CHECKING:
    from triage.alerts.maintenance import Maintenance
    from triage.settings import Settings
    from triage.stores import Store
    from triage.stores.silences import Alerted
    from triage.stores.sqlite import SqliteStore
    from triage.views import SilenceView

_LONGEST: Final = timedelta(days=31)
_BOUND: Final = timedelta(days=7)
"""A silence until resolved ends after so long, whatever happens."""
_PAST: Final = timedelta(hours=24)


@click.group()
def silence() -> None:
    """Keep alerts quiet for a while; see what is kept quiet, and end it."""


def _match(*, required: bool = True) -> Callable[[Any], Any]:
    return click.option(
        "--match",
        "clauses",
        multiple=True,
        required=required,
        metavar="LABEL=VALUE",
        help='What an alert must have, such as "function=img-*"; all of it must hold, but of one label any value. '
        "LABEL!=VALUE: must not have.",
    )


@silence.command()
@_match()
@click.option("--for", "length", type=Length(), help='How long, such as "2h"; with --until-resolved at most.')
@click.option(
    "--until-resolved",
    is_flag=True,
    help="End sooner: when nothing that it matches has failed for --quiet-for, or all that it kept quiet has healed.",
)
@click.option("--quiet-for", type=Length(), default="1h", show_default=True, help="See --until-resolved.")
@click.option("--to", "receivers", multiple=True, metavar="RECEIVER", help="Hears of its end, and before it.")
@click.option(
    "--warn-before", type=Length(), default="15m", show_default=True, help="So long before its end; 0s: not at all."
)
@person_options
@settings_option
def add(
    *,
    settings: Settings,
    clauses: Sequence[str],
    length: timedelta | None,
    until_resolved: bool,
    quiet_for: timedelta,
    receivers: Sequence[str],
    warn_before: timedelta,
    by: str,
    reason: str,
) -> None:
    """Keep alerts quiet from now on, and show what of the last 24 hours would have been.

    Nothing is lost: when it ends, each receiver is told what was kept from it. What is being sent already is sent.
    """
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.silence import Silence  # noqa: PLC0415

    if length is None and not until_resolved:
        raise click.UsageError("Say when it ends: --for 2h, or --until-resolved.")
    if length is not None and not timedelta(0) < length <= _LONGEST:
        raise click.UsageError(f"--for takes more than nothing, and at most {_LONGEST.days} days.")
    if until_resolved and not quiet_for:
        raise click.UsageError("--quiet-for takes more than nothing.")
    _check_receivers(settings, receivers)
    now = SystemClock().now()
    new = Silence(
        id=0,
        match=_read(clauses),
        by=by,
        reason=reason,
        created_at=now,
        ends_at=now + (length or _BOUND),
        quiet_for=quiet_for if until_resolved else None,
        to=tuple(dict.fromkeys(receivers)),
    )

    async def put(store: SqliteStore) -> tuple[int, list[Alerted]]:
        made = await store.add_silence(new, warn_before=warn_before)
        return made.id, await store.alerted(since=now - _PAST)

    number, alerted = ask(settings, put)
    until = "until resolved, at most " if until_resolved else ""
    click.echo(f"silence {number}: in force {until}until {show_time(new.ends_at)}")
    _preview(_matching(new.match, alerted), err=True)


@silence.command()
@_match(required=False)
@click.option("--maintenance", "name", metavar="NAME", help="What a [[maintenance]] matches, instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def preview(*, settings: Settings, clauses: Sequence[str], name: str | None, as_json: bool) -> None:
    """Show what such a silence would keep quiet: alerts that wait, and those of the last 24 hours."""
    from triage.clock import SystemClock  # noqa: PLC0415

    if bool(clauses) is (name is not None):
        raise click.UsageError("Say what it would match: --match LABEL=VALUE, or --maintenance NAME.")
    match = _read(clauses) if name is None else _maintenance(settings, name).match
    since = SystemClock().now() - _PAST
    found = _matching(match, ask(settings, lambda store: store.alerted(since=since)))
    if as_json:
        print_json([{**asdict(each), "group": each.group.key, "receivers": kept} for each, kept in found])
    else:
        _preview(found)


@silence.command("list")
@click.option("--all", "every", is_flag=True, help="Also those that have ended.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def list_(*, settings: Settings, every: bool, as_json: bool) -> None:
    """List the silences in force, the newest first, and when maintenance comes again."""
    from triage.alerts.summaries import kept_from, show_match  # noqa: PLC0415

    views = ask(settings, lambda store: store.silences(ended=every))
    if as_json:
        print_json([asdict(view) for view in views])
    elif views:
        print_table(
            ("ID", "UNTIL", "QUIET", "BY", "MATCH", "REASON"),
            [
                (
                    view.silence.id,
                    _until(view),
                    sum(each.count for each in kept_from(view.groups, "")),
                    view.silence.by,
                    " ".join(show_match(view.silence.match)),
                    view.silence.reason,
                )
                for view in views
            ],
        )
    else:
        click.echo("No silence is in force." if not every else "There are no silences.", err=True)
    if settings.maintenance and not as_json:
        _windows(settings)


def _windows(settings: Settings) -> None:
    """When each maintenance comes again, or ends if it goes on."""
    from triage.alerts.maintenance import next_span  # noqa: PLC0415
    from triage.alerts.summaries import show_match  # noqa: PLC0415
    from triage.clock import SystemClock  # noqa: PLC0415

    now = SystemClock().now()
    own = [each.maintenance for each in settings.maintenance]
    spans = sorted(((next_span(each, now=now), each) for each in own), key=lambda found: found[0])
    click.echo()
    print_table(
        ("MAINTENANCE", "FROM", "UNTIL", "MATCH", "REASON"),
        [
            (each.name, "now" if span.start == now else span.start, span.end, " ".join(show_match(each.match)),
             each.reason)
            for span, each in spans
        ],
    )  # fmt: skip


def _maintenance(settings: Settings, name: str) -> Maintenance:
    from triage.rules.mistakes import did_you_mean  # noqa: PLC0415

    for each in settings.maintenance:
        if each.name == name:
            return each.maintenance
    hint = did_you_mean(name, [each.name for each in settings.maintenance])
    raise click.UsageError(f"--maintenance: none is named {shown(name)}{f': {hint}' if hint else ''}.")


@silence.command()
@click.argument("number", metavar="ID", type=int)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def show(*, settings: Settings, number: int, as_json: bool) -> None:
    """Show a silence: who asked for it, why, and what it keeps from whom."""
    from triage.alerts.summaries import show_match  # noqa: PLC0415

    view = ask(settings, lambda store: store.silence(number))
    if view is None:
        click.echo(f"triage: there is no silence {number}. `triage silence list --all` shows them.", err=True)
        sys.exit(1)
    if as_json:
        print_json(asdict(view))
        return
    found = view.silence
    print_fields(
        {
            "match": " ".join(show_match(found.match)),
            "by": found.by,
            "reason": found.reason,
            "since": found.created_at,
            "until": _until(view),
            "told to": ", ".join(found.to) or "whoever was told nothing",
        }
    )
    if view.groups:
        click.echo()
        print_table(
            ("KEPT FROM", "ALERTS", "HEALED", "LAST", "FUNCTION", "ERROR"),
            [
                (each.receiver, each.count, each.healed, each.last_at, *_names(each.group.labels))
                for each in view.groups
            ],
        )


@silence.command()
@click.argument("number", metavar="ID", type=int)
@person_options
@settings_option
def expire(*, settings: Settings, number: int, by: str, reason: str) -> None:
    """End a silence now. A running daemon tells within seconds what it kept quiet."""
    from triage.alerts.silences import end_now, row_key  # noqa: PLC0415
    from triage.clock import SystemClock  # noqa: PLC0415

    now = SystemClock().now()

    async def end(store: Store) -> SilenceView | None:
        done = await store.settle_now(
            row_key(number), lambda _row, facts: end_now(facts, by=by, reason=reason, now=now), now=now
        )
        return await store.silence(number) if done else None

    if (view := ask(settings, end)) is None:
        click.echo(f"triage: no silence {number} is in force. `triage silence list --all` shows them.", err=True)
        sys.exit(1)
    click.echo(f"silence {number}: ended; {'what it kept quiet is told' if view.groups else 'it kept nothing quiet'}")


def _read(clauses: Sequence[str]) -> dict[str, Any]:
    from triage.rules.alertmatch import parse_match  # noqa: PLC0415
    from triage.rules.mistakes import Mistakes  # noqa: PLC0415

    try:
        return parse_match(clauses)
    except Mistakes as error:
        told = (f"{each.message} ({each.hint})" if each.hint else each.message for each in error.mistakes)
        raise click.UsageError(f"--match: {shown('; '.join(told))}") from None


def _check_person(by: str, reason: str) -> None:
    if not (by.strip() and reason.strip()):
        raise click.UsageError("--by and --reason must say something.")


def _check_receivers(settings: Settings, names: Sequence[str]) -> None:
    from triage.rules.mistakes import did_you_mean  # noqa: PLC0415

    for name in names:
        if name not in settings.receivers:
            hint = did_you_mean(name, settings.receivers)
            raise click.UsageError(f"--to: no receiver is named {name!r}{f': {hint}' if hint else ''}.")


def _matching(match: Mapping[str, Any], alerted: Sequence[Alerted]) -> list[tuple[Alerted, list[str]]]:
    """What a silence would keep from whom."""
    from triage.rules.alertmatch import matches  # noqa: PLC0415

    found = []
    for each in alerted:
        group = each.group
        kept = [to for to in group.receivers if matches(match, each.labels, severity=group.severity, receiver=to)]
        if kept:
            found.append((each, kept))
    return found


def _preview(found: Sequence[tuple[Alerted, list[str]]], *, err: bool = False) -> None:
    if not found:
        click.echo("Nothing that failed in the last 24 hours matches.", err=True)
        return
    print_table(
        ("WAITING", "LAST 24 H", "LAST", "KEPT FROM", "FUNCTION", "ERROR"),
        [(each.waiting, each.count, each.last_at, ", ".join(kept), *_names(each.labels)) for each, kept in found],
        err=err,
    )


def _names(labels: Mapping[str, str]) -> tuple[str, str]:
    return labels.get("function", ""), labels.get("error_type") or labels.get("condition", "")


def _until(view: SilenceView) -> str:
    found = view.silence
    if found.ended_at is not None:
        return f"{show_time(found.ended_at)} {found.ended}"
    return f"{'resolved, at most ' if found.quiet_for else ''}{show_time(found.ends_at)}"
