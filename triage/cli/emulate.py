"""``triage emulate``: Function Compute and SMQ on this machine, with functions from a scenario."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from triage.cloud.signing import Credentials
    from triage.emulator.faults import Faults
    from triage.emulator.scenario import Scenario
    from triage.emulator.server import Emulator


_LOOPBACK: Final = "emulator-secret"


class _Rate(click.ParamType[tuple[str, float]]):
    """``NAME=RATE``."""

    name = "name=rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        if isinstance(value, tuple):
            return value
        name, _, rate = str(value).rpartition("=")
        try:
            return name, float(rate)
        except ValueError:
            self.fail(f"{value!r}: expected a name and a rate, such as lost_answer=0.05", param, ctx)


@click.command()
@click.argument("scenario", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8071, show_default=True, help="Port; 0 takes a free one."
)
@click.option("--state-dir", type=click.Path(path_type=Path), help="Keep the queues here; else they are temporary.")
@click.option("--access-key-id", default="emulator", show_default=True, help="The key that may sign requests.")
@click.option("--access-key-secret", default=_LOOPBACK, help="Its secret.  [default: a fixed one, printed]")
@click.option("--fault", "rates", type=_Rate(), multiple=True, help="Fault and its share of requests; repeatable.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the faults: same seed, same faults.")
def emulate(
    scenario: Path | None,
    *,
    host: str,
    port: int,
    state_dir: Path | None,
    access_key_id: str,
    access_key_secret: str,
    rates: tuple[tuple[str, float], ...],
    seed: int,
) -> None:
    """Serve Function Compute and SMQ on loopback, for trials of rules and configuration.

    SCENARIO is a YAML file that says what the functions do; without it a small example is served. Faults are
    lost_answer, late_answer, garbage, server_error, throttled, conflict, delay, duplicate and lost, for one operation
    as in SendMessage:duplicate=0.1. Ctrl-C or SIGTERM ends it.
    """
    from triage.cloud.signing import Credentials  # noqa: PLC0415
    from triage.emulator.faults import Faults  # noqa: PLC0415
    from triage.emulator.scenario import load_scenario  # noqa: PLC0415

    name, text = _read(scenario)
    loaded = load_scenario(text, name=name)
    try:
        faults = Faults(seed, dict(rates)) if rates else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--fault") from None
    key = Credentials(access_key_id, access_key_secret)
    asyncio.run(_serve(loaded, key, faults, host=host, port=port, state_dir=state_dir))


def _read(scenario: Path | None) -> tuple[str, str]:
    if scenario is None:
        return "example.yaml", files("triage.emulator").joinpath("example.yaml").read_text("utf-8")
    try:
        return str(scenario), scenario.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{scenario}: not UTF-8 text: byte {error.start} is not valid") from None


async def _serve(
    scenario: Scenario, key: Credentials, faults: Faults | None, *, host: str, port: int, state_dir: Path | None
) -> None:
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.emulator.server import serve  # noqa: PLC0415
    from triage.sources.local import LocalQueue  # noqa: PLC0415

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        folder = state_dir or Path(stack.enter_context(TemporaryDirectory(prefix="triage-emulator-")))
        queues = await LocalQueue.open(folder / "queue.db", clock=SystemClock())
        stack.push_async_callback(queues.close)
        emulator = await stack.enter_async_context(
            serve(scenario, queues=queues, clock=SystemClock(), credentials=key, host=host, port=port, faults=faults)
        )
        click.echo(_told(emulator, key))
        await stop.wait()


def _told(emulator: Emulator, key: Credentials) -> str:
    scenario = emulator.fc.scenario
    sources = "\n".join(
        f'[[sources]]\ntype = "smq"\nname = "{queue}"\nendpoint = "{emulator.url}"\nqueue = "{queue}"\n'
        for queue in scenario.all_queues
    )
    # A secret that was given is the user's; only the fixed one may be shown.
    secret = key.access_key_secret if key.access_key_secret == _LOOPBACK else "... as given ..."
    return f"""\
# Function Compute and SMQ are emulated at {emulator.url} until Ctrl-C.
# functions: {", ".join(scenario.functions) or "none"}
# queues:    {", ".join(scenario.all_queues) or "none"}
# Put the following into triage.toml, then run in another terminal:  triage run --config triage.toml

{sources}
[fc]
endpoint = "{emulator.url}"

[credentials]
access_key_id = "{key.access_key_id}"
access_key_secret = "{secret}"
"""
