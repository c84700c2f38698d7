"""``triage schema``: JSON Schemas for editors, validators and other programs."""

from __future__ import annotations

import click

from triage.cli.output import print_json


@click.group()
def schema() -> None:
    """Print the JSON Schema of what triage reads."""


@schema.command()
def envelope() -> None:
    """Print the schema of a destination message: what Function Compute pushes when an invocation has ended."""
    from triage.envelope import json_schema  # noqa: PLC0415

    print_json(json_schema())


@schema.command()
def settings() -> None:
    """Print the schema of the settings file."""
    from triage.settings import Settings  # noqa: PLC0415

    print_json({"$schema": "https://json-schema.org/draft/2020-12/schema"} | Settings.model_json_schema())
