"""The policies in ``ops/`` allow what the clients call, and nothing else."""

import asyncio
import json
import re
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import unquote

import aiohttp
import pytest

from triage.clock import SystemClock
from triage.cloud.credentials import StaticCredentials
from triage.cloud.fc import FcClient
from triage.emulator.scenario import load_scenario
from triage.emulator.server import LOOPBACK_KEY, serve
from triage.envelope import FunctionRef
from triage.errors import Permanent
from triage.outbox import Invoker
from triage.sources import Source
from triage.sources.local import LocalQueue
from triage.sources.queue_tables import Outgoing
from triage.sources.reconcile import Tasks
from triage.sources.smq import SmqSource

OPS = Path(__file__).parents[2] / "ops"
SCENARIO = """
queues: [QUEUE]
functions:
  FUNCTION: &function
    async: {task: true, on_failure: QUEUE}
  SERVICE/FUNCTION: *function
"""
SECOND = timedelta(seconds=1)
FC, OLD = "acs:fc:REGION:ACCOUNT:functions/{}", "acs:fc:REGION:ACCOUNT:services/{}/functions/{}"
OLD_AT = "acs:fc:REGION:ACCOUNT:services/{0}.{2}/functions/{1}"

# What the vendor asks for which request. Queues: the reference of each operation, "Authorization". Functions: "Policies
# and sample policies", custom policies, of 3.0 and of 2.0. (The reference of some operations of 3.0 says "all
# resources" instead; that page of policies names resources for the same actions.)
ASKED = [
    (r"GET /queues/([^/]+)/messages\?.*numOfMessages=.*", "mns:BatchReceiveMessage", "acs:mns:REGION:ACCOUNT:/queues/{}/messages"),
    (r"GET /queues/([^/]+)/messages\?.*", "mns:ReceiveMessage", "acs:mns:REGION:ACCOUNT:/queues/{}/messages"),
    (r"PUT /queues/([^/]+)/messages\?.*", "mns:ChangeMessageVisibility", "acs:mns:REGION:ACCOUNT:/queues/{}/messages"),
    (r"DELETE /queues/([^/]+)/messages", "mns:BatchDeleteMessage", "acs:mns:REGION:ACCOUNT:/queues/{}/messages"),
    (r"POST /2023-03-30/functions/([^/]+)/invocations", "fc:InvokeFunction", FC),
    (r"POST /2023-03-30/functions/([^/]+)/invocations\?qualifier=(\w+)", "fc:InvokeFunction", FC + "/{}"),
    (r"GET /2023-03-30/functions/([^/]+)/async-invoke-config", "fc:GetFunctionAsyncInvokeConfig", FC),
    (r"GET /2023-03-30/functions/([^/]+)/async-invoke-config\?qualifier=(\w+)", "fc:GetFunctionAsyncInvokeConfig", FC + "/{}"),
    (r"GET /2023-03-30/functions/([^/]+)/async-tasks/([^/?]+)(?:\?.*)?", "fc:GetAsyncTask", FC + "/async-tasks/{}"),
    (r"GET /2023-03-30/functions/([^/]+)/async-tasks\?.*", "fc:ListAsyncTasks", FC + "/async-tasks/*"),
    (r"POST /2021-04-06/services/([^/]+)/functions/([^/]+)/invocations(?:\?.*)?", "fc:InvokeFunction", OLD),
    (r"GET /2021-04-06/services/([^/]+)/functions/([^/]+)/async-invoke-config", "fc:GetFunctionAsyncInvokeConfig", OLD),
    (r"GET /2021-04-06/services/([^/]+)/functions/([^/]+)/async-invoke-config\?qualifier=(\w+)", "fc:GetFunctionAsyncInvokeConfig", OLD_AT),
    (r"GET /2021-04-06/services/([^/]+)/functions/([^/]+)/stateful-async-invocations/([^/?]+)(?:\?.*)?", "fc:GetStatefulAsyncInvocation", OLD + "/stateful-async-invocations/{}"),
    (r"GET /2021-04-06/services/([^/]+)/functions/([^/]+)/stateful-async-invocations\?.*", "fc:ListStatefulAsyncInvocations", OLD + "/stateful-async-invocations/*"),
]  # fmt: skip


