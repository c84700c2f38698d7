"""``triage completion``: the shells' completion scripts, as click makes them."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash   triage completion bash > ~/.local/share/bash-completion/completions/triage
    zsh    triage completion zsh  > "${fpath[1]}/_triage"
    fish   triage completion fish > ~/.config/fish/completions/triage.fish
    """  # noqa: D301 - click looks for the character, not for its escape
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"No completion for {shell}.")
    click.echo(kind(ctx.find_root().command, {}, "triage", "_TRIAGE_COMPLETE").source())
