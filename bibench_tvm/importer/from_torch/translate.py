"""PyTorch -> Relax: a live module, a `torch.export` program, a `.pt2` file or a checkpoint.

The program is decomposed to core ATen operators, except that `linear` and `matmul` stay whole. Whatever
depends on parameters alone is then computed by PyTorch itself, so that the binarized weights of the compiled
network are those that PyTorch uses, to the last bit. The rest goes through TVM's translator.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import math
import operator
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tvm
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument
from torch.utils import _pytree as pytree
from tvm import relax
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from bibench_tvm.importer.from_torch.dtypes import in_float32
from bibench_tvm.importer.from_torch.pt2_safety import is_modest, quiet, read_json
from bibench_tvm.importer.from_torch.reference import TorchReference
from bibench_tvm.importer.imported import (
    LAYER_OPERATORS,
    Imported,
    ImportFailed,
    InputShapes,
    TensorSpec,
    first_line,
    layer_variables,
    note_on_batch,
    returned_types,
    shapes_by_name,
)
from bibench_tvm.importer.limits import refuse_bombs, refuse_growth
from bibench_tvm.importer.operators import (
    expm1,
    from_the_end,
    hyperbolic,
    log1p,
    scatter,
    weighed,
    with_bounded_indices,
    with_infinities,
)

aten = torch.ops.aten

# Layer operator of the decomposed program -> the positions of its two operands.
_LAYER_OPERANDS = {
    aten.convolution.default: (0, 1),
    aten.linear.default: (0, 1),
    aten.matmul.default: (0, 1),
    aten.mm.default: (0, 1),
    aten.bmm.default: (0, 1),
    aten.addmm.default: (1, 2),
    aten.baddbmm.default: (1, 2),
}

# The only operators that a `.pt2` may call: tensor arithmetic, nothing that opens files or loads code.
_SAFE_TARGET = re.compile(
    r"torch\.ops\.(aten|prims|torchvision|quantized_decomposed)\.(?!from_file)\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.(cond|map_impl|scan|while_loop|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|torch\.sym_\w+|math\.\w+"
    r"|_operator\.(getitem|add|sub|mul|neg|floordiv|mod|truediv|pow|eq|ne|lt|le|gt|ge|and_|or_|not_)"
)
# Sizes are written as sympy prints them, for example Mul(Integer(2), Symbol('s77', integer=True)).
_SHOWN = 100  # characters of what a file holds
_SAFE_EXPRESSION = re.compile(
    r"(Symbol\('\w+'|(Integer|Rational|Add|Mul|Pow|Mod|PythonMod|FloorDiv|CleanDiv|CeilToInt|Max|Min)\("
    r"|(positive|integer|nonnegative|real)=(True|False)|[su]\d+|\d+|[-+*/(), ])*"
)


def import_torch(
    model: torch.nn.Module | ExportedProgram,
    example_inputs: Any = None,
    *,
    name: str = "the model",
    input_shapes: InputShapes | None = None,
    float32: bool = False,
) -> Imported:
    """Import a module or an exported program. `name` is how errors call it. `float32`: see `import_model`.

    `example_inputs` is a tensor or array, a tuple of them, or a dictionary by the names of the forward's
    arguments: they fix the shapes. Left out, they are what the module has as its own `example_inputs`, with
    the shapes of `input_shapes`. A module is exported in eval mode, and its training flags are left as they
    were. Raises ImportFailed.
    """
    if isinstance(model, ExportedProgram):
        program, notes = _with_static_shapes(model, example_inputs, input_shapes, name)
    else:
        if not isinstance(model, torch.nn.Module):
            raise ImportFailed(
                f"A {type(model).__name__} cannot be imported; pass a torch.nn.Module, an ExportedProgram, "
                "or the path of a .pt2, a checkpoint or an ONNX file."
            )
        if example_inputs is None:
            example_inputs = _own_inputs(model, input_shapes or {}, name)
        if example_inputs is None:
            raise ImportFailed(
                f"{name} is a live PyTorch module, whose shapes are known only when it runs; pass "
                "example_inputs, for example torch.zeros(1, 3, 32, 32)."
            )
        program = _export(model, *_as_arguments(example_inputs), name)
        imported = _import_program(program, name, float32=float32)
        return dataclasses.replace(imported, algorithm=_algorithm_of(model))
    return _import_program(program, name, float32=float32, notes=notes)


def import_pt2(
    path: str | Path, input_shapes: InputShapes | None = None, *, float32: bool = False
) -> Imported:
    """Import a file written by `torch.export.save`. `float32`: see `import_model`.

    Raises ImportFailed if the file is damaged, or if reading it would run code from it.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImportFailed(f"{path} cannot be read: {error.strerror or error}.") from error
    _refuse_unsafe_pt2(data, path)
    try:
        with quiet():
            program = torch.export.load(io.BytesIO(data))
    except Exception as error:
        raise ImportFailed(
            f"{path} cannot be read as a torch.export program by PyTorch {torch.__version__}: it is damaged, "
            "or of another version. Write it again with torch.export.save."
        ) from error
    tensors = [*program.state_dict.values(), *program.constants.values()]
    grown = sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))
    refuse_growth("The parameters and buffers", grown, len(data), path)
    return import_torch(program, name=str(path), input_shapes=input_shapes, float32=float32)


