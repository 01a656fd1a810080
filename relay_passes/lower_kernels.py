"""Each group of operators -> one TIR kernel and a `call_tir` of it, weights laid out for its tile.

Requires: halos as `grow_halos` leaves them.
Ensures: no operator of ours is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tvm
from tvm import relax, s_tir, tirx

from relay_passes.ir.decided import Decided, decided_operands
from relay_passes.ir.operators import ATTRIBUTES, Contraction, attributes_of
from relay_passes.ir.rewrite import (
    bindings,
    constant_value,
    is_call,
    is_constant,
    is_tensor,
    read_vars,
    substitute,
)
from relay_passes.kernels.binary_convolution import lower_binary_convolution
from relay_passes.kernels.binary_product import lower_binary_product
from relay_passes.kernels.chains import Chain, find_chains
from relay_passes.kernels.concatenate import joining_kernel
from relay_passes.kernels.epilogue import epilogue_of, in_order
from relay_passes.kernels.float_layer import lower_float_layer
from relay_passes.kernels.gate import lower_gate
from relay_passes.kernels.gather import gathering_kernel
from relay_passes.kernels.group_kernels import Group, group_kernels
from relay_passes.kernels.int8_convolution import lower_int8_convolution
from relay_passes.kernels.kernel import Integers, Kernel, KernelCall, Site, Tunable
from relay_passes.kernels.normalize import lower_normalize
from relay_passes.kernels.pack import lower_pack
from relay_passes.kernels.pool import lower_pool
from relay_passes.kernels.reduce import reducing_kernel
from relay_passes.kernels.share import shared_or_serial
from relay_passes.kernels.sign_sums import summing_kernel
from relay_passes.kernels.softmax import lower_softmax
from relay_passes.kernels.transpose import turning_kernel
from schedules.parts.epilogue import Epilogue, plain
from schedules.records.kernel_task import C, Choose
from schedules.targets.kernel_target import KernelTarget

_LOWER: dict[str, Callable[[Site], Kernel]] = {
    "bibench.convolution": lower_float_layer,
    "bibench.matmul": lower_float_layer,
    "bibench.binary_convolution": lower_binary_convolution,
    "bibench.int8_convolution": lower_int8_convolution,
    "bibench.binary_product": lower_binary_product,
    "bibench.pool": lower_pool,
    "bibench.normalize": lower_normalize,
    "bibench.softmax": lower_softmax,
    "bibench.pack": lower_pack,
}


@dataclass(frozen=True, kw_only=True)
class Kernels:
    module: tvm.IRModule
    calls: tuple[KernelCall, ...]  # of kernels of integers, in the order of `main`
    # (kernel, name of its layer) for each call in `main`, in order; the name is empty where it computes none,
    # and the kernel where a layer has part of the one that follows
    emitted: tuple[tuple[str, str], ...]
    tunable: tuple[Tunable, ...]  # what `choose` was asked
    decided: tuple[Decided, ...] = ()  # with `probe`: what float layers read, in the new `main`


def lower_kernels(
    mod: tvm.IRModule,
    target: KernelTarget,
    choose: Choose = lambda task: None,
    *,
    probe: bool = False,
    others: Sequence[str] = (),
) -> Kernels:
    """choose: gives what a task's kernel is made by, or None, which leaves it to the target.

    probe: `main` returns (its result, for each `KernelCall` its inputs, outputs and bare sums, and the
    `decided`), which is what the verification looks at; others: see `decided_operands`. The kernels are the
    same to the letter; the sums come from twins of theirs that differ in the epilogue alone.
    """
    decided = decided_operands(mod, others) if probe else []
    return _Lowering(mod, target, choose, decided, probe=probe).run()


class _Lowering:
    """One walk over `main`: what is bound so far in the new one."""

    def __init__(
        self,
        mod: tvm.IRModule,
        target: KernelTarget,
        choose: Choose,
        decided: list[Decided],
        *,
        probe: bool,
    ):
        groups = group_kernels(mod)
        self.main, self.target, self.choose, self.probe = mod["main"], target, choose, probe
        self.decided = decided
        self.order = bindings(mod)
        self.definition = {b.var: b for b in self.order}
        self.group_of = {member.var: group for group in groups for member in group.members}
        self.outside = _read_outside(mod, groups)
        chains = find_chains(mod, groups, self.outside)
        self.chain_of = {member.var: chain for chain in chains for member in chain.members}
        self.borders = {b.var: b.value for b in self.order if is_call(b.value, "bibench.border")}
        self.builder = relax.BlockBuilder(_loop_nests(mod))
        self.env: dict[relax.Var, relax.Expr] = {}
        self.bound: set[relax.Var] = set()
        self.calls: list[KernelCall] = []
        self.emitted: list[tuple[str, str]] = []
        self.tunable: list[Tunable] = []

    def run(self) -> Kernels:
        main = self.main
        with self.builder.function("main", list(main.params), attrs=dict(main.attrs or {})):
            with self.builder.dataflow():
                for binding in self.order:
                    self._bind(binding.var)
                result = substitute(main.body.body, self.env)
                # What is computed inside a kernel is nowhere to be seen.
                decided = [
                    replace(d, operand=self.env[d.operand]) for d in self.decided if d.operand in self.env
                ]
                if self.probe:
                    seen = [v for c in self.calls for v in (*c.inputs, *c.outputs, c.sums)]
                    result = relax.Tuple([result, *seen, *(d.operand for d in decided)])
                result = self.builder.emit_output(result)
            self.builder.emit_func_output(result)
        return Kernels(
            module=self.builder.get(),
            calls=tuple(self.calls),
            emitted=tuple(self.emitted),
            tunable=tuple(self.tunable),
            decided=tuple(decided),
        )

    def _bind(self, var: relax.Var) -> None:
        """Emit what computes this variable, after everything that it reads."""
        if var in self.bound or var not in self.definition:
            return
        chain, group = self.chain_of.get(var), self.group_of.get(var)
        members = chain.members if chain else group.members if group else [self.definition[var]]
        own = {m.var for m in members}
        self.bound |= own
        for member in members:
            for read in read_vars(member.value):
                if read not in own:
                    self._bind(read)
        if chain:
            self._lower_chain(chain)
            return
        if group:
            self._lower(group)
            return
        if var in self.borders:
            return  # the kernel of the group that adds it reads it as a table
        value = substitute(self.definition[var].value, self.env)
        for name, kernel in (
            ("transpose", turning_kernel(value, self.target)),
            ("sign_sums", summing_kernel(value)),
            ("reduce", reducing_kernel(value, self.target)),
            ("concatenate", joining_kernel(value, self.target)),
            ("gather", gathering_kernel(value, self.target)),
        ):
            if kernel:
                function = shared_or_serial(kernel[0], self.target, None, binary=False)
                gvar = self.builder.add_func(function, name)
                (read, *_), arguments = value.args, [a for a in value.args if is_tensor(a)]
                # A concatenation reads a tuple.
                value = relax.call_tir(gvar, read if isinstance(read, relax.Tuple) else arguments, kernel[1])
        self.env[var] = self.builder.emit(value)

    def _lower(self, group: Group) -> None:
        written = [m.var for m in in_order(group) if m.var in self.outside]
        epilogue, operands = epilogue_of(group, written, self.env, self.borders)
        anchor = substitute(group.anchor.value, self.env)
        site = Site(
            anchor=anchor,
            epilogue=epilogue,
            operands=operands,
            planes=self._planes(group.anchor.value.args[0]),
            target=self.target,
            choose=self._choose,
            emit=self.builder.emit,
        )
        kernel = _LOWER[anchor.op.name](site)
        is_layer = issubclass(ATTRIBUTES[anchor.op.name], Contraction)
        layer = attributes_of(anchor, Contraction) if is_layer else None
        binary = is_call(anchor, "bibench.binary_convolution", "bibench.binary_product")
        function = shared_or_serial(kernel.function, self.target, layer, binary=binary)
        name = layer.name if layer else ""
        outputs = self._emit(kernel.name, function, kernel.arguments, kernel.epilogue, name)
        self.env.update(zip(written, outputs, strict=True))
        if kernel.integers:
            self._remember(kernel, kernel.integers, outputs)

    def _lower_chain(self, chain: Chain) -> None:
        parts = []
        for group in chain.groups:
            written = [m.var for m in in_order(group) if m.var in self.outside]
            epilogue, operands = epilogue_of(group, written, self.env, self.borders)
            parts.append((group.anchor.value, epilogue, operands))
        layers = [attributes_of(layer, Contraction) for layer, _, _ in parts]
        function, arguments = lower_gate(substitute(chain.source, self.env), parts, self.target)
        function = shared_or_serial(function, self.target, layers[-1], binary=False)
        self.emitted += [("", layer.name) for layer in layers[:-1]]
        outputs = self._emit("float_gate", function, arguments, parts[-1][1], layers[-1].name)
        self.env.update(zip(written, outputs, strict=True))

    def _choose(self, tunable: Tunable[C]) -> C:
        self.tunable.append(tunable)
        return self.choose(tunable.task) or tunable.task.default(self.target)

    def _emit(
        self,
        name: str,
        function: tirx.PrimFunc,
        arguments: list[relax.Expr],
        epilogue: Epilogue,
        layer: str,
    ) -> tuple[relax.Var, ...]:
        """Bind what the kernel writes; the name says what it computes."""
        gvar = self.builder.add_func(function, name)
        self.emitted.append((str(gvar.name_hint), layer))
        types = [relax.TensorType(o.shape, o.dtype) for o in epilogue.outputs]
        result = self.builder.emit(relax.call_tir(gvar, arguments, types[0] if len(types) == 1 else types))
        if len(types) == 1:
            return (result,)
        return tuple(self.builder.emit(relax.TupleGetItem(result, i)) for i in range(len(types)))

    def _remember(self, kernel: Kernel, integers: Integers, outputs: tuple[relax.Var, ...]) -> None:
        sums = None
        if self.probe:
            bare = plain(integers.layer.conv.out_shape, "int32")
            function, arguments = integers.sums(bare), integers.sums_arguments
            (sums,) = self._emit("sums", function, arguments, bare, integers.layer.name)
        inputs = list(integers.inputs)
        operands: list[np.ndarray | int] = []
        for operand in kernel.operands:
            if is_constant(operand):
                operands.append(constant_value(operand))
            else:
                operands.append(len(inputs))
                inputs.append(operand)
        self.calls.append(
            KernelCall(
                layer=integers.layer,
                inputs=tuple(inputs),
                outputs=outputs,
                sums=sums,
                weights=integers.weights,
                thresholds=integers.thresholds,
                turned=integers.turned,
                epilogue=kernel.epilogue,
                operands=tuple(operands),
            )
        )

    def _planes(self, x: relax.Expr) -> relax.Expr | None:
        """The image [N, C, H, W] that x was turned from, over the new variables."""
        value = self.definition[x].value if x in self.definition else None
        if value is None or not is_call(value, "relax.permute_dims"):
            return None
        if [int(a) for a in value.attrs.axes or ()] != [0, 2, 3, 1]:
            return None
        return self.env.get(value.args[0], value.args[0])


def _loop_nests(mod: tvm.IRModule) -> tvm.IRModule:
    """The functions as which TVM's frontends write some operators: copies, since a schedule changes one in
    its place, and the module is lowered again with probes."""
    functions = {name: made for name, made in mod.functions.items() if name.name_hint != "main"}
    return tvm.IRModule({name: s_tir.renew_defs(made) for name, made in functions.items()})


def _read_outside(mod: tvm.IRModule, groups: list[Group]) -> set[relax.Var]:
    """Variables of groups that something else reads."""
    group_of = {member.var: id(group) for group in groups for member in group.members}
    found = set(read_vars(mod["main"].body.body))
    for binding in bindings(mod):
        found |= {v for v in read_vars(binding.value) if group_of.get(v) != group_of.get(binding.var, 0)}
    return found
