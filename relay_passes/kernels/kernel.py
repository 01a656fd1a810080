"""What each kind of kernel is lowered from, and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol

import numpy as np
from tvm import relax, tirx

from relay_passes.ir.operators import BinaryConvolution, BinaryProduct, PackedContraction, Phase
from schedules.kernels.convolution import binary_convolution_reference
from schedules.parts.bits import unpack
from schedules.parts.epilogue import Epilogue
from schedules.records.kernel_task import C, KernelTask
from schedules.targets.kernel_target import KernelTarget


@dataclass(frozen=True)
class LaidOut:
    """An argument that is laid out for a choice, and not known before the network runs: this variable,
    arranged so."""

    variable: relax.Expr
    arrange: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Tunable(Generic[C]):
    """One call of a kernel with choices."""

    task: KernelTask[C]
    # choice -> (the kernel, its arguments in `main`: the constants, laid out for that choice, and variables)
    make: Callable[[C], tuple[tirx.PrimFunc, Sequence[relax.Expr | LaidOut]]]


class Chosen(Protocol):
    def __call__(self, tunable: Tunable[C], /) -> C: ...


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a kernel goes: a group of operators, over the variables of the `main` that is being built."""

    anchor: relax.Call
    epilogue: Epilogue  # the program after the anchor
    operands: list[relax.Expr]  # which it reads
    planes: relax.Expr | None  # the image [N, C, H, W] that the anchor's first argument was turned from
    target: KernelTarget
    choose: Chosen  # by a record, or the default
    emit: Callable[[relax.Expr], relax.Var]  # for what has to be computed before the kernel


@dataclass(frozen=True, kw_only=True)
class Integers:
    """What a kernel of integers should compute, in plain numpy."""

    layer: PackedContraction
    inputs: tuple[relax.Var, ...]  # packed activations
    weights: np.ndarray | None  # [O, KH, KW, C / groups]; None for a product of two activations
    thresholds: np.ndarray | None = None  # [O] or [1]: the epilogue reads sum >= threshold
    turned: np.ndarray | None = None  # bool [O] or [1]: with opposite weights, and so sums
    # The bare sums: a kernel that differs from the layer's in its epilogue alone, and its arguments.
    sums: Callable[[Epilogue], tirx.PrimFunc]
    sums_arguments: list[relax.Expr]


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """name: what it computes; epilogue, operands: those of the site, but for what the kernel took in."""

    name: str
    function: tirx.PrimFunc
    arguments: list[relax.Expr]
    epilogue: Epilogue
    operands: list[relax.Expr]
    integers: Integers | None = None


@dataclass(frozen=True, kw_only=True)
class KernelCall:
    """One call of a binary or int8 kernel in `main`, for whoever checks it on the inputs that it got."""

    layer: PackedContraction
    inputs: tuple[relax.Var, ...]  # in `main`
    outputs: tuple[relax.Var, ...]
    sums: relax.Var | None  # with `probe`
    weights: np.ndarray | None
    thresholds: np.ndarray | None
    turned: np.ndarray | None
    epilogue: Epilogue
    operands: tuple[np.ndarray | int, ...]  # an array, or the position in `inputs`

    @property
    def zero_one(self) -> tuple[bool, ...]:
        """Of each operand that is an activation, whether its bits stand for 0 and 1, not for -1 and 1."""
        if isinstance(self.layer, BinaryProduct):
            return self.layer.zero_one
        return (isinstance(self.layer, BinaryConvolution) and self.layer.zero_one,)

    @property
    def order_in_source(self) -> tuple[int, ...]:
        """Which of its operands is the source's first, and its second where it has two."""
        if isinstance(self.layer, BinaryProduct):
            return (1, 0) if self.layer.turned else (0, 1)
        return (0,)

    def is_zero_one(self, position: int) -> bool:
        """As `zero_one`, of the source's operand at this position."""
        return self.zero_one[self.order_in_source[position]]

    @property
    def factor(self) -> int:
        """Of the sums: over {0, 1} they are kept doubled."""
        return 2 ** sum(self.zero_one)

    @property
    def plane(self) -> int:
        """0, or of an operand that has a call for each: see `BinaryConvolution`."""
        return self.layer.plane if isinstance(self.layer, BinaryConvolution) else 0

    @property
    def part(self) -> tuple[float, float] | None:
        """The two values of one of several operands whose sum the source has; see `BinaryConvolution`."""
        return self.layer.part if isinstance(self.layer, BinaryConvolution) else None

    @property
    def weight_plane(self) -> int:
        """0, or of weights that are sums of several planes the one that it has; see `BinaryConvolution`."""
        return self.layer.weight_plane if isinstance(self.layer, BinaryConvolution) else 0

    @property
    def levels(self) -> tuple[float, float] | None:
        """What -1 and +1 stand for in the source, where that is not -a and a."""
        return self.layer.levels if isinstance(self.layer, BinaryConvolution) else None

    @property
    def of_input(self) -> bool:
        """Whether it adds up the layer's input: its weights are +1 and none of the source's."""
        return isinstance(self.layer, BinaryConvolution) and self.layer.of_input

    @property
    def phase(self) -> Phase | None:
        """Which of the layer's outputs it computes; None for all."""
        return self.layer.phase if isinstance(self.layer, BinaryConvolution) else None

    def activations(self, words: np.ndarray, position: int = 0) -> np.ndarray:
        """What a packed operand stands for: int8 [N, H, W, C]; of +-1, or of 0 and 1, if binary."""
        packing = self.layer.packing
        if packing.quantizer:
            return unpack(words, packing)
        bits = unpack(words, packing).astype(np.int8)
        return bits if self.zero_one[position] else 2 * bits - 1

    def reference_sums(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """int32 [N, OH, OW, O]: the sums before the epilogue, in plain numpy, times `factor`."""
        left = self.activations(inputs[0])
        if self.weights is None:
            right = self.activations(inputs[1], 1).astype(np.int32)
            total = np.einsum("abmk,abnk->abmn", left.astype(np.int32), right)
            return total * self.factor
        total = binary_convolution_reference(left, self.weights, self.layer.conv)
        return total * self.factor

    def reference(self, inputs: Sequence[np.ndarray], sums: np.ndarray) -> list[np.ndarray]:
        """What the kernel should write for these inputs, and these sums of theirs."""
        operands = [inputs[o] if isinstance(o, int) else o for o in self.operands]
        return self.epilogue.evaluate(sums if self.thresholds is None else sums >= self.thresholds, operands)
