"""One machine has one name, whoever says it."""

import platform

import pytest

from rpc.machine_name import machine_name, this_machine


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("aarch64", ["aarch64", "arm64", "ARM64", "aarch64-linux-gnu", "arm64-linux-android"]),
        ("armv7l", ["armv7l", "armv8l", "arm", "armv7a-linux-gnueabihf", "thumbv7-linux-gnueabihf"]),
        ("x86_64", ["x86_64", "AMD64", "x86_64-unknown-linux-gnu"]),
        ("armv6l", ["armv6l"]),
        ("riscv64", ["riscv64", "riscv64-unknown-linux-gnu"]),
    ],
)
def test_each_machine_has_one_name(name: str, said: list[str]) -> None:
    assert {machine_name(word) for word in said} == {name}


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert this_machine() == "aarch64"
