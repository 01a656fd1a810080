"""Options that do nothing, beside one that asks for something else."""

from collections.abc import Collection

import typer

from bibench_tvm.cli.console import stderr

EVERYWHERE = ("as_json", "debug")


def note_unused(context: typer.Context, asked: str, taken: Collection[str]) -> None:
    """Say which of the options that were typed are not `taken` by what `asked` asks for."""
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if source and source.name == "COMMANDLINE" and name not in (*taken, *EVERYWHERE):
            option = max(parameter.opts, key=len)
            stderr.print(f"Note: {option} does nothing beside {asked}.", style="yellow", soft_wrap=True)
