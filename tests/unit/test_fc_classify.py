"""What each answer of the FC API means: the error table of the vendor's documentation, row by row."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.cloud.fc_answers import Action, classify, error_of, read_async_config, read_task, read_task_page

TABLE = [
    (200, "", Action.OK, ""),
    (202, "", Action.OK, ""),
    (204, "", Action.OK, ""),
    (302, "", Action.REFUSE, "unexpected_answer"),
    (400, "InvalidArgument", Action.REFUSE, "bad_request"),
    (400, "MissingRequiredHeader", Action.REFUSE, "bad_request"),
    (400, "PathNotSupported", Action.REFUSE, "bad_request"),
    (400, "LimitExceededError", Action.REFUSE, "bad_request"),
    (400, "EntityTooLarge", Action.REFUSE, "too_large"),
    (400, "InvalidTimeStamp.Expired", Action.SET_CLOCK, "clock_skew"),
    (400, "InvalidSecurityToken.Expired", Action.REFRESH, "access_denied"),
    (401, "", Action.REFRESH, "access_denied"),
    (403, "AccessDenied", Action.REFRESH, "access_denied"),
    (403, "SignatureNotMatch", Action.REFRESH, "access_denied"),
    (403, "InvalidAccessKeyID", Action.REFRESH, "access_denied"),
    (404, "FunctionNotFound", Action.REFUSE, "not_found"),
    (404, "ServiceNotFound", Action.REFUSE, "not_found"),
    (404, "VersionNotFound", Action.REFUSE, "not_found"),
    (404, "AliasNotFound", Action.REFUSE, "not_found"),
    (404, "", Action.REFUSE, "not_found"),
    (404, "AsyncTaskNotFound", Action.ABSENT, "not_found"),
    (404, "StatefulAsyncInvocationNotFound", Action.ABSENT, "not_found"),
    (408, "", Action.UNKNOWN, "server_error"),
    (409, "StatefulAsyncInvocationAlreadyExists", Action.ALREADY, "known"),
    (409, "SomethingNew", Action.ALREADY, "known"),
    (409, "", Action.ALREADY, "known"),
    (409, "ConcurrentUpdateError", Action.RETRY, "conflict"),
    (412, "PreconditionFailed", Action.REFUSE, "bad_request"),
    (412, "CAExited", Action.REFUSE, "bad_request"),
    (413, "", Action.REFUSE, "too_large"),
    (429, "ResourceExhausted", Action.RETRY, "throttled"),
    (499, "ClientClosedRequest", Action.UNKNOWN, "server_error"),
    (500, "InternalServerError", Action.UNKNOWN, "server_error"),
    (502, "", Action.UNKNOWN, "server_error"),
    (503, "ResourceThrottled", Action.RETRY, "throttled"),
    (504, "", Action.UNKNOWN, "server_error"),
]


@pytest.mark.parametrize(("status", "code", "action", "reason"), TABLE)
def test_answers_mean_what_the_documentation_says(status, code, action, reason):
    verdict = classify(status, code, {})
    assert (verdict.action, verdict.reason, verdict.retry_after) == (action, reason, None)


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("1500", timedelta(seconds=1.5)),
        ("999999999999999999999", timedelta(hours=1)),
        ("0", None),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("٣", None),
    ],
)
@pytest.mark.parametrize("status", [400, 403, 429, 500, 503])
def test_any_error_with_the_throttling_header_is_throttling(status, value, wait):
    verdict = classify(status, "", {"x-acs-retry-after": value})
    assert (verdict.action, verdict.reason, verdict.retry_after) == (Action.RETRY, "throttled", wait)


def test_the_throttling_header_on_a_success_changes_nothing():
    assert classify(202, "", {"x-acs-retry-after": "100"}).action is Action.OK


@given(st.integers(100, 999), st.text(), st.dictionaries(st.just("x-acs-retry-after"), st.text()))
def test_every_answer_has_a_verdict_and_only_2xx_is_ok(status, code, headers):
    verdict = classify(status, code, headers)
    assert (verdict.action is Action.OK) == (200 <= status < 300)
    assert verdict.action is Action.OK or verdict.reason


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (b'{"Code":"A","Message":"b","RequestId":"c"}', ("A", "b")),
        (b'{"code":"A","message":"b"}', ("A", "b")),
        (b'{"ErrorCode":"A","ErrorMessage":"b"}', ("A", "b")),
        (b'{"errorCode":"A","errorMessage":"b"}', ("A", "b")),
        (b'{"Code":5}', ("5", "")),
        (b"<html>", ("", "")),
        (b"[1]", ("", "")),
        (b"\xff", ("", "")),
        (b"[" * 100_000, ("", "")),
        (b'{"Code":"' + b"x" * 5000 + b'"}', ("x" * 100, "")),
    ],
    ids=range(10),
)
def test_error_codes_are_read_in_every_spelling_and_never_fail(body, read):
    assert error_of(400, body) == read


def test_tasks_of_both_generations_are_read():
    new = read_task(
        {
            "taskId": "t",
            "requestId": "r",
            "status": "Failed",
            "startedTime": 1728465119433,
            "endTime": 0,
            "alreadyRetriedTimes": 1,
            "taskErrorMessage": "boom",
            "taskPayload": "{}",
            "destinationStatus": "Succeeded",
        }
    )
    assert new.started_at == datetime(2024, 10, 9, 9, 11, 59, 433000, UTC)
    assert (new.task_id, new.request_id, new.status, new.ended_at) == ("t", "r", "Failed", None)
    assert (new.retries, new.error, new.payload, new.destination_status) == (1, "boom", "{}", "Succeeded")
    old = read_task({"invocationId": "t", "status": "Stopped", "invocationErrorMessage": "e", "invocationPayload": "p"})
    assert (old.task_id, old.request_id, old.error, old.payload) == ("t", "", "e", "p")
    page = read_task_page({"nextToken": "n", "tasks": [{"taskId": "t", "status": "Running"}]})
    assert (page.next_token, [task.status for task in page.tasks]) == ("n", ["Running"])
    assert read_task_page({"invocations": None}).tasks == ()


def test_configuration_is_read():
    full = read_async_config(
        {
            "asyncTask": True,
            "maxAsyncRetryAttempts": 0,
            "maxAsyncEventAgeInSeconds": 60,
            "destinationConfig": {"onFailure": {"destination": "acs:mns:r:a:/queues/q/messages"}, "onSuccess": {}},
        }
    )
    assert full.async_task
    assert (full.retries, full.age) == (0, timedelta(minutes=1))
    assert (full.on_success, full.on_failure) == ("", "acs:mns:r:a:/queues/q/messages")
    empty = read_async_config({})
    assert (empty.async_task, empty.retries, empty.age, empty.on_failure) == (False, None, None, "")
