"""Which kernels a processor gets, and what else it can execute."""

from dataclasses import replace

import pytest

from schedules.geometry import Convolution
from schedules.targets import aarch64_neon, x86_avx512
from schedules.targets.choose import ALL, FAMILIES, TELLING, executable, kernel_target

AVX512 = ["avx512f", "avx512bw", "avx512vpopcntdq"]


@pytest.mark.parametrize(
    ("triple", "features", "names"),
    [
        ("aarch64-linux-gnu", [], ["aarch64_neon", "generic"]),
        ("armv7a-linux-gnueabihf", ["neon"], ["arm32_neon", "arm32_scalar", "generic"]),
        ("armv7l", [], ["arm32_scalar", "generic"]),
        ("x86_64-linux-gnu", ["avx2", *AVX512], ["x86_avx512", "x86_avx2", "generic"]),
        ("x86_64-linux-gnu", AVX512, ["x86_avx512", "generic"]),
        ("x86_64-linux-gnu", ["avx2", *AVX512[:2]], ["x86_avx2", "generic"]),
        ("x86_64-linux-gnu", [], ["generic"]),
        ("aarch64-linux-gnu", ["avx2"], ["aarch64_neon", "generic"]),
        ("riscv64-unknown-linux-gnu", ["neon", "avx2"], ["generic"]),
    ],
)
def test_what_a_processor_can_execute_the_best_first(triple: str, features: list[str], names: list[str]):
    assert [kernels.name for kernels in executable(triple, features)] == names


def test_a_better_dot_product_where_the_processor_has_it():
    assert kernel_target("aarch64-linux-gnu", ["dotprod"]).dot is aarch64_neon.SDOT
    assert kernel_target("aarch64-linux-gnu", ["neon"]).dot is aarch64_neon.LONG
    assert kernel_target("x86_64-linux-gnu", ["avx512vnni", *AVX512]).dot is x86_avx512.VNNI
    assert kernel_target("x86_64-linux-gnu", AVX512).dot is x86_avx512.PAIRS


def test_a_core_that_works_in_order_has_tiles_of_its_own():
    conv = Convolution(1, 14, 14, 256, 256, (3, 3), padding=(1, 1, 1, 1))
    tiles = [
        kernel_target("aarch64-linux-gnu", ["neon"], core).binary_tile(conv) for core in ("", "cortex-a55")
    ]
    assert [(tile.depth, tile.abreast, tile.unroll) for tile in tiles] == [(8, None, 6), (8, 2, 2)]
    narrow = replace(conv, channels=64)
    assert aarch64_neon.in_order_tile(narrow) == aarch64_neon.binary_tile(narrow)


def test_an_artifact_names_what_its_kernels_need():
    assert len({kernels.name for kernels in ALL}) == len(ALL) == 6
    for family in FAMILIES:
        assert family.needs | set(family.dots) <= family.telling <= TELLING
