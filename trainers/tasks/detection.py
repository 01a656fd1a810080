"""What tasks that find objects in images share: the form of their targets, and how photographs with boxes are
read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchmetrics import MetricCollection

from trainers.boxes import area, clip
from trainers.tasks.average_precision import VocAP
from trainers.tasks.imagenet import MEAN, STD, read_image
from trainers.tasks.images import normalise
from trainers.tasks.reading import Broken, read_each
from trainers.tasks.views import WHOLE, distort, draw_view, look, map_boxes, mirror

EXTENT = 300


class Objects(NamedTuple):
    """Those of one image.

    Attributes:
        boxes: float32 (M, 4), x1, y1, x2, y2; labels: int64 (M,) from 0.
        difficult: bool (M,), which ones it is neither right nor wrong to find.
    """

    boxes: Tensor
    labels: Tensor
    difficult: Tensor


class Detection:
    """Outputs: boxes (N, K, 4) in shares of the image and the probabilities (N, K, 1 + num_classes) of what
    is in them, the first that it is nothing. Targets are those of `collate`.

    Which boxes a network should say something about depends on the network, which brings its own loss.
    """

    sizes: Mapping[str, int | str]
    recipe = "paper"
    metric = "mAP"

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        raise ValueError("The network has no loss for boxes; name one that finds objects, such as ssd300.")

    def metrics(self) -> MetricCollection:
        return MetricCollection({"mAP": VocAP(int(self.sizes["num_classes"]))})


def collate(found: Sequence[Objects], images: Sequence[int]) -> dict[str, Tensor]:
    """The targets of a batch, filled up to the most objects M that an image has, one at least.

    Args:
        images: a number for each.

    Returns:
        "boxes": float32 (N, M, 4) in shares of the image, 0 where filled up; "labels": int64 (N, M), -1 where
        filled up; "difficult": bool (N, M); "image": int64 (N,).
    """
    filled = [
        pad_sequence([*parts, fill], batch_first=True, padding_value=float(fill.flatten()[0]))[:-1]
        for parts, fill in zip(
            zip(*found, strict=True) if found else ((), (), ()),
            (torch.zeros(1, 4), torch.tensor([-1]), torch.tensor([False])),
            strict=True,
        )
    ]
    boxes, labels, difficult = filled
    return {"boxes": boxes, "labels": labels, "difficult": difficult, "image": torch.tensor(images).long()}


class Photos(Detection):
    """Photographs on disk, decoded when asked for: float32 (N, 3, 300, 300), whatever their aspect was.

    In training each is seen through a view drawn for it, mirrored half of the time, and its colours change.
    """

    example_inputs: Any = (torch.zeros(1, 3, EXTENT, EXTENT),)

    def path(self, split: str, index: int) -> Path:
        """Of the photograph."""
        raise NotImplementedError

    def objects(self, split: str, index: int) -> Objects:
        """What is in it, the boxes in pixels. Raises Broken, or what a damaged file can lead to."""
        raise NotImplementedError

    def number(self, split: str, index: int) -> int:
        """By which the photograph is known."""
        return index

    def batch(
        self, split: str, indices: Sequence[int], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        seeds = [None] * len(indices)
        if generator is not None:  # the same for an image, whether others are broken or not
            seeds = torch.randint(2**62, (len(indices),), generator=generator).tolist()
        paths = [self.path(split, index) for index in indices]
        found, places = read_each(
            paths, lambda place: read_photo(paths[place], self.objects(split, indices[place]), seeds[place])
        )
        images = np.array([pixels for pixels, _ in found], np.uint8).reshape(len(found), EXTENT, EXTENT, 3)
        targets = collate([o for _, o in found], [self.number(split, indices[place]) for place in places])
        return normalise(torch.from_numpy(images).movedim(3, 1), MEAN, STD), targets


def read_photo(path: Path, objects: Objects, seed: int | None) -> tuple[np.ndarray, Objects]:
    """uint8 (300, 300, 3) and what is in it, in shares of it. Raises Broken, or what Pillow raises.

    Args:
        objects: their boxes in pixels; seed: of what is random in training, None for the image as it is.
    """
    seen: list[Objects] = []

    def view(image: Image.Image) -> Image.Image:
        boxes = to_shares(objects.boxes, *image.size)
        if seed is None:
            seen.append(objects._replace(boxes=boxes))
            return look(image, WHOLE, EXTENT)
        generator = torch.Generator().manual_seed(seed)
        through = draw_view(boxes, image.width / image.height, generator)
        boxes, inside = map_boxes(boxes, through)
        image = distort(look(image, through, EXTENT), generator)
        if torch.rand((), generator=generator) < 0.5:
            image, boxes = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), mirror(boxes)
        seen.append(Objects(boxes, objects.labels[inside], objects.difficult[inside]))
        return image

    return read_image(path, view), seen[0]


def to_shares(boxes: Tensor, width: int, height: int) -> Tensor:
    """Boxes in pixels -> float32 in shares of the image, of which a pixel more is cut off.

    Raises:
        Broken: one lies beyond the image, is inverted or empty, or no number.
    """
    inside = clip(boxes.double(), width, height)
    right = ((boxes - inside).abs() <= 1).all(1) & (area(inside) > 0)  # NaN is not
    if not right.all():
        corners = ", ".join(f"{value:.6g}" for value in boxes[~right][0].tolist())
        raise Broken(f"one of its boxes, {corners}, is none within its {width}x{height} pixels")
    return (inside / torch.tensor([width, height, width, height])).float()
