"""A board that says what it is gets the target of that name."""

import platform

import pytest
from tvm.target import codegen

from bibench_tvm.compiling.processors import name_of, resolve_target
from bibench_tvm.tuning.tuner import _unit
from rpc.session import BoardInfo


@pytest.mark.parametrize(
    ("machine", "cpu", "name"),
    [
        ("aarch64", "cortex-a53", "rpi3b+"),
        ("aarch64", "cortex-a72", "rpi4b"),
        ("aarch64", "cortex-a510", "arm_cpu"),
        ("armv7l", "cortex-a7", "armv7"),
        ("unknown", "unknown", None),
        (platform.machine(), str(codegen.llvm_get_system_cpu()), "host"),
    ],
)
def test_the_name_of_a_board(machine: str, cpu: str, name: str | None) -> None:
    assert name_of(machine, cpu) == name


@pytest.mark.parametrize(
    ("target", "machine", "kernels"),
    [
        ("armv7", "armv7l", "arm32_neon"),
        ("rpi4b", "aarch64", "aarch64_neon"),
        ("arm/pixel2", "aarch64", "aarch64_neon"),  # TVM says arm64
        ("arm/rasp4b", "armv7l", "arm32_neon"),  # and armv8l
    ],
)
def test_a_target_is_for_the_machine_that_its_boards_say(target: str, machine: str, kernels: str) -> None:
    found = resolve_target(target)
    board = BoardInfo("key", ("localhost", 1), machine=machine, cpu=found.cpu)
    assert (found.machine, found.kernels.name) == (machine, kernels)
    assert _unit([board], found, model_cycles=False) == "seconds"


def test_records_are_for_the_cores_in_whose_order_code_is() -> None:
    """Of a chip with little cores these: the same schedule for its big ones is other code."""
    cpus = {
        name: resolve_target(name).processor.cpu for name in ("rpi5", "rk3588", "kirin970", "dimensity9000")
    }
    assert cpus == {
        "rpi5": "cortex-a76",
        "rk3588": "cortex-a55",
        "kirin970": "cortex-a53",
        "dimensity9000": "cortex-x2",
    }
