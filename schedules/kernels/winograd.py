"""Float convolution of a network's input with half the products: Winograd's method along the rows.

OUTPUTS neighbours of a row, y[j] = sum_k g[k] x[j + k] with k < taps, are found from n = OUTPUTS + taps - 1
products instead of OUTPUTS * taps (Winograd, Arithmetic Complexity of Computations, 1980; Lavin and Gray,
Fast Algorithms for Convolutional Neural Networks, CVPR 2016, section 4, in one dimension):

    y = A^T [(G g) * (B^T x)]

The matrices are those of Toom and Cook. The product of two polynomials with `taps` and OUTPUTS coefficients
is known from its values at n - 1 points a_i and from its leading coefficient, its value "at infinity".
Lagrange's interpolation gives the coefficients back, and the transpose of that algorithm makes the sums
above. With N_i = prod_{k != i} (a_i - a_k),

    A^T[j, i] = a_i^j        G[i, k] = a_i^k / N_i        B^T[i] = coefficients of prod_{k != i} (x - a_k)

and at infinity unit vectors in A^T and G, and the coefficients of prod_k (x - a_k) in B^T.

A stride s along the rows makes s convolutions of stride 1, one for each phase of the taps, k = s i + phase,
whose products at a point are added up before A^T. So the sums at one point are a product of matrices,
[tiles of a row, kernel rows * channels * phases] x [the same, output channels]. Down the columns and over the
channels the method is the direct one: a row of the input is transformed once for all that read it.
"""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from math import prod
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.geometry import Convolution
from schedules.kernels.convolution import split_row
from schedules.parts.emit import each, flat, load, spread, store
from schedules.parts.epilogue import Epilogue
from schedules.parts.weights import Block, blocks_of_group
from schedules.parts.write_back import KERNEL_ATTRIBUTES, Writer, operand_arguments, output_arguments
from schedules.targets.kernel_target import KernelTarget, Tile

# Of the sizes tried, the fastest whose rounding errors are still about twice those of the direct method.
OUTPUTS = 4
MOST_TAPS = 5
# Of small fractions those that round best. A pair +-a shares half of its work.
PAIRS = (Fraction(1), Fraction(1, 2), Fraction(2))
# What a band of output rows reads stays in the cache; the bands keep the cores of a board busy alike.
ROWS_OF_BAND = 8
CORES = 4

Matrix = list[list[Fraction]]


