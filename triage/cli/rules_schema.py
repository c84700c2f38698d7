"""``triage rules schema``: with it an editor completes and checks while one types."""

from __future__ import annotations

import click

from triage.cli.output import print_json


@click.command()
@click.option("--cases", is_flag=True, help="The schema of case files (*.test.yaml) instead.")
def schema(*, cases: bool) -> None:
    """Print the JSON Schema of a rule file."""
    from triage.rules.case_schema import cases_schema  # noqa: PLC0415
    from triage.rules.schema import rules_schema  # noqa: PLC0415

    print_json(cases_schema() if cases else rules_schema())