def import_checkpoint(
    path: str | Path,
    arch: str | None = None,
    algorithm: str | None = None,
    variant: str | None = None,
    input_shapes: InputShapes | None = None,
) -> Imported:
    """Import a checkpoint of `trainers`. What is None is taken from the checkpoint.

    `input_shapes` include the batch; by default it is one of the network's own example inputs. Raises
    ImportFailed.
    """
    import trainers

    try:
        model, metadata = trainers.load_checkpoint(path, arch=arch, algorithm=algorithm, variant=variant)
    except trainers.CheckpointError as error:
        raise ImportFailed(str(error)) from error
    imported = import_torch(model, name=str(path), input_shapes=input_shapes)
    return dataclasses.replace(imported, arch=metadata["arch"], algorithm=metadata["algorithm"])


def _algorithm_of(model: torch.nn.Module) -> str | None:
    """The name of the algorithm, where all binary layers of `trainers` in the module are of one."""
    from trainers.algorithms import algorithms

    names: dict[type, str] = {algorithms[name]: name for name in algorithms.names()}
    found = {names[type(module)] for module in model.modules() if type(module) in names}
    return found.pop() if len(found) == 1 else None


# ---- getting an exported program with static shapes


@contextlib.contextmanager
def _eval_mode(model: torch.nn.Module) -> Iterator[None]:
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, flag in training.items():
            module.training = flag


