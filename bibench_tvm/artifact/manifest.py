"""The manifest of an artifact: what `manifest.json` holds, and its only reader and writer.

What is UNSET is not in the file. `docs/manifest.schema.json` is made of the types here, and a test holds the
two together. Needs numpy and msgspec alone: a board reads manifests.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from bibench_tvm.cli.errors import BibenchError, UsageError
from schedules.geometry import Convolution

SCHEMA_VERSION = 3
FILE = "manifest.json"
MODEL = "model.so"
_LARGEST = 1 << 26  # bytes
_LARGEST_TENSOR = 1 << 32  # bytes: more than the memory of a board
_MOST_EXTENTS = 32  # as many as numpy has

Count = Annotated[int, msgspec.Meta(ge=0)]
Extent = Annotated[int, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
# fmt: off
Dtype = Literal[
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "float16", "float32", "float64",
]
# fmt: on


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """An input or output."""

    name: str
    shape: Annotated[tuple[Extent, ...], msgspec.Meta(max_length=_MOST_EXTENTS)]
    dtype: Dtype


class TargetDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What the artifact runs on: a machine without one of the features is refused."""

    name: str
    triple: str
    cpu: str
    features: tuple[str, ...]


class SourceFile(msgspec.Struct, frozen=True, kw_only=True):
    """The file that was compiled, so that it can be known again."""

    file: str
    sha256: Sha256


class LayerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A convolution, linear layer or matrix product: see `relay_passes.ir.layers.Layer`."""

    name: str
    op: str
    binarized: bool
    reason: str
    macs: Count
    weight_bytes: Count
    notes: str
    geometry: Convolution | None
    dtype: Literal["binary", "int8", "float16", "float32"]


class KernelOfLayer(msgspec.Struct, frozen=True, kw_only=True):
    """The n-th call of a kernel in a run is the n-th entry with its name."""

    kernel: str
    layer: str


class Accuracies(msgspec.Struct, frozen=True, kw_only=True):
    """Top-1, of the network in int8 and in float32."""

    int8: Share
    float32: Share


class FloatArithmetic(msgspec.Struct, frozen=True, kw_only=True):
    """How the layers that are not binary are computed, and what int8 costs."""

    mode: Literal["float32", "int8", "fp16"]
    calibrated_on: str | UnsetType = UNSET  # samples, or random numbers
    calibration_samples: Count | UnsetType = UNSET
    compared_samples: Count | UnsetType = UNSET
    agreement: Share | None | UnsetType = UNSET  # of the top-1 class
    max_abs_error: float | None | UnsetType = UNSET
    accuracy: Accuracies | None | UnsetType = UNSET
    accuracy_difference: float | None | UnsetType = UNSET


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of the parameters in float32, and of the library."""

    float32: Count
    deployed: Count


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that a run takes beside the weights."""

    peak_activations: Count


class LayerVerification(msgspec.Struct, frozen=True, kw_only=True):
    """A layer's sums and bits have to be exact; a max_abs_error is relative to the largest value."""

    name: str
    sums: Count = 0
    wrong_sums: Count = 0
    wrong_bits: Count = 0
    max_abs_error: float | None = 0.0  # None where it is not finite
    signs: Count = 0
    flipped_signs: Count = 0
    excused_flips: Count = 0
    unexcused_flips: Count = 0
    signs_at_zero: Count = 0
    reason: str = ""
    passed: bool


class SourceAccuracy(msgspec.Struct, frozen=True, kw_only=True):
    """Top-1, of the artifact and of the source."""

    compiled: Share
    source: Share


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """passed: None where it did not run, and `reason` says why."""

    backend: str | None
    passed: bool | None
    reason: str
    samples: Count
    agreement: Share | None  # of the top-1 class
    max_abs_error: float | None
    signs: Count | UnsetType = UNSET
    flipped_signs: Count | UnsetType = UNSET
    excused_flips: Count | UnsetType = UNSET  # by rounding
    unexcused_flips: Count | UnsetType = UNSET
    signs_at_zero: Count | UnsetType = UNSET
    outputs_off: Count | UnsetType = UNSET
    integers_exact: bool | UnsetType = UNSET
    layers: tuple[LayerVerification, ...] | UnsetType = UNSET
    not_compared: tuple[str, ...] | UnsetType = UNSET
    accuracy: SourceAccuracy | UnsetType = UNSET


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """The records of tuning that were used: see `schedules.records.records.Chooser`."""

    records: tuple[dict[str, Any], ...]


