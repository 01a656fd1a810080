"""Packing that no kernel before it took in: of truths to bits, of floats to bytes."""

from __future__ import annotations

from tvm import relax, tirx

from relay_passes.ir.operators import Pack, attributes_of, packed_image
from relay_passes.ir.rewrite import shape_of
from relay_passes.kernels.kernel import Kernel, Site, Tunable
from relay_passes.kernels.planes_of_input import FEW_CHANNELS
from schedules.kernels.packing import packing_kernel
from schedules.kernels.planar_packing import planar_packing_kernel
from schedules.kernels.planar_quantizing import planar_quantizing_kernel
from schedules.records.kernel_task import outputs_of
from schedules.records.kinds.packing import PlanarPackingTask
from schedules.targets.kernel_target import Lanes


def lower_pack(site: Site) -> Kernel:
    pack = attributes_of(site.anchor, Pack)
    packing, operands = pack.packing, site.operands
    if packing.quantizer and packing.channels <= FEW_CHANNELS and site.planes is not None:
        batch, _, height, width = shape_of(site.planes)
        function, operands = planar_quantizing_kernel(batch, height, width, packing), [site.planes]
    elif pack.planar:
        task = PlanarPackingTask(
            extents=shape_of(site.anchor.args[0]),
            operands=site.epilogue.operands,
            steps=tuple(step.op for step in site.epilogue.steps),
            outputs=outputs_of(site.epilogue),
        )

        def make(lanes: Lanes) -> tuple[tirx.PrimFunc, list[relax.Expr]]:
            word = site.target.plane_word
            return planar_packing_kernel(task.extents, site.epilogue, lanes, word), site.operands

        function, _ = make(site.choose(Tunable(task, make)))
    else:
        function = packing_kernel(packed_image(site.anchor), site.epilogue)
    return Kernel(
        name="pack", function=function, arguments=operands, epilogue=site.epilogue, operands=operands
    )
