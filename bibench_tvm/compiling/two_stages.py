"""A detector of two stages -> two artifacts, and what lies between them in `detector.json`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bibench_tvm.artifact.artifact import digest
from bibench_tvm.artifact.manifest import FILE as MANIFEST
from bibench_tvm.artifact.manifest import MODEL, SourceFile
from bibench_tvm.cli.errors import UsageError
from bibench_tvm.compiling.compiler import CompileOptions, compile_network
from bibench_tvm.compiling.sampling import GivenSamples
from bibench_tvm.detection.detector import STAGES, Detector, DetectorFile, write_detector
from bibench_tvm.importer import kind_of
from bibench_tvm.importer.source import Network

if TYPE_CHECKING:
    from trainers.models.faster_rcnn import FasterRCNN


def two_stages(network: Network) -> Network | None:
    """The network as a live one, where it is a detector of two stages; None where it is another.

    Raises ImportFailed.
    """
    file = network.file
    if file is None:
        from trainers.models.faster_rcnn import FasterRCNN

        return network if isinstance(network.model, FasterRCNN) else None
    if not file.is_file() or kind_of(file) != "checkpoint":
        return None
    from bibench_tvm.importer.from_torch.read import read_checkpoint
    from trainers.torch_file import load_untrusted

    content = load_untrusted(file)
    arch = network.arch or (content.get("arch") if isinstance(content, dict) else None)
    if not isinstance(arch, str) or not arch.startswith("faster_rcnn"):
        return None
    model, metadata = read_checkpoint(file, network.arch, network.algorithm, network.variant)
    named = {"name": network.name or metadata["arch"], "algorithm": metadata["algorithm"]}
    return replace(network, model=model, arch=None, variant=None, **named)


def compile_stages(network: Network, options: CompileOptions, file: Path | None = None) -> Detector:
    """Compile both stages of what `two_stages` returns to `options.out`. file: that it was read from.

    What is verified and calibrated on: the samples, and for the second stage what the network proposes in
    them; without samples, random numbers.

    Raises UsageError, BibenchError.
    """
    from trainers.models.faster_rcnn import OVERLAP, RATIOS, SCALES

    if (options.out / MANIFEST).exists():
        raise UsageError(
            f"{options.out} holds the artifact of a network; name another folder for a detector."
        )
    if options.labels is not None:
        raise UsageError("--labels are of networks that tell classes apart, and this one finds objects.")
    if network.input_shapes:
        raise UsageError("The anchors of a detector are for images of one size, that with which it was made.")
    model: FasterRCNN = network.model.eval()
    name = network.name or type(model).__name__
    samples: dict[str, GivenSamples | None] = dict.fromkeys(STAGES, options.samples)
    if options.samples is not None:
        if isinstance(options.samples, dict):
            raise UsageError("A detector has one input: the samples are one array of images.")
        samples["second"] = _proposed(model, np.asarray(options.samples))
    artifacts = {
        stage: compile_network(
            Network(model=getattr(model, stage), name=f"{name} {stage} stage", algorithm=network.algorithm),
            replace(
                options,
                out=options.out / stage,
                samples=samples[stage],
                dump_ir=options.dump_ir and options.dump_ir / stage,
                standalone=options.standalone and f"{options.standalone}_{stage}",
            ),
        )
        for stage in STAGES
    }
    record = DetectorFile(
        model=name,
        source=SourceFile(file=file.name, sha256=digest(file)) if file else None,
        libraries={stage: artifact.record.files[MODEL] for stage, artifact in artifacts.items()},
        scales=SCALES,
        ratios=RATIOS,
        candidates=model.candidates,
        overlap=OVERLAP,
    )
    write_detector(options.out, record)
    return Detector(options.out, record, artifacts["first"], artifacts["second"])


def _proposed(model: FasterRCNN, images: np.ndarray) -> np.ndarray:
    """What the second stage is given of images (N, C, S, S): (N * P, C', 7, 7)."""
    import torch

    from trainers.proposals import roi_align

    with torch.inference_mode():
        features, objectness, deltas = model.first(torch.from_numpy(images))
        return roi_align(features, model.propose(objectness, deltas)).numpy()
