"""Functions that kernels carry: one of each kind in a module, whoever calls them."""

import re

import tvm
from tvm import tirx

from bibench_tvm.compiling.processors import resolve_target
from schedules.codegen import generate_code
from schedules.geometry import Convolution
from schedules.kernels.convolution import binary_convolution
from schedules.parts.apart import CALLED, carried, share_called
from schedules.parts.bits import Packing
from schedules.parts.borders import Ending
from schedules.parts.epilogue import plain

CONV = Convolution(1, 7, 7, 256, 64, (3, 3), padding=(1, 1, 1, 1))


def kernel(
    conv: Convolution, dtype: str, ending: Ending = "bordered dot", target: str = "arm_cpu"
) -> tirx.PrimFunc:
    kernels = resolve_target(target).kernels
    packing = Packing(conv.channels, 16, halo=conv.padding)
    tile = kernels.binary_tile(conv)
    return binary_convolution(conv, packing, tile, kernels, plain(conv.out_shape, dtype), ending=ending)


def named(*kernels: tirx.PrimFunc) -> tvm.IRModule:
    return tvm.IRModule({f"k{i}": k.with_attr("global_symbol", f"k{i}") for i, k in enumerate(kernels)})


def test_kernels_of_the_same_sums_share_them() -> None:
    taller = Convolution(1, 9, 7, 256, 64, (3, 3), padding=(1, 1, 1, 1))
    module = named(kernel(CONV, "int32"), kernel(CONV, "int32"), kernel(taller, "int32"))
    shared = share_called(module)
    names = sorted(name.name_hint for name in shared.functions)
    # A row of seven is a tile of four pixels and one of three; a taller image reads on from further down.
    assert [n for n in names if n.startswith("sums")] == [f"sums_of_tile{i}" for i in range(4)]
    assert all(CALLED not in function.attrs for function in shared.functions.values())


def test_few_channels_are_summed_apart_too() -> None:
    """A vector holds the sums of several outputs there, and not parts of one."""
    assert carried(kernel(Convolution(1, 7, 7, 64, 64, (3, 3), padding=(1, 1, 1, 1)), "int32"))


def test_the_sums_are_never_inlined() -> None:
    """LLVM would take their tensor in the one function and in the other for two."""
    target = resolve_target("arm_cpu").tvm
    text = str(generate_code(named(kernel(CONV, "int32")), target).mod.inspect_source("ll"))
    defined = re.findall(r"^define internal [^\n]*@(sums[\w.]*)\([^\n]*#(\d+)", text, re.M)
    assert len(defined) == 2
    for _, attributes in defined:
        assert re.search(rf"^attributes #{attributes} = {{ [^\n]*noinline", text, re.M)


def test_a_kernel_that_calls_nothing_stays_as_it_is() -> None:
    whole = kernel(CONV, "int32", target="armv7")
    assert not carried(whole)
    assert [f.same_as(whole) for f in share_called(tvm.IRModule({"k": whole})).functions.values()] == [True]
