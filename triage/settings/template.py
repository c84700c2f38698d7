"""Writes the settings as a TOML file that explains itself: the fields with their docstrings and defaults."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from triage.settings.fields import LabelSettings, Settings
from triage.settings.maintenance import MaintenanceSettings
from triage.settings.receivers import ReceiverSettings
from triage.settings.sources import LocalSource, ReconcileSource, SmqSource
from triage.settings.values import show_duration
from triage.settings.watching import ArrivalSettings

_HEAD = """\
## Settings of triage. What is commented out shows the default, or an example where there is none.
## A setting can also come from the environment, TRIAGE_QUEUE__NAME for `name` in [queue], or from a
## file named like queue__name in the folder $TRIAGE_SECRETS_DIR. `triage config show` tells what is in force.
"""
_EXAMPLES: Final = {"endpoint": "https://1234567890.cn-hangzhou.fc.aliyuncs.com", "format": "markdown"}
"""For settings without a default."""


def commented_settings() -> str:
    """A settings file that says what every setting means and changes none of them, but for the folder of rules."""
    sample = Settings(state_dir=Path("/var/lib/triage"))
    smq = SmqSource(type="smq", endpoint="http://1234567890.mns.cn-hangzhou.aliyuncs.com", queue="fc-results")
    lines = [_HEAD]
    for name, field in Settings.model_fields.items():
        if name == "sources":
            lines += ["", *_comment(field.description or "")]
            reconcile = ReconcileSource(type="reconcile", functions=("my-fc-job", "my-service/old-job@prod"))
            for source in (LocalSource(), smq, reconcile):
                lines += ["", *_group("# [[sources]]", source)]
        elif name == "labels":
            labels = LabelSettings(function="img-*", set={"team": "media", "tier": "1"})
            lines += ["", *_comment(field.description or ""), "", *_group("# [[labels]]", labels)]
        elif name == "arrivals":
            arrival = ArrivalSettings(function="img-*", within=timedelta(hours=6))
            lines += ["", *_comment(field.description or ""), "", *_group("# [[arrivals]]", arrival)]
        elif name == "maintenance":
            weekly = MaintenanceSettings(
                name="weekly", match={"function": "img-*"}, hours=("02:00-04:00",), days=("sun",), reason="updates"
            )
            lines += ["", *_comment(field.description or ""), "", *_group("# [[maintenance]]", weekly)]
        elif name == "owners":
            lines += ["", *_comment(field.description or ""), "# [owners]", '# team-media = ["default"]']
        elif name == "receivers":
            urls = tuple(map(SecretStr, ("console:", "dingtalk://TOKEN", "mailto://USER:PASSWORD@example.com")))
            receiver = ReceiverSettings(urls=urls)
            lines += ["", *_comment(field.description or ""), "", *_group("# [receivers.default]", receiver)]
        elif name in ("state_dir", "rules"):
            value = '# state_dir = "/var/lib/triage"' if name == "state_dir" else 'rules = "rules"'
            lines += [*_comment(field.description or ""), value]
        else:
            lines += ["", *_group(f"[{name}]", getattr(sample, name))]
    return "\n".join(lines) + "\n"


def _group(header: str, group: BaseModel) -> Iterator[str]:
    yield from _comment(type(group).__doc__ or "")
    yield header
    for name, field in type(group).model_fields.items():
        yield from _comment(field.description or "")
        value = getattr(group, name) if field.is_required() else field.default
        yield f"# {name} = {toml_value(_EXAMPLES.get(name, '') if value is None else _plain(value))}"


def _comment(text: str) -> list[str]:
    text = " ".join(text.replace("``", "`").split())
    return textwrap.wrap(text, 100, initial_indent="## ", subsequent_indent="## ", break_on_hyphens=False)


def _plain(value: Any) -> Any:
    """A setting as TOML can write it."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, timedelta):
        return show_duration(value)
    return value if isinstance(value, bool | int | float) else str(value)


def toml_key(name: str) -> str:
    """A key as TOML writes it: quoted if it must be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def toml_value(value: object) -> str:
    """A text, number, truth value, list of texts or table of such, in one line. TOML writes most of it as JSON does."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{toml_key(name)} = {toml_value(each)}' for name, each in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)
