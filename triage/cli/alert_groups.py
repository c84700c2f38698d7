"""``triage alerts list|show|ack|resolve``: what is the matter, who sees to it, and who says it is over."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from triage.cli.output import print_fields, print_json, print_table, settings_option, show_time
from triage.cli.output import show as shown
from triage.cli.people import person_options
from triage.cli.storage import ask

if TYPE_CHECKING:
    from triage.changes import Settle
    from triage.settings import Settings
    from triage.stores.alertgroups import GroupRow, GroupStory
    from triage.stores.sqlite import SqliteStore


@click.command("list")
@click.option("--all", "every", is_flag=True, help="Also groups that are resolved.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def list_(*, settings: Settings, every: bool, as_json: bool) -> None:
    """List the alert groups that are open, those that failed last first.

    Each is named by the code that its messages have. The counts are of alerts since ever: told, only counted since the
    last message, kept quiet by silences.
    """
    rows = ask(settings, lambda store: store.alert_groups(every=every))
    if as_json:
        print_json([asdict(row) for row in rows])
    elif rows:
        print_table(
            ("CODE", "STATE", "LAST", "TOLD", "COUNTED", "SILENCED", "FUNCTION", "ERROR", "TO", "ACKNOWLEDGED"),
            [
                (
                    row.code or row.group.key,
                    row.state,
                    row.last_at,
                    row.told,
                    row.suppressed + row.waiting,
                    row.silenced,
                    *_names(row),
                    ", ".join(row.group.receivers),
                    row.incident.ack.by if row.incident.ack else "",
                )
                for row in rows
            ],
        )
    else:
        click.echo(
            "There are no alert groups." if every else "No alert group is open. --all shows the others.", err=True
        )


@click.command()
@click.argument("name", metavar="CODE|GROUP")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def show(*, settings: Settings, name: str, as_json: bool) -> None:
    """Show an alert group: since when, how often, how its failures stand, who was told what, and who did what.

    It is named by the code of one of its messages or by its key. The first four characters of either, or more, will do
    if no other begins so.
    """

    async def look(store: SqliteStore) -> GroupStory | list[str]:
        keys = await store.alert_groups_named(name)
        return await store.alert_group(keys[0]) if len(keys) == 1 else keys

    found = ask(settings, look)
    if isinstance(found, list):
        _unknown(settings, name, found)
        sys.exit(1)
    if as_json:
        print_json(asdict(found))
    else:
        _tell(found)


@click.command()
@click.argument("names", metavar="CODE|GROUP...", nargs=-1, required=True)
@person_options
@settings_option
def ack(*, settings: Settings, names: Sequence[str], by: str, reason: str) -> None:
    """Take incidents upon yourself: nobody is reminded of them, and nobody else is told, until they get worse.

    That is, until at least twice as many fail as was told, or it fails again after it was resolved. Something of
    another kind that fails in the same group is told all the same, and so is the end.
    """
    from triage.alerts.acks import acknowledged  # noqa: PLC0415

    not_done = "nobody was told of it yet, or it is over."
    words = Words(acknowledged, by, reason, f"acknowledged by {by}", not_done)
    done = [_say(settings, name, words) for name in names]
    sys.exit(0 if all(done) else 1)


@click.command()
@click.argument("names", metavar="CODE|GROUP...", nargs=-1, required=True)
@person_options
@settings_option
def resolve(*, settings: Settings, names: Sequence[str], by: str, reason: str) -> None:
    """Say that incidents are over, though not all that failed has healed: those who heard of them are told.

    What fails after that is a new incident. Failures stay as they are: what is to be run again still is.
    """
    from triage.alerts.acks import closed  # noqa: PLC0415

    not_done = "nobody was told of it yet, it fails at this moment, or it is over."
    words = Words(closed, by, reason, f"resolved by {by}; the daemon tells those who heard of it", not_done)
    done = [_say(settings, name, words) for name in names]
    sys.exit(0 if all(done) else 1)


class Words(NamedTuple):
    """What a person says of an incident, and how that is answered."""

    react: Callable[..., Settle]
    by: str
    reason: str
    done: str
    not_done: str


def _say(settings: Settings, name: str, words: Words) -> bool:
    from triage.clock import SystemClock  # noqa: PLC0415

    now = SystemClock().now()
    noted: list[bool] = []

    async def put(store: SqliteStore) -> list[str]:
        keys = await store.alert_groups_named(name)
        if len(keys) != 1:
            return keys

        def react(row: Any, facts: Any) -> Any:
            settle = words.react(row, facts, by=words.by, reason=words.reason, now=now)
            noted[:] = [bool(settle.changes.looked)]
            return settle

        await store.settle_now(f"flush:{keys[0]}", react, now=now)
        return keys

    keys = ask(settings, put)
    if len(keys) != 1:
        _unknown(settings, name, keys)
    elif noted != [True]:
        click.echo(f"triage: {shown(name)}: {words.not_done}", err=True)
    else:
        click.echo(f"{shown(name)}: {shown(words.done)}")
    return noted == [True]


def _unknown(settings: Settings, name: str, keys: Sequence[str]) -> None:
    """Say that a name is nobody's, or whose it may be."""
    if not keys:
        click.echo(
            f"triage: {shown(name)}: no alert group is named so. `triage alerts list --all` shows them.", err=True
        )
        return
    click.echo(
        f"triage: {shown(name)}: {len(keys)} alert groups are named so; give more of the one that is meant:", err=True
    )
    rows = {row.group.key: row for row in ask(settings, lambda store: store.alert_groups(every=True))}
    for row in (rows[key] for key in keys[:_NAMED] if key in rows):
        click.echo(f"  {shown(row.code or row.group.key)}  {row.state}  {': '.join(map(shown, _names(row)))}", err=True)
    if len(keys) > _NAMED:
        click.echo(f"  ... and {len(keys) - _NAMED} more", err=True)


