"""``triage failures``: list failures, show the whole story of one, decide about those that are held."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from triage.cli.output import Instant, print_fields, print_json, print_table, settings_option, show_time
from triage.cli.output import show as shown
from triage.cli.people import person_options
from triage.cli.storage import ask
from triage.log import printable
from triage.states import State

if TYPE_CHECKING:
    from triage.redaction import Redaction
    from triage.settings import Settings
    from triage.stores import FailureDetail, FailureRow

_LONGEST: Final = 300
"""Characters of one value shown to a person; ``--json`` gives all."""


_RECONSTRUCTED: Final = "by reconciliation, from what FC says of the task; its own message had not arrived"


@click.group()
def failures() -> None:
    """List failures; show the whole story of one; decide about held ones."""


@failures.command("list")
@click.option("--function", default="", metavar="GLOB", help='Function name, such as "img-*".')
@click.option(
    "--state", type=click.Choice([s.value for s in State if s is not State.NEW]), help="Where the failure stands."
)
@click.option("--all", "every", is_flag=True, help="Also what is healed or ignored.")
@click.option("--group", default="", metavar="FINGERPRINT", help="Failure group; the first characters will do.")
@click.option("--text", default="", help="Part of the error message, error type or request id, any case.")
@click.option("--since", type=Instant(), help='Received at or after: "2h" ago, or an ISO-8601 time.')
@click.option("--until", type=Instant(), help='Received before: "2h" ago, or an ISO-8601 time.')
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Most rows to show.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def list_(
    *,
    settings: Settings,
    function: str,
    state: str | None,
    every: bool,
    group: str,
    text: str,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """List failures that are open ends, newest first.

    Open is what is still being tried (rerun_pending, rerunning, unknown), waits for a person (held), or was or will be
    told to one (alerting, alerted) and has not succeeded since. --all or --state shows others. A held one has the code
    by which `triage approve` and `triage reject` know it.
    """
    from triage.stores import FailureFilter  # noqa: PLC0415

    only_open = not (every or state)
    which = FailureFilter(function, state or "", group, text, since, until, limit, only_open)
    rows = ask(settings, lambda store: store.failures(which))
    if as_json:
        print_json([{**asdict(row), "code": _code(row)} for row in rows])
        return
    if not rows:
        click.echo(f"No {'open ' * only_open}failures match.{' --all shows the others.' * only_open}", err=True)
        return
    print_table(
        ("RECEIVED", "STATE", "FUNCTION", "REQUEST ID", "ERROR"),
        [
            (
                row.received_at,
                f"{row.state or row.outcome} {_code(row)}".rstrip(),
                row.function,
                row.request_id,
                ": ".join(filter(None, (row.error_type or row.condition, row.error_message))),
            )
            for row in rows
        ],
    )
    if len(rows) == limit:
        click.echo(f"The newest {limit}; --limit shows more.", err=True)


@failures.command()
@click.argument("request_id")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, complete.")
@click.option("--unredacted", is_flag=True, help="Show event and answer as they came, whatever [redaction] says.")
@settings_option
def show(*, settings: Settings, request_id: str, as_json: bool, unredacted: bool) -> None:
    """Show all that happened to one failure. The first characters of its id will do if no other begins so."""
    found = ask(settings, lambda store: store.failure(request_id))
    if found is not None and not unredacted and settings.redaction.redaction:
        found = _redacted(found, settings.redaction.redaction)
    if found is None:
        click.echo(
            f"triage: no single failure has the request id {request_id!r}. `triage failures list` shows them.", err=True
        )
        sys.exit(1)
    if as_json:
        print_json(asdict(found))
    else:
        _tell(found)


@failures.command()
@click.argument("request_ids", metavar="REQUEST_ID...", nargs=-1, required=True)
@click.option("--rerun/--ignore", required=True, help="Run it again now, or leave it at that.")
@person_options
@settings_option
def release(*, settings: Settings, request_ids: Sequence[str], rerun: bool, by: str, reason: str) -> None:
    """Decide about failures that a rule holds: the same as `triage approve` and `triage reject`."""
    from triage.cli.holds import decide  # noqa: PLC0415

    sys.exit(0 if decide(settings, request_ids, approve=rerun, by=by, reason=reason) else 1)


def _redacted(found: FailureDetail, redaction: Redaction) -> FailureDetail:
    conflicts = [{**item, "body": redaction.body(item["body"])} for item in found.conflicts]
    envelope = {**found.envelope, "body": redaction.body(found.envelope["body"])}
    return replace(found, envelope=envelope, conflicts=conflicts)


def _code(row: FailureRow) -> str:
    """The short name of what waits for a person."""
    from triage.reruns.lineage import hold_code  # noqa: PLC0415

    return hold_code(row.root) if row.state == State.HELD else ""


def _tell(detail: FailureDetail) -> None:
    """The story in the order it happened: what came, what was decided, what was tried, who was told."""
    from triage.envelope import RECONSTRUCTED  # noqa: PLC0415

    row, envelope, decision, lineage = detail.row, detail.envelope, detail.decision, detail.lineage or {}
    click.echo(f"{printable(row.request_id)}  {row.state or row.outcome} {_code(row)}".rstrip())
    print_fields(
        {
            "function": _with(row.function, envelope, "qualifier", "region", "account"),
            "received": _with(show_time(row.received_at), envelope, "source", "message_id", "enqueued_at"),
            "outcome": _with(row.outcome, envelope, "condition", "status_code", "invoke_count"),
            "error": ": ".join(filter(None, (row.error_type, row.error_message))),
            "group": row.fingerprint,
            "event": _event(envelope),
            **({"reconstructed": _RECONSTRUCTED} if envelope["digest"].startswith(RECONSTRUCTED) else {}),
            "decision": _with(row.reason, {**decision, "rule": row.rule_id}, "rule", "rule_set", "decided_at"),
            "then": _effects(decision.get("effects", ())),
            **_when_said("also", ", ".join(decision.get("also", ()))),
            **_when_said(
                "in shadow",
                "; ".join(
                    _with(shadow["rule"], {"would": _effects(shadow["effects"]) or shadow["reason"]}, "would")
                    for shadow in decision.get("shadow", ())
                ),
            ),
            "lineage": _with(row.state, lineage, "root", "attempt", "failures", "started_at", "updated_at"),
        }
    )
    _rows("attempts", lineage.get("members", ()), "attempt", "received_at", "outcome", "request_id")
    _rows("decided by people", lineage.get("deeds", ()), "at", "by", "action", "reason")
    _rows("alerts", lineage.get("alerts", ()), "at", "cause", "request_id", "flush", "silence", "detail")
    _rows("outbox", detail.outbox, "kind", "state", "due_at", "attempts", "note")
    _rows("deliveries", detail.deliveries, "at", "receiver", "result", "note")
    _rows("conflicts: other bodies under this id", detail.conflicts, "received_at", "source", "message_id", "body")


def _when_said(name: str, value: str) -> dict[str, str]:
    return {name: value} if value else {}


def _effects(effects: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(
        _with(effect.get("kind", ""), effect, *(key for key in effect if key != "kind")) for effect in effects
    )


def _with(subject: object, values: Mapping[str, Any], *names: str) -> str:
    """``subject (name value, name value)``, without those that are empty."""
    told = ", ".join(f"{name} {_shown(name, values[name])}" for name in names if values.get(name) not in (None, "", []))
    return f"{subject} ({told})" if told else str(subject)


def _shown(name: str, value: Any) -> str:
    if isinstance(value, str) and (name == "at" or name.endswith("_at")):
        return show_time(datetime.fromisoformat(value))
    if name == "rule_set":
        return str(value)[:12]
    text = ", ".join(map(str, value)) if isinstance(value, list) else shown(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _event(envelope: Mapping[str, Any]) -> str:
    """What the function was called with."""
    try:
        return _shown("event", json.loads(envelope["body"]).get("requestPayload"))
    except (KeyError, ValueError, AttributeError):
        return ""


def _rows(title: str, rows: Sequence[Mapping[str, Any]], *columns: str) -> None:
    if not rows:
        return
    columns = columns or tuple(rows[0])
    click.echo(f"\n{title}")
    print_table(
        [f"  {columns[0]}".upper(), *(column.upper() for column in columns[1:])],
        [["  " + cells[0], *cells[1:]] for cells in ([_shown(key, row.get(key)) for key in columns] for row in rows)],
    )
