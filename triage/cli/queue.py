"""``triage queue``: send to the local queue, look into it, empty it, serve it to SMQ clients."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from triage.cli.output import print_json, print_table, settings_option, show
from triage.cli.queue_input import STDIN, Entry, SeveralLines, entries

if TYPE_CHECKING:
    from triage.settings import Settings
    from triage.sources.local import LocalQueue

Answer = TypeVar("Answer")

ACCESS_KEY_ID: Final = "local"
SECRET_VARIABLE: Final = "TRIAGE_QUEUE_SECRET"  # noqa: S105 - the name of the variable, not its value
_AT_ONCE: Final = 256  # messages sent in one transaction
_SHOWN: Final = 60  # characters of a body in the list

_queue_option = click.option("--queue", "name", metavar="NAME", help="Queue in the file; else the one configured.")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def queue() -> None:
    """Send to, look into and serve the local queue."""


@queue.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--raw", is_flag=True, help="Take the whole standard input as one message.")
@_queue_option
@_json_option
@settings_option
def send(*, settings: Settings, paths: tuple[str, ...], raw: bool, name: str | None, as_json: bool) -> None:
    """Send files or lines as messages.

    Each file is a message, each line of a *.jsonl file is one, folders are walked. Without PATH, or with -, each line
    of standard input is a message. What is no destination message is sent all the
    same, with a warning; empty, over-size and unreadable input is refused, and the exit code is then 1.
    """
    reads_stdin = not paths or STDIN in paths
    if raw and not reads_stdin:
        raise click.UsageError("--raw is about standard input; leave out the paths or give -.")
    if reads_stdin and sys.stdin.isatty():
        click.echo("Reading messages from the terminal, one per line; Ctrl-D ends.", err=True)
    given = entries(paths, stdin=sys.stdin.buffer, whole_stdin=raw)
    name = name or settings.queue.name
    tell: Tell = _quiet if as_json else _tell
    try:
        sent, warned, refused = asyncio.run(_open(settings, lambda queues: _send(queues, name, given, tell)))
    except SeveralLines:
        raise click.UsageError(
            "standard input looks like one JSON document over several lines; send it as one message with --raw."
        ) from None
    if as_json:
        print_json(
            {
                "queue": name,
                "file": settings.queue.path,
                "sent": sent,
                "warned": [{"place": place, "reason": reason} for place, reason in warned],
                "refused": [{"place": place, "reason": reason} for place, reason in refused],
            }
        )
    else:
        text = f"Sent {_count(sent, 'message')} to queue {name!r}"
        text += f", of which {len(warned)} will be quarantined" if warned else ""
        click.echo(text + (f"; refused {len(refused)}." if refused else "."))
    if refused:
        sys.exit(1)


Notes = list[tuple[str, str]]  # place and reason
Tell = Callable[[str, str, str], None]


async def _send(queues: LocalQueue, name: str, given: Iterator[Entry | None], tell: Tell) -> tuple[int, Notes, Notes]:
    from triage.sources.queue_tables import Failed, Outgoing  # noqa: PLC0415

    await queues.ensure(name)
    sent, warned, refused = 0, Notes(), Notes()
    for batch in _batches(given):
        bodies = [entry for entry in batch if not entry.refused]
        answers = iter(await queues.send(name, [Outgoing(entry.body) for entry in bodies]))
        for entry in batch:
            reason, answer = entry.refused, None if entry.refused else next(answers)
            if isinstance(answer, Failed):
                reason = answer.detail
            if reason:
                refused.append((entry.place, reason))
                tell(entry.place, "refused", reason)
                continue
            sent += 1
            if doubt := _doubt(entry.body):
                warned.append((entry.place, doubt))
                tell(entry.place, "will be quarantined", doubt)
    return sent, warned, refused


def _batches(given: Iterator[Entry | None]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    for entry in given:
        if entry is not None:
            batch.append(entry)
        if batch and (entry is None or len(batch) == _AT_ONCE):
            yield batch
            batch = []
    if batch:
        yield batch


def _doubt(body: bytes) -> str:
    from triage.envelope import parse_body  # noqa: PLC0415
    from triage.errors import InvalidEnvelope  # noqa: PLC0415

    try:
        parse_body(body)
    except InvalidEnvelope as error:
        return str(error)
    return ""


def _tell(place: str, what: str, reason: str) -> None:
    click.echo(f"{show(place)}: {what}: {show(reason)}", err=True)


def _quiet(_place: str, _what: str, _reason: str) -> None:
    """The JSON tells it."""


@queue.command()
@click.option("--limit", default=10, show_default=True, type=click.IntRange(1, 10_000), help="Most messages to show.")
@_queue_option
@_json_option
@settings_option
def peek(*, settings: Settings, limit: int, name: str | None, as_json: bool) -> None:
    """Show the next messages without taking them.

    Those that are leased or delayed are not among them.
    """
    from triage.sources.local import instant  # noqa: PLC0415

    name = name or settings.queue.name
    messages = asyncio.run(_open(settings, lambda queues: queues.peek(name, limit=limit), must_exist=True))
    if as_json:
        print_json(
            [
                {
                    "message_id": message.message_id,
                    "enqueued_at": instant(message.enqueued_at),
                    "dequeue_count": message.dequeue_count,
                    "priority": message.priority,
                    "body": message.body,
                }
                for message in messages
            ]
        )
    elif messages:
        print_table(
            ("MESSAGE", "SENT", "DELIVERED", "BYTES", "BODY"),
            [
                (
                    message.message_id,
                    instant(message.enqueued_at),
                    message.dequeue_count,
                    len(message.body),
                    _start(message.body),
                )
                for message in messages
            ],
        )
    else:
        click.echo("Nothing waits in the queue.", err=True)


def _start(body: bytes) -> str:
    text = body[: 4 * _SHOWN].decode("utf-8", "replace")
    return text[:_SHOWN] + ("..." if len(text) > _SHOWN else "")


@queue.command()
@_queue_option
@_json_option
@settings_option
def stats(*, settings: Settings, name: str | None, as_json: bool) -> None:
    """Count the messages of each queue.

    Active ones can be received now, leased ones are with a consumer, delayed ones are not due yet.
    """
    from triage.sources.local import instant  # noqa: PLC0415

    async def count(queues: LocalQueue) -> list[dict[str, Any]]:
        names = [name] if name else [info.name for info in await queues.list_queues()]
        found = [(each, await queues.stats(each)) for each in names]
        return [
            {
                "queue": each,
                "active": one.active,
                "leased": one.inactive,
                "delayed": one.delayed,
                "oldest": None if one.oldest_at is None else instant(one.oldest_at),
            }
            for each, one in found
        ]

    rows = asyncio.run(_open(settings, count, must_exist=True))
    if as_json:
        print_json(rows)
    else:
        print_table(("QUEUE", "ACTIVE", "LEASED", "DELAYED", "OLDEST"), [tuple(row.values()) for row in rows])


@queue.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@_queue_option
@settings_option
def purge(*, settings: Settings, yes: bool, name: str | None) -> None:
    """Delete all messages of a queue.

    Those that are leased too. They cannot be brought back.
    """
    name = name or settings.queue.name
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody can be asked here; say --yes.")
        click.confirm(f"Delete all messages of queue {name!r} in {settings.queue.path}?", abort=True)
    count = asyncio.run(_open(settings, lambda queues: queues.purge(name), must_exist=True))
    click.echo(f"Deleted {_count(count, 'message')}.")


@queue.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=9335, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
@settings_option
def serve(*, settings: Settings, host: str, port: int) -> None:
    """Serve the queue over HTTP, as SMQ does.

    Official SDKs can then use it. Ctrl-C or SIGTERM stops.

    The access key id is "local"; its secret comes from $TRIAGE_QUEUE_SECRET, else from the file queue-secret in the
    state folder, which is made when it is missing.
    """
    secret, where = _secret(settings.state_dir)
    asyncio.run(_open(settings, lambda queues: _serve(queues, settings.queue.name, host, port, secret, where)))


async def _serve(  # noqa: PLR0917
    queues: LocalQueue, name: str, host: str, port: int, secret: str, where: str
) -> None:
    from aiohttp import web  # noqa: PLC0415

    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.cloud.signing import Credentials  # noqa: PLC0415
    from triage.emulator.smq import smq_routes  # noqa: PLC0415

    await queues.ensure(name)
    app = web.Application()
    known = {ACCESS_KEY_ID: Credentials(ACCESS_KEY_ID, secret)}
    app.add_routes(smq_routes(queues, credentials=known.get, clock=SystemClock()))
    # Long polls end with their client, and at once when we stop: their messages stay in the queue.
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        url = _url(runner.addresses[0])
        click.echo(f"Serving {queues.path} as SMQ at {url}")
        click.echo(f"Access key id {ACCESS_KEY_ID!r}; its secret is in {where}.")
        click.echo(f'With aliyun-mns-sdk: Account("{url}", "{ACCESS_KEY_ID}", secret).get_queue("{name}")')
        if not _loopback(host):
            click.echo("This is plain HTTP, and other machines may reach it.", err=True)
        sys.stdout.flush()
        await stop.wait()
    finally:
        await runner.cleanup()


def _url(address: Any) -> str:
    host, port = address[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _secret(state_dir: Path) -> tuple[str, str]:
    """The secret, and where a person finds it."""
    from triage.clock import token  # noqa: PLC0415

    if secret := os.environ.get(SECRET_VARIABLE, ""):
        return secret, f"${SECRET_VARIABLE}"
    path = state_dir / "queue-secret"
    state_dir.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        if not (secret := path.read_text(encoding="utf-8").strip()):
            raise click.ClickException(f"{path} is empty. Delete it to have a secret made.") from None
    else:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write((secret := token()) + "\n")
    return secret, str(path)


async def _open(
    settings: Settings, work: Callable[[LocalQueue], Awaitable[Answer]], *, must_exist: bool = False
) -> Answer:
    from triage.clock import SystemClock  # noqa: PLC0415
    from triage.sources.local import LocalQueue  # noqa: PLC0415

    if must_exist and not settings.queue.path.exists():
        raise click.ClickException(
            f"there is no queue yet at {settings.queue.path}. `triage queue send` and `triage run` make it."
        )
    queues = await LocalQueue.open(settings.queue.path, clock=SystemClock())
    try:
        return await work(queues)
    finally:
        await queues.close()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
