"""The digest of a kernel: of its code, and of nothing that a record does not depend on."""

from dataclasses import replace

import pytest

from schedules.geometry import Convolution
from schedules.kernels import convolution
from schedules.parts.bits import Packing
from schedules.parts.quantizer import Quantizer
from schedules.records import digest as module
from schedules.records.digest import digest
from schedules.records.kinds import tiled
from schedules.records.kinds.tiled import TiledTask
from schedules.targets.aarch64_neon import AARCH64_NEON
from schedules.targets.choose import ALL
from schedules.targets.x86_avx2 import X86_AVX2

CONV = Convolution(1, 8, 8, 32, 64, (3, 3), padding=(1, 1, 1, 1))
PACKING = Packing(32, 16, halo=(1, 1, 1, 1))
BITS = Packing(64, 16)
TASK = TiledTask(conv=CONV, packing=PACKING, ending="bordered dot", outputs=(("float32", None),))
BYTES = [Packing(64, 8, quantizer=Quantizer(scale)) for scale in (0.5, 0.25)]


def tile_of(task: TiledTask):
    return (AARCH64_NEON.binary_tile if task.packing else AARCH64_NEON.float_tile)(task.conv)


@pytest.mark.parametrize(
    "outputs",
    [
        (("float32", None),),
        (("int32", None),),
        (("planar float32", None),),
        (("swapped float32", None),),
        (("max int32", None), ("min int32", None)),
        (("uint16", BITS),),
        (("uint16", BITS), ("uint16", Packing(64, 16, halo=(1, 1, 1, 1)))),
        (("float32", None), ("uint16", BITS)),
        (("uint8", BYTES[0]),),
    ],
)
@pytest.mark.parametrize("kind", ["bordered dot", "truth", "float"])
def test_every_kind_of_output_has_a_kernel(kind: str, outputs: tuple) -> None:
    task = replace(TASK, outputs=outputs)
    task = replace(task, packing=None) if kind == "float" else replace(task, ending=kind)
    written = list(task.bare_kernel(tile_of(task), AARCH64_NEON).params)[-len(outputs) :]
    assert [str(p.dtype) for p in written] == [dtype.split()[-1] for dtype, _ in outputs]
    assert len(digest(task, tile_of(task), AARCH64_NEON)) == 16


def test_planar_activations() -> None:
    conv = Convolution(1, 32, 32, 3, 16, (3, 3), padding=(1, 1, 1, 1))
    task = TiledTask(conv=conv, outputs=(("float32", None),))
    digests = {digest(replace(task, planar=planar), tile_of(task), AARCH64_NEON) for planar in (False, True)}
    assert len(digests) == 2


def test_tasks_tiles_and_targets_differ_and_scales_do_not() -> None:
    tiles = TASK.candidates(AARCH64_NEON)[:3]
    found = [digest(TASK, tile, AARCH64_NEON) for tile in tiles]
    found += [digest(replace(TASK, outputs=(("uint16", BITS),)), tiles[0], AARCH64_NEON)]
    found += [digest(TASK, tiles[0], target) for target in ALL if target is not AARCH64_NEON]
    assert len(set(found)) == len(found)
    of_bytes = [replace(TASK, outputs=(("uint8", packing),)) for packing in BYTES]
    assert of_bytes[0].key == of_bytes[1].key
    assert len({digest(task, tiles[0], AARCH64_NEON) for task in of_bytes}) == 1


@pytest.mark.parametrize("of_default", [False, True])
def test_a_change_of_either_kernel_is_seen(monkeypatch: pytest.MonkeyPatch, of_default: bool) -> None:
    """Of the record's tile, and of the default that it was measured against."""
    default, other = tile_of(TASK), replace(tile_of(TASK), pixels=1)
    before = digest(TASK, other, AARCH64_NEON)
    plain = convolution.binary_convolution

    def changed(conv, packing, tile, *rest, **options):
        what = replace(tile, pixels=3) if (tile == default) == of_default else tile
        return plain(conv, packing, what, *rest, **options)

    monkeypatch.setattr(tiled, "binary_convolution", changed)
    module._code.cache_clear()
    assert digest(TASK, other, AARCH64_NEON) != before
    monkeypatch.undo()
    module._code.cache_clear()
    assert digest(TASK, other, AARCH64_NEON) == before


def test_the_default_is_that_of_the_layer() -> None:
    """Where bits are looked up too."""
    task = replace(TASK, conv=replace(CONV, channels=64), packing=Packing(64, 8, halo=(1, 1, 1, 1)))
    tile, in_bytes = X86_AVX2.binary_tile(task.conv), replace(X86_AVX2, table_tile=lambda conv: None)
    assert X86_AVX2.table_tile(task.conv)
    assert digest(task, tile, X86_AVX2) != digest(task, tile, in_bytes)
