"""What templates are tried on when they are loaded: messages as they come, the fullest and the barest. Pure.

Their names are those of `triage.alerts.fields.fields_of`; a test keeps them the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from triage.templating.sandbox import FORMS, Open, Silent, own_template

_FULL: Final[Mapping[str, Any]] = {
    "code": "ab12cd34",
    "severity": "critical",
    "title": "[critical] img-resize failed × 1,234: TimeoutError #ab12cd34",
    "what": "img-resize failed: TimeoutError",
    "count": 1234,
    "since": "2026-03-01 11:57:00 UTC",
    "last": "2026-03-01 12:00:00 UTC",
    "function": "img-resize",
    "region": "cn-hangzhou",
    "condition": "InvocationError",
    "error_type": "TimeoutError",
    "error": "Function timed out after 60 seconds (maxMemoryUsage: 8MB)",
    "rule": "tell",
    "owner": "media-team",
    "runbook": "https://wiki.example/media",
    "receiver": "oncall",
    "labels": Open({"team": "media"}, ""),
    "sums": Open({"told": 5, "silenced": 3}, 0),
    "accounts": Open({"alerted": 1239, "silenced": 3}, 0),
    "news": "more and more: ",
    "ended": "",
    "outcomes": [
        {"cause": "exhausted", "count": 1200, "ended": "failed", "tried": "re-run without success"},
        {"cause": "failed", "count": 34, "ended": "failed", "tried": "told at once, as the rule wants"},
    ],
    "samples": [
        {
            "request_id": "1-670648a1-15197d0b",
            "at": "2026-03-01 12:00:00 UTC",
            "attempts": 2,
            "detail": "the provider says Failed",
            "cause": "exhausted",
            "runs": [
                {
                    "number": 1,
                    "origin": "automatic",
                    "request_id": "1-670648a2-15197d0b",
                    "at": "2026-03-01 12:00:00 UTC",
                    "result": "failed",
                    "detail": "FunctionTimeout",
                }
            ],
        }
    ],
    "more": 1233,
    "steps": [{"label": "Look", "command": "triage failures show 1-670648a1-15197d0b"}],
    "links": [{"label": "Console", "url": "https://fcnext.console.aliyun.com/cn-hangzhou/functions/img-resize"}],
}

_BARE: Final[Mapping[str, Any]] = {
    **{name: "" if isinstance(value, str) else value for name, value in _FULL.items()},
    "code": "ab12cd34",
    "severity": "info",
    "count": 1,
    "more": 0,
    "title": "triage #ab12cd34",
    "links": [],
    "labels": Open({}, ""),
    "sums": Open({}, 0),
    "accounts": Open({}, 0),
}

SAMPLES: Final[Sequence[Mapping[str, Any]]] = (
    _FULL,
    _BARE,
    {**_FULL, "news": "resolved: ", "ended": "all have healed", "samples": [], "outcomes": [], "more": 0},
)


def check_template(source: str, form: str) -> None:
    """Try a template.

    Raises:
        TemplateError: it cannot be used, or not for every message.
    """
    template = own_template(source, form)
    for sample in SAMPLES:
        try:
            template.draw(sample)
        except Silent:
            if sample is _FULL:
                raise


def form_of_file(name: str) -> tuple[str, str] | None:
    """Name and form of the template in a file; None when it is named otherwise: ``oncall.md.j2``."""
    stem, _, suffix = name.removesuffix(".j2").rpartition(".")
    form = dict(zip(("txt", "md", "html"), FORMS, strict=True)).get(suffix)
    return (stem, form) if stem and form and name.endswith(".j2") else None
