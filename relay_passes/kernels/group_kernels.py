"""Plan which operators become one kernel: a convolution or packing, and the element-wise work around it.

A group starts at its anchor and takes in what follows element by element, as long as each value has one
reader, or several that meet again in one value (a PReLU); besides, from any of its values, a comparison that
ends in packed bits, what is turned to planes, [N, C, H, W], or from heads to tokens, and the maximum and
minimum over an image. So a convolution writes its float output, its packed sign, or both, in the layout that
is wanted, without a second pass over memory. A packing that no convolution took in takes in the element-wise
work before it, and writes what others read of that. No group may come to depend on itself through another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tvm
from tvm import relax

from relay_passes.ir.extremes import extreme_of_pixels
from relay_passes.ir.operators import Contraction, Pack, attributes_of
from relay_passes.ir.permutations import order_of
from relay_passes.ir.rewrite import bindings, dtype_of, is_call, is_tensor, read_vars, shape_of, users
from schedules.kernels.depthwise import is_depthwise
from schedules.parts.epilogue import OPERATORS, Form
from schedules.parts.write_back import Writer

_CONVOLUTIONS = ("bibench.binary_convolution", "bibench.int8_convolution", "bibench.convolution")
SUMS = (
    *_CONVOLUTIONS,
    "bibench.binary_product",
    "bibench.matmul",
    "bibench.pool",
    "bibench.normalize",
    "bibench.softmax",
)


class Group:
    """Bindings that are computed together; the first one is the anchor."""

    def __init__(self, anchor: relax.VarBinding):
        self.anchor = anchor
        self.members = [anchor]

    def __contains__(self, binding: relax.VarBinding) -> bool:
        return any(binding.same_as(member) for member in self.members)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the values that the group works on."""
        value = self.anchor.value
        return shape_of(value.args[0] if is_call(value, "bibench.pack") else self.anchor.var)


class _Plan:
    def __init__(self, mod: tvm.IRModule):
        self.bindings = bindings(mod)
        self.users = users(mod)
        self.unit: dict[relax.Var, Group] = {b.var: Group(b) for b in self.bindings}
        self.results = set(read_vars(mod["main"].body.body))

    def depends(self, unit: Group, on: Group) -> bool:
        """Whether `unit` needs `on` to be computed before it, through any path."""
        seen: set[int] = set()
        stack = [unit]
        while stack:
            current = stack.pop()
            if current is on:
                return True
            if id(current) not in seen:
                seen.add(id(current))
                stack += [self.unit[v] for m in current.members for v in read_vars(m.value) if v in self.unit]
        return False

    def may_join(
        self, group: Group, binding: relax.VarBinding, with_it: Sequence[relax.VarBinding] = ()
    ) -> bool:
        """Whether the group can compute this binding, and others `with_it`: same elements, and no cycle."""
        value = binding.value
        if len(self.unit[binding.var].members) > 1 or not is_call(value):
            return False
        if is_call(value, "bibench.pack"):
            planar = attributes_of(value, Pack).planar  # and a group of sums is channels last
            if planar or shape_of(value.args[0]) != group.shape or not _packs_whole_words(group, binding):
                return False
        elif is_call(value, *_FORMS):
            return form_of(group, binding) is not None
        elif is_call(value, "relax.tile"):
            if not _repeats_channels(group, binding):
                return False
        elif value.op.name not in OPERATORS or not _same_elements(binding, group.shape):
            return False
        others = {id(self.unit[v]): self.unit[v] for v in read_vars(value) if v in self.unit}
        inside = [group, *(self.unit[b.var] for b in with_it)]
        return not any(
            all(other is not unit for unit in inside) and self.depends(other, group)
            for other in others.values()
        )

    def may_write(self, group: Group, binding: relax.VarBinding) -> bool:
        """Whether the group can compute this binding, which it reads, for others as well: nothing else that
        the group reads is made of it."""
        unit = self.unit[binding.var]
        read = (self.unit.get(v) for member in group.members for v in read_vars(member.value))
        return not any(self.depends(u, unit) for u in read if u not in (None, unit, group))

    def join(self, group: Group, binding: relax.VarBinding) -> None:
        self.unit[binding.var] = group
        group.members.append(binding)


