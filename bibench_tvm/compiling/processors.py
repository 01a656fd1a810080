"""The processors that have a name here: the fourteen boards of the BiBench paper (ICML 2023) and more.

`cpu` is LLVM's name for the cores that count, the big ones. Features are those that every core of the chip
has. Code is scheduled for the little cores, where there are some: they work in order, and by LLVM's models
code for a big core takes them up to four times the cycles, while big cores reorder it themselves. Phones run
Android and Apple's chips are taken as running Linux: the artifact is an ELF library in each case. TVM's own
tags cover few of them, and differently from release to release, hence a table of our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bibench_tvm.artifact.host import describe_host
from bibench_tvm.cli.errors import unknown
from rpc.machine_name import machine_name, model_name, this_machine
from schedules.records.records import Processor
from schedules.targets.choose import TELLING, kernel_target
from schedules.targets.kernel_target import KernelTarget

_LINUX = "aarch64-linux-gnu"
_ANDROID = "aarch64-linux-android"
_DOT = ("neon", "dotprod", "fullfp16")


@dataclass(frozen=True)
class Preset:
    """description: the board; emulated_cpu: the nearest core of QEMU 7.2, empty where it has none; little:
    LLVM's name for its little cores, empty where it has none, or ones of more features than `features`."""

    description: str
    triple: str
    cpu: str
    features: tuple[str, ...] = ("neon",)
    emulated_cpu: str = "max"
    little: str = ""


PRESETS: dict[str, Preset] = {
    "arm_cpu": Preset("any 64-bit Arm processor with NEON", _LINUX, "generic", emulated_cpu="cortex-a53"),
    "armv7": Preset(
        "32-bit Arm with NEON", "armv7a-linux-gnueabihf", "cortex-a7", ("neon", "vfp4"), "cortex-a7"
    ),
    "rpi3b+": Preset("Raspberry Pi 3B+, Cortex-A53", _LINUX, "cortex-a53", emulated_cpu="cortex-a53"),
    "rpi4b": Preset("Raspberry Pi 4B, Cortex-A72", _LINUX, "cortex-a72", emulated_cpu="cortex-a72"),
    "rpi5": Preset("Raspberry Pi 5, Cortex-A76", _LINUX, "cortex-a76", _DOT, "cortex-a76"),
    "rpi-zero2w": Preset(
        "Raspberry Pi Zero 2 W, Cortex-A53", _LINUX, "cortex-a53", emulated_cpu="cortex-a53"
    ),
    "rk3399": Preset(
        "Rockchip RK3399, Cortex-A72", _LINUX, "cortex-a72", emulated_cpu="cortex-a72", little="cortex-a53"
    ),
    "rk3588": Preset(
        "Rockchip RK3588, Cortex-A76", _LINUX, "cortex-a76", _DOT, "cortex-a76", little="cortex-a55"
    ),
    "jetson-nano": Preset("NVIDIA Jetson Nano, Cortex-A57", _LINUX, "cortex-a57", emulated_cpu="cortex-a57"),
    "kirin970": Preset(
        "Kirin 970, Cortex-A73", _ANDROID, "cortex-a73", emulated_cpu="cortex-a72", little="cortex-a53"
    ),
    "kirin980": Preset(
        "Kirin 980, Cortex-A76", _ANDROID, "cortex-a76", _DOT, "cortex-a76", little="cortex-a55"
    ),
    "kirin985": Preset(
        "Kirin 985, Cortex-A76", _ANDROID, "cortex-a76", _DOT, "cortex-a76", little="cortex-a55"
    ),
    "kirin990": Preset(
        "Kirin 990, Cortex-A76", _ANDROID, "cortex-a76", _DOT, "cortex-a76", little="cortex-a55"
    ),
    "kirin9000e": Preset("Kirin 9000E, Cortex-A77", _ANDROID, "cortex-a77", _DOT, little="cortex-a55"),
    "dimensity820": Preset(
        "Dimensity 820, Cortex-A76", _ANDROID, "cortex-a76", _DOT, "cortex-a76", little="cortex-a55"
    ),
    "dimensity9000": Preset("Dimensity 9000, Cortex-X2", _ANDROID, "cortex-x2", _DOT),
    "snapdragon855+": Preset(
        "Snapdragon 855+, Kryo 485 (A76)", _ANDROID, "cortex-a76", _DOT, "cortex-a76", little="cortex-a55"
    ),
    "snapdragon870": Preset(
        "Snapdragon 870, Kryo 585 (A77)", _ANDROID, "cortex-a77", _DOT, little="cortex-a55"
    ),
    "snapdragon888": Preset("Snapdragon 888, Cortex-X1", _ANDROID, "cortex-x1", _DOT, little="cortex-a55"),
    "apple-m1": Preset("Apple M1, under Linux", _LINUX, "apple-m1", _DOT),
    "apple-m1-max": Preset("Apple M1 Max, under Linux", _LINUX, "apple-m1", _DOT),
    "cortex-m4": Preset("Cortex-M4F, standalone only", "thumbv7em-none-eabihf", "cortex-m4", (), ""),
    "cortex-m7": Preset("Cortex-M7F, standalone only", "thumbv7em-none-eabihf", "cortex-m7", (), ""),
    "cortex-m33": Preset("Cortex-M33F, standalone only", "thumbv8m.main-none-eabihf", "cortex-m33", (), ""),
    "cortex-m55": Preset("Cortex-M55, standalone only", "thumbv8.1m.main-none-eabihf", "cortex-m55", (), ""),
}


