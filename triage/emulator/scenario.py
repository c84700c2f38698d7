"""What the emulated functions are and do: a frozen value, read from YAML (format: docs/reference/emulator.md)."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import ErrorDetails

from triage.errors import ConfigInvalid, Problem
from triage.rules.document import Document, read_document
from triage.rules.mistakes import Mistake, Path, did_you_mean
from triage.rules.model import SourceText
from triage.settings import Duration

QueueName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,119}$")]
FunctionKey = Annotated[
    str, StringConstraints(pattern=r"^([A-Za-z_][A-Za-z0-9_-]{0,63}/)?[A-Za-z_][A-Za-z0-9_-]{0,63}$")
]
"""``name``, or ``service/name`` for a function of FC 2.0."""
Positive = Annotated[Duration, Field(gt=timedelta(0))]


class Runtime(StrEnum):
    """Decides the shape of a failure's ``stackTrace``."""

    PYTHON = "python"
    NODEJS = "nodejs"
    JAVA = "java"
    GO = "go"
    PHP = "php"


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class _Step(_Value):
    """What every step may say beside what it does.

    Attributes:
        payload: glob the event's text must match.
        times: the step applies this many times per event, then the next one that applies does; None is for ever.
        takes: how long one execution takes; None is the function's own.
        lost: its result message never reaches the queue, if it was the last one.
    """

    payload: str = "*"
    times: Annotated[int, Field(ge=1)] | None = None
    takes: Duration | None = None
    lost: bool = False

    def applies(self, event: str, used: int) -> bool:
        """Whether this step is the one for an event for which it was used ``used`` times."""
        return (self.times is None or used < self.times) and fnmatchcase(event, self.payload)


class Succeed(_Step):
    """Return ``returns``; the event itself when that is None."""

    do: Literal["succeed"] = "succeed"
    returns: str | None = None


class Fail(_Step):
    """End with an error of the function. ``condition`` replaces the usual one, ``status`` other than 200 makes it the
    platform's fault.
    """

    do: Literal["fail"] = "fail"
    type: str = "Exception"
    message: str = "something is wrong"
    runtime: Runtime = Runtime.PYTHON
    condition: str | None = None
    status: int = 200


class TimeOut(_Step):
    """Run into the function's time-out."""

    do: Literal["timeout"] = "timeout"


class Crash(_Step):
    """The process exits in the middle of the work."""

    do: Literal["crash"] = "crash"


class Exhausted(_Step):
    """No instance can be had: ``FunctionResourceExhausted``."""

    do: Literal["exhausted"] = "exhausted"


class Throttled(_Step):
    """The submit is refused with 429, so nothing is executed."""

    do: Literal["throttled"] = "throttled"


Step = Annotated[Succeed | Fail | TimeOut | Crash | Exhausted | Throttled, Field(discriminator="do")]


class AsyncConfig(_Value):
    """Configuration for asynchronous invocations; defaults are the vendor's.

    Attributes:
        task: keep tasks and their ids, and refuse an id that is known.
        retries: further attempts of the platform after a failed one.
        age: kept and shown; events do not expire here.
        on_success, on_failure: queues for the result messages; None is no destination.
    """

    task: bool = False
    retries: Annotated[int, Field(ge=0, le=8)] = 3
    age: Duration = timedelta(days=1)
    on_success: QueueName | None = None
    on_failure: QueueName | None = None


class Function(_Value):
    """One function. ``asynchronous`` is ``async`` in YAML; ``behaviour`` are steps, the first that applies is taken,
    and a function does its work when none does.
    """

    timeout: Positive = timedelta(seconds=60)
    takes: Duration = timedelta(seconds=1)
    memory_mb: Annotated[int, Field(ge=1)] = 8
    asynchronous: AsyncConfig = Field(default=AsyncConfig(), alias="async")
    behaviour: tuple[Step, ...] = ()


