"""This machine as a target: what its processor has, and BIBENCH_HOST, which lowers what `host` stands for."""

from __future__ import annotations

import functools
import os
from typing import Any

from bibench_tvm.cli.errors import UsageError
from rpc.machine_name import machine_name
from schedules.targets.choose import ALL, TELLING, families
from schedules.targets.kernel_target import KernelTarget

VARIABLE = "BIBENCH_HOST"


def lowered_to() -> str:
    """What BIBENCH_HOST says, or nothing."""
    return os.environ.get(VARIABLE, "").strip().lower()


def describe_host() -> tuple[dict[str, Any], KernelTarget]:
    """TVM's description of the target `host`, and its kernels: this machine, or less by BIBENCH_HOST.

    Raises UsageError for a BIBENCH_HOST that is no kernel target, or one that this machine cannot execute.
    """
    from tvm.target import codegen

    triple = str(codegen.llvm_get_system_triple())
    features = processor_features()
    fitting = {family.kernels.name: family for family in families(machine_name(triple), features)}
    best = next(iter(fitting))
    asked = lowered_to() or best
    if asked not in fitting:
        known = asked in {kernels.name for kernels in ALL}
        wrong = "which this processor cannot execute" if known else "which is no kernel target"
        raise UsageError(f"{VARIABLE} is {asked!r}, {wrong}. Here it can be {' or '.join(fitting)}.")
    if asked == best:
        cpu = str(codegen.llvm_get_system_cpu())
    else:
        any_machine = not fitting[asked].machine
        cpu = fitting[best].least_cpu if any_machine else fitting[asked].cpu
    named, has, lacks = _named_features(cpu), *_detected_features()
    differences = [f"-{f}" for f in sorted(named & lacks)]
    if asked == best:
        differences += [f"+{f}" for f in sorted(has - named)]
    description = {"kind": "llvm", "mtriple": triple, "mcpu": cpu}
    kernels = fitting[asked].kernels_for(features, cpu)
    return description | ({"mattr": differences} if differences else {}), kernels


def processor_features() -> frozenset[str]:
    """LLVM's names of what the processor of this machine has, whatever BIBENCH_HOST says.

    The name of a core is not enough: a virtual machine may hide some of what such cores have, and code that
    uses it dies of SIGILL.
    """
    from tvm.target import codegen

    has, lacks = _detected_features()
    return (_named_features(str(codegen.llvm_get_system_cpu())) | has) - lacks


@functools.cache
def _named_features(cpu: str) -> frozenset[str]:
    """Those that a core of this name has."""
    import tvm
    from tvm.target import codegen

    target = tvm.target.Target({"kind": "llvm", "mcpu": cpu})
    return frozenset(str(feature) for feature in codegen.llvm_get_cpu_features(target))


@functools.cache
def _detected_features() -> tuple[frozenset[str], frozenset[str]]:
    """(those that the processor says it has, those that it says it lacks); it is silent about some."""
    import tvm_ffi

    said = tvm_ffi.get_global_func("tvm.codegen.llvm.GetHostCPUFeatures")().items()
    has, lacks = (frozenset(str(f) for f, there in said if bool(there) is wanted) for wanted in (True, False))
    return has, lacks


def host_features() -> frozenset[str]:
    """What the processor of this machine has, of the features that a manifest names.

    BIBENCH_HOST lowers what is compiled for `host`, and not what this machine can run.
    """
    return processor_features() & TELLING