def needs(request):
    """Action and resource that the vendor's RAM looks at for a request."""
    found = [(action, resource.format(*match.groups())) for pattern, action, resource in ASKED if (match := re.fullmatch(pattern, request))]  # fmt: skip
    assert found, f"nothing is known of {request}: look it up, and add it here and to the policy"
    return found[0]


def statements(name):
    return json.loads((OPS / name).read_text(encoding="utf-8"))["Statement"]


def granting(statement, action, resource):
    """The patterns of a statement that allow this."""
    if action not in statement["Action"]:
        return []
    return [(action, pattern) for pattern in statement["Resource"] if fnmatchcase(resource, pattern)]


@asynccontextmanager
async def recorded(tmp_path):
    """An emulator, a session, and what goes over it."""
    requests = []

    async def record(request, handler):
        path = unquote(request.url.raw_path_qs)
        requests.append(f"{request.method} {path}")
        return await handler(request)

    queues = await LocalQueue.open(tmp_path / "queue.db", clock=SystemClock())
    try:
        async with (
            serve(load_scenario(SCENARIO), queues=queues, clock=SystemClock()) as far,
            aiohttp.ClientSession(middlewares=(record,)) as session,
        ):
            yield far, queues, session, requests
    finally:
        await queues.close()


async def use_queue(far, queues, session):
    """Every call of a source, and the single receive by which it gets past a message that cannot be read."""
    key = StaticCredentials(LOOPBACK_KEY)
    source = SmqSource(session, far.url, "QUEUE", name="q", credentials=key, clock=SystemClock())
    await queues.send("QUEUE", [Outgoing(b"{}")] * 3)
    calls = {
        "receive": lambda: source.receive(limit=16, wait=timedelta(0)),
        "extend": lambda: source.extend(held[0], 30 * SECOND),
        "ack": lambda: source.ack(held),
        "close": source.close,
    }
    assert set(calls) == {name for name in vars(Source) if not name.startswith("_")} - {"name", "destination", "lease"}
    held = await calls["receive"]()
    assert len(held) == 3
    assert await calls["extend"]()
    await calls["ack"]()
    await source.receive(limit=1, wait=timedelta(0))
    await calls["close"]()


async def use_functions(far, session, *functions):
    """Every call that the daemon makes of Function Compute."""
    client = FcClient(session, credentials=StaticCredentials(LOOPBACK_KEY), clock=SystemClock(), endpoint=far.url)
    calls = {
        "invoke_async": lambda function: client.invoke_async(function, b"{}", task_id="t-1"),
        "get_task": lambda function: client.get_task(function, "t-1"),
        "async_config": client.async_config,
        "list_tasks": client.list_tasks,
    }
    assert set(calls) == {name for seam in (Invoker, Tasks) for name in vars(seam) if not name.startswith("_")}
    for function in functions:
        for call in calls.values():
            with suppress(Permanent):  # the emulator knows no qualifiers; asked it was
                await call(function)


NEW = [FunctionRef("FUNCTION"), FunctionRef("FUNCTION", qualifier="prod")]
BEFORE = [FunctionRef("FUNCTION", service="SERVICE"), FunctionRef("FUNCTION", service="SERVICE", qualifier="prod")]


@pytest.mark.parametrize(
    ("policy", "functions", "queue"), [("ram-policy.json", NEW, True), ("ram-policy-fc2.json", BEFORE, False)]
)
def test_a_policy_allows_what_is_called_and_nothing_else(tmp_path, policy, functions, queue):
    async def scenario():
        async with recorded(tmp_path) as (far, queues, session, requests):
            if queue:
                await use_queue(far, queues, session)
            await use_functions(far, session, *functions)
            return requests

    granted = set()
    for request in asyncio.run(scenario()):
        action, resource = needs(request)
        by = [grant for statement in statements(policy) for grant in granting(statement, action, resource)]
        assert by, f"{request} needs {action} on {resource}"
        granted.update(by)
    all_of_it = {
        (action, where) for each in statements(policy) for action in each["Action"] for where in each["Resource"]
    }
    assert granted == all_of_it, "what is never needed is not allowed"
    assert all(each["Effect"] == "Allow" for each in statements(policy))


def test_the_page_shows_the_policies_as_they_are():
    text = (OPS.parent / "docs/explanation/security.md").read_text(encoding="utf-8")
    for action in {action for name in ("ram-policy.json", "ram-policy-fc2.json") for each in statements(name) for action in each["Action"]}:  # fmt: skip
        assert f"`{action}`" in text