def _same_elements(binding: relax.VarBinding, shape: tuple[int, ...]) -> bool:
    if shape_of(binding.var) != shape:
        return False
    operands = [shape_of(arg) for arg in binding.value.args if is_tensor(arg)]
    return all(
        len(operand) <= len(shape)
        and all(e in (1, s) for e, s in zip(operand[::-1], shape[::-1], strict=False))
        for operand in operands
    )


def form_of(group: Group, binding: relax.VarBinding) -> Form | None:
    """The form in which the group's kernel may write one of its values itself, where this is that: a
    permutation, or an extreme."""
    anchor, value = group.anchor.value, binding.value
    if not is_call(value, *_FORMS) or dtype_of(binding.var) not in ("float32", "int32"):
        return None
    # A kernel keeps whole bands of one kind only.
    shapes = [shape_of(m.var) for m in group.members if is_call(m.value, *_FORMS) and m is not binding]
    if any(math.prod(shape) != math.prod(shape_of(binding.var)) for shape in shapes):
        return None
    if not is_call(value, "relax.permute_dims"):
        return extreme_of_pixels(value, anchor)
    if is_call(anchor, "bibench.binary_product"):
        return "swapped" if order_of(value) == (0, 2, 1, 3) else None
    if not is_call(anchor, "bibench.convolution", "bibench.binary_convolution") or _is_depthwise(anchor):
        return None
    return "planar" if order_of(value) == (0, 3, 1, 2) else None


