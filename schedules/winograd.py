"""Float convolution of a network's input with fewer products: Winograd's method along the rows.

A row of `outputs` neighbours y[j] = sum_k g[k] x[j + k], k < taps, is a part of a product of polynomials. It is
found from n = outputs + taps - 1 products of values at n points instead of outputs * taps products (Winograd,
Arithmetic Complexity of Computations, 1980; Lavin and Gray, Fast Algorithms for Convolutional Neural Networks,
CVPR 2016, eq. 7, in one dimension):

    y = A^T [(G g) * (B^T x)]

Toom and Cook: the product of a polynomial with `taps` coefficients and one with `outputs` is known from its
values at n - 1 points a_i and its leading coefficient, the value "at infinity". Lagrange's interpolation gives
it back, and transposing that algorithm turns the product into the sums above. With N_i = prod_{k != i} (a_i - a_k),

    A^T[j, i] = a_i^j           G[i, k] = a_i^k / N_i       B^T[i] = coefficients of prod_{k != i} (x - a_k)

and at infinity unit vectors in A^T and G, and the coefficients of prod_k (x - a_k) in B^T.

A stride s > 1 along the rows is s convolutions of stride 1, one for each phase of the taps (k = s i + phase), whose
values at the points are added up before A^T. The products at one point are those of a matrix product, [tiles of
a row, rows * channels * phases] x [the same, output channels]. It is direct over the rows of the kernel and the
input channels, so little is transformed: each row of the input once in a band, vectors over the tiles.
"""

from __future__ import annotations

from fractions import Fraction
from math import prod

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.convolution import split_row
from schedules.epilogue import Epilogue
from schedules.geometry import Convolution
from schedules.targets.kernel_target import KernelTarget, Tile
from schedules.weights import Block, blocks_of_group
from schedules.write_back import KERNEL_ATTRIBUTES, Writer, each, flat, load, spread, store

OUTPUTS = 4
MOST_TAPS = 5
# Measured: of small fractions, those whose rounding errors are the smallest. A pair +-a shares half its work.
POINTS = (Fraction(1), Fraction(-1), Fraction(2), Fraction(-2), Fraction(1, 2), Fraction(-1, 2))
ROWS_OF_BAND = 8
BANDS = 4  # a multiple of the cores of a board
Matrix = list[list[Fraction]]


def points(count: int) -> list[Fraction]:
    """The finite ones."""
    even = count - count % 2
    return [Fraction(0)] * (count % 2) + [*POINTS[:even]]


def matrices(outputs: int, taps: int) -> tuple[Matrix, Matrix, Matrix]:
    """A^T [outputs, n], G [n, taps] and B^T [n, n], exactly."""
    at = points(outputs + taps - 2)

    def polynomial(roots: list[Fraction]) -> list[Fraction]:
        coefficients = [Fraction(1)]
        for root in roots:
            shifted = [Fraction(0), *coefficients]
            coefficients = [s - root * c for s, c in zip(shifted, [*coefficients, Fraction(0)], strict=True)]
        return coefficients

    def unit(length: int) -> list[Fraction]:
        return [Fraction(0)] * (length - 1) + [Fraction(1)]

    others = [[b for b in at if b != a] for a in at]
    output = [[a**j for a in at] + [unit(outputs)[j]] for j in range(outputs)]
    kernel = [
        [a**k / prod((a - b for b in rest), start=Fraction(1)) for k in range(taps)]
        for a, rest in zip(at, others, strict=True)
    ]
    rows = [[*polynomial(rest), Fraction(0)] for rest in others]
    return output, [*kernel, unit(taps)], [*rows, polynomial(at)]


