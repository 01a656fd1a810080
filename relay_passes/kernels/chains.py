"""Which float layers of one pixel are computed one after the other in one kernel, as a gate of squeeze and
excitation has them after an average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tvm
from tvm import relax

from relay_passes.ir.operators import Contraction, attributes_of
from relay_passes.ir.rewrite import bindings, dtype_of, is_call, read_vars, shape_of, users
from relay_passes.kernels.group_kernels import Group
from schedules.kernels.gate import is_of_one_pixel


@dataclass(frozen=True)
class Chain:
    """groups: of a layer each, which alone reads what the one before gives; mean: what averages the pixels of
    an image, which the first layer alone reads, if there is such."""

    groups: tuple[Group, ...]
    mean: relax.VarBinding | None

    @property
    def members(self) -> list[relax.VarBinding]:
        return [*([self.mean] if self.mean else []), *(m for group in self.groups for m in group.members)]

    @property
    def source(self) -> relax.Expr:
        """The image, or the pixel."""
        return (self.mean or self.groups[0].anchor).value.args[0]


def find_chains(mod: tvm.IRModule, groups: Sequence[Group], outside: set[relax.Var]) -> list[Chain]:
    """outside: variables of groups that something else reads."""
    readers, made = users(mod), {b.var: b for b in bindings(mod)}
    results = set(read_vars(mod["main"].body.body))

    def one_reads(read: relax.Expr) -> bool:
        """Whether a tensor has one reader, and is no result."""
        return isinstance(read, relax.Var) and read not in results and len(readers.get(read, [])) == 1

    layers = [group for group in groups if _is_small_layer(group)]
    giver = {m.var: group for group in layers for m in group.members}
    before: dict[int, Group] = {}
    for group in layers:
        read = group.anchor.value.args[0]
        given = giver.get(read) if one_reads(read) else None
        if given is not None and [m.var for m in given.members if m.var in outside] == [read]:
            before[id(group)] = given
    inner = {id(group) for group in before.values()}
    chains = []
    for last in layers:
        if id(last) in inner:
            continue
        found = [last]
        while id(found[0]) in before:
            found.insert(0, before[id(found[0])])
        read = found[0].anchor.value.args[0]
        mean = made.get(read) if one_reads(read) else None
        if mean is not None and not _averages_pixels(mean.value):
            mean = None
        if mean or len(found) > 1:
            chains.append(Chain(tuple(found), mean))
    return chains


def _is_small_layer(group: Group) -> bool:
    value = group.anchor.value
    if not is_call(value, "bibench.convolution", "bibench.matmul"):
        return False
    layer = attributes_of(value, Contraction)
    return is_of_one_pixel(layer.conv) and not layer.half


def _averages_pixels(value: relax.Expr) -> bool:
    """Of one image."""
    if not is_call(value, "relax.mean") or value.attrs.axis is None:
        return False
    batch, *rest = shape_of(value.args[0])
    axes = [int(axis) % (1 + len(rest)) for axis in value.attrs.axis]
    return batch == 1 and axes == list(range(1, len(rest))) and dtype_of(value.args[0]) == "float32"