class Standalone(msgspec.Struct, frozen=True, kw_only=True):
    """The network as a library for C, in the folder `standalone`; sizes in bytes.

    A run takes `workspace_bytes` of its caller's memory, of this alignment, on several threads `thread_bytes`
    more for each further one, and allocates nothing.
    """

    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z][A-Za-z0-9_]*$")]  # what its functions begin with
    files: dict[str, Sha256]
    workspace_bytes: Count
    thread_bytes: Count
    stack_bytes: Count | UnsetType = UNSET  # at most, besides what the functions that it takes need
    alignment: Extent
    code_and_constants: Count
    undefined_symbols: tuple[str, ...]  # what it takes from whom it is linked with
    checksum: Sha256  # which the header and the library both say


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """All that is said of an artifact."""

    schema_version: int = SCHEMA_VERSION
    model: str
    algorithm: str | None
    target: TargetDescription
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    one_batch_only: str | UnsetType = UNSET  # why inputs cannot be several batches in a row; "": they can
    source: SourceFile | None
    layers: tuple[LayerRecord, ...]
    float_layers: FloatArithmetic
    kernels: tuple[KernelOfLayer, ...]
    shared_kernels: Count | UnsetType = UNSET  # functions whose loops threads share out
    notes: tuple[str, ...]
    size_bytes: Sizes
    memory_bytes: Memory
    verification: Verification
    tuning: Tuning
    versions: dict[str, str]
    files: dict[str, Sha256]  # each is in the folder under its digest
    standalone: Standalone | UnsetType = UNSET


def encode(manifest: Manifest) -> bytes:
    """JSON in UTF-8, for a person to read too."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def read(folder: Path) -> Manifest:
    """The manifest in a folder. Raises UsageError where there is none, BibenchError where it is damaged."""
    path = folder / FILE
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.")
    if not path.is_file():
        raise UsageError(f"{folder} is not an artifact: it has no {FILE}.")
    try:
        if path.stat().st_size > _LARGEST:
            raise BibenchError(f"{path} is not a manifest: it has {path.stat().st_size:,} bytes.")
        content = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise BibenchError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BibenchError(f"{path} cannot be read: it is not JSON as this program writes it.") from error
    if not isinstance(content, dict):
        raise BibenchError(f"{path} is not a manifest: it holds a {type(content).__name__}.")
    version = content.get("schema_version")
    if version != SCHEMA_VERSION or type(version) is not int:
        plain = version is None or isinstance(version, (int, float, str))
        shown = repr(version)[:40] if plain else f"of a {type(version).__name__}"
        raise BibenchError(
            f"{path} has schema version {shown}, and this program reads version {SCHEMA_VERSION}. "
            "Compile the network again with this program, or use the program that wrote it."
        )
    try:
        manifest = msgspec.convert(content, Manifest)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BibenchError(f"{path} is damaged: {_what_is_wrong(str(error))}.") from error
    if reason := _nonsense(manifest):
        raise BibenchError(f"{path} is damaged: {reason}.")
    return manifest


def _what_is_wrong(words: str) -> str:
    """msgspec's words, which end in a path such as `$.target.cpu`, as ours."""
    place = re.search(r"at `\$\.?([^`]*)`", words)
    where = place.group(1) if place else ""
    if missing := re.search(r"missing required field `(\w+)`", words):
        return f"its field '{'.'.join(filter(None, (where, missing.group(1))))}' is missing"
    return f"its field '{where}' is not what this program writes there"


def _nonsense(manifest: Manifest) -> str | None:
    """What no type says of a manifest that was written by this program."""
    for tensor in (*manifest.inputs, *manifest.outputs):
        if math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize > _LARGEST_TENSOR:
            return f"'{tensor.name}' would have {math.prod(tensor.shape):,} elements"
    if MODEL not in manifest.files and manifest.standalone is UNSET:
        return f"its 'files' does not say the sha256 of {MODEL}"
    if "tvm" not in manifest.versions:
        return "its 'versions' does not say that of TVM"
    names = {layer.name for layer in manifest.layers}
    if any(entry.layer not in names for entry in manifest.kernels):
        return "its layers and kernels disagree"
    for layer in manifest.layers:
        if layer.geometry is not None and not _is_sound(layer.geometry):
            return f"the geometry of layer '{layer.name}' makes no sense"
    return None


def _is_sound(conv: Convolution) -> bool:
    positive = (conv.batch, conv.height, conv.width, conv.channels, conv.out_channels, conv.groups)
    if min(*positive, *conv.kernel, *conv.strides, *conv.dilation) < 1 or min(conv.padding) < 0:
        return False
    return min(*conv.out_shape, conv.products) > 0
