"""Weight norm, spectral norm, pruning and other parametrizations: a layer's weight that is computed from
others.

A binary weight is a sign: its length does not matter, and it has no zero. So the computed weight becomes the
parameter, and of a pruned one the values before pruning."""

from typing import Any

from torch import nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


def plain_type(layer: nn.Module) -> type[nn.Module]:
    """The class of a layer without its parametrization, which PyTorch puts into a class of its own."""
    return type(layer).__bases__[0] if parametrize.is_parametrized(layer) else type(layer)


def fold(layer: nn.Module) -> list[str]:
    """Give `layer` plain parameters, in place; return what was folded, in words."""
    folded = []
    for hook in list(layer._forward_pre_hooks.values()):
        if isinstance(hook, WeightNorm):
            remove_weight_norm(layer, hook.name)
            folded.append(f"weight norm of {hook.name}")
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(layer, hook.name)
            folded.append(f"spectral norm of {hook.name}")
        elif isinstance(hook, prune.BasePruningMethod):
            name = hook._tensor_name
            prune.remove(layer, name) if name != "weight" else _restore(layer, name)
            folded.append(f"pruning of {name} (a binary weight has no zero: pruned ones are back)")
    if parametrize.is_parametrized(layer):
        parametrizations: Any = layer.parametrizations
        for name in list(parametrizations):
            kinds = [type(p).__name__.strip("_") for p in parametrizations[name]]
            parametrize.remove_parametrizations(layer, name, leave_parametrized=True)
            folded.append(f"parametrization {' and '.join(kinds)} of {name}")
    return folded


def _restore(layer: nn.Module, name: str) -> None:
    original: Any = layer._parameters[name + "_orig"]
    values = original.data
    prune.remove(layer, name)  # puts the pruned values into the parameter
    original.data = values
