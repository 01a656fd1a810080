"""By what a record knows the kernels that it was measured on: the digest of their code.

A record serves every network with its layer, whatever else is computed before the outputs are written. So the
code is that of a kernel which writes outputs of the same kinds, and computes nothing else.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import replace

from tvm import tirx

from schedules.kernels.convolution import binary_convolution, float_convolution
from schedules.parts.epilogue import SUM, Epilogue, Output, Step, Value
from schedules.records.kernel_task import KernelTask
from schedules.targets.kernel_target import KernelTarget, Tile


def digest(task: KernelTask, tile: Tile, target: KernelTarget) -> str:
    """Of the code with this tile and with the default, which it was measured against; 16 hexadecimal digits.

    Raises ValueError for a tile that the kernel cannot have.
    """
    default = (target.tile_for_bits if task.packing else target.float_tile)(task.conv)
    codes = f"{_code(task, default, target)} {_code(task, tile, target)}"
    return hashlib.sha256(codes.encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=1024)
def _code(task: KernelTask, tile: Tile, target: KernelTarget) -> str:
    return hashlib.sha256(bare_kernel(task, tile, target).script().encode()).hexdigest()


def bare_kernel(task: KernelTask, tile: Tile, target: KernelTarget) -> tirx.PrimFunc:
    conv, epilogue = task.conv, _writing(task)
    if task.packing:
        return binary_convolution(conv, task.packing, tile, target, epilogue, ending=task.ending)
    shape = (conv.batch, conv.height, conv.width, conv.channels)
    if task.planar:
        shape = (conv.batch, conv.channels, conv.height, conv.width)
    return float_convolution(conv, shape, tile, target, epilogue, planar=task.planar)


def _writing(task: KernelTask) -> Epilogue:
    """What makes of a sum no more than the outputs need: a sign for bits, and itself for all else."""
    conv, sums = task.conv, "float32"
    if task.packing:
        sums = "bool" if task.ending == "truth" else "int32"
    steps: list[Step] = []
    outputs = []

    def step(op: str, *inputs: Value, **attributes: str) -> Value:
        steps.append(Step(op, inputs, attributes))
        return Value("step", len(steps) - 1)

    for written, packing in task.outputs:
        dtype = written.removeprefix("planar ")
        planar, shape = dtype != written, conv.out_shape
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
        outputs.append(Output(value, shape, dtype, packing, planar))
    return Epilogue((), tuple(steps), tuple(outputs))