def points(count: int) -> list[Fraction]:
    """The finite ones, pair by pair, and 0 where their number is odd."""
    return [sign * a for a in PAIRS[: count // 2] for sign in (1, -1)] + [Fraction(0)] * (count % 2)


def matrices(taps: int) -> tuple[Matrix, Matrix, Matrix]:
    """A^T [OUTPUTS, n], G [n, taps] and B^T [n, n], exactly."""
    at = points(OUTPUTS + taps - 2)
    others = [[b for b in at if b != a] for a in at]

    def polynomial(roots: list[Fraction]) -> list[Fraction]:
        """Coefficients of prod (x - root), from that of x^0 on."""
        made = [Fraction(1)]
        for root in roots:
            made = [a - root * b for a, b in zip([Fraction(0), *made], [*made, Fraction(0)], strict=True)]
        return made

    def last(extent: int) -> list[Fraction]:
        return [Fraction(0)] * (extent - 1) + [Fraction(1)]

    output = [[*(a**j for a in at), end] for j, end in enumerate(last(OUTPUTS))]
    scales = [prod(a - b for b in rest) for a, rest in zip(at, others, strict=True)]
    kernel = [[a**k / scale for k in range(taps)] for a, scale in zip(at, scales, strict=True)]
    values = [[*polynomial(rest), Fraction(0)] for rest in others]
    return output, [*kernel, last(taps)], [*values, polynomial(at)]


def taps_of(conv: Convolution) -> int:
    """Of the longest phase."""
    return -(-conv.kernel[1] // conv.strides[1])


def saves_products(conv: Convolution) -> bool:
    """A third of them at least; more taps need more points, which round worse."""
    made = -(-conv.out_width // OUTPUTS) * (OUTPUTS + taps_of(conv) - 1) * conv.strides[1]
    return taps_of(conv) <= MOST_TAPS and 3 * made <= 2 * conv.out_width * conv.kernel[1]


def transform_weights(weights: np.ndarray, conv: Convolution) -> np.ndarray:
    """float32 [O, C, KH, KW] -> [O, n, KH, C * phases], rounded once; for `lay_out`."""
    phases, taps = conv.strides[1], taps_of(conv)
    out_channels, channels, rows, columns = weights.shape
    filled = np.zeros((out_channels, channels, rows, taps * phases))
    filled[..., :columns] = weights
    kernel = np.asarray(matrices(taps)[1], np.float64)
    made = np.einsum("pk,ochks->ophcs", kernel, filled.reshape(out_channels, channels, rows, taps, phases))
    return made.reshape(out_channels, len(kernel), rows, channels * phases).astype(np.float32)


def winograd_convolution(
    conv: Convolution, tile: Tile, target: KernelTarget, epilogue: Epilogue
) -> tirx.PrimFunc:
    """Parameters of the kernel: activations float32 [N, C, H, W], weights as `lay_out` gives them from
    `transform_weights`, the epilogue's operands, and the outputs. For a convolution of up to MOST_TAPS taps a
    phase, without groups, and without dilation along the rows.

    tile: of OUTPUTS pixels for each of its columns of values.
    """
    phases, steps = conv.strides[1], conv.channels * conv.strides[1]
    output, _, values_of = matrices(taps_of(conv))
    count, lanes = len(values_of), tile.quantum
    depth = conv.kernel[0] * steps
    tiles = -(-conv.out_width // OUTPUTS)
    pitch = -(-tiles // lanes) * lanes
    span = OUTPUTS * phases  # columns of the input from one tile to the next
    reach = pitch + (count - 1) // OUTPUTS  # tiles whose columns are read

    bands = CORES * -(-conv.out_height // (CORES * ROWS_OF_BAND))
    band = -(-conv.out_height // bands)
    bands = -(-conv.out_height // band)
    height = (band - 1) * conv.strides[0] + (conv.kernel[0] - 1) * conv.dilation[0] + 1
    blocks = blocks_of_group(conv.out_channels, tile.lanes, tile.quantum)
    full = [b for b in blocks if b.valid == tile.lanes]
    tail = [b for b in blocks if b.valid != tile.lanes]
    larger, most, smaller = split_row(tiles, tile.pixels // OUTPUTS)

    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        shape = (conv.batch, conv.channels, conv.height, conv.width)
        images = T.arg("activations", T.buffer(shape, "float32"))
        weights = T.arg("weights", T.buffer((sum(b.width for b in blocks) * count * depth,), "float32"))
        operands = operand_arguments(epilogue)
        outputs = output_arguments(epilogue)
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            pixels = flat(images)
            writer = Writer(epilogue, outputs, operands, conv.out_shape[:3])
            writer.clear_halos()

            with T.parallel(0, conv.batch * bands) as r:
                n, first = r // bands, r % bands * band
                columns = T.alloc_buffer((span * reach,), "float32")
                # A vector that begins in the last row may end beyond it.
                values = T.alloc_buffer((count * height * steps * pitch + lanes,), "float32")
                products = T.alloc_buffer((count * most * tile.lanes,), "float32")

                def transform(y, c):
                    """Row y of the band, channel c: its values at the points."""
                    row = first * conv.strides[0] + y - conv.padding[0]
                    _clear(columns, lanes)
                    with T.If(tirx.all(row >= 0, row < conv.height)), T.Then():
                        start = ((n * conv.channels + c) * conv.height + row) * conv.width
                        _sort_columns(pixels, start, columns, conv, span)

                    def of_vector(phase: int, v):
                        first_of = [
                            k % span * reach + k // span for k in range(phase, phase + phases * count, phases)
                        ]
                        read = [T.Bind(load(columns, k + v * lanes, lanes)) for k in first_of]
                        step = (y * conv.channels + c) * phases + phase
                        for p, value in enumerate(_values(values_of, read, lanes)):
                            store(values, (p * height * steps + step) * pitch + v * lanes, lanes, value)

                    for phase in range(phases):
                        each(pitch // lanes, partial(of_vector, phase))

                def multiply(p, oh, block: Block, offset, first_tile, width_in_tiles: int):
                    """The sums at point p for some tiles and the lanes of one block."""
                    width = block.width
                    sums = T.alloc_buffer((width_in_tiles * width,), "float32", scope="local")
                    for t in range(width_in_tiles):
                        store(sums, t * width, width, spread(tirx.const(0, "float32"), width))

                    def row_of_kernel(kh):
                        row = (oh - first) * conv.strides[0] + kh * conv.dilation[0]
                        a_start = (p * height + row) * steps * pitch + first_tile
                        w_start = offset + (p * depth + kh * steps) * width
                        for k in range(steps):
                            w = T.Bind(load(weights, w_start + k * width, width))
                            for t in range(width_in_tiles):
                                a = a_start + k * pitch + t
                                if target.together == 1:
                                    value = values[a]
                                else:
                                    if t % lanes == 0:
                                        read = T.Bind(load(values, a, lanes))
                                    value = tirx.Shuffle([read], [t % lanes])
                                new = load(sums, t * width, width) + spread(value, width) * w
                                store(sums, t * width, width, new)

                    each(conv.kernel[0], row_of_kernel)
                    for t in range(width_in_tiles):
                        store(products, (p * most + t) * tile.lanes, width, load(sums, t * width, width))

                def write(oh, ow, block: Block, start, t):
                    """The outputs of tile t of `products`, which begin at column ow."""
                    # The epilogue reads them from memory, so that its loops need not be unrolled.
                    settled = T.alloc_buffer((OUTPUTS * block.width,), "float32", scope="local")

                    def of_vector(v):
                        where = [(p * most + t) * tile.lanes + v * lanes for p in range(count)]
                        read = [T.Bind(load(products, w, lanes)) for w in where]
                        for j, value in enumerate(_outputs(output, read, lanes)):
                            store(settled, j * block.width + v * lanes, lanes, value)

                    each(block.width // lanes, of_vector)
                    with T.serial(0, tirx.min(OUTPUTS, conv.out_width - ow)) as j:

                        def total(lane, channel, extent):
                            return load(settled, j * block.width + lane, extent)

                        writer.write(n, oh, ow + j, start, block.valid, total)

                def row_of_block(oh, block: Block, start):
                    def groups(number: int, extent: int, first_tile: int):
                        """`number` times `extent` tiles."""

                        def group(g):
                            tile = first_tile + g * extent
                            each(count, lambda p: multiply(p, oh, block, start * count * depth, tile, extent))
                            each(extent, lambda t: write(oh, (tile + t) * OUTPUTS, block, start, t))

                        each(number, group)

                    groups(larger, most, 0)
                    groups(smaller, most - 1, larger * most)

                each(height, lambda y: each(conv.channels, lambda c: transform(y, c)))
                with T.serial(first, tirx.min(first + band, conv.out_height)) as oh:
                    if full:
                        each(len(full), lambda b: row_of_block(oh, full[0], b * tile.lanes))
                    for block in tail:
                        row_of_block(oh, block, block.start)
    return builder.get()


def _clear(buffer: tirx.Buffer, lanes: int) -> None:
    whole, rest = divmod(int(buffer.shape[0]), lanes)
    zero = tirx.const(0, "float32")
    each(whole, lambda i: store(buffer, i * lanes, lanes, spread(zero, lanes)))
    if rest:
        store(buffer, whole * lanes, rest, spread(zero, rest))


def _sort_columns(pixels: tirx.Buffer, start, columns: tirx.Buffer, conv: Convolution, span: int) -> None:
    """One row of the input, from `start` on -> [span, tiles]: neighbours in `columns` are a tile apart."""
    reach, left = int(columns.shape[0]) // span, conv.padding[1]
    end = min(left + conv.width, span * reach)
    first, last = -(-left // span), end // span

    def copy(tile, column: int):
        """Counted with the padding."""
        T.buffer_store(columns, pixels[start + tile * span + column - left], [column * reach + tile])

    def whole(t):
        for column in range(span):
            copy(first + t, column)

    each(max(0, last - first), whole)
    for position in range(left, end):
        if not first <= position // span < last:
            copy(position // span, position % span)


def _weighted(coefficients: list[Fraction], values: list[Any], lanes: int) -> Any:
    terms = [
        value if coefficient == 1 else value * spread(tirx.const(float(coefficient), "float32"), lanes)
        for coefficient, value in zip(coefficients, values, strict=True)
        if coefficient
    ]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _values(rows: Matrix, read: list[Any], lanes: int) -> list[Any]:
    """B^T x. The rows of a pair are even and odd polynomials, added and subtracted."""
    paired = len(rows) - 1 - (len(rows) - 1) % 2
    made = []
    for plus, minus in zip(rows[:paired:2], rows[1:paired:2], strict=True):
        even = [(a + b) / 2 for a, b in zip(plus, minus, strict=True)]
        odd = [(a - b) / 2 for a, b in zip(plus, minus, strict=True)]
        same, other = T.Bind(_weighted(even, read, lanes)), T.Bind(_weighted(odd, read, lanes))
        made += [same + other, same - other]
    return made + [_weighted(row, read, lanes) for row in rows[paired:]]


def _outputs(rows: Matrix, read: list[Any], lanes: int) -> list[Any]:
    """A^T m. The powers of a pair differ in the sign of the odd ones."""
    paired = len(read) - 1 - (len(read) - 1) % 2
    pairs = list(zip(read[:paired:2], read[1:paired:2], strict=True))
    sums, differences = [T.Bind(a + b) for a, b in pairs], [T.Bind(a - b) for a, b in pairs]
    return [
        _weighted(row[:paired:2] + row[paired:], (differences if j % 2 else sums) + read[paired:], lanes)
        for j, row in enumerate(rows)
    ]
