"""Running `torch.export`: a program of static shapes, and the core operators that it is made of."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, TensorArgument
from torch.utils import _pytree as pytree

from bibench_tvm.cli.errors import first_line
from bibench_tvm.importer.imported import ImportFailed
from bibench_tvm.importer.shapes import InputShapes, settled, shapes_by_name

aten = torch.ops.aten


def exported(
    model: torch.nn.Module, example_inputs: Any, input_shapes: InputShapes | None, name: str
) -> ExportedProgram:
    """A module in eval mode. See `import_torch`. Raises ImportFailed."""
    if example_inputs is None:
        example_inputs = own_inputs(model, input_shapes or {}, name)
    if example_inputs is None:
        raise ImportFailed(
            f"{name} is a live PyTorch module, whose shapes are known only when it runs; pass "
            "example_inputs, for example torch.zeros(1, 3, 32, 32)."
        )
    return _export(model, *_as_arguments(example_inputs), name)


def with_static_shapes(
    program: ExportedProgram, example_inputs: Any, input_shapes: InputShapes | None, name: str
) -> tuple[ExportedProgram, list[str]]:
    """Fix dynamic dimensions by exporting the program once more on inputs of the wanted shapes.

    Also notes for the user: a first size that is left open is the batch, 1 unless another input says.
    """
    metas = input_metas(program, name)
    given = shapes_by_name(input_shapes, list(metas), name)
    if example_inputs is not None:
        leaves = pytree.tree_leaves(_as_arguments(example_inputs))
        tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
        given = {key: tuple(tensor.shape) for key, tensor in zip(metas, tensors, strict=False)}
    sizes = {
        key: ["?" if isinstance(size, torch.SymInt) else size for size in meta.shape]
        for key, meta in metas.items()
    }
    symbols = {key: str(meta.shape[0]) for key, meta in metas.items() if meta.dim()}
    shapes, notes = settled(sizes, symbols, given, name)
    if not any("?" in have for have in sizes.values()):
        return program, notes
    zeros = [torch.zeros(shapes[key], dtype=meta.dtype) for key, meta in metas.items()]
    args, kwargs = pytree.tree_unflatten(zeros, program.call_spec.in_spec)
    try:
        with torch.no_grad():
            # Without the guards: they are Python source kept in the file, which PyTorch would execute.
            fixed = torch.export.export(program.module(check_guards=False), args, kwargs, strict=False)
            return fixed, notes
    except Exception as error:
        raise ImportFailed(
            f"{name} cannot be specialised to these input shapes: {first_line(error)}"
        ) from error


def input_metas(program: ExportedProgram, name: str) -> dict[str, torch.Tensor]:
    """Input name -> fake tensor with its shape and dtype, in order."""
    metas = {}
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    for spec in program.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT:
            continue
        if not isinstance(spec.arg, TensorArgument):
            raise ImportFailed(
                f"Input {spec.arg.name!r} of {name} is not a tensor; bind it before the export, for example "
                "with functools.partial or in a wrapping module."
            )
        metas[spec.arg.name] = placeholders[spec.arg.name].meta["val"]
    if not metas:
        raise ImportFailed(f"{name} takes no tensor, so there is nothing to compute.")
    return metas


def core_program(program: ExportedProgram, name: str) -> ExportedProgram:
    """Core ATen operators, but `linear` and `matmul` whole: a layer of the user stays one operator."""
    table = torch.export.default_decompositions()
    for whole in (aten.linear.default, aten.matmul.default):
        table.pop(whole, None)
    table[aten.pad.default] = _padded
    table[aten.mv.default] = _by_vector
    table[aten.addmv.default] = lambda x, matrix, vector, *, beta=1, alpha=1: (
        beta * x + alpha * _by_vector(matrix, vector)
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            core = program.run_decompositions(table)
    except Exception as error:
        raise ImportFailed(
            f"PyTorch cannot decompose {name} to core operators: {first_line(error)}"
        ) from error

    _join_products(core)
    return core


_REPEATS = {
    aten.expand.default, aten.view.default, aten._unsafe_view.default, aten.reshape.default,
    aten.unsqueeze.default, aten.clone.default, aten.alias.default,
}  # fmt: skip


def _join_products(core: ExportedProgram) -> None:
    """A layer whose weights were repeated for each image of a batch, as PyTorch decomposes `linear`, is one
    product with them again."""
    for node in core.graph.nodes:
        if node.target is aten.bmm.default and (matrix := _repeated(node.args[1])) is not None:
            node.target, node.args = aten.matmul.default, (node.args[0], matrix)
    core.graph.eliminate_dead_code()
    core.graph_module.recompile()


def _repeated(node: Any) -> Any:
    """The matrix that all of these are, where that is how they were made; else None."""
    last = node.meta["val"].shape[-2:]
    while node.meta["val"].shape[-2:] == last:
        if node.meta["val"].dim() == 2:
            return node
        if node.target not in _REPEATS:
            return None
        node = node.args[0]
    return None


def _by_vector(matrix: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    return aten.mm(matrix, vector[:, None])[:, 0]


def _padded(
    x: torch.Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> torch.Tensor:
    """`aten.pad`. PyTorch fills an empty tensor step by step for a circular one: here parts stand side by
    side."""
    if mode == "constant":
        return aten.constant_pad_nd(x, pad, value or 0.0)
    if mode != "circular":
        name = {"reflect": "reflection", "replicate": "replication"}[mode]
        return getattr(aten, f"{name}_pad{len(pad) // 2}d")(x, pad)
    for i, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        axis = x.dim() - 1 - i
        x = x.narrow(axis, max(0, -before), x.shape[axis] - max(0, -before) - max(0, -after))
        left, right = max(0, before), max(0, after)
        parts = [x.narrow(axis, x.shape[axis] - left, left), x, x.narrow(axis, 0, right)]
        x = torch.cat([part for part in parts if part.shape[axis]], axis)
    return x


# ---- the arguments of a module


def _as_arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and the named arguments of the forward, as tensors."""
    inputs = pytree.tree_map(
        lambda x: torch.from_numpy(x.copy()) if isinstance(x, np.ndarray) else x, example_inputs
    )
    if isinstance(inputs, dict):
        return (), inputs
    return tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,), {}


