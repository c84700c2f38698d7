"""Scenarios: what they say, the mistakes in them, and the messages that follow in the vendor's words."""

import base64
import json
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import pytest

from triage.emulator.results import destination_message, ending, queue_body
from triage.emulator.scenario import (
    Crash,
    Exhausted,
    Fail,
    Function,
    Runtime,
    Succeed,
    Throttled,
    TimeOut,
    load_scenario,
)
from triage.envelope import Outcome, parse_body
from triage.errors import ConfigInvalid

SAMPLES = Path(__file__).parents[1] / "data" / "samples"

TEXT = """
speed: 200
account: "1034354682000000"
queues: [spare]
functions:
  my-fc-job:
    timeout: 1m
    async: {task: true, retries: 1, on_success: done, on_failure: results}
    behaviour:
      - {do: timeout, times: 2}
      - {do: fail, payload: '*poison*', type: ValueError, message: bad, runtime: java}
  service/old:
invoke:
  - {function: my-fc-job, payload: '{"failure":true}', count: 2, after: 3s}
"""


def test_a_scenario_is_read():
    scenario = load_scenario(TEXT)
    function = scenario.functions["my-fc-job"]
    assert function.timeout == timedelta(minutes=1)
    assert function.asynchronous.task
    assert function.behaviour == (
        TimeOut(times=2),
        Fail(payload="*poison*", type="ValueError", message="bad", runtime=Runtime.JAVA),
    )
    assert scenario.functions["service/old"] == Function()
    assert scenario.all_queues == ("spare", "results", "done")
    assert (scenario.invoke[0].count, scenario.invoke[0].after) == (2, timedelta(seconds=3))


def test_nothing_is_a_scenario_without_functions():
    assert load_scenario("").functions == {}


def test_the_shipped_example_can_be_read():
    text = files("triage.emulator").joinpath("example.yaml").read_text()
    assert load_scenario(text).invoke


def test_the_documented_scenario_can_be_read():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "emulator.md").read_text()
    block = page.split("<!-- scenario -->\n```yaml\n")[1].split("```")[0]
    assert set(load_scenario(block).functions) == {"my-fc-job", "my-service/old-job"}


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: [", "1:5", "not valid YAML"),
        ("speed: fast", "1:8", "number"),
        ("functons: {}", "1:1", "did you mean 'functions'?"),
        ("- 1", "1:1", "expected a mapping"),
        ("account: 12", "1:10", "put it in quotes"),
        ("speed: 1\nspeed: 2", "2:1", "twice"),
        ("functions: {'a b': {}}", "1:13", "not a valid name"),
        ("functions:\n  f: {timeout: soon}", "2:16", "expected a duration"),
        ("functions:\n  f: {timeout: 0s}", "2:16", "greater than"),
        ("functions:\n  f:\n    behaviour:\n    - {do: explode}", "4:7", "do: succeed, fail, timeout"),
        ("functions:\n  f:\n    behaviour:\n    - {times: 1}", "4:7", "do: succeed, fail, timeout"),
        ("functions:\n  f:\n    behaviour:\n    - {do: fail, tpye: x}", "4:18", "did you mean 'type'?"),
        ("functions:\n  f: {async: {retries: 9}}", "2:24", "less than or equal to 8"),
        ("invoke:\n- {function: nope}", "1:1", "there is no function 'nope'"),
        ("[" * 100_000, "1:66", "nested deeper"),
    ],
)
def test_mistakes_are_told_with_their_place(text, place, words):
    with pytest.raises(ConfigInvalid) as caught:
        load_scenario(text, name="s.yaml")
    told = str(caught.value)
    assert f"s.yaml:{place}: " in told
    assert words in told


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigInvalid) as caught:
        load_scenario("speed: 0\nbody: xml\nqueues: [1x]")
    assert [problem.line for problem in caught.value.problems] == [1, 2, 3]


