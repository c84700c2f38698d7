"""The vendor's own FC 3.0 SDK against the emulator, as a client that was not written by us; every request is signed."""

import asyncio
import json
import time
from collections import deque
from datetime import timedelta

import pytest

from triage.clock import SystemClock
from triage.emulator.scenario import load_scenario
from triage.emulator.server import LOOPBACK_KEY, serve
from triage.envelope import Outcome, parse_body
from triage.sources.local import LocalQueue

SCENARIO = """
speed: 1000
functions:
  job:
    async: {task: true, retries: 1, on_failure: results}
    behaviour: [{do: timeout, payload: "*failure*"}]
  slow:
    timeout: 60d
    takes: 50d
    async: {task: true, on_failure: results}
  sync:
    behaviour:
    - {do: fail, payload: bad, message: no}
    - {do: throttled, payload: busy}
"""


@pytest.fixture(scope="module")
def sdk():
    from alibabacloud_fc20230330 import models
    from alibabacloud_fc20230330.client import Client
    from alibabacloud_tea_openapi.exceptions import AlibabaCloudException
    from alibabacloud_tea_openapi.utils_models import Config
    from darabonba.runtime import RuntimeOptions

    class Sdk:
        error = AlibabaCloudException
        m = models

        def __init__(self, url, secret=LOOPBACK_KEY.access_key_secret):
            config = Config(
                access_key_id=LOOPBACK_KEY.access_key_id,
                access_key_secret=secret,
                endpoint=url.removeprefix("http://"),
                protocol="http",
            )
            self.client = Client(config)

        def invoke(self, function, body, qualifier=None, **headers):
            return self.client.invoke_function_with_options(
                function,
                models.InvokeFunctionRequest(body=body, qualifier=qualifier),
                models.InvokeFunctionHeaders(**headers),
                RuntimeOptions(),
            )

        def invoke_async(self, function, body, task_id=None, **headers):
            return self.invoke(function, body, x_fc_invocation_type="Async", x_fc_async_task_id=task_id, **headers)

    return Sdk


def against_emulator(tmp_path, use):
    """Run ``use(url, emulator, loop)`` in a thread, since the SDK blocks."""

    async def main():
        queues = await LocalQueue.open(tmp_path / "queue.db", clock=SystemClock())
        try:
            async with serve(load_scenario(SCENARIO), queues=queues, clock=SystemClock()) as emulator:
                loop = asyncio.get_running_loop()
                await asyncio.to_thread(
                    use, emulator, lambda work: asyncio.run_coroutine_threadsafe(work, loop).result()
                )
        finally:
            await queues.close()

    asyncio.run(main())


async def results(emulator, count):
    found = deque()
    while len(found) < count:
        found += await emulator.queues.receive("results", limit=1, wait=timedelta(seconds=10))
    return [parse_body(message.body) for message in found]


def test_asynchronous_tasks(tmp_path, sdk):
    def use(emulator, wait):
        client, m = sdk(emulator.url), sdk.m
        accepted = client.invoke_async("job", b'{"failure":true}', "redo-1")
        assert accepted.status_code == 202
        request_id = accepted.headers["x-fc-request-id"]
        assert accepted.headers["x-fc-async-task-id"] == "redo-1"
        with pytest.raises(sdk.error) as caught:
            client.invoke_async("job", b'{"failure":true}', "redo-1")
        assert caught.value.status_code == 409
        named = client.invoke_async("job", b"fine")
        assert named.headers["x-fc-async-task-id"] == named.headers["x-fc-request-id"]
        wait(emulator.fc.settled())
        task = client.client.get_async_task("job", "redo-1", m.GetAsyncTaskRequest()).body
        assert (task.status, task.request_id, task.already_retried_times) == ("Failed", request_id, 1)
        assert (task.task_payload, task.destination_status) == ('{"failure":true}', "Succeeded")
        assert "timed out after 60 seconds" in task.task_error_message
        assert task.started_time / 1000 == pytest.approx(time.time(), abs=60)
        assert task.duration_ms == 120_000
        assert [event.status for event in task.events] == ["Enqueued", "Running", "Retrying", "Running", "Failed"]
        listed = client.client.list_async_tasks(
            "job", m.ListAsyncTasksRequest(status="Failed", include_payload=True, limit=100, started_time_begin=1)
        ).body
        assert [(entry.task_id, entry.task_payload) for entry in listed.tasks] == [("redo-1", '{"failure":true}')]
        [envelope] = wait(results(emulator, 1))
        assert (envelope.request_id, envelope.outcome, envelope.invoke_count) == (request_id, Outcome.FAILED, 2)

    against_emulator(tmp_path, use)


def test_listing_page_by_page(tmp_path, sdk):
    def use(emulator, wait):
        client, m = sdk(emulator.url), sdk.m
        for number in range(5):
            client.invoke_async("job", b"fine", f"t{number}")
        seen, token = [], None
        while True:
            request = m.ListAsyncTasksRequest(limit=2, next_token=token, sort_order_by_time="asc", prefix="t")
            page = client.client.list_async_tasks("job", request).body
            seen += [task.task_id for task in page.tasks]
            token = page.next_token
            if not token:
                break
        assert seen == ["t0", "t1", "t2", "t3", "t4"]
        with pytest.raises(sdk.error, match="limit"):
            client.client.list_async_tasks("job", m.ListAsyncTasksRequest(limit=101))

    against_emulator(tmp_path, use)


