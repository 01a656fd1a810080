"""Which network is meant: a file, a live module, fresh weights by name, or the bundled network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bibench_tvm.artifact.manifest import Manifest
from bibench_tvm.cli.errors import UsageError
from bibench_tvm.cli.images import load_images
from bibench_tvm.importer import Imported, import_model, parse_input_shapes
from bibench_tvm.importer.bundled import IMAGES, NETWORK

Shapes = Mapping[str | None, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network before it is imported: what `import_model` takes, and what is known of it besides."""

    model: Any  # a module, an exported program, or the path of a file
    example_inputs: Any = None
    input_shapes: Shapes | None = None
    arch: str | None = None  # of a checkpoint that does not say
    algorithm: str | None = None  # likewise; of a module, what its layers may not say
    variant: str | None = None
    name: str | None = None
    images: tuple[np.ndarray, np.ndarray] | None = None  # that it comes with, and the class of each

    @property
    def file(self) -> Path | None:
        return Path(self.model) if isinstance(self.model, (str, Path)) else None

    def load(self, *, float32: bool = False) -> Imported:
        """See `import_model`."""
        return import_model(
            self.model,
            example_inputs=self.example_inputs,
            input_shapes=self.input_shapes,
            arch=self.arch,
            algorithm=self.algorithm if self.file else None,
            variant=self.variant,
            float32=float32,
        )

    def title(self, imported: Imported) -> str:
        """What it is called."""
        return self.name or imported.arch or (self.file.stem if self.file else type(self.model).__name__)


def named(
    model: Path | None,
    checkpoint: Path | None,
    arch: str | None,
    algorithm: str | None,
    variant: str | None,
    input_shape: Sequence[str],
    trained: bool = False,
) -> Network:
    """What the options of a command say; `trained` asks for the network of the zoo.

    Raises UsageError where they contradict one another, ValueError where there is no such network."""
    if model and checkpoint:
        raise UsageError("MODEL and --checkpoint name the same thing; give one of them.")
    shapes = parse_input_shapes(input_shape)
    file = model or checkpoint
    if trained:
        if file or arch is None or variant:
            raise UsageError("--pretrained goes with --arch and --algorithm, and with no file or --variant.")
        from trainers.pretrained import pretrained

        file = pretrained(arch, algorithm or "fp32")
        return Network(model=file, input_shapes=shapes, name=arch)
    if file is not None:
        return Network(model=file, arch=arch, algorithm=algorithm, variant=variant, input_shapes=shapes)
    if arch is not None:
        return fresh(arch, algorithm or "fp32", variant or "paper", shapes)
    if algorithm or variant:
        raise UsageError("--algorithm and --variant describe a network; name it with --arch.")
    images, labels = load_images(IMAGES)
    taken = all(shape[1:] == images.shape[1:] for shape in shapes.values())
    return Network(model=NETWORK, input_shapes=shapes, images=(images, labels) if taken else None)


def fresh(
    arch: str, algorithm: str, variant: str, shapes: Shapes, sizes: Mapping[str, Any] | None = None
) -> Network:
    """A network with untrained weights, the same each time: for its speed and size.

    shapes: of its inputs, where they are not to be those of its own example; sizes: see `create_model`.
    """
    import torch

    import trainers

    torch.manual_seed(0)
    network = trainers.create_model(arch, **(sizes or {}))
    network = trainers.binarize(network, algorithm=algorithm, variant=variant)
    return Network(model=network, input_shapes=shapes, name=arch, algorithm=algorithm)


def sizes_of(manifest: Manifest) -> dict[str, Any]:
    """The sizes with which `trainers` makes a network of the manifest's architecture, inputs and outputs."""
    from trainers.models import sizes_by_shapes

    inputs, outputs = ([tensor.shape for tensor in part] for part in (manifest.inputs, manifest.outputs))
    return sizes_by_shapes(manifest.model, inputs, outputs)
