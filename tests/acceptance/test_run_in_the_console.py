"""Somebody runs a failed task again past triage, as the console does: with a new request, the same event."""

import asyncio
import json

import aiohttp
from processes import KEY_ID, SECRET, emulating, triage

from triage.clock import SystemClock
from triage.cloud.credentials import StaticCredentials
from triage.cloud.fc import FcClient
from triage.cloud.signing import Credentials
from triage.envelope import FunctionRef

SCENARIO = """\
speed: 100
functions:
  orders:
    async: {task: true, retries: 0, on_success: results, on_failure: results}
    behaviour:
      - {do: fail, payload: '*4711*', times: 2}
  timer:
    async: {task: true, retries: 0, on_success: results, on_failure: results}
    behaviour:
      - {do: fail, times: 1}
"""
RULES = """\
version: 1
rules:
  - id: tell
    alert: {to: default, group_wait: 0s}
"""
BROKEN = '{"order": "4711", "action": "ship"}'


def invoke(url, function, *events):
    """Invoke asynchronously, one after the other; the request ids."""

    async def main():
        async with aiohttp.ClientSession() as session:
            key = StaticCredentials(Credentials(KEY_ID, SECRET))
            client = FcClient(session, credentials=key, clock=SystemClock(), endpoint=url)
            answers = [await client.invoke_async(FunctionRef(function), event.encode(), task_id="") for event in events]
            return [answer.request_id for answer in answers]

    return asyncio.run(main())


def story(state, request_id):
    told = json.loads(triage("lineage", request_id, "--json", state=state))
    return told["state"], [(each["origin"], each["request_id"], each["result"]) for each in told["attempts"]]


def test_what_is_run_again_in_the_console_belongs_to_its_failure_and_a_timer_s_next_run_does_not(tmp_path):
    state = tmp_path / "state"
    (tmp_path / "rules.yaml").write_text(RULES)
    with (
        emulating(tmp_path, SCENARIO) as emulation,
        emulation.daemon(state, TRIAGE_RULES=str(tmp_path / "rules.yaml")) as daemon,
    ):
        daemon.until_logged("running: ")
        invoke(emulation.url, "orders", *(f'{{"order": "{number}", "action": "ship"}}' for number in range(4)))
        (root,) = invoke(emulation.url, "orders", BROKEN)
        daemon.until_taken(5)
        (first,) = invoke(emulation.url, "orders", BROKEN)
        daemon.until_taken(6)
        assert [each[:2] for each in story(state, root)[1]] == [("", root), ("elsewhere", first)]
        (second,) = invoke(emulation.url, "orders", BROKEN)
        daemon.until_taken(7)
        daemon.until(lambda: story(state, root)[0] == "healed")
        assert story(state, second)[1] == [
            ("", root, "failed"),
            ("elsewhere", first, "failed"),
            ("elsewhere", second, "ended"),
        ]
        (tick,) = invoke(emulation.url, "timer", '{"job": "nightly report"}')
        daemon.until_taken(8)
        (tock,) = invoke(emulation.url, "timer", '{"job": "nightly report"}')
        daemon.until_taken(9)
        assert story(state, tick)[1] == [("", tick, "failed")]
        assert f"may be a re-run of {tick} made elsewhere, but too few different events" in triage(
            "lineage", tock, state=state
        )
        triage("selfcheck", state=state)
