"""Access keys: one question at a time, off the loop, and no secret in any error. The vendor's package runs for real."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from triage.cloud.credentials import FRESH_FOR, ChainCredentials, StaticCredentials
from triage.cloud.signing import Credentials
from triage.errors import Misconfigured, Temporary


class HandClock:
    """A clock that stands until it is moved."""

    def __init__(self):
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self):
        return self.at


class Chain:
    """A place where keys come from: a new one each time, counted."""

    def __init__(self):
        self.connected, self.asked, self.threads, self.error = 0, 0, set(), None

    def connect(self):
        self.connected += 1
        return self.load

    def load(self):
        self.asked += 1
        self.threads.add(threading.get_ident())
        if self.error:
            raise self.error
        return Credentials(f"key-{self.asked}", "secret")


def test_static_credentials_survive_a_refresh():
    async def scenario():
        provider = StaticCredentials(Credentials("id", "secret"))
        await provider.refresh(await provider.get())
        return await provider.get()

    assert asyncio.run(scenario()) == Credentials("id", "secret")


def test_many_callers_cause_one_question_in_a_thread():
    async def scenario():
        chain = Chain()
        provider = ChainCredentials(HandClock(), connect=chain.connect)
        return chain, await asyncio.gather(*(provider.get() for _ in range(20)))

    chain, found = asyncio.run(scenario())
    assert {key.access_key_id for key in found} == {"key-1"}
    assert (chain.connected, chain.asked) == (1, 1)
    assert threading.get_ident() not in chain.threads


@pytest.mark.parametrize(
    ("age", "asked"),
    [(timedelta(0), 1), (FRESH_FOR - timedelta(seconds=1), 1), (FRESH_FOR, 2), (timedelta(hours=-1), 2)],
    ids=["at once", "fresh", "stale", "clock set back"],
)
def test_an_answer_is_used_for_a_while_and_then_asked_for_again(age, asked):
    async def scenario():
        chain, clock = Chain(), HandClock()
        provider = ChainCredentials(clock, connect=chain.connect)
        await provider.get()
        clock.at += age
        await provider.get()
        return chain

    chain = asyncio.run(scenario())
    assert (chain.connected, chain.asked) == (1, asked)


def test_callers_refused_with_one_key_cause_one_renewal():
    async def scenario():
        chain = Chain()
        provider = ChainCredentials(HandClock(), connect=chain.connect)
        old = await provider.get()

        async def refused():
            await provider.refresh(old)
            return await provider.get()

        return chain, await asyncio.gather(*(refused() for _ in range(5)))

    chain, found = asyncio.run(scenario())
    assert {key.access_key_id for key in found} == {"key-2"}
    assert (chain.connected, chain.asked) == (2, 2)


def test_a_failing_renewal_is_temporary_a_failing_start_is_not():
    async def scenario():
        chain = Chain()
        provider = ChainCredentials(HandClock(), connect=chain.connect)
        chain.error = Misconfigured("no_credentials", "none")
        with pytest.raises(Misconfigured):
            await provider.get()
        chain.error = None
        await provider.get()
        chain.error = Misconfigured("no_credentials", "none")
        await provider.refresh()
        with pytest.raises(Temporary) as caught:
            await provider.get()
        chain.error = None
        return caught.value.reason, await provider.get()

    reason, found = asyncio.run(scenario())
    assert reason == "credentials_unavailable"
    assert found.access_key_id == "key-4"


ASK = """
import asyncio, json, logging
from triage.clock import SystemClock
from triage.cloud.credentials import ChainCredentials
from triage.errors import Misconfigured

async def main():
    provider = ChainCredentials(SystemClock())
    for _ in range(2):
        try:
            found = await provider.get()
            print(json.dumps([found.access_key_id, found.access_key_secret, found.security_token]))
        except Misconfigured as error:
            print(json.dumps([error.reason, error.detail]))
        await provider.refresh()

asyncio.run(main())
print(json.dumps(logging.getLogger("credentials").handlers + logging.getLogger("alibabacloud-tea").handlers))
"""


def _ask(home, **environment):
    """Two answers of the vendor's chain in a process of its own (it reads the environment when imported)."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ASK],
        env={
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "true",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    first, second, handlers = map(json.loads, done.stdout.splitlines())
    assert handlers == []
    return first, second, done.stderr


def test_vendor_chain_reads_the_environment(tmp_path):
    key = {"ID": "id", "SECRET": "secret"}
    environment = {f"ALIBABA_CLOUD_ACCESS_KEY_{name}": value for name, value in key.items()}
    first, second, stderr = _ask(tmp_path, **environment, ALIBABA_CLOUD_SECURITY_TOKEN="token")
    assert first == second == ["id", "secret", "token"]
    assert stderr == ""


def test_no_key_anywhere_says_what_to_set(tmp_path):
    (reason, detail), second, stderr = _ask(tmp_path)
    assert reason == "no_credentials"
    assert second == [reason, detail]
    for word in ("ALIBABA_CLOUD_ACCESS_KEY_ID", "[credentials]", "tried EnvironmentVariable, CLIProfile, Profile"):
        assert word in detail
    assert stderr == ""


def test_renewal_over_http_leaks_no_secret_when_the_answer_is_broken(tmp_path):
    answers = iter(
        [
            {
                "Code": "Success",
                "AccessKeyId": "a",
                "AccessKeySecret": "b",
                "SecurityToken": "c",
                "Expiration": "2099-01-01T00:00:00Z",
            },
            {"Code": "Failure", "AccessKeyId": "a", "AccessKeySecret": "hunter2"},
        ]
    )

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(next(answers)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Keys) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            first, _, stderr = _ask(tmp_path, ALIBABA_CLOUD_CREDENTIALS_URI=f"http://127.0.0.1:{server.server_port}/")
        except subprocess.CalledProcessError as error:  # the renewal is Temporary, which the script lets through
            first, stderr = json.loads(error.stdout.splitlines()[0]), error.stderr
        finally:
            server.shutdown()
            thread.join()
    assert first == ["a", "b", "c"]
    assert "credentials_unavailable" in stderr
    assert "hunter2" not in stderr
