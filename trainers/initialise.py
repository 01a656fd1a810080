"""Starting a binarized network from the float one."""

import warnings
from collections.abc import Mapping

from torch import Tensor, nn


def initialise(model: nn.Module, weights: nn.Module | Mapping[str, Tensor]) -> None:
    """Copy the weights of a float network, or its state dict, into `model`, which is its binarized twin.

    What only the algorithm has (thresholds, learned scales) keeps its values.

    Raises:
        ValueError: the two are not of the same architecture and sizes; the message names a weight. `model` is
            then as it was, unless it lacks one.
    """
    state = dict(weights.state_dict() if isinstance(weights, nn.Module) else weights)
    own = model.state_dict()
    for name, value in state.items():
        if name not in own:
            raise ValueError(f"The weights are of another network: this one has no {name}.")
        if value.shape != own[name].shape:
            raise ValueError(
                f"The weights are of another network: their {name} has the shape {tuple(value.shape)}, but "
                f"should have {tuple(own[name].shape)}."
            )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The weights that are loaded are those of a float network")
        missing = model.load_state_dict(state, strict=False).missing_keys
    if missing:
        raise ValueError(f"The weights are of another network: they have no {missing[0]}.")
