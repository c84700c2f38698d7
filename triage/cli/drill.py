"""``triage drill``: a marked failure goes all the way, to see that it would."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from triage.cli.output import Length, print_json, print_table, settings_option

if TYPE_CHECKING:
    from triage.app import App
    from triage.emulator.server import Emulator
    from triage.settings import Settings
    from triage.stores import FailureDetail, Store

Value = TypeVar("Value")

_FUNCTION: Final = "triage-drill"
_LOOK: Final = timedelta(milliseconds=50)
_SCENARIO: Final = f"""\
version: 1
account: "1000000000000001"
functions:
  {_FUNCTION}:
    async: {{task: true, retries: 0, on_success: results, on_failure: results}}
    behaviour:
      - {{do: fail, type: DRILL, message: "This is a drill: nothing has failed.", runtime: python}}
"""
_RULES: Final = """\
version: 1
rules:
  - id: drill
    hold: {{reason: this is a drill, for: 1h}}
    rerun: {{max_attempts: 1, give_up_after: 1h, after: 0s, backoff: {{factor: 1}}}}
    alert: {{to: [{to}], on: [exhausted], severity: {severity}, group_wait: 0s, resolved: false}}
"""
_BY: Final = "triage drill"


@dataclass(frozen=True, slots=True)
class _Hop:
    name: str
    at: datetime
    detail: str = ""


@click.command()
@click.option("--to", "receiver", default="default", show_default=True, help="Receiver that is told.")
@click.option(
    "--severity",
    type=click.Choice(["info", "warning", "critical"]),
    default="critical",
    show_default=True,
    help="How bad the message says it is.",
)
@click.option("--within", type=Length(), default="60s", show_default=True, help="How long all of it may take.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_option
def drill(*, settings: Settings, receiver: str, severity: str, within: timedelta, as_json: bool) -> None:
    """Send a marked failure all the way, and print when it was where: queue, rule, hold, approval, re-run, alert to a
    receiver, acknowledgement.

    The message is a real one, by the receivers, their wishes and the limits of the configuration. Function Compute and
    its queue are emulated, and the store is one of its own that is removed: a drill counts nowhere, and a daemon that
    runs knows nothing of it. The exit code is 1 when the receiver was not reached in time.
    """
    from triage.rules.mistakes import did_you_mean  # noqa: PLC0415

    if receiver not in settings.receivers:
        hint = did_you_mean(receiver, settings.receivers)
        raise click.UsageError(f"--to: no receiver is named {receiver!r}{f': {hint}' if hint else ''}.")
    logging.getLogger("triage").addHandler(logging.NullHandler())  # the drill itself tells what happens
    with TemporaryDirectory(prefix="triage-drill-") as folder:
        path = Path(folder)
        (path / "rules.yaml").write_text(_RULES.format(to=receiver, severity=severity), "utf-8")
        hops, missing = asyncio.run(_drill(settings, path, within=within))
    began = hops[0].at
    rows: list[dict[str, Any]] = [
        {
            "hop": hop.name,
            "at": hop.at,
            "seconds": round((hop.at - began).total_seconds(), 3),
            "detail": hop.detail,
        }
        for hop in hops
    ]
    if as_json:
        print_json({"complete": not missing, "missing": missing, "hops": rows})
    else:
        print_table(
            ("HOP", "AFTER", "DETAIL"), [(row["hop"], f"{row['seconds']:.3f} s", row["detail"]) for row in rows]
        )
    if missing:
        click.echo(f"triage: the drill did not come to its end: {missing}.", err=True)
        sys.exit(1)


async def _drill(settings: Settings, folder: Path, *, within: timedelta) -> tuple[list[_Hop], str]:
    """The hops that were reached in time, and what the next one waits for; empty when it came to its end."""
    from triage.clock import SystemClock  # noqa: PLC0415

    clock = SystemClock()
    hops: list[_Hop] = []
    async with _daemon(settings, folder) as (app, emulator):
        request_id = emulator.fc.submit(_FUNCTION, b'{"drill":true}').request_id
        hops.append(_Hop("invoked", clock.now(), f"request {request_id}"))
        course = _course(app.store, request_id, settings, hops)
        try:
            async with asyncio.timeout(within.total_seconds()):
                await course
        except TimeoutError:
            return hops, await _stuck(app.store, request_id, len(hops))
    return hops, ""


async def _course(store: Store, request_id: str, settings: Settings, hops: list[_Hop]) -> None:
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.orders import Order  # noqa: PLC0415
    from triage.reruns.lineage import Origin  # noqa: PLC0415

    clock = SystemClock()

    async def look(found: Callable[[FailureDetail], Value | None]) -> Value:
        return await _until(lambda: _looked(store, request_id, found))

    came = await look(lambda detail: detail.envelope)
    hops.append(_Hop("received", _at(came["received_at"]), "from the queue"))
    decided = await look(lambda detail: detail.decision)
    hops.append(_Hop("decided", _at(decided["decided_at"]), f"rule {decided['rule_id']}: held"))
    now = clock.now()
    await store.order([request_id], Order(Origin.APPROVAL, _BY, "a drill", now), limits=settings.reruns.limits, now=now)
    hops.append(_Hop("approved", now, f"by {_BY}"))
    rerun = await look(lambda detail: _done(detail, "rerun"))
    hops.append(_Hop("re-run submitted", _at(rerun["settled_at"]), rerun["note"]))
    result = await look(lambda detail: _member(detail, 1))
    hops.append(_Hop("result received", _at(result["received_at"]), "it failed again, as a drill does"))
    told = await look(lambda detail: next((each for each in detail.deliveries if each["result"] == "sent"), None))
    hops.append(_Hop("told", _at(told["at"]), f"{told['receiver']}: {told['note']}"))
    now = clock.now()
    if await store.settle_now(f"flush:{told['group_key']}", _acknowledge(now), now=now):
        hops.append(_Hop("acknowledged", now, f"by {_BY}"))


def _acknowledge(now: datetime) -> Callable[[Any, Any], Any]:
    from triage.alerts.acks import acknowledged  # noqa: PLC0415

    return lambda row, facts: acknowledged(row, facts, by=_BY, reason="a drill", now=now)


async def _looked(store: Store, request_id: str, found: Callable[[FailureDetail], Value | None]) -> Value | None:
    detail = await store.failure(request_id)
    return None if detail is None else found(detail)


async def _until(ask: Callable[[], Awaitable[Value | None]]) -> Value:
    from triage.clock import SystemClock  # noqa: PLC0415

    while (value := await ask()) is None:
        await SystemClock().sleep(_LOOK)
    return value


def _done(detail: FailureDetail, kind: str) -> Any:
    return next((row for row in detail.outbox if row["kind"] == kind and row["settled_at"]), None)


def _member(detail: FailureDetail, attempt: int) -> Any:
    members = detail.lineage["members"] if detail.lineage else ()
    return next((row for row in members if row["attempt"] == attempt), None)


async def _stuck(store: Store, request_id: str, reached: int) -> str:
    """What keeps it: the note of a notification that waits or fails, else the next hop."""
    names = ("", "its result to be received", "the decision", "", "the re-run", "its result", "the message", "")
    detail = await store.failure(request_id)
    tries = [f"{row['receiver']}: {row['result']}, {row['note']}" for row in detail.deliveries] if detail else []
    waiting = (await store.totals()).outbox.get("notify", 0)
    if tries:
        return tries[-1]
    if waiting:
        return "the message waits for its receiver: quiet hours, or its rate (`triage receivers list`)"
    return f"it waits for {names[min(reached, len(names) - 1)] or 'a person'}"


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@asynccontextmanager
async def _daemon(settings: Settings, folder: Path) -> AsyncIterator[tuple[App, Emulator]]:
    """The configured daemon, but for where failures come from and where they are kept."""
    from triage.app import build  # noqa: PLC0415
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.emulator.scenario import load_scenario  # noqa: PLC0415
    from triage.emulator.server import serve  # noqa: PLC0415
    from triage.sources.local import LocalQueue  # noqa: PLC0415

    clock = SystemClock()
    async with AsyncExitStack() as stack:
        queues = await LocalQueue.open(folder / "queue.db", clock=clock)
        stack.push_async_callback(queues.close)
        emulator = await stack.enter_async_context(serve(load_scenario(_SCENARIO), queues=queues, clock=clock))
        app = await stack.enter_async_context(build(_apart(settings, folder, emulator.url), clock=clock))
        stop = asyncio.Event()
        running = asyncio.create_task(app.run(stop))
        try:
            yield app, emulator
        finally:
            stop.set()
            await running


def _apart(settings: Settings, folder: Path, url: str) -> Settings:
    """The same settings for a place of its own: nothing of the real one is read or written, and nobody else is told."""
    from triage.emulator.server import LOOPBACK_KEY  # noqa: PLC0415
    from triage.settings import load_settings  # noqa: PLC0415

    place = {
        "TRIAGE_STATE_DIR": str(folder),
        "TRIAGE_RULES": str(folder / "rules.yaml"),
        "TRIAGE_SOURCES": json.dumps([{"type": "smq", "endpoint": url, "queue": "results", "wait": "1s"}]),
        "TRIAGE_FC__ENDPOINT": url,
        "TRIAGE_CREDENTIALS__ACCESS_KEY_ID": LOOPBACK_KEY.access_key_id,
        "TRIAGE_CREDENTIALS__ACCESS_KEY_SECRET": LOOPBACK_KEY.access_key_secret,
    }
    own = load_settings(None, environ=place)
    allow = settings.outbound.allow
    return own.model_copy(
        update={
            "receivers": settings.receivers,
            "outbox": settings.outbox,
            "links": settings.links,
            "outbound": settings.outbound.model_copy(update={"allow": (*allow, "127.0.0.1")} if allow else {}),
        }
    )