def test_stopping(tmp_path, sdk):
    def use(emulator, wait):
        client, m = sdk(emulator.url), sdk.m
        client.invoke_async("slow", b"{}", "t")
        assert client.client.stop_async_task("slow", "t", m.StopAsyncTaskRequest()).status_code == 204
        wait(emulator.fc.settled())
        assert client.client.get_async_task("slow", "t", m.GetAsyncTaskRequest()).body.status == "Stopped"
        [envelope] = wait(results(emulator, 1))
        assert (envelope.condition, envelope.status_code, envelope.response_payload) == ("", 200, "")
        with pytest.raises(sdk.error) as caught:
            client.client.stop_async_task("slow", "unknown", m.StopAsyncTaskRequest())
        assert (caught.value.status_code, caught.value.code) == (404, "AsyncTaskNotFound")

    against_emulator(tmp_path, use)


def test_configuration_of_asynchronous_invocations(tmp_path, sdk):
    queue = "acs:mns:cn-hangzhou:1000000000000001:/queues/results/messages"

    def use(emulator, wait):
        client, m = sdk(emulator.url), sdk.m
        with pytest.raises(sdk.error) as caught:
            client.client.get_async_task("sync", "t", m.GetAsyncTaskRequest())
        assert caught.value.code == "AsyncTaskNotFound"
        written = client.client.put_async_invoke_config(
            "sync",
            m.PutAsyncInvokeConfigRequest(
                body=m.PutAsyncInvokeConfigInput(
                    async_task=True,
                    max_async_retry_attempts=0,
                    max_async_event_age_in_seconds=60,
                    destination_config=m.DestinationConfig(on_failure=m.Destination(destination=queue)),
                )
            ),
        ).body
        read = client.client.get_async_invoke_config("sync", m.GetAsyncInvokeConfigRequest()).body
        for config in (written, read):
            assert (config.async_task, config.max_async_retry_attempts) == (True, 0)
            assert config.max_async_event_age_in_seconds == 60
            assert config.destination_config.on_failure.destination == queue
        client.invoke_async("sync", b"bad", "t")
        [envelope] = wait(results(emulator, 1))
        assert (envelope.invoke_count, envelope.error.message) == (1, "no")
        configs = client.client.list_async_invoke_configs(m.ListAsyncInvokeConfigsRequest(function_name="sync")).body
        assert [config.function_arn.rpartition("/")[2] for config in configs.configs] == ["sync"]
        client.client.delete_async_invoke_config("sync", m.DeleteAsyncInvokeConfigRequest())
        with pytest.raises(sdk.error) as caught:
            client.client.get_async_invoke_config("sync", m.GetAsyncInvokeConfigRequest())
        assert caught.value.status_code == 404
        bad = m.DestinationConfig(on_failure=m.Destination(destination="acs:fc:r:a:functions/f"))
        with pytest.raises(sdk.error, match="destination"):
            client.client.put_async_invoke_config(
                "sync", m.PutAsyncInvokeConfigRequest(body=m.PutAsyncInvokeConfigInput(destination_config=bad))
            )

    against_emulator(tmp_path, use)


def test_synchronous_invocation_and_the_function_itself(tmp_path, sdk):
    def use(emulator, wait):
        client, m = sdk(emulator.url), sdk.m
        answer = client.invoke("sync", b"echo", x_fc_log_type="Tail")
        assert (answer.status_code, answer.body.read()) == (200, b"echo")
        assert answer.headers["x-fc-log-result"]
        failed = client.invoke("sync", b"bad")
        assert failed.headers["x-fc-error-type"]
        assert json.loads(failed.body.read())["errorMessage"] == "no"
        with pytest.raises(sdk.error) as caught:
            client.invoke("sync", b"busy")
        assert (caught.value.status_code, caught.value.code) == (429, "ResourceExhausted")
        assert client.client.get_function("sync", m.GetFunctionRequest()).body.timeout == 60

    against_emulator(tmp_path, use)


def test_a_delayed_invocation_waits(tmp_path, sdk):
    def use(emulator, wait):
        client, m = sdk(emulator.url), sdk.m
        client.invoke_async("job", b"fine", "t", common_headers={"x-fc-async-delay": "3600"})
        assert client.client.get_async_task("job", "t", m.GetAsyncTaskRequest()).body.status == "Enqueued"
        client.client.stop_async_task("job", "t", m.StopAsyncTaskRequest())
        with pytest.raises(sdk.error, match="delay"):
            client.invoke_async("job", b"fine", "t2", common_headers={"x-fc-async-delay": "3601"})

    against_emulator(tmp_path, use)


def test_a_wrong_secret_is_refused(tmp_path, sdk):
    def use(emulator, wait):
        with pytest.raises(sdk.error) as caught:
            sdk(emulator.url, secret="wrong").invoke_async("job", b"{}")
        assert (caught.value.status_code, caught.value.code) == (403, "SignatureNotMatch")
        assert not emulator.fc.submits

    against_emulator(tmp_path, use)
