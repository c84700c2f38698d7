"""The reference says what the code says: settings, commands, schema, dependencies, lock files, service files."""

import json
import re
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import click
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from triage import __version__
from triage.cli import cli
from triage.envelope import json_schema
from triage.settings import (
    ArrivalSettings,
    LabelSettings,
    LocalSource,
    MaintenanceSettings,
    ReceiverSettings,
    ReconcileSource,
    Settings,
    SmqSource,
    load_settings,
    show_duration,
)
from triage.stores.laws import LAWS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, timedelta):
        return show_duration(value)
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return value.value if isinstance(value, Enum) else value if isinstance(value, bool | int | float) else str(value)


def row(name: str, field: FieldInfo) -> str:
    """The line that configuration.md must have for a setting."""
    default = field.default
    shown = "required" if field.is_required() else "unset" if default is None else f"`{json.dumps(plain(default))}`"
    meaning = " ".join((field.description or "").replace("``", "`").split())
    return f"| `{name}` | {'unset' if name == 'state_dir' else shown} | {meaning} |"


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    yield "state_dir", Settings
    for group in (LocalSource, SmqSource, ReconcileSource):
        yield f'[[sources]] type = "{get_args(group.model_fields["type"].annotation)[0]}"', group
    yield "[receivers.NAME]", ReceiverSettings
    yield "[[arrivals]]", ArrivalSettings
    yield "[[maintenance]]", MaintenanceSettings
    yield "[[labels]]", LabelSettings
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield f"[{name}]", field.annotation


