"""What ``triage approve``, ``triage reject`` and ``triage failures release`` have in common: a person decides about
failures that a rule holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from triage.cli.output import print_json
from triage.cli.storage import ask
from triage.log import printable

if TYPE_CHECKING:
    from triage.settings import Settings
    from triage.stores.sqlite import SqliteStore


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a person's decision about one failure; ``refused`` says why nothing did."""

    asked: str
    request_id: str
    code: str
    done: str
    refused: str = ""


def decide(
    settings: Settings, names: Sequence[str], *, approve: bool, by: str, reason: str, as_json: bool = False
) -> bool:
    """Approve or reject each, and print what came of it; False when one was refused."""

    async def question(store: SqliteStore) -> list[Verdict]:
        return [await _decide(store, name, settings, approve=approve, by=by, reason=reason) for name in names]

    verdicts = ask(settings, question)
    if as_json:
        print_json([asdict(verdict) for verdict in verdicts])
    for verdict in verdicts:
        if verdict.refused:
            click.echo(f"triage: {printable(verdict.request_id or verdict.asked)}: {verdict.refused}.", err=True)
        elif not as_json:
            click.echo(f"{printable(verdict.request_id)}: {verdict.done}")
    return not any(verdict.refused for verdict in verdicts)


async def _decide(store: SqliteStore, name: str, settings: Settings, *, approve: bool, by: str, reason: str) -> Verdict:
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.effects import hold_key  # noqa: PLC0415
    from triage.orders import Order, Refused  # noqa: PLC0415
    from triage.reactions import rejected  # noqa: PLC0415
    from triage.reruns.lineage import Origin, hold_code  # noqa: PLC0415

    found = await _find(store, name)
    if isinstance(found, str):
        return Verdict(name, "", "", "", found)
    request_id, root, state = found
    now = SystemClock().now()
    if approve:
        (answer,) = await store.order(
            [request_id], Order(Origin.APPROVAL, by, reason, now), limits=settings.reruns.limits, now=now
        )
        refused = answer.detail if isinstance(answer, Refused) else ""
    else:
        done = await store.settle_now(
            hold_key(root), lambda row, facts: rejected(row, facts, by=by, reason=reason), now=now
        )
        refused = "" if done else f"it is not held: it is {state}"
    code = hold_code(root)
    return Verdict(name, request_id, code, "will be run again" if approve else "ignored", refused)


async def _find(store: SqliteStore, name: str) -> tuple[str, str, str] | str:
    """Request id, root and state of what a person names by code or request id; or what is wrong with the name."""
    from triage.reruns.lineage import hold_code  # noqa: PLC0415
    from triage.stores.codes import LEAST_TYPED, plain  # noqa: PLC0415

    code = plain(name)
    held = [each for each in await store.held() if len(code) >= LEAST_TYPED and each.code.startswith(code)]
    coded = {each.root: each.request_id for each in [each for each in held if each.code == code] or held}
    found = await store.failure(name)
    if found is not None and found.row.root not in coded:
        coded[found.row.root] = found.row.request_id
    if not coded:
        return "no held failure has this code, and no single failure this request id"
    if len(coded) > 1:
        several = (f"{hold_code(root)} ({printable(request_id)})" for root, request_id in coded.items())
        return f"this names several: {', '.join(several)}; give more of the code, or the request id"
    ((root, request_id),) = coded.items()
    found = found or await store.failure(request_id)
    return request_id, root, (found.row.state or found.row.outcome) if found else "gone"
