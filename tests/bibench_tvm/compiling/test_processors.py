"""A board that says what it is gets the target of that name."""

import platform

import pytest
from tvm.target import codegen

from bibench_tvm.compiling.processors import name_of


@pytest.mark.parametrize(
    ("machine", "cpu", "name"),
    [
        ("aarch64", "cortex-a53", "rpi3b+"),
        ("aarch64", "cortex-a72", "rpi4b"),
        ("aarch64", "cortex-a510", "arm_cpu"),
        ("armv7l", "cortex-a7", None),
        ("unknown", "unknown", None),
        (platform.machine(), str(codegen.llvm_get_system_cpu()), "host"),
    ],
)
def test_the_name_of_a_board(machine: str, cpu: str, name: str | None) -> None:
    assert name_of(machine, cpu) == name
