"""Where the first number that is none comes from."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from trainers.inputs import call


def finite(values: Any) -> bool:
    """Whether all floats in any structure are finite."""
    return all(
        bool(torch.isfinite(leaf).all())
        for leaf in pytree.tree_leaves(values)
        if isinstance(leaf, Tensor) and leaf.is_floating_point()
    )


def blame(model: nn.Module, inputs: Any) -> str:
    """What first gives NaN or infinity when `model` computes `inputs`, in words."""
    if not finite(inputs):
        return "the inputs of the batch have values that are not numbers"
    for name, parameter in model.named_parameters():
        if not finite(parameter):
            return f"the parameter {name} has values that are not numbers"
    found: list[str] = []
    names = {module: name for name, module in model.named_modules()}

    def look(module: nn.Module, args: Any, output: Any) -> None:
        if not found and not finite(output) and finite(args):
            found.append(names[module])

    handles = [module.register_forward_hook(look) for module in names if not [*module.children()]]
    try:
        with torch.no_grad():
            outputs = call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    if found:
        return f"the layer {found[0]} gives values that are not numbers"
    return (
        "the network's outputs are numbers, so it is the loss itself"
        if finite(outputs)
        else ("an operation between the layers gives values that are not numbers")
    )


def bad_gradient(model: nn.Module) -> str | None:
    """The first parameter whose gradient has values that are not numbers."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not finite(parameter.grad):
            return name
    return None
