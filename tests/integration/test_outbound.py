"""The guard before real connections: those of apprise's libraries, and those of our own session."""

import asyncio
import socket
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver

from triage.alerts.delivery import Result
from triage.clock import SystemClock
from triage.notify import AppriseNotifier, Notification, ReceiverConfig
from triage.outbound import Guard, GuardedResolver, guarding, session

# apprise's own imports, on Python 3.11 and 3.12.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

NOTE = Notification("ops", "a title", "a text", "warning")
METADATA = "http://100.100.100.200/latest/meta-data/ram/security-credentials/"


@asynccontextmanager
async def hooks(*, redirect=""):
    """A server that takes everything, or sends whoever asks elsewhere; its port, and what it was asked for."""
    asked = []

    async def answer(request):
        asked.append(request.path)
        if redirect:
            raise web.HTTPTemporaryRedirect(redirect)
        return web.Response(text="taken")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1], asked
    finally:
        await runner.cleanup()


async def told(url, guard):
    receivers = {"ops": ReceiverConfig((url,))}
    notifier = await asyncio.to_thread(AppriseNotifier.load, receivers, clock=SystemClock(), guard=guard)
    (answer,) = (await notifier.send(NOTE)).values()
    return answer.result


@pytest.mark.parametrize(
    ("host", "allow", "result"),
    [
        ("127.0.0.1", (), Result.SENT),
        ("localhost", (), Result.SENT),
        ("localhost", ("localhost",), Result.SENT),
        ("localhost", ("127.0.0.0/8", "::1"), Result.SENT),
        ("127.0.0.1", ("127.0.0.1",), Result.SENT),
        ("127.0.0.1", ("localhost",), Result.FAILED),
        ("localhost", ("*.aliyuncs.com", "10.0.0.0/8"), Result.FAILED),
    ],
)
def test_a_receiver_is_told_where_that_is_allowed(host, allow, result, caplog):
    async def scenario():
        async with hooks() as (port, asked):
            assert await told(f"json://{host}:{port}/hook", Guard.of(allow)) is result
            assert bool(asked) is (result is Result.SENT)

    asyncio.run(scenario())
    assert ("is not in outbound.allow" in caplog.text) is (result is Result.FAILED)


@pytest.mark.parametrize("target", [METADATA, "http://169.254.169.254/", "http://[::ffff:100.100.100.200]/"])
def test_a_receiver_that_sends_us_to_the_metadata_is_not_followed(target, caplog):
    async def scenario():
        async with hooks(redirect=target) as (port, asked):
            assert await told(f"json://127.0.0.1:{port}/hook", Guard()) is Result.FAILED
            assert asked == ["/hook"]

    asyncio.run(scenario())
    assert "receiver ops: " in caplog.text
    assert "is a link-local or metadata address, which nothing is sent to" in caplog.text


def test_mail_goes_through_the_guard_too(caplog):
    async def scenario():
        url = "mailto://someone:secret@example.com?smtp=169.254.1.1&port=25&to=ops@example.com"
        assert await told(url, Guard()) is Result.FAILED

    asyncio.run(scenario())
    assert "169.254.1.1 is a link-local or metadata address" in caplog.text


def test_the_guard_ends_with_its_block_and_minds_only_its_own_thread():
    with socket.create_server(("127.0.0.1", 0)) as server, guarding(Guard.of(("10.0.0.0/8",))) as refused:
        address = server.getsockname()
        with pytest.raises(PermissionError):
            socket.create_connection(address)
        assert len(refused) == 1

        async def elsewhere():
            (await asyncio.to_thread(socket.create_connection, address)).close()

        asyncio.run(elsewhere())
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()


class Fixed(AbstractResolver):
    """Knows one answer."""

    def __init__(self, *addresses):
        self._addresses = addresses

    async def resolve(self, host, port=0, family=socket.AF_INET):
        return [
            {"hostname": host, "host": each, "port": port, "family": family, "proto": 0, "flags": 0}
            for each in self._addresses
        ]

    async def close(self):
        pass


def test_a_name_that_resolves_to_the_metadata_is_no_endpoint():
    async def scenario():
        resolver = GuardedResolver(Guard(), Fixed("100.100.100.200"))
        connector = aiohttp.TCPConnector(resolver=resolver)
        async with aiohttp.ClientSession(connector=connector) as client:
            with pytest.raises(aiohttp.ClientConnectorError, match=r"innocent\.example"):
                await client.get("http://innocent.example/")
        both = GuardedResolver(Guard(), Fixed("100.100.100.200", "203.0.113.5"))
        assert [each["host"] for each in await both.resolve("two.example")] == ["203.0.113.5"]

    asyncio.run(scenario())


@pytest.mark.parametrize("url", [METADATA, "http://169.254.169.254/", "http://[fe80::1]/"])
def test_an_address_that_is_refused_is_no_endpoint(url):
    async def scenario():
        async with session(Guard(), limit=1) as client:
            with pytest.raises(aiohttp.InvalidURL, match="link-local or metadata"):
                await client.get(url)

    asyncio.run(scenario())


def test_an_endpoint_on_the_list_is_asked():
    async def scenario():
        async with hooks() as (port, _), session(Guard.of(("localhost",)), limit=1) as client:
            async with client.get(f"http://localhost:{port}/") as answer:
                assert await answer.text() == "taken"
            with pytest.raises(aiohttp.InvalidURL, match=r"not in outbound\.allow"):
                await client.get(f"http://127.0.0.1:{port}/")

    asyncio.run(scenario())
