"""The FC API over HTTP: 2023-03-30 as the official SDK speaks it, and what triage needs of FC 2.0."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from aiohttp import web
from pydantic import ValidationError

from triage.clock import Clock
from triage.emulator.faults import Fault, Faults, faults_middleware
from triage.emulator.fc_auth import KeyLookup, SignedRequest, authenticate
from triage.emulator.platform import Platform, Refused, Task
from triage.emulator.results import Ending
from triage.emulator.scenario import AsyncConfig

MAX_BODY: Final = 32 << 20
"""Bytes of a synchronous event; the application's ``client_max_size`` must be above it."""

_Handle = Callable[[web.Request, bytes], Awaitable[web.Response]]
_QUEUE_ARN = re.compile(r"acs:mns:[^:]*:[^:]*:/queues/([A-Za-z][A-Za-z0-9-]{0,119})/messages")


def fc_routes(
    platform: Platform,
    *,
    credentials: KeyLookup,
    clock: Clock,
    faults: Faults | None = None,
    delay: timedelta = timedelta(seconds=1),
) -> list[web.RouteDef]:
    """Routes of both generations. Every request must be signed by a key that ``credentials`` knows.

    Faults are drawn under the names of the operations: ``InvokeFunction``, ``GetAsyncTask``, ``ListAsyncTasks``,
    ``StopAsyncTask``, ``GetFunction``, ``GetAsyncInvokeConfig``, ``PutAsyncInvokeConfig``,
    ``DeleteAsyncInvokeConfig``, ``ListAsyncInvokeConfigs``. ``delay`` is how late those are that are late.
    """
    api = _Api(platform, clock)

    def route(method: str, path: str, operation: str, handle: _Handle) -> web.RouteDef:
        async def handler(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            signed = SignedRequest(
                request.method, request.raw_path, {k.lower(): v.strip() for k, v in request.headers.items()}, body
            )
            try:
                authenticate(signed, credentials=credentials, now=clock.now())
                return await handle(request, body)
            except Refused as error:
                return api.refusal(request, error)

        if faults is None:
            return web.route(method, path, handler)
        middleware = faults_middleware(
            faults,
            operation=lambda _: operation,
            refuse=lambda request, fault: api.refusal(request, _FAULTS[fault]),
            clock=clock,
            delay=delay,
        )

        async def faulty(request: web.Request) -> web.StreamResponse:
            await request.read()  # what is carried out late must not be gone with a client that does not wait so long
            return await middleware(request, handler)

        return web.route(method, path, faulty)

    routes = [route("GET", "/2023-03-30/async-invoke-configs", "ListAsyncInvokeConfigs", api.list_configs)]
    for base, tasks, stop in (
        ("/2023-03-30/functions/{function}", "async-tasks", "/stop"),
        ("/{version:2016-08-15|2021-04-06}/services/{service}/functions/{function}", "stateful-async-invocations", ""),
    ):
        routes += [
            route("GET", base, "GetFunction", api.get_function),
            route("POST", f"{base}/invocations", "InvokeFunction", api.invoke),
            route("GET", f"{base}/{tasks}", "ListAsyncTasks", api.list_tasks),
            route("GET", f"{base}/{tasks}/{{task}}", "GetAsyncTask", api.get_task),
            route("PUT", f"{base}/{tasks}/{{task}}{stop}", "StopAsyncTask", api.stop_task),
            route("GET", f"{base}/async-invoke-config", "GetAsyncInvokeConfig", api.get_config),
            route("PUT", f"{base}/async-invoke-config", "PutAsyncInvokeConfig", api.put_config),
            route("DELETE", f"{base}/async-invoke-config", "DeleteAsyncInvokeConfig", api.delete_config),
        ]
    return routes


_FAULTS: Final[Mapping[Fault, Refused]] = {
    Fault.SERVER_ERROR: Refused(500, "InternalServerError", "injected fault"),
    Fault.THROTTLED: Refused(429, "ResourceExhausted", "injected fault"),
    Fault.CONFLICT: Refused(409, "AsyncTaskAlreadyExists", "injected fault"),
}


class _Api:
    """Operations: from request to `Platform` and back to JSON."""

    def __init__(self, platform: Platform, clock: Clock) -> None:
        self._platform, self._clock = platform, clock

    async def get_function(self, request: web.Request, _body: bytes) -> web.Response:
        name = _name(request)
        function = self._platform.function(name)
        return self._json(
            {
                "functionName": request.match_info["function"],
                "functionArn": self._platform.arn(name),
                "handler": "index.handler",
                "runtime": "custom",
                "memorySize": function.memory_mb,
                "timeout": int(function.timeout.total_seconds()),
                "state": "Active",
            }
        )

    async def invoke(self, request: web.Request, body: bytes) -> web.Response:
        headers = request.headers
        if headers.get("x-fc-invocation-type", "Sync").lower() == "sync":
            return self._called(*await self._platform.call(_name(request), body), headers.get("x-fc-log-type", ""))
        old = "service" in request.match_info
        task_id = headers.get("x-fc-stateful-async-invocation-id" if old else "x-fc-async-task-id", "")
        task = self._platform.submit(
            _name(request),
            body,
            qualifier=_qualifier(request),
            task_id=task_id,
            delay=timedelta(seconds=_integer(headers.get("x-fc-async-delay", "0"), "x-fc-async-delay")),
            keep=old and headers.get("x-fc-stateful-async-invocation-enable", "").lower() == "true",
        )
        answer = {"x-fc-request-id": task.request_id}
        if task.listed:
            answer["x-fc-stateful-async-invocation-id" if old else "x-fc-async-task-id"] = task.task_id
        return web.Response(status=202, headers=answer)

    async def get_task(self, request: web.Request, _body: bytes) -> web.Response:
        return self._json(self._task(self._known(request), old="service" in request.match_info, payload=True))

    async def list_tasks(self, request: web.Request, _body: bytes) -> web.Response:
        query, old = request.query, "service" in request.match_info
        prefix = query.get("invocationIdPrefix" if old else "prefix", "")
        begin, end = (_integer(query.get(name, "0"), name) for name in ("startedTimeBegin", "startedTimeEnd"))
        descending = query.get("sortOrderByTime", "desc") != "asc"
        limit = _integer(query.get("limit", "20"), "limit")
        if not 1 <= limit <= 100:
            raise Refused(400, "InvalidArgument", "limit must be between 1 and 100")
        after = _integer(query.get("nextToken") or "0", "nextToken")
        found = [
            task
            for task in self._platform.tasks(_name(request))
            if task.task_id.startswith(prefix)
            and (not query.get("status") or task.status == query["status"])
            and (not _qualifier(request) or task.qualifier in ("", _qualifier(request)))
            and begin <= _milliseconds(task.started_at.timestamp()) <= (end or float("inf"))
            and (not after or (task.number < after if descending else task.number > after))
        ]
        found.sort(key=lambda task: task.number, reverse=descending)
        page = found[:limit]
        payload = query.get("includePayload", "").lower() == "true"
        answer: dict[str, Any] = {
            "invocations" if old else "tasks": [self._task(task, old=old, payload=payload) for task in page]
        }
        if len(found) > limit:
            answer["nextToken"] = str(page[-1].number)
        return self._json(answer)

    async def stop_task(self, request: web.Request, _body: bytes) -> web.Response:
        self._platform.stop(_name(request), self._known(request).task_id)
        return web.Response(status=204, headers={"x-fc-request-id": self._platform.request_id()})

    async def get_config(self, request: web.Request, _body: bytes) -> web.Response:
        name, qualifier = _name(request), _qualifier(request)
        found = dict(self._platform.configs(name))
        if qualifier not in found:
            raise Refused(404, "AsyncConfigNotExists", f"function '{name}' has no such configuration")
        return self._json(self._config(name, qualifier, found[qualifier]))

    async def put_config(self, request: web.Request, body: bytes) -> web.Response:
        name, qualifier = _name(request), _qualifier(request)
        config = _read_config(body)
        self._platform.configure(name, qualifier, config)
        return self._json(self._config(name, qualifier, config))

    async def delete_config(self, request: web.Request, _body: bytes) -> web.Response:
        self._platform.configure(_name(request), _qualifier(request), None)
        return web.Response(status=204, headers={"x-fc-request-id": self._platform.request_id()})

    async def list_configs(self, request: web.Request, _body: bytes) -> web.Response:
        wanted = request.query.get("functionName", "")
        names = [wanted] if wanted else [name for name in self._platform.scenario.functions if "/" not in name]
        configs = [
            self._config(name, qualifier, config)
            for name in names
            for qualifier, config in self._platform.configs(name)
        ]
        return self._json({"configs": configs})

    def refusal(self, request: web.Request, error: Refused) -> web.Response:
        """The API's error answer, in the form of its generation."""
        request_id = self._platform.request_id()
        if "service" in request.match_info:
            body = {"ErrorCode": error.code, "ErrorMessage": error.message}
        else:
            body = {"Code": error.code, "Message": error.message, "RequestId": request_id}
        return web.json_response(body, status=error.status, headers={"x-fc-request-id": request_id})

    def _known(self, request: web.Request) -> Task:
        task = self._platform.task(_name(request), request.match_info["task"])
        if task is None:
            code = "StatefulAsyncInvocationNotFound" if "service" in request.match_info else "AsyncTaskNotFound"
            raise Refused(404, code, "there is no such task")
        return task

    def _json(self, data: Mapping[str, Any]) -> web.Response:
        return web.json_response(data, headers={"x-fc-request-id": self._platform.request_id()})

    def _called(self, request_id: str, end: Ending, log_type: str) -> web.Response:
        headers = {"x-fc-request-id": request_id, "content-type": "application/octet-stream"}
        if end.failed:
            headers["x-fc-error-type"] = end.function_error or end.condition
        if log_type.lower() == "tail":
            text = f"FC Invoke Start RequestId: {request_id}\nFC Invoke End RequestId: {request_id}\n"
            headers["x-fc-log-result"] = base64.b64encode(text.encode()).decode()
        return web.Response(status=end.status, body=end.payload.encode("utf-8", "replace"), headers=headers)

    def _task(self, task: Task, *, old: bool, payload: bool) -> dict[str, Any]:
        end = task.result
        error = end.payload or end.condition if end and end.failed else ""
        data = {
            "invocationId" if old else "taskId": task.task_id,
            "requestId": task.request_id,
            "functionArn": self._platform.arn(task.function),
            "qualifier": task.qualifier or "LATEST",
            "status": task.status,
            "startedTime": _milliseconds(task.started_at.timestamp()),
            "endTime": _milliseconds(task.ended_at.timestamp()) if task.ended_at else 0,
            "durationMs": _milliseconds(task.lasted.total_seconds()),
            "alreadyRetriedTimes": max(task.attempts - 1, 0),
            "destinationStatus": task.destination_status,
            "invocationErrorMessage" if old else "taskErrorMessage": error,
            "events": [
                {"eventId": number, "status": status, "timestamp": _milliseconds(at.timestamp()), "eventDetail": ""}
                for number, (status, at) in enumerate(task.events, start=1)
            ],
        }
        if payload:
            data["invocationPayload" if old else "taskPayload"] = task.event.decode("utf-8", "replace")
            data["returnPayload"] = end.payload if end else ""
        return data

    def _config(self, name: str, qualifier: str, config: AsyncConfig) -> dict[str, Any]:
        queues = f"acs:mns:{self._platform.scenario.region}:{self._platform.scenario.account}:/queues"
        destinations = {
            key: {"destination": f"{queues}/{queue}/messages"}
            for key, queue in (("onSuccess", config.on_success), ("onFailure", config.on_failure))
            if queue
        }
        arn = self._platform.arn(name)
        return {
            "statefulInvocation" if "/" in name else "asyncTask": config.task,
            "functionArn": f"{arn}/{qualifier}" if qualifier else arn,
            "maxAsyncEventAgeInSeconds": int(config.age.total_seconds()),
            "maxAsyncRetryAttempts": config.retries,
            "destinationConfig": destinations,
        }


def _name(request: web.Request) -> str:
    function = request.match_info["function"]
    service = request.match_info.get("service", "").partition(".")[0]
    return f"{service}/{function}" if service else function


def _qualifier(request: web.Request) -> str:
    """Version or alias; LATEST is what one gets without."""
    dotted = request.match_info.get("service", "").partition(".")[2]
    qualifier = request.query.get("qualifier") or dotted
    return "" if qualifier == "LATEST" else qualifier


def _integer(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise Refused(400, "InvalidArgument", f"{name} must be a whole number")
    return int(text)


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _read_config(body: bytes) -> AsyncConfig:
    try:
        data = json.loads(body)
        destinations = data.get("destinationConfig") or {}
        queues = {
            ours: _queue((destinations.get(theirs) or {}).get("destination"))
            for ours, theirs in (("on_success", "onSuccess"), ("on_failure", "onFailure"))
        }
        return AsyncConfig.model_validate(
            {
                "task": bool(data.get("asyncTask") or data.get("statefulInvocation")),
                "retries": data.get("maxAsyncRetryAttempts", 3),
                "age": data.get("maxAsyncEventAgeInSeconds", 86400),
                **queues,
            }
        )
    except (ValueError, AttributeError, RecursionError, ValidationError) as error:
        raise Refused(400, "InvalidArgument", str(error)[:300]) from None


def _queue(arn: str | None) -> str | None:
    if not arn:
        return None
    match = _QUEUE_ARN.fullmatch(arn)
    if match is None:
        raise ValueError(f"destination {arn[:100]!r}: here only acs:mns:REGION:ACCOUNT:/queues/NAME/messages is known")
    return match[1]
