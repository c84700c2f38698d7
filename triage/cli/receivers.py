"""``triage receivers``: who is told, how it went, and whether it works."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from triage.cli.output import print_json, print_lines, print_table, settings_option, show, show_time
from triage.cli.storage import ask

if TYPE_CHECKING:
    from triage.alerts.delivery import Answer
    from triage.notify import AppriseNotifier
    from triage.settings import ReceiverSettings, Settings
    from triage.stores.postbox import Received


@click.group()
def receivers() -> None:
    """List who is told, and how it went; try them."""


@receivers.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def list_(*, settings: Settings, as_json: bool) -> None:
    """List the receivers: where they are, what they want to be told, how the last message went.

    Of an address only what is no secret is shown. DEAD counts messages that were given up: `triage receivers dead`
    lists them, `triage alerts resend --dead` sends them again. Receivers that messages were meant for, and that the
    configuration does not name, are listed, too.
    """
    loaded = _load(settings)
    known: dict[str, Received] = {}
    if settings.store.path.exists():
        known = {each.receiver: each for each in ask(settings, lambda store: store.received())}
    names = [*settings.receivers, *(name for name in known if name not in settings.receivers)]
    rows = [_described(name, settings.receivers.get(name), loaded, known.get(name)) for name in names]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("NAME", "ADDRESS", "WANTS", "LAST", "OPEN", "DEAD"),
        [
            (
                row["name"],
                " ".join(row["urls"]) or "(not configured)",
                row["wants"],
                f"{row['last']} {show_time(row['at'])}" if row["at"] else "",
                row["open"],
                row["dead"],
            )
            for row in rows
        ],
    )
    troubles = [f"{row['name']}: {show(row['note'])}" for row in rows if row["last"] not in ("", "sent", "below")]
    print_lines(["", *troubles] if troubles else [])


def _described(
    name: str, own: ReceiverSettings | None, notifier: AppriseNotifier, known: Received | None
) -> dict[str, Any]:
    return {
        "name": name,
        "urls": [target.shown for target in notifier.targets(name)],
        "wants": _wants(own) if own else "",
        "fallback": own.fallback if own else "",
        "last": known.result if known else "",
        "at": known.at if known else None,
        "note": known.note if known else "",
        "open": known.open if known else 0,
        "dead": known.dead if known else 0,
    }


def _wants(own: ReceiverSettings) -> str:
    parts = [] if own.min_severity == "info" else [f"{own.min_severity} and worse"]
    if own.quiet_hours or own.quiet_days:
        spans = " ".join([*own.quiet_days, *own.quiet_hours])
        parts.append(f"quiet {spans} {own.quiet_zone}{'' if own.quiet_critical else ' also if critical'}")
    if own.rate:
        parts.append(f"at most {own.rate}")
    if own.fallback:
        parts.append(f"else {own.fallback}")
    return ", ".join(parts) or "all"


@receivers.command()
@click.argument("name", required=False, default="")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the whole text of each.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Most rows to show.")
@settings_option
def dead(*, settings: Settings, name: str, as_json: bool, limit: int) -> None:
    """List messages that were given up, of one receiver or of all, the newest first."""
    found = ask(settings, lambda store: store.messages(dead=True, limit=limit))
    found = [each for each in found if name in ("", each.receiver)]
    if as_json:
        print_json([asdict(each) for each in found])
    elif found:
        print_table(
            ("CODE", "GIVEN UP", "RECEIVER", "WHY", "TITLE"),
            [(each.code, each.at, each.receiver, each.note, each.title) for each in found],
        )
    else:
        click.echo("No message was given up.", err=True)


@receivers.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def test(*, settings: Settings, names: Sequence[str], as_json: bool) -> None:
    """Send a marked message to the receivers with these names, or to all, and say what each address answered.

    It goes out at once, past quiet hours and rates, and is not kept. The exit code is 1 unless every address took it.
    """
    from triage.rules.mistakes import did_you_mean  # noqa: PLC0415

    for name in names:
        if name not in settings.receivers:
            hint = did_you_mean(name, settings.receivers)
            raise click.UsageError(f"No receiver is named {name!r}{f': {hint}' if hint else ''}.")
    notifier = _load(settings)
    rows = [
        {
            "receiver": name,
            "address": target.shown,
            "result": answers[target.key].result.value,
            "detail": answers[target.key].detail,
            "seconds": round(took.total_seconds(), 3),
        }
        for name, answers, took in asyncio.run(_try(notifier, names or tuple(settings.receivers)))
        for target in notifier.targets(name)
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(
            ("RECEIVER", "ADDRESS", "RESULT", "SECONDS", "DETAIL"),
            [(row["receiver"], row["address"], row["result"], row["seconds"], row["detail"]) for row in rows],
        )
    sys.exit(0 if all(row["result"] == "sent" for row in rows) else 1)


async def _try(notifier: AppriseNotifier, names: Sequence[str]) -> list[tuple[str, Mapping[str, Answer], timedelta]]:
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.notify import Notification  # noqa: PLC0415

    clock = SystemClock()

    async def one(name: str) -> tuple[str, Mapping[str, Answer], timedelta]:
        title = f"[info] triage: a test of receiver {name}"
        body = f"Somebody tries at {show_time(clock.now())} whether messages arrive here. Nothing has failed."
        began = clock.steady()
        found = await notifier.send(Notification(name, title, body, "info"))
        return name, found, clock.steady() - began

    return list(await asyncio.gather(*map(one, names)))


def _load(settings: Settings) -> AppriseNotifier:
    from triage.configuration import receivers_of  # noqa: PLC0415
    from triage.log import configure, secrets_of  # noqa: PLC0415
    from triage.notify import AppriseNotifier  # noqa: PLC0415
    from triage.outbound import Guard  # noqa: PLC0415

    configure(settings.log, secrets=secrets_of(settings))
    return AppriseNotifier.load(receivers_of(settings), guard=Guard.of(settings.outbound.allow))
