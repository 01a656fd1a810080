"""Theoretical complexity: parameters, bits and operations of a network, layer by layer, without its training.

The network runs once, on PyTorch's device "meta", where tensors have shapes and no numbers. Each product is
counted as it is called; it is one of bits where both its operands come from a comparison. An operation is a
product with its addition, of a run on one batch of the example inputs. Besides those, only products with a
scale are counted, one for each element of the output and scale. Comparisons, the statistics that XNOR-Net
takes of its input, normalisations, activations and pooling are not.

What is not known is None.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import trainers
from bibench_tvm.cli.errors import BibenchError, UsageError, first_line
from bibench_tvm.importer import kind_of
from bibench_tvm.tracks.metrics import READINGS, Reading, compression_ratio, speedup_ratio
from trainers.algorithms import algorithms
from trainers.flow import MULTIPLIES
from trainers.inputs import call
from trainers.operator import BinaryLayer

if TYPE_CHECKING:
    from bibench_tvm.importer import Imported
    from bibench_tvm.importer.source import Network

FLOAT_BITS = 32


class LayerComplexity(msgspec.Struct, frozen=True, kw_only=True):
    """A layer, or a product without one."""

    name: str
    op: str
    binary: bool
    reason: str  # why it is not binary
    parameters: int | None  # of the float layer
    bits: int | None  # of what remains of them, and of the scales and thresholds
    operations: int | None  # products of a run
    scale_operations: int | None  # products with scales


class Complexity(msgspec.Struct, frozen=True, kw_only=True):
    """Of a network: its layers, what parameters are outside them (batch norm, embeddings), and the totals."""

    layers: tuple[LayerComplexity, ...]
    parameters_outside: int | None
    parameters: int | None
    bits: int | None
    binary_operations: int | None
    float_operations: int | None  # those with scales too
    operations: float | None  # binary / 64 + float
    compression: float | None  # equation 7
    speedup: float | None


class Extras(NamedTuple):
    """What a binary layer has besides its weights of one bit and its bias."""

    floats: int
    scales: int  # of each element of the output, that it is multiplied with


def complexity_of(model: nn.Module, inputs: Any, reading: Reading = "equation") -> Complexity:
    """Of a network as `trainers` makes it, float or binarized.

    Args:
        model: on any device; it is copied without its numbers, and stays as it is.
        inputs: what its forward takes: see `trainers.example_inputs_of`.
        reading: "equation" counts what the network has. "paper" counts as the BiBench paper seems to: a scale
            for each output channel at least, for DoReFa too; no thresholds among the parameters; ReActNet's
            as a product for each element of the output.

    Raises whatever its forward does where the inputs do not fit, or where it looks at numbers.
    """
    tensors = [*model.parameters(), *model.buffers()]
    model = copy.deepcopy(model, {id(t): _without_numbers(t) for t in tensors}).eval()
    inputs = pytree.tree_map(lambda x: x.to("meta") if isinstance(x, Tensor) else x, inputs)
    run = _Run(model)
    with run.watching(), torch.no_grad():
        call(model, inputs)
    reasons = _reasons(model)
    counted: set[int] = set()
    layers = []
    for name, module in run.layers.items():
        parameters = {id(p): p.numel() for p in _parameters(module) if id(p) not in counted}
        counted.update(id(p) for p in module.parameters())
        layers.append(_layer(name, module, run, sum(parameters.values()), reasons, reading))
    for name, products in run.products.items():
        if name not in run.layers:
            layers += [_loose(name, number, product) for number, product in enumerate(products, 1)]
    outside = {id(p): p.numel() for p in model.parameters() if id(p) not in counted}
    return _total(layers, sum(outside.values()))


def _without_numbers(tensor: Tensor) -> Tensor:
    twin = torch.empty_like(tensor, device="meta")
    return nn.Parameter(twin, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else twin


def _parameters(layer: nn.Module) -> list[nn.Parameter]:
    """Those of the float layer."""
    if isinstance(layer, BinaryLayer):
        return [p for key, p in layer._parameters.items() if p is not None and key in ("weight", "bias")]
    return list(layer.parameters())


def _layer(
    name: str, module: nn.Module, run: _Run, parameters: int, reasons: Mapping[str, str], reading: Reading
) -> LayerComplexity:
    """parameters: those that were not counted with another layer that has them too."""
    products, outputs = run.products.get(name, []), run.outputs.get(name, [])
    bits: int | None = FLOAT_BITS * parameters
    scales: int | None = 0
    binary = isinstance(module, BinaryLayer)
    if isinstance(module, BinaryLayer):
        biases = 0 if module.bias is None else min(parameters, module.bias.numel())
        extras = _extras(module, outputs, reading)
        bits = scales = None
        if extras:
            bits = parameters - biases + FLOAT_BITS * (biases + extras.floats)
            scales = extras.scales * sum(map(math.prod, outputs))
    return LayerComplexity(
        name=name or type(module).__name__,
        op=("linear", "conv1d", "conv2d")[module.spatial]
        if isinstance(module, BinaryLayer)
        else type(module).__name__.lower(),
        binary=binary and all(product.binary for product in products),
        reason="" if binary else reasons.get(name, "the network was not binarized"),
        parameters=parameters,
        bits=bits,
        # A layer that was called and showed no product computed it in a way that is not known here.
        operations=None if outputs and not products else sum(product.operations for product in products),
        scale_operations=scales,
    )


def _loose(name: str, number: int, product: _Product) -> LayerComplexity:
    """A product that is in no layer, such as those of an attention."""
    return LayerComplexity(
        name=f"{name}: product {number}".removeprefix(": "),
        op="product",
        binary=product.binary,
        reason="" if product.binary else "its operands are not both of one bit",
        parameters=0,
        bits=0,
        operations=product.operations,
        scale_operations=0,
    )


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A network, and its complexity as the equations say; the paper's counts where these are known."""

    model: str
    algorithm: str | None
    complexity: Complexity
    as_the_paper_counts: Complexity | None