@pytest.mark.parametrize(
    ("title", "group"), list(sections()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_setting_is_described_as_in_the_code(title: str, group: type[BaseModel]):
    text = read("docs/reference/configuration.md")
    groups = {
        "queue",
        "store",
        "fc",
        "credentials",
        "outbox",
        "reruns",
        "consumer",
        "quarantine",
        "retention",
        "outbound",
        "encryption",
        "redaction",
        "web",
        "watchdog",
        "links",
        "storm",
        "log",
        "traces",
        "sources",
        "receivers",
        "labels",
        "arrivals",
        "maintenance",
        "heartbeat",
        "digest",
    }
    fields = {name: field for name, field in group.model_fields.items() if group is not Settings or name not in groups}
    _, found, section = text.partition(f"\n## {'Top level' if group is Settings else f'`{title}`'}\n")
    assert found, f"no section about {title}"
    described = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("| `")]
    assert described == [row(name, field) for name, field in fields.items()]


def commands(command: click.Command, path: str = "triage") -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None, name
            yield from commands(inner, f"{path} {name}")


def test_every_command_and_option_is_in_the_reference():
    text = read("docs/reference/cli.md")
    titles = re.findall(r"^#{2,4} `(triage[^`]*)`$", text, re.MULTILINE)
    walked = dict(commands(cli))
    assert sorted(titles) == sorted(walked), "the commands in docs/reference/cli.md are not those of the program"
    for path, command in walked.items():
        section = re.split(r"^#{2,4} `triage", text.partition(f"# `{path}`\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
        for param in command.params:
            if isinstance(param, click.Argument):
                assert f"    {path} [OPTIONS] {param.make_metavar(click.Context(command))}" in section, path
                continue
            for name in param.opts:
                assert f"`{name}" in section, f"{path}: {name} is not described"
        for option in re.findall(r"^\| `(-[^` ]+)", section, re.MULTILINE):
            assert any(option in param.opts for param in command.params), f"{path} has no option {option}"


def test_the_published_envelope_schema_is_the_code_s():
    assert json.loads(read("docs/reference/envelope.schema.json")) == json_schema()


def test_the_laws_are_those_of_the_code():
    listed = [line for line in read("docs/reference/laws.md").splitlines() if line.startswith("| `")]
    assert listed == [f"| `{law.id}` | {law.sentence} | {law.mend} |" for law in LAWS]


def test_every_dependency_has_a_reason_and_a_licence():
    text = read("docs/explanation/dependencies.md")
    listed = {
        canonicalize_name(name): reason
        for name, reason in re.findall(r"^\| ([A-Za-z0-9_-]+) \| (.+) \|$", text, re.MULTILINE)
    }
    listed.pop("name", None)
    wanted = PROJECT["dependencies"] + [r for extra in PROJECT["optional-dependencies"].values() for r in extra]
    assert set(listed) == {canonicalize_name(Requirement(requirement).name) for requirement in wanted}
    assert all(len(reason.split(" | ")) == 2 for reason in listed.values())


@pytest.mark.parametrize(
    ("file", "extras"),
    [("requirements.txt", []), ("requirements-dev.txt", ["dev", "fast", "otel"]), ("requirements-otel.txt", ["otel"])],
)
def test_the_lock_file_is_complete_hashed_and_names_no_index(file: str, extras: list[str]):
    text = read(file)
    assert not re.search(r"https?:|file:|--(extra-)?index|find-links|/home|/opt|/tmp|/work|@ ", text)
    locked: dict[str, list[str]] = {}
    for name, version, rest in re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)(.*(?:\n    --hash=\S+.*)*)", text, re.MULTILINE):
        assert "--hash=sha256:" in rest, f"{name} has no hash"
        locked.setdefault(canonicalize_name(name), []).append(version)
    wanted = PROJECT["dependencies"] + [r for extra in extras for r in PROJECT["optional-dependencies"][extra]]
    for requirement in map(Requirement, wanted):
        versions = locked.get(canonicalize_name(requirement.name), [])
        assert versions, f"{requirement} is not locked"
        assert all(requirement.specifier.contains(version) for version in versions), f"{requirement}: {versions}"


def test_the_base_installation_has_nothing_of_the_extras():
    assert "opentelemetry" not in read("requirements.txt")
    common = set(re.findall(r"^\S+==\S+", read("requirements.txt"), re.MULTILINE))
    assert common < set(re.findall(r"^\S+==\S+", read("requirements-otel.txt"), re.MULTILINE)), "other versions"


def test_the_service_s_configuration_is_valid():
    settings = load_settings(ROOT / "systemd" / "triage.toml", environ={"STATE_DIRECTORY": "/var/lib/triage"})
    assert settings.state_dir == Path("/var/lib/triage")
    commented = re.sub(r"^# (?=[\[\w])", "", read("systemd/triage.toml"), flags=re.MULTILINE)
    assert tomllib.loads(commented)["sources"], "what is commented out must be TOML too"


def test_the_service_gives_a_stop_more_time_than_the_grace_period():
    unit = read("systemd/triage.service")
    stop = int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[1])
    settings = load_settings(ROOT / "systemd" / "triage.toml", environ={"STATE_DIRECTORY": "/var/lib/triage"})
    assert timedelta(seconds=stop) > settings.consumer.grace
    assert "StateDirectory=triage" in unit
    assert "KillSignal=SIGTERM" in unit


def test_an_instance_differs_from_the_service_by_its_name_only():
    unit, instance = read("systemd/triage.service"), read("systemd/triage@.service")
    named = instance.replace("/etc/triage/%i/", "/etc/triage/").replace("triage-%i", "triage").replace(" for %i", "")
    assert named == unit
    assert instance.count("/etc/triage/") == instance.count("/etc/triage/%i/"), "instances would share something"
    assert "StateDirectory=triage-%i" in instance


def test_the_service_is_not_started_again_when_that_would_not_mend_it():
    unit = read("systemd/triage.service")
    assert "RestartPreventExitStatus=2 3" in unit
    assert "Restart=on-failure" in unit
    before = [line for line in unit.splitlines() if line.startswith("ExecStartPre=")]
    # Rules that cannot be used must not keep it from starting with the last good ones.
    assert [re.search(r"triage (\w+ check) ", line)[1] for line in before] == ["config check", "rules check"]
    assert all(line.startswith("ExecStartPre=-") for line in before)


def test_the_image_is_not_root_gets_signals_and_is_locked():
    text = read("Dockerfile")
    assert re.search(r'^ENTRYPOINT \["', text, re.MULTILINE), "the shell form would swallow SIGTERM"
    assert "ARG REQUIREMENTS=requirements.txt\n" in text
    assert '--require-hashes -r "$REQUIREMENTS"' in text
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1] not in ("root", "0")
    assert re.search(r'^HEALTHCHECK .*\\\n\s*CMD \["triage", "health"\]', text, re.MULTILINE)


def test_the_changelog_knows_this_version():
    text = read("CHANGELOG.md")
    assert re.search(rf"^## \[(Unreleased|{re.escape(__version__)})\]", text, re.MULTILINE)
    assert PROJECT["version"] == __version__
