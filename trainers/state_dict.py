"""State dicts, those of other programs too: where they lie in a file, and their weights under the names of a
network."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainers.models import create_model
from trainers.torch_file import CheckpointError, shown, some

# Where programs put their state dict; an average of the weights is taken only for want of the weights.
# fmt: off
KEYS = (
    "state_dict", "model", "model_state_dict", "net", "network", "weights", "ema", "model_ema",
    "state_dict_ema",
)
# fmt: on
# What a network may consist of; weights in other types have to be unpacked by who packed them.
DTYPES = {
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
}
# What wrappers of a module, the whole network or a part of it, put into names.
WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def found_in(path: str | Path, content: dict[str, Any]) -> dict[str, Tensor]:
    """The state dict that a file holds by itself or under a usual key. Raises CheckpointError."""
    return as_state_dict(
        path, next((content[key] for key in KEYS if isinstance(content.get(key), dict)), content)
    )


def without_prefix(path: str | Path, state: dict[str, Tensor], arch: str) -> dict[str, Tensor]:
    """The state dict under the names of the network, which wrappers have put prefixes before.

    A prefix is recognised by what the network calls its parameters. Names that have none of it are left, and
    so is everything where the network's names are there already, or under no or several prefixes.
    Raises CheckpointError.
    """
    state = {
        ".".join(part for part in name.split(".") if part not in WRAPPERS): value
        for name, value in state.items()
    }
    try:
        with torch.device("meta"):
            names = list(create_model(arch).state_dict())
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be read as a state dict. {error}") from error
    wanted = [name for name in names if not name.endswith(".num_batches_tracked")]
    prefixes = {""} | {
        name.removesuffix(known)
        for known in wanted[:3] + wanted[-3:]
        for name in state
        if name.endswith("." + known)
    }
    found = {prefix: sum(prefix + name in state for name in wanted) for prefix in prefixes}
    if found[""] < len(wanted):
        whole = [repr(prefix) for prefix in sorted(found) if found[prefix] == len(wanted)]
        if len(whole) > 1:
            raise CheckpointError(
                f"{path} holds several networks, under the prefixes {', '.join(whole)}; save one alone."
            )
    prefix = max(found, key=lambda prefix: (found[prefix], prefix == ""))
    if prefix:
        averaged = {"n_averaged"}  # the counter of torch.optim.swa_utils.AveragedModel
        if other := [name for name in state if not name.startswith(prefix) and name not in averaged]:
            raise CheckpointError(
                f"{path} holds a {arch} under the prefix {prefix!r}, and besides it {some(other)}; "
                "save the state dict of the network alone."
            )
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    for name in names:  # files from before PyTorch 0.4.1 do not count batches
        if name.endswith(".num_batches_tracked"):
            state.setdefault(name, torch.zeros((), dtype=torch.long))
    return state


def as_state_dict(path: str | Path, state: object) -> dict[str, Tensor]:
    """Tensors by name, with all the numbers that their shapes promise. Raises CheckpointError."""
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"{path} holds no weights: its state dict is missing or empty.")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path} is no state dict: its {shown(name)} is a {type(value).__name__}, not a tensor."
            )
        if value.dtype not in DTYPES:
            raise CheckpointError(
                f"{path} has numbers of type {value.dtype} in {shown(name)}, which no network here has."
            )
        # A view of few numbers can have any shape, and a copy of it any size.
        dense = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
        if not dense or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise CheckpointError(
                f"{path} does not hold all the numbers of its {shown(name)}, as a dense tensor would."
            )
    return state
