"""``triage config``: the settings in force, and whether they can be used."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from triage.cli.output import config_option, print_json
from triage.errors import ConfigInvalid

if TYPE_CHECKING:
    from triage.errors import Problem
    from triage.settings import Loaded, Settings


@click.group()
def config() -> None:
    """Show or check the settings in force."""


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, the settings and their origins.")
@config_option
def show(*, config: Path | None, as_json: bool) -> None:
    """Show the settings in force as TOML, each with where it comes from. Secrets are not shown."""
    from triage.settings import load  # noqa: PLC0415

    loaded = load(config, environ=os.environ)
    values = _masked(loaded.settings)
    if as_json:
        print_json({"settings": values, "origins": loaded.origins})
        return
    for line in _toml(values, loaded.origins):
        click.echo(line)


@config.command()
@config_option
def check(*, config: Path | None) -> None:
    """Check the settings and say what is wrong, with file, line and column. For the rules: triage rules check.

    Templates that receivers have are tried, too.
    """
    from triage.settings import load  # noqa: PLC0415

    loaded = load(config, environ=os.environ)
    if problems := _wrong_templates(loaded):
        raise ConfigInvalid(problems)
    count = sum(origin != "default" for origin in loaded.origins.values())
    click.echo(f"The settings are valid: {count} given, from {config or 'the environment; there is no file'}.")


def _wrong_templates(loaded: Loaded) -> list[Problem]:
    """What is wrong with the templates of receivers: they stand beside the rules."""
    from triage.configuration import missing_templates, templates_of  # noqa: PLC0415
    from triage.rulefiles import default_rules_dir, located, read_rules  # noqa: PLC0415
    from triage.rules.templates import read_templates  # noqa: PLC0415

    wanted = set(templates_of(loaded.settings).values())
    if not wanted:
        return []
    where = loaded.settings.rules or default_rules_dir()
    found, broken = read_templates([source for source in read_rules(where) if source.name.endswith(".j2")])
    broken = [each for each in broken if each.file.partition(".")[0] in wanted]
    return [*missing_templates(loaded, found), *(located(each, where) for each in broken)]


_LISTS: Final = ("sources", "labels")


def _masked(settings: Settings) -> dict[str, Any]:
    """The settings as plain values without a secret in them; of an address the scheme is left."""
    values: dict[str, Any] = settings.model_dump(mode="json")
    for name, receiver in settings.receivers.items():
        schemes = [url.get_secret_value().partition(":") for url in receiver.urls]
        values["receivers"][name]["urls"] = [f"{scheme}:" + ("//***" if rest else "") for scheme, _, rest in schemes]
    return values


def _toml(values: Mapping[str, Any], origins: Mapping[str, str], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Lines of TOML, each with its origin; what has no value is commented out."""
    from triage.settings.template import toml_key, toml_value  # noqa: PLC0415

    tables = {name: value for name, value in values.items() if isinstance(value, dict) or name in _LISTS}
    for name, value in values.items():
        if name not in tables:
            origin = origins.get(".".join((*path, name)), "default")
            yield f"# {name} =  # {origin}" if value is None else f"{name} = {toml_value(value)}  # {origin}"
    for name, value in tables.items():
        if name in _LISTS:
            for each in value:
                yield from ("", f"[[{name}]]  # {origins.get(name, 'default')}")
                yield from (f"{key} = {toml_value(setting)}" for key, setting in each.items())
            continue
        if name != "receivers":
            yield from ("", f"[{'.'.join(toml_key(part) for part in (*path, name))}]")
        yield from _toml(value, origins, (*path, name))
