"""Checkpoints: the weights of a network with what is needed to build it again.

A checkpoint is a file of `torch.save` with the dictionary

    {"format": "bibench_tvm.checkpoint", "version": 2, "arch", "sizes", "algorithm", "variant",
     "hyperparameters", "keep", "extra", "state_dict"}

Version 1, of image networks alone, had "num_classes", "in_channels" and "input_shape" in place of "sizes",
and no "hyperparameters"; it is read too. A file of a plain state dict is read too, if the caller says what
network it belongs to: by itself or under a key such as "state_dict" or "model", with or without the prefixes
that wrappers put before the names ("module.", "model.", "_orig_mod."). No file is trusted: only tensors and
plain values are unpickled, and the network takes memory only once its shapes match those in the file."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils import _pytree as pytree

from trainers.convert import binarize, floats_of
from trainers.inputs import example_inputs_of
from trainers.models import create_model, sizes_by_weights
from trainers.state_dict import as_state_dict, found_in, without_prefix
from trainers.torch_file import LONGEST, CheckpointError, load_untrusted, save_atomically, shown, some

CHECKPOINT = "checkpoint.pt"  # what a training calls its result
FORMAT = "bibench_tvm.checkpoint"
VERSION = 2
METADATA = {
    "arch": str,
    "sizes": dict,
    "algorithm": str,
    "variant": str,
    "hyperparameters": dict,
    "keep": (list, tuple, type(None)),
    "extra": dict,
}
METADATA_1 = {key: kind for key, kind in METADATA.items() if key not in ("sizes", "hyperparameters")} | {
    "num_classes": int,
    "in_channels": int,
    "input_shape": (list, tuple),
}


_SPARE = 20  # times the tensors of a file: so many parameters may be made while its network is built
_MOST_INPUTS = 1 << 28  # numbers in a batch of one


def save_checkpoint(
    path: str | Path,
    model: nn.Module,
    *,
    arch: str,
    sizes: Mapping[str, Any],
    algorithm: str,
    variant: str = "paper",
    hyperparameters: Mapping[str, Any] | None = None,
    keep: Iterable[str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write `model` and what `load_checkpoint` needs to build it again; the file appears whole or not at all.

    Args:
        path: the file; its folder is made.
        model: what `create_model(arch, **sizes)` and `binarize` with the rest of these built.
        keep: what was given to `binarize`. The file names what stayed float also where nothing was given.
        extra: plain values about the training, such as its accuracy.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "arch": arch,
        "sizes": dict(sizes),
        "algorithm": algorithm,
        "variant": variant,
        "hyperparameters": dict(hyperparameters or {}),
        "keep": floats_of(model) if keep is None else list(keep),
        "extra": dict(extra or {}),
        "state_dict": {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()},
    }
    save_atomically(path, content)


def load_checkpoint(
    path: str | Path, *, arch: str | None = None, algorithm: str | None = None, variant: str | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """Build the network of a checkpoint with its weights.

    Args:
        path: a file of `save_checkpoint`, or of a plain state dict.
        arch, algorithm, variant: needed for a plain state dict (algorithm "fp32" and variant "paper" if
            left out); for a checkpoint they have to agree with it.

    Returns:
        The model in evaluation mode, and the checkpoint's metadata: everything but the weights, as a file of
        version 2 has it.

    Raises:
        CheckpointError: the file is missing, damaged, not a checkpoint, or does not fit the network.
    """
    content = load_untrusted(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, but a checkpoint is a dictionary.")
    asked = {"arch": arch, "algorithm": algorithm, "variant": variant}
    if "format" in content:
        metadata, state = _read_checkpoint(path, content, asked)
    else:
        metadata, state = _read_state_dict(path, content, asked)
    try:
        with torch.device("meta"), _no_more_parameters_than(_SPARE * len(state)):
            model = create_model(metadata["arch"], **metadata["sizes"])
            _refuse_huge_inputs(model)
            model = binarize(
                model,
                metadata["algorithm"],
                metadata["variant"],
                metadata["keep"],
                hyperparameters=metadata["hyperparameters"],
            )
    except ValueError as error:
        raise CheckpointError(f"{path} describes a network that cannot be built. {error}") from error
    except Exception as error:  # sizes that make no sense fail in PyTorch, anyhow
        raise CheckpointError(
            f"{path} describes a network that cannot be built, with the sizes {_listed(metadata['sizes'])} "
            f"({type(error).__name__})."
        ) from error
    _refuse_mismatch(path, model, state, metadata)
    _refuse_other_input(path, model, content)
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    _refuse_bad_numbers(path, state)
    model.load_state_dict(state, assign=True)
    return model.eval(), metadata


def weights_digest(model: nn.Module) -> str:
    """Of all numbers of a network with their names: 12 hexadecimal digits."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        whole = value.detach().cpu().contiguous()
        found.update(f"{name} {whole.dtype} {tuple(whole.shape)}".encode())
        found.update(whole.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()[:12]


def _read_checkpoint(
    path: str | Path, content: dict[str, Any], asked: dict[str, str | None]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not isinstance(content["format"], str) or content["format"] != FORMAT:
        raise CheckpointError(
            f"{path} is of the format {shown(content['format'])}, but should be of {FORMAT!r}."
        )
    version = content.get("version")
    if type(version) is not int or version not in (1, VERSION):
        raise CheckpointError(
            f"{path} has version {shown(version)} of its format, but this program reads 1 and {VERSION}."
        )
    for key, kind in (METADATA_1 if version == 1 else METADATA).items():
        if not isinstance(content.get(key, ...), kind):  # type: ignore[arg-type]
            what = f"a {type(content[key]).__name__}" if key in content else "missing"
            raise CheckpointError(f"{path} is not a whole checkpoint: its {key!r} is {what}.")
    for key, value in asked.items():
        if value is not None and value != content[key]:
            raise CheckpointError(f"{path} holds a network with {key} {shown(content[key])}, not {value!r}.")
    if not all(isinstance(name, str) for name in content["keep"] or ()):
        raise CheckpointError(f"{path} has a 'keep' that is not a list of names.")
    metadata = {**content, **_from_version_1(path, content)} if version == 1 else content
    for key in ("sizes", "hyperparameters"):
        if not all(isinstance(name, str) for name in metadata[key]):
            raise CheckpointError(f"{path} has a {key!r} whose keys are not all names.")
    return {key: metadata[key] for key in METADATA}, as_state_dict(path, content.get("state_dict"))


def _from_version_1(path: str | Path, content: dict[str, Any]) -> dict[str, Any]:
    """What a file of version 2 would have in place of what only one of version 1 has."""
    if not all(type(size) is int for size in content["input_shape"]):
        raise CheckpointError(f"{path} has an 'input_shape' that is not a list of sizes.")
    return {"sizes": {key: content[key] for key in ("num_classes", "in_channels")}, "hyperparameters": {}}


def _refuse_other_input(path: str | Path, model: nn.Module, content: dict[str, Any]) -> None:
    """A file of version 1 says what shape an image has."""
    if content.get("version") != 1:
        return
    given, (image,) = list(content["input_shape"]), example_inputs_of(model)
    if given != list(image.shape[1:]):
        raise CheckpointError(
            f"{path} has the input shape {shown(given)}, but a {shown(content['arch'])} has "
            f"{list(image.shape[1:])}."
        )


def _refuse_huge_inputs(model: nn.Module) -> None:
    """While they are made on "meta", where they take no memory: no weight of the file limits their sizes."""
    try:
        leaves = pytree.tree_leaves(getattr(model, "example_inputs", None))
    except Exception:  # what cannot be made there
        return
    if sum(leaf.numel() for leaf in leaves if isinstance(leaf, Tensor)) > _MOST_INPUTS:
        raise ValueError("Its inputs would be larger than any that a network here takes.")


@contextmanager
def _no_more_parameters_than(most: int) -> Iterator[None]:
    """Stop a network of so many layers that building it would not end; few bytes of a file can ask for it."""
    count = 0

    def register(module: nn.Module, name: str, parameter: Tensor | None) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise ValueError("It would have many times more parameters than there are weights.")

    handle = register_module_parameter_registration_hook(register)
    try:
        yield
    finally:
        handle.remove()


def _read_state_dict(
    path: str | Path, content: dict[str, Any], asked: dict[str, str | None]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    state = found_in(path, content)
    if asked["arch"] is None:
        raise CheckpointError(
            f"{path} is a plain state dict, which does not say what network it is; give its arch (--arch)."
        )
    state = without_prefix(path, state, asked["arch"])
    metadata = {
        "arch": asked["arch"],
        "sizes": sizes_by_weights(asked["arch"], state),
        "algorithm": asked["algorithm"] or "fp32",
        "variant": asked["variant"] or "paper",
        "hyperparameters": {},
        "keep": None,
        "extra": {},
    }
    return metadata, state


def _refuse_bad_numbers(path: str | Path, state: dict[str, Tensor]) -> None:
    bad = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if bad:
        raise CheckpointError(f"{path} has values that are NaN or infinite in {some(bad)}.")


def _refuse_mismatch(
    path: str | Path, model: nn.Module, state: dict[str, Tensor], metadata: dict[str, Any]
) -> None:
    network = f"{metadata['arch']} with algorithm {metadata['algorithm']} ({metadata['variant']})"
    expected = model.state_dict()
    if missing := [name for name in expected if name not in state]:
        plain = (".weight", ".bias", ".running_mean", ".running_var")
        other = not any(name.endswith(plain) for name in missing)
        hint = " Is it of another algorithm, or of the float network (fp32)?" if other else ""
        raise CheckpointError(f"{path} is not of a {network}: it has no {some(missing)}.{hint}")
    if surplus := [name for name in state if name not in expected]:
        raise CheckpointError(f"{path} is not of a {network}, which has no {some(surplus)}.")
    for name, value in expected.items():
        if value.is_floating_point() != state[name].is_floating_point():
            raise CheckpointError(
                f"{path} has numbers of type {state[name].dtype} in {name}, not {value.dtype}."
            )
        if value.shape != state[name].shape:
            raise CheckpointError(
                f"{path} is not of a {network} with the sizes {_listed(metadata['sizes'])}: "
                f"its {name} has the shape {tuple(state[name].shape)}, but should have {tuple(value.shape)}."
            )


def _listed(sizes: Mapping[str, Any]) -> str:
    parts = [f"{name[:LONGEST]} {shown(value)}" for name, value in [*sizes.items()][:8]]
    return ", ".join(parts) or "of its own"
