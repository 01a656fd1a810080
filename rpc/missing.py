"""A missing piece: one sentence with one line to type, the same from every command."""

import importlib.util

from rpc.machine_name import this_machine

_INSTALL = "./install.sh"
# What an installation for a board leaves out, and the extra of the project that has it.
_EXTRAS = {
    "torch": "compile",
    "onnx": "compile",
    "onnxscript": "compile",
    "ziglang": "compile",
    "h5py": "train",
    "lightning": "train",
    "scipy": "train",
    "sklearn": "train",
    "tokenizers": "train",
    "torchmetrics": "train",
    "PIL": "train",
    "onnxruntime": "bench",
    "matplotlib": "bench",
    "xgboost": "tune",
    "psutil": "tune",
    "sympy": "bench",
    "altair": "report",
    "jinja2": "report",
    "vl_convert": "report",
}
# Of these, a board needs none: what they are for is done on the workstation.
_COMPILING = ("torch", "onnx", "onnxscript", "ziglang")
_TUNING = ("xgboost", "psutil")
# What every installation has.
_ALWAYS = ("tvm", "tvm_ffi")


class EmulationUnavailable(RuntimeError):
    """This machine cannot run Arm code yet: the message says what is missing and the line to type."""


def sentence_for(error: BaseException) -> str | None:
    """What to do about an error that comes of a missing piece; None for any other error."""
    if isinstance(error, ModuleNotFoundError):
        return sentence_of((error.name or "").partition(".")[0])
    return str(error) if isinstance(error, EmulationUnavailable) else None


def need(*packages: str) -> None:
    """Raises ModuleNotFoundError for the first that is not installed, before work begins that it would end.

    TVM says in words of its own, and late, that it lacks one of them.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)


def sentence_of(package: str) -> str | None:
    """For a package that is not installed; None for one that is not known here."""
    if package in _ALWAYS:
        return f"The installation lacks the package {package}. Type: {_INSTALL}"
    if package not in _EXTRAS:
        return None
    line = f"{_INSTALL} {_EXTRAS[package]}"
    if package in _TUNING:
        return f"This needs the package {package}. Type: {line} (on a board: tune on the workstation instead)"
    if package not in _COMPILING:
        return f"This needs the package {package}. Type: {line}"
    if this_machine() in ("aarch64", "armv7l"):
        return (
            f"This needs the package {package}, which a board does without: compile on the workstation and "
            "copy the artifact here. Type there: bibench compile --target arm_cpu"
        )
    return f"This needs the package {package}. Type: {line} (on a board: compile on the workstation instead)"
