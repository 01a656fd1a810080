"""Keeps LLVM from making one instruction of a conversion and a product with a power of two, on Helium.

Helium converts between integers and floats with so many bits behind the point: an immediate operand of
`vcvt`. LLVM writes the number of bits as a constant like any other (`getConstant`, in
`ARMDAGToDAGISel::transformFixedFloatingPointConversion`, up to LLVM 22 at least). Where the same block takes
that number elsewhere, it lies in a register by then, and the number of the register becomes the immediate: a
half became 2**-15 where a kernel also added 1 to something. So the two are kept apart, by what LLVM has for
keeping floating-point operations apart; it costs one multiplication.
"""

from __future__ import annotations

import re

_FLOAT = r"<(?P<lanes>\d+) x (?P<of>half|float)>"
_TO_FLOAT = re.compile(
    rf"^(?P<indent> *)(?P<name>%\S+) = (?P<made>[su]itofp .* to (?P<type>{_FLOAT}).*)$", re.M
)
_TO_INTEGER = re.compile(
    rf"^(?P<indent> *)(?P<name>%\S+) = (?P<made>fpto[su]i (?P<type>{_FLOAT}) )(?P<value>%\S+)(?P<rest>.*)$",
    re.M,
)
_SHORT = {"half": "f16", "float": "f32"}


def fence_conversions(text: str) -> str:
    """LLVM's text, optimised, with each conversion of vectors from and to floats apart from what is done to
    the floats."""
    declared: dict[str, str] = {}

    def fenced(found: re.Match[str], value: str) -> str:
        function = f"@llvm.arithmetic.fence.v{found['lanes']}{_SHORT[found['of']]}"
        declared[function] = found["type"]
        return f"call {found['type']} {function}({found['type']} {value})"

    def behind(found: re.Match[str]) -> str:
        indent, name = found["indent"], found["name"]
        before = _beside(name)
        return f"{indent}{before} = {found['made']}\n{indent}{name} = {fenced(found, before)}"

    def ahead(found: re.Match[str]) -> str:
        indent, name = found["indent"], found["name"]
        before = _beside(name)
        made = f"{found['made']}{before}{found['rest']}"
        return f"{indent}{before} = {fenced(found, found['value'])}\n{indent}{name} = {made}"

    text = _TO_INTEGER.sub(ahead, _TO_FLOAT.sub(behind, text))
    return text + "".join(f"declare {kind} {function}({kind})\n" for function, kind in declared.items())


def _beside(name: str) -> str:
    """The name of a further value, which LLVM gives to none: it counts those without a name."""
    return f'%"unfenced {name[1:].strip(chr(34))}"'