def summarize(network: Network) -> Summary:
    """Of any network that `compile` takes. Raises UsageError, ImportFailed and BibenchError."""
    model, algorithm, title = network.model, network.algorithm, network.name
    if network.file:
        if kind_of(network.file) != "checkpoint":
            imported = network.load()
            complexity = complexity_of_import(imported)
            return Summary(
                model=network.title(imported),
                algorithm=imported.algorithm,
                complexity=complexity,
                as_the_paper_counts=None,
            )
        from bibench_tvm.importer.from_torch.read import read_checkpoint

        model, said = read_checkpoint(network.file, network.arch, network.algorithm, network.variant)
        algorithm, title = said["algorithm"], said["arch"]
    from bibench_tvm.importer.from_torch.export import own_inputs

    name = title or type(model).__name__
    inputs = own_inputs(model, network.input_shapes or {}, name)
    if inputs is None:
        raise UsageError(f"{name} does not say what its forward takes; give --input-shape.")
    try:
        found = {reading: complexity_of(model, inputs, reading) for reading in READINGS}
    except (RuntimeError, ValueError, IndexError) as error:  # what a forward raises at shapes that do not fit
        raise BibenchError(f"{name} does not run on inputs of these shapes: {first_line(error)}") from error
    return Summary(
        model=name,
        algorithm=algorithm,
        complexity=found["equation"],
        as_the_paper_counts=found["paper"],
    )


def complexity_of_name(
    arch: str, algorithm: str, variant: str = "paper", reading: Reading = "equation", **sizes: Any
) -> Complexity:
    """Of a network of `trainers.create_model(arch, **sizes)`, which takes no memory. Raises ValueError."""
    with torch.device("meta"):
        model = trainers.binarize(trainers.create_model(arch, **sizes), algorithm, variant)
    return complexity_of(model, trainers.example_inputs_of(model), reading)


def complexity_of_import(imported: Imported) -> Complexity:
    """Of what a file holds, as far as a compiler sees it: its layers and which of them are binary. What its
    parameters are besides the layers' weights, and what is a scale, it does not say."""
    from bibench_tvm.compiling.processors import resolve_target
    from relay_passes import lower

    layers = []
    for layer in lower(imported.module, imported.layer_names, resolve_target("host").kernels).layers:
        geometry = layer.geometry
        weights = geometry.out_channels * geometry.products if geometry else None
        layers.append(
            LayerComplexity(
                name=layer.name,
                op=layer.op,
                binary=layer.binarized,
                reason=layer.reason,
                parameters=weights,
                bits=None if weights is None else weights * (1 if layer.binarized else FLOAT_BITS),
                operations=layer.macs,
                scale_operations=None if layer.binarized else 0,
            )
        )
    return _total(layers, None)


def _total(layers: Sequence[LayerComplexity], outside: int | None) -> Complexity:
    parameters = _sum([*(layer.parameters for layer in layers), outside])
    bits = _sum([*(layer.bits for layer in layers), None if outside is None else FLOAT_BITS * outside])
    binary = _sum([layer.operations for layer in layers if layer.binary])
    others = [layer.operations for layer in layers if not layer.binary]
    floats = _sum([*others, *(layer.scale_operations for layer in layers)])
    products = _sum([layer.operations for layer in layers])
    return Complexity(
        layers=tuple(layers),
        parameters_outside=outside,
        parameters=parameters,
        bits=bits,
        binary_operations=binary,
        float_operations=floats,
        operations=None if binary is None or floats is None else binary / 64 + floats,
        # All that is stored in bits of its own goes into either sum as it is.
        compression=compression_ratio(parameters, 0, None if bits is None else bits / FLOAT_BITS),
        speedup=speedup_ratio(products, binary, floats),
    )


