"""ONNX files, and the files that hold their weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from bibench_tvm.cli.errors import first_line
from bibench_tvm.importer.from_onnx.limits import external_tensors, refuse_external_growth
from bibench_tvm.importer.from_onnx.qonnx import expand_quantizers
from bibench_tvm.importer.imported import ImportFailed
from bibench_tvm.importer.sentences import of_bad_values


def read_onnx(path: Path) -> onnx.ModelProto:
    """The model with its weights, wherever they lie. Raises ImportFailed."""
    try:
        model = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise ImportFailed(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # protobuf's DecodeError has no stable home
        raise ImportFailed(f"{path} is not an ONNX file, or it is truncated: {first_line(error)}") from error
    if not model.graph.node and not model.graph.output:
        raise ImportFailed(f"{path} holds no ONNX graph: it is empty, truncated or another kind of file.")
    newest = onnx.defs.onnx_opset_version()
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > newest:
            raise ImportFailed(
                f"{path} uses ONNX opset {opset.version}, but onnx {onnx.__version__} knows opsets up to "
                f"{newest}; export it with an older opset."
            )
    refuse_external_growth(model, path)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        missing = ", ".join(sorted(_external_files(model)))
        raise ImportFailed(
            f"The weights of {path} are in other files that cannot be read ({missing}): {first_line(error)} "
            "They have to lie beside it."
        ) from error
    _infer_types(model, path)
    try:
        if model.ByteSize() < onnx.checker.MAXIMUM_PROTOBUF:
            with _without_unknown_shapes(model):
                onnx.checker.check_model(model)
    except Exception as error:
        raise ImportFailed(f"{path} is not a valid ONNX model: {first_line(error)}") from error
    _refuse_bad_values(model, path)
    expand_quantizers(model, path)
    return model


def _infer_types(model: onnx.ModelProto, path: Path) -> None:
    """Give the outputs a type whose type the file leaves out. Raises ImportFailed."""
    untyped = {value.name: value for value in model.graph.output if _lacks_type(value)}
    if untyped:
        # What cannot be inferred stays as it is, and so it does where the model is too large to be passed on.
        with contextlib.suppress(Exception):
            for value in onnx.shape_inference.infer_shapes(model).graph.output:
                if value.name in untyped:
                    untyped[value.name].CopyFrom(value)
    for kind, values in ("input", model.graph.input), ("output", model.graph.output):
        for value in values:
            if _lacks_type(value):
                raise ImportFailed(
                    f"The {kind} {value.name!r} of {path} has no type, and nothing in the file tells which "
                    "it is; export the model with the types of its inputs and outputs."
                )


def _lacks_type(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.WhichOneof("value")
    return kind is None or (kind == "tensor_type" and not value.type.tensor_type.elem_type)


@contextlib.contextmanager
def _without_unknown_shapes(model: onnx.ModelProto) -> Iterator[None]:
    """ONNX's checker wants the shapes of inputs and outputs, which older exporters leave out and ONNX Runtime
    does without: those of inputs may be given, those of outputs follow."""
    tensors = [
        value.type.tensor_type
        for value in (*model.graph.input, *model.graph.output)
        if value.type.WhichOneof("value") == "tensor_type"
    ]
    unknown = [tensor for tensor in tensors if not tensor.HasField("shape")]
    for tensor in unknown:
        tensor.shape.SetInParent()
    try:
        yield
    finally:
        for tensor in unknown:
            tensor.ClearField("shape")


def _external_files(model: onnx.ModelProto) -> set[str]:
    return {
        entry.value
        for tensor in external_tensors(model)
        for entry in tensor.external_data
        if entry.key == "location"
    }


def _refuse_bad_values(model: onnx.ModelProto, path: Path) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
            continue
        array = numpy_helper.to_array(tensor)
        # A single number may be a bound of Clip, and -inf hides positions in a mask; neither is a weight.
        bad = np.isnan(array) if array.size == 1 else np.isnan(array) | (array == np.inf)
        if bad.any():
            raise of_bad_values(f"initializer {tensor.name!r}", path, int(bad.sum()), array.size)
