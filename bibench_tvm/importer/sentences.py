"""What both importers say to the user: what they refuse, and what a network's manifest notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bibench_tvm.cli.errors import first_line
from bibench_tvm.importer.imported import ImportFailed

# ---- types


def of_float64(tensor: str, where: Any) -> ImportFailed:
    """tensor: as it is called, with its quotes."""
    return ImportFailed(
        f"The tensor {tensor} of {where} is float64, and the network would be computed in float32, which is "
        "less precise. Ask for that with --float32 (in Python, float32=True), or cast the model to float32."
    )


def of_bfloat16(tensor: str, where: Any) -> ImportFailed:
    return ImportFailed(
        f"The tensor {tensor} of {where} is bfloat16, and numpy has no such arrays to take or give. With "
        "--float32 (in Python, float32=True) the inputs and outputs that are bfloat16 become float32."
    )


def of_another_type(tensor: str, where: Any, dtype: str) -> ImportFailed:
    return ImportFailed(
        f"The tensor {tensor} of {where} is {dtype}, which is not compiled; numbers have to be float32, "
        "float16, bool or integers of 8 to 64 bits, so cast it in the model."
    )


def note_on_dtype(names: Sequence[str]) -> str:
    """What the manifest says of a network in these types that is computed in float32."""
    how = "which is less precise" if "float64" in names else "which rounds less"
    return (
        f"The source computes in {' and '.join(names)}, and this network in float32, {how}: they differ by "
        "rounding. A verification compares it with the source computed in float32."
    )


# ---- shapes and values


def note_on_batch(name: str, shape: Sequence[int]) -> str:
    """What the manifest says of an input whose first size is left open and not given."""
    others = "".join(f"x{size}" for size in shape[1:])
    return (
        f"The first size of the input {name!r} is left open in the source; it is taken for the batch, and is "
        f"{shape[0]}. Another is given with --input-shape {name}:N{others}."
    )


def of_bad_values(what: str, where: Any, bad: int, count: int) -> ImportFailed:
    """what: `parameter 'weight'`, for one; bad: how many of its `count` numbers are."""
    return ImportFailed(
        f"The {what} of {where} has {bad} values that are NaN or infinite out of {count}; the training "
        "diverged, or the file is damaged."
    )


# ---- operators


def of_unknown_operator(
    operator: str, at: str, where: Any, framework: str, way_out: str = "write it with other operators"
) -> ImportFailed:
    """at: where in the model, `node 'add'`, for one."""
    return ImportFailed(
        f"{where} uses the operator {operator} ({at}), which TVM {_tvm_version()} cannot import from "
        f"{framework}; {way_out}."
    )


def of_operator(what: str, where: Any, error: Exception) -> ImportFailed:
    """what: `the operator Add (node 'add')`, for one, of which a converter says `error`."""
    return ImportFailed(f"TVM {_tvm_version()} cannot import {what} of {where}: {first_line(error)}")


def of_vanished_layer(layer: str, where: Any) -> ImportFailed:
    return ImportFailed(f"The layer {layer!r} of {where} became something else than a layer in TVM.")


def _tvm_version() -> str:
    import tvm

    return tvm.__version__
