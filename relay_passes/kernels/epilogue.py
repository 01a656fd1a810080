"""A group's program after its anchor, as the epilogue of the anchor's kernel."""

from __future__ import annotations

from collections.abc import Mapping

from tvm import relax

from relay_passes.ir.operators import Pack, attributes_of, packed_image
from relay_passes.ir.rewrite import (
    constant_value,
    dtype_of,
    is_call,
    is_constant,
    is_tensor,
    read_vars,
    shape_of,
)
from relay_passes.kernels.group_kernels import Group, form_of
from schedules.parts.epilogue import SUM, Epilogue, Output, Step, Value, step_attributes


def epilogue_of(
    group: Group,
    written: list[relax.Var],
    env: Mapping[relax.Var, relax.Expr],
    borders: Mapping[relax.Var, relax.Call],
) -> tuple[Epilogue, list[relax.Expr]]:
    """The program, and the tensors that it reads besides the sum.

    written: members in the order of its outputs; env: the new variable for each that is computed before;
    borders: the calls of `bibench.border`, which the kernel reads as tables.
    """
    values: dict[relax.Var, Value] = {}
    if not is_call(group.anchor.value, "bibench.pack"):
        values[group.anchor.var] = SUM
    tiles = {m.var: m.value.args[0] for m in group.members if is_call(m.value, "relax.tile")}
    operands: list[relax.Expr] = []
    steps: list[Step] = []
    outputs: dict[relax.Var, Output] = {}

    def value(arg: relax.Expr, like: relax.Call) -> Value:
        if isinstance(arg, relax.Var) and arg in values:
            return values[arg]
        if not is_tensor(arg):
            return Value("number", number=float(arg.value), dtype=dtype_of(like.args[0]))
        if is_constant(arg) and constant_value(arg).size == 1:
            return Value("number", number=constant_value(arg).item(), dtype=dtype_of(arg))
        if isinstance(arg, relax.Var) and arg in borders:
            operands.extend(borders[arg].args)
            return Value("table", len(operands) - 3)
        kind = "operand"
        if isinstance(arg, relax.Var) and arg in tiles:
            kind, arg = "repeated", tiles[arg]
        if isinstance(arg, relax.Var):
            arg = env.get(arg, arg)
        for i, operand in enumerate(operands):
            if operand.same_as(arg):
                return Value(kind, i)
        operands.append(arg)
        return Value(kind, len(operands) - 1)

    for member in in_order(group):
        call, var = member.value, member.var
        if is_call(call, "bibench.pack"):
            packing = attributes_of(call, Pack).packing
            shape = packing.shape(*packed_image(call)[:3])
            outputs[var] = Output(value(call.args[0], call), shape, packing.dtype, packing)
        elif form := form_of(group, member):
            outputs[var] = Output(value(call.args[0], call), shape_of(var), dtype_of(var), form=form)
        elif member is not group.anchor and var not in tiles:
            steps.append(Step(call.op.name, tuple(value(a, call) for a in call.args), step_attributes(call)))
            values[var] = Value("step", len(steps) - 1)
    shapes = tuple((shape_of(o), dtype_of(o)) for o in operands)
    results = tuple(outputs.get(v) or Output(values[v], shape_of(v), dtype_of(v)) for v in written)
    return Epilogue(shapes, tuple(steps), results), operands


def in_order(group: Group) -> list[relax.VarBinding]:
    """Members so that each comes after what it reads."""
    own = {m.var: m for m in group.members}
    done: dict[relax.Var, relax.VarBinding] = {}

    def visit(member: relax.VarBinding) -> None:
        for read in read_vars(member.value):
            if read in own and read not in done:
                visit(own[read])
        done.setdefault(member.var, member)

    for member in group.members:
        visit(member)
    return list(done.values())
