"""PyTorch -> Relax: a live module, a `torch.export` program, a `.pt2` file or a checkpoint.

The program is decomposed to core ATen operators, except that `linear` and `matmul` stay whole. Whatever
depends on parameters alone is then computed by PyTorch itself, so that the binarized weights of the compiled
network are those that PyTorch uses, to the last bit. The rest goes through TVM's translator.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tvm
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind, TensorArgument
from tvm import relax
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from bibench_tvm.importer.blocks import closed_at_failure
from bibench_tvm.importer.from_torch.dtypes import in_float32
from bibench_tvm.importer.from_torch.export import core_program, exported, input_metas, with_static_shapes
from bibench_tvm.importer.from_torch.fold import constant_values, folded, has_infinities
from bibench_tvm.importer.from_torch.naming import LAYER_OPERANDS, layer_names, where
from bibench_tvm.importer.from_torch.read import read_checkpoint, read_pt2
from bibench_tvm.importer.from_torch.reference import TorchReference
from bibench_tvm.importer.from_torch.repairs import Repairs
from bibench_tvm.importer.imported import Imported, ImportFailed, TensorSpec
from bibench_tvm.importer.indices import with_bounded_indices
from bibench_tvm.importer.naming import layer_variable, layer_variables
from bibench_tvm.importer.sentences import of_bad_values, of_operator, of_unknown_operator, of_vanished_layer
from bibench_tvm.importer.shapes import InputShapes, returned_types


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
        program, notes = with_static_shapes(model, example_inputs, input_shapes, name)
    else:
        if not isinstance(model, torch.nn.Module):
            raise ImportFailed(
                f"A {type(model).__name__} cannot be imported; pass a torch.nn.Module, an ExportedProgram, "
                "or the path of a .pt2, a checkpoint or an ONNX file."
            )
        program = exported(model, example_inputs, input_shapes, name)
        imported = _import_program(program, name, float32=float32)
        return dataclasses.replace(imported, algorithm=_algorithm_of(model))
    return _import_program(program, name, float32=float32, notes=notes)


def import_pt2(
    path: str | Path, input_shapes: InputShapes | None = None, *, float32: bool = False
) -> Imported:
    """Import a file written by `torch.export.save`. `float32`: see `import_model`.

    Raises ImportFailed if the file is damaged, or if reading it would run code from it.
    """
    program = read_pt2(Path(path))
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
    model, metadata = read_checkpoint(path, arch, algorithm, variant)
    imported = import_torch(model, name=str(path), input_shapes=input_shapes)
    return dataclasses.replace(imported, arch=metadata["arch"], algorithm=metadata["algorithm"])


def _algorithm_of(model: torch.nn.Module) -> str | None:
    """The name of the algorithm, where all binary layers of `trainers` in the module are of one."""
    from trainers.algorithms import algorithms

    names: dict[type, str] = {algorithms[name]: name for name in algorithms.names()}
    found = {names[type(module)] for module in model.modules() if type(module) in names}
    return found.pop() if len(found) == 1 else None


# ---- from an exported program with static shapes to Relax


def _import_program(
    program: ExportedProgram, name: str, *, float32: bool, notes: Sequence[str] = ()
) -> Imported:
    _refuse_bad_values(program, name)
    source_outputs = program.graph_signature.user_outputs
    program, dtype_notes = in_float32(program, name, asked=float32)
    core = core_program(program, name)
    for spec in core.graph_signature.output_specs:
        # An in-place operator on an input leaves the artifact's caller with his input unchanged, no more.
        if spec.kind not in (OutputKind.USER_OUTPUT, OutputKind.USER_INPUT_MUTATION):
            raise ImportFailed(
                f"{name} changes its state {spec.target or spec.arg.name!r} when it runs, which a compiled "
                "network cannot; make its forward leave parameters, buffers and inputs alone."
            )
        if spec.kind is OutputKind.USER_OUTPUT and not isinstance(spec.arg, TensorArgument):
            raise ImportFailed(f"{name} returns {spec.arg!r}, which is not a tensor; return tensors only.")

    inputs = tuple(_spec_of(key, meta, name) for key, meta in input_metas(core, name).items())
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
            program, core, translator.layers, LAYER_OPERANDS, constant_values(core), inputs
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
            raise of_bad_values(f"{kind} {key!r}", name, int(bad.sum()), tensor.numel())


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


def _refuse_untranslatable(program: ExportedProgram, name: str) -> None:
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        target: Any = node.target
        if isinstance(target, torch._ops.HigherOrderOperator):
            raise ImportFailed(
                f"{name} uses the control flow {target} ({where(node)}); a compiled network has to compute "
                "the same operators for every input."
            )
        takes_indices = any(
            user.target is operator.getitem and user.args[1] == 1 and user.users for user in node.users
        )
        if takes_indices and target.__name__.startswith(("max_pool", "adaptive_max_pool")):
            # TVM's converter gives zeros for them.
            raise ImportFailed(
                f"{name} uses the indices of {target} ({where(node)}), which TVM {tvm.__version__} cannot "
                "import from PyTorch; only the pooled values can be used."
            )
        if torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()):
            raise ImportFailed(
                f"{name} draws random numbers with {target} ({where(node)}); a compiled network cannot, so "
                "take that operator out of its eval mode."
            )


class _Translator(Repairs):
    """TVM's translator, mended, with constant folding by PyTorch and layer names.

    After `translate`, `layers` maps fx nodes to layer names, `layer_names` Relax variable names to them.
    """

    def __init__(self, program: ExportedProgram, name: str) -> None:
        super().__init__()
        self.program = program
        self.name = name
        self.layers: dict[fx.Node, str] = {}
        self.layer_names: dict[str, str] = {}

    def translate(self, inputs: Sequence[TensorSpec]) -> tvm.IRModule:
        """The Relax module with the function `main`."""
        _refuse_untranslatable(self.program, self.name)
        self.values, origins = folded(self.program, self.name)
        self.infinite = has_infinities(self.program, self.values)
        self.layers = layer_names(self.program, self.values, origins)
        self.block_builder = relax.BlockBuilder()
        variables = {
            spec.name: relax.Var(spec.name, relax.TensorType(spec.shape, spec.dtype)) for spec in inputs
        }
        builder = self.block_builder
        with closed_at_failure(builder), builder.function("main", list(variables.values())):
            with builder.dataflow():
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

    def _translate_node(self, node: Any) -> None:
        operator_name = node.target.__name__
        convert = self.convert_map.get(operator_name)
        if convert is None:
            raise of_unknown_operator(str(node.target), where(node), self.name, "PyTorch")
        self._load_constants(node.all_input_nodes)
        try:
            self.env[node] = convert(node)
        except ImportFailed:
            raise
        except Exception as error:
            what = f"the operator {node.target} ({where(node)})"
            raise of_operator(what, self.name, error) from error
        self._cast_integers(node)
        if node in self.layers:
            operands = (self.env[source] for source in node.all_input_nodes)
            variable = layer_variable(self.block_builder, self.env[node], operands)
            if variable is None:
                raise of_vanished_layer(self.layers[node], self.name)
            self.layer_names[variable] = self.layers[node]

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
                    array = np.array(value.detach().cpu().numpy(), order="C")
                    value = relax.const(array, array.dtype)  # left out, 64 bits become 32
                self.env[node] = value