@dataclass(frozen=True)
class CompileTarget:
    """A name made concrete: TVM's target, our kernels, and what the manifest says of both.

    scheduled_for: LLVM's name for the cores in whose order code is, the little ones where there are some."""

    name: str
    triple: str
    cpu: str
    scheduled_for: str
    features: tuple[str, ...]
    tvm: Any
    kernels: KernelTarget
    emulated_cpu: str

    @property
    def machine(self) -> str:
        """As a board says it."""
        return machine_name(self.triple)

    @property
    def processor(self) -> Processor:
        """For which records of tuning are: the same schedule makes other code for other cores."""
        return Processor(self.kernels.name, self.scheduled_for)

    @property
    def is_host(self) -> bool:
        return self.name == "host"

    @property
    def runs_as_c(self) -> bool:
        """Whether an emulator can run a network for it as a library for C alone: TVM has no runtime there."""
        return self.machine == "armv7l"

    @property
    def bare(self) -> bool:
        """Without an operating system, so that there is no loader and no runtime of TVM."""
        return "-none-" in self.triple


def resolve_target(name: str) -> CompileTarget:
    """`host`, a name in `PRESETS`, or a TVM target tag such as `raspberry-pi/4b-aarch64`, or UsageError."""
    import tvm
    from tvm.target import codegen

    key = str(name).strip().lower()
    emulated = cpu = ""
    kernels = None
    if key == "host":
        description, kernels = describe_host()
    elif key in PRESETS:
        preset = PRESETS[key]
        emulated, cpu = preset.emulated_cpu, preset.cpu
        description = {
            "kind": "llvm",
            "mtriple": preset.triple,
            "mcpu": preset.little or preset.cpu,
            "mattr": [f"+{f}" for f in preset.features],
        }
        if preset.triple.endswith("eabihf"):
            # Else floats reach libm in the wrong registers, without a word.
            description["mfloat-abi"] = "hard"
        if preset.triple.startswith("thumb"):
            description["vector-width"] = 128  # TVM's own guess, of which it warns
    elif key in tvm.target.list_tags():
        tag = tvm.target.Target(key)
        if tag.kind.name != "llvm":
            raise unknown("target for a CPU", name, ["host", *PRESETS])
        description = {
            k: v for k, v in tag.export().items() if k in ("mtriple", "mcpu", "mattr", "mfloat-abi")
        }
        description["kind"] = "llvm"
        triple = str(description.get("mtriple", ""))
        fit = machine_name(triple) == "aarch64" or triple.endswith("linux-gnueabihf")
        emulated = "max" if fit else ""
    else:
        raise unknown("target", name, ["host", *PRESETS])
    target = tvm.target.Target(description)
    features = {str(f) for f in codegen.llvm_get_cpu_features(target)}
    triple = str(description.get("mtriple") or codegen.llvm_get_system_triple())
    core = str(description.get("mcpu", "generic"))
    return CompileTarget(
        name=key,
        triple=triple,
        cpu=cpu or core,
        scheduled_for=core,
        features=tuple(sorted(features & TELLING)),
        tvm=target,
        kernels=kernels or kernel_target(machine_name(triple), features, core),
        emulated_cpu=emulated,
    )


def no_half(target: CompileTarget) -> str:
    """Why float layers cannot be in float16 there."""
    able = (n for n, p in PRESETS.items() if kernel_target(machine_name(p.triple), p.features).half_tile)
    return (
        f"{target.name} ({target.cpu}) has no arithmetic in float16 (FEAT_FP16 of Armv8.2), which float "
        f"layers in fp16 need. These have it: {', '.join(able)}."
    )


def name_of(machine: str, cpu: str) -> str | None:
    """The target for a board that says so of itself; None where no name here fits.

    machine: as `machine_name` gives it; cpu: LLVM's name, or Linux' where a device has no other.
    """
    from tvm.target import codegen

    if machine == this_machine() and cpu in (str(codegen.llvm_get_system_cpu()), model_name()):
        return "host"
    if machine == "armv7l":
        return "armv7"
    if machine != "aarch64":
        return None
    fitting = (name for name, preset in PRESETS.items() if preset.triple == _LINUX and preset.cpu == cpu)
    return next(fitting, "arm_cpu")