def _as_arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and the named arguments of the forward, as tensors."""
    inputs = pytree.tree_map(
        lambda x: torch.from_numpy(x.copy()) if isinstance(x, np.ndarray) else x, example_inputs
    )
    if isinstance(inputs, dict):
        return (), inputs
    return tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,), {}


def _own_inputs(model: torch.nn.Module, input_shapes: InputShapes, name: str) -> Any:
    """What the module says that it takes, in these shapes; None where it does not say, and there are none."""
    import trainers

    inputs = trainers.example_inputs_of(model)
    if inputs is None:
        return tuple(torch.zeros(shape) for shape in input_shapes.values()) or None
    named = inputs
    if not isinstance(inputs, dict):
        inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        known = list(inspect.signature(model.forward).parameters)
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


def _with_static_shapes(
    program: ExportedProgram, example_inputs: Any, input_shapes: InputShapes | None, name: str
) -> tuple[ExportedProgram, list[str]]:
    """Fix dynamic dimensions by exporting the program once more on inputs of the wanted shapes.

    Also notes for the user: a first size that is left open is the batch, 1 unless another input says.
    """
    metas = _input_metas(program, name)
    shapes = shapes_by_name(input_shapes, list(metas), name)
    if example_inputs is not None:
        tensors = [
            x for x in pytree.tree_leaves(_as_arguments(example_inputs)) if isinstance(x, torch.Tensor)
        ]
        shapes = {key: tuple(tensor.shape) for key, tensor in zip(metas, tensors, strict=False)}
    dynamic = False
    notes = []
    batches = {
        str(metas[key].shape[0]): shape[0] for key, shape in shapes.items() if metas[key].dim() and shape
    }
    for key, meta in metas.items():
        sizes = ["?" if isinstance(size, torch.SymInt) else str(size) for size in meta.shape]
        wanted = shapes.get(key)
        if wanted is None and sizes and sizes[0] == "?" and "?" not in sizes[1:]:
            wanted = (batches.get(str(meta.shape[0]), 1), *map(int, sizes[1:]))
            shapes[key] = wanted
            notes.append(note_on_batch(key, wanted))
        if wanted is None and "?" in sizes:
            example = "x".join("1" if size == "?" else size for size in sizes)
            raise ImportFailed(
                f"Input {key!r} of {name} has the dynamic shape {'x'.join(sizes)}; "
                f"give its sizes with --input-shape {key}:{example}."
            )
        if wanted is not None and (
            len(wanted) != len(sizes)
            or any(have not in ("?", str(want)) for have, want in zip(sizes, wanted, strict=True))
        ):
            raise ImportFailed(
                f"Input {key!r} of {name} was exported as {'x'.join(sizes)}, so it cannot be "
                f"{'x'.join(map(str, wanted))}; export it again with that shape."
            )
        dynamic |= "?" in sizes
    if not dynamic:
        return program, notes
    leaves = [torch.zeros(shapes.get(key, meta.shape), dtype=meta.dtype) for key, meta in metas.items()]
    args, kwargs = pytree.tree_unflatten(leaves, program.call_spec.in_spec)
    try:
        with torch.no_grad():
            # Without the guards: they are Python source kept in the file, which PyTorch would execute.
            fixed = torch.export.export(program.module(check_guards=False), args, kwargs, strict=False)
            return fixed, notes
    except Exception as error:
        raise ImportFailed(
            f"{name} cannot be specialised to these input shapes: {first_line(error)}"
        ) from error


def _input_metas(program: ExportedProgram, name: str) -> dict[str, torch.Tensor]:
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


# ---- refusing what would run code


def _refuse_unsafe_pt2(data: bytes, path: Path) -> None:
    """Refuse the content of a `.pt2` whose reading would run code from the file.

    `torch.export.load` unpickles with `weights_only=False`, loads compiled libraries, imports modules named
    by a tree spec, evaluates symbolic expressions and calls any function of `torch` that a node names. A
    program that holds plain tensors and tensor operators needs none of that.
    """

    def refuse(what: str) -> ImportFailed:
        return ImportFailed(
            f"{path} holds {what}, and reading that could run code from the file; export the model with "
            "plain tensors as parameters, buffers and inputs."
        )

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            refuse_bombs(archive, len(data), path)
            damaged = archive.testzip()
            if damaged is not None:
                raise ImportFailed(f"{path} is damaged: the checksum of {damaged} in it is wrong.")
            # PyTorch's own reader of archives ignores case and takes the first of two entries of one name.
            entries = [entry.lower() for entry in archive.namelist()]
            if len(set(entries)) < len(entries) or len({entry.partition("/")[0] for entry in entries}) > 1:
                raise refuse("two entries of one name, or more than one folder")
            for entry in archive.namelist():
                inside = entry.partition("/")[2].lower()
                if inside.startswith("data/aotinductor/"):
                    raise refuse("compiled libraries")
                if inside.startswith("data/constants/") and inside.endswith(".pt"):
                    raise refuse("pickled constants")
                if inside.startswith("data/") and inside.endswith("_config.json"):
                    for key, payload in read_json(archive.read(entry))["config"].items():
                        if payload["use_pickle"] or not re.fullmatch(
                            r"(weight|tensor)_\d+", payload["path_name"]
                        ):
                            raise refuse(f"{key!r} as a pickled object")
                elif inside.startswith("data/sample_inputs/"):
                    try:
                        torch.load(io.BytesIO(archive.read(entry)), weights_only=True)
                    except Exception as error:
                        raise refuse("example inputs that are not plain tensors") from error
                elif inside.startswith("models/"):
                    _refuse_unsafe_graph(read_json(archive.read(entry)), refuse)
            if not any(entry.endswith("/models/model.json") for entry in entries):
                raise ImportFailed(
                    f"{path} holds no torch.export program named 'model'; write it with torch.export.save."
                )
    except ImportFailed:
        raise
    except Exception as error:  # what is damaged fails anywhere
        raise ImportFailed(f"{path} is damaged or not a torch.export program: {first_line(error)}") from error


def _refuse_unsafe_graph(value: Any, refuse: Callable[[str], ImportFailed]) -> None:
    if isinstance(value, list):
        for item in value:
            _refuse_unsafe_graph(item, refuse)
    elif isinstance(value, dict):
        for key, item in value.items():
            text = item if isinstance(item, str) else ""
            called = key == "as_operator" or (key == "target" and "inputs" in value)
            if called and not _SAFE_TARGET.fullmatch(text):
                raise refuse(f"a call of {text[:_SHOWN] or type(item).__name__!r} (not a tensor operator)")
            if key == "expr_str" and not (is_modest(text) and _SAFE_EXPRESSION.fullmatch(text)):
                raise refuse(f"the size {text[:_SHOWN]!r} (not plain arithmetic on plain sizes)")
            if key != "stack_trace" and ("default_factory" in text or "__enum__" in text):
                raise refuse("inputs or outputs in a container that names Python modules")
            _refuse_unsafe_graph(item, refuse)


# ---- from an exported program with static shapes to Relax


def _import_program(
    program: ExportedProgram, name: str, *, float32: bool, notes: Sequence[str] = ()
) -> Imported:
    _refuse_bad_values(program, name)
    source_outputs = program.graph_signature.user_outputs
    program, dtype_notes = in_float32(program, name, asked=float32)
    core = _decompose(program, name)
    for spec in core.graph_signature.output_specs:
        # An in-place operator on an input leaves the artifact's caller with his input unchanged, no more.
        if spec.kind not in (OutputKind.USER_OUTPUT, OutputKind.USER_INPUT_MUTATION):
            raise ImportFailed(
                f"{name} changes its state {spec.target or spec.arg.name!r} when it runs, which a compiled "
                "network cannot; make its forward leave parameters, buffers and inputs alone."
            )
        if spec.kind is OutputKind.USER_OUTPUT and not isinstance(spec.arg, TensorArgument):
            raise ImportFailed(f"{name} returns {spec.arg!r}, which is not a tensor; return tensors only.")

    inputs = tuple(_spec_of(key, meta, name) for key, meta in _input_metas(core, name).items())
    translator = _Translator(core, name)
    module = with_bounded_indices(translator.translate(inputs), name)
    module = relax.transform.FoldConstant()(module)
    results = _output_nodes(core)
    names = source_outputs if dtype_notes else [node.name for node in results]  # not those of the casts
    outputs = tuple(_spec_of(key, node.meta["val"], name) for key, node in zip(names, results, strict=True))
    for spec, returned in zip(outputs, returned_types(module), strict=True):
        if returned != (spec.shape, spec.dtype):
            raise ImportFailed(
                f"TVM {tvm.__version__} makes the output {spec.name!r} of {name} {returned[1]} "
                f"{returned[0]}, which in "
                f"PyTorch is {spec.dtype} {spec.shape}; cast it in the model."
            )
    surviving = set(layer_variables(module))
    return Imported(
        module=module,
        inputs=inputs,
        outputs=outputs,
        layer_names={var: layer for var, layer in translator.layer_names.items() if var in surviving},
        reference=TorchReference(
            program, core, translator.layers, _LAYER_OPERANDS, _constant_values(core), inputs
        ),
        notes=[*notes, *dtype_notes],
    )


def _refuse_bad_values(program: ExportedProgram, name: str) -> None:
    parameters = set(program.graph_signature.parameters)
    for key, tensor in [*program.state_dict.items(), *program.constants.items()]:
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
            continue
        bad = torch.isnan(tensor)
        if key in parameters:
            bad = ~torch.isfinite(tensor)  # a buffer may hold -inf: attention masks do
        if bad.any():
            kind = "parameter" if key in parameters else "buffer"
            raise ImportFailed(
                f"The {kind} {key!r} of {name} has {int(bad.sum())} values that are NaN or infinite out of "
                f"{tensor.numel()}; the training diverged, or the file is damaged."
            )


def _decompose(program: ExportedProgram, name: str) -> ExportedProgram:
    """Core ATen operators, but `linear` and `matmul` whole: a layer of the user stays one operator."""
    table = torch.export.default_decompositions()
    for whole in (aten.linear.default, aten.matmul.default):
        table.pop(whole, None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return program.run_decompositions(table)
    except Exception as error:
        raise ImportFailed(
            f"PyTorch cannot decompose {name} to core operators: {first_line(error)}"
        ) from error


def _output_nodes(program: ExportedProgram) -> list[fx.Node]:
    """The nodes that the user gets, in order."""
    nodes = {node.name: node for node in program.graph.nodes}
    return [nodes[name] for name in program.graph_signature.user_outputs]


def _spec_of(key: str, meta: torch.Tensor, name: str) -> TensorSpec:
    if any(isinstance(size, torch.SymInt) for size in meta.shape):
        raise ImportFailed(
            f"The shape of {key!r} of {name} depends on the values of the input; a compiled network needs "
            "static shapes."
        )
    try:
        dtype = ExportedProgramImporter._convert_data_type(meta.dtype)
        return TensorSpec(key, tuple(int(size) for size in meta.shape), dtype)
    except NotImplementedError as error:
        raise ImportFailed(
            f"{key!r} of {name} is {meta.dtype}, which is not compiled; cast it in the model."
        ) from error


def _constant_values(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """Placeholder name -> value, for all placeholders that are not inputs of the user."""
    values = {**program.state_dict, **program.constants}
    return {
        spec.arg.name: values[spec.target].detach()
        for spec in program.graph_signature.input_specs
        if spec.kind is not InputKind.USER_INPUT
    }


def _size_of(node: Any) -> int:
    """Bytes of the tensors that a node makes."""
    made = pytree.tree_leaves(node.meta.get("val"))
    return sum(t.numel() * t.element_size() for t in made if isinstance(t, torch.Tensor))


def _module_path(node: Any) -> str:
    """Path of the innermost module that the node came from, empty for the outermost module."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    return path.partition("@")[0]  # the second call of a module is "conv@1"


