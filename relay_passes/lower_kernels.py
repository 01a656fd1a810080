"""Each group of operators -> one TIR kernel and a `call_tir` of it, weights laid out for its tile.

A `KernelCall` remembers for each binary kernel what it should compute, in plain numpy, so that a run of the
artifact can be checked kernel by kernel on the very inputs that each kernel got.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tvm
from tvm import relax, tirx

from relay_passes.group_kernels import Group, group_kernels, read_vars
from relay_passes.operators import convolution_of, packed_image, packing_of, pooling_of
from relay_passes.rewrite import (
    bindings,
    constant_value,
    dtype_of,
    is_call,
    is_constant,
    is_tensor,
    shape_of,
    substitute,
)
from schedules import convolution, depthwise, winograd
from schedules.bits import Packing, unpack
from schedules.borders import Ending, border_tables, limit_table
from schedules.epilogue import SUM, Epilogue, Output, Step, Value, attributes_of, plain
from schedules.geometry import Convolution
from schedules.packing import packing_kernel
from schedules.planar_packing import planar_packing_kernel
from schedules.planar_quantizing import planar_quantizing_kernel
from schedules.pooling import pooling_kernel
from schedules.targets.kernel_target import KernelTarget, Tile
from schedules.task import Task, outputs_of
from schedules.transposition import matrices, transposition
from schedules.weights import lay_out, offsets, pack_int8, pack_weights


@dataclass(frozen=True)
class KernelCall:
    """One call of a binary or int8 kernel in `main`.

    layer, op: its name and kind; inputs, outputs: the variables in `main`; sums: with `probe`, the variable
    of the bare sums of the same kernel; weights: of small integers, or None for a product of two activations;
    plane: 0, or for an operand of three values, which has a call for each, what is above 0 (1) or below (-1).
    """

    layer: str
    op: str
    inputs: tuple[relax.Var, ...]
    outputs: tuple[relax.Var, ...]
    sums: relax.Var | None
    conv: Convolution
    packing: Packing
    zero_one: bool
    weights: np.ndarray | None
    thresholds: np.ndarray | None
    epilogue: Epilogue
    operands: tuple[np.ndarray | int, ...]  # an array, or the position in `inputs`
    plane: int = 0
    turned: np.ndarray | None = None  # bool [O] or [1]: with opposite weights, and so sums

    def activations(self, words: np.ndarray) -> np.ndarray:
        """What the kernel's packed input stands for: int8 [N, H, W, C]; of +-1, or of 0 and 1, if binary."""
        if self.packing.quantizer:
            return unpack(words, self.packing)
        bits = unpack(words, self.packing).astype(np.int8)
        return bits if self.zero_one else 2 * bits - 1

    def reference_sums(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """int32 [N, OH, OW, O]: the sums before the epilogue, in plain numpy; doubled over {0, 1}."""
        left = self.activations(inputs[0])
        if self.weights is None:
            right = 2 * unpack(inputs[1], self.packing).astype(np.int32) - 1
            return np.einsum("abmk,abnk->abmn", left.astype(np.int32), right)
        total = convolution.binary_convolution_reference(left, self.weights, self.conv)
        return total * 2 if self.zero_one else total

    def reference(self, inputs: Sequence[np.ndarray], sums: np.ndarray) -> list[np.ndarray]:
        """What the kernel should write for these inputs, and these sums of theirs."""
        operands = [inputs[o] if isinstance(o, int) else o for o in self.operands]
        return self.epilogue.evaluate(sums if self.thresholds is None else sums >= self.thresholds, operands)


@dataclass(frozen=True)
class Tunable:
    """One call of a kernel whose tile can be chosen.

    make: tile -> (the kernel, its arguments in `main`: the constants, laid out for that tile, and variables).
    """

    task: Task
    default: Tile
    make: Callable[[Tile], tuple[tirx.PrimFunc, list[relax.Expr]]]


class LowerKernels:
    """choose: gives the tile of a task, or None, which leaves it to the target; `tunable` is filled with what
    it was asked.

    calls: filled with a `KernelCall` for each binary layer, in the order of `main`.

    probe: `main` returns (its result, and for each call its inputs, outputs and bare sums), which is what the
    verification looks at. The kernels are the same to the letter; the sums come from twins of theirs that
    differ in the epilogue alone.

    emitted: filled with (kernel, name of its layer) for each call of a kernel in `main`, in order; the name
    is empty where it computes no layer.
    """

    def __init__(
        self,
        target: KernelTarget,
        choose: Callable[[Task], Tile | None] = lambda task: None,
        *,
        probe: bool = False,
    ):
        self.target = target
        self.choose = choose
        self.probe = probe
        self.calls: list[KernelCall] = []
        self.emitted: list[tuple[str, str]] = []
        self.tunable: list[Tunable] = []

    def __call__(self, mod: tvm.IRModule) -> tvm.IRModule:
        groups = group_kernels(mod)
        group_of = {member.var: group for group in groups for member in group.members}
        order = bindings(mod)
        self.definition = definition = {b.var: b for b in order}
        outside = _read_outside(mod, groups)
        bound: set[relax.Var] = set()
        main = mod["main"]
        self.builder = relax.BlockBuilder()
        self.env: dict[relax.Var, relax.Expr] = {}

        def bind(var: relax.Var) -> None:
            """Emit what computes this variable, after everything that it reads."""
            if var in bound or var not in definition:
                return
            group = group_of.get(var)
            members = group.members if group else [definition[var]]
            bound.update(member.var for member in members)
            own = {m.var for m in members}
            for member in members:
                for read in read_vars(member.value):
                    if read not in own:
                        bind(read)
            if group:
                self._lower(group, outside)
            else:
                value = self._turned(substitute(definition[var].value, self.env))
                self.env[var] = self.builder.emit(value)

        with self.builder.function("main", list(main.params), attrs=dict(main.attrs or {})):
            with self.builder.dataflow():
                for binding in order:
                    bind(binding.var)
                result = substitute(main.body.body, self.env)
                if self.probe:
                    seen = [v for c in self.calls for v in (*c.inputs, *c.outputs, c.sums)]
                    result = relax.Tuple([result, *seen])
                result = self.builder.emit_output(result)
            self.builder.emit_func_output(result)
        return self.builder.get()

    def _lower(self, group: Group, outside: set[relax.Var]) -> None:
        anchor = group.anchor.value
        self.layer = str((anchor.attrs or {}).get("name", ""))
        epilogue, operands, written = self._epilogue(group, outside)
        if is_call(anchor, "bibench.pack"):
            packing = packing_of(anchor.attrs)
            small = packing.quantizer and packing.channels <= FEW_CHANNELS
            planes = self._planes(anchor.args[0]) if small else None
            if planes is not None:
                batch, _, height, width = shape_of(planes)
                kernel, operands = planar_quantizing_kernel(batch, height, width, packing), [planes]
            elif int(anchor.attrs["planar"]):
                kernel = planar_packing_kernel(group.shape, epilogue)
            else:
                kernel = packing_kernel(packed_image(anchor), epilogue)
            self._emit("pack", kernel, operands, epilogue, written)
        elif is_call(anchor, "bibench.binary_convolution"):
            self._binary_convolution(anchor, epilogue, operands, written)
        elif is_call(anchor, "bibench.int8_convolution"):
            self._int8_convolution(anchor, epilogue, operands, written)
        elif is_call(anchor, "bibench.binary_product"):
            self._binary_product(anchor, epilogue, operands, written)
        elif is_call(anchor, "bibench.pool"):
            x = self.env.get(anchor.args[0], anchor.args[0])
            pool = pooling_of(anchor.attrs, shape_of(x), dtype_of(x))
            self._emit("pool", pooling_kernel(pool, epilogue), [x, *operands], epilogue, written)
        else:
            self._float(anchor, epilogue, operands, written)

    def _emit(
        self,
        name: str,
        kernel: tirx.PrimFunc,
        args: Sequence[relax.Expr],
        epilogue: Epilogue,
        written: Sequence[relax.Var],
    ) -> tuple[relax.Var, ...]:
        """Bind what the kernel writes; the name says what it computes."""
        gvar = self.builder.add_func(kernel, name)
        self.emitted.append((gvar.name_hint, self.layer))
        types = [relax.TensorType(o.shape, o.dtype) for o in epilogue.outputs]
        result = self.builder.emit(relax.call_tir(gvar, list(args), types[0] if len(types) == 1 else types))
        made = (
            (result,)
            if len(types) == 1
            else tuple(self.builder.emit(relax.TupleGetItem(result, i)) for i in range(len(types)))
        )
        self.env.update(zip(written, made, strict=False))
        return made

    def _epilogue(
        self, group: Group, outside: set[relax.Var]
    ) -> tuple[Epilogue, list[relax.Expr], list[relax.Var]]:
        """The group's program after its sum; the tensors that it reads besides; the variables it writes."""
        values: dict[relax.Var, Value] = {}
        if not is_call(group.anchor.value, "bibench.pack"):
            values[group.anchor.var] = SUM
        operands: list[relax.Expr] = []
        steps: list[Step] = []
        packs: dict[relax.Var, tuple[Value, Packing]] = {}
        turned: dict[relax.Var, Value] = {}

        def value(arg: relax.Expr, like: relax.Call) -> Value:
            if isinstance(arg, relax.Var) and arg in values:
                return values[arg]
            if not is_tensor(arg):
                return Value("number", number=float(arg.value), dtype=dtype_of(like.args[0]))
            if is_constant(arg) and constant_value(arg).size == 1:
                return Value("number", number=constant_value(arg).item(), dtype=dtype_of(arg))
            if isinstance(arg, relax.Var):
                arg = self.env.get(arg, arg)
            for i, operand in enumerate(operands):
                if operand.same_as(arg):
                    return Value("operand", i)
            operands.append(arg)
            return Value("operand", len(operands) - 1)

        for member in _in_order(group):
            call = member.value
            if is_call(call, "bibench.pack"):
                packs[member.var] = (value(call.args[0], call), packing_of(call.attrs))
            elif is_call(call, "relax.permute_dims"):
                turned[member.var] = value(call.args[0], call)
            elif member is not group.anchor:
                steps.append(
                    Step(call.op.name, tuple(value(a, call) for a in call.args), attributes_of(call))
                )
                values[member.var] = Value("step", len(steps) - 1)
        written = [m.var for m in _in_order(group) if m.var in outside]
        outputs = []
        for var in written:
            if var in packs:
                truth, packing = packs[var]
                shape = packing.shape(*packed_image(self.definition[var].value)[:3])
                outputs.append(Output(truth, shape, packing.dtype, packing))
            else:
                source = turned.get(var) or values[var]
                outputs.append(Output(source, shape_of(var), dtype_of(var), planar=var in turned))
        shapes = tuple((shape_of(o), dtype_of(o)) for o in operands)
        return Epilogue(shapes, tuple(steps), tuple(outputs)), operands, written

    def _binary_convolution(
        self, anchor: relax.Call, epilogue: Epilogue, operands: list[relax.Expr], written: list[relax.Var]
    ) -> None:
        attrs = anchor.attrs
        words = self.env.get(anchor.args[0], anchor.args[0])
        signs = constant_value(anchor.args[1])
        conv = convolution_of(attrs, tuple(int(e) for e in attrs["in_shape"]), len(signs))
        packing = packing_of(attrs)
        zero_one = bool(int(attrs["zero_one"]))
        thresholds = turned = None
        if split := split_threshold(epilogue, operands):
            epilogue, operands, thresholds, falls = split
            # not (d >= T)  <=>  -d >= 1 - T, and -d is the sum over the opposite weights.
            turned = np.broadcast_to(falls, conv.out_channels)
            signs = np.where(turned[:, None, None, None], -signs, signs)
            thresholds = np.where(turned, 1 - thresholds, thresholds)
        bare: Ending = "bordered dot" if zero_one or any(conv.padding) else "dot"
        base, *classes = border_tables(conv, signs > 0, zero_one)
        packed = pack_weights(signs > 0, packing.word)

        def tables(table: np.ndarray) -> list[relax.Expr]:
            return [relax.const(t) for t in (table, *classes)]

        bordered = tables(base) if bare == "bordered dot" else []
        ending: Ending = bare if thresholds is None else "truth"
        after = bordered if thresholds is None else tables(limit_table(base, thresholds, conv))
        if depthwise.is_depthwise(conv, packed=True):
            name, weights = "binary_depthwise_convolution", relax.const(depthwise.lay_out(packed))

            def kernel(epilogue: Epilogue, ending: Ending) -> tirx.PrimFunc:
                return depthwise.depthwise_convolution(conv, packing, epilogue, ending=ending)
        else:
            default = self.target.binary_tile(conv)

            def tiled(tile: Tile, epilogue: Epilogue, ending: Ending) -> tirx.PrimFunc:
                return convolution.binary_convolution(
                    conv, packing, tile, self.target, epilogue, ending=ending
                )

            def laid_out(tile: Tile) -> relax.Expr:
                return relax.const(
                    lay_out(packed.view(f"uint{tile.word or packing.word}"), conv.groups, tile)
                )

            def make(tile: Tile) -> tuple[tirx.PrimFunc, list[relax.Expr]]:
                return tiled(tile, epilogue, ending), [words, laid_out(tile), *operands, *after]

            task = Task(conv, packing, ending, outputs_of(epilogue))
            tile = self._tile(Tunable(task, default, make))
            name, weights = "binary_convolution", laid_out(tile)

            def kernel(epilogue: Epilogue, ending: Ending) -> tirx.PrimFunc:
                return tiled(tile, epilogue, ending)

        args = [words, weights, *operands, *after]
        made = self._emit(name, kernel(epilogue, ending), args, epilogue, written)
        sums = self._sums(lambda plain: kernel(plain, bare), [words, weights, *bordered], conv)
        self._remember(
            (str(attrs["name"]), str(attrs["op"])),
            [words],
            operands,
            outputs=made,
            sums=sums,
            conv=conv,
            packing=packing,
            zero_one=zero_one,
            weights=signs,
            thresholds=thresholds,
            epilogue=epilogue,
            plane=int(attrs["plane"]),
            turned=turned,
        )

    def _tile(self, tunable: Tunable) -> Tile:
        self.tunable.append(tunable)
        return self.choose(tunable.task) or tunable.default

    def _int8_convolution(
        self, anchor: relax.Call, epilogue: Epilogue, operands: list[relax.Expr], written: list[relax.Var]
    ) -> None:
        attrs = anchor.attrs
        words = self.env.get(anchor.args[0], anchor.args[0])
        weights = constant_value(anchor.args[1])
        conv = convolution_of(attrs, tuple(int(e) for e in attrs["in_shape"]), len(weights))
        packing = packing_of({**dict(attrs.items()), "groups": 1})
        zero_point = int(attrs["zero_point"])
        if depthwise.is_depthwise(conv, packed=False):
            name, laid_out = "int8_depthwise_convolution", depthwise.lay_out(weights).view(np.uint8)
        else:
            name, tile = "int8_convolution", self.target.dot.tile(conv)
            laid_out = lay_out(pack_int8(weights, conv, self.target.dot.word), conv.groups, tile)

        def kernel(epilogue: Epilogue) -> tirx.PrimFunc:
            if depthwise.is_depthwise(conv, packed=False):
                return depthwise.depthwise_convolution(conv, packing, epilogue, ending="dot")
            return convolution.int8_convolution(conv, packing, tile, self.target, epilogue)

        before = [words, relax.const(laid_out)]
        after = [relax.const(offsets(weights, zero_point))] if zero_point else []
        made = self._emit(name, kernel(epilogue), [*before, *operands, *after], epilogue, written)
        sums = self._sums(kernel, [*before, *after], conv)
        self._remember(
            (str(attrs["name"]), str(attrs["op"])),
            [words],
            operands,
            outputs=made,
            sums=sums,
            conv=conv,
            packing=packing,
            zero_one=False,
            weights=weights,
            thresholds=None,
            epilogue=epilogue,
        )

    def _sums(
        self, kernel: Callable[[Epilogue], tirx.PrimFunc], args: list[relax.Expr], conv: Convolution
    ) -> relax.Var | None:
        if not self.probe:
            return None
        bare = plain(conv.out_shape, "int32")
        return self._emit("sums", kernel(bare), args, bare, [])[0]

    def _binary_product(
        self, anchor: relax.Call, epilogue: Epilogue, operands: list[relax.Expr], written: list[relax.Var]
    ) -> None:
        attrs = anchor.attrs
        left, right = (self.env.get(arg, arg) for arg in anchor.args)
        *_, rows, columns = (int(e) for e in attrs["out_shape"])
        a, b, _, depth_words = shape_of(left)
        packing = Packing(int(attrs["depth"]), int(attrs["word"]))
        conv = Convolution(a, b, rows, packing.channels, columns)
        tile = self.target.binary_tile(conv)
        tile = Tile(
            tile.pixels, tile.lanes, tile.lanes
        )  # all blocks alike, so that one permutation lays them out
        count = -(-columns // tile.lanes)
        emit, op = self.builder.emit, relax.op
        filled = right
        if count * tile.lanes != columns:
            filler = relax.const(np.zeros((a, b, count * tile.lanes - columns, depth_words), packing.dtype))
            filled = emit(op.concat([right, filler], 2))
        blocks = emit(op.reshape(filled, (a, b, count, tile.lanes, depth_words)))
        turned = emit(op.permute_dims(blocks, [0, 1, 2, 4, 3]))
        laid_out = emit(op.reshape(turned, (a * b * count * tile.lanes * depth_words,)))

        def kernel(epilogue: Epilogue) -> tirx.PrimFunc:
            return convolution.binary_convolution(
                conv, packing, tile, self.target, epilogue, ending="dot", weights_per_row=True
            )

        made = self._emit("binary_product", kernel(epilogue), [left, laid_out, *operands], epilogue, written)
        sums = self._sums(kernel, [left, laid_out], conv)
        self._remember(
            (str(attrs["name"]), "matmul"),
            [left, right],
            operands,
            outputs=made,
            sums=sums,
            conv=conv,
            packing=packing,
            zero_one=False,
            weights=None,
            thresholds=None,
            epilogue=epilogue,
        )

    def _remember(
        self, layer: tuple[str, str], inputs: list[relax.Var], operands: list[relax.Expr], **known: Any
    ) -> None:
        where: list[np.ndarray | int] = []
        for operand in operands:
            if is_constant(operand):
                where.append(constant_value(operand))
            else:
                where.append(len(inputs))
                inputs = [*inputs, operand]
        self.calls.append(KernelCall(*layer, inputs=tuple(inputs), operands=tuple(where), **known))

    def _planar(self, x: relax.Expr, conv: Convolution) -> relax.Expr | None:
        """The image [N, C, H, W] that x was turned from, if it has so few channels that turning costs more
        than reading it plane by plane."""
        if conv.channels > FEW_CHANNELS or conv.groups > 1 or conv.dilation[1] > 1:
            return None
        return self._planes(x)

    def _planes(self, x: relax.Expr) -> relax.Expr | None:
        """The image [N, C, H, W] that x was turned from."""
        made: Any = self.definition[x].value if x in self.definition else None
        if not is_call(made, "relax.permute_dims") or [int(a) for a in made.attrs.axes or ()] != [0, 2, 3, 1]:
            return None
        return self.env.get(made.args[0], made.args[0])

    def _turned(self, value: relax.Expr) -> relax.Expr:
        """A permutation that turns matrices as a call of a kernel of ours; anything else as it is."""
        if not is_call(value, "relax.permute_dims"):
            return value
        x = value.args[0]
        shape, dtype = shape_of(x), dtype_of(x)
        axes = value.attrs.axes
        order = range(len(shape))[::-1] if axes is None else [int(axis) for axis in axes]
        extents = matrices(shape, tuple(order))
        if extents is None or dtype not in ("float32", "int32"):
            return value
        out_shape = tuple(shape[axis] for axis in order)
        kernel = transposition(shape, out_shape, extents, dtype, self.target.floats)
        gvar = self.builder.add_func(kernel, "transpose")
        return relax.call_tir(gvar, [x], relax.TensorType(out_shape, dtype))

    def _float(
        self, anchor: relax.Call, epilogue: Epilogue, operands: list[relax.Expr], written: list[relax.Var]
    ) -> None:
        x, w = (self.env.get(a, a) if isinstance(a, relax.Var) else a for a in anchor.args)
        shape = shape_of(x)
        geometry: Any = anchor.attrs if is_call(anchor, "bibench.convolution") else _DENSE
        conv = convolution_of(geometry, shape, shape_of(w)[0])
        weights = constant_value(w).reshape(conv.out_channels, *conv.kernel, -1)
        planar = self._planar(anchor.args[0], conv)
        fast = self.target.winograd_tile(conv) if winograd.saves_products(conv) else None
        writes_planes = any(output.planar for output in epilogue.outputs)
        if depthwise.is_depthwise(conv, packed=False):
            kernel = depthwise.depthwise_convolution(conv, None, epilogue, ending="dot")
            args = [x, relax.const(depthwise.lay_out(weights)), *operands]
        elif planar is not None and fast is not None and not writes_planes:
            kernel = winograd.winograd_convolution(conv, fast, self.target, epilogue)
            transformed = winograd.transform_weights(weights.transpose(0, 3, 1, 2), conv)
            args = [planar, relax.const(lay_out(transformed, 1, fast)), *operands]
        else:
            default = self.target.float_tile(conv)
            if planar is not None:
                x, shape, weights = planar, shape_of(planar), weights.transpose(0, 3, 1, 2)

            def make(tile: Tile) -> tuple[tirx.PrimFunc, list[relax.Expr]]:
                kernel = convolution.float_convolution(
                    conv, shape, tile, self.target, epilogue, planar=planar is not None
                )
                return kernel, [x, relax.const(lay_out(weights, conv.groups, tile)), *operands]

            task = Task(conv, None, "dot", outputs_of(epilogue), planar is not None)
            kernel, args = make(self._tile(Tunable(task, default, make)))
        name = "float_dense" if geometry is _DENSE else "float_convolution"
        self._emit(name, kernel, args, epilogue, written)


FEW_CHANNELS = 4


def split_threshold(
    epilogue: Epilogue, operands: list[relax.Expr]
) -> tuple[Epilogue, list[relax.Expr], np.ndarray, np.ndarray] | None:
    """Take `sum >= T`, or `(sum >= T) xor falls`, with constants off the start of an epilogue that reads the
    sum for nothing else: (the rest, which gets that truth for its sum; its operands; T; falls). None for any
    other."""

    def constant(value: Value) -> np.ndarray | None:
        if value.kind == "number":
            return np.asarray([value.number])
        fixed = value.kind == "operand" and is_constant(operands[value.index])
        return constant_value(operands[value.index]).reshape(-1) if fixed else None

    def readers(value: Value) -> int:
        return sum(step.inputs.count(value) for step in epilogue.steps) + sum(
            output.value == value for output in epilogue.outputs
        )

    steps = epilogue.steps
    if not steps or steps[0].op != "relax.greater_equal" or steps[0].inputs[0] != SUM or readers(SUM) != 1:
        return None
    thresholds = constant(steps[0].inputs[1])
    if thresholds is None or not np.issubdtype(thresholds.dtype, np.integer):
        return None
    truth, falls = Value("step", 0), np.asarray([False])
    if (
        len(steps) > 1
        and steps[1].op == "relax.logical_xor"
        and steps[1].inputs[0] == truth
        and readers(truth) == 1
    ):
        turned = constant(steps[1].inputs[1])
        if turned is not None:
            truth, falls = Value("step", 1), turned.astype(bool)
    dropped = truth.index + 1
    used = sorted({v.index for step in steps[dropped:] for v in step.inputs if v.kind == "operand"})

    def moved(value: Value) -> Value:
        if value == truth:
            return SUM
        if value.kind == "step":
            return Value("step", value.index - dropped)
        return Value("operand", used.index(value.index)) if value.kind == "operand" else value

    rest = Epilogue(
        tuple(epilogue.operands[i] for i in used),
        tuple(Step(s.op, tuple(map(moved, s.inputs)), s.attributes) for s in steps[dropped:]),
        tuple(replace(o, value=moved(o.value)) for o in epilogue.outputs),
    )
    return rest, [operands[i] for i in used], thresholds, falls


_DENSE = {"kernel": (1, 1), "strides": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}


def _in_order(group: Group) -> list[relax.VarBinding]:
    """Members so that each comes after what it reads."""
    own = {m.var: m for m in group.members}
    done: dict[relax.Var, relax.VarBinding] = {}

    def visit(member: relax.VarBinding) -> None:
        for read in read_vars(member.value):
            if read in own and read not in done:
                visit(own[read])
        done.setdefault(member.var, member)

    for member in group.members:
        visit(member)
    return list(done.values())


def _read_outside(mod: tvm.IRModule, groups: list[Group]) -> set[relax.Var]:
    """Variables of groups that something else reads."""
    group_of = {member.var: id(group) for group in groups for member in group.members}
    found = set(read_vars(mod["main"].body.body))
    for binding in bindings(mod):
        found |= {v for v in read_vars(binding.value) if group_of.get(v) != group_of.get(binding.var, 0)}
    return found
