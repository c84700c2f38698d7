"""``triage init``: a commented configuration and a folder of rules to start from."""

from __future__ import annotations

import shutil
from pathlib import Path

import click


@click.command()
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path), metavar="[DIR]")
def init(*, folder: Path) -> None:
    """Write a commented triage.toml and a copy of the shipped rules into DIR (here, when not given).

    Nothing that exists is overwritten.
    """
    from triage.rulefiles import default_rules_dir  # noqa: PLC0415
    from triage.settings.template import commented_settings  # noqa: PLC0415

    config, rules = folder / "triage.toml", folder / "rules"
    for path in (config, rules):
        if path.exists() or path.is_symlink():
            raise click.ClickException(f"{path} exists already and is left as it is. Choose another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(default_rules_dir(), rules)
    with config.open("x", encoding="utf-8") as file:
        file.write(commented_settings())
    click.echo(f"Wrote {config} and {rules}{'/'}. Next:")
    for command, why in (
        (f"triage config check --config {config}", "see that the settings are valid"),
        (f"triage rules check {rules}", "see that the rules are valid"),
        (f"triage run --config {config}", "take in, decide, act; Ctrl-C stops"),
    ):
        click.echo(f"  {command}  # {why}")
