"""The text of every kind of kernel, made by direct calls, is the one that it was.

Networks (tests/bibench_tvm/compiling/test_golden_kernels.py) reach only some geometries and the tiles that a
target chooses; here are the others. `pytest --renew-golden` writes `golden_calls.json` anew.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tvm import tirx

from schedules.geometry import Convolution
from schedules.kernels.convolution import binary_convolution, bytes_after, float_convolution, int8_convolution
from schedules.kernels.depthwise import default_strip, depthwise_convolution
from schedules.kernels.packing import packing_kernel
from schedules.kernels.planar_packing import default_lanes, planar_packing_kernel
from schedules.kernels.planar_quantizing import planar_quantizing_kernel
from schedules.kernels.pooling import Pooling, pooling_kernel
from schedules.kernels.transposition import transposition
from schedules.kernels.winograd import winograd_convolution
from schedules.kernels.winograd_inside import winograd_inside
from schedules.parts.bits import Packing
from schedules.parts.borders import Ending
from schedules.parts.epilogue import SUM, Epilogue, Output, Step, Value, plain
from schedules.parts.quantizer import Quantizer
from schedules.targets import KernelTarget, Tile, aarch64_neon, x86_avx512
from schedules.targets.choose import ALL

GOLDEN = Path(__file__).with_name("golden_calls.json")

CONVS = {
    "padded": Convolution(1, 7, 7, 64, 64, (3, 3), padding=(1, 1, 1, 1)),
    "wide": Convolution(1, 14, 7, 256, 40, (3, 3), padding=(1, 1, 1, 1)),
    "uneven": Convolution(2, 5, 6, 20, 35, (3, 2), (2, 1), (1, 0, 2, 1), (1, 2)),
    "grouped": Convolution(2, 5, 5, 48, 160, (3, 3), padding=(1, 1, 1, 1), groups=4),
    "dense": Convolution(1, 1, 3, 300, 10),
    "long": Convolution(1, 1, 1, 65536, 8),
}
TILED = Convolution(2, 8, 7, 64, 96, (3, 3), (1, 1), (1, 1, 1, 1))
TILES = {
    "narrow": Tile(pixels=1, lanes=16, quantum=8, word=8),
    "words of 16": Tile(pixels=3, lanes=32, quantum=8, word=16, together=4, unroll=2),
    "words of 32": Tile(pixels=3, lanes=64, quantum=16, word=32, together=1, unroll=3),
    "two rows": Tile(pixels=6, lanes=32, quantum=8, rows=2, word=16, together=8),
    "four rows": Tile(pixels=12, lanes=32, quantum=8, rows=4, word=16, blocks_outside=True),
    "outside": Tile(pixels=4, lanes=64, quantum=16, word=32, blocks_outside=True),
    "depth": Tile(pixels=4, lanes=32, quantum=4, depth=4, word=16, unroll=3),
    "side by side": Tile(pixels=2, lanes=64, quantum=8, word=16, abreast=4),
    "deep and side by side": Tile(pixels=3, lanes=32, quantum=4, depth=4, word=16, unroll=2, abreast=2),
    "deep rows": Tile(pixels=2, lanes=64, quantum=8, depth=2, rows=2, word=32, blocks_outside=True),
}
FLOAT_TILES = {
    "one": Tile(pixels=1, lanes=8, quantum=4, unroll=4),
    "rows": Tile(pixels=4, lanes=64, quantum=8, rows=2, together=4),
    "outside": Tile(pixels=7, lanes=64, quantum=16, together=1, blocks_outside=True),
}
STEMS = {
    "stem": Convolution(1, 19, 23, 3, 72, (7, 7), (2, 2), (3, 2, 3, 4)),
    "small": Convolution(2, 5, 9, 3, 40, (3, 3), padding=(1, 1, 1, 1)),
    "dilated": Convolution(1, 7, 50, 1, 8, (2, 11), (1, 4), (0, 2, 0, 2), (3, 1)),
}


def both(conv: Convolution, target: KernelTarget, *, groups: int = 1) -> Epilogue:
    """Numbers, scaled, and the packed truth of a comparison."""
    packing = Packing(conv.out_channels, 8 if groups > 1 else target.word, groups, (1, 0, 2, 1))
    channels = (conv.out_channels,)
    return Epilogue(
        ((channels, "float32"), (channels, "float32")),
        (
            Step("relax.astype", (SUM,), {"dtype": "float32"}),
            Step("relax.multiply", (Value("step", 0), Value("operand", 0))),
            Step("relax.greater_equal", (Value("step", 1), Value("operand", 1))),
        ),
        (
            Output(Value("step", 1), conv.out_shape, "float32"),
            Output(Value("step", 2), packing.shape(*conv.out_shape[:3]), packing.dtype, packing),
        ),
    )


def planes(conv: Convolution, dtype: str) -> Epilogue:
    """The sums as [N, C, H, W], and once more channels last."""
    n, h, w, c = conv.out_shape
    return Epilogue(
        (), (), (Output(SUM, (n, c, h, w), dtype, form="planar"), Output(SUM, conv.out_shape, dtype))
    )


def binary(target: KernelTarget) -> Iterator[tuple[str, tirx.PrimFunc]]:
    def made(
        conv: Convolution, tile: Tile | None, epilogue: Epilogue, ending: Ending, more: tuple = (0, 0, 0, 0)
    ) -> tirx.PrimFunc:
        halo = tuple(p + m for p, m in zip(conv.padding, more, strict=True))
        word = max(target.word_for(conv), tile.word or 8) if tile else target.word_for(conv)
        packing = Packing(conv.channels, word, conv.groups, halo)
        return binary_convolution(
            conv, packing, tile or target.binary_tile(conv), target, epilogue, ending=ending
        )

    for name, conv in CONVS.items():
        yield f"{name} dot", made(conv, None, plain(conv.out_shape, "int32"), "dot", (0, 1, 0, 2))
        yield f"{name} truth", made(conv, None, plain(conv.out_shape, "bool"), "truth")
        yield f"{name} bordered", made(conv, None, both(conv, target, groups=conv.groups), "bordered dot")
        yield f"{name} planes", made(conv, None, planes(conv, "int32"), "bordered dot")
    for name, tile in TILES.items():
        yield f"tile {name}", made(TILED, tile, both(TILED, target), "bordered dot")
        yield f"tile {name} planes", made(TILED, tile, planes(TILED, "int32"), "dot")
        grouped = replace(TILED, groups=2, dilation=(2, 1), padding=(2, 1, 2, 1), channels=256)
        yield f"tile {name} grouped", made(grouped, tile, plain(grouped.out_shape, "bool"), "truth")
    product = Convolution(2, 3, 5, 40, 70)
    tile = replace(target.binary_tile(product), quantum=target.binary_tile(product).lanes, depth=1)
    yield (
        "weights per row",
        binary_convolution(
            product,
            Packing(40, target.word),
            tile,
            target,
            plain(product.out_shape, "int32"),
            ending="dot",
            weights_per_row=True,
        ),
    )


def floats(target: KernelTarget) -> Iterator[tuple[str, tirx.PrimFunc]]:
    for name, conv in CONVS.items():
        shape, tile = (conv.batch, conv.height, conv.width, conv.channels), target.float_tile(conv)
        yield (
            f"{name} both",
            float_convolution(conv, shape, tile, target, both(conv, target, groups=conv.groups)),
        )
        yield f"{name} planes", float_convolution(conv, shape, tile, target, planes(conv, "float32"))
    yield "flat", float_convolution(CONVS["dense"], (3, 300), tile, target, plain((3, 10), "float32"))
    tile = target.winograd_tile(TILED) or Tile(pixels=48, lanes=32, quantum=16)
    for output, epilogue in (("plain", plain(TILED.out_shape, "float32")), ("both", both(TILED, target))):
        yield f"winograd inside {output}", winograd_inside(TILED, tile, target, epilogue)
    for name, tile in FLOAT_TILES.items():
        shape = (TILED.batch, TILED.height, TILED.width, TILED.channels)
        yield f"tile {name}", float_convolution(TILED, shape, tile, target, both(TILED, target))
    for name, conv in STEMS.items():
        shape, tile = (conv.batch, conv.channels, conv.height, conv.width), target.float_tile(conv)
        for output, epilogue in (("both", both(conv, target)), ("planes", planes(conv, "float32"))):
            yield (
                f"{name} read plane by plane {output}",
                float_convolution(conv, shape, tile, target, epilogue, planar=True),
            )
        tile = target.winograd_tile(conv) or Tile(pixels=48, lanes=32, quantum=16)
        for output, epilogue in (
            ("plain", plain(conv.out_shape, "float32")),
            ("both", both(conv, target)),
        ):
            yield f"{name} winograd {output}", winograd_convolution(conv, tile, target, epilogue)


def int8(target: KernelTarget) -> Iterator[tuple[str, tirx.PrimFunc]]:
    others = {"aarch64_neon": [aarch64_neon.SDOT], "x86_avx512": [x86_avx512.VNNI]}
    for i, dot in enumerate([target.dot, *others.get(target.name, [])]):
        with_dot = replace(target, dot=dot)
        for name, conv in {**CONVS, **STEMS}.items():
            top, left, bottom, right = conv.padding
            halo = (top, left + 1, bottom + bytes_after(conv, dot.word), right)
            packing = Packing(conv.channels, 8, halo=halo, quantizer=Quantizer(0.02, dot.zero_point))
            after = Packing(conv.out_channels, 8, 1, (0, 1, 1, 0), Quantizer(9.0, dot.zero_point))
            epilogue = Epilogue(
                (),
                (Step("relax.astype", (SUM,), {"dtype": "float32"}),),
                (
                    Output(SUM, conv.out_shape, "int32"),
                    Output(Value("step", 0), after.shape(*conv.out_shape[:3]), after.dtype, after),
                ),
            )
            for output, written in (("bytes", epilogue), ("planes", planes(conv, "int32"))):
                kernel = int8_convolution(conv, packing, dot.tile(conv), with_dot, written)
                yield f"{i} {name} {output}", kernel


def depthwise(target: KernelTarget) -> Iterator[tuple[str, tirx.PrimFunc]]:
    def made(conv: Convolution, packing: Packing | None, dtype: str, ending: Ending = "dot") -> tirx.PrimFunc:
        strip, epilogue = default_strip(conv, packing, target), plain(conv.out_shape, dtype)
        return depthwise_convolution(conv, packing, epilogue, ending=ending, strip=strip)

    conv = Convolution(2, 6, 7, 130, 130, (3, 3), (2, 1), (1, 2, 1, 0), (1, 2), 130)
    packing = Packing(130, 8, 130, (1, 3, 2, 0))
    endings: tuple[Ending, ...] = ("dot", "bordered dot", "truth")
    for ending in endings:
        yield f"binary {ending}", made(conv, packing, "bool" if ending == "truth" else "int32", ending)
    several = replace(conv, channels=3 * 130)
    yield "binary, 3 a group", made(several, Packing(3 * 130, 8, 130, conv.padding), "bool", "truth")
    yield "int8", made(conv, Packing(130, 8, halo=(1, 3, 2, 0), quantizer=Quantizer(0.02)), "int32")
    yield "float", made(conv, None, "float32")
    yield (
        "float, wide",
        made(replace(conv, width=40, channels=24, out_channels=24, groups=24), None, "float32"),
    )
    yield "float, far", made(replace(conv, width=40, padding=(9, 9, 9, 9), dilation=(9, 9)), None, "float32")
    yield "long", made(Convolution(1, 300, 300, 2, 2, (256, 256), groups=2), Packing(2, 8, 2), "int32")


def moves(target: KernelTarget) -> Iterator[tuple[str, tirx.PrimFunc]]:
    """Pooling, packing, quantizing, turning."""
    window = Convolution(2, 9, 7, 70, 70, (3, 2), (2, 1), (1, 0, 1, 1), (1, 2), 70)
    written = both(window, target)
    yield "maximum", pooling_kernel(Pooling(window, "float32"), written)
    yield "average", pooling_kernel(Pooling(window, "float32", True), plain(window.out_shape, "float32"))
    counted = Pooling(window, "float32", True, True)
    yield "average of all", pooling_kernel(counted, plain(window.out_shape, "float32"))
    for groups, channels, word in ((1, 70, 32), (2, 70, 16), (70, 70, 8)):
        packing = Packing(channels, word, groups, (1, 0, 2, 1))
        for planar in (False, True):
            extents = (2, channels, 5, 9) if planar else (2, 5, 9, channels)
            zero = Value("number", number=0.0)
            read = Step("relax.greater_equal", (Value("operand", 0), zero))
            output = Output(Value("step", 0), packing.shape(2, 5, 9), packing.dtype, packing)
            epilogue = Epilogue(((extents, "float32"),), (read,), (output,))
            if planar:
                lanes = default_lanes(packing, target)
                kernel = planar_packing_kernel(extents, epilogue, lanes, target.plane_word)
            else:
                kernel = packing_kernel(extents, epilogue)
            yield f"packing {groups} groups{' of planes' * planar}", kernel
    for channels in (1, 3):
        packing = Packing(channels, 8, halo=(1, 2, 3, 0), quantizer=Quantizer(0.02, 128))
        yield f"quantizing {channels} planes", planar_quantizing_kernel(2, 5, 39, packing)
    yield "turning", transposition((2, 13, 21), (2, 21, 13), (2, 13, 21), "float32", target.floats)


KINDS = {"binary": binary, "float": floats, "int8": int8, "depthwise": depthwise, "moves": moves}


@pytest.mark.parametrize("kind", KINDS)
def test_the_kernels_are_those_that_they_were(kind: str, request: pytest.FixtureRequest) -> None:
    found = {
        f"{kind} {target.name}": {
            name: hashlib.sha256(kernel.script().encode()).hexdigest()[:16]
            for name, kernel in KINDS[kind](target)
        }
        for target in ALL
    }
    golden = json.loads(GOLDEN.read_text())
    if request.config.getoption("--renew-golden"):
        GOLDEN.write_text(json.dumps(golden | found, indent=1, sort_keys=True) + "\n")
        return
    assert found == {key: value for key, value in golden.items() if key.split()[0] == kind}
