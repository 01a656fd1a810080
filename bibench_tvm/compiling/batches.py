"""Whether the first axis of a network is a batch, so that several batches in a row are as many runs.

Found out with the source framework, which needs no operator known: what is computed of one half of a batch
must not change with the other half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bibench_tvm.cli.errors import first_line
from bibench_tvm.compiling.sampling import sample_inputs

if TYPE_CHECKING:
    from bibench_tvm.importer import Imported


def one_batch_only(imported: Imported) -> str:
    """Why several batches in a row cannot be cut into runs, in words without a stop; "" where they can.

    With a batch of 1 each sample is a run by itself, and nothing runs here; else the source does, three
    times. What could not be found out counts as a reason.
    """
    for kind, specs in ("input", imported.inputs), ("output", imported.outputs):
        if without := [spec.name for spec in specs if not spec.shape]:
            return f"it has an {kind} without a batch, {without[0]!r}"
    extents = [spec.shape[0] for spec in imported.inputs]
    batch = math.gcd(*extents)
    if batch == 1:
        return "" if max(extents) == 1 else f"its inputs have first extents of {_listed(extents)}"
    for spec in imported.outputs:
        if spec.shape[0] % batch:
            return f"its output {spec.name!r} has shape {spec.shape}, with no row for each of the {batch}"
    try:
        return _mixed(imported, batch)
    except Exception as error:  # frameworks raise what they like
        return (
            f"the source could not be run to see whether it mixes the rows: {first_line(error).rstrip('.')}"
        )


def _mixed(imported: Imported, batch: int) -> str:
    """Batch a, batch b, and one of the first half of a and the second of b. Halves, because what passes is
    then a batch, if perhaps one of fewer and larger samples than it has rows."""
    a, b = sample_inputs(imported, 2, None)
    # With a dictionary, though an empty one, PyTorch runs the network once and not twice.
    of_a, of_b, of_both = (imported.reference(values, {}).outputs for values in (a, b, _halves(a, b, batch)))
    if all(map(_same, of_a, of_b)):
        return "it was not seen whether it mixes the rows: random inputs made no difference to its outputs"
    for spec, whole, expected in zip(imported.outputs, of_both, _halves(of_a, of_b, batch), strict=True):
        if not _same(whole, expected):
            return f"its output {spec.name!r} mixes the rows of the first axis, which is no batch"
    return ""


def _halves(first: Sequence[np.ndarray], second: Sequence[np.ndarray], batch: int) -> list[np.ndarray]:
    """The first half of the samples of one, and the second of the other."""
    cuts = [len(x) // batch * (batch // 2) for x in first]
    return [np.concatenate([x[:cut], y[cut:]]) for x, y, cut in zip(first, second, cuts, strict=True)]


def _same(x: np.ndarray, y: np.ndarray) -> bool:
    """To the bit: the same operators ran on the same rows at the same places."""
    return np.array_equal(x, y, equal_nan=x.dtype.kind == "f")


def _listed(extents: Sequence[int]) -> str:
    return " and ".join(map(str, dict.fromkeys(extents)))
