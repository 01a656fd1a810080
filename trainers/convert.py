"""Turning a float network into a binary one, and moving its schedules."""

import dataclasses
import logging
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.utils import _pytree as pytree

from trainers.algorithms import algorithms
from trainers.flow import MULTIPLIES, Flow, heads_by_size, trace
from trainers.inputs import example_inputs_of
from trainers.operator import VARIANTS, BinaryLayer, Hyperparameters
from trainers.options import check_options
from trainers.registry import unknown_name
from trainers.reparametrization import fold, plain_type

FLOAT_LAYERS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear)
_REPORT = "_binarization"
_logger = logging.getLogger(__name__)


class LayerReport(NamedTuple):
    """A layer of a network, whether it is binary, and if not why."""

    name: str
    binary: bool
    reason: str


def list_algorithms() -> list[str]:
    """The names that `binarize` takes: "fp32", which changes nothing, and the binarization algorithms."""
    return ["fp32", *algorithms.names()]


def list_hyperparameters(algorithm: str) -> dict[str, Any]:
    """The hyper-parameters of an algorithm, with their defaults."""
    return {} if algorithm == "fp32" else dataclasses.asdict(algorithms[algorithm].hyperparameters_type())


def binarize(
    model: nn.Module,
    algorithm: str = "reactnet",
    variant: str = "paper",
    keep: Iterable[str] | None = None,
    example_inputs: Any = None,
    hyperparameters: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Swap the Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d and Linear layers of `model` for binary ones,
    in place, and return the model.

    The binary layers take over the parameters (the same tensors under the same names). Weight norm, spectral
    norm, pruning and other parametrizations are folded into them, with a warning. Subclasses of the three
    keep their own forward and stay as they are, and so does `nn.MultiheadAttention`. What is binary already
    stays as it is. `binarization_report` lists all layers; the list is logged too, at the level INFO.

    A ReLU whose result a binary layer takes the sign of (all +1) becomes a Hardtanh, with a warning, unless
    the algorithm has learned thresholds. Where it is a function or the like, and cannot be replaced, that is
    said.

    Args:
        model: any module; if it is itself one of the three layers, its binary counterpart is returned.
        algorithm: one of `list_algorithms()`.
        variant: "paper", the formulas of the BiBench paper, or "released", those of the code of its authors.
        keep: names of modules that stay float, with all that is in them. Left out, these are what the model
            names in its attribute `stays_float`; where it has none, the first convolution and every head (a
            layer whose result reaches an output with no other layer after it), or none if the model is itself
            a layer. [] keeps none.
        example_inputs: the forward's argument, or a tuple or dictionary of them. Without them heads are found
            by symbolic tracing; where a network branches on values and cannot be traced so, on the model's
            own `example_inputs`, or else by the sizes of its layers.
        hyperparameters: some of `list_hyperparameters(algorithm)`, by name; the others keep their defaults.

    Raises:
        ValueError: an unknown algorithm, variant, hyper-parameter or name in `keep`, a sentence with the
            nearest names or all; a hyper-parameter of another type or that makes no sense; a lazy
            layer whose sizes are not known yet; or nothing that could be binarized, with the reason per
            layer.
    """
    if algorithm not in list_algorithms():
        raise unknown_name("algorithm", algorithm, list_algorithms())
    if variant not in VARIANTS:
        raise unknown_name("variant", variant, VARIANTS)
    known = list_hyperparameters(algorithm)
    given = check_options(algorithm, "hyper-parameter", hyperparameters or {}, known)
    modules = dict(model.named_modules(remove_duplicate=False))
    why_kept = "it is named in keep"
    if keep is None and (own := getattr(model, "stays_float", None)) is not None:
        keep, why_kept = own, "the network says that it stays float"
    named = None if keep is None else [keep] if isinstance(keep, str) else list(keep)
    for name in named or []:
        if name not in modules:
            raise unknown_name("module to keep", name, [known for known in modules if known])
    if algorithm == "fp32":
        return model
    kept = {part: why_kept for name in named or [] for part in modules[name].modules()}
    _refuse_lazy(modules, kept)
    if type(model) in FLOAT_LAYERS or isinstance(model, BinaryLayer):
        named, flow = named or [], Flow()
    else:
        traced = trace(model, example_inputs)
        if isinstance(traced, str) and example_inputs is None:
            example = example_inputs_of(model)
            traced = traced if example is None else trace(model, _with_both_signs(example))
        if named is None:
            for name, why in _default_keep(modules, traced).items():
                kept |= dict.fromkeys(modules[name].modules(), why)
        flow = Flow() if isinstance(traced, str) else traced
    reasons = {
        name: _reason(name, module, kept, modules, flow) for name, module in _multiplying(modules).items()
    }
    report = [LayerReport(name, not reason, reason) for name, reason in reasons.items()]
    if not any(layer.binary for layer in report):
        raise ValueError(_nothing(model, report))
    _warn_unreachable(report, modules, kept, flow)
    settings = [algorithms[algorithm].hyperparameters_type(**given)] if known else []
    swapped = _swap(modules, [layer.name for layer in report if layer.binary], algorithm, variant, settings)
    _mend_rectifiers(modules, swapped, flow)
    model = swapped.get(model, model)
    for module in modules.values():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0  # else its fused kernel computes it in evaluation, in float
    setattr(model, _REPORT, report)
    for layer in report:
        _logger.info(
            "%s: %s", layer.name or "the model", "binary" if layer.binary else f"float, as {layer.reason}"
        )
    return model


def binarization_report(model: nn.Module) -> list[LayerReport]:
    """All layers with a product in the network that `binarize` returned, binary or float with the reason."""
    if not hasattr(model, _REPORT):
        raise ValueError(f"This {type(model).__name__} is not what binarize returned, so it has no report.")
    return list(getattr(model, _REPORT))


def floats_of(model: nn.Module) -> list[str] | None:
    """The names with which `keep` makes this network again; None for one that `binarize` did not change."""
    report = getattr(model, _REPORT, None)
    return None if report is None else [layer.name for layer in report if not layer.binary]


def set_progress(model: nn.Module, progress: float, epochs: int | None = None) -> None:
    """Advance the schedules of the binary layers (ReCU's tau; FDA's n and kappa).

    Args:
        model: a binarized network; one without schedules is left as it is.
        progress: what part of the training is done, from 0 to 1; call it once a step or once an epoch.
        epochs: how many the training has, for the schedule of the released FDA, which counts them.
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"The progress of a training goes from 0 to 1, but is {progress}.")
    for module in model.modules():
        if isinstance(module, BinaryLayer):
            module.set_progress(progress, epochs)