def _packs_whole_words(group: Group, binding: relax.VarBinding) -> bool:
    """Whether each block of the kernel's output channels starts a word of the packed output."""
    packing = attributes_of(binding.value, Pack).packing
    if packing.groups > 1 and (packing.channels // packing.groups) % packing.per_word:
        return False
    anchor = group.anchor.value
    if is_call(anchor, *_CONVOLUTIONS):
        groups = attributes_of(anchor, Contraction).conv.groups
        whole = groups == 1 or (group.shape[-1] // groups) % packing.per_word == 0
        return whole or _is_depthwise(anchor)  # the blocks of whose kernel begin at whole words
    return True


def _is_depthwise(anchor: relax.Call) -> bool:
    packed = is_call(anchor, "bibench.binary_convolution")
    return is_depthwise(attributes_of(anchor, Contraction).conv, packed=packed)


def _repeats_channels(group: Group, binding: relax.VarBinding) -> bool:
    """Whether the group's kernel may read the channels of an image again and again: they fill its vectors."""
    anchor, (source, *_) = group.anchor.value, binding.value.args
    if is_call(anchor, "bibench.pack"):
        images = not attributes_of(anchor, Pack).planar
    else:
        images = is_call(anchor, *_CONVOLUTIONS)
    *outer, channels = shape_of(source)
    same = shape_of(binding.var) == group.shape and (*outer,) == group.shape[:-1]
    fewer = channels < group.shape[-1] and channels % (Writer.WIDEST // 2) == 0
    return images and same and fewer


def _work(binding: relax.VarBinding) -> int:
    """Products in a layer with weights."""
    value = binding.value
    if not is_call(value, *SUMS) or len(value.args) < 2:
        return 0
    return math.prod(shape_of(binding.var)) * math.prod(shape_of(value.args[1])[1:])


def group_kernels(mod: tvm.IRModule) -> list[Group]:
    """All groups with more to them than one plain operator, in the order of their anchors."""
    plan = _Plan(mod)
    groups = []
    # Two convolutions that meet in an addition: the one with more work takes it, where it weighs less.
    for binding in sorted(plan.bindings, key=_work, reverse=True):
        if is_call(binding.value, *SUMS):
            group = plan.unit[binding.var]
            _take_followers(plan, group)
            groups.append(group)
    for binding in plan.bindings:
        if is_call(binding.value, "bibench.pack") and plan.unit[binding.var].anchor.same_as(binding):
            group = plan.unit[binding.var]
            _take_producers(plan, group)
            groups.append(group)
    return groups


def _take_followers(plan: _Plan, group: Group) -> None:
    tail = group.anchor.var
    while True:
        readers = plan.users.get(tail, [])
        for reader in readers:
            if len(readers) > 1 or tail in plan.results:
                _take_ending(plan, group, reader)
        if tail in plan.results:
            return
        if len(readers) > 1 and (met := _take_diamond(plan, group, tail)) is not None:
            tail = met
            continue
        if len(readers) != 1 or not plan.may_join(group, readers[0]):
            return
        if is_call(readers[0].value, *_ENDINGS):
            plan.join(group, readers[0])
            return
        plan.join(group, readers[0])
        _take_operands(plan, group, readers[0])
        tail = readers[0].var


MOST_BETWEEN = 12  # operators from where readers part to where they meet


def _take_diamond(plan: _Plan, group: Group, tail: relax.Var) -> relax.Var | None:
    """Join what the readers of `tail` compute, up to the one value in which they meet, where nobody else
    reads what is on the way; gives that value."""

    def reads_outside(var: relax.Var) -> bool:
        return any(reader not in group and not _is_in(reader, inside) for reader in plan.users.get(var, []))

    inside: list[relax.VarBinding] = []
    waiting = [reader for reader in plan.users[tail] if reader not in group]
    while len(inside) < MOST_BETWEEN:
        ready = next((b for b in waiting if _is_plain(b) and plan.may_join(group, b, inside)), None)
        if ready is None or (ready.var in plan.results and len(waiting) > 1):
            return None
        waiting = [b for b in waiting if not b.same_as(ready)]
        inside.append(ready)
        if not any(reads_outside(var) for var in (tail, *(b.var for b in inside[:-1]))):
            for binding in inside:
                plan.join(group, binding)
                _take_operands(plan, group, binding)
            return ready.var
        if ready.var in plan.results:
            return None
        waiting += [b for b in plan.users.get(ready.var, []) if not _is_in(b, waiting)]
    return None


def _is_in(binding: relax.VarBinding, bindings: Sequence[relax.VarBinding]) -> bool:
    return any(binding.same_as(other) for other in bindings)


def _is_plain(binding: relax.VarBinding) -> bool:
    return is_call(binding.value, *OPERATORS)


def _take_operands(plan: _Plan, group: Group, member: relax.VarBinding) -> None:
    """Join what `member` alone reads and what is larger than anything that it is made of: a number for each
    pixel times one for each channel."""
    for var in read_vars(member.value):
        unit = plan.unit.get(var)
        if unit is None or len(unit.members) > 1 or var in plan.results or len(plan.users[var]) > 1:
            continue
        binding = unit.anchor
        if not is_call(binding.value, *OPERATORS, "relax.tile"):
            continue
        if any(is_tensor(arg) and shape_of(arg) == group.shape for arg in binding.value.args):
            continue
        if plan.may_join(group, binding):
            plan.join(group, binding)


_FORMS = ("relax.permute_dims", "relax.max", "relax.min")
_ENDINGS = ("bibench.pack", *_FORMS)  # written in a form of their own, which no member reads


def _take_ending(plan: _Plan, group: Group, first: relax.VarBinding) -> None:
    """Join the operator `first`, and what follows it, if that leads to packed bits or to planes and nowhere
    else."""
    path = [first]
    while True:
        if not plan.may_join(group, path[-1], path[:-1]):
            return
        if is_call(path[-1].value, *_ENDINGS):
            break
        readers = plan.users.get(path[-1].var, [])
        if len(readers) != 1 or path[-1].var in plan.results:
            return
        path.append(readers[0])
    for binding in path:
        plan.join(group, binding)


def _take_producers(plan: _Plan, group: Group) -> None:
    planar = attributes_of(group.anchor.value, Pack).planar
    writes = not planar and _packs_whole_words(group, group.anchor)
    waiting: list[relax.Var] = read_vars(group.anchor.value)
    while waiting:
        var = waiting.pop()
        unit = plan.unit.get(var)
        if unit is None or len(unit.members) > 1 or unit is group or var in plan.results:
            continue
        binding = unit.anchor
        if not is_call(binding.value, *OPERATORS) or not _same_elements(binding, group.shape):
            continue
        if all(reader in group for reader in plan.users[var]) or (writes and plan.may_write(group, binding)):
            plan.join(group, binding)
            waiting += read_vars(binding.value)