class Invocation(_Value):
    """Asynchronous invocations that the emulator makes itself when it starts: ``count`` times the same event."""

    function: str
    payload: str = ""
    count: Annotated[int, Field(ge=1, le=100_000)] = 1
    after: Annotated[Duration, Field(le=timedelta(hours=1))] = timedelta(0)


class Scenario(_Value):
    """Everything the FC emulator knows at the start.

    Attributes:
        speed: emulated seconds that pass in one real second.
        body: result messages as plain JSON or base64; which one the vendor writes is not documented.
        retry_after: pause before the platform's own retry.
        queues: queues to create beside those that functions name.
        invoke: what happens at the start.
    """

    version: Literal[1] = 1
    region: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$")] = "cn-hangzhou"
    account: Annotated[str, StringConstraints(pattern=r"^[0-9]+$")] = "1000000000000001"
    speed: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    body: Literal["raw", "base64"] = "raw"
    retry_after: Duration = timedelta(seconds=1)
    queues: tuple[QueueName, ...] = ()
    functions: dict[FunctionKey, Function] = {}
    invoke: tuple[Invocation, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _empty_function(cls, data: Any) -> Any:
        """``name:`` with nothing behind it is a function that has all defaults."""
        if isinstance(data, dict) and isinstance(functions := data.get("functions"), dict):
            return {**data, "functions": {k: {} if v is None else v for k, v in functions.items()}}
        return data

    @model_validator(mode="after")
    def _known_functions(self) -> Scenario:
        for invocation in self.invoke:
            if invocation.function not in self.functions:
                hint = did_you_mean(invocation.function, self.functions)
                raise ValueError(
                    f"invoke: there is no function {invocation.function!r}" + (f", {hint}" if hint else "")
                )
        return self

    @property
    def all_queues(self) -> tuple[str, ...]:
        """Queues that are mentioned anywhere, each once."""
        named = [
            queue
            for function in self.functions.values()
            for queue in (function.asynchronous.on_failure, function.asynchronous.on_success)
            if queue
        ]
        return tuple(dict.fromkeys((*self.queues, *named)))


def load_scenario(text: str, *, name: str = "scenario") -> Scenario:
    """Read a scenario from YAML.

    Args:
        name: the file's name, for errors.

    Raises:
        ConfigInvalid: with every mistake and its place.
    """
    document, problems = read_document(SourceText(name, text))
    if document is None or problems:
        raise ConfigInvalid(problems)
    try:
        return Scenario.model_validate({} if document.root is None else document.root)
    except ValidationError as error:
        raise ConfigInvalid([_problem(document, detail) for detail in error.errors()]) from None


def _problem(document: Document, detail: ErrorDetails) -> Problem:
    path: Path = ()
    for part in detail["loc"]:  # pydantic adds the kind of step, which stands nowhere in the text
        if (*path, part) in document.values:
            path = (*path, part)
    message, hint, key = detail["msg"].removeprefix("Value error, "), "", False
    match detail["type"]:
        case "extra_forbidden":
            message, hint, key = "no such setting", did_you_mean(path[-1], _FIELDS.difference(path), listed=True), True
        case "model_type":
            message = "expected a mapping"
        case "string_type":
            message, hint = "expected a text", "put it in quotes"
        case "string_pattern_mismatch":
            message, key = f"not a valid name: {str(detail['input'])[:80]!r}", detail["loc"][-1] == "[key]"
        case "union_tag_invalid" | "union_tag_not_found":
            message, hint = "a step says what to do", f"do: {', '.join(_STEPS)}"
    place = ".".join(map(str, path))
    return document.problem(path, Mistake(f"{place}: {message}" if place else message, hint, key=key))


_FIELDS = frozenset(
    field.alias or name
    for model in (Scenario, Function, AsyncConfig, Invocation, Succeed, Fail)
    for name, field in model.model_fields.items()
)
_STEPS = tuple(model.model_fields["do"].default for model in (Succeed, Fail, TimeOut, Crash, Exhausted, Throttled))
