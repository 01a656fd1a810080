"""A detector of two stages, compiled: a folder with two artifacts and `detector.json`, which says what lies
between them.

The file names the libraries that belong together, and is written last. Needs numpy, msgspec and TVM alone: a
board may run a detector.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from bibench_tvm.artifact.artifact import Artifact, load
from bibench_tvm.artifact.manifest import MODEL, Sha256, SourceFile
from bibench_tvm.cli.errors import BibenchError, UsageError
from bibench_tvm.cli.whole_file import whole_file
from bibench_tvm.detection.proposals import anchors, centres, decode, propose, roi_align

FILE = "detector.json"
SCHEMA_VERSION = 1
STAGES = ("first", "second")
OUTPUTS = ("boxes", "scores")
_LARGEST = 1 << 20  # bytes

Positive = Annotated[float, msgspec.Meta(gt=0, le=100)]


class DetectorFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that is said of a detector beside its artifacts, which are in the folders `first` and `second`.

    Attributes:
        libraries: sha256 of the library of each stage.
        scales, ratios: of the anchors, see `proposals.anchors`.
        candidates: the anchors that the proposals are chosen from; overlap: of proposals, at most.
    """

    schema_version: int = SCHEMA_VERSION
    kind: Literal["faster_rcnn"] = "faster_rcnn"
    model: str
    source: SourceFile | None
    libraries: dict[str, Sha256]
    scales: Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1, max_length=100)]
    ratios: Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1, max_length=100)]
    candidates: Annotated[int, msgspec.Meta(gt=0)]
    overlap: Annotated[float, msgspec.Meta(ge=0, le=1)]


class Detector:
    """Faster R-CNN as it was in `folder` when it was loaded.

    `run` takes images float32 (N, C, S, S) and gives boxes (N, P, 4), x1, y1, x2, y2 in shares of the image,
    and the probabilities of classes (N, P, classes), the background first.
    """

    def __init__(self, folder: Path, record: DetectorFile, first: Artifact, second: Artifact) -> None:
        self.folder, self.record, self.first, self.second = folder, record, first, second
        shapes = [spec.shape for spec in first.record.outputs], second.record.inputs[0].shape
        try:
            (_, channels, height, width), (_, count), _ = shapes[0]
            self.anchors = anchors(height, width, record.scales, record.ratios)
            self.proposals = shapes[1][0]
            fits = shapes[1][1] == channels and len(self.anchors) == count >= self.proposals
        except ValueError:
            fits = False
        if not fits:
            raise BibenchError(
                f"The two stages in {folder} do not fit each other, or not its {FILE}: compile the detector "
                "again."
            )

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """On this machine. Raises UsageError where the images are not those that it takes."""
        return self._run(images, self.first.run, self.second.run)

    def run_on(self, board: Any, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both networks on a `rpc.session.Board`, what lies between them here."""
        return self._run(
            images,
            lambda array: self.first.run_on(board, array),
            lambda array: self.second.run_on(board, array),
        )

    def files(self) -> list[Path]:
        """Where it lies."""
        return [self.folder / FILE, *self.first.files(), *self.second.files()]

    def sent_to(self, board: Any) -> Callable[..., Any]:
        """What runs both networks there as often as it is called, as `run_on` does."""
        first, second = self.first.sent_to(board), self.second.sent_to(board)
        return lambda images: self._run(images, first, second)

    def _run(
        self, images: np.ndarray, first: Callable[..., Any], second: Callable[..., Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        features, objectness, deltas = first(images)
        record = self.record
        proposed = np.stack(
            [
                propose(scores, moved, self.anchors, record.candidates, self.proposals, record.overlap)
                for scores, moved in zip(objectness, deltas, strict=True)
            ]
        )
        rois = [roi_align(map_, boxes) for map_, boxes in zip(features, proposed, strict=True)]
        scores, moved = second(np.concatenate(rois))
        boxes = decode(moved.reshape(proposed.shape), centres(proposed))
        return boxes, scores.reshape(*proposed.shape[:2], -1)


def is_detector(folder: Path) -> bool:
    return (folder / FILE).is_file()


def write_detector(folder: Path, record: DetectorFile) -> None:
    """Raises BibenchError."""
    with whole_file(folder / FILE) as file:
        file.write(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")


def load_detector(folder: Path) -> Detector:
    """Raises BibenchError where the folder is not a whole detector of this version."""
    path = folder / FILE
    if not path.is_file():
        raise UsageError(f"{folder} is no detector's folder: it has no {FILE}.")
    try:
        if path.stat().st_size > _LARGEST:
            raise BibenchError(
                f"{path} has {path.stat().st_size:,} bytes, and is not what this program writes."
            )
        record = msgspec.json.decode(path.read_bytes(), type=DetectorFile)
    except OSError as error:
        raise BibenchError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BibenchError(
            f"{path} is damaged, or of another version: it is not what this program writes."
        ) from error
    if record.schema_version != SCHEMA_VERSION:
        raise BibenchError(
            f"{path} has schema version {record.schema_version}, and this program reads version "
            f"{SCHEMA_VERSION}. Compile the detector again."
        )
    stages = {name: load(folder / name) for name in STAGES}
    if {name: stage.record.files[MODEL] for name, stage in stages.items()} != record.libraries:
        raise BibenchError(
            f"The two stages in {folder} do not belong together: one of them was compiled without the other. "
            "Compile the detector again."
        )
    return Detector(folder, record, stages["first"], stages["second"])
