"""PyTorch files: a program of `torch.export.save`, or a checkpoint of `trainers`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from bibench_tvm.importer.from_torch.pt2_safety import quiet, refuse_unsafe_pt2
from bibench_tvm.importer.imported import ImportFailed
from bibench_tvm.importer.limits import refuse_growth


def read_pt2(path: Path) -> ExportedProgram:
    """Raises ImportFailed if the file is damaged, or if reading it would run code from it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImportFailed(f"{path} cannot be read: {error.strerror or error}.") from error
    refuse_unsafe_pt2(data, path)
    try:
        with quiet():
            program = torch.export.load(io.BytesIO(data))
    except Exception as error:
        raise ImportFailed(
            f"{path} cannot be read as a torch.export program by PyTorch {torch.__version__}: it is damaged, "
            "or of another version. Write it again with torch.export.save."
        ) from error
    tensors = [*program.state_dict.values(), *program.constants.values()]
    grown = sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))
    refuse_growth("The parameters and buffers", grown, len(data), path)
    return program


def read_checkpoint(
    path: str | Path, arch: str | None, algorithm: str | None, variant: str | None
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The network, and what the checkpoint says of it, which may be given where it does not. Raises
    ImportFailed."""
    import trainers

    try:
        return trainers.load_checkpoint(path, arch=arch, algorithm=algorithm, variant=variant)
    except trainers.CheckpointError as error:
        raise ImportFailed(str(error)) from error
