"""Turning a float network into a binary one, and moving its schedules."""

from collections.abc import Iterable

from torch import nn

from trainers.algorithms import algorithms
from trainers.operator import VARIANTS, BinaryLayer
from trainers.registry import unknown_name

FLOAT_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)


def list_algorithms() -> list[str]:
    """The names that `binarize` takes: "fp32", which changes nothing, and the binarization algorithms."""
    return ["fp32", *algorithms.names()]


def binarize(
    model: nn.Module, algorithm: str = "reactnet", variant: str = "paper", keep: Iterable[str] | None = None
) -> nn.Module:
    """Swap the Conv1d, Conv2d and Linear layers of `model` for binary ones, in place, and return the model.

    The binary layers take over the parameters (the same tensors under the same names). Subclasses of the
    three keep their own forward and stay as they are. What is binary already stays as it is.

    Args:
        model: any module; if it is itself one of the three layers, its binary counterpart is returned.
        algorithm: one of `list_algorithms()`.
        variant: "paper", the formulas of the BiBench paper, or "released", those of the code of its authors.
        keep: names of modules that stay float, with all that is in them. Left out, these are the first
            convolution and the last linear layer, or none if the model is itself a layer. [] keeps none.

    Raises:
        ValueError: an unknown algorithm, variant or name in `keep`; a sentence with the nearest names.
    """
    if algorithm not in list_algorithms():
        raise unknown_name("algorithm", algorithm, list_algorithms())
    if variant not in VARIANTS:
        raise unknown_name("variant", variant, VARIANTS)
    kept = _default_keep(model) if keep is None else [keep] if isinstance(keep, str) else list(keep)
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in kept:
        if name not in modules:
            raise unknown_name("module to keep", name, [known for known in modules if known])
    if algorithm == "fp32":
        return model
    kept_modules = {part for name in kept for part in modules[name].modules()}
    swapped: dict[nn.Module, nn.Module] = {}  # a layer that is used at two places stays one layer
    for name, module in modules.items():
        if type(module) in FLOAT_LAYERS and module not in kept_modules:
            if module not in swapped:
                swapped[module] = algorithms[algorithm](module, variant)
            if not name:
                return swapped[module]
            parent, _, attribute = name.rpartition(".")
            setattr(modules[parent], attribute, swapped[module])
    return model


def _default_keep(model: nn.Module) -> list[str]:
    layers = {
        name: module.spatial if isinstance(module, BinaryLayer) else module.weight.dim() - 2
        for name, module in model.named_modules()
        if name and isinstance(module, (BinaryLayer, *FLOAT_LAYERS))
    }
    convolutions = [name for name, spatial in layers.items() if spatial]
    linear = [name for name, spatial in layers.items() if not spatial]
    return convolutions[:1] + linear[-1:]


def set_progress(model: nn.Module, progress: float) -> None:
    """Advance the schedules of the binary layers (ReCU's tau; FDA's n and kappa).

    Args:
        model: a binarized network; one without schedules is left as it is.
        progress: what part of the training is done, from 0 to 1; call it once a step or once an epoch.
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"The progress of a training goes from 0 to 1, but is {progress}.")
    for module in model.modules():
        if isinstance(module, BinaryLayer):
            module.set_progress(progress)