_NAMED: Final = 10
"""Groups that are listed when a name may be that of any."""


def _names(row: GroupRow) -> tuple[str, str]:
    labels = row.group.labels
    function = labels.get("function", "")
    return f"{function} (drill)" if labels.get("drill") else function, labels.get("error_type") or labels.get(
        "condition", ""
    )


def _tell(story: GroupStory) -> None:
    row, incident = story.row, story.row.incident
    labels = row.group.labels
    function, error = _names(row)
    ack = incident.ack
    standing = (f"{count:,} {state or 'told'}" for state, count in sorted(story.states.items()))
    print_fields(
        {
            "code": row.code,
            "group": row.group.key,
            "state": row.state,
            "function": function,
            "error": ": ".join(filter(None, (error, labels.get("error_message", ""))))[:300],
            "rule": labels.get("rule", ""),
            "owner": labels.get("owner", ""),
            "since": incident.opened_at,
            "last": row.last_at,
            "incident": f"{incident.number}; {incident.count:,} alerts about {story.lineages:,} failures",
            "how they stand": ", ".join(standing),
            "not told yet": row.suppressed + row.waiting,
            "kept quiet by": incident.inhibited,
            "acknowledged": ack and f"by {ack.by} at {show_time(ack.at)}: {ack.reason}",
        }
    )
    if story.minutes:
        click.echo()
        print_table(
            ("MINUTE", "ALERTS"), [(minute.replace("T", " "), count) for minute, count in story.minutes.items()]
        )
    if story.sent:
        click.echo()
        print_table(
            ("MESSAGE", "AT", "TO", "WHY", "RESULT", "TITLE"),
            [
                (each["payload"].get("code", ""), each["created_at"], each["payload"].get("receiver", ""),
                 each["payload"].get("why", ""), each["note"] or each["state"], each["payload"].get("title", ""))
                for each in story.sent
            ],
        )  # fmt: skip
    for deed in story.deeds:
        click.echo(f"\n{shown(deed['at'])} {shown(deed['by'])}: {shown(deed['action'])}: {shown(deed['reason'])}")
