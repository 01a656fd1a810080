"""An epilogue that makes of a sum no more than the outputs need: a sign for bits, and itself for all else."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from schedules.parts.epilogue import SUM, Epilogue, Form, Output, Step, Value
from schedules.records.kernel_task import Written


def bare_epilogue(written: Written, out_shape: tuple[int, int, int, int], sums: str) -> Epilogue:
    """out_shape: [N, H, W, C]; sums: their dtype."""
    steps: list[Step] = []
    outputs = []

    def step(op: str, *inputs: Value, **attributes: str) -> Value:
        steps.append(Step(op, inputs, attributes))
        return Value("step", len(steps) - 1)

    for kind, packing in written:
        dtype, shape = kind.split()[-1], out_shape
        form = next((form for form in get_args(Form) if kind.startswith(form)), None)
        if packing and packing.quantizer:
            dtype, packing = "float32", replace(packing, quantizer=replace(packing.quantizer, scale=1.0))
        if packing and not packing.quantizer:
            zero = Value("number", number=0, dtype=sums)
            value = SUM if sums == "bool" else step("relax.greater_equal", SUM, zero)
        else:
            value = SUM if dtype == sums else step("relax.astype", SUM, dtype=dtype)
        if packing:
            shape, dtype = packing.shape(*shape[:3]), packing.dtype
        n, h, w, c = shape
        if form == "planar":
            shape = (n, c, h, w)
        elif form == "swapped":
            shape = (n, w, h, c)
        elif form:
            shape = (n, 1, 1, c)
        outputs.append(Output(value, shape, dtype, packing, form))
    return Epilogue((), tuple(steps), tuple(outputs))