def _multiplying(modules: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """The layers with a product, each once, and whatever has a matrix of weights of its own."""
    found: dict[nn.Module, str] = {}
    for name, module in modules.items():
        matrices = [
            key for key, p in module.named_parameters(recurse=False) if "weight" in key and p.dim() > 1
        ]
        idle = isinstance(module, (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm))
        if (isinstance(module, MULTIPLIES) or (matrices and not idle)) and not _in_binary(name, modules):
            found.setdefault(module, name)
    return {name: module for module, name in found.items()}


def _in_binary(name: str, modules: dict[str, nn.Module]) -> bool:
    parts = name.split(".") if name else []
    return any(isinstance(modules[".".join(parts[:i])], BinaryLayer) for i in range(len(parts)))


def _reason(
    name: str, module: nn.Module, kept: dict[nn.Module, str], modules: dict[str, nn.Module], flow: Flow
) -> str:
    """Why the layer stays float, or nothing where it is binary or will be."""
    if isinstance(module, BinaryLayer):
        return ""
    if module in kept:
        return kept[module]
    parent = modules[name.rpartition(".")[0]] if name else None
    if isinstance(parent, nn.MultiheadAttention):
        return "nn.MultiheadAttention hands its weight to a function and never calls it"
    if isinstance(module, nn.MultiheadAttention):
        return (
            "its projections are parameters for a function; write them as nn.Linear layers to binarize them"
        )
    kind = plain_type(module)
    if kind not in FLOAT_LAYERS:
        base = next((known.__name__ for known in FLOAT_LAYERS if isinstance(module, known)), None)
        if base:
            return f"it is a {kind.__name__}, a subclass of {base} with a forward of its own"
        return f"there is no binary {kind.__name__}"
    if flow.called and name in flow.read:
        return f"its weight is read by {flow.read[name]}, and the layer is not called"
    weight = module._parameters.get("weight")
    if weight is None and plain_type(module) is type(module) and not _foldable(module):
        return "its weight is not a parameter of its own but computed by a hook"
    return ""


def _foldable(module: nn.Module) -> bool:
    return any(key in module._parameters for key in ("weight_v", "weight_orig"))


def _refuse_lazy(modules: dict[str, nn.Module], kept: dict[nn.Module, str]) -> None:
    for name, module in modules.items():
        parameters = module.parameters(recurse=False)
        if module not in kept and any(isinstance(p, UninitializedParameter) for p in parameters):
            raise ValueError(
                f"{name or 'The model'} is a {type(module).__name__}, which has no sizes before its first "
                "call; run the network once on an example, and binarize it then."
            )


def _default_keep(modules: dict[str, nn.Module], traced: Flow | str) -> dict[str, str]:
    """The names that stay float where nobody says so, and why."""
    layers = {
        name: module
        for name, module in modules.items()
        if name and isinstance(module, (BinaryLayer, *FLOAT_LAYERS)) and not _in_binary(name, modules)
    }
    if isinstance(traced, str):
        _logger.info(
            "Heads are found by the sizes of the layers, as the network cannot be traced: %s", traced
        )
        order = list(layers)
        heads = heads_by_size({name: _sizes(module) for name, module in layers.items()})
        why = "no later layer takes its result, by their sizes (give example_inputs to be sure)"
    else:
        order = [name for name in traced.called if name in layers]
        heads = traced.heads()
        why = "it is a head: its result reaches an output with no other layer after it"
    convolutions = [name for name in order if _sizes(layers[name])[2]]
    return dict.fromkeys(convolutions[:1], "it is the first convolution") | {
        name: why for name in layers if name in heads
    }


def _sizes(layer: nn.Module) -> tuple[int, int, int]:
    """Inputs, outputs and spatial dimensions."""
    if isinstance(layer, BinaryLayer):
        return layer.in_channels, layer.out_channels, layer.spatial
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features, 0
    return layer.in_channels, layer.out_channels, len(layer.kernel_size)  # type: ignore[return-value, arg-type]


def _nothing(model: nn.Module, report: list[LayerReport]) -> str:
    if not report:
        kinds = "Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d or Linear"
        return f"There is nothing to binarize: {type(model).__name__} has no {kinds} layer."
    layers = _some([f"{layer.name or 'the model'} stays float, as {layer.reason}" for layer in report])
    return (
        f"There is nothing to binarize: {layers}. What is to stay float is named in keep; [] keeps nothing."
    )


def _some(parts: list[str]) -> str:
    return "; ".join(parts[:8]) + (f"; and {len(parts) - 8} more" if len(parts) > 8 else "")


def _warn(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=4)  # where binarize was called


def _warn_unreachable(
    report: list[LayerReport], modules: dict[str, nn.Module], kept: dict[nn.Module, str], flow: Flow
) -> None:
    floats = [layer for layer in report if not layer.binary and modules[layer.name] not in kept]
    if floats:
        _warn(f"These layers stay float: {_some([f'{layer.name}: {layer.reason}' for layer in floats])}.")
    idle = [layer.name for layer in report if layer.binary and flow.called and layer.name not in flow.before]
    idle += [layer.name for layer in report if layer.binary and layer.name in flow.tied]
    if idle := [name for name in idle if not isinstance(modules[name], BinaryLayer)]:
        _warn(f"The forward was not seen to call these layers, which become binary: {_some(idle)}.")


def _with_both_signs(inputs: Any) -> Any:
    """Noise for those that are all 0, which say nothing of the signs that a layer sees."""

    def fill(leaf: Any) -> Any:
        idle = isinstance(leaf, Tensor) and leaf.is_floating_point() and not leaf.is_meta and not leaf.any()
        return torch.randn_like(leaf) if idle else leaf

    with torch.random.fork_rng(devices=[]):
        return pytree.tree_map(fill, inputs)


def _swap(
    modules: dict[str, nn.Module],
    names: list[str],
    algorithm: str,
    variant: str,
    settings: list[Hyperparameters],
) -> dict[nn.Module, nn.Module]:
    """Put binary layers in the places of the named ones; return what replaced what."""
    swapped: dict[nn.Module, nn.Module] = {}  # a layer that is used at two places stays one layer
    folded: list[str] = []
    for name in names:
        layer = modules[name]
        if isinstance(layer, BinaryLayer):
            continue
        folded += [f"{what} ({name})" if name else what for what in fold(layer)]
        binary = algorithms[algorithm](layer, variant, *settings)  # type: ignore[arg-type]
        binary.name = name
        binary._forward_pre_hooks.update(layer._forward_pre_hooks)
        binary._forward_pre_hooks_with_kwargs.update(layer._forward_pre_hooks_with_kwargs)
        binary._forward_hooks.update(layer._forward_hooks)
        binary._forward_hooks_with_kwargs.update(layer._forward_hooks_with_kwargs)
        swapped[layer] = binary
    for name, module in modules.items():
        if name and module in swapped:
            parent, _, attribute = name.rpartition(".")
            setattr(modules[parent], attribute, swapped[module])
    if folded:
        _warn(
            f"Folded into the weights that are binarized: {_some(folded)}. These are new parameters; give "
            "them to the optimizer."
        )
    return swapped


def _mend_rectifiers(modules: dict[str, nn.Module], swapped: dict[nn.Module, nn.Module], flow: Flow) -> None:
    """Make a ReLU before a binary layer a Hardtanh, as all signs of its result are +1; say what is left."""
    mended, left = [], []
    for layer, causes in flow.rectified.items():
        binary = swapped.get(modules.get(layer))  # type: ignore[arg-type]
        if not isinstance(binary, BinaryLayer) or binary.takes_rectified():
            continue
        for cause in sorted(causes):
            rectifier = modules.get(cause)
            if type(rectifier) in (nn.ReLU, nn.ReLU6):
                hardtanh = nn.Hardtanh(inplace=rectifier.inplace).train(rectifier.training)  # type: ignore[union-attr, arg-type]
                for name, module in list(modules.items()):
                    if module is rectifier:
                        parent, _, attribute = name.rpartition(".")
                        setattr(modules[parent], attribute, hardtanh)
                        modules[name] = hardtanh
                        mended.append(name)
            elif not isinstance(rectifier, nn.Hardtanh):
                left.append(f"{layer} (after {cause})")
    for name, module in modules.items():
        if isinstance(module, (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)):
            binary = module.linear2
            rectified = module.activation is F.relu or isinstance(module.activation, nn.ReLU)
            if rectified and isinstance(binary, BinaryLayer) and not binary.takes_rectified():
                module.activation = F.hardtanh
                mended.append(f"{name}.activation".lstrip("."))
    if mended:
        _warn(
            "After a ReLU all signs are +1, and a binary layer's output does not depend on its input. "
            f"Replaced by Hardtanh: {_some(mended)}."
        )
    if left:
        _warn(
            "The input of these binary layers is never negative, so all its signs are +1 and the output "
            f"does not depend on it: {_some(left)}. Use Hardtanh or a normalisation, or keep them float."
        )
