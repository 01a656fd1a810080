"""What msgspec says of a value that it does not take, in words of ours."""

from __future__ import annotations

import re

# JSON Schema has names for types that no user of a YAML file has to know.
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}
_LIMITS = {
    ">=": "{:.10g} or more",
    "<=": "{:.10g} or less",
    ">": "more than {:.10g}",
    "<": "less than {:.10g}",
}


def in_words(said: str) -> tuple[str, str]:
    """What is wrong, as the end of a sentence without its point, and the field, empty for none.

    said: by a ValidationError of msgspec.
    """
    words, _, place = said.partition(" - at `")
    where = re.sub(r"^(key in )?\$\.?|\[\.\.\.\]|`$", "", place).strip(".`")
    if found := re.fullmatch(r"Expected `([^`]+)` (>=|<=|>|<) ([\d.e+-]+)", words):
        return f"it has to be {_kinds(found[1])}, {_LIMITS[found[2]].format(float(found[3]))}", where
    if found := re.fullmatch(r"Expected `([^`]+)`, got `([^`]+)`", words):
        return f"it has to be {_kinds(found[1])}, and is {_kinds(found[2])}", where
    if found := re.fullmatch(r"Invalid enum value (.+)", words):
        return f"it cannot be {found[1]}", where
    if found := re.fullmatch(r"Object missing required field `([^`]+)`", words):
        return f"it has no {found[1]!r}", where
    if found := re.fullmatch(r"Object contains unknown field `([^`]+)`", words):
        return f"there is no field {found[1]!r}", where
    return f"{words[:1].lower()}{words[1:]}", where


def _kinds(names: str) -> str:
    """`int | null` -> "a whole number or nothing"."""
    *others, last = [_KINDS.get(name, name) for name in names.split(" | ")]
    return f"{', '.join(others)} or {last}" if others else last