def _where(node: Any) -> str:
    path = _module_path(node)
    return f"node {node.name!r}" + (f" in module {path!r}" if path else "")


class _Translator(ExportedProgramImporter):
    """TVM's translator, with constant folding by PyTorch, layer names, and repairs.

    After `translate`, `layers` maps fx nodes to layer names, `layer_names` Relax variable names to them.
    """

    def __init__(self, program: ExportedProgram, name: str) -> None:
        super().__init__()
        self.program = program
        self.name = name
        self.values: dict[fx.Node, Any] = {}  # what depends on parameters alone
        self.origins: dict[fx.Node, set[str]] = {}  # constant node -> parameters that it depends on
        self.layers: dict[fx.Node, str] = {}
        self.layer_names: dict[str, str] = {}
        # TVM fixes the type of a product to float32, whatever its operands are.
        product = self._binary_op(relax.op.matmul, operator.matmul)
        self.convert_map.update({f"{op}.default": product for op in ("matmul", "mm", "bmm")})
        self.convert_map["cumsum.default"] = self._cumulative_sum
        self.convert_map["div.Tensor_mode"] = self._rounded_quotient
        self.convert_map["amax.default"] = self._extremum(relax.op.max)
        self.convert_map["amin.default"] = self._extremum(relax.op.min)
        self.convert_map["adaptive_max_pool2d.default"] = self._adaptive_max_pool2d
        for name in ("nearest2d.vec", "bilinear2d.vec", "bicubic2d.vec"):
            self.convert_map[f"upsample_{name}"] = self._upsample
        for name in ("bilinear2d_aa", "bicubic2d_aa"):
            self.convert_map[f"_upsample_{name}.default"] = self._upsample
        self.convert_map["embedding.default"] = self._embedding
        self.convert_map["log1p.default"] = lambda node: self._emitted(log1p(self._arg(node)))
        self.convert_map["expm1.default"] = lambda node: self._emitted(expm1(self._arg(node)))
        self.convert_map["sinh.default"] = lambda node: self._emitted(hyperbolic(self._arg(node), sine=True))
        self.convert_map["cosh.default"] = lambda node: self._emitted(hyperbolic(self._arg(node), sine=False))

    def translate(self, inputs: Sequence[TensorSpec]) -> tvm.IRModule:
        """The Relax module with the function `main`."""
        self._fold()
        self.infinite = self._has_infinities()
        self.layers = self._name_layers()
        self.block_builder = relax.BlockBuilder()
        variables = {
            spec.name: relax.Var(spec.name, relax.TensorType(spec.shape, spec.dtype)) for spec in inputs
        }
        with self.block_builder.function("main", list(variables.values())):
            with self.block_builder.dataflow():
                for node in self.program.graph.nodes:
                    if node.op == "placeholder" and node.name in variables:
                        self.env[node] = variables[node.name]
                    elif node.op == "call_function" and node not in self.values:
                        self._translate_node(node)
                leaves = _output_nodes(self.program)
                self._load_constants(leaves)
                results = [self.env[leaf] for leaf in leaves]
                result = self.block_builder.emit_output(
                    results[0] if len(results) == 1 else relax.Tuple(results)
                )
            self.block_builder.emit_func_output(result)
        return self.block_builder.get()

    def _fold(self) -> None:
        """Compute in PyTorch every node that depends on parameters alone."""
        constants = _constant_values(self.program)
        given = sum(value.numel() * value.element_size() for value in constants.values())
        grown = 0
        interpreter = fx.Interpreter(self.program.graph_module, garbage_collect_values=False)
        for node in self.program.graph.nodes:
            if node.op == "placeholder" and node.name in constants:
                self.values[node] = constants[node.name]
                self.origins[node] = {node.name}
            elif node.op == "get_attr":
                self.values[node] = operator.attrgetter(str(node.target))(self.program.graph_module)
                self.origins[node] = set()
            elif node.op == "call_function":
                self._refuse_untranslatable(node)
                if all(source in self.values for source in node.all_input_nodes):
                    grown += _size_of(node)
                    refuse_growth(f"The constant {node.name!r}", grown, given, self.name)
                    interpreter.env = self.values
                    with torch.no_grad():
                        self.values[node] = interpreter.run_node(node)
                    self.origins[node] = set().union(*(self.origins[s] for s in node.all_input_nodes))

    def _has_infinities(self) -> bool:
        """Whether a constant or an argument is infinite, as masks are."""
        tensors = [value for value in self.values.values() if isinstance(value, torch.Tensor)]
        numbers = [a for node in self.program.graph.nodes for a in pytree.tree_leaves(node.args)]
        return any(t.is_floating_point() and bool(torch.isinf(t).any()) for t in tensors) or any(
            isinstance(number, float) and math.isinf(number) for number in numbers
        )

    def _refuse_untranslatable(self, node: Any) -> None:
        target = node.target
        if isinstance(target, torch._ops.HigherOrderOperator):
            raise ImportFailed(
                f"{self.name} uses the control flow {target} ({_where(node)}); a compiled network has to "
                "compute the same operators for every input."
            )
        takes_indices = any(
            user.target is operator.getitem and user.args[1] == 1 and user.users for user in node.users
        )
        if takes_indices and target.__name__.startswith(("max_pool", "adaptive_max_pool")):
            # TVM's converter gives zeros for them.
            raise ImportFailed(
                f"{self.name} uses the indices of {target} ({_where(node)}), which TVM {tvm.__version__} "
                "cannot import from PyTorch; only the pooled values can be used."
            )
        if torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()):
            raise ImportFailed(
                f"{self.name} draws random numbers with {target} ({_where(node)}); a compiled network "
                "cannot, so take that operator out of its eval mode."
            )

    def _name_layers(self) -> dict[fx.Node, str]:
        """A unique name for each layer: the path of its module, and the operator where that is ambiguous."""
        layers = [n for n in self.program.graph.nodes if n.target in _LAYER_OPERANDS and n not in self.values]
        parameter_paths = {
            spec.arg.name: spec.target.rpartition(".")[0]
            for spec in self.program.graph_signature.input_specs
            if spec.kind is InputKind.PARAMETER
        }

        def owns_weight(node: Any) -> bool:
            weight = node.args[_LAYER_OPERANDS[node.target][1]]
            return any(parameter_paths.get(p) == _module_path(node) for p in self.origins.get(weight, ()))

        per_path = Counter(_module_path(node) for node in layers)
        names: dict[fx.Node, str] = {}
        taken: Counter[str] = Counter()
        for node in layers:
            path = _module_path(node)
            # XNOR-Net's convolution of |x| runs in the same module as the binary one, which keeps the name.
            if not path or not (per_path[path] == 1 or owns_weight(node)):
                path = f"{path}.{node.target.__name__.partition('.')[0]}".lstrip(".")
            taken[path] += 1
            names[node] = path if taken[path] == 1 else f"{path}#{taken[path]}"
        return names

    def _translate_node(self, node: Any) -> None:
        operator_name = node.target.__name__
        convert = self.convert_map.get(operator_name)
        if convert is None:
            raise ImportFailed(
                f"{self.name} uses the operator {node.target} ({_where(node)}), which TVM {tvm.__version__} "
                "cannot import from PyTorch; write it with other operators."
            )
        self._load_constants(node.all_input_nodes)
        try:
            self.env[node] = convert(node)
        except ImportFailed:
            raise
        except Exception as error:
            raise ImportFailed(
                f"TVM {tvm.__version__} cannot import the operator {node.target} ({_where(node)}) of "
                f"{self.name}: {first_line(error)}"
            ) from error
        self._cast_integers(node)
        if node in self.layers:
            self.layer_names[self._layer_variable(node)] = self.layers[node]

    def _cast_integers(self, node: Any) -> None:
        """TVM makes integers of 32 bits of some that PyTorch has in 64."""
        made, value = self.env[node], node.meta.get("val")
        if (
            isinstance(made, relax.Var)
            and isinstance(made.ty, relax.TensorType)
            and isinstance(value, torch.Tensor)
        ):
            have, wanted = str(made.ty.dtype.dtype), self._convert_data_type(value.dtype)
            if have != wanted and "int" in have and "int" in wanted:
                self.env[node] = self.block_builder.emit(relax.op.astype(made, wanted))

    def _load_constants(self, nodes: Sequence[fx.Node]) -> None:
        for node in nodes:
            if node in self.values and node not in self.env:
                value = self.values[node]
                if isinstance(value, torch.Tensor):
                    # A copy: TVM's own conversion shares the memory, so that training the module further
                    # would change the constant.
                    value = relax.const(np.array(value.detach().cpu().numpy(), order="C"))
                self.env[node] = value

    def _layer_variable(self, node: Any) -> str:
        """Name hint of the variable bound to the convolution or product, behind a bias or reshape."""
        pending = [self.env[node]]
        stops = {
            self.env[source].name
            for source in node.all_input_nodes
            if isinstance(self.env[source], relax.Var)
        }
        while pending:
            expr = pending.pop()
            if not isinstance(expr, relax.Var) or expr.name in stops:
                continue
            value = self.block_builder.lookup_binding(expr)
            if isinstance(value, relax.Call):
                if value.op.name in LAYER_OPERATORS:
                    return expr.name
                pending.extend(value.args)
        raise ImportFailed(
            f"The layer {self.layers[node]!r} of {self.name} became something else than a layer in TVM."
        )

    # ---- repairs of TVM's converters

    def _emitted(self, expr: relax.Expr) -> relax.Expr:
        return self.block_builder.emit(expr)

    def _arg(self, node: Any, position: int = 0) -> relax.Expr:
        return self.env[node.args[position]]

    def _elu(self, node: Any) -> relax.Expr:
        """TVM knows neither factor, which selu has."""
        x = node.args[0]
        alpha, scale, inner = (*node.args[1:], 1.0, 1.0, 1.0)[:3]
        if scale == inner == 1:
            return super()._elu(node)
        below = expm1(relax.op.multiply(self.env[x], relax.const(np.float32(inner))))
        below = relax.op.multiply(below, relax.const(np.float32(alpha * scale)))
        above = relax.op.multiply(self.env[x], relax.const(np.float32(scale)))
        positive = relax.op.greater(self.env[x], relax.const(np.float32(0)))
        return self._emitted(relax.op.where(positive, above, below))

    def _clamp(self, node: Any) -> relax.Expr:
        """TVM cannot leave out a bound of integers, and lets the lower of two that cross win."""
        names = [argument.name for argument in node.target._schema.arguments]
        given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        low, high = given.get("min"), given.get("max")
        dtype = self._convert_data_type(node.meta["val"].dtype)
        x = self.env[node.args[0]]
        if str(x.ty.dtype.dtype) != dtype:
            x = self._emitted(relax.op.astype(x, dtype))
        numbers: list[Any] = [
            math.inf * sign if bound is None else bound for sign, bound in ((-1, low), (1, high))
        ]
        plain = not any(isinstance(bound, fx.Node) for bound in numbers) and numbers[0] <= numbers[1]
        if plain and ("float" in dtype or not any(math.isinf(bound) for bound in numbers)):
            return self._emitted(relax.op.clip(x, *numbers))
        for bound, relax_op in ((low, relax.op.maximum), (high, relax.op.minimum)):
            if bound is not None:
                other = self.env[bound] if isinstance(bound, fx.Node) else relax.const(bound, dtype)
                x = self._emitted(relax_op(x, relax.op.astype(other, dtype)))
        return x

    _clamp_min = _clamp_max = _clamp

    def _max_pool2d_impl(self, *args: Any, **kwargs: Any) -> relax.Expr:
        pooled = super()._max_pool2d_impl(*args, **kwargs)
        return self._emitted(with_infinities(pooled, greatest=True)) if self.infinite else pooled

    def _grid_sampler_2d(self, node: Any) -> relax.Expr:
        """TVM takes the two coordinates of a grid before its points, and PyTorch behind them."""
        x, grid, mode, padding, align_corners = node.args
        return self._emitted(
            relax.op.image.grid_sample(
                self.env[x],
                relax.op.permute_dims(self.env[grid], [0, 3, 1, 2]),
                method=("bilinear", "nearest", "bicubic")[mode],
                layout="NCHW",
                padding_mode=("zeros", "border", "reflection")[padding],
                align_corners=align_corners,
            )
        )

    def _upsample(self, node: Any) -> relax.Expr:
        """TVM's own by whole factors without corners, else each axis by the weights that PyTorch gives it."""
        names = [argument.name for argument in node.target._schema.arguments]
        given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        x = self.env[node.args[0]]
        sizes, outs = node.args[0].meta["val"].shape[2:], node.meta["val"].shape[2:]
        whole = all(out % size == 0 for out, size in zip(outs, sizes, strict=True))
        method = {"nearest2d": "nearest_neighbor", "bilinear2d": "linear"}.get(node.target.__name__[9:-4])
        if whole and method and not given.get("align_corners"):
            return self._emitted(relax.op.image.resize2d(x, tuple(outs), layout="NCHW", method=method))
        for position, (size, out) in enumerate(zip(sizes, outs, strict=True)):
            if size == out and given.get("scale_factors") is None:
                continue
            axis = dict(given) | {names[0]: torch.eye(size)[None, None]}
            if axis.get("output_size") is not None:
                axis["output_size"] = [size, out]
            if axis.get("scale_factors") is not None:
                axis["scale_factors"] = [1.0, axis["scale_factors"][position]]
            if "scales_h" in names:
                axis |= {"scales_h": None, "scales_w": given.get(("scales_h", "scales_w")[position])}
            matrix = node.target(**axis)[0, 0].numpy()
            x = weighed(x, 4, 2 + position, matrix)
        return self._emitted(x)

    def _embedding(self, node: Any) -> relax.Expr:
        return self._emitted(relax.op.take(self._arg(node), self._arg(node, 1), axis=0))

    def _take(self, node: Any) -> relax.Expr:
        count = math.prod(node.args[0].meta["val"].shape)
        return self._emitted(relax.op.take(self._arg(node), from_the_end(self._arg(node, 1), count)))

    def _scatter(self, node: Any) -> relax.Expr:
        x, axis, index, source = node.args
        shape = index.meta["val"].shape
        updates = self.env[source]
        if tuple(shape) != tuple(source.meta["val"].shape):
            updates = relax.op.strided_slice(updates, list(range(len(shape))), [0] * len(shape), list(shape))
        return self._emitted(scatter(self.env[x], self.env[index], self._emitted(updates), axis))

    def _scatter_value(self, node: Any) -> relax.Expr:
        x, axis, index, value = node.args
        dtype = self._convert_data_type(x.meta["val"].dtype)
        updates = relax.op.full(tuple(index.meta["val"].shape), relax.const(value, dtype), dtype)
        return self._emitted(scatter(self.env[x], self.env[index], self._emitted(updates), axis))

    def _picked(self, node: Any) -> tuple[list[int], relax.Expr, tuple[int, ...], int]:
        """(indexed axes, index into their elements, its shape, where that stands in the result) of a node
        that indexes as numpy does. Raises NotImplementedError for a mask."""
        shape = node.args[0].meta["val"].shape
        axes = [axis for axis, index in enumerate(node.args[1]) if index is not None]
        metas = [node.args[1][axis].meta["val"] for axis in axes]
        if any(meta.dtype in (torch.bool, torch.uint8) for meta in metas):
            raise NotImplementedError(
                "how many elements a mask picks depends on the values of the input; torch.where(mask, a, b) "
                "keeps the shape."
            )
        places = tuple(torch.broadcast_shapes(*(meta.shape for meta in metas)))
        total = None
        for axis in axes:
            known = self.values.get(node.args[1][axis])
            if (
                known is not None
                and known.numel()
                and not -shape[axis] <= known.min() <= known.max() < shape[axis]
            ):
                raise NotImplementedError(
                    f"indices from {int(known.min())} to {int(known.max())} reach outside of {shape[axis]}."
                )
            index = self.env[node.args[1][axis]]
            if str(index.ty.dtype.dtype) != "int64":
                index = self._emitted(relax.op.astype(index, "int64"))
            index = self._emitted(from_the_end(index, shape[axis]))
            last = relax.const(shape[axis] - 1, "int64")
            index = relax.op.minimum(relax.op.maximum(index, relax.const(0, "int64")), last)
            stride = math.prod(shape[other] for other in axes if other > axis)
            index = relax.op.multiply(index, relax.const(stride, "int64"))
            total = index if total is None else relax.op.add(total, index)
        together = axes == list(range(axes[0], axes[0] + len(axes)))
        return axes, self._emitted(total), places, axes[0] if together else 0

    def _index_tensor(self, node: Any) -> relax.Expr:
        """TVM's own reads outside for negative indices, and takes those of several axes one after another."""
        axes, index, places, position = self._picked(node)
        x, shape = self.env[node.args[0]], node.args[0].meta["val"].shape
        rest = [axis for axis in range(len(shape)) if axis not in axes]
        if len(axes) == 1:
            return self._emitted(relax.op.take(x, index, axis=axes[0]))
        x = self._emitted(relax.op.permute_dims(x, [*axes, *rest]))
        count = math.prod(shape[axis] for axis in axes)
        x = relax.op.reshape(x, (count, *(shape[axis] for axis in rest)))
        taken = relax.op.take(x, index, axis=0)
        order = list(range(len(places) + len(rest)))
        order = [*order[len(places) :][:position], *order[: len(places)], *order[len(places) + position :]]
        return self._emitted(relax.op.permute_dims(taken, order))

    def _index_put(self, node: Any) -> relax.Expr:
        x, indices, values, accumulate = (*node.args, False)[:4]
        shape = tuple(x.meta["val"].shape)
        mask = indices[0].meta["val"] if len(indices) == 1 and indices[0] is not None else None
        if mask is not None and mask.dtype is torch.bool:
            if accumulate or math.prod(values.meta["val"].shape) != 1:
                raise NotImplementedError(
                    "how many values a mask takes depends on the values of the input; "
                    "torch.where(mask, a, b) keeps the shape."
                )
            wide = relax.op.reshape(self.env[indices[0]], (*mask.shape, *[1] * (len(shape) - mask.dim())))
            value = relax.op.reshape(self.env[values], ())
            return self._emitted(relax.op.where(wide, value, self.env[x]))
        axes, index, places, position = self._picked(node)
        rest = [axis for axis in range(len(shape)) if axis not in axes]
        sizes = [shape[axis] for axis in rest]
        new = relax.op.broadcast_to(self.env[values], (*sizes[:position], *places, *sizes[position:]))
        order = list(range(len(places) + len(rest)))
        at = range(position, position + len(places))
        new = relax.op.permute_dims(new, [*at, *(axis for axis in order if axis not in at)])
        whole = relax.op.permute_dims(self.env[x], [*axes, *rest])
        whole = relax.op.reshape(whole, (math.prod(shape[axis] for axis in axes), *sizes))
        count = math.prod(places)
        index = relax.op.reshape(relax.op.broadcast_to(index, places), (count, 1))
        made = relax.op.scatter_nd(
            whole, index, relax.op.reshape(new, (count, *sizes)), "add" if accumulate else "update"
        )
        made = relax.op.reshape(made, (*(shape[axis] for axis in axes), *sizes))
        turned = [*axes, *rest]
        return self._emitted(relax.op.permute_dims(made, [turned.index(axis) for axis in range(len(shape))]))

    def _binary_op(self, relax_op: Any, intrinsic_op: Any) -> Any:
        """Arithmetic with PyTorch's type promotion and `alpha`.

        TVM turns a number into the type of the tensor beside it, so that `(x >= 0) * 2` multiplies by `True`
        and `int_tensor * 0.5` by 0; and it drops the `alpha` of `add` and `sub`.
        """

        def convert(node: Any) -> relax.Expr:
            operands = node.args[:2]
            metas = [x.meta["val"] if isinstance(x, fx.Node) else x for x in operands]
            dtype = torch.result_type(*metas)
            result = node.meta["val"].dtype
            if not dtype.is_floating_point and result.is_floating_point:
                dtype = result  # a quotient of integers
            tvm_dtype = self._convert_data_type(dtype)
            if relax_op is relax.op.power and not dtype.is_floating_point:
                raise NotImplementedError("a power of integers whose exponent is computed.")

            def typed(operand: Any, factor: Any = 1) -> relax.Expr:
                if not isinstance(operand, fx.Node):
                    return relax.const(operand * factor, tvm_dtype)
                expr = self.env[operand]
                if expr.ty.dtype.dtype != tvm_dtype:
                    expr = self.block_builder.emit(relax.op.astype(expr, tvm_dtype))
                if factor != 1:
                    expr = self.block_builder.emit(relax.op.multiply(expr, relax.const(factor, tvm_dtype)))
                return expr

            lhs, rhs = operands
            if (
                relax_op is relax.op.divide
                and not isinstance(rhs, fx.Node)
                and not rhs
                and "float" in tvm_dtype
            ):
                infinite = relax.const(math.copysign(math.inf, rhs), tvm_dtype)  # TVM divides by no 0
                return self.block_builder.emit(relax.op.multiply(typed(lhs), infinite))
            of_truths = {relax.op.multiply: relax.op.logical_and, relax.op.add: relax.op.logical_or}
            made = of_truths.get(relax_op, relax_op) if dtype is torch.bool else relax_op
            return self.block_builder.emit(made(typed(lhs), typed(rhs, node.kwargs.get("alpha", 1))))

        return convert

    def _cumulative_sum(self, node: Any) -> relax.Expr:
        """TVM's own sums in the type of the operand, truths among them."""
        dtype = self._convert_data_type(node.meta["val"].dtype)
        x = self.block_builder.emit(relax.op.astype(self.env[node.args[0]], dtype))
        return self.block_builder.emit(relax.op.cumsum(x, node.args[1]))

    def _rounded_quotient(self, node: Any) -> relax.Expr:
        """TVM's own divides by a number of another type than the integers that it divides."""
        if node.kwargs["rounding_mode"] == "floor":
            return self._binary_op(relax.op.floor_divide, operator.floordiv)(node)
        quotient = self._binary_op(relax.op.divide, operator.truediv)(node)
        if node.kwargs["rounding_mode"] is None or not node.meta["val"].dtype.is_floating_point:
            return quotient  # of integers it is truncated
        return self.block_builder.emit(relax.op.trunc(quotient))

    def _select(self, node: Any) -> relax.Expr:
        x, axis, index = node.args
        size = x.meta["val"].shape[axis]
        # TVM's own reads out of bounds for a negative index.
        taken = relax.op.take(self.env[x], relax.const(index % size, "int64"), axis=axis)
        return self.block_builder.emit(taken)

    def _extremum(self, relax_op: Any) -> Any:
        def convert(node: Any) -> relax.Expr:
            x, axes, keepdims = (
                (*node.args, None, False)[:3] if len(node.args) == 1 else (*node.args, False)[:3]
            )
            made = relax_op(self.env[x], list(axes) if axes else None, keepdims=keepdims)
            made = self.block_builder.emit(made)
            if not self.infinite:
                return made
            return self._emitted(with_infinities(made, greatest=relax_op is relax.op.max))

        return convert

    def _adaptive_max_pool2d(self, node: Any) -> relax.Expr:
        x, out = node.args
        sizes = x.meta["val"].shape[-2:]
        if any(size % wanted for size, wanted in zip(sizes, out, strict=True)):
            raise NotImplementedError(f"the output {tuple(out)} does not divide the input {tuple(sizes)}.")
        window = [size // wanted for size, wanted in zip(sizes, out, strict=True)]
        pooled = self._max_pool2d_impl(self.env[x], window, window)
        return self.block_builder.emit(relax.Tuple([pooled]))

    def _avg_pool2d(self, node: Any) -> relax.Expr:
        return self._divided(node, super()._avg_pool2d(node), 2)

    def _avg_pool3d(self, node: Any) -> relax.Expr:
        return self._divided(node, super()._avg_pool3d(node), 3)

    def _divided(self, node: Any, pooled: relax.Expr, rank: int) -> relax.Expr:
        divisor = node.args[6] if len(node.args) > 6 else None
        if divisor is None:
            return pooled
        # TVM ignores the divisor. Over whole windows it is a factor; at an edge each has its own count.
        padding, ceil_mode = (*node.args, 0, False)[3:5]
        if ceil_mode or any(padding if isinstance(padding, (list, tuple)) else [padding]):
            raise NotImplementedError("divisor_override together with padding or ceil_mode.")
        window = node.args[1] if len(node.args[1]) == rank else [*node.args[1]] * rank
        factor = np.float32(math.prod(window) / divisor)
        return self.block_builder.emit(relax.op.multiply(pooled, relax.const(factor)))

    def _convolution(self, node: Any) -> relax.Expr:
        x, weight, bias, strides, padding, dilation, transposed, output_padding, groups = node.args
        if not transposed or len(strides) < 3:
            return super()._convolution(node)
        product = self.block_builder.emit(
            relax.op.nn.conv3d_transpose(
                self.env[x], self.env[weight], strides, padding, output_padding, dilation, groups
            )
        )
        if bias is None:
            return product
        return self.block_builder.emit(
            relax.op.add(product, relax.op.reshape(self.env[bias], (1, -1, 1, 1, 1)))
        )

    def _linear(self, node: Any) -> relax.Expr:
        x, weight, *bias = (self.env[arg] if arg is not None else None for arg in node.args)
        return self.block_builder.emit(relax.op.linear(x, weight, bias[0] if bias else None))
