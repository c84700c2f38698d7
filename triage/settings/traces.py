"""Where OpenTelemetry traces go."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from triage.settings.group import Group
from triage.settings.values import Url, text_lines


def _header(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[ \t]*[\x20-\x7e]+", value.get_secret_value()):
        raise ValueError("a header is NAME: VALUE in ASCII")  # without the value, which is secret
    return value


class TracesSettings(Group):
    """OpenTelemetry traces, one for each task, from its first message to the last effect. Needs the extra ``otel``."""

    endpoint: Url | None = None
    """Where they are sent, by OTLP over HTTP, such as ``http://127.0.0.1:4318/v1/traces``. Unset = no traces."""
    headers: Annotated[
        tuple[Annotated[SecretStr, AfterValidator(_header)], ...], NoDecode, BeforeValidator(text_lines)
    ] = ()
    """Headers of these requests, each as ``NAME: VALUE``; in a secret file one per line."""
    sample: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the tasks that are traced. The request id decides, so that a task is traced wholly or not at all."""
