"""``triage demo``: the whole thing on emulated services, told as it happens."""

from __future__ import annotations

import asyncio
import logging
import sys
import textwrap
from contextlib import AsyncExitStack
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from shutil import which
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from triage.emulator.server import Emulator
    from triage.settings import Settings
    from triage.stores import FailureRow, Store, Totals

_LIMIT: Final = timedelta(seconds=45)
_LOOK: Final = timedelta(milliseconds=50)
_MALFORMED: Final = b'{"requestContext": {"requestId": "1-670648a1-15197d0b-d07710222f9d", "condition": '

_MARK: Final = "# Written by `triage demo`."
_CONFIG: Final = """\
{mark} The emulated services are gone; what happened is in triage.db.
state_dir = "{folder}"
rules = "rules"

# These are absolute: TRIAGE_STATE_DIR, where it is set, would win over state_dir.
[store]
path = "{folder}/triage.db"

[reruns]
stop_file = "{folder}/STOP"

[[sources]]
type = "smq"
endpoint = "{url}"
queue = "results"
wait = "5s"

[fc]
endpoint = "{url}"

[credentials]
access_key_id = "{key_id}"
access_key_secret = "{secret}"
"""


@click.command()
@click.option("--dir", "folder", type=click.Path(file_okay=False, path_type=Path), help="Leave the demo's files here.")
def demo(folder: Path | None) -> int:
    """Show what triage does, with Function Compute and its queue emulated on this machine.

    Takes about ten seconds and needs no account. Exit code 0: everything ended as told. A folder that an earlier demo
    used is used anew.
    """
    logging.getLogger("triage").addHandler(logging.NullHandler())  # the demo itself tells what happens
    folder = folder or Path(mkdtemp(prefix="triage-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    return asyncio.run(_Demo(folder.resolve()).run())


def _clear(folder: Path) -> None:
    """Remove what an earlier demo left: a story must begin at its beginning. Nobody else's files are touched."""
    config = folder / "triage.toml"
    if not (config.exists() and config.read_text("utf-8", "replace").startswith(_MARK)):
        for name in ("triage.toml", "triage.db", "emulated-queue.db", "rules"):
            if (taken := folder / name).exists():
                raise click.ClickException(f"{taken} is not from a demo; choose a folder of its own with --dir.")
    for name in ("triage.db", "emulated-queue.db"):
        for path in folder.glob(f"{name}*"):
            path.unlink()


class _Demo:
    """Runs emulator and daemon in one process and tells what the store says happened."""

    def __init__(self, folder: Path) -> None:
        from triage.clock import SystemClock  # noqa: PLC0415

        self._folder, self._clock = folder, SystemClock()
        self._began = self._clock.now()
        self._states: dict[str, str] = {}
        self._alerts = 0
        self._told: set[str] = set()

    async def run(self) -> int:
        from triage.app import build  # noqa: PLC0415
        from triage.emulator.scenario import load_scenario  # noqa: PLC0415
        from triage.emulator.server import serve  # noqa: PLC0415
        from triage.sources.local import LocalQueue  # noqa: PLC0415

        click.echo(_INTRO)
        shipped = files("triage.emulator")
        async with AsyncExitStack() as stack:
            queues = await LocalQueue.open(self._folder / "emulated-queue.db", clock=self._clock)
            stack.push_async_callback(queues.close)
            scenario = load_scenario(shipped.joinpath("demo.yaml").read_text("utf-8"))
            emulator = await stack.enter_async_context(serve(scenario, queues=queues, clock=self._clock))
            settings = self._configure(emulator, shipped.joinpath("demo-rules.yaml").read_text("utf-8"))
            app = await stack.enter_async_context(build(settings, clock=self._clock, write=self._alert))
            self._began = self._clock.now()
            self._say(f"Function Compute and SMQ are emulated at {emulator.url}; triage reads the queue 'results'.")
            stop = asyncio.Event()
            running = asyncio.create_task(app.run(stop))
            try:
                complete = await self._play(emulator, app.store, running)
                totals = await app.store.totals()
            finally:
                stop.set()
                await running
        self._sum_up(totals)
        called = f"{sys.executable} -m triage" if sys.argv[0].endswith("__main__.py") else sys.argv[0]
        command = "triage" if which("triage") else called
        click.echo(_NEXT.format(triage=command, config=self._folder / "triage.toml", folder=self._folder))
        return 0 if complete else 1

    def _configure(self, emulator: Emulator, rules: str) -> Settings:
        from triage.emulator.server import LOOPBACK_KEY  # noqa: PLC0415
        from triage.settings import load_settings  # noqa: PLC0415

        (self._folder / "rules").mkdir(exist_ok=True)
        (self._folder / "rules" / "demo.yaml").write_text(rules, "utf-8")
        config = self._folder / "triage.toml"
        config.write_text(
            _CONFIG.format(
                mark=_MARK,
                folder=self._folder,
                url=emulator.url,
                key_id=LOOPBACK_KEY.access_key_id,
                secret=LOOPBACK_KEY.access_key_secret,
            ),
            "utf-8",
        )
        return load_settings(config, environ={})

    async def _play(self, emulator: Emulator, store: Store, running: asyncio.Task[None]) -> bool:
        from triage.sources.queue_tables import Outgoing  # noqa: PLC0415
        from triage.stores import FailureFilter  # noqa: PLC0415

        await self._invoke(emulator, "my-fc-job", b'{"failure":true}', "the guide's function; it will time out")
        await self._invoke(emulator, "invoice-pdf", b'{"order":4711}', "it has a bug and always fails")
        await emulator.queues.send("results", [Outgoing(_MALFORMED)])
        self._say("A message that is cut off in the middle arrives in the queue as well.")
        deadline = self._began + _LIMIT
        repeated = False
        while self._clock.now() < deadline and not running.done():
            totals = await store.totals()  # before the rows, so that what ends the story has been told
            rows = await store.failures(FailureFilter())
            for row in reversed(rows):
                self._tell(row)
            await self._tell_quarantine(store)
            bug = next((row for row in rows if row.function == "invoice-pdf"), None)
            if bug and not repeated:
                repeated = True
                detail = await store.failure(bug.request_id)
                assert detail is not None  # noqa: S101 - it was listed above and nothing deletes it
                await emulator.queues.send("results", [Outgoing(str(detail.envelope["body"]).encode())])
                self._say(
                    "The queue delivers the message about invoice-pdf a second time: it does that, at least once."
                )
            if totals.duplicates and self._once("duplicate"):
                self._say("That one is recognised as a duplicate by its requestId, acknowledged, and has no effect.")
            if _ended(totals):
                return True
            await self._clock.sleep(_LOOK)
        self._say("This took longer than it should; the sums below show what is missing.")
        return False

    async def _invoke(self, emulator: Emulator, function: str, payload: bytes, why: str) -> None:
        request_id = emulator.fc.submit(function, payload).request_id
        self._say(f"{function} is invoked asynchronously with {payload.decode()} as request {request_id} ({why}).")

    def _tell(self, row: FailureRow) -> None:
        if self._states.get(row.request_id) == row.state:
            return
        first = row.request_id not in self._states
        self._states[row.request_id] = row.state
        if first and row.outcome == "failed":
            error = textwrap.shorten(f"{row.error_type}: {row.error_message}", 90)
            self._say(f"{row.function} failed, says its envelope ({error}). Rule '{row.rule_id}' decides.")
        if row.root != row.request_id:
            return
        match row.state:
            case "rerun_pending":
                self._say(f"  → A re-run of {row.function} is planned, 2 s from now. Nobody is told: it may heal.")
            case "rerunning":
                self._say(f"  → The re-run of {row.function} is accepted by Function Compute; its result is awaited.")
            case "healed":
                self._say(
                    f"  → The re-run of {row.function} succeeded: the failure is healed, and nobody was woken up."
                )
            case "alerting":
                self._say(f"  → No re-run for {row.function}: the alert waits a second for more of its kind.")
            case "alerted":
                self._say(f"  → {row.function}: told, once.")

    async def _tell_quarantine(self, store: Store) -> None:
        for entry in await store.quarantined(limit=5):
            if self._once(f"quarantine {entry.id}"):
                self._say(f"The cut-off message is quarantined, with its bytes: {entry.reason} at {entry.where}.")

    def _once(self, what: str) -> bool:
        new = what not in self._told
        self._told.add(what)
        return new

    def _alert(self, text: str) -> None:
        self._alerts += 1
        click.echo(textwrap.indent(text.strip(), "        ┃ "))

    def _say(self, text: str) -> None:
        seconds = (self._clock.now() - self._began).total_seconds()
        click.echo(textwrap.fill(text, 110, initial_indent=f"{seconds:5.1f}s  ", subsequent_indent=" " * 8))

    def _sum_up(self, totals: Totals) -> None:
        states = " + ".join(f"{count} {state}" for state, count in sorted(totals.states.items()) if count)
        click.echo(
            f"\nThe sums: {totals.received} messages received = {totals.decided} decided"
            f" + {totals.duplicates} duplicate + {totals.conflicts} conflicting + {totals.quarantined} quarantined;"
            f"\n          {totals.failures} failures = {states or 'none'}; {self._alerts} alert printed.\n"
        )


def _ended(totals: Totals) -> bool:
    done = {"healed": 1, "alerted": 1}
    return {state: count for state, count in totals.states.items() if count} == done and bool(
        totals.quarantined and totals.duplicates
    )


_INTRO: Final = "triage demo: what happens after a serverless task fails\n"

_NEXT: Final = """\
Look at what happened (the files are in {folder}):
    {triage} --config {config} status
    {triage} --config {config} failures list
    {triage} --config {config} failures show REQUEST_ID
    {triage} --config {config} quarantine list
Then try your own:
    {triage} init my-triage      a commented configuration and a copy of the shipped rules
    {triage} emulate             the emulated services alone, to point `triage run` at
    {triage} run                 the daemon, on the local queue; feed it with `{triage} queue send FILE...`
"""
