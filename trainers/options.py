"""What somebody gives by name - sizes of a network, hyper-parameters of an algorithm - and what there is."""

import math
from collections.abc import Mapping
from typing import Any

_KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}


def check_options(
    owner: str, kind: str, given: Mapping[str, Any], defaults: Mapping[str, Any], least: int | None = None
) -> dict[str, Any]:
    """`given` in the types of the defaults, without those that are None.

    Args:
        owner: what takes them, such as "resnet20"; `kind`: what they are called, such as "size".
        defaults: all that `owner` takes, with a plain value of the type that each has.
        least: what whole numbers are not to be below, unless that is the default.

    Raises:
        ValueError: a name that `owner` does not take, or a value of another type.
    """
    checked = {}
    for name, value in given.items():
        if name not in defaults:
            known = f"it takes {', '.join(defaults)}" if defaults else "it takes none"
            raise ValueError(f"{owner} has no {kind} {_shown(name)}; {known}.")
        if value is not None:
            lowest = None if defaults[name] == value else least
            checked[name] = _in_type(name, value, type(defaults[name]), lowest)
    return checked


def _in_type(name: str, value: Any, wanted: type, least: int | None) -> Any:
    if wanted is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if (
        type(value) is not wanted
        or (isinstance(value, float) and not math.isfinite(value))
        or (type(value) is int and least is not None and value < least)
    ):
        kind = _KINDS[wanted] + (f" from {least} on" if wanted is int and least is not None else "")
        raise ValueError(f"{name} has to be {kind}, but is {_shown(value)}.")
    return value


def _shown(value: object) -> str:
    """No more of it than fits into a message; a number of thousands of digits has no repr."""
    try:
        text = repr(value)
    except ValueError:
        return "a longer one"
    return text if len(text) <= 60 else f"a {type(value).__name__}"
