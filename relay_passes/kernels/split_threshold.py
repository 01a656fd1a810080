"""The comparison that an epilogue starts with becomes a limit of the kernel itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm import relax

from relay_passes.ir.rewrite import constant_value, is_constant
from schedules.parts.epilogue import SUM, Epilogue, Step, Value


def split_threshold(
    epilogue: Epilogue, operands: list[relax.Expr]
) -> tuple[Epilogue, list[relax.Expr], np.ndarray, np.ndarray] | None:
    """Take `sum >= T`, or `(sum >= T) xor falls`, with constants off the start of an epilogue that reads the
    sum for nothing else: (the rest, which gets that truth for its sum; its operands; T; falls). None for any
    other."""

    def constant(value: Value) -> np.ndarray | None:
        if value.kind == "number":
            return np.asarray([value.number])
        fixed = value.kind == "operand" and is_constant(operands[value.index])
        return constant_value(operands[value.index]).reshape(-1) if fixed else None

    def readers(value: Value) -> int:
        return sum(step.inputs.count(value) for step in epilogue.steps) + sum(
            output.value == value for output in epilogue.outputs
        )

    steps = epilogue.steps
    if any(v.kind in ("table", "repeated") for step in steps for v in step.inputs):
        return None  # no step of integers reads one
    if not steps or steps[0].op != "relax.greater_equal" or steps[0].inputs[0] != SUM or readers(SUM) != 1:
        return None
    thresholds = constant(steps[0].inputs[1])
    if thresholds is None or not np.issubdtype(thresholds.dtype, np.integer):
        return None
    truth, falls = Value("step", 0), np.asarray([False])
    if (
        len(steps) > 1
        and steps[1].op == "relax.logical_xor"
        and steps[1].inputs[0] == truth
        and readers(truth) == 1
    ):
        turned = constant(steps[1].inputs[1])
        if turned is not None:
            truth, falls = Value("step", 1), turned.astype(bool)
    dropped = truth.index + 1
    used = sorted({v.index for step in steps[dropped:] for v in step.inputs if v.kind == "operand"})

    def moved(value: Value) -> Value:
        if value == truth:
            return SUM
        if value.kind == "step":
            return Value("step", value.index - dropped)
        return Value("operand", used.index(value.index)) if value.kind == "operand" else value

    rest = Epilogue(
        tuple(epilogue.operands[i] for i in used),
        tuple(Step(s.op, tuple(map(moved, s.inputs)), s.attributes) for s in steps[dropped:]),
        tuple(replace(o, value=moved(o.value)) for o in epilogue.outputs),
    )
    return rest, [operands[i] for i in used], thresholds, falls
