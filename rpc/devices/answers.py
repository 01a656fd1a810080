"""What runner.c says, with its types."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from rpc.listing import RemoteError

Count = Annotated[int, msgspec.Meta(ge=0)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """machine: as `uname -m`; features: the kernel's names; midr: which of Arm's cores it is; emulated:
    whether it counts instructions in place of nanoseconds."""

    machine: Text
    model: Text | None
    features: Text
    midr: Count | None
    governor: Text | None
    emulated: bool
    memory_bytes: Count
    cores: Count


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """As `rpc.machine.conditions`, of the fastest core; None where the device does not say."""

    governor: Text | None
    mhz: float | None
    temperature_c: float | None
    throttled: Text | None
    load_average: float | None
    memory_available_bytes: float | None
    disk_free_bytes: Count | None


class Done(msgspec.Struct, frozen=True, kw_only=True):
    samples: Count


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """nanoseconds: of each run; cores: which it was kept on, or was meant to be; governor: of the first of
    them; all runs computed the same."""

    nanoseconds: tuple[Count, ...]
    cores: tuple[Count, ...]
    kept_on_cores: bool
    warm_up_runs: Count
    governor: Text | None
    peak_memory_bytes: Count


class KernelTimes(msgspec.Struct, frozen=True, kw_only=True):
    """nanoseconds: of a call, for each kernel those of every round, in which all took their turn."""

    nanoseconds: tuple[tuple[Annotated[float, msgspec.Meta(ge=0)], ...], ...]


Answer = TypeVar("Answer", Description, Conditions, Done, Timing, KernelTimes)


def answer(said: bytes, kind: type[Answer], where: str) -> Answer:
    """The last line of what the program said. Raises RemoteError."""
    lines = said.strip().splitlines()
    try:
        return msgspec.json.decode(lines[-1] if lines else b"", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RemoteError(f"What the program on {where} says makes no sense.") from None