@pytest.mark.parametrize(
    ("step", "event", "used", "applies"),
    [
        (Succeed(), "anything", 10**9, True),
        (Fail(times=2), "e", 1, True),
        (Fail(times=2), "e", 2, False),
        (Fail(payload="*poison*"), '{"a":"poison"}', 0, True),
        (Fail(payload="*poison*"), "{}", 0, False),
    ],
)
def test_steps_apply_by_event_and_use(step, event, used, applies):
    assert step.applies(event, used) is applies


FUNCTION = Function(timeout=timedelta(seconds=60), takes=timedelta(seconds=2), memory_mb=8)
NOW = datetime(2024, 10, 9, 9, 11, 59, 433000, UTC)


def end_of(step, event='{"failure":true}'):
    return ending(step, FUNCTION, event=event, error_class="InvocationError")


def message(step, attempts=2):
    return destination_message(
        end_of(step),
        request_id="1-670648a1-15197d0b-d07710222f9d",
        function_arn="acs:fc:cn-hangzhou:1034354682****:functions/my-fc-job",
        event='{"failure":true}',
        attempts=attempts,
        at=NOW,
    )


def test_a_time_out_gives_the_published_message():
    assert json.loads(message(TimeOut())) == json.loads((SAMPLES / "01_fc3_timeout.json").read_text())


def test_work_longer_than_the_time_out_times_out():
    assert end_of(Succeed(takes=timedelta(seconds=61))) == end_of(TimeOut())


def test_a_shortage_of_instances_gives_the_published_message():
    published = json.loads((SAMPLES / "02_fc3_doc_template_resource_exhausted.json").read_text())
    given = json.loads(message(Exhausted()))
    assert given["requestContext"]["condition"] == published["requestContext"]["condition"]
    assert given["responseContext"] == published["responseContext"]
    assert given["responsePayload"] == published["responsePayload"]


def test_a_success_leaves_all_fields_empty_and_returns_the_event():
    given = json.loads(message(Succeed()))
    assert given["requestContext"]["condition"] == ""
    assert given["responseContext"] == {"statusCode": 200, "functionError": ""}
    assert given["responsePayload"] == '{"failure":true}'
    assert json.loads(message(Succeed(returns="ok")))["responsePayload"] == "ok"


@pytest.mark.parametrize(
    ("step", "sample"),
    [
        (Fail(type="Exception", message="something is wrong", runtime=Runtime.PYTHON), "python_exception"),
        (Fail(type="Error", message="oops", runtime=Runtime.NODEJS), "nodejs_exception"),
        (Crash(), "process_exit"),
        (TimeOut(), "timeout"),
    ],
)
def test_error_objects_have_the_published_shape(step, sample):
    published = json.loads((SAMPLES / "payloads" / f"{sample}.json").read_text())
    given = json.loads(end_of(step).payload)
    assert shape(given) == shape(published)
    assert given.get("errorType") == published.get("errorType")


def shape(value):
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return [shape(item) for item in value[:1]] if isinstance(value, list) else type(value)


@pytest.mark.parametrize("runtime", list(Runtime))
def test_our_own_reader_understands_every_runtime(runtime):
    envelope = parse_body(message(Fail(type="Boom", message="it broke", runtime=runtime)))
    assert envelope.outcome is Outcome.FAILED
    assert (envelope.error.type, envelope.error.message) == ("Boom", "it broke")
    assert envelope.error.stack
    assert envelope.request_payload == b'{"failure":true}'


@pytest.mark.parametrize("encoding", ["raw", "base64"])
def test_the_body_is_raw_or_base64(encoding):
    body = queue_body(message(TimeOut()), encoding)
    plain = base64.b64decode(body) if encoding == "base64" else body
    assert plain == message(TimeOut())
    assert parse_body(body).condition == "InvocationError"


def test_condition_and_status_can_be_set():
    end = end_of(Fail(condition="FunctionServerError", status=500))
    assert (end.condition, end.function_error, end.status, end.failed) == (
        "FunctionServerError",
        "FunctionServerError",
        500,
        True,
    )


def test_throttling_is_no_end_of_an_execution():
    with pytest.raises(TypeError):
        end_of(Throttled())
