"""What goes into a network: a tuple of its forward's arguments, a dictionary of them by name, or one argument
of any other kind."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree


def arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and the named arguments of a forward."""
    if isinstance(inputs, dict):
        return (), inputs
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}


def call(model: nn.Module, inputs: Any) -> Any:
    """What `model` makes of `inputs`."""
    args, kwargs = arguments(inputs)
    return model(*args, **kwargs)


def samples_of(inputs: Any) -> int:
    """How many samples a batch has."""
    return next(len(leaf) for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor))


def example_inputs_of(model: nn.Module) -> Any:
    """A batch of one as `model.example_inputs` has it, where the parameters are and floats in their type.

    None where the network does not say what it takes.
    """
    with torch.device("cpu"):  # a network is built on "meta" where its weights are to come from a file
        inputs = getattr(model, "example_inputs", None)
    like = next(model.parameters(), torch.zeros(()))

    def place(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if leaf.is_meta:  # made while the network was built there
            leaf = torch.zeros(leaf.shape, dtype=leaf.dtype, device="cpu")
        both = leaf.is_floating_point() and like.is_floating_point()
        return leaf.to(like) if both else leaf.to(like.device)

    return pytree.tree_map(place, inputs)


def describe(inputs: Any) -> str:
    """The shapes of one sample, without the batch, and the types that are not float32: "(64) int64"."""
    parts = []
    for path, leaf in pytree.tree_flatten_with_path(arguments(inputs))[0]:
        if isinstance(leaf, Tensor):
            name = "".join(f"{key.key} " for key in path if isinstance(key, pytree.MappingKey))
            kind = "" if leaf.dtype is torch.float32 else f" {str(leaf.dtype).removeprefix('torch.')}"
            parts.append(f"{name}{tuple(leaf.shape[1:])}{kind}")
    return ", ".join(parts)