_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)  # they have any names


def own_inputs(model: torch.nn.Module, input_shapes: InputShapes, name: str) -> Any:
    """What the module says that it takes, in these shapes; None where it does not say, and there are none."""
    import trainers

    inputs = trainers.example_inputs_of(model)
    parameters = inspect.signature(model.forward).parameters
    known = list(parameters)
    if inputs is None:
        nameless = set(input_shapes) <= {None} or any(p.kind in _ANY for p in parameters.values())
        if nameless:
            return tuple(torch.zeros(shape) for shape in input_shapes.values()) or None
        shapes = shapes_by_name(input_shapes, known, name)
        return {key: torch.zeros(shape) for key, shape in shapes.items()}
    named = inputs
    if not isinstance(inputs, dict):
        inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        named = {(known[i] if i < len(known) else f"input{i}"): x for i, x in enumerate(inputs)}
    if len(input_shapes) > len(named):
        count = "one input" if len(named) == 1 else f"{len(named)} inputs"
        raise ImportFailed(f"The network of {name} has {count}, but {len(input_shapes)} shapes were given.")
    for key, shape in shapes_by_name(input_shapes, list(named), name).items():
        if not isinstance(named[key], torch.Tensor):
            raise ImportFailed(f"Input {key!r} of {name} is not one tensor, so it has no shape to be given.")
        named = {**named, key: _in_shape(named[key], shape)}
    return named if isinstance(inputs, dict) else tuple(named.values())


def _in_shape(x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """`x` repeated and cut, so that its values stay such as the network takes; zeros for other dimensions."""
    if x.dim() != len(shape) or 0 in x.shape:
        return torch.zeros(shape, dtype=x.dtype)
    repeats = [-(-wanted // have) for wanted, have in zip(shape, x.shape, strict=True)]
    return x.repeat(repeats)[tuple(slice(wanted) for wanted in shape)].contiguous()


# ---- the export


@contextlib.contextmanager
def _eval_mode(model: torch.nn.Module) -> Iterator[None]:
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, flag in training.items():
            module.training = flag


def _export(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str
) -> ExportedProgram:
    # The fused fast path of nn.MultiheadAttention would hide its matrix products in one operator.
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _eval_mode(model), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(model, args, kwargs, strict=False)
    except Exception as error:
        raise ImportFailed(
            f"PyTorch cannot export {name}: {first_line(error)} Its forward has to run on example inputs of "
            "these shapes without branching on the values of tensors."
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