def taps_of(conv: Convolution) -> int:
    """Of the longest phase."""
    return -(-conv.kernel[1] // conv.strides[1])


def saves_products(conv: Convolution) -> bool:
    """A third of them at least, and without many points, which cost accuracy."""
    if taps_of(conv) > MOST_TAPS:
        return False
    count = OUTPUTS + taps_of(conv) - 1
    made = -(-conv.out_width // OUTPUTS) * count * conv.strides[1]
    return 3 * made <= 2 * conv.out_width * conv.kernel[1]


def transformed_weights(weights: np.ndarray, conv: Convolution) -> np.ndarray:
    """float32 [O, C, KH, KW] -> [O, points, KH, C * phases], rounded once; for `lay_out`."""
    phases, taps = conv.strides[1], taps_of(conv)
    out_channels, channels, rows, columns = weights.shape
    filled = np.zeros((out_channels, channels, rows, taps * phases))
    filled[..., :columns] = weights
    by_phase = filled.reshape(out_channels, channels, rows, taps, phases)
    kernel = np.asarray(matrices(OUTPUTS, taps)[1], np.float64)
    values = np.einsum("pk,ochks->ophcs", kernel, by_phase)
    return values.reshape(out_channels, len(kernel), rows, channels * phases).astype(np.float32)


def winograd_convolution(
    conv: Convolution, tile: Tile, target: KernelTarget, epilogue: Epilogue
) -> tirx.PrimFunc:
    """Parameters of the kernel: activations float32 [N, C, H, W], `transformed_weights` as `lay_out` gives
    them, the epilogue's operands, and the outputs. Without groups, and without dilation along the rows.

    tile: its pixels are those of whole tiles of OUTPUTS.
    """
    taps, phases = taps_of(conv), conv.strides[1]
    output, _, rows_of_input = matrices(OUTPUTS, taps)
    count = len(rows_of_input)
    at = points(count - 1)
    span = OUTPUTS * phases  # from one tile to the next, in columns of the input
    tiles = -(-conv.out_width // OUTPUTS)
    lanes = tile.quantum
    pitch = -(-tiles // lanes) * lanes
    reach = pitch + -(-count // OUTPUTS) - 1  # tiles whose columns are read
    steps = conv.channels * phases
    depth = conv.kernel[0] * steps

    bands = BANDS * -(-conv.out_height // (BANDS * ROWS_OF_BAND))
    band = -(-conv.out_height // bands)
    bands = -(-conv.out_height // band)
    height = (band - 1) * conv.strides[0] + (conv.kernel[0] - 1) * conv.dilation[0] + 1
    blocks = blocks_of_group(conv.out_channels, tile.lanes, tile.quantum)
    full = [b for b in blocks if b.valid == tile.lanes]
    tail = [b for b in blocks if b.valid != tile.lanes]
    together = tile.pixels // OUTPUTS

    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        shape = (conv.batch, conv.channels, conv.height, conv.width)
        images = T.arg("activations", T.buffer(shape, "float32"))
        size = sum(b.width for b in blocks) * count * depth
        weights = T.arg("weights", T.buffer((size,), "float32"))
        operands = [T.arg(f"operand{i}", T.buffer(*spec)) for i, spec in enumerate(epilogue.operands)]
        outputs = [T.arg(f"output{i}", T.buffer(o.shape, o.dtype)) for i, o in enumerate(epilogue.outputs)]
        with T.sblock("root"):
            pixels = flat(images)
            writer = Writer(epilogue, outputs, operands, conv.out_shape[:3])
            writer.clear_halos()

            with T.parallel(0, conv.batch * bands) as r:
                n, first = r // bands, r % bands * band
                columns = T.alloc_buffer((span * reach,), "float32")
                values = T.alloc_buffer((count * height * steps * pitch,), "float32")
                products = T.alloc_buffer((count * together * tile.lanes,), "float32")

                with T.serial(0, height) as y, T.serial(0, conv.channels) as c:
                    row = first * conv.strides[0] + y - conv.padding[0]
                    with T.If(tirx.all(row >= 0, row < conv.height)):
                        with T.Then():
                            start = ((n * conv.channels + c) * conv.height + row) * conv.width
                            _sort_columns(pixels, start, columns, conv, span, reach, lanes)
                        with T.Else():
                            _clear(columns, span * reach, lanes)
                    for phase in range(phases):
                        step = (y * conv.channels + c) * phases + phase

                        def transform(v, phase=phase, step=step):
                            def column(k):
                                at_column = phase + phases * k
                                where = at_column % span * reach + at_column // span + v * lanes
                                return T.Bind(load(columns, where, lanes))

                            read = [column(k) for k in range(count)]
                            for p, value in enumerate(_at_points(rows_of_input, at, read, lanes)):
                                where = (p * height * steps + step) * pitch + v * lanes
                                store(values, where, lanes, value)

                        each(pitch // lanes, transform)

                def multiply(oh, block: Block, offset, tile_start, width_in_tiles: int):
                    """The products at each point, of some tiles and the lanes of one block."""
                    width = block.width

                    def of_point(p):
                        sums = T.alloc_buffer((width_in_tiles * width,), "float32", scope="local")
                        for t in range(width_in_tiles):
                            store(sums, t * width, width, spread(tirx.const(0, "float32"), width))

                        def row_of_kernel(kh):
                            row = (oh - first) * conv.strides[0] + kh * conv.dilation[0]
                            a_start = (p * height + row) * steps * pitch + tile_start
                            w_start = offset + (p * depth + kh * steps) * width
                            for k in range(steps):
                                w = T.Bind(load(weights, w_start + k * width, width))
                                done = 0
                                while done < width_in_tiles:
                                    some = min(target.together, 4, width_in_tiles - done)
                                    some = 1 << some.bit_length() - 1
                                    start = a_start + k * pitch + done
                                    if some > 1:
                                        seen = T.Bind(load(values, start, some))
                                    for t in range(done, done + some):
                                        a = tirx.Shuffle([seen], [t - done]) if some > 1 else values[start]
                                        new = load(sums, t * width, width) + spread(a, width) * w
                                        store(sums, t * width, width, new)
                                    done += some

                        each(conv.kernel[0], row_of_kernel)
                        for t in range(width_in_tiles):
                            where = (p * together + t) * tile.lanes
                            store(products, where, width, load(sums, t * width, width))

                    each(count, of_point)

                def write(oh, block: Block, start, ow, t):
                    """The outputs of one tile."""
                    settled = T.alloc_buffer((OUTPUTS * block.width,), "float32", scope="local")

                    def of_vector(v):
                        read = [
                            T.Bind(load(products, (p * together + t) * tile.lanes + v * lanes, lanes))
                            for p in range(count)
                        ]
                        for j, value in enumerate(_outputs(output, at, read, lanes)):
                            store(settled, j * block.width + v * lanes, lanes, value)

                    each(block.width // lanes, of_vector)

                    with T.serial(0, tirx.min(OUTPUTS, conv.out_width - ow)) as j:
                        writer.write(
                            n,
                            oh,
                            ow + j,
                            start,
                            block.valid,
                            lambda lane, channel, width: load(settled, j * block.width + lane, width),
                        )

                def row_of_block(oh, block: Block, index):
                    start = block.start + index * tile.lanes
                    larger, most, smaller = split_row(tiles, together)

                    def some(count_of_groups: int, width_in_tiles: int, first_tile: int):
                        def group(g):
                            tile_start = first_tile + g * width_in_tiles
                            multiply(oh, block, start * count * depth, tile_start, width_in_tiles)
                            each(
                                width_in_tiles,
                                lambda t: write(oh, block, start, (tile_start + t) * OUTPUTS, t),
                            )

                        each(count_of_groups, group)

                    some(larger, most, 0)
                    some(smaller, most - 1, larger * most)

                def rows_of_block(block: Block, index):
                    with T.serial(first, tirx.min(first + band, conv.out_height)) as oh:
                        row_of_block(oh, block, index)

                if full:
                    each(len(full), lambda b: rows_of_block(full[0], b))
                for block in tail:
                    rows_of_block(block, 0)
    return builder.get()


def _clear(buffer: tirx.Buffer, extent: int, lanes: int) -> None:
    whole, rest = divmod(extent, lanes)
    zero = tirx.const(0, "float32")
    each(whole, lambda i: store(buffer, i * lanes, lanes, spread(zero, lanes)))
    if rest:
        store(buffer, whole * lanes, rest, spread(zero, rest))


def _sort_columns(pixels: tirx.Buffer, start, columns: tirx.Buffer, conv: Convolution, span: int, reach: int, lanes: int):
    """One padded row of the input -> [span, reach], so that neighbours are a tile apart."""
    left = conv.padding[1]
    end = min(left + conv.width, span * reach)
    _clear(columns, span * reach, lanes)

    def copy(position):
        T.buffer_store(columns, pixels[start + position - left], [position % span * reach + position // span])

    whole_from, whole_to = -(-left // span), end // span
    if whole_from >= whole_to:
        for position in range(left, end):
            copy(position)
        return
    for position in range(left, whole_from * span):
        copy(position)

    def whole(t):
        for q in range(span):
            where = start + (whole_from + t) * span + q - left
            T.buffer_store(columns, pixels[where], [q * reach + whole_from + t])

    each(whole_to - whole_from, whole)
    for position in range(whole_to * span, end):
        copy(position)


def _weighted(coefficients: list[Fraction], values: list, lanes: int) -> object:
    """Sum of coefficient * value; None for no terms."""
    total = None
    for coefficient, value in zip(coefficients, values, strict=True):
        if not coefficient:
            continue
        factor = spread(tirx.const(float(coefficient), "float32"), lanes)
        term = value if coefficient == 1 else value * factor
        total = term if total is None else total + term
    return total


def _at_points(rows: Matrix, at: list[Fraction], read: list, lanes: int) -> list:
    """B^T x: what two points +-a have in common is computed once."""
    made: dict[int, object] = {}
    for i, a in enumerate(at):
        if i in made:
            continue
        if a == 0 or -a not in at:
            made[i] = _weighted(rows[i], read, lanes)
            continue
        other = at.index(-a)
        half = [(x + y) / 2 for x, y in zip(rows[i], rows[other], strict=True)]
        rest = [(x - y) / 2 for x, y in zip(rows[i], rows[other], strict=True)]
        common, turned = T.Bind(_weighted(half, read, lanes)), T.Bind(_weighted(rest, read, lanes))
        made[i], made[other] = common + turned, common - turned
    made[len(at)] = _weighted(rows[-1], read, lanes)
    return [made[i] for i in range(len(rows))]


def _outputs(rows: Matrix, at: list[Fraction], read: list, lanes: int) -> list:
    """A^T m: the powers of +-a differ in their sign alone."""
    sums, differences, powers = [], [], []
    for i, a in enumerate(at):
        if a < 0 and -a in at:
            continue
        pair = a != 0 and -a in at
        other = read[at.index(-a)] if pair else None
        sums.append(T.Bind(read[i] + other) if pair else read[i])
        differences.append(T.Bind(read[i] - other) if pair else read[i])
        powers.append(i)
    return [
        _weighted([*(row[i] for i in powers), row[-1]], [*(differences if j % 2 else sums), read[-1]], lanes)
        for j, row in enumerate(rows)
    ]
