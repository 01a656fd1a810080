"""What the artifact's kernels read and wrote, in the layout and the numbers of the source's operands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bibench_tvm.importer import SourceLayer
from relay_passes.ir.operators import Phase
from relay_passes.kernels.kernel import KernelCall

TOLERANCE = 1e-5  # rounding in float32 of one fused epilogue, relative to the largest value


@dataclass(frozen=True)
class Read:
    """What a kernel read for one operand of its source layer, in the layout of that: int8, with 0 where the
    source pads; of several kernels that read the parts of one operand, that operand itself, in float64.
    inside: where it lies in the source's operand, which is larger by that padding."""

    codes: np.ndarray
    inside: tuple[slice, ...]


def value_of(theirs: np.ndarray, call: KernelCall, position: int) -> float:
    largest = theirs.ravel()[np.argmax(np.abs(theirs))] if theirs.size else 0.0
    return float(largest if call.is_zero_one(position) and not call.plane else abs(largest))


def join(parts: Sequence[tuple[KernelCall, list[Read]]]) -> list[Read]:
    """The operands of a layer from what its calls read: planes are what is above 0 less what is below; or
    what has several parts is their sum."""
    if not parts[0][0].plane:
        return parts[0][1]
    if parts[0][0].part:
        sums = {call.plane: _part_of(call, read.codes) for call, [read] in parts}
        return [Read(np.sum(list(sums.values()), 0), parts[0][1][0].inside)]
    planes = {call.plane: read.codes for call, [read] in parts}
    codes = sum((plane * codes for plane, codes in planes.items()), np.zeros((), np.int8))
    return [Read(codes, parts[0][1][0].inside)]


def _part_of(call: KernelCall, codes: np.ndarray) -> np.ndarray:
    """What the bits of one part stand for, float64; 0 in the padding."""
    assert call.part
    low, high = call.part
    if 0.0 in (low, high):
        return codes * (low + high)
    return codes * (high - low) / 2 + (codes != 0) * (high + low) / 2


def of_phase(expected: np.ndarray, sums: np.ndarray, phase: Phase) -> tuple[np.ndarray, np.ndarray]:
    """Of a layer's outputs those that a part of it computes, and of the part those that are of the layer."""
    expected = expected.reshape(len(sums), *(1,) * (4 - expected.ndim), *expected.shape[1:])
    for axis in (1, 2):
        places = phase.start[axis - 1] + phase.step[axis - 1] * np.arange(sums.shape[axis])
        inside = (places >= 0) & (places < expected.shape[axis])
        expected = np.take(expected, places[inside], axis)
        sums = np.compress(inside, sums, axis)
    return expected, sums


def signs_of(theirs: np.ndarray, call: KernelCall, position: int, value: float) -> np.ndarray:
    """What the source has, as `KernelCall.activations` would say it; 0 at 0, or in the middle."""
    if call.levels:
        off = theirs - theirs.dtype.type(middle_of(call))
        return np.where(np.abs(off) <= TOLERANCE * value, 0, np.sign(off))
    return np.sign(theirs) * (np.sign(value) if call.is_zero_one(position) else 1)


def side_of(x: np.ndarray, middle: float) -> np.ndarray:
    return np.sign(x - x.dtype.type(middle))


def middle_of(call: KernelCall) -> float:
    """Of the two values that a bit stands for in the source, but 0 where one of them is 0."""
    return sum(call.levels) / 2 if call.levels else 0.0


def two_sides(weights: np.ndarray) -> np.ndarray:
    """[O, ...] as -1 and +1, or 0: of a channel that has two values, on which side of their middle; else the
    sign."""
    flat = weights.reshape(len(weights), -1).astype(np.float64)
    low, high = flat.min(1, keepdims=True), flat.max(1, keepdims=True)
    one = high - low <= TOLERANCE * np.abs(flat).max(1, keepdims=True)
    return np.sign(flat - np.where(one, 0, (low + high) / 2)).astype(weights.dtype).reshape(weights.shape)


def plane_in_source(calls: Sequence[KernelCall], shape: tuple[int, ...]) -> np.ndarray:
    """The signs of one plane of a layer's weights, int8, in the source's layout [O, C, ...].

    calls: that have them; of those that compute a phase of the output each has some."""
    whole = np.zeros((*shape[:2], *(1, *shape[2:])[-2:]), np.int8) if calls[0].phase else None
    for call in calls:
        assert call.weights is not None
        signs = call.weights
        if call.turned is not None:
            signs = np.where(call.turned[:, None, None, None], -signs, signs)
        signs = np.moveaxis(signs, -1, 1)
        if whole is None or call.phase is None:
            return signs.reshape(shape)
        rows, columns = (
            slice(last + step * (extent - 1), None, -step)
            for last, step, extent in zip(call.phase.last, call.phase.step, signs.shape[2:], strict=True)
        )
        whole[:, :, rows, columns] = signs
    assert whole is not None
    return whole.reshape(shape)


def add_up(weights: np.ndarray, planes: Sequence[np.ndarray]) -> bool:
    """Whether the weights of each output channel, [O, ...], are a sum of these planes, each times a number,
    and of a number."""
    for channel, *signs in zip(weights, *planes, strict=True):
        theirs = channel.ravel().astype(np.float64)
        design = np.stack([*(s.ravel() for s in signs), np.ones(theirs.size)], 1).astype(np.float64)
        fitted = design @ np.linalg.lstsq(design, theirs)[0]
        if np.abs(fitted - theirs).max() > TOLERANCE * np.abs(theirs).max():
            return False
    return True


def in_source(image: np.ndarray, layer: SourceLayer, position: int) -> Read | None:
    """[N, H, W, C] in the layout of the source's operand, of the image's dtype; None where the two do not
    fit."""
    shape = layer.shapes[position]
    whole = tuple(slice(0, extent) for extent in shape)
    for inside in (whole, *layer.interiors[position]):
        extents = tuple(part.stop - part.start for part in inside)
        if int(np.prod(extents)) != image.size or not extents:
            continue
        if layer.convolution:
            turned = np.moveaxis(image.reshape(extents[0], *extents[2:], extents[1]), -1, 1)
        elif layer.columns and (position == 1 or layer.weights_first):
            turned = image.reshape(*extents[:-2], extents[-1], extents[-2]).swapaxes(-1, -2)
        else:
            turned = image.reshape(extents)
        codes = np.zeros(shape, image.dtype)
        codes[inside] = turned
        return Read(codes, inside)
    return None


def place_among(middles: np.ndarray, x: np.ndarray) -> np.ndarray:
    """int: between which of these numbers, 1 below them all."""
    return 1 + np.asarray(np.searchsorted(middles, x))
