"""What is wrong with arguments that cannot be parsed, in a sentence of ours."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

_LIMITS = {
    "ge": "{:.10g} or more",
    "le": "{:.10g} or less",
    "gt": "more than {:.10g}",
    "lt": "less than {:.10g}",
}
_NUMBERS = {"int": "a whole number", "float": "a number"}


def parser_sentence(error: Any) -> str:
    """Of an error of the parser, which has a `format_message`."""
    if (found := getattr(error.__cause__, "errors", None)) and getattr(error, "param", None):
        # Parsers that check values by pydantic say "Input should be", and not what was given.
        fault = found()[0]
        limits = fault.get("ctx", {})
        wanted = _NUMBERS.get(fault["type"].split("_")[0]) or next(
            (words.format(limits[name]) for name, words in _LIMITS.items() if name in limits), ""
        )
        if wanted:
            name = max(error.param.opts, key=len)
            return f"{name} takes {wanted}, and not {fault['input']}."
    sentence = error.format_message()
    return sentence if sentence.endswith((".", "?")) else f"{sentence}."


def help_line(error: Any, name: str) -> str:
    """The command whose help says more: of several below `name`, that which was typed."""
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context else name} --help"


def empty_path(command: Any, arguments: Sequence[str]) -> str | None:
    """The path among the arguments of a command that is empty, as what it is called: to Python it would be
    the current folder."""
    paths: set[str] = set()
    for each in (command, *getattr(command, "commands", {}).values()):
        hints = get_type_hints(inspect.unwrap(each.callback))
        for parameter in each.params:
            hint = hints.get(parameter.name)
            if any(Path in (kind, *get_args(kind)) for kind in (hint, *get_args(hint))):
                paths.update(parameter.opts)
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option, given, value = argument.partition("=")
        if given and not value and option in paths:
            return option
        if not argument and (before in paths or not before.startswith("-")):
            return before if before in paths else "An argument"
    return None
