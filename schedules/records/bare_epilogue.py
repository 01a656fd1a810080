"""An epilogue that makes of a sum no more than the outputs need: a sign for bits, and itself for all else."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from schedules.parts.epilogue import SUM, Epilogue, Extreme, Output, Step, Value
from schedules.records.kernel_task import Written


def bare_epilogue(written: Written, out_shape: tuple[int, int, int, int], sums: str) -> Epilogue:
    """out_shape: [N, H, W, C]; sums: their dtype."""
    steps: list[Step] = []
    outputs = []

    def step(op: str, *inputs: Value, **attributes: str) -> Value:
        steps.append(Step(op, inputs, attributes))
        return Value("step", len(steps) - 1)

    for kind, packing in written:
        *form, dtype = kind.split()
        shape: tuple[int, ...] = out_shape
        planar, extreme = "planar" in form, next((e for e in get_args(Extreme) if e in form), None)
        if packing and packing.quantizer:
            dtype, packing = "float32", replace(packing, quantizer=replace(packing.quantizer, scale=1.0))
        if packing and not packing.quantizer:
            zero = Value("number", number=0, dtype=sums)
            value = SUM if sums == "bool" else step("relax.greater_equal", SUM, zero)
        else:
            value = SUM if dtype == sums else step("relax.astype", SUM, dtype=dtype)
        if packing:
            shape, dtype = packing.shape(*shape[:3]), packing.dtype
        elif planar:
            shape = (shape[0], shape[3], *shape[1:3])
        elif extreme:
            shape = (shape[0], shape[3])
        outputs.append(Output(value, shape, dtype, packing, planar, extreme))
    return Epilogue((), tuple(steps), tuple(outputs))