def _sum(values: Sequence[int | None]) -> int | None:
    return None if None in values else sum(values)  # type: ignore[arg-type]


def _extras(layer: BinaryLayer, outputs: Sequence[tuple[int, ...]], reading: Reading) -> Extras | None:
    """outputs: of each call the shape. None where the algorithm does not say what its scales are."""
    spatial = [shape[len(shape) - layer.spatial :] for shape in outputs]
    counted = layer.count_scales([max(extents) for extents in zip(*spatial, strict=True)])
    if counted is None:
        return None
    floats, scales = counted
    threshold = getattr(layer, "threshold", None)
    if reading == "equation":
        return Extras(floats + (threshold.numel() if isinstance(threshold, Tensor) else 0), scales)
    shifted = isinstance(layer, algorithms["reactnet"])
    return Extras(max(floats, layer.out_channels) if floats else 0, scales + shifted)


def _reasons(model: nn.Module) -> dict[str, str]:
    try:
        return {layer.name: layer.reason for layer in trainers.binarization_report(model)}
    except ValueError:
        return {}


@dataclass(frozen=True)
class _Product:
    operations: int
    binary: bool


# What leaves a tensor of two values one of two values: moves, and arithmetic with one number, or with one for
# each place of the first dimension, that of the output channels of weights.
_MOVES = {
    *("view", "_unsafe_view", "reshape", "t", "transpose", "permute", "expand", "unsqueeze", "squeeze"),
    *("select", "slice", "clone", "detach", "alias", "contiguous", "_to_copy", "cat", "split", "unbind"),
    *("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d"),
}
_ARITHMETIC = {"add", "sub", "rsub", "mul", "div", "neg"}


class _Run(TorchDispatchMode):
    """Watches one run: the products of each module, and the shapes of what its layers return."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.names = {module: name for name, module in model.named_modules()}
        self.layers: dict[str, nn.Module] = {}
        inside: set[nn.Module] = set()  # parts of a layer, such as what only training needs
        for module, name in self.names.items():
            if isinstance(module, MULTIPLIES) and module not in inside:
                self.layers[name] = module
                inside.update(module.modules())
        self.products: dict[str, list[_Product]] = {}
        self.outputs: dict[str, list[tuple[int, ...]]] = {}
        self.entered: list[str] = [""]
        self.two_valued: dict[int, Tensor] = {}  # held, as another tensor could get the same id

    @contextmanager
    def watching(self) -> Iterator[None]:
        with ExitStack() as stack:
            for module in self.names:
                stack.callback(module.register_forward_pre_hook(self._enter).remove)
                stack.callback(module.register_forward_hook(self._leave).remove)
            with self:
                yield

    def _enter(self, module: nn.Module, args: Any) -> None:
        above = self.entered[-1]
        self.entered.append(above if above in self.layers else self.names[module])

    def _leave(self, module: nn.Module, args: Any, result: Any) -> None:
        self.entered.pop()
        if self.names[module] in self.layers:
            shape = tuple(result.shape) if isinstance(result, Tensor) else ()
            self.outputs.setdefault(self.names[module], []).append(shape)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        name = func._schema.name.removeprefix("aten::").rstrip("_")
        if count := flop_registry.get(func._overloadpacket):
            operations = count(*args, **kwargs, out_val=result) // 2
            operands = tensors[-2:] if name in ("addmm", "baddbmm") else tensors[:2]
            binary = all(id(operand) in self.two_valued for operand in operands)
            self.products.setdefault(self.entered[-1], []).append(_Product(operations, binary))
        elif self._keeps_two_values(name, tensors):
            for leaf in pytree.tree_leaves(result):
                self.two_valued[id(leaf)] = leaf
        return result

    def _keeps_two_values(self, name: str, tensors: list[Tensor]) -> bool:
        if name == "where":
            return all(tensor.dim() == 0 for tensor in tensors[1:])
        wide = [t for t in tensors if name in _MOVES or id(t) in self.two_valued or not self._is_number(t)]
        known = bool(wide) and all(id(tensor) in self.two_valued for tensor in wide)
        if known and name in _ARITHMETIC:
            return len(wide) == 1 and all(t.numel() == 1 or t.dim() == wide[0].dim() for t in tensors)
        return known and name in _MOVES

    @staticmethod
    def _is_number(tensor: Tensor) -> bool:
        return all(extent == 1 for extent in tensor.shape[1:]) and (tensor.dim() > 1 or tensor.numel() == 1)
